//! Further tasks on finished songs (PROV-2): what makes a child song (`extend`, `replace-section`, `cover`, `merge`) and
//! what adds to the song itself (`stems`, `video`, and personas).
//!
//! Not here: who can do what (`provider::unsupported`, asked by `wishes::settle`), what a task does to a song
//! (`song::step`).

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::creation::Asked;
use super::problem::{Kind, Problem};
use super::shape::{Body, Field, FieldKind, Shape, error_at, field};
use super::songs::{begin, etag, idempotency_key, own};
use super::who::{Creator, Who};
use super::wishes::{self, LYRICS, METADATA_BYTES_MAX, PROMPT, TAGS, TITLE_CHARS_MAX};
use super::{Api, Keyed, Operation, Raw, body, resource, song_id};
use crate::id::{self, SongId, TaskId};
use crate::song::event::{Event, NewAddition};
use crate::song::parts::{Made, MusicOptions, SourceClip, Work};
use crate::song::phase::{Addition, AdditionState, Phase, Song, Variant};
use crate::song::view::{AdditionView, View};
use crate::song::wish::{Mode, Wish};
use crate::store::{self, songs};

pub fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(resource("/v1/songs/merge").route(web::post().to(merge)))
        .service(resource("/v1/songs/{id}/extend").route(web::post().to(extend)))
        .service(resource("/v1/songs/{id}/replace-section").route(web::post().to(replace_section)))
        .service(resource("/v1/songs/{id}/cover").route(web::post().to(cover)))
        .service(resource("/v1/songs/{id}/stems").route(web::post().to(stems)))
        .service(resource("/v1/songs/{id}/video").route(web::post().to(video)))
        .service(resource("/v1/personas").route(web::post().to(persona)).route(web::get().to(personas)));
}

/// How long `POST /v1/personas` waits for the provider; after that the persona is found in the song's `tasks`.
const PERSONA_PATIENCE: Duration = Duration::from_secs(25);
/// A song that is merged is made of so many at most.
const MERGED_MAX: usize = 10;
/// A song lasts no longer than this, in seconds.
const SECONDS_MAX: f64 = 3600.0;

const VARIANT: Field = field(
    "variant_number",
    FieldKind::Integer { min: 1, max: 5 },
    "Which variant; default: the favourite, else the first that can be played.",
);
const PROVIDER: Field =
    field("provider", wishes::PROVIDER, "Who does it; `auto` (default) prefers the one that made the song.");
const METADATA: Field =
    field("metadata", FieldKind::Object { bytes_max: METADATA_BYTES_MAX }, "Yours; comes back unchanged.");
const TITLE: Field =
    field("title", FieldKind::Text { max: TITLE_CHARS_MAX }, "Of the new song; default: the old one's.");
const STYLE: Field = field("style_tags", TAGS, "How it sounds; default: as the song does.");
const SECOND: FieldKind = FieldKind::Number { min: 0.0, max: SECONDS_MAX };

const EXTEND: Shape = &[
    VARIANT,
    field("continue_at_s", SECOND, "From which second on; default: the end."),
    field("prompt", PROMPT, "What is to follow."),
    field("lyrics", LYRICS, "The words that are to follow."),
    STYLE,
    TITLE,
    PROVIDER,
    METADATA,
];
const REPLACE_SECTION: Shape = &[
    VARIANT,
    field("start_s", SECOND, "The first second that is made anew.").required(),
    field("end_s", SECOND, "Where the old goes on.").required(),
    field("prompt", PROMPT, "What is to be there."),
    field("lyrics", LYRICS, "The words that are to be sung there."),
    STYLE,
    TITLE,
    PROVIDER,
    METADATA,
];
const COVER: Shape = &[
    VARIANT,
    field("prompt", PROMPT, "How it is to be."),
    field("lyrics", LYRICS, "Other words; default: the song's own."),
    STYLE,
    TITLE,
    PROVIDER,
    METADATA,
];
const MERGE: Shape = &[
    field(
        "song_ids",
        FieldKind::Texts { max: MERGED_MAX, each_max: 36 },
        "Two songs or more, in their order.",
    )
    .required(),
    TITLE,
    PROVIDER,
    METADATA,
];
const ADDITION: Shape = &[VARIANT, PROVIDER];
const PERSONA: Shape = &[
    field("song_id", FieldKind::Text { max: 36 }, "The song whose voice and manner it takes.").required(),
    VARIANT,
    field("name", FieldKind::Text { max: 100 }, "What it is called.").required(),
    field("description", FieldKind::Text { max: 1000 }, "What is typical of it.").required(),
    PROVIDER,
];

