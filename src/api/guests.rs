//! People without an account (CRED-7): a user of their own, under the plan `guest`, with a token that we sign.
//!
//! Not here: how a guest's song moves to an account. A song knows whose it is, so that is an event of the song itself
//! (`song::step`), committed in one piece with both users' events (`store::claims`).

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt;
use serde_json::json;

use super::flood::{self, Flood};
use super::problem::{Kind, Problem};
use super::shape::{FieldKind, Shape, field};
use super::who::Creator;
use super::{Api, Operation, Raw, body, resource};
use crate::auth::{AuthError, Role};
use crate::credit::plan::Plan;
use crate::id::{self, SongId, UserId};
use crate::provider::gate::Rate;
use crate::song::actor::TellError;
use crate::song::event::Event;
use crate::store::{self, claims};

/// What a guest's user id begins with; `store::births` knows it, too.
pub const PREFIX: &str = "guest:";

pub struct Guests {
    dam: Flood,
    token_ttl: Duration,
    trust_forwarded: bool,
}

impl Guests {
    pub fn new(per_address: Rate, token_ttl: Duration, trust_forwarded: bool) -> Self {
        Self { dam: Flood::new(per_address), token_ttl, trust_forwarded }
    }
}

pub fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(resource("/v1/guests").route(web::post().to(welcome)))
        .service(resource("/v1/guests/claim").route(web::post().to(claim)));
}

/// Nothing is stored for somebody who only looks: the profile comes with the first song.
async fn welcome(api: web::Data<Api>, request: HttpRequest, raw: Raw) -> Result<HttpResponse, Problem> {
    body(&[], &raw.0)?;
    let address = flood::address(&request, api.guests.trust_forwarded);
    let now = api.clock().now();
    let dam = &api.guests.dam;
    dam.pass(&address).map_err(|wait| {
        Problem::new(Kind::RateLimited, "Too many guests came from this address.")
            .after(wait)
            .used_up(dam.limit(), Some(now + dam.full_after(wait)))
    })?;
    let user = UserId::trusted(&format!("{PREFIX}{}", id::secret()));
    let ttl = api.guests.token_ttl;
    let token = api.auth.issue(&user, Some(Plan::Guest.as_str()), Role::Authenticated, ttl, now);
    Ok(HttpResponse::Created().json(json!({
        "token": token,
        "user": user,
        "expires_at": (now + ttl).rfc3339(),
    })))
}

/// A token is not read beyond this many characters (`auth`).
const CLAIM: Shape =
    &[field("guest_token", FieldKind::Text { max: 8192 }, "The token that the guest was given.").required()];
/// Songs that move in one go, and how many at a time.
const CLAIM_PAGE: i64 = 500;
const CLAIMS_AT_ONCE: usize = 16;

/// Moves what a guest made to the account that signed in, once: the first account has it. Repeatable, also after it broke
/// off halfway: each song moves whole, by its own actor, or not yet.
async fn claim(api: web::Data<Api>, Creator(who): Creator, raw: Raw) -> Result<HttpResponse, Problem> {
    let body = body(CLAIM, &raw.0)?;
    let account = who.0.user;
    if account.as_str().starts_with(PREFIX) {
        return Err(Problem::new(Kind::Forbidden, "Sign in first; a guest has no account to move songs to."));
    }
    let guest = guest(&api, body.text("guest_token").unwrap_or_default()).await?;
    let start = api.creation.start_of(account.as_str());
    let begin =
        async |client: &deadpool_postgres::Object| claims::begin(client, &guest, &account, start).await;
    let Some(stored_plan) = store::ask(&api.world.pool, begin).await? else {
        return Err(Problem::new(Kind::WrongState, "Another account has taken over what this guest made."));
    };
    let plan = who.0.plan.as_deref().and_then(Plan::parse).unwrap_or(stored_plan);
    let moved = claim_songs(&api, &guest, &Event::Claimed { by: account, plan: plan.as_str() }).await?;
    Ok(HttpResponse::Ok().json(json!({ "count": moved.len(), "songs": moved })))
}

/// The user of a guest's token. It comes in the body, where it is a value that can be wrong.
async fn guest(api: &Api, token: &str) -> Result<UserId, Problem> {
    let wrong = |detail: &str| Err(Problem::invalid_at("/guest_token", detail));
    match api.auth.verify(token, api.clock().now()).await {
        Ok(identity) if identity.user.as_str().starts_with(PREFIX) => Ok(identity.user),
        Ok(_) => wrong("is not a guest's"),
        Err(AuthError::KeysUnavailable) => Err(Problem::unavailable()),
        Err(AuthError::Expired) => wrong("has expired"),
        Err(_) => wrong("is not a token of ours"),
    }
}

/// Until none is left that moves: a song that was just being made may come after the first look.
async fn claim_songs(api: &Api, guest: &UserId, event: &Event) -> Result<Vec<SongId>, Problem> {
    let mut moved = Vec::new();
    loop {
        let look =
            async |client: &deadpool_postgres::Object| claims::songs_of(client, guest, CLAIM_PAGE).await;
        let songs = store::ask(&api.world.pool, look).await?;
        let told = futures_util::stream::iter(songs).map(|song| async move {
            (song, api.directories.tell(song, Some(guest.clone()), event.clone(), None).await)
        });
        let told: Vec<_> = told.buffer_unordered(CLAIMS_AT_ONCE).collect().await;
        let before = moved.len();
        for (song, answer) in told {
            match answer {
                Ok(_) => moved.push(song),
                // Deleted meanwhile, or moved by the same claim made twice.
                Err(TellError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if moved.len() == before {
            return Ok(moved);
        }
    }
}

pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/v1/guests",
        summary: "Come as a guest",
        doc: "A user and a token for somebody without an account; under the plan `guest`.",
        body: Some(&[]),
        answers: &[(201, "Who you are."), (429, "Too many guests from this address.")],
        returns: Some("Guest"),
        public: true,
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/guests/claim",
        summary: "Take over what you made as a guest",
        doc: "Moves a guest's songs and orders to the account that asks, whatever state they are in; who watched them \
              as the guest is told `gone`, the account `created`. Repeatable; only the first account has them. Credits \
              that the guest had left do not move.",
        body: Some(CLAIM),
        answers: &[
            (200, "The songs that moved just now."),
            (400, "It is not a guest's token, or has expired."),
            (403, "A guest asked."),
            (409, "Another account was first."),
            (429, "Far too many requests."),
        ],
        returns: Some("Claimed"),
        ..Operation::BASE
    },
];
