//! Orders (CRED-8): several songs, each in several variations with a style of its own, asked for and followed together.
//!
//! Not here: making a song (`creation`), what is made of one that has only some of its variations (`song::step`).

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::admin::Operator;
use super::creation::{self, Asked};
use super::problem::{FieldError, Kind, Problem};
use super::shape::{self, Body, FieldKind, Shape, error_at, field};
use super::songs::{idempotency_key, query};
use super::who::{Creator, Who};
use super::wishes::{self, LYRICS, PROMPT, PROVIDER, TAGS, TITLE_CHARS_MAX};
use super::{Api, BodyMax, Keyed, Operation, Raw, body, resource};
use crate::id::{self, TaskId, UserId};
use crate::song::event::Event;
use crate::song::parts::MusicOptions;
use crate::song::phase::Status;
use crate::song::wish::{Variation, Wish};
use crate::store;
use crate::store::orders::{self, NewOrder, Order, Place, Placed, Turn};

const SONGS_MAX: usize = 20;
const VARIATIONS_MAX: usize = 3;
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
const DATE: FieldKind = FieldKind::Text { max: 10 };

const VARIATION: Shape = &[
    field(
        "style_tags",
        FieldKind::Texts { max: 10, each_max: 100 },
        "What it has beside the song's own style.",
    ),
    field("modifier", FieldKind::Text { max: 100 }, "The same, as one text: `slower, with strings`."),
];
const SONG: Shape = &[
    field("title", FieldKind::Text { max: TITLE_CHARS_MAX }, "Of the song."),
    field("prompt", PROMPT, "What it is about.").required(),
    field("lyrics", LYRICS, "Your own words, sung as they are."),
    field("style_tags", TAGS, "How it sounds, in all of its variations."),
    field("variations", FieldKind::Bodies { max: VARIATIONS_MAX, each: VARIATION }, "How they differ.")
        .required(),
];
const ORDER: Shape = &[
    field("package", FieldKind::Text { max: 50 }, "What was bought, by your name for it.").required(),
    field("occasion_date", DATE, "The day it is for: `YYYY-MM-DD`."),
    field("songs", FieldKind::Bodies { max: SONGS_MAX, each: SONG }, "The songs.").required(),
    field("provider", PROVIDER, "Who makes them; `auto` (default) chooses one that can."),
];
const SELECTION: Shape = &[
    field("song_id", FieldKind::Text { max: 36 }, "A song of the order.").required(),
    field("variant_number", FieldKind::Integer { min: 1, max: 5 }, "Your choice of its variations.")
        .required(),
];
const CHANGE: Shape = &[
    field("occasion_date", DATE, "Another day: `YYYY-MM-DD`."),
    field("selections", FieldKind::Bodies { max: SONGS_MAX, each: SELECTION }, "The variations you choose."),
    field("complete", FieldKind::Flag, "Makes what is missing; what is there is not made again."),
];
const PAYMENT: Shape =
    &[field("payment_reference", FieldKind::Text { max: 200 }, "The payment's name where it was made.")
        .required()];

pub fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(
            resource("/v1/orders")
                .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
                .app_data(BodyMax(BODY_BYTES_MAX))
                .route(web::post().to(place))
                .route(web::get().to(list)),
        )
        .service(resource("/v1/orders/{id}").route(web::get().to(read)).route(web::patch().to(change)))
        .service(resource("/v1/orders/{id}/payment").route(web::post().to(pay)));
}

// --- placing --------------------------------------------------------------------------------------

/// Takes the order down, then makes its songs. Refused as a whole only where none of them could be made.
async fn place(
    api: web::Data<Api>,
    Creator(who): Creator,
    request: HttpRequest,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let key = idempotency_key(request.headers())?;
    let (body, errors) = shape::read_partly(ORDER, &raw.0);
    let provider = body.text("provider").unwrap_or("auto");
    let (occasion_date, songs) = check(&api, provider, &body, errors)?;
    let new = NewOrder {
        user: who.0.user.clone(),
        start: api.creation.start_of(who.0.user.as_str()),
        key,
        content_hash: wishes::hash(&body),
        package: body.owned("package").unwrap_or_default(),
        occasion_date,
        provider: provider.to_owned(),
        songs,
        now: api.clock().now(),
    };
    let (replayed, order, problems) = to_its_end(placed(api, who, new)).await?;
    let mut response = if replayed { HttpResponse::Ok() } else { HttpResponse::Accepted() };
    if replayed {
        response.insert_header(("Idempotent-Replayed", "true"));
    } else {
        response.insert_header((header::LOCATION, format!("/v1/orders/{}", order.id)));
    }
    Ok(response.json(view(&order, &problems)))
}

