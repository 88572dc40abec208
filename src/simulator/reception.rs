//! What every provider's door does before and after its own words: the key, being down, taking an order, waiting for
//! its end, breaking the connection.

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BodyStream;
use actix_web::dev::ServiceRequest;
use actix_web::error::ErrorInternalServerError;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;

use super::plan::Stage;
use super::tasks::{KEPT, Order, Task, Voice};
use super::world::{Answer, Refusal, Submission, World};
use crate::id;

/// The answer to who may not come in: nobody while the provider is down; below `api` only who has the key.
pub(super) fn turned_away(
    request: &ServiceRequest,
    name: &str,
    api: &str,
    no_key: impl FnOnce() -> HttpResponse,
) -> Option<HttpResponse> {
    let world = request.app_data::<web::Data<World>>().expect("routes() gives every app its world");
    if world.behaviour().down.covers(name) {
        return Some(page(HttpResponse::ServiceUnavailable(), "503 Service Unavailable"));
    }
    (request.path().starts_with(api) && !has_key(request, world)).then(no_key)
}

pub(super) fn has_key(request: &ServiceRequest, world: &World) -> bool {
    let Some(key) = &world.api_key else {
        return true;
    };
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    shown.and_then(|value| value.strip_prefix("Bearer ")) == Some(key)
}

/// Where the client found the simulator, so that it finds the files there as well.
pub(super) fn origin(request: &HttpRequest, world: &World) -> String {
    match request.headers().contains_key("host") {
        true => {
            let connection = request.connection_info();
            format!("{}://{}", connection.scheme(), connection.host())
        }
        false => world.own_origin(),
    }
}

/// Takes an order of which nobody is called back; it would survive the end of this program. Who shows no key cannot
/// be told from others, so each of their orders counts as one of its own.
///
/// # Errors
/// A [`Refusal`], for the provider to put into words.
pub(super) async fn take(
    request: &HttpRequest,
    world: &Arc<World>,
    order: Order,
    voice: &'static Voice,
) -> Result<Answer, Refusal> {
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    let key = key.map_or_else(|| id::fresh().to_string(), String::from);
    let submission = Submission { order, key: Some(key), origin: origin(request, world), voice };
    let mut answer = world.submit(submission)?;
    answer.remembered().await;
    Ok(answer)
}

/// When the order is to be answered, unless its answer is cut off.
///
/// # Errors
/// [`Refusal::Cut`]; the order was taken all the same.
pub(super) async fn answered(answer: Answer) -> Result<Arc<Task>, Refusal> {
    if answer.delay > Duration::ZERO {
        tokio::time::sleep(answer.delay).await;
    }
    if answer.cut { Err(Refusal::Cut) } else { Ok(answer.task) }
}

/// Waits for the end of a task; `None` after `patience` where it has none.
pub(super) async fn ended(world: &World, task: &Task, patience: Option<Duration>) -> Option<Stage> {
    let Some(end) = task.plan.ends_at() else {
        tokio::time::sleep(patience.unwrap_or(KEPT)).await;
        return None;
    };
    tokio::time::sleep(end.saturating_sub(world.elapsed(task))).await;
    Some(task.plan.stage(end))
}

/// A proxy in between answers.
pub(super) fn bad_gateway() -> HttpResponse {
    page(HttpResponse::BadGateway(), "502 Bad Gateway")
}

fn page(mut answer: actix_web::HttpResponseBuilder, title: &str) -> HttpResponse {
    let page = format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>");
    answer.content_type("text/html").body(page)
}

/// A body that breaks before its first byte takes the connection with it.
pub(super) fn cut() -> HttpResponse {
    let broken = stream::once(async { Err::<web::Bytes, _>(ErrorInternalServerError("cut on purpose")) });
    HttpResponse::Ok().body(BodyStream::new(Box::pin(broken)))
}
