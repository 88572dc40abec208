//! For operators (role `service`): dead letters, what is stuck, and everything about one song (OPS-1, OPS-2, SONG-4).

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::admin::Operator;
use super::problem::{Kind, Problem};
use super::shape::{FieldKind, Shape, field};
use super::songs::query;
use super::{Api, Operation, Raw, body, resource, song_id};
use crate::id::SongId;
use crate::ops::replay::{ReplayError, replay};
use crate::song::sweeper;
use crate::song::view::view;
use crate::store::letters::{self, Letter, Wanted};
use crate::store::songs::{self, Stored};
use crate::store::{self, StoreError, insight};

pub fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(resource("/admin/dead-letters").route(web::get().to(list)))
        .service(resource("/admin/dead-letters/{id}").route(web::get().to(show)))
        .service(resource("/admin/dead-letters/{id}/replay").route(web::post().to(put_back)))
        .service(resource("/admin/dead-letters/{id}/resolve").route(web::post().to(resolve)))
        .service(resource("/admin/stuck").route(web::get().to(stuck)))
        .service(resource("/admin/songs/{id}").route(web::get().to(song)));
}

const LIMIT_MAX: i64 = 200;
const LIST: Shape = &[
    field("kind", FieldKind::Word(&letters::NAMES), "Letters of this kind only."),
    field(
        "state",
        FieldKind::Word(&["open", "resolved", "all"]),
        "`open` (default): what waits for an operator.",
    ),
    field("limit", FieldKind::Integer { min: 1, max: LIMIT_MAX }, "Letters a page; default 50."),
    field("cursor", FieldKind::Integer { min: 1, max: i64::MAX }, "`next_cursor` of the page before."),
];

async fn list(api: web::Data<Api>, _: Operator, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let query = query(LIST, request.query_string())?;
    let resolved = match query.text("state") {
        Some("all") => None,
        state => Some(state == Some("resolved")),
    };
    let limit = query.integer("limit").unwrap_or(50);
    let wanted = Wanted { kind: query.text("kind"), resolved, before: query.integer("cursor"), limit };
    let found = store::ask(&api.world.pool, async |client| letters::list(client, &wanted).await).await?;
    let full = i64::try_from(found.len()).is_ok_and(|found| found == limit);
    let next = found.last().filter(|_| full).map(|letter| letter.id);
    let letters: Vec<Value> = found.iter().map(Letter::as_json).collect();
    Ok(HttpResponse::Ok().json(json!({"dead_letters": letters, "next_cursor": next})))
}

fn letter_id(path: &str) -> Result<i64, Problem> {
    path.parse().map_err(|_| Problem::not_found())
}

async fn find(api: &Api, path: &str) -> Result<Letter, Problem> {
    let id = letter_id(path)?;
    let found = store::ask(&api.world.pool, async |client| letters::find(client, id).await).await?;
    found.ok_or_else(Problem::not_found)
}

/// The letter with its whole context, the song as it is now, and what the provider posted about the task.
async fn show(api: web::Data<Api>, _: Operator, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    let letter = find(&api, &path).await?;
    Ok(HttpResponse::Ok().json(whole(&api, &letter).await?))
}

async fn whole(api: &Api, letter: &Letter) -> Result<Value, Problem> {
    let mut shown = letter.as_json();
    shown["context"] = letter.context.clone();
    let question = async |client: &deadpool_postgres::Object| {
        let callbacks = match letter.task {
            Some(task) => insight::callbacks_of(client, task).await?,
            None => json!([]),
        };
        let song = match letter.song {
            Some(song) => songs::load(client, song).await,
            None => Ok(None),
        };
        Ok((callbacks, song))
    };
    let (callbacks, song) = store::ask(&api.world.pool, question).await?;
    shown["callbacks"] = callbacks;
    as_it_is(&mut shown, "song", song, api);
    Ok(shown)
}

/// The song as its owner sees it, or that it cannot be read: those are what operators look at most.
fn as_it_is(shown: &mut Value, field: &str, stored: Result<Option<Stored>, StoreError>, api: &Api) {
    match stored {
        Ok(stored) => shown[field] = json!(stored.map(|stored| view(&stored.song, &api.world.rules))),
        Err(error) => shown["unreadable"] = json!(error.to_string()),
    }
}

async fn put_back(
    api: web::Data<Api>,
    operator: Operator,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    body(&[], &raw.0)?;
    let letter = find(&api, &path).await?;
    let by = operator.0.user.as_str();
    let done = replay(&api.world, &api.directories, &letter, by).await?;
    tracing::info!(letter = letter.id, kind = letter.kind, by, done, "a dead letter was put back to work");
    let mut shown = find(&api, &path).await?.as_json();
    shown["done"] = json!(done);
    Ok(HttpResponse::Ok().json(shown))
}

