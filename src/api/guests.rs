//! People without an account (CRED-7): a user of their own, under the plan `guest`, with a token that we sign.
//!
//! Not here: a guest's songs moving to an account. A song knows whose it is, so that is an event of the song itself.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::flood::{self, Flood};
use super::problem::{Kind, Problem};
use super::{Api, Operation, Raw, body, resource};
use crate::auth::Role;
use crate::credit::plan::Plan;
use crate::id::{self, UserId};
use crate::provider::gate::Rate;

/// What a guest's user id begins with; `create_song` knows it, too.
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
    routes.service(resource("/v1/guests").route(web::post().to(welcome)));
}

/// Nothing is stored for somebody who only looks: the profile comes with the first song.
async fn welcome(api: web::Data<Api>, request: HttpRequest, raw: Raw) -> Result<HttpResponse, Problem> {
    body(&[], &raw.0)?;
    let address = flood::address(&request, api.guests.trust_forwarded);
    api.guests.dam.pass(&address).map_err(|wait| {
        Problem::new(Kind::RateLimited, "Too many guests came from this address.").after(wait)
    })?;
    let user = UserId::trusted(&format!("{PREFIX}{}", id::secret()));
    let now = api.clock().now();
    let ttl = api.guests.token_ttl;
    let token = api.auth.issue(&user, Some(Plan::Guest.as_str()), Role::Authenticated, ttl, now);
    Ok(HttpResponse::Created().json(json!({
        "token": token,
        "user": user,
        "expires_at": (now + ttl).rfc3339(),
    })))
}

pub const OPERATIONS: &[Operation] = &[Operation {
    method: "post",
    path: "/v1/guests",
    summary: "Come as a guest",
    doc: "A user and a token for somebody without an account; under the plan `guest`.",
    body: Some(&[]),
    answers: &[(201, "Who you are."), (429, "Too many guests from this address.")],
    returns: Some("Guest"),
    public: true,
    ..Operation::BASE
}];
