//! What a run came to, as it is written to JSON, read back to be compared, and shown.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::figures::Times;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub scenario: String,
    pub about: String,
    /// When it began, in RFC 3339.
    pub at: String,
    pub machine: Machine,
    /// The scenario as it was read, so that the result explains itself.
    pub source: String,
    /// From the first order to the last song's end.
    pub took_s: f64,
    pub over: bool,
    pub counts: BTreeMap<String, u64>,
    pub ends: Vec<End>,
    pub times: BTreeMap<String, Quantiles>,
    /// Callbacks that took longest to a steady socket: milliseconds, and of what.
    #[serde(default)]
    pub slowest: Vec<(f64, String)>,
    pub usage: BTreeMap<String, Used>,
    /// Divided by the songs that were made.
    pub per_song: BTreeMap<String, f64>,
    pub cuts: BTreeMap<String, u64>,
    pub checks: Vec<Check>,
    pub marks: Vec<Mark>,
    pub samples: Vec<Sample>,
    pub faults: Vec<String>,
}

/// The most songs that became ready in a second over a minute; `None` where all was over sooner.
pub fn best_minute(samples: &[Sample]) -> Option<f64> {
    const MINUTE_S: f64 = 60.0;
    let rate = |from: &Sample| {
        let to = samples.iter().find(|to| to.at_s - from.at_s >= MINUTE_S)?;
        Some(to.ready.saturating_sub(from.ready) as f64 / (to.at_s - from.at_s))
    };
    samples.iter().filter_map(rate).max_by(f64::total_cmp)
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub cores: usize,
    pub cpu: String,
    pub memory_mib: u64,
    /// `release` or `debug`.
    pub build: String,
}

/// How many songs of a kind ended in one way.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    pub wished: String,
    pub mode: String,
    pub provider: String,
    pub ended_as: String,
    /// The failure's class, or why the order was refused.
    pub class: String,
    pub count: u64,
}

impl End {
    pub fn is_ready(&self) -> bool {
        self.ended_as == "ready" || self.ended_as == "complete"
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Quantiles {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// Share and milliseconds, for the plot.
    pub curve: Vec<(f64, f64)>,
}

impl Quantiles {
    pub fn of(times: &Times) -> Self {
        let at = |share| times.quantile_ms(share).unwrap_or_default();
        // Even steps of the number of nines.
        let shares = (0..=80).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 16.0));
        let seen = |share: &f64| (1.0 - share) * times.count() as f64 >= 0.5;
        let curve = shares.filter(seen).map(|share| (share, at(share))).collect();
        Self {
            count: times.count(),
            mean_ms: if times.count() > 0 { times.mean_ms() } else { 0.0 },
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: at(1.0),
            curve,
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Used {
    pub cpu_s: f64,
    pub memory_mib: f64,
    /// Before the first socket.
    pub memory_at_start_mib: f64,
    /// With all sockets open, before the first song.
    pub memory_gathered_mib: f64,
    pub peak_mib: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    pub what: String,
    pub right: bool,
    pub detail: String,
}

/// Something that happened at a moment, or lasted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mark {
    pub what: String,
    pub from_s: f64,
    pub to_s: f64,
}

impl Mark {
    pub fn new(what: String, from: Duration, to: Duration) -> Self {
        Self { what, from_s: from.as_secs_f64(), to_s: to.as_secs_f64() }
    }
}

/// How things stood at a moment; CPU in cores since the sample before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    pub at_s: f64,
    pub created: u64,
    pub refused: u64,
    pub ready: u64,
    pub failed: u64,
    pub in_flight: u64,
    pub events: u64,
    pub live: u64,
    pub server_cpu: f64,
    pub postgres_cpu: f64,
    pub here_cpu: f64,
    pub server_mib: f64,
    pub postgres_mib: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_minute_is_the_one_in_which_most_became_ready() {
        let ready = |second: u64| if second < 30 { 0 } else { (second - 30) * 100 };
        let samples = |to: u64| {
            (0..=to).map(|second| Sample { at_s: second as f64, ready: ready(second), ..Sample::default() })
        };
        assert_eq!(best_minute(&samples(120).collect::<Vec<_>>()), Some(100.0));
        assert_eq!(best_minute(&samples(60).collect::<Vec<_>>()), Some(50.0));
        assert_eq!(best_minute(&samples(59).collect::<Vec<_>>()), None, "less than a minute");
    }
}
