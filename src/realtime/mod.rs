//! How frontends follow songs: the protocol `songs.v1` over WebSocket (`docs/protocol.md`).
//!
//! Postgres is the truth; what goes through here may be lost anywhere and is made good by the numbers on
//! it. An event's way: `journal` → [`Realtime::changed`] → `hub` (one per arbiter) → `outbox` (one per
//! connection) → `handover`'s pump → `line`. A command's way: `line` → `socket` → `session` → `hub`. Beside
//! both, the `reaper` ends what is dead.
//!
//! Not here: what a change means (`song::step`), the reads (`store::feed`).

pub mod commands;
pub mod connection;
pub mod frames;
pub mod handover;
mod hub;
mod line;
pub mod outbox;
mod overlay;
mod patience;
mod reaper;
mod resume;
pub mod session;
pub mod socket;
pub mod wire;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{Actor as _, Addr, ArbiterHandle};
use futures_util::future::LocalBoxFuture;
use metrics::counter;
use tokio::sync::Semaphore;

use self::connection::{Connection, Registry};
use self::hub::Hub;
use self::outbox::Limits;
use self::reaper::Reaper;
use self::socket::Handshake;
use crate::chance;
use crate::config::Origins;
use crate::id::UserId;
use crate::store::SongChanged;
use crate::store::feed::Feed;
use crate::time::{Clock, Time};

/// The subprotocol's name.
pub const PROTOCOL: &str = "songs.v1";

/// Users are spread over this many shards, so that hubs, and later nodes, can share them out.
pub const SHARDS: usize = 128;

/// The limits of `protocol.md`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What connections' names begin with.
    pub node: String,
    pub hello_timeout: Duration,
    /// From ping to ping, ± 10 %.
    pub ping: Duration,
    /// How long an answer to a ping may take.
    pub pong: Duration,
    pub subs_max: usize,
    pub commands_per_second: u32,
    pub connections_per_user: usize,
    /// Of a client's message.
    pub frame_bytes_max: usize,
    pub resume_events_max: usize,
    pub resume_bytes_max: usize,
    pub outbox_frames_max: usize,
    pub outbox_bytes_max: usize,
    pub slots_bytes_max: usize,
    /// How long a peer may take nothing of what waits.
    pub stall: Duration,
    pub snapshots_at_once: usize,
    /// How often the hubs compare with Postgres, ± 25 %.
    pub head_check: Duration,
    /// A user's last events kept in memory.
    pub recent_events: usize,
    /// And at most so many bytes of them: few users have that many, and nobody pays for those who have.
    pub recent_bytes: usize,
    /// How long a user's events are kept after the last watcher left.
    pub hub_kept: Duration,
    /// Messages that may wait for a hub; more are lost, and found again by their numbers.
    pub hub_mailbox: usize,
    /// Whose pages may open sockets.
    pub allowed_origins: Origins,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: "n1".to_owned(),
            hello_timeout: Duration::from_secs(5),
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(10),
            subs_max: 100,
            commands_per_second: 20,
            connections_per_user: 10,
            frame_bytes_max: 65_536,
            resume_events_max: 300,
            resume_bytes_max: 262_144,
            outbox_frames_max: 32,
            outbox_bytes_max: 65_536,
            slots_bytes_max: 262_144,
            stall: Duration::from_secs(10),
            snapshots_at_once: 8,
            head_check: Duration::from_secs(40),
            recent_events: 100,
            recent_bytes: 32 << 10,
            hub_kept: Duration::from_secs(60),
            hub_mailbox: 4096,
            allowed_origins: Origins::default(),
        }
    }
}

/// Who holds a token, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: UserId,
    pub expires: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    Bad,
    Expired,
    /// Banned or signed out.
    Forbidden,
    /// It cannot be checked now.
    Unavailable,
}

/// Checks tokens. Sessions run on single-threaded workers, so its futures need not be `Send`.
pub trait Verifier: Send + Sync {
    fn verify<'a>(&'a self, token: &'a str) -> LocalBoxFuture<'a, Result<Identity, TokenError>>;
}

/// What the realtime part needs of the others.
#[derive(Clone)]
pub struct Deps {
    pub feed: Arc<dyn Feed>,
    pub verifier: Arc<dyn Verifier>,
    pub clock: Clock,
}

/// The handle of everything here. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Realtime {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Arc<Settings>,
    registry: Arc<Registry>,
    hubs: Vec<Addr<Hub>>,
    reapers: Vec<Addr<Reaper>>,
    feed: Arc<dyn Feed>,
    verifier: Arc<dyn Verifier>,
    clock: Clock,
    leaving: OnceLock<Leaving>,
}

