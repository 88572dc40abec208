//! Songs over HTTP: create, read, list, and what their owners may do with them.

mod words;

use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use self::words::{choose, retry};
use super::creation::Asked;
use super::problem::{self, Problem};
use super::shape::{FieldKind, Shape, field};
use super::who::{Creator, Who};
use super::wishes::{self, CHOOSE, CREATE, RETRY, SELECT};
use super::{Api, Keyed, Operation, Raw, body, creation, resource, song_id};
use crate::id::{self, ShareToken, SongId};
use crate::realtime::frames::Cursor;
use crate::song::event::Event;
use crate::song::phase::{Song, Status};
use crate::song::view::View;
use crate::store;
use crate::store::feed::epoch_of;
use crate::store::songs::{self, Library, Listing, Mark, Sort};

pub fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(resource("/v1/songs").route(web::post().to(create)).route(web::get().to(list)))
        .service(resource("/v1/songs/{id}").route(web::get().to(read)).route(web::delete().to(delete)))
        .service(resource("/v1/songs/{id}/lyrics").route(web::post().to(choose)))
        .service(resource("/v1/songs/{id}/retry").route(web::post().to(retry)))
        .service(resource("/v1/songs/{id}/cancel").route(web::post().to(cancel)))
        .service(resource("/v1/songs/{id}/view").route(web::post().to(viewed)))
        .service(resource("/v1/songs/{id}/variants/{n}").route(web::patch().to(select)))
        .service(resource("/v1/songs/{id}/variants/{n}/share-token").route(web::delete().to(unshare)));
}

/// Creates a song: durable and paid before the answer, before any provider is called (SONG-1, CRED-2).
async fn create(
    api: web::Data<Api>,
    Creator(who): Creator,
    request: HttpRequest,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let key = idempotency_key(request.headers())?;
    let now = api.clock().now();
    let body = body(CREATE, &raw.0)?;
    let (song, content_hash) = wishes::song(&api, &who.0.user, &body, now)?;
    let refuse_when_busy = body.text("on_busy") == Some("refuse");
    begin(&api, &who, Asked { song, content_hash, key, refuse_when_busy }).await
}

/// Makes a new song durable, and answers with it or with what it is a replay of.
pub(super) async fn begin(api: &web::Data<Api>, who: &Who, asked: Asked) -> Result<HttpResponse, Problem> {
    let made = creation::create(api, who, asked).await?;
    let mut response = if made.replayed { HttpResponse::Ok() } else { HttpResponse::Accepted() };
    if made.replayed {
        response.insert_header(("Idempotent-Replayed", "true"));
    }
    for header in problem::headers(&made.allowance) {
        response.insert_header(header);
    }
    Ok(with_song(&mut response, View { song: &made.song, rules: &api.world.rules }))
}

/// Answers with what was made of a creation that came before, where the limits were not asked again.
pub(super) fn as_before(api: &Api, song: &Song) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header(("Idempotent-Replayed", "true"));
    with_song(&mut response, View { song, rules: &api.world.rules })
}

fn with_song(response: &mut actix_web::HttpResponseBuilder, view: View) -> HttpResponse {
    response
        .insert_header((header::LOCATION, format!("/v1/songs/{}", view.song.id)))
        .insert_header((header::ETAG, etag(view.song.seq)))
        .json(view)
}

/// A song changes visibly exactly when its `seq` does.
pub(super) fn etag(seq: i64) -> String {
    format!("\"{seq}\"")
}

