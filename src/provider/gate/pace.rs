//! So many requests in any window: governor's limiter, set so that no window sees more.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// So many requests in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub requests: NonZeroU32,
    pub window: Duration,
}

/// Governor's limiter over a clock that tests can hold.
pub(super) struct Pace<C: Clock> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
}

impl<C: Clock> Pace<C> {
    pub(super) fn new(rate: Rate, clock: C) -> Self {
        Self { limiter: RateLimiter::direct_with_clock(quota(rate), clock) }
    }

    /// Takes one request, or says how long until there is one.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_until| not_until.wait_time_from(self.limiter.clock().now()))
    }
}

/// A bucket that never lets more through than `rate` in *any* window. The whole rate as burst would:
/// first the burst, then as many again while it refills, twice the provider's limit. A quarter may come
/// at once, and the rest is spread.
fn quota(rate: Rate) -> Quota {
    let requests = rate.requests.get();
    let burst = NonZeroU32::new(requests / 4).unwrap_or(NonZeroU32::MIN);
    let period = rate.window / (requests - burst.get() + 1);
    Quota::with_period(period.max(Duration::from_nanos(1))).expect("a period above zero").allow_burst(burst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn no_window_ever_sees_more_than_the_rate() {
        for (text, window_ms) in [("20/10s", 10_000), ("1/10s", 10_000), ("3/1s", 1_000), ("7/500ms", 500)] {
            let limit = rate(text).requests.get() as usize;
            let clock = FakeRelativeClock::default();
            let pace = Pace::new(rate(text), clock.clone());
            let mut taken = Vec::new();
            for now_ms in 0..window_ms * 5 {
                while pace.take().is_ok() {
                    taken.push(now_ms);
                }
                clock.advance(Duration::from_millis(1));
            }
            let most = taken
                .iter()
                .map(|&from| taken.iter().filter(|&&at| (from..from + window_ms).contains(&at)).count());
            assert_eq!(most.max(), Some(limit), "{text}");
        }
    }

    #[test]
    fn whoever_comes_too_early_is_told_when_to_come() {
        let clock = FakeRelativeClock::default();
        let pace = Pace::new(rate("1/10s"), clock.clone());
        assert_eq!(pace.take(), Ok(()));
        clock.advance(Duration::from_secs(4));
        assert_eq!(pace.take(), Err(Duration::from_secs(6)));
        clock.advance(Duration::from_secs(6));
        assert_eq!(pace.take(), Ok(()));
    }
}
