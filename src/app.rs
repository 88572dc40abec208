//! Builds everything and connects it; the only module that knows all others.
//!
//! The order of starting is the order of need: database, schema, lease, providers, realtime, journal,
//! songs, doors. Stopping is the reverse: doors shut, calls under way end, the lease is given back.

mod database;
mod descriptors;
mod doors;
mod folder;
mod keeping;
mod leaving;
mod providers;
mod settings;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::Arbiter;
use actix_web::dev::ServerHandle;
use actix_web::web;
use deadpool_postgres::Pool;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use secrecy::SecretString;

pub use self::database::{Database, DatabaseError};
use self::folder::Folder;
use self::settings::{plans, prices, rules};
use crate::api::Api;
use crate::api::creation::Creation;
use crate::api::guests::Guests;
use crate::asset::Assets;
use crate::auth::{self, Auth, CallbackKeys, Role};
use crate::callback::{Callbacks, Tasks};
use crate::cluster::{self, Node};
use crate::config::{Config, Env, Loaded};
use crate::credit::seats::Seats;
use crate::id::UserId;
use crate::ops::private_postgres::PrivatePostgres;
use crate::ops::revocations::Revocations;
use crate::ops::supervise;
use crate::provider::Providers;
use crate::provider::minimax::Keep;
use crate::realtime::{self, Realtime};
use crate::simulator::{self, Simulator};
use crate::song::actor::{ReplyTo, World};
use crate::song::directory::Directories;
use crate::store::journal::{self, Journal, NodeKey};
use crate::store::server::Server;
use crate::store::{self, StoreError, accounts, feed, nodes};
use crate::time::{Clock, Time};

/// How long nobody is let in while the songs of the process before are taken up.
const DOORS_WAIT: Duration = Duration::from_secs(2);
/// How long one of the actors that all rely on may be gone before it is noticed.
const LOOK_FOR_FAULTS_EVERY: Duration = Duration::from_secs(1);
/// The files we serve, in the folder of what is kept on this machine.
const ASSETS_DIR: &str = "assets";
/// What the simulator keeps, in the folder of what is kept on this machine.
const SIMULATOR_DIR: &str = "simulator";

/// Why the program cannot start, in words for whoever started it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

fn cannot<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> StartError {
    move |error| StartError(format!("{what}: {error}"))
}

/// Everything that runs.
pub struct Running {
    pub address: SocketAddr,
    /// A token and a call to try; `None` in production.
    pub trial: Option<Trial>,
    server: ServerHandle,
    world: Arc<World>,
    node: Node,
    realtime: Realtime,
    directories: Directories,
    pool: Pool,
    /// The lease's own.
    lifeline: Arc<Pool>,
    stop_within: Duration,
    simulator: Option<Simulator>,
    postgres: Option<PrivatePostgres>,
    stopped: tokio::task::JoinHandle<std::io::Result<()>>,
    folder: Option<Folder>,
    /// A fault of ours ends it.
    faulty: bool,
}

/// What a newcomer needs for a first song.
#[derive(Clone, Debug)]
pub struct Trial {
    pub user: &'static str,
    pub token: String,
    pub private_database: bool,
    pub simulated: bool,
}

