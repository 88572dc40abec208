//! What happened to a song, event by event: the same that watchers were told (RT-2, PROV-12).

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::problem::Problem;
use super::shape::{FieldKind, Shape, field};
use super::songs::query;
use super::who::Who;
use super::{Api, Operation, resource, song_id};
use crate::store::{self, songs};

pub fn routes(routes: &mut web::ServiceConfig) {
    routes.service(resource("/v1/songs/{id}/events").route(web::get().to(events)));
}

const EVENTS_MAX: i64 = 500;
const EVENTS: Shape = &[
    field(
        "after",
        FieldKind::Integer { min: 0, max: i64::MAX },
        "Events after this `seq`; default: from the first that is kept.",
    ),
    field("limit", FieldKind::Integer { min: 1, max: EVENTS_MAX }, "Events a page; default 100."),
];

async fn events(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let query = query(EVENTS, request.query_string())?;
    let id = song_id(&path)?;
    let after = query.integer("after").unwrap_or(0);
    let limit = query.integer("limit").unwrap_or(100);
    let question = async |client: &deadpool_postgres::Object| {
        songs::history(client, id, &who.0.user, after, limit).await
    };
    let events = store::ask(&api.world.pool, question).await?.ok_or_else(Problem::not_found)?;
    let last = events
        .last()
        .map(|event| event.seq)
        .filter(|_| i64::try_from(events.len()).is_ok_and(|n| n == limit));
    let views: Vec<Value> = events
        .iter()
        .map(|event| json!({ "seq": event.seq, "at": event.at.rfc3339(), "kind": event.kind, "set": event.set }))
        .collect();
    Ok(HttpResponse::Ok().json(json!({ "events": views, "next_after": last })))
}

pub const OPERATIONS: &[Operation] = &[Operation {
    path: "/v1/songs/{id}/events",
    summary: "A song's history",
    doc: "Every change in order: `seq`, `at`, `kind`, and `set`, the fields that changed. Events are kept for \
          some days (`realtime.events_keep_days`).",
    query: EVENTS,
    answers: &[(200, "`events`, and `next_after` if there may be more."), (404, "No such song of yours.")],
    returns: Some("Events"),
    ..Operation::BASE
}];
