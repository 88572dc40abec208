//! MiniMax: one long call that answers with a song, as a url or as hexadecimal text (recorded in
//! `tests/fixtures/minimax`).
//!
//! Not here: what an order must look like (`order.rs`). Streams are refused; other endpoints answer 404.

mod order;

use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::behaviour::FailureClass;
use super::plan::Stage;
use super::reception::{answered, bad_gateway, cut, ended, take, turned_away};
use super::stats::Stats;
use super::tasks::{Task, Voice};
use super::world::{Refusal, World};
use super::{files, sound};

/// Nobody is called back, so nothing is ever written.
pub(super) static VOICE: Voice = Voice { name: "minimax", write: |_, _| Vec::new() };

/// Of the sound that is made here.
const SAMPLE_RATE: u32 = 22_050;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("")
            .wrap(from_fn(door))
            .route("/files/{name}", web::get().to(files::file))
            .route("/files/{name}", web::head().to(files::file))
            .route("/v1/music_generation", web::post().to(music))
            .default_service(web::to(async || HttpResponse::NotFound().body("404 page not found"))),
    );
}

async fn door(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let no_key = || error(1004, "login fail: please carry the API secret key");
    match turned_away(&request, VOICE.name, "/minimax/v1/", no_key) {
        Some(answer) => Ok(request.into_response(answer).map_into_right_body()),
        None => Ok(next.call(request).await?.map_into_left_body()),
    }
}

/// Answers when the song is made.
async fn music(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    Stats::add(&world.stats.generate);
    let (order, output) = match order::read(&body) {
        Ok(read) => read,
        Err(flaw) => {
            Stats::add(&world.stats.refused);
            return error(2013, &format!("invalid params, {flaw}"));
        }
    };
    let world = world.into_inner();
    // A task that never ends is given up by MiniMax itself, when the slowest of the others would be over.
    let patience = Duration::from_millis(world.behaviour().latency.music_ms[1]);
    let done = async {
        let answer = take(&request, &world, order, &VOICE).await?;
        let stage = ended(&world, &answer.task, Some(patience)).await;
        Ok((answered(answer).await?, stage))
    };
    match done.await {
        Ok((task, Some(Stage::Done))) => song(&task, output).await,
        Ok((_, Some(Stage::Failed(class)))) => failed(class),
        Ok((_, Some(Stage::Pending | Stage::Text | Stage::First) | None)) => failed(FailureClass::Timeout),
        Err(reason) => refused(reason),
    }
}

async fn song(task: &Task, output: order::Output) -> HttpResponse {
    let clip = task.clip("song");
    let Ok(file) = web::block(move || sound::wav(clip)).await else {
        return HttpResponse::ServiceUnavailable().finish();
    };
    let audio = match output {
        order::Output::Url => format!("{}/minimax/files/{clip}.wav", task.origin),
        order::Output::Hex => hex(&file),
    };
    HttpResponse::Ok().json(json!({
        "data": {"audio": audio, "status": 2},
        "trace_id": task.name(),
        "extra_info": {
            "music_duration": (sound::duration_s(clip) * 1000.0).round() as i64,
            "music_sample_rate": SAMPLE_RATE,
            "music_channel": 1,
            "bitrate": SAMPLE_RATE * 16,
            "music_size": file.len(),
        },
        "analysis_info": null,
        "base_resp": {"status_code": 0, "status_msg": "success"},
    }))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn failed(class: FailureClass) -> HttpResponse {
    match class {
        FailureClass::Moderation => error(1026, "input new_sensitive"),
        FailureClass::InvalidInput => error(2013, "invalid params, prompt"),
        FailureClass::ProviderError | FailureClass::Network => error(1000, "unknown error"),
        FailureClass::InsufficientProviderCredits => error(1008, "insufficient balance"),
        FailureClass::RateLimited => error(1002, "rate limit"),
        FailureClass::Timeout => error(1001, "timeout"),
    }
}

fn refused(reason: Refusal) -> HttpResponse {
    match reason {
        Refusal::ServerError => HttpResponse::InternalServerError().json(told(1024, "internal error")),
        Refusal::RateLimited => failed(FailureClass::RateLimited),
        Refusal::NoCredits => failed(FailureClass::InsufficientProviderCredits),
        Refusal::InvalidInput => failed(FailureClass::InvalidInput),
        Refusal::BadGateway => bad_gateway(),
        Refusal::Cut => cut(),
    }
}

/// HTTP 200 and the truth in `status_code`, as MiniMax has it.
fn error(code: u32, message: &str) -> HttpResponse {
    HttpResponse::Ok().json(told(code, message))
}

fn told(code: u32, message: &str) -> Value {
    json!({
        "data": null,
        "trace_id": "04ede0ab069fb1ba8be5156a24b1e0ff",
        "extra_info": null,
        "base_resp": {"status_code": code, "status_msg": message},
    })
}