// --- children -------------------------------------------------------------------------------------

async fn extend(
    api: web::Data<Api>,
    Creator(who): Creator,
    path: web::Path<String>,
    request: HttpRequest,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let (body, parent, of) = asked(&api, &who, &path, EXTEND, &raw).await?;
    let continue_at_ms = body.millis("continue_at_s");
    if let (Some(at), Some(long)) = (continue_at_ms, of.duration_ms)
        && !(1..=long).contains(&at)
    {
        return Err(Problem::invalid_at("/continue_at_s", within(long)));
    }
    child(&api, &who, &request, &[&parent], &body, Work::Extend { of, continue_at_ms }).await
}

async fn replace_section(
    api: web::Data<Api>,
    Creator(who): Creator,
    path: web::Path<String>,
    request: HttpRequest,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let (body, parent, of) = asked(&api, &who, &path, REPLACE_SECTION, &raw).await?;
    let (start_ms, end_ms) =
        (body.millis("start_s").unwrap_or_default(), body.millis("end_s").unwrap_or_default());
    if start_ms >= end_ms {
        return Err(Problem::invalid_at("/end_s", "must be after `start_s`"));
    }
    if let Some(long) = of.duration_ms
        && end_ms > long
    {
        return Err(Problem::invalid_at("/end_s", within(long)));
    }
    child(&api, &who, &request, &[&parent], &body, Work::ReplaceSection { of, start_ms, end_ms }).await
}

async fn cover(
    api: web::Data<Api>,
    Creator(who): Creator,
    path: web::Path<String>,
    request: HttpRequest,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let (body, parent, of) = asked(&api, &who, &path, COVER, &raw).await?;
    child(&api, &who, &request, &[&parent], &body, Work::Cover { of }).await
}