/// 1 to 255 visible characters (`api.md`).
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("Idempotency-Key");
    let Some(value) = values.next() else { return Ok(None) };
    let fits = |value: &HeaderValue| {
        let text = value.to_str().ok()?;
        ((1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .then(|| text.to_owned())
    };
    match (fits(value), values.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(Problem::invalid_at(
            "",
            "the header Idempotency-Key must be one value of 1 to 255 visible ASCII characters without blanks",
        )),
    }
}

pub(super) async fn own(api: &Api, who: &Who, id: SongId) -> Result<Song, Problem> {
    let question = async |client: &deadpool_postgres::Object| songs::load_own(client, id, &who.0.user).await;
    let stored = store::ask(&api.world.pool, question).await?;
    stored.map(|stored| stored.song).ok_or_else(Problem::not_found)
}

async fn read(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let song = own(&api, &who, song_id(&path)?).await?;
    let etag = etag(song.seq);
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let same = |tag: &str| tag.trim().trim_start_matches("W/") == etag || tag.trim() == "*";
    if known.is_some_and(|tags| tags.split(',').any(same)) {
        return Ok(HttpResponse::NotModified().insert_header((header::ETAG, etag)).finish());
    }
    Ok(HttpResponse::Ok()
        .insert_header((header::ETAG, etag))
        .insert_header((header::CACHE_CONTROL, "private, no-cache"))
        .json(View { song: &song, rules: &api.world.rules }))
}

/// Tells a song what its owner wants, and answers with the song as it then is.
async fn tell(api: &Api, who: Who, id: &str, event: Event) -> Result<HttpResponse, Problem> {
    let told = api.directories.tell(song_id(id)?, Some(who.0.user), event, None).await?;
    Ok(HttpResponse::Ok()
        .insert_header((header::ETAG, etag(told.song.seq)))
        .json(View { song: &told.song, rules: &api.world.rules }))
}

/// Stops a song and refunds what was not delivered (SONG-11). Repeatable.
async fn cancel(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    body(&[], &raw.0)?;
    tell(&api, who, &path, Event::Cancelled).await
}

/// The owner opened it: `ready` becomes `complete` (SONG-2, SONG-6).
async fn viewed(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    body(&[], &raw.0)?;
    tell(&api, who, &path, Event::Viewed).await
}

async fn select(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<(String, String)>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let body = body(SELECT, &raw.0)?;
    let (id, variant_number) = variant(&path)?;
    let selected = body.flag("selected").unwrap_or(false);
    tell(&api, who, id, Event::Selected { variant_number, selected }).await
}

/// Takes a share link back: whoever has it sees nothing any more, open sockets included (protocol.md 6). The variant gets
/// a new one.
async fn unshare(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let (id, variant_number) = variant(&path)?;
    let share_token = ShareToken(id::secret());
    tell(&api, who, id, Event::Unshared { variant_number, share_token }).await
}

/// Which variant of which song a path names.
fn variant((id, number): &(String, String)) -> Result<(&str, i16), Problem> {
    Ok((id, number.parse().map_err(|_| Problem::not_found())?))
}

/// Deletes a song; its tombstone answers 204 ever after, its key 404 (SONG-12).
async fn delete(api: web::Data<Api>, who: Who, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    let id = song_id(&path)?;
    // A tombstone is not woken; somebody else's is not told from nothing.
    let stored = store::ask(&api.world.pool, async |client| songs::load(client, id).await).await?;
    let owned = stored.filter(|stored| stored.song.user == who.0.user);
    match owned {
        None => Err(Problem::not_found()),
        Some(stored) if stored.song.phase == crate::song::phase::Phase::Deleted => {
            Ok(HttpResponse::NoContent().finish())
        }
        Some(_) => {
            api.directories.tell(id, Some(who.0.user), Event::Deleted, None).await?;
            Ok(HttpResponse::NoContent().finish())
        }
    }
}

// --- the library ---

const GROUPS: &[&str] = &["all", "generating", "to_review", "to_play", "complete", "failed"];
const LIMIT_MAX: i64 = 100;

const LIST: Shape = &[
    field("group", FieldKind::Word(GROUPS), "Which songs; `all` (default) has the cancelled ones, too."),
    field("q", FieldKind::Text { max: 100 }, "Part of the title."),
    field("sort", FieldKind::Word(&["smart", "newest"]), "`smart` (default): what waits for you first."),
    field("limit", FieldKind::Integer { min: 1, max: LIMIT_MAX }, "Songs a page; default 20."),
    field("cursor", FieldKind::Text { max: 200 }, "`next_cursor` of the page before."),
];

/// The library (SONG-7): a page, the counts of all groups, and what waits for the owner.
async fn list(api: web::Data<Api>, who: Who, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let query = query(LIST, request.query_string())?;
    let sort = if query.text("sort") == Some("newest") { Sort::Newest } else { Sort::Smart };
    let group = query.text("group").unwrap_or("all");
    let after = query.text("cursor").map(|cursor| {
        mark(cursor, sort).ok_or_else(|| Problem::invalid_at("/cursor", "is not of this listing"))
    });
    let statuses: Vec<Status> = match group {
        "all" => Vec::new(),
        group => Status::ALL.into_iter().filter(|status| group_of(*status) == Some(group)).collect(),
    };
    let listing = Listing {
        user: &who.0.user,
        statuses: &statuses,
        title: query.text("q"),
        sort,
        after: after.transpose()?,
        limit: query.integer("limit").unwrap_or(20),
    };
    let question = async |client: &deadpool_postgres::Object| songs::library(client, &listing).await;
    let library = store::ask(&api.world.pool, question).await?;
    let newest = Cursor { epoch: epoch_of(&who.0.user, library.log_epoch), n: library.u };
    Ok(HttpResponse::Ok()
        .insert_header(("Songs-Cursor", newest.to_string()))
        .insert_header((header::CACHE_CONTROL, "private, no-cache"))
        .json(page(&api, &library, sort)))
}

fn page(api: &Api, library: &Library, sort: Sort) -> Value {
    let count = |group: &str| -> i64 {
        library.counts.iter().filter(|(status, _)| group_of(*status) == Some(group)).map(|(_, n)| n).sum()
    };
    let counts: Map<String, Value> =
        GROUPS[1..].iter().map(|group| ((*group).to_owned(), json!(count(group)))).collect();
    json!({
        "songs": library.songs.iter().map(|song| View { song, rules: &api.world.rules }).collect::<Vec<_>>(),
        "next_cursor": library.next.map(|mark| cursor(mark, sort)),
        "counts": counts,
        "badge": count("to_review") + count("to_play"),
    })
}

const fn group_of(status: Status) -> Option<&'static str> {
    match status {
        Status::Pending | Status::GeneratingLyrics | Status::GeneratingMusic => Some("generating"),
        Status::LyricsReady => Some("to_review"),
        Status::Ready => Some("to_play"),
        Status::Complete => Some("complete"),
        Status::Failed => Some("failed"),
        Status::Cancelled => None,
    }
}

