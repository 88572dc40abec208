//! Sends every message back: the peer of Autobahn's fuzzing client (`tests/autobahn/run`). The same
//! reader, socket and outbox as the service, with messages up to 16 MiB.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::{App, HttpRequest, HttpResponse, web};
use async_trait::async_trait;
use futures_util::future::LocalBoxFuture;
use songflight::id::{ShareToken, SongId, UserId};
use songflight::realtime::connection::Connection;
use songflight::realtime::socket::{Ctx, Handshake, Talk};
use songflight::realtime::{Deps, Identity, Realtime, Settings, TokenError, Verifier, handover, wire};
use songflight::store::StoreError;
use songflight::store::feed::{Feed, Head, Page, Snapshot};
use songflight::time::Clock;

const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

struct Echo(Arc<Connection>);

impl Talk for Echo {
    fn text(&mut self, text: String, _: &mut Ctx<Self>) {
        self.0.send(wire::text(&text));
    }

    fn binary(&mut self, bytes: Vec<u8>, _: &mut Ctx<Self>) {
        self.0.send(wire::binary(&bytes));
    }
}

async fn echo(request: HttpRequest, realtime: web::Data<Realtime>) -> Result<HttpResponse, actix_web::Error> {
    let handshake = Handshake::of(&request)?;
    let (connection, registry) = realtime.bare_connection(&handshake);
    let talk = Echo(Arc::clone(&connection));
    Ok(handshake.accept(registry, connection, MESSAGE_BYTES_MAX, talk))
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let nobody = Arc::new(Nobody);
    let deps = Deps { feed: nobody.clone(), verifier: nobody, clock: Clock };
    let arbiter = actix::Arbiter::new();
    let realtime = Realtime::start(Settings::default(), deps, &[arbiter.handle()]);
    let app =
        move || App::new().app_data(web::Data::new(realtime.clone())).default_service(web::get().to(echo));
    let connections = move || handover::connections(app.clone(), std::future::pending);
    Server::build().workers(1).listen("echo", TcpListener::bind(address)?, connections)?.run().await
}

/// There are no songs here.
struct Nobody;

fn none<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("an echo has no songs".to_owned()))
}

#[async_trait]
impl Feed for Nobody {
    async fn heads(&self, _: &[UserId]) -> Result<HashMap<UserId, Head>, StoreError> {
        none()
    }
    async fn of_user(&self, _: &UserId, _: i64, _: i64) -> Result<Page, StoreError> {
        none()
    }
    async fn of_song(&self, _: &UserId, _: SongId, _: i64, _: i64) -> Result<Option<Page>, StoreError> {
        none()
    }
    async fn songs(&self, _: &UserId) -> Result<Snapshot, StoreError> {
        none()
    }
    async fn song(&self, _: &UserId, _: SongId) -> Result<Option<Snapshot>, StoreError> {
        none()
    }
    async fn shared(&self, _: ShareToken) -> Result<Option<(SongId, UserId)>, StoreError> {
        none()
    }
}

impl Verifier for Nobody {
    fn verify<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Result<Identity, TokenError>> {
        Box::pin(std::future::ready(Err(TokenError::Bad)))
    }
}
