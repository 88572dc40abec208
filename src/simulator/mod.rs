//! The providers' side of the wire, for trying and for testing: it takes orders, works on them for a
//! while, calls back, answers polls, and serves the files it "made".
//!
//! Each provider is one module (`suno`, `mureka`, `minimax`, `musicgpt`) that checks orders and words answers in its own wire format,
//! and is entered in [`routes`] and in [`VOICES`]. Shared by all: what a task lives through (`plan`, `tasks`), the sending of
//! callbacks (`courier`), what outlives the program (`memory`), how the behaviour is steered (`control`, `script`), and what is made
//! (`lyricist`, `sound`, `picture`, `film`).

mod archive;
mod behaviour;
mod chance;
mod control;
mod courier;
mod files;
mod film;
mod lyricist;
mod memory;
mod minimax;
mod mureka;
mod musicgpt;
mod picture;
mod plan;
mod reception;
mod script;
mod seen;
mod signing;
mod sound;
mod stats;
mod steer;
mod suno;
mod tasks;
mod world;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use tokio::sync::watch;

pub use behaviour::Latency;
pub use seen::{Observer, Seen, Told};
use tasks::Voice;
use world::World;

const VOICES: [&Voice; 4] = [&suno::VOICE, &mureka::VOICE, &minimax::VOICE, &musicgpt::VOICE];

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Longer than any order; callers send no more.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Longer than clients keep idle connections, so that they are closed by them.
const KEEP_ALIVE: Duration = Duration::from_secs(120);

/// How a simulator starts; most of it can be changed while it runs (`POST /control`).
#[derive(Clone)]
pub struct Options {
    pub latency: Latency,
    /// The same seed and the same order of submissions make the same run.
    pub seed: u64,
    /// When set, callers must show it as `Authorization: Bearer <key>`.
    pub api_key: Option<String>,
    /// When set, callbacks are signed with it.
    pub webhook_secret: Option<String>,
    /// Threads that serve.
    pub workers: usize,
    /// Told of what happens as it happens, for tests and measurements. It must not block.
    pub observer: Option<Observer>,
    /// The folder in which tasks are kept, so that they go on at the next start. `None`: they end with
    /// the simulator. The behaviour set by `POST /control` is not kept.
    pub memory: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            latency: Latency::default(),
            seed: 1,
            api_key: None,
            webhook_secret: None,
            workers: 1,
            memory: None,
            observer: None,
        }
    }
}

/// A running simulator. Dropping it lets it run on.
pub struct Simulator {
    address: SocketAddr,
    server: ServerHandle,
    world: Arc<World>,
    stopped: watch::Receiver<bool>,
}

/// A listener on this machine for a simulator with that memory: on the port of the last time, so that
/// the urls of what it made still lead there, or else on a free one.
///
/// # Errors
/// When there is no free port.
pub fn listen(memory: &Path) -> io::Result<TcpListener> {
    let again =
        memory::last_port(memory).and_then(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    again.map_or_else(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), Ok)
}

/// Serves on `listener` until stopped. Must be called inside an actix `System` or a Tokio runtime.
///
/// # Errors
/// When the listener cannot be used, or no HTTP client for the callbacks can be made.
pub fn start(listener: TcpListener, options: Options) -> io::Result<Simulator> {
    let address = listener.local_addr()?;
    // Whoever submits a thousand songs at once opens a thousand connections; of the standard library's 128
    // the others would come a second late.
    socket2::SockRef::from(&listener).listen(BACKLOG)?;
    let workers = options.workers.max(1);
    let world = Arc::new(World::new(options, address, &VOICES)?);
    let served = world.clone();
    let server = HttpServer::new(move || {
        served.go_on();
        App::new().configure(|config| {
            routes(config, &served);
        })
    })
    .workers(workers)
    .keep_alive(KEEP_ALIVE)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    let (tell, stopped) = watch::channel(false);
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the simulator stopped");
        }
        tell.send_replace(true);
    });
    Ok(Simulator { address, server: handle, world, stopped })
}

impl Simulator {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops at once: what is under way is dropped, callbacks included; with a memory, the next
    /// simulator on it goes on with them.
    pub async fn stop(self) {
        self.server.stop(false).await;
        self.wait().await;
        self.world.memory.close().await;
    }

    /// Ready when the simulator has stopped.
    pub fn wait(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopped = self.stopped.clone();
        async move {
            // An error says that the server's task is gone, which is as stopped as can be.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    }
}

fn routes(config: &mut web::ServiceConfig, world: &Arc<World>) {
    config
        .app_data(web::Data::from(world.clone()))
        .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
        .service(web::scope("/suno").configure(suno::routes))
        .service(web::scope("/musicgpt").configure(musicgpt::routes))
        .service(web::scope("/mureka").configure(mureka::routes))
        .service(web::scope("/minimax").configure(minimax::routes))
        .configure(control::routes);
}
