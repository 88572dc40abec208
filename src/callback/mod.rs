//! What providers post to us: verified, made durable, then handed to the song (CB-1, CB-2).
//!
//! Not here: what a callback says (`provider::<name>`), what it means (`song::step`).

mod tasks;

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use tokio::sync::Semaphore;

use crate::api::problem::{Kind, Problem};
use crate::auth::CallbackKeys;
use crate::id::{CallKey, SongId};
use crate::provider::{Member, TaskKind};
use crate::song::actor::{TellError, World, with_fallback_urls};
use crate::song::directory::Directories;
use crate::song::event::Event;
use crate::store::journal::Entry;
use crate::store::row::InboxRow;
use crate::store::songs;
use crate::store::{self, StoreError};
pub use tasks::Tasks;

/// Largest callback that is taken.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

pub struct Callbacks {
    pub keys: CallbackKeys,
    pub world: Arc<World>,
    pub directories: Directories,
    pub tasks: Arc<Tasks>,
    /// For callbacks under way at once; beyond it 429, and the provider sends it again (CB-2).
    pub room: Semaphore,
}

pub fn routes(routes: &mut web::ServiceConfig) {
    routes.service(web::resource("/callbacks/{provider}/{task}/{token}").route(web::post().to(receive)));
}

async fn receive(
    request: HttpRequest,
    callbacks: web::Data<Callbacks>,
    path: web::Path<(String, String, String)>,
    payload: web::Payload,
) -> HttpResponse {
    let (provider, key, token) = path.into_inner();
    // Nothing else happens before this: whoever cannot name the secret learns nothing (CB-1).
    let vouched = key.parse::<CallKey>().ok().filter(|key| callbacks.keys.vouches(&provider, key, &token));
    let (Some(key), Some(member)) = (vouched, callbacks.world.providers.member(&provider)) else {
        return unauthorized("This is not a callback url of ours.");
    };
    let Ok(_room) = callbacks.room.try_acquire() else {
        count("limited");
        let busy = Problem::new(Kind::RateLimited, "Too many callbacks at once; send it again.");
        return busy.after(Duration::from_secs(1)).error_response();
    };
    let body = match payload.to_bytes_limited(BODY_BYTES_MAX).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Problem::invalid_at("", "the body could not be read").error_response(),
        Err(_) => {
            count("too large");
            let detail = format!("At most {BODY_BYTES_MAX} bytes.");
            return Problem::new(Kind::TooLarge, detail).error_response();
        }
    };
    let header = |name: &str| request.headers().get(name)?.to_str().ok().map(str::to_owned);
    if let Err(error) = member.provider.verify(&header, &body, callbacks.world.clock.now()) {
        tracing::warn!(provider, task.id = %key.task, %error, "a callback is not signed as it should be");
        return unauthorized("This callback is not signed as it should be.");
    }
    if let Some(signed) = member.provider.signed_task(&body) {
        match callbacks.known_as(key, member.provider.capabilities().name).await {
            Ok(names) if names.is_empty() || names.contains(&signed) => {}
            Ok(_) => {
                tracing::warn!(provider, task.id = %key.task, "a callback is signed for another task");
                return unauthorized("This callback is signed for another task.");
            }
            Err(_) => return away(),
        }
    }
    let outcome = callbacks.take(member, key, body).await;
    count(outcome.as_str());
    match outcome {
        Outcome::Told | Outcome::Malformed => HttpResponse::Ok().finish(),
        Outcome::Unknown => HttpResponse::Accepted().finish(),
        Outcome::Away => away(),
    }
}

fn away() -> HttpResponse {
    HttpResponse::ServiceUnavailable().insert_header((RETRY_AFTER, "5")).finish()
}

fn unauthorized(detail: &str) -> HttpResponse {
    count("unauthorized");
    Problem::new(Kind::Unauthorized, detail).error_response()
}

enum Outcome {
    /// The song knows, or knew already.
    Told,
    /// Kept for operators.
    Malformed,
    /// Kept; there is no song for it (any more).
    Unknown,
    /// Nothing is known to be kept: the provider is to send it again.
    Away,
}

impl Outcome {
    const fn as_str(&self) -> &'static str {
        match self {
            Outcome::Told => "told",
            Outcome::Malformed => "malformed",
            Outcome::Unknown => "unknown",
            Outcome::Away => "away",
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("songflight_callbacks_total", "outcome" => outcome).increment(1);
}

impl Callbacks {
    async fn take(&self, member: &Member, key: CallKey, body: web::Bytes) -> Outcome {
        // A copy: the request's bytes hold on to their whole read buffer.
        let body = bytes::Bytes::copy_from_slice(&body);
        let known = self.tasks.get(key.task);
        match hear(&self.world, &self.directories, member, key, body, known).await {
            Ok(Heard::Told { .. }) => Outcome::Told,
            Ok(Heard::Malformed) => Outcome::Malformed,
            Ok(Heard::Unknown) => Outcome::Unknown,
            Err(_) => Outcome::Away,
        }
    }

    /// What this provider calls the task of a call; nothing, as long as its answer to the submission is not known.
    async fn known_as(&self, key: CallKey, provider: &str) -> Result<Vec<String>, StoreError> {
        store::ask(&self.world.pool, async |client| songs::names_of_call(client, key, provider).await).await
    }
}

/// What became of a callback; whatever it was, it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The song knows it; `changed` unless it knew already.
    Told { changed: bool },
    /// It cannot be read.
    Malformed,
    /// There is no song for it (any more).
    Unknown,
}

/// Hands a callback that was vouched for to its song, and keeps it raw in the same commit, or beside whatever else comes of it
/// (CB-2). `known` is the song, where that is known already.
///
/// # Errors
/// Nothing is known to be kept: the same is to come again.
pub async fn hear(
    world: &World,
    directories: &Directories,
    member: &Member,
    key: CallKey,
    body: bytes::Bytes,
    known: Option<(SongId, TaskKind)>,
) -> Result<Heard, TellError> {
    let row = |outcome| InboxRow {
        provider: member.provider.capabilities().name,
        task: key.task.0,
        call: key.call,
        attempt: key.attempt,
        body: body.clone(),
        outcome,
    };
    let found = match known {
        Some(found) => Some(found),
        None => song_of(world, key).await.map_err(|_| TellError::Unavailable)?,
    };
    let Some((song, kind)) = found else { return keep(world, row("no such task"), Heard::Unknown).await };
    let callback = match member.provider.read(kind, &body) {
        Ok(callback) => callback,
        Err(error) => {
            tracing::warn!(song.id = %song, task.id = %key.task, %error, "a callback cannot be read");
            return keep(world, row("malformed"), Heard::Malformed).await;
        }
    };
    let news = with_fallback_urls(callback.news, Some(member));
    let event = Event::News { call: key, provider_task: callback.provider_task, news };
    match directories.tell(song, None, event, Some(row("applied"))).await {
        Ok(told) => Ok(Heard::Told { changed: told.changed }),
        // It was deleted since.
        Err(TellError::NotFound) => keep(world, row("no such task"), Heard::Unknown).await,
        Err(error) => Err(error),
    }
}

async fn song_of(world: &World, key: CallKey) -> Result<Option<(SongId, TaskKind)>, StoreError> {
    store::ask(&world.pool, async |client| songs::of_task(client, key.task).await).await
}

async fn keep(world: &World, row: InboxRow, heard: Heard) -> Result<Heard, TellError> {
    match world.journal.commit(Entry::Callback(row)).await {
        Ok(_) => Ok(heard),
        Err(_) => Err(TellError::Unavailable),
    }
}
