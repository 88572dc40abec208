//! For operators (role `service`): users' credits and plans, and whether the books are right.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::me;
use super::problem::{Kind, Problem};
use super::shape::{FieldKind, Shape, field};
use super::songs::idempotency_key;
use super::who::Who;
use super::{Api, Keyed, Operation, Raw, body, resource};
use crate::auth::{Identity, Role};
use crate::credit::Credits;
use crate::credit::plan::Plan;
use crate::id::UserId;
use crate::store::accounts::{self, Grant, Granted};
use crate::store::{self, ledger};

pub fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(resource("/admin/ledger/check").route(web::get().to(check)))
        .service(resource("/admin/users/{user}").route(web::get().to(show)).route(web::patch().to(change)))
        .service(
            resource("/admin/users/{user}/credits")
                .route(web::get().to(entries))
                .route(web::post().to(grant)),
        );
}

/// Somebody with the role `service`; others get 403, whatever they ask for.
pub(super) struct Operator(pub(super) Identity);

impl FromRequest for Operator {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let who = Who::from_request(request, payload);
        Box::pin(async move {
            let Who(identity) = who.await?;
            match identity.role {
                Role::Service => Ok(Self(identity)),
                Role::Authenticated => Err(Problem::new(Kind::Forbidden, "This is for operators.")),
            }
        })
    }
}

pub(super) fn named(path: &str) -> Result<UserId, Problem> {
    UserId::parse(path).ok_or_else(Problem::not_found)
}

async fn show(api: web::Data<Api>, _: Operator, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(account(&api, &named(&path)?).await?))
}

async fn account(api: &Api, user: &UserId) -> Result<Value, Problem> {
    let now = api.clock().now();
    let question =
        async |client: &deadpool_postgres::Object| accounts::account(client, user, now, true).await;
    let known = store::ask(&api.world.pool, question).await?.ok_or_else(Problem::not_found)?;
    let mut shown = me::shown(api, user, known.plan, Some(&known), Credits::ZERO);
    let (all, previews) = known.provider_cost.unwrap_or_default();
    shown["created_at"] = json!(known.created_at.rfc3339());
    shown["provider_cost_usd"] = json!({"all": dollars(all), "previews": dollars(previews)});
    Ok(shown)
}

/// Thousandths as a JSON number, exact as far as they are written.
fn dollars(thousandths: i64) -> Value {
    Credits::from_thousandths(thousandths).as_json()
}

const PLAN: Shape =
    &[field("plan", FieldKind::Word(&["free", "pro", "premium"]), "What counts where a token names none.")
        .required()];

async fn change(
    api: web::Data<Api>,
    operator: Operator,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let body = body(PLAN, &raw.0)?;
    let user = named(&path)?;
    let plan = body.text("plan").and_then(Plan::parse).unwrap_or(Plan::Free);
    let start = api.creation.start_of(user.as_str());
    let set = async |client: &deadpool_postgres::Object| accounts::set_plan(client, &user, plan, start).await;
    store::ask(&api.world.pool, set).await?;
    tracing::info!(of = %user, plan = plan.as_str(), by = %operator.0.user, "a plan was set");
    Ok(HttpResponse::Ok().json(account(&api, &user).await?))
}

const GRANT: Shape = &[
    field(
        "amount",
        FieldKind::Number { min: -1_000_000.0, max: 1_000_000.0 },
        "Credits with at most three decimals; negative to take.",
    )
    .required(),
    field("note", FieldKind::Text { max: 500 }, "Why; stands in the ledger."),
];

