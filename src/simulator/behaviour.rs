//! How the simulated providers behave: the settings that `POST /control` merges into.
//!
//! Not here: what single prompts ask for (`script.rs`), and what becomes of a task (`plan.rs`).

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

/// How long tasks take, each drawn between the two bounds, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    pub lyrics_ms: [u64; 2],
    pub music_ms: [u64; 2],
}

impl Default for Latency {
    /// Long enough to see a song grow, short enough to wait for.
    fn default() -> Self {
        Self { lyrics_ms: [1_500, 3_000], music_ms: [6_000, 10_000] }
    }
}

/// The failures that can be asked for; named as in the API (PROV-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FailureClass {
    Moderation,
    InvalidInput,
    ProviderError,
    InsufficientProviderCredits,
    RateLimited,
    Timeout,
    Network,
}

impl FailureClass {
    pub(super) const NAMES: &str = "moderation, invalid_input, provider_error, \
        insufficient_provider_credits, rate_limited, timeout, network";

    pub(super) fn read(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "moderation" => Self::Moderation,
            "invalid_input" => Self::InvalidInput,
            "provider_error" => Self::ProviderError,
            "insufficient_provider_credits" => Self::InsufficientProviderCredits,
            "rate_limited" => Self::RateLimited,
            "timeout" => Self::Timeout,
            "network" => Self::Network,
            _ => return None,
        })
    }
}

/// A share `p` of all submissions fails with `class`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct FailShare {
    pub(super) class: FailureClass,
    pub(super) p: f64,
}

/// At most `count` submissions in any `window`. Written `20/10s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateLimit {
    pub(super) count: usize,
    pub(super) window: Duration,
}

impl RateLimit {
    const COUNT_MAX: usize = 100_000;

    pub(super) fn read(text: &str) -> Option<Self> {
        let (count, window) = text.split_once('/')?;
        let limit = Self { count: count.trim().parse().ok()?, window: read_duration(window.trim())? };
        let possible = (1..=Self::COUNT_MAX).contains(&limit.count) && !limit.window.is_zero();
        possible.then_some(limit)
    }
}

impl Serialize for RateLimit {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let millis = self.window.as_millis();
        match millis.is_multiple_of(1000) {
            true => to.collect_str(&format_args!("{}/{}s", self.count, millis / 1000)),
            false => to.collect_str(&format_args!("{}/{millis}ms", self.count)),
        }
    }
}

/// Which of the two gateways Suno's routes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Dialect {
    Sunoapi,
    Kie,
}

/// Which providers' routes answer 503.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Down {
    /// All of them, or none.
    All(bool),
    /// Those of these names.
    These(Vec<String>),
}

impl Down {
    pub(super) fn covers(&self, provider: &str) -> bool {
        match self {
            Self::All(down) => *down,
            Self::These(names) => names.iter().any(|name| name == provider),
        }
    }
}

/// The behaviour as it is shown by `GET /control`. A task keeps to the one it was submitted under.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Behaviour {
    pub(super) latency: Latency,
    /// The share of callbacks that never leave.
    pub(super) loss: f64,
    /// The share of callbacks that come twice.
    pub(super) duplicate: f64,
    /// Callbacks of a task come in any order, some before the answer to the submission.
    pub(super) reorder: bool,
    pub(super) fail: Option<FailShare>,
    /// The share of submissions answered with HTTP 500 and not taken.
    pub(super) http_500: f64,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) callbacks: bool,
    pub(super) seed: u64,
    /// How long the answer to a submission is held back after it was taken.
    pub(super) answer_delay_ms: u64,
    /// The share of submissions that are taken, but whose answer is cut off.
    pub(super) drop_answer: f64,
    pub(super) down: Down,
    /// What callbacks are signed with, if anything. Whoever asks is not told.
    #[serde(skip)]
    pub(super) webhook_secret: Option<String>,
    /// Whose way of signing and whose numbers.
    pub(super) dialect: Dialect,
    /// The waits before each further try of a callback that was not answered with 2xx.
    pub(super) callback_retry_ms: Vec<u64>,
}

impl Behaviour {
    pub(super) fn new(latency: Latency, seed: u64) -> Self {
        Self {
            latency,
            loss: 0.0,
            duplicate: 0.0,
            reorder: false,
            fail: None,
            http_500: 0.0,
            rate_limit: None,
            callbacks: true,
            seed,
            answer_delay_ms: 0,
            drop_answer: 0.0,
            down: Down::All(false),
            webhook_secret: None,
            dialect: Dialect::Sunoapi,
            callback_retry_ms: vec![1_000, 5_000, 15_000],
        }
    }
}

/// Reads `250ms`, `20s`, `2m`, `1h`.
pub(super) fn read_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let unit_ms = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(read_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(read_duration("20s"), Some(Duration::from_secs(20)));
        assert_eq!(read_duration("2M"), Some(Duration::from_secs(120)));
        for wrong in ["", "s", "20", "-1s", "1.5s", "20 s", "9999999999999999999s", "99999999999999999h"] {
            assert_eq!(read_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_rate_limit_is_written_as_it_is_read() {
        for text in ["20/10s", "3/250ms"] {
            let limit = RateLimit::read(text).unwrap();
            assert_eq!(serde_json::to_value(limit).unwrap(), text);
        }
        for wrong in ["20", "0/10s", "20/0s", "x/1s", "20/"] {
            assert_eq!(RateLimit::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_class_that_is_named_can_be_read() {
        for name in FailureClass::NAMES.split(", ") {
            let class = FailureClass::read(name).unwrap();
            assert_eq!(serde_json::to_value(class).unwrap(), name);
        }
    }
}
