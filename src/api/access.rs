//! For operators (role `service`): whose tokens are refused although they have not expired (protocol.md 6).

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::admin::{Operator, named};
use super::problem::Problem;
use super::{Api, Operation, resource};
use crate::ops::revocations::heed;
use crate::realtime::Realtime;
use crate::store;
use crate::store::revocations::{self, Act};

pub fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(
            resource("/admin/users/{user}/sign-out").route(
                web::post().to(|api, realtime, who, user| change(api, realtime, who, user, Act::SignOut)),
            ),
        )
        .service(
            resource("/admin/users/{user}/ban")
                .route(web::put().to(|api, realtime, who, user| change(api, realtime, who, user, Act::Ban)))
                .route(
                    web::delete()
                        .to(|api, realtime, who, user| change(api, realtime, who, user, Act::Pardon)),
                ),
        );
}

async fn change(
    api: web::Data<Api>,
    realtime: web::Data<Realtime>,
    operator: Operator,
    user: web::Path<String>,
    act: Act,
) -> Result<HttpResponse, Problem> {
    let user = named(&user)?;
    let question = async |client: &deadpool_postgres::Object| revocations::revoke(client, &user, act).await;
    let revocation = store::ask(&api.world.pool, question).await?;
    if let Some(revocation) = &revocation {
        heed(&api.auth, &realtime, revocation);
    }
    tracing::info!(of = %user, ?act, by = %operator.0.user, "what tokens of theirs are taken was set");
    let shown = json!({
        "user": user,
        "banned": revocation.as_ref().is_some_and(|revocation| revocation.banned),
        "tokens_after": revocation.map(|revocation| revocation.before.rfc3339()),
    });
    Ok(HttpResponse::Ok().json(shown))
}

const ANSWERS: &[(u16, &str)] = &[
    (200, "`user`, `banned`, and `tokens_after`: what a token must be issued after, or null."),
    (403, "Not an operator."),
];

pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/admin/users/{user}/sign-out",
        summary: "Sign a user out everywhere (operators)",
        doc: "Every token issued up to now (to the second) is refused with 401, and open sockets are closed with 4503 \
              within a second. Tokens without `iat` are refused from here on. Role `service`.",
        answers: ANSWERS,
        ..Operation::BASE
    },
    Operation {
        method: "put",
        path: "/admin/users/{user}/ban",
        summary: "Refuse a user (operators)",
        doc: "All tokens are refused with 403, those to come as well, and open sockets are closed with 4503 within a \
              second. Songs that are under way go on. Role `service`.",
        answers: ANSWERS,
        ..Operation::BASE
    },
    Operation {
        method: "delete",
        path: "/admin/users/{user}/ban",
        summary: "Let a user in again (operators)",
        doc: "With a token issued after the ban. Role `service`.",
        answers: ANSWERS,
        ..Operation::BASE
    },
];
