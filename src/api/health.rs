//! For load balancers and dashboards: is it alive, is it ready, what are its figures (OPS-4, OPS-9).

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde_json::json;

use super::{Api, Operation, resource};
use crate::store;

pub fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(resource("/healthz").route(web::get().to(alive)))
        .service(resource("/readyz").route(web::get().to(ready)))
        .service(resource("/metrics").route(web::get().to(figures)));
}

/// The process runs; nothing else is asked.
async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

/// Who asks whether all is well waits no longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Requests can be served: the database answers, this node may write, and is not about to leave.
async fn ready(api: web::Data<Api>) -> HttpResponse {
    let asked = store::ask_within(&api.world.pool, ANSWER_WITHIN, async |client| {
        Ok(client.batch_execute("select 1 from event_log").await?)
    });
    let database = asked.await.is_ok();
    let owner = !api.world.lease.is_lost();
    let leaving = api.world.lease.is_draining();
    let body = json!({
        "status": match (leaving, database && owner) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "not ready",
        },
        "database": database,
        "owner": owner,
    });
    if database && owner && !leaving {
        HttpResponse::Ok().json(body)
    } else {
        HttpResponse::ServiceUnavailable().insert_header((header::RETRY_AFTER, "2")).json(body)
    }
}

/// In Prometheus' text format.
async fn figures(api: web::Data<Api>) -> HttpResponse {
    let text = api.metrics.as_ref().map(metrics_exporter_prometheus::PrometheusHandle::render);
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text.unwrap_or_default())
}

pub const OPERATIONS: &[Operation] = &[
    Operation {
        path: "/healthz",
        summary: "Alive",
        answers: &[(200, "The process runs.")],
        returns: Some("Live"),
        public: true,
        ..Operation::BASE
    },
    Operation {
        path: "/readyz",
        summary: "Ready",
        answers: &[
            (200, "The database answers and this node may write."),
            (503, "Not yet, not now, or not any more: `draining`."),
        ],
        returns: Some("Ready"),
        public: true,
        ..Operation::BASE
    },
    Operation {
        path: "/metrics",
        summary: "Figures for Prometheus",
        answers: &[(200, "Text format.")],
        public: true,
        ..Operation::BASE
    },
];