/// Gives or takes credits, once for each key: a further entry, never a change of one.
async fn grant(
    api: web::Data<Api>,
    operator: Operator,
    path: web::Path<String>,
    request: HttpRequest,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let key = idempotency_key(request.headers())?.ok_or_else(|| {
        Problem::invalid_at(
            "",
            "the header Idempotency-Key is required: it is what makes a repetition harmless",
        )
    })?;
    let body = body(GRANT, &raw.0)?;
    let user = named(&path)?;
    let amount = Credits::signed(&body.written("amount").unwrap_or_default())
        .map_err(|allowed| Problem::invalid_at("/amount", format!("must be {allowed}, or less than 0")))?;
    if amount == Credits::ZERO {
        return Err(Problem::invalid_at("/amount", "must not be 0"));
    }
    let start = api.creation.start_of(user.as_str());
    let by = operator.0.user.as_str();
    let grant = Grant { user: &user, amount, note: body.text("note"), by, key: &key, start };
    let done = store::ask(&api.world.pool, async |client| accounts::grant(client, &grant).await).await?;
    match done {
        Granted::Done { balance } => {
            tracing::info!(of = %user, %amount, by, "credits were granted");
            Ok(HttpResponse::Created().json(granted(&user, amount, balance)))
        }
        Granted::Replay { balance } => Ok(HttpResponse::Ok()
            .insert_header(("Idempotent-Replayed", "true"))
            .json(granted(&user, amount, balance))),
        Granted::KeyMismatch => Err(Problem::new(
            Kind::IdempotencyMismatch,
            "This Idempotency-Key came with another amount before.",
        )),
        Granted::Short { available } => Err(Problem::short(-amount, available)),
    }
}

fn granted(user: &UserId, amount: Credits, balance: Credits) -> Value {
    json!({"user": user, "amount": amount.as_json(), "credits": balance.as_json()})
}

async fn entries(
    api: web::Data<Api>,
    _: Operator,
    path: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let user = named(&path)?;
    let with_why = |entry: &accounts::LedgerEntry| {
        let mut shown = me::entry(entry);
        shown["note"] = json!(entry.note);
        shown["granted_by"] = json!(entry.granted_by);
        shown
    };
    me::ledger(&api, &user, request.query_string(), with_why).await
}

/// A long ledger takes longer than what people wait for.
const CHECK_WITHIN: Duration = Duration::from_secs(60);

async fn check(api: web::Data<Api>, _: Operator) -> Result<HttpResponse, Problem> {
    let asked = store::ask_within(&api.world.pool, CHECK_WITHIN, async |client| {
        let snapshot = client.build_transaction().read_only(true).start().await?;
        let patience = format!("set local statement_timeout = {}", CHECK_WITHIN.as_millis());
        snapshot.batch_execute(&patience).await?;
        let books = ledger::books(&*snapshot).await?;
        snapshot.rollback().await?;
        Ok(books)
    });
    Ok(HttpResponse::Ok().json(asked.await?.as_json()))
}

pub const OPERATIONS: &[Operation] = &[
    Operation {
        path: "/admin/users/{user}",
        summary: "A user's account (operators)",
        doc: "As the user sees it, with what the providers took for it. Role `service`.",
        answers: &[(200, "The account."), (403, "Not an operator.")],
        returns: Some("Me"),
        ..Operation::BASE
    },
    Operation {
        method: "patch",
        path: "/admin/users/{user}",
        summary: "Set a user's plan (operators)",
        doc: "Counts from the next song on. Role `service`.",
        body: Some(PLAN),
        answers: &[(200, "The account."), (403, "Not an operator.")],
        returns: Some("Me"),
        ..Operation::BASE
    },
    Operation {
        path: "/admin/users/{user}/credits",
        summary: "A user's ledger (operators)",
        doc: "As `GET /v1/me/credits`, with notes. Role `service`.",
        answers: &[(200, "The entries."), (403, "Not an operator.")],
        returns: Some("Entries"),
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/admin/users/{user}/credits",
        summary: "Give or take credits (operators)",
        doc: "A further entry in the ledger, once for each `Idempotency-Key`; never below zero. Role `service`.",
        body: Some(GRANT),
        answers: &[
            (201, "The new balance."),
            (200, "It was done before."),
            (402, "It would be less than nothing."),
            (403, "Not an operator."),
            (422, "The key came with another amount."),
        ],
        returns: Some("Granted"),
        keyed: Keyed::Required,
        ..Operation::BASE
    },
    Operation {
        path: "/admin/ledger/check",
        summary: "Are the books right? (operators)",
        doc: "Every balance the sum of its entries, every ended task settled once, every open reservation a task \
              under way. Reads all of the ledger. Role `service`.",
        answers: &[(200, "`right`, and what is not."), (403, "Not an operator.")],
        ..Operation::BASE
    },
];