/// Starts everything; returns once requests are served.
///
/// # Errors
/// What stood in the way.
pub async fn start(loaded: &Loaded, progress: impl Fn(&str)) -> Result<Running, StartError> {
    let config = &loaded.config;
    tell_of_what_is_missing(config);
    let clock = Clock;
    let listener = doors::listen(loaded)?;
    let address = listener.local_addr().map_err(cannot("the address"))?;
    let metrics = recorder();
    keeping::metrics(&metrics);

    let Database { postgres, private } = Database::open(config, &progress).await?;
    progress("Bringing the schema up to date …");
    store::migrate(&postgres).await.map_err(cannot("the database"))?;
    let pool = store::pool(&postgres, config.database.pool_size).map_err(cannot("the pool"))?;
    let mut folder = Folder::lock(config.local_dir());
    let node = enter(config, &pool, private.is_some(), folder.as_ref(), clock);
    let node = node.await.map_err(cannot("the database"))?;
    if let Some(folder) = &mut folder {
        folder.keep(node.key.id);
    }
    let lifeline = keeping::lease(&node, &postgres).map_err(cannot("the pool"))?;
    keeping::house(config, &pool);

    let simulator = simulate(config).map_err(cannot("the simulator"))?;
    let own_url = own_url(config, address);
    let assets = Assets::new(config.local_dir().join(ASSETS_DIR), &own_url);
    let providers = providers::providers(config, simulator.as_ref(), keep(&assets))?;
    note_prices(&providers, &pool).await.map_err(cannot("the database"))?;
    let key = auth::own_key(&config.auth, config.local_dir()).map_err(cannot("the signing key"))?;
    let auth = Arc::new(Auth::new(&config.auth, &key, http_client()?));

    let arbiters: Vec<_> = (0..cores()).map(|_| Arbiter::new().handle()).collect();
    let realtime = start_realtime(config, &pool, &auth, clock, &arbiters);
    let revocations = Revocations { pool: pool.clone(), auth: auth.clone(), realtime: realtime.clone() };
    let known = revocations.all().await.map_err(cannot("the database"))?;
    supervise::keep("the look for revoked tokens", move || revocations.clone().keep_looking(known));

    let journal = start_journal(config, &postgres, node.key, &realtime);
    let tasks = Arc::new(Tasks::default());
    let reply_to = callback_urls(own_url, &key, &tasks);
    let world = Arc::new(World {
        rules: rules(config),
        clock,
        journal,
        database: Arc::new(pool.clone()),
        pool: pool.clone(),
        providers,
        lease: node.lease.clone(),
        seats: Seats::default(),
        plans: plans(config),
        reply_to,
        call_timeout: config.tasks.call_timeout,
        activations_max: config.ops.activations_max,
        calls: std::sync::atomic::AtomicUsize::new(0),
        awake: std::sync::atomic::AtomicUsize::new(0),
    });
    let directories = Directories::start(&world, &arbiters);
    let in_hand = keeping::songs(config, &world, &directories);
    keeping::audits(config, &postgres, &world);

    let trial =
        (config.env == Env::Development).then(|| trial(config, &auth, private.is_some(), clock.now()));
    let api = web::Data::new(Api {
        auth: auth.clone(),
        world: world.clone(),
        directories: directories.clone(),
        prices: prices(config),
        creation: Creation::new(
            plans(config),
            config.credits.signup_grant,
            config.credits.guest_grant,
            config.http.creates_at_once,
        ),
        guests: Guests::new(config.guests.per_address, config.guests.token_ttl, config.http.trust_forwarded),
        stuck_after: config.ops.stuck_after,
        metrics: Some(metrics),
        hint: trial.as_ref().map(|trial| trial.first_song(reachable(address))),
    });
    let callbacks = web::Data::new(Callbacks {
        keys: CallbackKeys::new(&key, &config.auth.previous_secrets),
        world: world.clone(),
        directories: directories.clone(),
        tasks,
        room: tokio::sync::Semaphore::new(config.http.callbacks_at_once),
    });
    // Whoever comes meanwhile waits in line. After a crash all come at once, and would only be in the way.
    let _ = tokio::time::timeout(DOORS_WAIT, in_hand).await;
    let server =
        doors::serve(config, listener, api, callbacks, assets, &realtime).map_err(cannot("the server"))?;
    let handle = server.handle();
    let stopped = actix::spawn(server);
    if let Some(folder) = &folder {
        folder.serves_at(&format!("http://{}", reachable(address)));
    }
    Ok(Running {
        address,
        trial,
        server: handle,
        world,
        node,
        realtime,
        directories,
        pool,
        lifeline,
        stop_within: config.ops.stop_within,
        simulator,
        postgres: private,
        stopped,
        folder,
        faulty: false,
    })
}

impl Running {
    /// Resolves when the program should end by itself: another node took its songs, the server died, an actor that all
    /// rely on did, or the private database, which is started with this program.
    pub async fn fallen(&mut self) -> String {
        tokio::select! {
            () = self.node.lease.lost() => {
                self.folder.iter().for_each(Folder::forget);
                "another node has taken over this node's songs".to_owned()
            }
            ended = &mut self.stopped => format!("the server ended: {ended:?}"),
            () = fault(&self.realtime, &self.directories) => {
                self.faulty = true;
                "a part that all rely on stumbled over a fault of ours; start again, and all songs go on".to_owned()
            }
            () = ended(self.postgres.as_mut()) => {
                "the private database ended by itself (its log stands beside its folder); start again, and all songs go on"
                    .to_owned()
            }
        }
    }
}

