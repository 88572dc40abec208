//! What was counted and how long things took, as the crowd saw it.

use std::time::{Duration, Instant};

/// Durations, to be asked for their quantiles.
#[derive(Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The least duration that this share of all did not exceed (nearest rank); `None` of nothing.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
    }
}

/// What the crowd has seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    pub began: Option<Instant>,
    pub ended: Option<Instant>,
    pub created: usize,
    pub with_clip: usize,
    pub ready: usize,
    /// Failed, cancelled, or refused.
    pub lost: usize,
    /// From the request to its whole answer.
    pub creates: Times,
    /// From the moment a callback that tells something new is about to be written by the simulator to the
    /// moment its event was read from the owner's socket. Both by the clock of this process.
    pub callbacks: Times,
    /// From the request to the event that says `ready`.
    pub whole: Times,
}

impl Seen {
    /// Without a departure there is nothing to count: a poll brought it, or the provider is not ours.
    pub fn callbacks_add(&mut self, left: Option<Instant>, heard: Instant) {
        if let Some(left) = left {
            self.callbacks.add(heard.saturating_duration_since(left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let mut times = Times::default();
        assert_eq!(times.quantile(0.5), None);
        for millis in (1..=100).rev() {
            times.add(Duration::from_millis(millis));
        }
        let at = |share| times.quantile(share).map(|took| took.as_millis());
        assert_eq!([at(0.0), at(0.5), at(0.99), at(1.0)], [Some(1), Some(50), Some(99), Some(100)]);
    }
}
