//! A dam before the database: requests that come far faster than any plan allows are answered here, without asking
//! Postgres. What a plan really allows is counted there, once for all nodes (`store::births`).
//!
//! Two stand one behind the other: whatever an owner may change goes through the outer one, what creates songs through the
//! inner one, too. Both are asked while a request is taken apart (`who`), before any handler begins; where only the body says
//! that something is to be made (`orders`), the inner one is asked by the handler.
//!
//! Memory is bounded by its making: a key is a place in a table of fixed size, and two who share a place share what
//! is a generous limit. The hash is seeded, so that nobody can look for a neighbour.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use actix_web::HttpRequest;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::provider::gate::{Rate, Ticks};

/// Places of each table; together a few megabytes at most.
const PLACES: u64 = 1 << 17;

pub struct Flood {
    limiter: RateLimiter<u32, DefaultKeyedStateStore<u32>, Ticks, NoOpMiddleware<Duration>>,
    seed: RandomState,
    clock: Ticks,
    rate: Rate,
}

impl Flood {
    /// As many at once as in a window, then evenly.
    pub fn new(rate: Rate) -> Self {
        let period = (rate.window / rate.requests.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(period).expect("a period above zero").allow_burst(rate.requests);
        let clock = Ticks::tokio();
        let limiter = RateLimiter::new(quota, DefaultKeyedStateStore::default(), clock.clone());
        Self { limiter, seed: RandomState::new(), clock, rate }
    }

    /// Before all that changes anything. A hand does one thing a second, and what an app does for it in one go is a page of
    /// the library (100 songs, all opened or all deleted): three pages at once, and five things a second after that. Where
    /// a plan allows more songs, each is asked for as often as the inner dam lets pass, and a few things are done with it.
    pub fn around(per_minute: u32) -> Self {
        const THINGS: NonZeroU32 = NonZeroU32::new(300).expect("it is not zero");
        let more = NonZeroU32::new(per_minute.saturating_mul(8)).unwrap_or(THINGS);
        Self::new(Rate { requests: more.max(THINGS), window: Duration::from_secs(60) })
    }

    /// Before creations: four times what a plan allows in a minute.
    pub fn before(per_minute: u32) -> Self {
        let requests = NonZeroU32::new(per_minute.saturating_mul(4)).unwrap_or(NonZeroU32::MIN);
        Self::new(Rate { requests, window: Duration::from_secs(60) })
    }

    /// Lets one through, or says how long until there is room.
    pub fn pass(&self, key: &str) -> Result<(), Duration> {
        let place = u32::try_from(self.seed.hash_one(key) % PLACES).unwrap_or(0);
        self.limiter.check_key(&place).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// How many there may be at once.
    pub const fn limit(&self) -> u32 {
        self.rate.requests.get()
    }

    /// How long until there may be as many again, for somebody who was told to wait this long for one.
    pub fn full_after(&self, wait: Duration) -> Duration {
        wait + self.rate.window / self.limit() * (self.limit() - 1)
    }
}

/// Who calls, as far as a limit per address is concerned: of IPv6 the network that one customer has.
pub fn address(request: &HttpRequest, trust_forwarded: bool) -> String {
    let forwarded = request.headers().get_all("X-Forwarded-For").last();
    let last = forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    let peer = || request.peer_addr().map(|peer| peer.ip());
    match last.filter(|_| trust_forwarded).or_else(peer) {
        Some(IpAddr::V6(six)) if six.to_ipv4_mapped().is_none() => {
            let [a, b, c, d, ..] = six.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
        Some(address) => address.to_canonical().to_string(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_flood_is_stopped_and_others_are_not() {
        let flood = Flood::before(3);
        let passed = (0..100).filter(|_| flood.pass("alice").is_ok()).count();
        assert_eq!(passed, 12);
        let wait = flood.pass("alice").expect_err("it is stopped");
        assert!(wait <= Duration::from_secs(5), "{wait:?}");
        assert_eq!(flood.pass("bob"), Ok(()));
        assert_eq!((flood.limit(), flood.full_after(wait) - wait), (12, Duration::from_secs(55)));
    }

    #[test]
    fn the_outer_dam_is_never_the_narrower_one() {
        let plans = [1, 3, 30, 75, 60_000];
        let passes =
            plans.map(|per_minute| (Flood::around(per_minute).limit(), Flood::before(per_minute).limit()));
        assert_eq!(passes.map(|(outer, _)| outer), [300, 300, 300, 600, 480_000]);
        assert!(passes.iter().all(|(outer, inner)| outer > inner), "{passes:?}");
    }

    #[test]
    fn an_address_is_the_peers_unless_a_proxy_is_trusted() {
        let peer = |text: &str| format!("{text}:1").parse().expect("an address");
        let request = TestRequest::default().peer_addr(peer("192.0.2.1"));
        let request = request.insert_header(("X-Forwarded-For", "10.0.0.1, 198.51.100.7")).to_http_request();
        assert_eq!(address(&request, false), "192.0.2.1");
        assert_eq!(address(&request, true), "198.51.100.7");
        let one = TestRequest::default().peer_addr(peer("[2001:db8:1:2::1]")).to_http_request();
        let two = TestRequest::default().peer_addr(peer("[2001:db8:1:2:ffff::9]")).to_http_request();
        assert_eq!(address(&one, false), address(&two, false));
        let mapped = TestRequest::default().peer_addr(peer("[::ffff:192.0.2.1]")).to_http_request();
        assert_eq!(address(&mapped, false), "192.0.2.1");
    }
}