/// A task of its own: a request ends early when its client hangs up, and whoever hangs up has ordered all the same.
async fn to_its_end<T: 'static>(
    work: impl Future<Output = Result<T, Problem>> + 'static,
) -> Result<T, Problem> {
    actix_web::rt::spawn(work).await.unwrap_or_else(|_| Err(Problem::unavailable()))
}

/// Taken down and begun, or neither: with whether it was there before, and of each song the problem, if there is one. Of an
/// order that was there before, the songs are made that nobody came to make: whoever placed it may have crashed.
async fn placed(
    api: web::Data<Api>,
    who: Who,
    new: NewOrder,
) -> Result<(bool, Order, Vec<Option<Problem>>), Problem> {
    let fresh = id::fresh();
    let placing = async |client: &deadpool_postgres::Object| orders::place(client, fresh, &new).await;
    let (id, placed) = match store::ask(&api.world.pool, placing).await? {
        Placed::Placed(turn) => (fresh, Some(turn)),
        Placed::Replay(id) => {
            let order = read_own(&api, &who.0.user, id).await?.ok_or_else(Problem::unavailable)?;
            if order.songs.iter().all(|place| place.song_id.is_some()) {
                return Ok((true, order, Vec::new()));
            }
            take_turn(&api, id).await?;
            (id, None)
        }
        Placed::Claimed => return Err(Problem::claimed()),
        Placed::KeyMismatch => {
            let detail = "This Idempotency-Key came with another order before.";
            return Err(Problem::new(Kind::IdempotencyMismatch, detail));
        }
    };
    let problems = begin(&api, &who, &own(&api, &who.0.user, id).await?).await;
    if let Some(problem) = refused(&problems) {
        // Whoever came later leaves it: songs of it may still be on their way for who placed it.
        if let Some(turn) = placed {
            let withdrawing =
                async |client: &deadpool_postgres::Object| orders::withdraw(client, id, turn).await;
            store::ask(&api.world.pool, withdrawing).await?;
        }
        return Err(problem);
    }
    Ok((id != fresh, own(&api, &who.0.user, id).await?, problems))
}

/// Whoever placed it may take it back at this very moment, but not from here on; the same again places it anew.
async fn take_turn(api: &Api, order: Uuid) -> Result<Turn, Problem> {
    let taking = async |client: &deadpool_postgres::Object| orders::take_turn(client, order).await;
    store::ask(&api.world.pool, taking).await?.ok_or_else(Problem::unavailable)
}

/// The day it is for and the songs as they are taken down; or all that is wrong, before anything is.
fn check(
    api: &Api,
    provider: &str,
    body: &Body,
    mut errors: Vec<FieldError>,
) -> Result<(Option<String>, Value), Problem> {
    let occasion_date = date(body).unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    let (mut songs, mut wishes, mut lacking) = (Vec::new(), Vec::new(), Vec::new());
    for (index, song) in body.bodies("songs").iter().enumerate() {
        let place = format!("/songs/{index}");
        let ordered = match Ordered::read(song) {
            Ok(ordered) => ordered,
            Err(wrong) => {
                errors.extend(below(&place, wrong));
                continue;
            }
        };
        let mut wish = ordered.wish();
        if let Err(problem) = wishes::settle(api, Some(provider), &mut wish) {
            let found = match problem.kind() {
                Kind::InvalidInput => &mut errors,
                Kind::UnsupportedByProvider => &mut lacking,
                _ => return Err(problem),
            };
            // Who makes them is said once for all songs.
            match problem.errors() {
                [one] if one.pointer == "/provider" && found.contains(one) => {}
                [one] if one.pointer == "/provider" => found.push(one.clone()),
                some => found.extend(below(&place, some.to_vec())),
            }
        }
        wishes.push(wish);
        songs.push(ordered.into_json());
    }
    if !errors.is_empty() {
        errors.append(&mut lacking);
        return Err(Problem::invalid(errors));
    }
    if !lacking.is_empty() {
        let able = wishes::able(&api.world.providers, &wishes);
        return Err(wishes::unsupported_by(provider, &able, lacking));
    }
    Ok((occasion_date, Value::Array(songs)))
}

/// One of an order's songs, with its variations: read and cleaned (SEC-2), and kept as it was read.
struct Ordered {
    song: Body,
    variations: Vec<Body>,
}

