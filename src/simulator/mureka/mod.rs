//! Mureka: songs, instrumentals, lyrics, and what is done with a finished song; polls, but no callbacks (recorded in
//! `tests/fixtures/mureka`).
//!
//! Not here: what an order must look like (`order.rs`), and the shapes of what is told (`wire.rs`). Uploads, remixes
//! and streams answer 404.

mod order;
mod wire;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpRequest, HttpResponse, web};
use uuid::Uuid;

use super::plan::Stage;
use super::reception::{answered, bad_gateway, cut, ended, take, turned_away};
use super::stats::Stats;
use super::tasks::{Kind, Order, Voice};
use super::world::{Refusal, World};
use super::{archive, files, sound};
use wire::Fault;

/// Nobody is called back, so nothing is ever written.
pub(super) static VOICE: Voice = Voice { name: "mureka", write: |_, _| Vec::new() };

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("")
            .wrap(from_fn(door))
            .route("/files/{name}", web::get().to(files::file))
            .route("/files/{name}", web::head().to(files::file))
            .route("/stems/{id}.zip", web::get().to(stems_file))
            .route("/v1/song/generate", web::post().to(song))
            .route("/v1/song/easy-generate", web::post().to(easy))
            .route("/v1/instrumental/generate", web::post().to(instrumental))
            .route("/v1/song/extend", web::post().to(extend))
            .route("/v1/song/region-edit", web::post().to(region))
            .route("/v1/song/stem", web::post().to(stems))
            .route("/v1/lyrics/generate", web::post().to(lyrics))
            .route("/v1/lyrics/extend", web::post().to(more_lyrics))
            .route("/v1/song/query/{id}", web::get().to(song_status))
            .route("/v1/instrumental/query/{id}", web::get().to(instrumental_status))
            .route("/v1/account/billing", web::get().to(billing))
            .default_service(web::to(async || refusal(&Fault::NOT_FOUND))),
    );
}

async fn door(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    match turned_away(&request, VOICE.name, "/mureka/v1/", || refusal(&Fault::NO_KEY)) {
        Some(answer) => Ok(request.into_response(answer).map_into_right_body()),
        None => Ok(next.call(request).await?.map_into_left_body()),
    }
}

async fn song(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    begin(&request, world, order::song(&body)).await
}

async fn easy(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    begin(&request, world, order::easy(&body)).await
}

async fn instrumental(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    begin(&request, world, order::instrumental(&body)).await
}

async fn extend(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    begin(&request, world, order::extend(&body)).await
}

async fn region(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    begin(&request, world, order::region(&body)).await
}

/// Takes an order that is asked for later.
async fn begin(
    request: &HttpRequest,
    world: web::Data<World>,
    order: Result<Order, order::Flaw>,
) -> HttpResponse {
    Stats::add(&world.stats.generate);
    let order = match order {
        Ok(order) => order,
        Err(flaw) => return flawed(&world, flaw),
    };
    let taken = async { answered(take(request, &world.into_inner(), order, &VOICE).await?).await };
    match taken.await {
        Ok(task) => HttpResponse::Ok().json(wire::accepted(&task)),
        Err(reason) => refused(reason),
    }
}

async fn lyrics(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    Stats::add(&world.stats.lyrics);
    at_once(&request, world, order::lyrics(&body), wire::lyrics).await
}

async fn more_lyrics(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    Stats::add(&world.stats.lyrics);
    at_once(&request, world, order::more_lyrics(&body), wire::more_lyrics).await
}

async fn stems(request: HttpRequest, world: web::Data<World>, body: web::Bytes) -> HttpResponse {
    at_once(&request, world, order::stems(&body), wire::stems).await
}

/// Takes an order and answers with its result. One that never ends is never answered.
async fn at_once(
    request: &HttpRequest,
    world: web::Data<World>,
    order: Result<Order, order::Flaw>,
    told: wire::Told,
) -> HttpResponse {
    let order = match order {
        Ok(order) => order,
        Err(flaw) => return flawed(&world, flaw),
    };
    let world = world.into_inner();
    let done = async {
        let answer = take(request, &world, order, &VOICE).await?;
        let stage = ended(&world, &answer.task, None).await;
        Ok((answered(answer).await?, stage))
    };
    match done.await {
        Ok((task, Some(Stage::Done))) => HttpResponse::Ok().json(told(&task)),
        Ok((_, Some(Stage::Failed(class)))) => refusal(&Fault::of(class)),
        Ok((_, Some(Stage::Pending | Stage::Text | Stage::First) | None)) => refusal(&Fault::BROKEN),
        Err(reason) => refused(reason),
    }
}

async fn song_status(world: web::Data<World>, id: web::Path<String>) -> HttpResponse {
    status(&world, &id, false)
}

async fn instrumental_status(world: web::Data<World>, id: web::Path<String>) -> HttpResponse {
    status(&world, &id, true)
}

/// Songs are not found among the instrumentals, nor they among the songs.
fn status(world: &World, id: &str, instrumental: bool) -> HttpResponse {
    Stats::add(&world.stats.polls);
    let task = wire::task_id(id).and_then(|id| world.task(&id));
    let here = |order: &Order| order.kind != Kind::Lyrics && order.instrumental == instrumental;
    match task.filter(|task| here(&task.order)) {
        Some(task) => HttpResponse::Ok().json(wire::status(&task, task.plan.stage(world.elapsed(&task)))),
        None => refusal(&Fault::NOT_FOUND),
    }
}

async fn billing() -> HttpResponse {
    HttpResponse::Ok().json(wire::billing())
}

/// Two tracks in place of the many of a real separation.
async fn stems_file(world: web::Data<World>, id: web::Path<Uuid>) -> HttpResponse {
    Stats::add(&world.stats.files);
    let id = id.into_inner();
    let tracks = move || {
        let track = |salt: u128| sound::wav(Uuid::from_u128(id.as_u128() ^ salt));
        archive::zip(&[("vocals.wav", track(1)), ("instrumental.wav", track(2))])
    };
    match web::block(tracks).await {
        Ok(file) => HttpResponse::Ok().content_type("application/zip").body(file),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

fn flawed(world: &World, flaw: order::Flaw) -> HttpResponse {
    Stats::add(&world.stats.refused);
    refusal(&Fault { status: 400, message: format!("Invalid request parameters: {}", flaw.0).into() })
}

fn refused(reason: Refusal) -> HttpResponse {
    match reason {
        Refusal::ServerError => refusal(&Fault::BROKEN),
        Refusal::RateLimited => refusal(&Fault::TOO_FAST),
        Refusal::NoCredits => refusal(&Fault::NO_MONEY),
        Refusal::InvalidInput => refusal(&Fault::INVALID),
        Refusal::BadGateway => bad_gateway(),
        Refusal::Cut => cut(),
    }
}

fn refusal(fault: &Fault) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(fault.status).expect("faults have real statuses");
    HttpResponse::build(status).json(wire::error(fault))
}
