//! Suno as the gateway sunoapi.org speaks it: `generate`, `lyrics`, their polls, credits and files
//! (recorded in `tests/fixtures/suno`).
//!
//! Not here: the shapes of what is told (`wire.rs`), and what an order must look like (`order.rs`).
//! The gateway's other endpoints answer 404.

mod order;
mod wire;

use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};

use super::files;
use super::reception::{cut, has_key, origin};
use super::stats::Stats;
use super::tasks::{Kind, Order, Voice};
use super::world::{Refusal, Submission, World};

/// What an account that never runs dry shows.
const CREDITS: f64 = 1480.5;

pub(super) static VOICE: Voice = Voice { name: "suno", write: wire::callback };

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("")
            .wrap(from_fn(door))
            .route("/files/{name}", web::get().to(files::file))
            .route("/files/{name}", web::head().to(files::file))
            .route("/cdn/{name}", web::get().to(files::file))
            .route("/cdn/{name}", web::head().to(files::file))
            .route("/api/v1/generate", web::post().to(generate))
            .route("/api/v1/lyrics", web::post().to(lyrics))
            .route("/api/v1/generate/record-info", web::get().to(generate_status))
            .route("/api/v1/lyrics/record-info", web::get().to(lyrics_status))
            .route("/api/v1/generate/credit", web::get().to(credit))
            .default_service(web::to(not_found)),
    );
}

/// Lets nobody in while the gateway is down, and only who has the key.
async fn door(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let world = request.app_data::<web::Data<World>>().expect("routes() gives every app its world");
    let refused = if world.behaviour().down {
        Some(
            HttpResponse::ServiceUnavailable()
                .body("<html><body><h1>503 Service Unavailable</h1></body></html>"),
        )
    } else if request.path().starts_with("/suno/api/") && !has_key(&request, world) {
        Some(refusal(401, "You do not have access permissions"))
    } else {
        None
    };
    match refused {
        Some(answer) => Ok(request.into_response(answer).map_into_right_body()),
        None => Ok(next.call(request).await?.map_into_left_body()),
    }
}

async fn generate(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    Stats::add(&world.stats.generate);
    take(&request, world, order::music(&body)).await
}

async fn lyrics(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    Stats::add(&world.stats.lyrics);
    take(&request, world, order::lyrics(&body)).await
}

async fn take(
    request: &HttpRequest,
    world: web::Data<World>,
    order: Result<Order, order::Flaw>,
) -> HttpResponse {
    let order = match order {
        Ok(order) => order,
        Err(flaw) => {
            Stats::add(&world.stats.refused);
            return refusal(flaw.code, &flaw.message);
        }
    };
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    let submission =
        Submission { order, key: key.map(String::from), origin: origin(request, &world), voice: &VOICE };
    let mut answer = match world.into_inner().submit(submission) {
        Ok(answer) => answer,
        Err(reason) => return refused(reason),
    };
    answer.remembered().await;
    if answer.delay > Duration::ZERO {
        tokio::time::sleep(answer.delay).await;
    }
    match answer.cut {
        true => cut(),
        false => envelope(json!({"taskId": answer.task.name()})),
    }
}

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "taskId")]
    task_id: Option<String>,
}

async fn generate_status(world: web::Data<World>, asked: web::Query<Asked>) -> HttpResponse {
    status(&world, &asked, Kind::Music)
}

async fn lyrics_status(world: web::Data<World>, asked: web::Query<Asked>) -> HttpResponse {
    status(&world, &asked, Kind::Lyrics)
}

fn status(world: &World, asked: &Asked, kind: Kind) -> HttpResponse {
    Stats::add(&world.stats.polls);
    let Some(id) = asked.task_id.as_deref().filter(|id| !id.is_empty()) else {
        return refusal(400, "taskId can not be empty");
    };
    let task = world.task(id).filter(|task| task.order.kind == kind);
    envelope(task.map_or(Value::Null, |task| wire::status(&task, task.plan.stage(world.elapsed(&task)))))
}

async fn credit() -> HttpResponse {
    envelope(json!(CREDITS))
}

async fn not_found() -> HttpResponse {
    HttpResponse::NotFound().json(wire::envelope(404, "Not Found", Value::Null))
}

fn envelope(data: Value) -> HttpResponse {
    HttpResponse::Ok().json(wire::envelope(200, "success", data))
}

/// HTTP 200 and the truth in `code`, as the gateway has it.
fn refusal(code: u16, message: &str) -> HttpResponse {
    HttpResponse::Ok().json(wire::envelope(code, message, Value::Null))
}

fn refused(reason: Refusal) -> HttpResponse {
    match reason {
        Refusal::ServerError => {
            let message = "Server exception, please try again later";
            HttpResponse::InternalServerError().json(wire::envelope(500, message, Value::Null))
        }
        Refusal::RateLimited => refusal(430, "Your call frequency is too high. Please try again later."),
        Refusal::NoCredits => refusal(429, "The current credits are insufficient. Please top up."),
        Refusal::InvalidInput => refusal(413, "The prompt is too long"),
        Refusal::BadGateway => HttpResponse::build(StatusCode::BAD_GATEWAY).content_type("text/html").body(
            "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>",
        ),
        Refusal::Cut => cut(),
    }
}