impl Ordered {
    fn read(song: &Value) -> Result<Self, Vec<FieldError>> {
        let song = shape::read(SONG, song.to_string().as_bytes())?;
        let (mut variations, mut errors) = (Vec::new(), Vec::new());
        for (index, one) in song.bodies("variations").iter().enumerate() {
            match shape::read(VARIATION, one.to_string().as_bytes()) {
                Ok(one) => variations.push(one),
                Err(wrong) => errors.extend(below(&format!("/variations/{index}"), wrong)),
            }
        }
        if errors.is_empty() { Ok(Self { song, variations }) } else { Err(errors) }
    }

    fn wish(&self) -> Wish {
        let Self { song, variations } = self;
        let variation = |one: &Body| Variation {
            style_tags: one.texts("style_tags").into_iter().chain(one.owned("modifier")).collect(),
        };
        Wish {
            title: song.owned("title"),
            prompt: song.owned("prompt"),
            lyrics: song.owned("lyrics"),
            options: MusicOptions { style_tags: song.texts("style_tags"), ..MusicOptions::default() },
            variants: u8::try_from(variations.len()).unwrap_or(u8::MAX),
            variations: variations.iter().map(variation).collect(),
            ..wishes::bare_wish()
        }
    }

    fn into_json(self) -> Value {
        self.song.with_bodies("variations", self.variations).into()
    }
}

fn below(place: &str, errors: Vec<FieldError>) -> impl Iterator<Item = FieldError> {
    errors.into_iter().map(move |error| FieldError { pointer: format!("{place}{}", error.pointer), ..error })
}

fn date(body: &Body) -> Result<Option<String>, FieldError> {
    let Some(text) = body.text("occasion_date") else { return Ok(None) };
    match text.parse::<jiff::civil::Date>() {
        // One way to write a day, of the several that are read; the database knows no year 0.
        Ok(date) if date.year() >= 1 && date.to_string() == text => Ok(Some(date.to_string())),
        _ => Err(error_at("occasion_date", "must be a day: YYYY-MM-DD")),
    }
}

/// The problem of an order of which nothing could be made, for reasons that are known.
fn refused(problems: &[Option<Problem>]) -> Option<Problem> {
    let all = problems.iter().all(|one| one.as_ref().is_some_and(|one| one.status().is_client_error()));
    all.then(|| problems.iter().flatten().next().cloned()).flatten()
}

// --- making what is missing -----------------------------------------------------------------------

/// Makes the songs that are not there. Of each the problem, if there is one. The journal takes them together, in their
/// order: one commit, as a rule.
async fn begin(api: &web::Data<Api>, who: &Who, order: &Order) -> Vec<Option<Problem>> {
    let made = order.songs.iter().map(|place| async move {
        match place.song_id {
            Some(_) => None,
            None => create(api, who, order, place).await.err(),
        }
    });
    join_all(made).await
}

/// Makes every song and every variation that is missing and not under way. Of each song the problem, if there is one.
async fn complete(api: &web::Data<Api>, who: &Who, order: &Order) -> Vec<Option<Problem>> {
    join_all(order.songs.iter().map(|place| async { one(api, who, order, place).await.err() })).await
}

async fn one(api: &web::Data<Api>, who: &Who, order: &Order, place: &Place) -> Result<(), Problem> {
    let Some(id) = place.song_id else { return create(api, who, order, place).await };
    let task = TaskId(id::fresh());
    let event = match place.status {
        Some(Status::Failed) => Event::Retried { task, prompt: None, lyrics: None, unable: Vec::new() },
        Some(Status::Ready | Status::Complete) if place.done < place.total => Event::Resumed { task },
        _ => return Ok(()),
    };
    if place.deleted {
        return Ok(());
    }
    api.directories.tell(id, Some(who.0.user.clone()), event, None).await?;
    Ok(())
}

/// Its key makes it once, however often it is asked for.
async fn create(api: &web::Data<Api>, who: &Who, order: &Order, place: &Place) -> Result<(), Problem> {
    let mut wish = Ordered::read(&place.request).map_err(Problem::invalid)?.wish();
    wishes::settle(api, Some(&order.provider), &mut wish)?;
    let song = wishes::pending(&who.0.user, wish, json!({}), api.clock().now());
    let content_hash = wishes::hash_of(&json!({"order": order.id, "position": place.position}));
    let key = Some(format!("order {} {}", order.id, place.position));
    let made = creation::create(api, who, Asked { song, content_hash, key, refuse_when_busy: false }).await?;
    let id = made.song.id;
    let link =
        async |client: &deadpool_postgres::Object| orders::link(client, order.id, place.position, id).await;
    // What cannot be noted is found by its key.
    if let Err(error) = store::ask(&api.world.pool, link).await {
        tracing::warn!(%error, order.id = %order.id, "a song of an order could not be noted");
    }
    Ok(())
}

