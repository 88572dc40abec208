//! What was counted and how long things took, as the crowd saw it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Durations, to be asked for their quantiles; each kept within a thousandth, from a microsecond to an hour.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

const HOUR_US: u64 = 3_600_000_000;

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, HOUR_US, 3).expect("an hour has three digits"))
    }
}

impl Times {
    pub fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(HOUR_US).max(1));
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn mean_ms(&self) -> f64 {
        self.0.mean() / 1000.0
    }

    /// The least that this share of all did not exceed, in milliseconds; `None` of nothing.
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(share) as f64 / 1000.0)
    }
}

/// What the crowd has seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    pub began: Option<Instant>,
    /// Orders that were sent, and that got their last answer.
    pub sent: usize,
    pub answered: usize,
    pub created: usize,
    pub refused: usize,
    pub with_clip: usize,
    /// Songs that were created and have ended, by the status they ended in.
    pub ended: BTreeMap<String, usize>,
    pub last_end: Option<Instant>,
    pub events: u64,
    /// Sockets that are connected and caught up.
    pub live: usize,
    pub connections: u64,
    /// Sockets that were lost without being meant to, by how.
    pub cuts: BTreeMap<String, u64>,
    /// Rows changed and committed before the load began, for comparison.
    pub commits: Times,
    /// From a SIGKILL of the server until every song under way was taken up again.
    pub take_overs: Times,
    /// From the request to its whole answer, of those that made a song.
    pub creates: Times,
    /// The same of those that came afterwards.
    pub creates_afterwards: Times,
    /// From the last answer to the rush until no order took longer than [`CALM`] any more.
    pub calm: Times,
    /// The same as `creates`, of those that were refused.
    pub refusals: Times,
    /// From the moment a callback that tells something new is about to be written by the simulator to the moment its
    /// event was read from the owner's socket. Both by the clock of this process.
    pub callbacks: Times,
    /// The slowest of them, in words.
    pub slowest: BinaryHeap<Reverse<(Duration, String)>>,
    /// The same over sockets that are anything but steady.
    pub callbacks_rough: Times,
    /// From the request to the event that says `ready`.
    pub whole: Times,
    /// From the wish to be connected to being caught up, from the second time on.
    pub returns: Times,
    /// How late this program came to what it had to do: where that is long, it measures itself.
    pub late: Times,
}

/// A creation that takes no longer is as quick as ever.
pub const CALM: Duration = Duration::from_millis(100);

/// So many of the slowest are told.
const SLOWEST: usize = 12;

impl Seen {
    pub fn callback(&mut self, took: Duration, of: impl FnOnce() -> String) {
        self.callbacks.add(took);
        let among = self.slowest.len() < SLOWEST
            || self.slowest.peek().is_some_and(|Reverse((least, _))| took > *least);
        if among {
            self.slowest.push(Reverse((took, of())));
        }
        if self.slowest.len() > SLOWEST {
            self.slowest.pop();
        }
    }

    pub fn ended(&self) -> usize {
        self.ended.values().sum()
    }

    pub fn in_status(&self, status: &str) -> usize {
        self.ended.get(status).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let mut times = Times::default();
        assert_eq!(times.quantile_ms(0.5), None);
        for millis in (1..=100).rev() {
            times.add(Duration::from_millis(millis));
        }
        let at = |share| times.quantile_ms(share).map(f64::round);
        assert_eq!([at(0.0), at(0.5), at(0.99), at(1.0)], [Some(1.0), Some(50.0), Some(99.0), Some(100.0)]);
    }
}