/// Who is told to stay away for ever is better served by a program that was started again.
async fn fault(realtime: &Realtime, directories: &Directories) {
    while !realtime.has_fallen() && !directories.have_fallen() {
        tokio::time::sleep(LOOK_FOR_FAULTS_EVERY).await;
    }
}

/// A database of somebody else's may come back, and is waited for.
async fn ended(private: Option<&mut PrivatePostgres>) {
    match private {
        Some(private) => private.ended().await,
        None => std::future::pending().await,
    }
}

impl Trial {
    /// A call to paste.
    pub fn first_song(&self, address: SocketAddr) -> String {
        format!(
            "curl -s http://{address}/v1/songs \\\n  -H 'Authorization: Bearer {}' \\\n  -H 'Content-Type: \
             application/json' \\\n  -d '{{\"mode\":\"music\",\"title\":\"First Winter\",\"prompt\":\"a waltz about \
             the first winter\",\"style_tags\":[\"waltz\",\"piano\"]}}'",
            self.token
        )
    }
}

fn trial(config: &Config, auth: &Auth, private_database: bool, now: Time) -> Trial {
    const USER: &str = "alice";
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let user = UserId::trusted(USER);
    Trial {
        user: USER,
        token: auth.issue(&user, None, Role::Authenticated, DAY, now),
        private_database,
        simulated: config.is_simulated(),
    }
}

/// Settings that are read and have no effect yet.
fn tell_of_what_is_missing(config: &Config) {
    if config.assets.url.is_some() {
        tracing::warn!("assets.url has no effect yet: files are kept in `assets` beside the private cluster");
    }
    if config.cluster.redis_url.is_some() {
        tracing::warn!("cluster.redis_url (REDIS_URL) has no effect yet: there is no bus between nodes");
    }
    if config.otel.endpoint.is_some() {
        tracing::warn!("otel.endpoint has no effect yet: no traces are sent");
    }
}

/// What the providers take counts from when it changes (CRED-6).
async fn note_prices(providers: &Providers, pool: &Pool) -> Result<(), StoreError> {
    let costs = providers.names().filter_map(|name| {
        let able = providers.get(name)?.capabilities();
        Some((able.name, able.cost_usd_milli))
    });
    accounts::note_prices(&pool.get().await?, &costs.collect::<Vec<_>>()).await
}

/// Each of its writers has a thread of its own.
fn start_journal(config: &Config, postgres: &Server, node: NodeKey, realtime: &Realtime) -> Journal {
    let settings = journal::Settings {
        lanes: config.journal.lanes,
        batch_max: config.journal.batch_max,
        queue_max: config.journal.queue_max,
        ..journal::Settings::default()
    };
    let watchers = realtime.clone();
    let (journal, writers) = Journal::new(postgres, node, &settings, move |change| watchers.changed(change));
    for writer in writers {
        Arbiter::new().spawn(writer);
    }
    journal
}

/// For keys that are public.
fn http_client() -> Result<reqwest::Client, StartError> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10));
    client.build().map_err(cannot("the http client"))
}

async fn enter(
    config: &Config,
    pool: &Pool,
    alone: bool,
    folder: Option<&Folder>,
    clock: Clock,
) -> Result<Node, StoreError> {
    let settings = cluster::Settings { heartbeat: config.cluster.heartbeat, lease: config.cluster.lease };
    let name = format!("{}:{}", std::env::var("HOSTNAME").unwrap_or_default(), std::process::id());
    let node = Node::enter(pool, &name, settings, clock, folder.and_then(Folder::former)).await?;
    if alone {
        // We hold the lock on the data folder: whoever wrote here before is gone for certain.
        nodes::end_other_leases(&pool.get().await?, node.key).await?;
    }
    Ok(node)
}

/// The simulator that stands in where no provider is configured. A real one would work on while this
/// program is away, so it remembers its tasks.
fn simulate(config: &Config) -> std::io::Result<Option<Simulator>> {
    if !config.is_simulated() {
        return Ok(None);
    }
    let memory = config.local_dir().join(SIMULATOR_DIR);
    let listener = simulator::listen(&memory)?;
    let options = simulator::Options { memory: Some(memory), ..simulator::Options::default() };
    simulator::start(listener, options).map(Some)
}