async fn merge(
    api: web::Data<Api>,
    Creator(who): Creator,
    request: HttpRequest,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let body = body(MERGE, &raw.0)?;
    let mut ids = Vec::new();
    let mut errors = Vec::new();
    for (index, id) in body.texts("song_ids").iter().enumerate() {
        match id.parse::<SongId>() {
            Ok(id) => ids.push(id),
            Err(_) => errors.push(error_at_index(index, "is not the id of a song")),
        }
    }
    if errors.is_empty() && ids.len() < 2 {
        errors.push(error_at("song_ids", "two songs or more are merged"));
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let mut parents = Vec::new();
    for (index, id) in ids.into_iter().enumerate() {
        match own(&api, &who, id).await {
            Ok(parent) => parents.push(parent),
            Err(problem) if problem.kind() == Kind::NotFound => {
                errors.push(error_at_index(index, "there is no such song"));
            }
            Err(problem) => return Err(problem),
        }
    }
    if !errors.is_empty() {
        return Err(Problem::not_found().with_errors(errors));
    }
    let of = parents.iter().map(|parent| source(parent, &body)).collect::<Result<Vec<_>, _>>()?;
    let parents: Vec<&Song> = parents.iter().collect();
    child(&api, &who, &request, &parents, &body, Work::Merge { of }).await
}

fn error_at_index(index: usize, detail: &str) -> super::problem::FieldError {
    super::problem::FieldError { pointer: format!("/song_ids/{index}"), detail: detail.to_owned() }
}

fn within(long_ms: i64) -> String {
    format!("must be within the {}.{:03} s of the clip", long_ms / 1000, long_ms % 1000)
}

/// Creates a song that is made from others (SONG-10): paid, stored and started as every song is.
async fn child(
    api: &web::Data<Api>,
    who: &Who,
    request: &HttpRequest,
    parents: &[&Song],
    body: &Body,
    work: Work,
) -> Result<HttpResponse, Problem> {
    let key = idempotency_key(request.headers())?;
    let (kind, parent) = (work.kind(), parents[0]);
    let ids: Vec<SongId> = parents.iter().map(|parent| parent.id).collect();
    // What the path says is part of what was asked for.
    let whole = json!({ "kind": kind, "of": ids, "body": wishes::hash(body) });
    let mut wish = wish_of(parent, body, work);
    wish.parent_ids = ids;
    let asked = preferred(api, body, &wish);
    wishes::settle(api, asked.as_deref(), &mut wish)?;
    let metadata = body.object("metadata").cloned().unwrap_or_else(|| json!({}));
    let song = wishes::pending(&who.0.user, wish, metadata, api.clock().now());
    begin(api, who, Asked { song, content_hash: wishes::hash_of(&whole), key, refuse_when_busy: false }).await
}

/// The wish of a child: its parent's, but for what was asked otherwise.
fn wish_of(parent: &Song, body: &Body, work: Work) -> Wish {
    let own_style = body.texts("style_tags");
    let style_tags = if own_style.is_empty() { parent.wish.options.style_tags.clone() } else { own_style };
    // A cover sings the song's words again; what follows or replaces has words of its own.
    let same_words = matches!(work, Work::Cover { .. });
    let lyrics = body.owned("lyrics").or_else(|| parent.lyrics.clone().filter(|_| same_words));
    Wish {
        mode: Mode::Music,
        title: body.owned("title").or_else(|| parent.title.clone()),
        prompt: body.owned("prompt"),
        lyrics,
        options: MusicOptions {
            style_tags,
            instrumental: parent.wish.options.instrumental,
            ..MusicOptions::default()
        },
        work,
        ..wishes::bare_wish()
    }
}

/// Who is asked: whoever was named; else the maker of the song where it can, because only there its clips are known.
fn preferred(api: &Api, body: &Body, wish: &Wish) -> Option<String> {
    let maker = || {
        let maker = wish.work.sources().first()?.provider.clone();
        let able = api.world.providers.get(&maker)?.capabilities();
        wishes::lacking(able, wish).is_empty().then_some(maker)
    };
    body.owned("provider").filter(|name| name != "auto").or_else(maker)
}

// --- what work is done on -------------------------------------------------------------------------

/// What is asked of one's own finished song: the body, the song, and the clip that it is about.
async fn asked(
    api: &Api,
    who: &Who,
    id: &str,
    shape: Shape,
    raw: &Raw,
) -> Result<(Body, Song, SourceClip), Problem> {
    let body = body(shape, &raw.0)?;
    let song = own(api, who, song_id(id)?).await?;
    let of = source(&song, &body)?;
    Ok((body, song, of))
}

/// The clip of a finished song that was asked for, with all that a provider may need to know of it.
fn source(song: &Song, body: &Body) -> Result<SourceClip, Problem> {
    match song.phase {
        Phase::Ready | Phase::Complete => {}
        Phase::Lyrics(_)
        | Phase::LyricsReady
        | Phase::Music(_)
        | Phase::Failed(_)
        | Phase::Cancelled
        | Phase::Deleted => {
            let status = song.status();
            return Err(Problem::wrong_state(
                status,
                format!("The song {} is {}.", song.id, status.as_str()),
            ));
        }
    }
    let variant = variant(song, body.integer("variant_number"))?;
    Ok(SourceClip {
        song: song.id,
        variant_number: variant.variant_number,
        provider: song.head.provider.clone(),
        provider_task: variant.provider_task.clone(),
        clip_id: variant.clip_id.clone(),
        audio_url: variant.audio_url.clone(),
        duration_ms: variant.duration_ms,
        model: song.wish.options.model.clone(),
        title: variant.title.clone().or_else(|| song.title.clone()),
        lyrics: song.lyrics.clone(),
        style_tags: song.wish.options.style_tags.clone(),
        instrumental: song.wish.options.instrumental,
    })
}

fn variant(song: &Song, number: Option<i64>) -> Result<&Variant, Problem> {
    let mut playable = song.variants.iter().filter(|variant| variant.playable());
    let found = match number {
        Some(number) => playable.find(|variant| i64::from(variant.variant_number) == number),
        None => playable.clone().find(|variant| variant.selected).or_else(|| playable.next()),
    };
    found.ok_or_else(|| {
        Problem::invalid_at("/variant_number", "the song has no such variant that can be played")
    })
}

// --- additions ------------------------------------------------------------------------------------

/// Separates a variant into its tracks. Asked again, it is not made again.
async fn stems(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let (body, song, of) = asked(&api, &who, &path, ADDITION, &raw).await?;
    add(&api, who, &song, &body, Work::Stems { of }).await
}

async fn video(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let (body, song, of) = asked(&api, &who, &path, ADDITION, &raw).await?;
    add(&api, who, &song, &body, Work::Video { of }).await
}

async fn add(api: &Api, who: Who, song: &Song, body: &Body, work: Work) -> Result<HttpResponse, Problem> {
    let addition = settle_addition(api, song, body, work)?;
    let told = api.directories.tell(song.id, Some(who.0.user), Event::Asked { addition }, None).await?;
    Ok(HttpResponse::Accepted()
        .insert_header(("ETag", etag(told.song.seq)))
        .json(View { song: &told.song, rules: &api.world.rules }))
}

/// Who makes it, and what it costs; refused before anything is charged (PROV-1).
fn settle_addition(api: &Api, song: &Song, body: &Body, work: Work) -> Result<Box<NewAddition>, Problem> {
    let price = api.price(work.kind());
    let mut wish = wish_of(song, body, work);
    let asked = preferred(api, body, &wish);
    wishes::settle(api, asked.as_deref(), &mut wish)?;
    let Wish { provider, work, .. } = wish;
    Ok(Box::new(NewAddition { task: TaskId(id::fresh()), provider, work, price }))
}

/// Makes a persona: 201 with it, or 202 where its provider takes its time.
async fn persona(api: web::Data<Api>, who: Who, raw: Raw) -> Result<HttpResponse, Problem> {
    let body = body(PERSONA, &raw.0)?;
    let id: SongId = body
        .text("song_id")
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| Problem::invalid_at("/song_id", "is not the id of a song"))?;
    let song = own(&api, &who, id).await?;
    let (name, description) =
        (body.owned("name").unwrap_or_default(), body.owned("description").unwrap_or_default());
    let work = Work::Persona { of: source(&song, &body)?, name, description };
    let new = settle_addition(&api, &song, &body, work)?;
    let wanted = new.clone();
    api.directories.tell(id, Some(who.0.user.clone()), Event::Asked { addition: new }, None).await?;
    let Some(made) = ended(&api, &who, id, &wanted).await? else {
        return Ok(HttpResponse::Accepted().json(json!({ "song_id": id, "status": "generating" })));
    };
    match &made.state {
        AdditionState::Failed(failure) => Err(Problem::new(Kind::ProviderFailed, failure.user_text())),
        AdditionState::Done(_) | AdditionState::Running(_) => {
            Ok(HttpResponse::Created().json(persona_view(id, &made)))
        }
    }
}

