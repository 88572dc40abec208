//! Suno as the gateway sunoapi.org speaks it, or kie.ai: songs, lyrics, what is made of clips, their polls,
//! credits and files (recorded in `tests/fixtures/suno`).
//!
//! Not here: the shapes of what is told (`wire.rs`, `additions.rs`), and what an order must look like
//! (`order.rs`). A clip that an order names need not exist. The gateway's other endpoints answer 404.

mod additions;
mod order;
mod wire;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpRequest, HttpResponse, Route, web};
use serde::Deserialize;
use serde_json::{Value, json};

use super::behaviour::Dialect;
use super::files;
use super::plan::Stage;
use super::reception::{cut, has_key, origin};
use super::stats::Stats;
use super::tasks::{KEPT, Kind, Order, Task, Voice};
use super::world::{Refusal, Submission, World};

/// What an account that never runs dry shows.
const CREDITS: f64 = 1480.5;

pub(super) static VOICE: Voice =
    Voice { name: "suno", write: |task, event| vec![wire::callback(task, event)] };

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("")
            .wrap(from_fn(door))
            .route("/files/{name}", web::get().to(files::file))
            .route("/files/{name}", web::head().to(files::file))
            .route("/cdn/{name}", web::get().to(files::file))
            .route("/cdn/{name}", web::head().to(files::file))
            .configure(submissions)
            .configure(polls)
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
    let refused = if world.behaviour().down.covers(VOICE.name) {
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

fn submissions(config: &mut web::ServiceConfig) {
    type Read = fn(&[u8]) -> Result<Order, order::Flaw>;
    let music: [(&str, Read); 5] = [
        ("", order::music),
        ("/extend", order::extension),
        ("/upload-extend", order::upload_extension),
        ("/upload-cover", order::cover),
        ("/replace-section", order::section),
    ];
    for (path, read) in music {
        config.route(&format!("/api/v1/generate{path}"), submission(read, |stats| &stats.generate));
    }
    let additions: [(&str, Read); 3] = [
        ("vocal-removal/generate", order::stems),
        ("mp4/generate", order::video),
        ("generate/generate-persona", order::persona),
    ];
    for (path, read) in additions {
        config.route(&format!("/api/v1/{path}"), submission(read, |stats| &stats.additions));
    }
    config.route("/api/v1/lyrics", submission(order::lyrics, |stats| &stats.lyrics));
}

/// Where orders that are read so are taken, and counted there.
fn submission(read: fn(&[u8]) -> Result<Order, order::Flaw>, count: fn(&Stats) -> &AtomicU64) -> Route {
    web::post().to(move |request: HttpRequest, world: web::Data<World>, body: web::Bytes| async move {
        Stats::add(count(&world.stats));
        take(&request, world, read(&body)).await
    })
}

fn polls(config: &mut web::ServiceConfig) {
    const PATHS: [(&str, &[Kind]); 4] = [
        ("generate", &[Kind::Music, Kind::Section]),
        ("lyrics", &[Kind::Lyrics]),
        ("vocal-removal", &[Kind::Stems]),
        ("mp4", &[Kind::Video]),
    ];
    for (path, kinds) in PATHS {
        let shown = move |world: web::Data<World>, asked: web::Query<Asked>| async move {
            status(&world, &asked, kinds)
        };
        config.route(&format!("/api/v1/{path}/record-info"), web::get().to(shown));
    }
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
            let code = if world.behaviour().dialect == Dialect::Kie { 422 } else { flaw.code };
            return refusal(code, &flaw.message);
        }
    };
    let dialect = world.behaviour().dialect;
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    let submission =
        Submission { order, key: key.map(String::from), origin: origin(request, &world), voice: &VOICE };
    let mut answer = match world.into_inner().submit(submission) {
        Ok(answer) => answer,
        Err(reason) => return refused(reason, dialect),
    };
    answer.remembered().await;
    if answer.delay > Duration::ZERO {
        tokio::time::sleep(answer.delay).await;
    }
    match answer.task.order.kind {
        _ if answer.cut => cut(),
        Kind::Persona => persona(&answer.task).await,
        _ => envelope(json!({"taskId": answer.task.name()})),
    }
}

/// Answers when it is made, or has failed.
async fn persona(task: &Task) -> HttpResponse {
    let end = task.plan.ends_at();
    tokio::time::sleep(end.unwrap_or(KEPT)).await;
    match task.plan.stage(end.unwrap_or(KEPT)) {
        Stage::Failed(class) => {
            let fault = wire::Fault::of(Kind::Persona, class);
            refusal(fault.code, fault.message)
        }
        Stage::Pending | Stage::Text | Stage::First | Stage::Done => envelope(json!({
            "personaId": format!("persona_{}", task.clip("persona").simple()),
            "name": &*task.order.title,
            "description": &*task.order.style,
        })),
    }
}

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "taskId")]
    task_id: Option<String>,
}

fn status(world: &World, asked: &Asked, kinds: &[Kind]) -> HttpResponse {
    Stats::add(&world.stats.polls);
    let Some(id) = asked.task_id.as_deref().filter(|id| !id.is_empty()) else {
        return refusal(400, "taskId can not be empty");
    };
    let task = world.task(id).filter(|task| kinds.contains(&task.order.kind));
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

fn refused(reason: Refusal, dialect: Dialect) -> HttpResponse {
    let (too_fast, no_credits) = match dialect {
        Dialect::Sunoapi => (430, 429),
        Dialect::Kie => (429, 402),
    };
    match reason {
        Refusal::ServerError => {
            let message = "Server exception, please try again later";
            HttpResponse::InternalServerError().json(wire::envelope(500, message, Value::Null))
        }
        Refusal::RateLimited => refusal(too_fast, "Your call frequency is too high. Please try again later."),
        Refusal::NoCredits => refusal(no_credits, "The current credits are insufficient. Please top up."),
        Refusal::InvalidInput => refusal(413, "The prompt is too long"),
        Refusal::BadGateway => HttpResponse::build(StatusCode::BAD_GATEWAY).content_type("text/html").body(
            "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>",
        ),
        Refusal::Cut => cut(),
    }
}