// --- reading and changing -------------------------------------------------------------------------

async fn own(api: &Api, user: &UserId, id: Uuid) -> Result<Order, Problem> {
    read_own(api, user, id).await?.ok_or_else(Problem::not_found)
}

async fn read_own(api: &Api, user: &UserId, id: Uuid) -> Result<Option<Order>, Problem> {
    let question = async |client: &deadpool_postgres::Object| orders::load(client, id, user).await;
    Ok(store::ask(&api.world.pool, question).await?)
}

fn order_id(path: &str) -> Result<Uuid, Problem> {
    path.parse().map_err(|_| Problem::not_found())
}

fn view(order: &Order, problems: &[Option<Problem>]) -> Value {
    let songs = order.songs.iter().enumerate().map(|(index, place)| {
        let mut song = json!({
            "song_id": place.song_id,
            "title": place.title,
            "status": if place.deleted { Some("deleted") } else { place.status.map(Status::as_str) },
            "done": place.done,
            "total": place.total,
            "selected": place.selected,
        });
        if let Some(Some(problem)) = problems.get(index) {
            song["problem"] = problem.body();
        }
        song
    });
    json!({
        "id": order.id,
        "status": status(order),
        "package": order.package,
        "occasion_date": order.occasion_date,
        "songs": songs.collect::<Vec<_>>(),
        "payment_reference": order.payment_reference,
        "created_at": order.created_at.rfc3339(),
    })
}

/// A song that its owner deleted is not missed.
fn status(order: &Order) -> &'static str {
    let mut there = order.songs.iter().filter(|place| !place.deleted);
    let under_way = |place: &Place| {
        matches!(
            place.status,
            Some(Status::Pending | Status::GeneratingLyrics | Status::LyricsReady | Status::GeneratingMusic)
        )
    };
    if there.clone().any(under_way) {
        "making"
    } else if there.all(|place| place.done == place.total) {
        "complete"
    } else {
        "incomplete"
    }
}

async fn read(api: web::Data<Api>, who: Who, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    let order = own(&api, &who.0.user, order_id(&path)?).await?;
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "private, no-cache")).json(view(&order, &[])))
}

const LIST: Shape = &[
    field("limit", FieldKind::Integer { min: 1, max: 100 }, "Orders a page; default 20."),
    field("cursor", FieldKind::Text { max: 36 }, "`next_cursor` of the page before."),
];

async fn list(api: web::Data<Api>, who: Who, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let query = query(LIST, request.query_string())?;
    let wrong = |_| Problem::invalid_at("/cursor", "is not of this listing");
    let before = query.text("cursor").map(|cursor| cursor.parse::<Uuid>().map_err(wrong)).transpose()?;
    let limit = query.integer("limit").unwrap_or(20);
    let question =
        async |client: &deadpool_postgres::Object| orders::list(client, &who.0.user, before, limit + 1).await;
    let mut found = store::ask(&api.world.pool, question).await?;
    let more = i64::try_from(found.len()).is_ok_and(|found| found > limit);
    found.truncate(usize::try_from(limit).unwrap_or(0));
    let next = found.last().filter(|_| more).map(|order| order.id);
    let orders: Vec<Value> = found.iter().map(|order| view(order, &[])).collect();
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "private, no-cache"))
        .json(json!({ "orders": orders, "next_cursor": next })))
}

/// Checks all of what is asked, then does it; all of it can be asked again.
async fn change(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let (body, mut errors) = shape::read_partly(CHANGE, &raw.0);
    let completing = body.flag("complete") == Some(true);
    if completing {
        api.creation.dam(&who.0, api.clock().now())?;
    }
    let order = own(&api, &who.0.user, order_id(&path)?).await?;
    let occasion_date = date(&body).unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    let selections = selections(&order, &body, &mut errors);
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let (order, problems) =
        to_its_end(changed(api, who, order, occasion_date, selections, completing)).await?;
    Ok(HttpResponse::Ok().json(view(&order, &problems)))
}

async fn changed(
    api: web::Data<Api>,
    who: Who,
    order: Order,
    occasion_date: Option<String>,
    selections: Vec<(usize, i16)>,
    completing: bool,
) -> Result<(Order, Vec<Option<Problem>>), Problem> {
    for (place, variant_number) in selections {
        let event = Event::Selected { variant_number, selected: true };
        let Some(song) = order.songs[place].song_id else { continue };
        api.directories.tell(song, Some(who.0.user.clone()), event, None).await?;
    }
    if let Some(date) = occasion_date {
        let set =
            async |client: &deadpool_postgres::Object| orders::set_occasion(client, order.id, &date).await;
        store::ask(&api.world.pool, set).await?;
    }
    let mut problems = Vec::new();
    if completing {
        take_turn(&api, order.id).await?;
        problems = complete(&api, &who, &order).await;
    }
    Ok((own(&api, &who.0.user, order.id).await?, problems))
}

