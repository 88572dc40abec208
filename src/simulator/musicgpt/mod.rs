//! MusicGPT as it speaks itself: songs, lyrics, work on finished clips, their polls and files (recorded in
//! `tests/fixtures/musicgpt`).
//!
//! Not here: the shapes of what is told (`wire.rs`), what an order must look like (`order.rs`), and reading
//! forms (`form.rs`). Its other endpoints answer 404.

mod form;
mod order;
mod wire;

use std::time::Duration;

use actix_web::body::{BodyStream, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::ErrorInternalServerError;
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE};
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpRequest, HttpResponse, web};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;

use super::files;
use super::plan::Stage;
use super::stats::Stats;
use super::tasks::{Order, Task, Voice};
use super::world::{Answer, Refusal, Submission, World};
use order::Flaw;

/// How long a question is held that is never answered; longer than any client waits.
const SILENCE: Duration = Duration::from_secs(120);
/// How long after its submission a task may not be found yet.
const UNKNOWN_MAX: Duration = Duration::from_secs(2);

pub(super) static VOICE: Voice = Voice { name: "musicgpt", write: wire::callbacks };

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("")
            .wrap(from_fn(door))
            .route("/files/{name}", web::get().to(files::file))
            .route("/files/{name}", web::head().to(files::file))
            .route("/v1/MusicAI", web::post().to(first_version))
            .route("/v2/MusicAI", web::post().to(second_version))
            .route("/v1/prompt_to_lyrics", web::get().to(lyrics))
            .route("/v1/extend", web::post().to(extend))
            .route("/v1/inpaint", web::post().to(inpaint))
            .route("/v1/Remix", web::post().to(remix))
            .route("/v1/Extraction", web::post().to(extraction))
            .route("/v1/byId", web::get().to(by_id))
            .default_service(web::to(|| async { error(404, "detail", "Not Found") })),
    );
}

/// Lets nobody in while the provider is down, and only who has the key, which stands bare in its header.
async fn door(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let world = request.app_data::<web::Data<World>>().expect("routes() gives every app its world");
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let known = world.api_key.as_deref().is_none_or(|key| shown == Some(key));
    let refused = if world.behaviour().down.covers(VOICE.name) {
        Some(page(StatusCode::SERVICE_UNAVAILABLE))
    } else if request.path().starts_with("/musicgpt/v") && !known {
        Some(error(401, "detail", "Invalid API key"))
    } else {
        None
    };
    match refused {
        Some(answer) => Ok(request.into_response(answer).map_into_right_body()),
        None => Ok(next.call(request).await?.map_into_left_body()),
    }
}

async fn first_version(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    take(&request, world, order::song(&body, &order::V1)).await
}

async fn second_version(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    take(&request, world, order::song(&body, &order::V2)).await
}

async fn extend(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    let order = fields(&request, &body).and_then(|fields| order::extend(&fields));
    take(&request, world, order).await
}

async fn inpaint(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    let order = fields(&request, &body).and_then(|fields| order::inpaint(&fields));
    take(&request, world, order).await
}

async fn remix(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    let order = fields(&request, &body).and_then(|fields| order::remix(&fields));
    take(&request, world, order).await
}

async fn extraction(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    let order = fields(&request, &body).and_then(|fields| order::extraction(&fields));
    take(&request, world, order).await
}

fn fields(request: &HttpRequest, body: &[u8]) -> Result<form::Fields, Flaw> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    form::read(content_type.unwrap_or_default(), body).ok_or_else(|| Flaw::new("the body is no form"))
}

async fn take(request: &HttpRequest, world: web::Data<World>, order: Result<Order, Flaw>) -> HttpResponse {
    Stats::add(&world.stats.generate);
    let answer = match submitted(request, &world, order).await {
        Ok(answer) => answer,
        Err(refused) => return refused,
    };
    if answer.delay > Duration::ZERO {
        tokio::time::sleep(answer.delay).await;
    }
    match answer.cut {
        true => cut(),
        false => HttpResponse::Ok().json(wire::accepted(&answer.task)),
    }
}

async fn submitted(
    request: &HttpRequest,
    world: &web::Data<World>,
    order: Result<Order, Flaw>,
) -> Result<Answer, HttpResponse> {
    let order = order.map_err(|flaw| {
        Stats::add(&world.stats.refused);
        error(422, "detail", &flaw.detail)
    })?;
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    let submission =
        Submission { order, key: key.map(String::from), origin: origin(request, world), voice: &VOICE };
    let mut answer = world.clone().into_inner().submit(submission).map_err(refused)?;
    answer.remembered().await;
    Ok(answer)
}

