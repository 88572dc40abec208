//! The routes that steer and watch the simulator. They are its own, no provider's.

use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};

use super::steer::{self, Wrong};
use super::world::World;

const INTENTS_SHOWN_MAX: usize = 1_000;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(welcome))
        .route("/control", web::get().to(shown))
        .route("/control", web::post().to(steered))
        .route("/control/reset", web::post().to(reset))
        .route("/control/stats", web::get().to(stats))
        .route("/control/intents", web::get().to(intents));
}

async fn welcome() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body(include_str!("welcome.txt"))
}

async fn shown(world: web::Data<World>) -> HttpResponse {
    HttpResponse::Ok().json(&*world.behaviour())
}

/// Answers the behaviour that holds from here on.
async fn steered(world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    let change = match serde_json::from_slice::<Value>(&body) {
        Ok(change) => change,
        Err(error) => return problem(&Wrong { key: "(the body)".into(), allowed: error.to_string() }),
    };
    match world.steer(|behaviour| steer::merge(behaviour, &change)) {
        Ok(behaviour) => HttpResponse::Ok().json(&*behaviour),
        Err(wrong) => problem(&wrong),
    }
}

async fn reset(world: web::Data<World>) -> HttpResponse {
    HttpResponse::Ok().json(&*world.reset())
}

async fn stats(world: web::Data<World>) -> HttpResponse {
    HttpResponse::Ok().json(world.stats.shown())
}

#[derive(Deserialize)]
struct Least {
    min: Option<u32>,
}

async fn intents(world: web::Data<World>, least: web::Query<Least>) -> HttpResponse {
    let intents = world.intents(least.min.unwrap_or(2), INTENTS_SHOWN_MAX);
    let shown = intents.iter().map(|(key, count)| json!({"key": &**key, "count": count}));
    HttpResponse::Ok().json(shown.collect::<Vec<_>>())
}

fn problem(wrong: &Wrong) -> HttpResponse {
    let body = json!({
        "type": "about:blank",
        "title": "This cannot be set",
        "status": 400,
        "detail": format!("{}: allowed is {}", wrong.key, wrong.allowed),
        "key": wrong.key,
        "allowed": wrong.allowed,
    });
    HttpResponse::build(StatusCode::BAD_REQUEST)
        .content_type("application/problem+json")
        .body(body.to_string())
}
