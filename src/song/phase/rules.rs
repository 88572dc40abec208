//! The delays and limits that `song::step` and `song::due` go by.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::provider::failure::RetryRules;

/// The delays and limits that `step` and `due` go by; from the configuration, fixed while running.
#[derive(Clone, Debug)]
pub struct Rules {
    /// From a call's submission to its end (PROV-7).
    pub deadline: Duration,
    pub poll: PollRules,
    /// Providers with a deadline and a timetable of their own, by name.
    pub own: BTreeMap<String, OwnRules>,
    /// How long a callback may still adopt an order of unknown fate (PROV-5).
    pub grace: Duration,
    /// The longest that limits may keep a song from starting.
    pub max_wait: Duration,
    pub retry: RetryRules,
    pub manual_retries: ManualRetries,
}

/// What a provider has of its own (PROV-6, PROV-7).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnRules {
    pub deadline: Duration,
    pub poll: PollRules,
}

impl Rules {
    /// From the submission of a call of this provider to its end.
    pub fn deadline_of(&self, provider: &str) -> Duration {
        self.own.get(provider).map_or(self.deadline, |own| own.deadline)
    }

    /// The longest there is, whoever makes the song.
    pub fn longest_deadline(&self) -> Duration {
        self.own.values().map(|own| own.deadline).fold(self.deadline, Duration::max)
    }

    /// When to ask this provider.
    pub fn poll_of(&self, provider: &str) -> &PollRules {
        self.own.get(provider).map_or(&self.poll, |own| &own.poll)
    }
}

/// When to ask the provider (PROV-6).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PollRules {
    pub initial: Duration,
    pub max: Duration,
    pub multiplier: f64,
}

/// How often an owner may ask again, per song (PROV-10).
#[derive(Clone, Copy, Debug)]
pub struct ManualRetries {
    pub max: u16,
    pub per_hour: u16,
}