#[derive(Deserialize)]
struct Wish {
    prompt: Option<String>,
}

/// The one order that is answered with its result, after the time that it takes.
async fn lyrics(request: HttpRequest, world: web::Data<World>, wish: web::Query<Wish>) -> HttpResponse {
    Stats::add(&world.stats.lyrics);
    let order = order::lyrics(wish.prompt.as_deref().unwrap_or_default());
    let answer = match submitted(&request, &world, order).await {
        Ok(answer) => answer,
        Err(refused) => return refused,
    };
    let Some(end) = answer.task.plan.ends_at() else {
        tokio::time::sleep(SILENCE).await;
        return cut();
    };
    tokio::time::sleep(end.max(answer.delay)).await;
    match answer.task.plan.stage(end) {
        _ if answer.cut => cut(),
        Stage::Failed(class) => wire::lyrics_failure(class),
        Stage::Pending | Stage::Text | Stage::First | Stage::Done => {
            HttpResponse::Ok().json(wire::lyrics(&answer.task))
        }
    }
}

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "conversionType")]
    conversion_type: Option<String>,
    task_id: Option<String>,
    conversion_id: Option<String>,
}

async fn by_id(world: web::Data<World>, asked: web::Query<Asked>) -> HttpResponse {
    Stats::add(&world.stats.polls);
    let Some(wanted) = asked.conversion_type.as_deref() else {
        return error(422, "detail", "conversionType is required");
    };
    let found = |task: &Task| order::conversion_type(&task.order) == wanted && is_known(&world, task);
    let stage = |task: &Task| task.plan.stage(world.elapsed(task));
    let conversion = match (&asked.task_id, &asked.conversion_id) {
        (Some(id), _) => {
            world.task(id).filter(|task| found(task)).map(|task| wire::status(&task, stage(&task)))
        }
        (None, Some(id)) => wire::task_of(id, |id| world.task(id))
            .filter(|(task, _)| found(task))
            .map(|(task, nth)| wire::status_of_one(&task, nth, stage(&task))),
        (None, None) => return error(422, "detail", "task_id or conversion_id is required"),
    };
    match conversion {
        Some(conversion) => HttpResponse::Ok().json(json!({"success": true, "conversion": conversion})),
        None => error(404, "error", "Conversion not found"),
    }
}

/// Some tasks are not found in the first moments after their submission.
fn is_known(world: &World, task: &Task) -> bool {
    let soon = task.plan.ends_at().unwrap_or(UNKNOWN_MAX).mul_f64(0.1).min(UNKNOWN_MAX);
    !task.chance("late to be found").hit(0.25) || world.elapsed(task) >= soon
}

/// Where the client found the simulator, so that it finds the files there as well.
fn origin(request: &HttpRequest, world: &World) -> String {
    match request.headers().contains_key("host") {
        true => {
            let connection = request.connection_info();
            format!("{}://{}", connection.scheme(), connection.host())
        }
        false => world.own_origin(),
    }
}

fn refused(reason: Refusal) -> HttpResponse {
    match reason {
        Refusal::ServerError => error(500, "detail", "Internal server error"),
        Refusal::RateLimited => error(429, "detail", "Too many parallel requests"),
        Refusal::NoCredits => {
            HttpResponse::PaymentRequired().json(json!({"success": false, "message": "INSUFFICIENT FUNDS"}))
        }
        Refusal::InvalidInput => error(422, "detail", order::PROMPT_TOO_LONG),
        Refusal::BadGateway => page(StatusCode::BAD_GATEWAY),
        Refusal::Cut => cut(),
    }
}

/// The HTTP status counts here; the words stand under one key or another.
fn error(status: u16, key: &str, words: &str) -> HttpResponse {
    let status = StatusCode::from_u16(status).expect("the statuses above are statuses");
    HttpResponse::build(status).json(json!({ key: words }))
}

/// What a proxy says in place of the provider.
fn page(status: StatusCode) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/html")
        .body(format!("<html><body><h1>{status}</h1></body></html>"))
}

/// A body that breaks before its first byte takes the connection with it.
fn cut() -> HttpResponse {
    let broken = stream::once(async { Err::<web::Bytes, _>(ErrorInternalServerError("cut on purpose")) });
    HttpResponse::Ok().body(BodyStream::new(Box::pin(broken)))
}
