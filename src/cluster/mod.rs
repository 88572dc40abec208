//! This node among others: its lease, and the songs that others left (`durability.md` section 4).
//!
//! One node runs the same code with itself alone. Not here: what is done with a song that was taken
//! over (`song::directory`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::id;
use crate::store::StoreError;
use crate::store::database::Database;
use crate::store::journal::NodeKey;
use crate::time::Clock;

/// How long this node may still act on its songs, on the monotonic clock. Shared by all its threads.
#[derive(Clone)]
pub struct Lease {
    inner: Arc<Inner>,
}

struct Inner {
    zero: Instant,
    /// Milliseconds after `zero`.
    ends: AtomicU64,
    lost: AtomicBool,
    draining: AtomicBool,
    changed: Notify,
}

impl Lease {
    fn new(clock: Clock) -> Self {
        let zero = clock.monotonic();
        let inner = Inner {
            zero,
            ends: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            changed: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// When it ends unless it is prolonged. While draining it is over already: nothing new is sent.
    pub fn ends(&self) -> Instant {
        if self.inner.draining.load(Ordering::Acquire) {
            return self.inner.zero;
        }
        self.inner.zero + Duration::from_millis(self.inner.ends.load(Ordering::Acquire))
    }

    /// Whether another node has taken this node's songs: then nothing may be done for them here.
    pub fn is_lost(&self) -> bool {
        self.inner.lost.load(Ordering::Acquire)
    }

    /// Resolves when the songs are lost.
    pub async fn lost(&self) {
        while !self.is_lost() {
            let changed = self.inner.changed.notified();
            if self.is_lost() {
                return;
            }
            changed.await;
        }
    }

    /// No call is begun from here on; those under way may end, and what they bring is still written.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::SeqCst);
    }

    /// Whether this node is about to leave: it takes nothing new (OPS-9).
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::SeqCst)
    }

    fn prolong(&self, asked_at: Instant, by: Duration) {
        let ends = asked_at.duration_since(self.inner.zero) + by;
        let ends = u64::try_from(ends.as_millis()).unwrap_or(u64::MAX);
        self.inner.ends.fetch_max(ends, Ordering::AcqRel);
    }

    fn lose(&self) {
        self.inner.lost.store(true, Ordering::Release);
        self.inner.changed.notify_waiters();
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub heartbeat: Duration,
    pub lease: Duration,
}

/// A node that has entered and keeps its lease as long as [`Node::keep_alive`] runs.
#[derive(Clone)]
pub struct Node {
    pub key: NodeKey,
    pub lease: Lease,
    settings: Settings,
    clock: Clock,
}

impl Node {
    /// Enters as the node whose process ran here before and is gone for certain, else under an id that was never used.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while Postgres is away.
    pub async fn enter(
        database: &dyn Database,
        name: &str,
        settings: Settings,
        clock: Clock,
        former: Option<Uuid>,
    ) -> Result<Self, StoreError> {
        let lease = Lease::new(clock);
        let mut asked_at = clock.monotonic();
        let succeeded = match former {
            Some(former) => database.succeed(former, name, settings.lease).await?,
            None => None,
        };
        let key = match succeeded {
            Some(key) => key,
            None => {
                asked_at = clock.monotonic();
                database.enter(id::fresh(), name, settings.lease).await?
            }
        };
        lease.prolong(asked_at, settings.lease);
        Ok(Self { key, lease, settings, clock })
    }

    /// Prolongs the lease until it is lost. While Postgres is away it runs out, and no call is made; when
    /// Postgres is back and nobody took over, all goes on.
    pub async fn keep_alive(self, database: Arc<dyn Database>) {
        while !self.lease.is_lost() {
            let asked_at = self.clock.monotonic();
            let beat = tokio::time::timeout(
                self.settings.lease / 3,
                database.heartbeat(self.key, self.settings.lease),
            )
            .await;
            match beat {
                Ok(Ok(true)) => self.lease.prolong(asked_at, self.settings.lease),
                Ok(Ok(false)) => self.lease.lose(),
                Ok(Err(error)) => tracing::warn!(%error, "the lease could not be prolonged"),
                Err(_) => tracing::warn!("the lease could not be prolonged in time"),
            }
            tokio::time::sleep(self.settings.heartbeat).await;
        }
    }

    /// Leaves without a word, as a crash does: nothing more is begun, and the lease runs out.
    pub fn abandon(&self) {
        self.lease.lose();
    }

    /// Leaves under the fence: songs that are still running may be taken at once.
    pub async fn leave(&self, database: &dyn Database) {
        self.lease.lose();
        let left = database.leave(self.key);
        if let Ok(Err(error)) = tokio::time::timeout(self.settings.lease, left).await {
            tracing::warn!(%error, "the lease could not be given back; it runs out by itself");
        }
    }
}