fn start_realtime(
    config: &Config,
    pool: &Pool,
    auth: &Arc<Auth>,
    clock: Clock,
    arbiters: &[actix::ArbiterHandle],
) -> Realtime {
    let wanted = &config.realtime;
    let settings = realtime::Settings {
        node: format!("n{}", std::process::id()),
        hello_timeout: wanted.hello_timeout,
        ping: wanted.ping,
        pong: wanted.pong,
        subs_max: wanted.subs_max,
        commands_per_second: wanted.commands_per_second,
        connections_per_user: wanted.connections_per_user,
        frame_bytes_max: wanted.frame_bytes_max,
        resume_events_max: wanted.resume_events_max,
        resume_bytes_max: wanted.resume_bytes_max,
        outbox_frames_max: wanted.outbox_frames_max,
        outbox_bytes_max: wanted.outbox_bytes_max,
        slots_bytes_max: wanted.slots_bytes_max,
        stall: wanted.stall,
        snapshots_at_once: wanted.snapshots_at_once,
        allowed_origins: config.http.origins(),
        ..realtime::Settings::default()
    };
    let deps = realtime::Deps {
        feed: Arc::new(feed::PostgresFeed::new(pool.clone(), Arc::new(rules(config)))),
        verifier: Arc::new(TokenCheck { auth: auth.clone(), clock }),
        clock,
    };
    Realtime::start(settings, deps, arbiters)
}

/// The tokens of sockets are those of requests.
struct TokenCheck {
    auth: Arc<Auth>,
    clock: Clock,
}

impl realtime::Verifier for TokenCheck {
    fn verify<'a>(
        &'a self,
        token: &'a str,
    ) -> futures_util::future::LocalBoxFuture<'a, Result<realtime::Identity, realtime::TokenError>> {
        Box::pin(async move {
            match self.auth.verify(token, self.clock.now()).await {
                Ok(identity) => Ok(realtime::Identity { user: identity.user, expires: identity.expires }),
                Err(auth::AuthError::Expired) => Err(realtime::TokenError::Expired),
                Err(auth::AuthError::Revoked | auth::AuthError::Banned) => {
                    Err(realtime::TokenError::Forbidden)
                }
                Err(auth::AuthError::KeysUnavailable) => Err(realtime::TokenError::Unavailable),
                Err(_) => Err(realtime::TokenError::Bad),
            }
        })
    }
}

/// Where the commands that are run beside a service find it: the one that runs in this folder, else the address that is
/// configured.
pub fn service_url(config: &Config) -> String {
    folder::address(config.local_dir()).unwrap_or_else(|| {
        let bind = &config.http.bind;
        match bind.parse() {
            Ok(address) => format!("http://{}", reachable(address)),
            Err(_) => format!("http://{bind}"),
        }
    })
}

/// Where clients and providers reach us, without a slash at its end.
fn own_url(config: &Config, address: SocketAddr) -> String {
    let url = config.http.public_url.clone().unwrap_or_else(|| format!("http://{}", reachable(address)));
    url.trim_end_matches('/').to_owned()
}

fn keep(assets: &Assets) -> Keep {
    let assets = assets.clone();
    Arc::new(move |file, media_type| assets.keep(&file, media_type))
}

fn callback_urls(base: String, key: &SecretString, tasks: &Arc<Tasks>) -> ReplyTo {
    let keys = CallbackKeys::new(key, &[]);
    let tasks = tasks.clone();
    Box::new(move |song, call| {
        tasks.remember(call.task, song.id, song.kind_of(call.task));
        let provider = song.provider_of(call.task);
        format!("{base}/callbacks/{provider}/{call}/{}", keys.token(provider, call))
    })
}

/// An address that listens everywhere is reached at this machine's own.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// One recorder for the whole process.
fn recorder() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let seconds =
                [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
            let builder = PrometheusBuilder::new();
            let recorder = builder
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &seconds)
                .expect("the buckets are not empty")
                .build_recorder();
            let handle = recorder.handle();
            // Only a second recorder in one process would be refused.
            let _ = metrics::set_global_recorder(recorder);
            handle
        })
        .clone()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get)
}
