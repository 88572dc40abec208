//! The time that limits are counted in: from the making of the gate on, so that a stepped wall clock
//! changes no wait.

use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;

use crate::time;

/// Tells the time that has passed. Cheap to clone.
#[derive(Clone)]
pub struct Ticks(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Ticks {
    /// Tokio's time, which a simulation can stop and move.
    pub fn tokio() -> Self {
        let start = time::Clock.monotonic();
        Self(Arc::new(move || time::Clock.since(start)))
    }

    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl Clock for Ticks {
    type Instant = Duration;
    fn now(&self) -> Duration {
        (self.0)()
    }
}

/// A clock that moves only when it is told to.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Hand(Arc<std::sync::atomic::AtomicU64>);

#[cfg(test)]
impl Hand {
    pub(crate) fn ticks(&self) -> Ticks {
        let hand = self.clone();
        Ticks(Arc::new(move || Duration::from_millis(hand.0.load(std::sync::atomic::Ordering::SeqCst))))
    }

    pub(crate) fn advance(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).expect("a test is shorter than the universe");
        self.0.fetch_add(millis, std::sync::atomic::Ordering::SeqCst);
    }
}