/// The addition of this name once it has ended; `None` when that takes too long.
async fn ended(api: &Api, who: &Who, id: SongId, new: &NewAddition) -> Result<Option<Addition>, Problem> {
    let asked = api.clock().monotonic();
    let mut pause = Duration::from_millis(50);
    while api.clock().since(asked) < PERSONA_PATIENCE {
        let song = own(api, who, id).await?;
        // The same that was asked for before has an id of its own.
        let found =
            song.addition(new.task).or_else(|| song.additions.iter().rev().find(|one| one.work == new.work));
        if let Some(one) = found.filter(|one| one.run().is_none()) {
            return Ok(Some(one.clone()));
        }
        actix_web::rt::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    Ok(None)
}

fn persona_view(song: SongId, one: &Addition) -> Value {
    let mut view = json!(AdditionView::of(one));
    let (asked_name, asked_description) = match &one.work {
        Work::Persona { name, description, .. } => (Some(name.clone()), Some(description.clone())),
        _ => (None, None),
    };
    if let AdditionState::Done(Made::Persona { persona_id, name, description }) = &one.state {
        view["persona_id"] = json!(persona_id);
        view["name"] = json!(name.clone().or(asked_name));
        view["description"] = json!(description.clone().or(asked_description));
    }
    view["song_id"] = json!(song);
    view
}

/// The personas that were made, newest first.
async fn personas(api: web::Data<Api>, who: Who) -> Result<HttpResponse, Problem> {
    let question = async |client: &deadpool_postgres::Object| songs::personas(client, &who.0.user).await;
    let found = store::ask(&api.world.pool, question).await?;
    let views: Vec<Value> = found.iter().map(|(song, one)| persona_view(*song, one)).collect();
    Ok(HttpResponse::Ok().json(json!({ "personas": views })))
}

const CHILD_ANSWERS: &[(u16, &str)] = &[
    (202, "The child song, under way; `parent_ids` names what it is made from."),
    (200, "A replay of the same `Idempotency-Key`."),
    (400, "Every wrong field, with a pointer to each."),
    (402, "It cannot be paid."),
    (404, "There is no such song of yours."),
    (409, "The song is not finished."),
    (422, "No provider can do this; or the key came with other content."),
    (429, "Your plan allows no further song at this time; `Retry-After` and `X-RateLimit-*` say more."),
];
const ADDITION_ANSWERS: &[(u16, &str)] = &[
    (202, "The song; `tasks` has what is made."),
    (402, "It cannot be paid."),
    (409, "The song is not finished."),
    (422, "No provider can do this."),
];

pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/v1/songs/{id}/extend",
        summary: "Go on where a song ends",
        doc: "Makes a child song that continues a variant, from its end or from a place in it.",
        body: Some(EXTEND),
        answers: CHILD_ANSWERS,
        returns: Some("Song"),
        keyed: Keyed::Optional,
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/songs/{id}/replace-section",
        summary: "Make a part of a song anew",
        doc: "Makes a child song in which the seconds from `start_s` to `end_s` are new.",
        body: Some(REPLACE_SECTION),
        answers: CHILD_ANSWERS,
        returns: Some("Song"),
        keyed: Keyed::Optional,
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/songs/{id}/cover",
        summary: "The same song in another style",
        doc: "Makes a child song with the same melody and, unless other lyrics are given, the same words.",
        body: Some(COVER),
        answers: CHILD_ANSWERS,
        returns: Some("Song"),
        keyed: Keyed::Optional,
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/songs/merge",
        summary: "Join songs to one",
        doc: "Makes a child song of the favourite variants of several songs, in their order.",
        body: Some(MERGE),
        answers: CHILD_ANSWERS,
        returns: Some("Song"),
        keyed: Keyed::Optional,
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/songs/{id}/stems",
        summary: "Separate a variant into its tracks",
        doc: "A task beside the song, which stays as it is; the result is in `tasks`. Asked again, it is not made again.",
        body: Some(ADDITION),
        answers: ADDITION_ANSWERS,
        returns: Some("Song"),
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/songs/{id}/video",
        summary: "Make a video of a variant",
        doc: "A task beside the song; the result is in `tasks` and in the variant's `video_url`.",
        body: Some(ADDITION),
        answers: ADDITION_ANSWERS,
        returns: Some("Song"),
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/personas",
        summary: "Make a persona of a song",
        doc: "Its `persona_id` may be given to later songs of the same provider.",
        body: Some(PERSONA),
        answers: &[
            (201, "The persona."),
            (202, "It takes longer; `GET /v1/personas` has it when it is there."),
            (409, "The song is not finished."),
            (422, "No provider can do this."),
            (502, "The provider could not make it."),
        ],
        returns: Some("Persona"),
        ..Operation::BASE
    },
    Operation {
        path: "/v1/personas",
        summary: "Your personas",
        doc: "Newest first.",
        answers: &[(200, "`personas`.")],
        returns: Some("Personas"),
        ..Operation::BASE
    },
];
