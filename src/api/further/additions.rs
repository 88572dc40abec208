//! What adds to a finished song itself: stems, a video, personas (PROV-2). Asked again, nothing is made again.
//!
//! Not here: whose clip it is made of and who can do it (`further`), what it does to the song (`song::step`).

use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::{PROVIDER, VARIANT, preferred, source, wish_of};
use crate::api::problem::{Kind, Problem};
use crate::api::shape::{Body, FieldKind, Shape, field};
use crate::api::songs::{etag, own};
use crate::api::who::Who;
use crate::api::{Api, Operation, Raw, body, resource, song_id, wishes};
use crate::id::{self, SongId, TaskId};
use crate::song::event::{Event, NewAddition};
use crate::song::parts::{Made, SourceClip, Work};
use crate::song::phase::{Addition, AdditionState, Song};
use crate::song::view::{AdditionView, View};
use crate::song::wish::Wish;
use crate::store::{self, songs};

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(resource("/v1/songs/{id}/stems").route(web::post().to(stems)))
        .service(resource("/v1/songs/{id}/video").route(web::post().to(video)))
        .service(resource("/v1/personas").route(web::post().to(persona)).route(web::get().to(personas)));
}

/// How long `POST /v1/personas` waits for the provider; after that the persona is found in the song's `tasks`.
const PERSONA_PATIENCE: Duration = Duration::from_secs(25);
const ADDITION: Shape = &[VARIANT, PROVIDER];
const PERSONA: Shape = &[
    field("song_id", FieldKind::Text { max: 36 }, "The song whose voice and manner it takes.").required(),
    VARIANT,
    field("name", FieldKind::Text { max: 100 }, "What it is called.").required(),
    field("description", FieldKind::Text { max: 1000 }, "What is typical of it.").required(),
    PROVIDER,
];

/// Separates a variant into its tracks. Asked again, it is not made again.
async fn stems(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    add(&api, who, &path, &raw, |of| Work::Stems { of }).await
}

async fn video(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    add(&api, who, &path, &raw, |of| Work::Video { of }).await
}

async fn add(
    api: &Api,
    who: Who,
    id: &str,
    raw: &Raw,
    work: fn(SourceClip) -> Work,
) -> Result<HttpResponse, Problem> {
    let body = body(ADDITION, &raw.0)?;
    let song = own(api, &who, song_id(id)?).await?;
    let addition = settle_addition(api, &song, &body, work(source(&song, &body)?))?;
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
        let found = song
            .addition(new.task)
            .or_else(|| song.additions.iter().rev().find(|one| one.work.adds_the_same_as(&new.work)));
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

const ADDITION_ANSWERS: &[(u16, &str)] = &[
    (202, "The song; `tasks` has what is made."),
    (402, "It cannot be paid."),
    (409, "The song is not finished."),
    (422, "No provider can do this."),
];

pub(in crate::api) const OPERATIONS: &[Operation] = &[
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
