//! The user's own account, and every movement of its money.

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::problem::Problem;
use super::shape::{FieldKind, Shape, field};
use super::songs::query;
use super::who::Who;
use super::{Api, Operation, resource};
use crate::credit::Credits;
use crate::credit::plan::{Plan, next_midnight};
use crate::id::UserId;
use crate::store;
use crate::store::accounts::{self, Account, LedgerEntry};

pub fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(resource("/v1/me").route(web::get().to(me)))
        .service(resource("/v1/me/credits").route(web::get().to(credits)));
}

/// Credits, plan with its limits, and what is under way.
async fn me(api: web::Data<Api>, who: Who) -> Result<HttpResponse, Problem> {
    let user = &who.0.user;
    let now = api.clock().now();
    let question =
        async |client: &deadpool_postgres::Object| accounts::account(client, user, now, false).await;
    let known = store::ask(&api.world.pool, question).await?;
    let of_token = who.0.plan.as_deref().and_then(Plan::parse);
    let plan = of_token.or(known.as_ref().map(|account| account.plan)).unwrap_or(Plan::Free);
    let start = api.creation.start_of(user.as_str());
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "private, no-cache")).json(shown(
        &api,
        user,
        plan,
        known.as_ref(),
        start,
    )))
}

/// An account as its owner and operators see it.
pub(super) fn shown(
    api: &Api,
    user: &UserId,
    plan: Plan,
    known: Option<&Account>,
    start: Credits,
) -> serde_json::Value {
    let plans = api.creation.plans();
    let previews = known.map_or(0, |account| account.previews_today);
    json!({
        "user": user,
        "plan": plan.as_str(),
        "credits": known.map_or(start, |account| account.credits).as_json(),
        "credits_used_today": known.map_or(Credits::ZERO, |account| account.spent_today).as_json(),
        "songs_today": known.map_or(0, |account| account.songs_today),
        "previews_left": plans.previews_per_day.saturating_sub(previews),
        "limits": plans.of(plan).as_json(),
        "in_flight": known.map_or(0, |account| account.in_flight),
        "daily_reset_at": next_midnight(api.clock().now()).rfc3339(),
    })
}

const LEDGER: Shape = &[
    field("cursor", FieldKind::Text { max: 100 }, "The header `Next-Cursor` of the page before."),
    field("limit", FieldKind::Integer { min: 1, max: 100 }, "Entries a page; default 50."),
];

/// Every movement, newest first (CRED-2).
async fn credits(api: web::Data<Api>, who: Who, request: HttpRequest) -> Result<HttpResponse, Problem> {
    ledger(&api, &who.0.user, request.query_string(), entry).await
}

/// One page of somebody's ledger; where there may be more, with the header `Next-Cursor`.
pub(super) async fn ledger(
    api: &Api,
    user: &UserId,
    text: &str,
    entry: impl Fn(&LedgerEntry) -> Value,
) -> Result<HttpResponse, Problem> {
    let query = query(LEDGER, text)?;
    let before = query
        .text("cursor")
        .map(|cursor| place(cursor).ok_or_else(|| Problem::invalid_at("/cursor", "is not of this ledger")));
    let before = before.transpose()?;
    let limit = query.integer("limit").unwrap_or(50);
    let question =
        async |client: &deadpool_postgres::Object| accounts::entries(client, user, before, limit + 1).await;
    let mut entries = store::ask(&api.world.pool, question).await?;
    let more = i64::try_from(entries.len()).is_ok_and(|found| found > limit);
    entries.truncate(usize::try_from(limit).unwrap_or(0));
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "private, no-cache"));
    if let Some(last) = entries.last().filter(|_| more) {
        let cursor = HeaderValue::from_str(&cursor(last.id)).expect("base64 is visible ASCII");
        response.insert_header((HeaderName::from_static("next-cursor"), cursor));
    }
    Ok(response.json(entries.iter().map(entry).collect::<Vec<_>>()))
}

pub(super) fn entry(entry: &LedgerEntry) -> Value {
    json!({
        "at": entry.at.rfc3339(),
        "amount": entry.amount.as_json(),
        "reason": entry.reason,
        "task": entry.task,
        "song_id": entry.song,
        "balance": entry.balance.as_json(),
    })
}

/// Opaque to clients.
fn cursor(id: i64) -> String {
    URL_SAFE_NO_PAD.encode(format!("e.{id}"))
}

fn place(cursor: &str) -> Option<i64> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    text.strip_prefix("e.")?.parse().ok()
}

pub const OPERATIONS: &[Operation] = &[
    Operation {
        path: "/v1/me",
        summary: "Your account",
        doc: "Credits, plan, limits (null where there is none) and how many songs are under way.",
        answers: &[(200, "The account.")],
        returns: Some("Me"),
        ..Operation::BASE
    },
    Operation {
        path: "/v1/me/credits",
        summary: "Your credits, movement by movement",
        doc: "Newest first: `grant`, `reserve` when a task begins, then `capture` (with what comes back, often 0) or \
              `release` (all of it). `Next-Cursor` is there when there is more.",
        query: LEDGER,
        answers: &[(200, "The entries.")],
        returns: Some("Entries"),
        ..Operation::BASE
    },
];
