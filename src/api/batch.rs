//! Many songs in one call (PROV-14): each is created, refused and replayed on its own.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::creation::{self, Asked, Made};
use super::problem::{self, Problem};
use super::shape::{FieldKind, Shape, field};
use super::who::{Creator, Who};
use super::wishes::{self, CREATE};
use super::{Api, BodyMax, Keyed, Operation, Raw, body, resource, songs};
use crate::song::view::View;
use crate::time::Time;

pub const SONGS_MAX: usize = 20;
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

const BATCH: Shape =
    &[field("songs", FieldKind::Bodies { max: SONGS_MAX, each: CREATE }, "As for `POST /v1/songs`.")
        .required()];

pub fn routes(routes: &mut web::ServiceConfig) {
    routes.service(
        resource("/v1/songs/batch")
            .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
            .app_data(BodyMax(BODY_BYTES_MAX))
            .route(web::post().to(create)),
    );
}

/// The journal takes them together, in their order: one commit, as a rule.
async fn create(
    api: web::Data<Api>,
    Creator(who): Creator,
    request: HttpRequest,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let key = songs::idempotency_key(request.headers())?;
    let now = api.clock().now();
    let body = body(BATCH, &raw.0)?;
    let wanted = body.bodies("songs");
    let made = join_all(wanted.iter().enumerate().map(|(index, song)| {
        let before = wanted[..index].iter().filter(|earlier| *earlier == song).count();
        // With a blank between, so that no header can hold the same key.
        let key = key.as_ref().map(|key| format!("{key} {index}"));
        one(&api, &who, song, before, key, now)
    }));
    let made = made.await;
    let mut response = HttpResponse::build(StatusCode::MULTI_STATUS);
    // The later ones found less left; all but the first may have been refused before they were counted.
    if let Some(least) = made.iter().flatten().map(|made| made.allowance).min_by_key(|left| left.remaining) {
        for header in problem::headers(&least) {
            response.insert_header(header);
        }
    }
    Ok(response.json(json!({"results": made.into_iter().map(|made| result(&api, made)).collect::<Vec<_>>()})))
}

/// The same twice in one batch is meant to be two songs: the second one's content counts as its own (PROV-13).
async fn one(
    api: &web::Data<Api>,
    who: &Who,
    song: &Value,
    before: usize,
    key: Option<String>,
    now: Time,
) -> Result<Made, Problem> {
    let body = body(CREATE, song.to_string().as_bytes())?;
    let (song, mut content_hash) = wishes::song(api, &who.0.user, &body, now)?;
    if before > 0 {
        content_hash =
            Sha256::new().chain_update(content_hash).chain_update(before.to_be_bytes()).finalize().into();
    }
    let refuse_when_busy = body.text("on_busy") == Some("refuse");
    creation::create(api, who, Asked { song, content_hash, key, refuse_when_busy }).await
}

fn result(api: &Api, made: Result<Made, Problem>) -> Value {
    match made {
        Ok(Made { replayed, song, .. }) => {
            let song = View { song: &song, rules: &api.world.rules };
            json!({"status": if replayed { 200 } else { 202 }, "song": song})
        }
        Err(problem) => json!({"status": problem.status().as_u16(), "problem": problem.body()}),
    }
}

pub const OPERATIONS: &[Operation] = &[Operation {
    method: "post",
    path: "/v1/songs/batch",
    summary: "Create up to 20 songs",
    doc: "Each with its own result, in the order of the request; limits and credits go to the first ones. The key of \
          each is the header's and its place, so that the same batch again answers with the same songs.",
    body: Some(BATCH),
    answers: &[
        (207, "The results."),
        (400, "No list of songs."),
        (413, "Over 2 MiB."),
        (429, "Far too many requests."),
    ],
    returns: Some("Batch"),
    keyed: Keyed::Optional,
    ..Operation::BASE
}];
