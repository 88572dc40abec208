//! The user's own account.

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::problem::Problem;
use super::who::Who;
use super::{Api, Operation};
use crate::credit::Credits;
use crate::store;
use crate::store::songs::{Person, person};
use crate::time::Time;

pub fn routes(routes: &mut web::ServiceConfig) {
    routes.route("/v1/me", web::get().to(me));
}

/// Credits, plan, and what is under way. Limits that are not enforced are null, not invented.
async fn me(api: web::Data<Api>, who: Who) -> Result<HttpResponse, Problem> {
    let question = async |client: &deadpool_postgres::Object| person(client, &who.0.user).await;
    let person = store::ask(&api.world.pool, question).await?.unwrap_or_else(|| Person {
        plan: "free".to_owned(),
        credits: api.signup_grant,
        used_today: Credits::ZERO,
        in_flight: 0,
    });
    Ok(HttpResponse::Ok().json(json!({
        "user": who.0.user,
        "plan": who.0.plan.unwrap_or(person.plan),
        "credits": person.credits.as_json(),
        "credits_used_today": person.used_today.as_json(),
        "limits": {"per_minute": Value::Null, "per_day": Value::Null, "concurrent": Value::Null},
        "in_flight": person.in_flight,
        "daily_reset_at": next_midnight(api.clock().now()).rfc3339(),
    })))
}

/// Days turn at 00:00 UTC (CRED-4).
fn next_midnight(now: Time) -> Time {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    Time::from_millis((now.millis().div_euclid(DAY_MS) + 1) * DAY_MS)
}

pub const OPERATIONS: &[Operation] = &[Operation {
    path: "/v1/me",
    summary: "Your account",
    doc: "Credits, plan, limits (null where there is none) and how many songs are under way.",
    answers: &[(200, "The account.")],
    returns: Some("Me"),
    ..Operation::BASE
}];