impl From<ReplayError> for Problem {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Nothing(why) => {
                Problem::new(Kind::WrongState, format!("Nothing was put back: {why}."))
            }
            ReplayError::Told(error) => error.into(),
            ReplayError::Store(error) => error.into(),
        }
    }
}

const RESOLVE: Shape =
    &[field("notes", FieldKind::Text { max: 2000 }, "What was found and done.").required()];

async fn resolve(
    api: web::Data<Api>,
    operator: Operator,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let body = body(RESOLVE, &raw.0)?;
    let (id, by) = (letter_id(&path)?, operator.0.user.as_str());
    let close =
        async |client: &deadpool_postgres::Object| letters::resolve(client, id, by, body.text("notes")).await;
    if !store::ask(&api.world.pool, close).await? {
        return Err(Problem::not_found());
    }
    tracing::info!(letter = id, by, "a dead letter was resolved");
    Ok(HttpResponse::Ok().json(find(&api, &path).await?.as_json()))
}

const STUCK: Shape = &[field(
    "limit",
    FieldKind::Integer { min: 1, max: 1000 },
    "Songs listed; default 100, the longest stuck first.",
)];

async fn stuck(api: web::Data<Api>, _: Operator, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let limit = query(STUCK, request.query_string())?.integer("limit").unwrap_or(100);
    let patience = sweeper::patience(&api.world, api.stuck_after);
    let (many, songs) = sweeper::look(&api.world.pool, patience, limit).await?;
    let songs: Vec<Value> = songs.iter().map(store::stuck::Stuck::as_json).collect();
    Ok(HttpResponse::Ok().json(json!({"count": many, "stuck": songs})))
}

/// Every row of a song, raw callbacks included; deleted ones, too.
async fn song(api: web::Data<Api>, _: Operator, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    let id: SongId = song_id(&path)?;
    let question = async |client: &deadpool_postgres::Object| {
        Ok((insight::song(client, id).await?, songs::load(client, id).await))
    };
    let (rows, stored) = store::ask(&api.world.pool, question).await?;
    let mut shown = rows.ok_or_else(Problem::not_found)?;
    as_it_is(&mut shown, "view", stored, &api);
    Ok(HttpResponse::Ok().json(shown))
}

pub const OPERATIONS: &[Operation] = &[
    Operation {
        path: "/admin/dead-letters",
        summary: "Dead letters (operators)",
        doc: "What could not be done and waits for somebody, newest first: songs and further tasks that failed for \
              no fault of their owner's (`song`, `addition`), rows that the database refused (`step`, `create`, \
              `claim`, `callback`), songs that were taken up again and again (`given_up`). Role `service`.",
        query: LIST,
        answers: &[
            (200, "`dead_letters`, and `next_cursor` if there may be more."),
            (403, "Not an operator."),
        ],
        ..Operation::BASE
    },
    Operation {
        path: "/admin/dead-letters/{id}",
        summary: "One dead letter (operators)",
        doc: "With its whole context, the song as it is now, and the provider's raw callbacks about the task (as \
              long as events are kept). Role `service`.",
        answers: &[(200, "The letter."), (403, "Not an operator."), (404, "No such letter.")],
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/admin/dead-letters/{id}/replay",
        summary: "Put a dead letter back to work (operators)",
        doc: "A failed song is made again: its price is reserved anew, its owner's retries are not used up. A refused \
              step or callback is tried again and the callback kept, a song that was given up is taken up. Closes the letter. Role `service`.",
        answers: &[
            (200, "The letter, and in `done` what was done."),
            (402, "The song's owner cannot pay for it."),
            (403, "Not an operator."),
            (404, "No such letter."),
            (409, "There is nothing to put back, or not any more."),
            (503, "It was refused again, or the database is away."),
        ],
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/admin/dead-letters/{id}/resolve",
        summary: "Close a dead letter (operators)",
        doc: "With notes on what was found. Repeatable: the newest notes stand. Role `service`.",
        body: Some(RESOLVE),
        answers: &[(200, "The letter."), (403, "Not an operator."), (404, "No such letter.")],
        ..Operation::BASE
    },
    Operation {
        path: "/admin/stuck",
        summary: "Songs that should have moved (operators)",
        doc: "Songs under way beyond the time that their state names and `ops.stuck_after`, of all nodes. Each node \
              wakes its own every `ops.sweep_every`, begins them anew, and in the end fails and refunds them. Role `service`.",
        query: STUCK,
        answers: &[(200, "`count` of all, and the list."), (403, "Not an operator.")],
        ..Operation::BASE
    },
    Operation {
        path: "/admin/songs/{id}",
        summary: "Everything about a song (operators)",
        doc: "Rows as they are stored (amounts in thousandths): tasks, events, credits, dead letters, raw callbacks; \
              and `view`, the song as its owner sees it. Role `service`.",
        answers: &[(200, "The song's rows."), (403, "Not an operator."), (404, "No such song.")],
        ..Operation::BASE
    },
];
