//! Points in time and the clock that tells them.
//!
//! The core takes `now: Time` as an argument; only the shells hold a [`Clock`]. `Instant::now` and
//! `SystemTime::now` stand nowhere else (`clippy.toml`), so a simulation owns time altogether (`tests/sim`).

use std::ops::{Add, Sub};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

/// A point in time, in whole milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(i64);

impl Time {
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    /// How long from `earlier` to this; zero when `earlier` is the later one.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with milliseconds, as every time in the API is written.
    pub fn rfc3339(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(stamp) => format!("{stamp:.3}"),
            Err(_) => String::from("9999-12-31T23:59:59.999Z"),
        }
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, duration: Duration) -> Time {
        Time(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// Tells the time. Cheap to copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    simulated: Option<Simulated>,
}

/// The clock of this machine.
#[allow(non_upper_case_globals, reason = "it is written like the unit value that it is")]
pub const Clock: Clock = Clock { simulated: None };

/// A wall clock that goes with Tokio's time, which a simulation holds still and moves on.
#[derive(Clone, Copy, Debug)]
struct Simulated {
    /// It showed `wall` at `from`.
    from: Instant,
    wall: Time,
    /// It is set by so many milliseconds when so much time has passed.
    step: (Duration, i64),
}

impl Clock {
    /// A clock that shows `wall` now, and is set once, after `step_after`, forward or back: as no clock of a machine
    /// should be, and some are.
    pub fn simulated(wall: Time, step_after: Duration, step_millis: i64) -> Self {
        let step = (step_after, step_millis);
        Self { simulated: Some(Simulated { from: Clock.monotonic(), wall, step }) }
    }

    /// The wall clock: for what is stored and shown.
    #[allow(clippy::disallowed_methods, reason = "here is where the clock is read")]
    pub fn now(self) -> Time {
        if let Some(simulated) = &self.simulated {
            return simulated.now(self.monotonic());
        }
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Time(i64::try_from(since_1970.unwrap_or_default().as_millis()).unwrap_or(i64::MAX))
    }

    /// The monotonic clock: for leases and time-outs, which a stepped wall clock must not stretch. It is Tokio's, which
    /// is the machine's wherever nobody holds it still.
    pub fn monotonic(self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// How long ago that was, by the monotonic clock.
    pub fn since(self, then: Instant) -> Duration {
        self.monotonic().saturating_duration_since(then)
    }
}

impl Simulated {
    fn now(&self, at: Instant) -> Time {
        let passed = at.saturating_duration_since(self.from);
        let step = if passed >= self.step.0 { self.step.1 } else { 0 };
        Time((self.wall + passed).0 + step)
    }
}

/// Serializes as RFC 3339; for what clients see. Inside, times stay integers.
pub mod rfc3339 {
    use super::Time;
    use serde::Serializer;

    pub fn serialize<S: Serializer>(time: &Time, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time.rfc3339())
    }

    pub mod option {
        use super::Time;
        use serde::Serializer;

        pub fn serialize<S: Serializer>(time: &Option<Time>, to: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, to),
                None => to.serialize_none(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_goes_with_tokios_time_and_is_set_once() {
        let clock = Clock::simulated(Time(1_000), Duration::from_secs(10), -5_000);
        assert_eq!(clock.now(), Time(1_000));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(clock.now(), Time(10_000));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.now(), Time(6_000));
    }

    #[test]
    fn from_the_first_time_to_the_last_it_is_as_long_as_can_be_told() {
        let (first, last) = (Time::from_millis(i64::MIN), Time::from_millis(i64::MAX));
        assert_eq!(last.since(first), Duration::from_millis(i64::MAX as u64));
        assert_eq!(first.since(last), Duration::ZERO);
    }

    #[test]
    fn times_are_written_with_three_decimals_in_utc() {
        assert_eq!(Time::from_millis(1_766_286_000_120).rfc3339(), "2025-12-21T03:00:00.120Z");
        assert_eq!(Time::from_millis(0).rfc3339(), "1970-01-01T00:00:00.000Z");
    }
}
