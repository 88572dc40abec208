//! Whether a connection still lives: pings, time-outs, the token's end, a peer that takes nothing.
//! Outside the session's actor, which stands still while its peer does not read. Pure, but for the actor
//! at the end: one tick for all connections of a reaper, no timer per connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context};

use super::Settings;
use super::connection::Registry;
use crate::chance;
use crate::time::Time;

/// How often a reaper looks after its connections.
const TICK: Duration = Duration::from_millis(250);
/// How long a peer has to answer our close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How long before its token's end a client is asked for a new one, if it lives for twice as long.
const AUTH_SOON: Duration = Duration::from_secs(60);
/// How long past its token's end a connection is kept.
const AUTH_GRACE: Duration = Duration::from_secs(25);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    Ping,
    AuthSoon,
    Close(u16, &'static str),
    /// 4008 and a reset: no close frame could be written.
    Cut(&'static str),
    /// The close frame had its time.
    Kill,
}

/// What can be seen of a connection from outside.
pub(super) struct Observed {
    pub(super) now: Instant,
    pub(super) wall: Time,
    pub(super) waiting: bool,
    pub(super) bytes_taken: u64,
    pub(super) closing: bool,
}

pub(super) struct Liveness {
    id: u64,
    opened: Instant,
    heard: Instant,
    helloed: bool,
    pinged: Option<Instant>,
    /// The last ping, or the opening.
    pinged_last: Instant,
    pings: u64,
    token_ends: Option<Time>,
    /// When it is time to ask for the next token; `None` once that has been done.
    ask_for_token: Option<Time>,
    /// Since when the peer has taken nothing of what waits.
    stuck: Option<Instant>,
    bytes_taken: u64,
    closing: Option<Instant>,
}

impl Liveness {
    pub(super) const fn new(id: u64, now: Instant) -> Self {
        Self {
            id,
            opened: now,
            heard: now,
            helloed: false,
            pinged: None,
            pinged_last: now,
            pings: 0,
            token_ends: None,
            ask_for_token: None,
            stuck: None,
            bytes_taken: 0,
            closing: None,
        }
    }

    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    pub(super) const fn hello_came(&mut self) {
        self.helloed = true;
    }

    /// Half of a short life passes first: who only gets tokens of a minute would be asked again with each of them at once.
    pub(super) fn token_ends(&mut self, at: Time, now: Time) {
        self.token_ends = Some(at);
        self.ask_for_token = Some(at - AUTH_SOON.min(at.since(now) / 2));
    }

    pub(super) fn check(&mut self, seen: &Observed, settings: &Settings) -> Option<Act> {
        if seen.closing {
            let since = *self.closing.get_or_insert(seen.now);
            return (seen.now - since >= CLOSE_WAIT).then_some(Act::Kill);
        }
        if self.is_stuck(seen, settings) {
            return Some(Act::Cut("too slow"));
        }
        if !self.helloed {
            let late = seen.now - self.opened >= settings.hello_timeout;
            return late.then_some(Act::Close(4502, "no hello"));
        }
        self.token(seen.wall).or_else(|| self.ping(seen.now, settings))
    }

    fn is_stuck(&mut self, seen: &Observed, settings: &Settings) -> bool {
        if !seen.waiting || seen.bytes_taken != self.bytes_taken {
            self.bytes_taken = seen.bytes_taken;
            self.stuck = None;
            return false;
        }
        seen.now - *self.stuck.get_or_insert(seen.now) >= settings.stall
    }

    fn token(&mut self, wall: Time) -> Option<Act> {
        let ends = self.token_ends?;
        if wall >= ends + AUTH_GRACE {
            return Some(Act::Close(4009, "token expired"));
        }
        self.ask_for_token.take_if(|ask| wall >= *ask).map(|_| Act::AuthSoon)
    }

    fn ping(&mut self, now: Instant, settings: &Settings) -> Option<Act> {
        if let Some(pinged) = self.pinged {
            return (now - pinged >= settings.pong).then_some(Act::Close(4012, "no pong"));
        }
        // Spread by 10 %, or all connections that came with a restart would be pinged at once for ever.
        let pause = settings.ping.mul_f64(0.9 + 0.2 * chance::of_number(self.id, self.pings));
        (now - self.pinged_last >= pause).then(|| {
            self.pings += 1;
            self.pinged = Some(now);
            self.pinged_last = now;
            Act::Ping
        })
    }
}

/// Looks after one part of the registry, for as long as its arbiter lives.
pub(super) struct Reaper {
    pub(super) registry: Arc<Registry>,
    pub(super) part: usize,
    pub(super) settings: Arc<Settings>,
}

impl Actor for Reaper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |reaper, _| {
            for connection in reaper.registry.of_part(reaper.part) {
                connection.tick(&reaper.settings);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Clock;

    struct World {
        liveness: Liveness,
        start: Instant,
        settings: Settings,
        bytes_taken: u64,
        waiting: bool,
        closing: bool,
    }

    impl World {
        fn new() -> Self {
            let start = Clock.monotonic();
            Self {
                liveness: Liveness::new(7, start),
                start,
                settings: Settings::default(),
                bytes_taken: 0,
                waiting: false,
                closing: false,
            }
        }

        /// A token comes that lives for so long.
        fn token_at(&mut self, seconds: f64, lives: u64) {
            let now = Time::from_millis(0) + Duration::from_secs_f64(seconds);
            self.liveness.token_ends(now + Duration::from_secs(lives), now);
        }

        fn at(&mut self, seconds: f64) -> Option<Act> {
            let passed = Duration::from_secs_f64(seconds);
            let observed = Observed {
                now: self.start + passed,
                wall: Time::from_millis(0) + passed,
                waiting: self.waiting,
                bytes_taken: self.bytes_taken,
                closing: self.closing,
            };
            self.liveness.check(&observed, &self.settings)
        }
    }

    #[test]
    fn who_says_no_hello_is_closed_after_five_seconds() {
        let mut world = World::new();
        assert_eq!(world.at(4.9), None);
        assert_eq!(world.at(5.0), Some(Act::Close(4502, "no hello")));
    }

    #[test]
    fn who_does_not_answer_a_ping_is_closed_and_any_frame_is_an_answer() {
        let mut world = World::new();
        world.liveness.hello_came();
        assert_eq!(world.at(22.4), None);
        assert_eq!(world.at(27.6), Some(Act::Ping));
        world.liveness.heard(world.start + Duration::from_secs(30));
        assert_eq!(world.at(40.0), None);
        assert_eq!(world.at(55.2), Some(Act::Ping));
        assert_eq!(world.at(65.1), None);
        assert_eq!(world.at(65.2), Some(Act::Close(4012, "no pong")));
    }

    #[test]
    fn a_token_is_asked_for_once_before_its_end_and_has_a_grace_past_it() {
        let mut world = World::new();
        world.settings.ping = Duration::from_secs(10_000);
        world.liveness.hello_came();
        world.token_at(0.0, 200);
        assert_eq!(world.at(139.0), None);
        assert_eq!(world.at(140.0), Some(Act::AuthSoon));
        assert_eq!(world.at(141.0), None);
        assert_eq!(world.at(224.9), None);
        assert_eq!(world.at(225.0), Some(Act::Close(4009, "token expired")));
        world.token_at(225.5, 900);
        assert_eq!(world.at(226.0), None);
    }

    #[test]
    fn of_a_token_that_is_short_lived_half_passes_before_the_next_one_is_asked_for() {
        let mut world = World::new();
        world.settings.ping = Duration::from_secs(10_000);
        world.liveness.hello_came();
        for given in [0_u32, 30, 60] {
            let given = f64::from(given);
            world.token_at(given, 60);
            assert_eq!(world.at(given + 0.25), None);
            assert_eq!(world.at(given + 29.75), None);
            assert_eq!(world.at(given + 30.0), Some(Act::AuthSoon));
        }
        assert_eq!(world.at(90.25), None);
    }

    #[test]
    fn who_takes_no_byte_for_ten_seconds_is_cut() {
        let mut world = World::new();
        world.liveness.hello_came();
        world.waiting = true;
        assert_eq!(world.at(1.0), None);
        world.bytes_taken = 10;
        assert_eq!(world.at(9.0), None);
        assert_eq!(world.at(9.5), None);
        assert_eq!(world.at(19.4), None);
        assert_eq!(world.at(19.5), Some(Act::Cut("too slow")));
    }

    #[test]
    fn a_close_frame_has_two_seconds_to_be_answered() {
        let mut world = World::new();
        world.closing = true;
        assert_eq!(world.at(1.0), None);
        assert_eq!(world.at(2.9), None);
        assert_eq!(world.at(3.0), Some(Act::Kill));
    }
}