/// Which song's which variant is chosen: by the song's place in the order.
fn selections(order: &Order, body: &Body, errors: &mut Vec<FieldError>) -> Vec<(usize, i16)> {
    let mut chosen = Vec::new();
    for (index, one) in body.bodies("selections").iter().enumerate() {
        let at = format!("/selections/{index}");
        let one = match shape::read(SELECTION, one.to_string().as_bytes()) {
            Ok(one) => one,
            Err(wrong) => {
                errors.extend(below(&at, wrong));
                continue;
            }
        };
        let id = one.text("song_id").and_then(|id| id.parse().ok());
        let place =
            order.songs.iter().position(|place| id.is_some() && place.song_id == id && !place.deleted);
        let number = one.integer("variant_number").unwrap_or_default();
        match place {
            Some(place) if number <= order.songs[place].total => {
                chosen.push((place, i16::try_from(number).unwrap_or(i16::MAX)));
            }
            Some(_) => errors.push(FieldError {
                pointer: format!("{at}/variant_number"),
                detail: "the song has fewer variations".to_owned(),
            }),
            None => errors.push(FieldError {
                pointer: format!("{at}/song_id"),
                detail: "is not a song of this order".to_owned(),
            }),
        }
    }
    chosen
}

/// The shop says what the order was paid with, once.
async fn pay(
    api: web::Data<Api>,
    _: Operator,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let body = body(PAYMENT, &raw.0)?;
    let id = order_id(&path)?;
    let reference = body.text("payment_reference").unwrap_or_default();
    let paying = async |client: &deadpool_postgres::Object| orders::pay(client, id, reference).await;
    let (user, paid) = store::ask(&api.world.pool, paying).await?.ok_or_else(Problem::not_found)?;
    if paid != reference {
        return Err(Problem::new(Kind::WrongState, "It was paid with another reference before."));
    }
    Ok(HttpResponse::Ok().json(view(&own(&api, &user, id).await?, &[])))
}

pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/v1/orders",
        summary: "Order songs in variations",
        doc: "Each song is made in up to 3 variations, each with a style of its own, and costs as a song of so many \
              variants does; the songs count against your limits one by one. A song that was refused has a `problem` and no \
              `song_id`. With the header `Idempotency-Key` asking again answers with the same order.",
        body: Some(ORDER),
        answers: &[
            (202, "The order; `Location` says where it is."),
            (
                200,
                "A replay: the order as it is now, with `Idempotent-Replayed: true`. Songs that it lacks are made.",
            ),
            (400, "Every wrong field, with a pointer to each."),
            (402, "Not even one of the songs can be paid."),
            (413, "Over 2 MiB."),
            (422, "The key came with another order; or no provider can do this."),
            (429, "The plan's limits allow none of the songs."),
        ],
        returns: Some("Order"),
        keyed: Keyed::Optional,
        ..Operation::BASE
    },
    Operation {
        path: "/v1/orders",
        summary: "Your orders",
        doc: "Newest first.",
        query: LIST,
        answers: &[(200, "The page.")],
        returns: Some("Orders"),
        ..Operation::BASE
    },
    Operation {
        path: "/v1/orders/{id}",
        summary: "One order",
        doc: "How far each song is: `done` of `total` variations, and which one is `selected`. `making` while any of them \
              is under way, then `complete`, or `incomplete` where something is missing.",
        answers: &[(200, "The order.")],
        returns: Some("Order"),
        ..Operation::BASE
    },
    Operation {
        method: "patch",
        path: "/v1/orders/{id}",
        summary: "Choose, or have made what is missing",
        doc: "`complete` makes songs that could not be paid before, tries failed ones again (both are charged), and makes \
              variations that are missing of a song that is there (paid for already). What is there is never made \
              again. Limits are those of a song's retries; what is refused stands at its song as `problem`.",
        body: Some(CHANGE),
        answers: &[
            (200, "The order."),
            (400, "Every wrong field; nothing was changed."),
            (429, "Far too many requests."),
        ],
        returns: Some("Order"),
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/orders/{id}/payment",
        summary: "An order was paid",
        doc: "For the shop (role `service`). Repeatable with the same reference.",
        body: Some(PAYMENT),
        answers: &[(200, "The order."), (403, "For operators."), (409, "Paid with another reference.")],
        returns: Some("Order"),
        ..Operation::BASE
    },
];