/// How this program says good-bye to its sockets.
struct Leaving {
    code: u16,
    /// They come back spread over this much time.
    spread: Duration,
}

impl Leaving {
    fn say_bye(&self, connection: &Connection) {
        let after = self.spread.mul_f64(chance::of_number(connection.id(), 2));
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        connection.close_after(self.code, "deploy", Some(after_ms));
    }
}

impl Realtime {
    /// Starts a hub and a reaper on each of the arbiters.
    pub fn start(settings: Settings, deps: Deps, arbiters: &[ArbiterHandle]) -> Self {
        assert!(!arbiters.is_empty(), "hubs need an arbiter to run on");
        let settings = Arc::new(settings);
        let limits = Limits {
            frames_max: settings.outbox_frames_max,
            bytes_max: settings.outbox_bytes_max,
            slots_bytes_max: settings.slots_bytes_max,
        };
        let registry = Arc::new(Registry::new(arbiters.len(), limits, deps.clock));
        let admission = Arc::new(Semaphore::new(settings.snapshots_at_once.max(1)));
        let start_one = |(number, arbiter): (usize, &ArbiterHandle)| {
            let reaper =
                Reaper { registry: Arc::clone(&registry), part: number, settings: Arc::clone(&settings) };
            let reaper = Reaper::start_in_arbiter(arbiter, move |_| reaper);
            let (feed, settings) = (Arc::clone(&deps.feed), Arc::clone(&settings));
            let (admission, clock) = (Arc::clone(&admission), deps.clock);
            let hub =
                Hub::start_in_arbiter(arbiter, move |_| Hub::new(number, feed, settings, admission, clock));
            (hub, reaper)
        };
        let (hubs, reapers) = arbiters.iter().enumerate().map(start_one).unzip();
        let Deps { feed, verifier, clock } = deps;
        let leaving = OnceLock::new();
        Self { inner: Arc::new(Inner { settings, registry, hubs, reapers, feed, verifier, clock, leaving }) }
    }

    /// Something is durable and may be shown (RT-1). To be called in the order of a user's commits, from
    /// any thread. Never waits: what does not fit is dropped, and read from Postgres when the next number
    /// or the head check shows the hole.
    pub fn changed(&self, change: SongChanged) {
        if self.inner.hub_of(&change.user).try_send(change).is_err() {
            counter!("songflight_realtime_dropped_total").increment(1);
        }
    }

    /// Whether an actor that all rely on has stumbled over a fault of ours: it does not come back.
    pub fn has_fallen(&self) -> bool {
        !self.inner.hubs.iter().all(Addr::connected) || !self.inner.reapers.iter().all(Addr::connected)
    }

    pub fn connections(&self) -> usize {
        self.inner.registry.count()
    }

    /// Says `bye` to everybody and closes; they come back spread over `spread`. New ones are turned away.
    /// Returns when all are gone, or after three seconds.
    pub async fn close_all(&self, code: u16, spread: Duration) {
        let leaving = self.inner.leaving.get_or_init(|| Leaving { code, spread });
        for connection in self.inner.registry.all() {
            leaving.say_bye(&connection);
        }
        for _ in 0..60 {
            if self.connections() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The user signed out or was banned: open sockets are closed for good (4503).
    pub fn revoke(&self, user: &UserId) {
        for connection in self.inner.registry.revoked(user) {
            connection.close(4503, "revoked");
        }
    }

    /// A connection without songs behind it, for trying the socket itself.
    pub fn bare_connection(&self, handshake: &Handshake) -> (Arc<Connection>, Arc<Registry>) {
        let connection = self.inner.open(handshake);
        connection.hello_came();
        (connection, Arc::clone(&self.inner.registry))
    }
}

impl Inner {
    fn hub_of(&self, user: &UserId) -> &Addr<Hub> {
        &self.hubs[shard(user) % self.hubs.len()]
    }

    fn is_leaving(&self) -> bool {
        self.leaving.get().is_some()
    }

    /// A socket that comes while this program leaves may be missed by who lists them all, so it looks for itself. One of both
    /// sees the other: listing takes the lock under which this one was entered.
    fn open(&self, handshake: &Handshake) -> Arc<Connection> {
        let connection = self.registry.open(handshake.line());
        if let Some(leaving) = self.leaving.get() {
            leaving.say_bye(&connection);
        }
        connection
    }
}

/// Where a user belongs: the same on every node and in every version.
pub fn shard(user: &UserId) -> usize {
    usize::try_from(user.number() % SHARDS as u64).unwrap_or(0)
}
