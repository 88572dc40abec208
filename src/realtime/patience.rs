//! How much a client may ask, and how often it may be wrong (`protocol.md` 7). Pure: the time comes from outside.

use std::time::{Duration, Instant};

use super::frames::Refusal;

/// Mistakes in a row that a client may make (`protocol.md` 7).
const BAD_COMMANDS_MAX: u32 = 10;
/// Channels of one `hello` that may be refused. All of it is one command, which is not the end by itself; but its answers
/// must fit the outbox.
const REFUSED_IN_HELLO_MAX: u32 = 128;

/// What one client has asked and done wrong lately.
pub(super) struct Patience {
    per_second: f64,
    allowance: f64,
    last: Instant,
    over: u32,
    bad: u32,
    subs: u32,
    /// Commands that were good; whatever was said before one is forgiven, also where it turns out to be wrong later.
    good: u64,
    /// What comes is of a `hello`.
    in_hello: bool,
    /// What of the `hello` was refused so far.
    of_hello: u32,
}

/// When a subscription was asked for, which is refused or not only later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    InHello,
    /// After so many good commands.
    After(u64),
}

/// The code to close with, the reason, and when to come again.
pub(super) type Enough = (u16, &'static str, Option<u64>);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Granted,
    Refused { after_ms: u64 },
    Exhausted { after_ms: u64 },
}

impl Patience {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            per_second,
            allowance: per_second,
            last: now,
            over: 0,
            bad: 0,
            subs: 0,
            good: 0,
            in_hello: false,
            of_hello: 0,
        }
    }

    /// An error first; who goes on for as long again is closed.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        let earned = (now - self.last).as_secs_f64() * self.per_second;
        self.last = now;
        self.allowance = (self.allowance + earned).min(self.per_second);
        if self.allowance >= 1.0 {
            self.allowance -= 1.0;
            if self.allowance >= self.per_second / 2.0 {
                self.over = 0;
            }
            return Admission::Granted;
        }
        self.over += 1;
        if f64::from(self.over) > self.per_second {
            return Admission::Exhausted { after_ms: 1000 };
        }
        let wait = Duration::from_secs_f64((1.0 - self.allowance) / self.per_second);
        Admission::Refused { after_ms: u64::try_from(wait.as_millis()).unwrap_or(1000) + 1 }
    }

    pub(super) const fn pleased(&mut self) {
        self.good += 1;
        self.bad = 0;
        self.subs = 0;
    }

    /// What is refused until [`hello_ends`](Self::hello_ends) are channels of one `hello`.
    pub(super) const fn hello_begins(&mut self) {
        self.in_hello = true;
    }

    pub(super) const fn hello_ends(&mut self) {
        self.in_hello = false;
    }

    /// For a subscription that is judged later.
    pub(super) const fn said(&self) -> Said {
        if self.in_hello { Said::InHello } else { Said::After(self.good) }
    }

    /// A subscription has begun, after whatever was said meanwhile.
    pub(super) const fn begun(&mut self, said: Said) {
        if let Said::After(_) = said {
            self.bad = 0;
            self.subs = 0;
        }
    }

    /// A subscription is refused that was said a while ago. As [`refused`](Self::refused).
    pub(super) fn refused_late(&mut self, refusal: Refusal, said: Said) -> Option<Enough> {
        match (said, refusal) {
            (Said::InHello, Refusal::Unavailable { .. }) => None,
            (Said::InHello, _) => self.refused_of_hello(),
            (Said::After(good), _) if good < self.good => None,
            (Said::After(_), refusal) => self.refused(refusal),
        }
    }

    const fn refused_of_hello(&mut self) -> Option<Enough> {
        self.of_hello += 1;
        if self.of_hello > REFUSED_IN_HELLO_MAX { Some((4505, "too many subscriptions", None)) } else { None }
    }

    /// The code to close with, once it is enough.
    pub(super) const fn refused(&mut self, refusal: Refusal) -> Option<Enough> {
        if self.in_hello {
            return self.refused_of_hello();
        }
        match refusal {
            Refusal::LimitSubs => self.subs += 1,
            // No mistake of the client's.
            Refusal::Unavailable { .. } => {}
            _ => self.bad += 1,
        }
        if self.subs >= BAD_COMMANDS_MAX {
            return Some((4505, "too many subscriptions", None));
        }
        if self.bad >= BAD_COMMANDS_MAX { Some((4509, "too many bad commands", None)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Clock;

    #[test]
    fn who_commands_too_much_is_told_first_and_closed_if_it_goes_on() {
        let start = Clock.monotonic();
        let mut patience = Patience::new(20, start);
        let said: Vec<_> = (0..41).map(|_| patience.admit(start)).collect();
        assert!(said[..20].iter().all(|a| *a == Admission::Granted));
        assert!(said[20..40].iter().all(|a| matches!(a, Admission::Refused { .. })));
        assert!(matches!(said[40], Admission::Exhausted { .. }));
        let mut patience = Patience::new(20, start);
        let slow = (0..200).map(|n| patience.admit(start + Duration::from_millis(50 * n)));
        assert!(slow.into_iter().all(|a| a == Admission::Granted));
    }

    #[test]
    fn ten_mistakes_in_a_row_are_enough_and_a_good_command_forgives_them() {
        let now = Clock.monotonic();
        let mut patience = Patience::new(20, now);
        for _ in 0..9 {
            assert_eq!(patience.refused(Refusal::BadRequest), None);
        }
        patience.pleased();
        for _ in 0..9 {
            assert_eq!(patience.refused(Refusal::UnknownChannel), None);
        }
        assert!(matches!(patience.refused(Refusal::BadRequest), Some((4509, ..))));
    }

    #[test]
    fn what_turns_out_wrong_later_is_forgiven_by_what_was_said_after_it() {
        let mut patience = Patience::new(20, Clock.monotonic());
        let first = patience.said();
        patience.pleased();
        let second = patience.said();
        for said in [[first; 5], [second; 5], [first; 5]].concat() {
            assert_eq!(patience.refused_late(Refusal::NotFound, said), None);
        }
        patience.begun(second);
        for _ in 0..9 {
            assert_eq!(patience.refused_late(Refusal::NotFound, second), None);
        }
        assert!(matches!(patience.refused_late(Refusal::NotFound, second), Some((4509, ..))));
    }

    #[test]
    fn channels_of_a_hello_count_together_whenever_they_are_refused() {
        let mut patience = Patience::new(20, Clock.monotonic());
        patience.hello_begins();
        let said = patience.said();
        for _ in 0..64 {
            assert_eq!(patience.refused(Refusal::UnknownChannel), None);
        }
        patience.hello_ends();
        for _ in 0..64 {
            assert_eq!(patience.refused_late(Refusal::NotFound, said), None);
            assert_eq!(patience.refused_late(Refusal::Unavailable { after_ms: 1 }, said), None);
        }
        assert!(matches!(patience.refused_late(Refusal::NotFound, said), Some((4505, ..))));
    }
}