/// Opaque to clients; says which sorting it belongs to.
fn cursor(mark: Mark, sort: Sort) -> String {
    let sort = if sort == Sort::Smart { 's' } else { 'n' };
    let viewed = mark.viewed.map_or(String::new(), |millis| millis.to_string());
    URL_SAFE_NO_PAD.encode(format!("{sort}.{}.{viewed}.{}", mark.rank, mark.id))
}

fn mark(cursor: &str, sort: Sort) -> Option<Mark> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let mut parts = text.split('.');
    let same = parts.next()? == if sort == Sort::Smart { "s" } else { "n" };
    let rank = parts.next()?.parse().ok()?;
    let viewed = match parts.next()? {
        "" => None,
        millis => Some(millis.parse().ok()?),
    };
    let id = parts.next()?.parse().ok()?;
    (same && parts.next().is_none()).then_some(Mark { rank, viewed, id })
}

/// What a cursor says, written again.
#[cfg(fuzzing)]
pub(crate) fn rewritten(text: &str) -> Option<String> {
    let sort = [Sort::Smart, Sort::Newest].into_iter().find(|sort| mark(text, *sort).is_some())?;
    mark(text, sort).map(|mark| cursor(mark, sort))
}

/// Reads a query string by the same shapes as bodies: numbers are written as such.
pub(super) fn query(shape: Shape, text: &str) -> Result<super::shape::Body, Problem> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(text)
        .map_err(|_| Problem::invalid_at("", "the query cannot be read"))?;
    let mut fields = Map::new();
    for (name, value) in pairs.into_inner() {
        let kind = shape.iter().find(|field| field.name == name).map(|field| field.kind);
        let value = match (kind, value.parse::<i64>()) {
            (Some(FieldKind::Integer { .. }), Ok(number)) => json!(number),
            _ => json!(value),
        };
        if fields.insert(name.clone(), value).is_some() {
            return Err(Problem::invalid(vec![super::shape::error_at(&name, "is there twice")]));
        }
    }
    body(shape, Value::Object(fields).to_string().as_bytes())
}

pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/v1/songs",
        summary: "Create a song",
        doc: "Durable and paid before it is answered; making it goes on whether or not anybody waits. \
              With the header `Idempotency-Key` (1-255 visible characters, kept for ever) asking again \
              answers with the same song and charges nothing. Without it, the same again within 5 s while \
              the song is under way is the same song, too. `X-RateLimit-Limit`, `-Remaining` and `-Reset` (unix \
              seconds) tell what your plan leaves; 429 tells when to come again.",
        body: Some(CREATE),
        answers: &[
            (202, "The song; `Location` says where it is."),
            (200, "A replay: the song as it is now, with `Idempotent-Replayed: true`."),
            (400, "Every wrong field, with a pointer to each."),
            (402, "`required` and `available` credits."),
            (422, "The key came with other content; or no provider can do this."),
            (429, "The plan's limit of the minute, the day, or of songs at once (`on_busy: refuse`)."),
        ],
        returns: Some("Song"),
        keyed: Keyed::Optional,
        ..Operation::BASE
    },
    Operation {
        path: "/v1/songs",
        summary: "The library",
        doc: "A page of songs, how many there are in each group, and `badge`: how many wait for you. \
              The header `Songs-Cursor` is a cursor for the socket's `since`.",
        query: LIST,
        answers: &[(200, "The page.")],
        returns: Some("Library"),
        ..Operation::BASE
    },
    Operation {
        path: "/v1/songs/{id}",
        summary: "One song",
        doc: "With `ETag`; 304 for `If-None-Match`. Other people's songs are 404.",
        answers: &[(200, "The song."), (304, "It has not changed.")],
        returns: Some("Song"),
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/songs/{id}/lyrics",
        summary: "Choose the lyrics",
        doc: "One of the variants, or a text of your own, which becomes a further variant. Starts the music.",
        body: Some(CHOOSE),
        answers: &[
            (200, "The song."),
            (402, "The music cannot be paid."),
            (409, "It is not `lyrics_ready`."),
        ],
        returns: Some("Song"),
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/songs/{id}/retry",
        summary: "Try a failed song again",
        doc: "Only the phase that failed; reserves its price again. At most 5 times, 3 an hour. After \
              moderation or invalid input the words must change.",
        body: Some(RETRY),
        answers: &[
            (200, "The song."),
            (402, "It cannot be paid."),
            (409, "It has not failed, or needs other words."),
            (429, "Not now, or never again."),
        ],
        returns: Some("Song"),
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/songs/{id}/cancel",
        summary: "Stop a song",
        doc: "Refunds what was not delivered. Repeatable.",
        answers: &[(200, "The song."), (409, "It ended otherwise.")],
        returns: Some("Song"),
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/songs/{id}/view",
        summary: "The owner opened it",
        doc: "Sets `last_viewed_at`; `ready` becomes `complete`.",
        answers: &[(200, "The song.")],
        returns: Some("Song"),
        ..Operation::BASE
    },
    Operation {
        method: "patch",
        path: "/v1/songs/{id}/variants/{n}",
        summary: "Pick the favourite variant",
        doc: "At most one variant is selected.",
        body: Some(SELECT),
        answers: &[(200, "The song.")],
        returns: Some("Song"),
        ..Operation::BASE
    },
    Operation {
        method: "delete",
        path: "/v1/songs/{id}/variants/{n}/share-token",
        summary: "Take a share link back",
        doc: "Who follows it hears that the clip is gone, and it shows nothing any more. The variant gets a new \
              `share_token`, which nobody knows but its owner.",
        answers: &[(200, "The song.")],
        returns: Some("Song"),
        ..Operation::BASE
    },
    Operation {
        method: "delete",
        path: "/v1/songs/{id}",
        summary: "Delete a song",
        doc: "Stops and refunds it if it is under way. Repeatable; its idempotency key stays used.",
        answers: &[(204, "It is gone.")],
        ..Operation::BASE
    },
];
