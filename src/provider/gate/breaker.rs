//! The circuit breaker of one provider key (PROV-11): after repeated failures of the provider itself nothing
//! is submitted for a while; then one probe decides. Pure: time comes in as an argument.
//!
//! ```text
//! Closed ──failures in a row, or half of the last calls──► Open ──time──► HalfOpen ──a success──► Closed
//!                                                           ▲                │
//!                                                           └──probe failed──┘ for twice as long
//! ```
//!
//! Not here: retries of one song (`provider::failure`), what a failed *task* means: that a song could not be
//! made says nothing about the next one.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::provider::failure::{Class, Failure};

/// When it opens and for how long; `providers.<name>.breaker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// So many failures in a row open it, or twice as many among the last four times as many calls.
    pub failures: u32,
    /// The first time; doubled with each probe that fails, up to [`OPEN_MAX`].
    pub open_for: Duration,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self { failures: 5, open_for: Duration::from_secs(15) }
    }
}

/// The longest time between two probes, unless more is configured.
pub const OPEN_MAX: Duration = Duration::from_secs(120);
/// Calls from before that do not count for the share.
const WINDOW: Duration = Duration::from_secs(60);
/// A probe of which nothing is heard for this long no longer stands in the way of another.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);
/// Between two polls while it is not known whether the provider is back.
const POLL_EVERY: Duration = Duration::from_secs(2);

/// As others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    /// Nothing is submitted for this much longer.
    Open {
        left: Duration,
    },
    /// The next submission is the probe, or it is on its way.
    HalfOpen {
        probing: bool,
    },
}

impl BreakerState {
    pub const fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open { .. } => "open",
            BreakerState::HalfOpen { .. } => "half_open",
        }
    }
}

/// What was asked of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Submit,
    Poll,
}

/// How a call went, of which only the failures are looked into.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    Ok,
    Failure(&'a Failure),
}

impl<'a> Outcome<'a> {
    pub fn of<T>(answer: &'a Result<T, Failure>) -> Self {
        match answer {
            Ok(_) => Outcome::Ok,
            Err(failure) => Outcome::Failure(failure),
        }
    }
}

/// A call that began, to be named when it is reported. It remembers the breaker's state at its beginning:
/// what comes late tells of a time that is over.
#[derive(Clone, Copy, Debug)]
#[must_use = "report how the call went"]
pub struct Begun {
    call: Call,
    era: u64,
}

/// What an outcome says about the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Works,
    Fails,
    Nothing,
}

fn verdict(call: Call, outcome: Outcome<'_>) -> Verdict {
    let Outcome::Failure(failure) = outcome else { return Verdict::Works };
    // A poll that finds no such task is about the task.
    if call == Call::Poll && failure.code.as_deref() == Some("404") {
        return Verdict::Nothing;
    }
    // Whatever its class: our key or our address is refused, and the next order would be as well.
    if failure.operator {
        return Verdict::Fails;
    }
    match failure.class {
        Class::Network | Class::ProviderError | Class::Timeout | Class::InsufficientProviderCredits => {
            Verdict::Fails
        }
        // It looked at the order and refused it.
        Class::InvalidInput | Class::Moderation => Verdict::Works,
        // The limit has its own pause (`Gate::pause`); our storage is not the provider's.
        Class::RateLimited | Class::Storage | Class::Unknown => Verdict::Nothing,
    }
}

/// The outcomes of one kind of call.
#[derive(Debug, Default)]
struct Tally {
    in_a_row: u32,
    recent: VecDeque<(Duration, bool)>,
}

impl Tally {
    fn note(&mut self, failed: bool, rules: &BreakerRules, now: Duration) {
        self.in_a_row = if failed { self.in_a_row.saturating_add(1) } else { 0 };
        self.recent.push_back((now, failed));
        let most = rules.failures as usize * 4;
        while self.recent.len() > most
            || self.recent.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW)
        {
            self.recent.pop_front();
        }
    }

    fn half_failed(&self, rules: &BreakerRules) -> bool {
        let most = rules.failures as usize * 4;
        self.recent.len() == most && self.recent.iter().filter(|(_, failed)| *failed).count() * 2 >= most
    }
}

#[derive(Debug)]
enum Phase {
    Closed { submits: Tally, polls: Tally },
    Open { until: Duration, lasts: Duration, submits_failed: bool },
    HalfOpen { probe: Option<Probe>, next_poll: Option<Duration>, lasts: Duration, submits_failed: bool },
}

impl Phase {
    fn closed() -> Self {
        Phase::Closed { submits: Tally::default(), polls: Tally::default() }
    }
}

/// A submission that is on its way to find out.
#[derive(Clone, Copy, Debug)]
struct Probe {
    id: u64,
    until: Duration,
}

#[derive(Debug)]
pub(super) struct Breaker {
    rules: BreakerRules,
    phase: Phase,
    /// Counts the changes of phase.
    era: u64,
    probes: u64,
}

impl Breaker {
    pub(super) fn new(rules: BreakerRules) -> Self {
        let rules = BreakerRules { failures: rules.failures.max(1), ..rules };
        Self { rules, phase: Phase::closed(), era: 0, probes: 0 }
    }

    pub(super) fn state(&mut self, now: Duration) -> BreakerState {
        self.look(now);
        match &self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until, .. } => BreakerState::Open { left: until.saturating_sub(now) },
            Phase::HalfOpen { probe, .. } => {
                BreakerState::HalfOpen { probing: probe.is_some_and(|probe| now < probe.until) }
            }
        }
    }

    /// How long a submission has to wait at least; `None` is not at all.
    pub(super) fn submit_wait(&mut self, now: Duration) -> Option<Duration> {
        self.look(now);
        let until = match &self.phase {
            Phase::Closed { .. } => None,
            Phase::Open { until, .. } => Some(*until),
            Phase::HalfOpen { probe, .. } => probe.map(|probe| probe.until),
        };
        until.filter(|until| now < *until).map(|until| until - now)
    }

    /// A submission goes ahead. While nothing is known it is the probe, by this number.
    pub(super) fn submitting(&mut self, now: Duration) -> Option<u64> {
        self.look(now);
        let Phase::HalfOpen { probe, .. } = &mut self.phase else { return None };
        self.probes += 1;
        *probe = Some(Probe { id: self.probes, until: now + PROBE_PATIENCE });
        Some(self.probes)
    }

    /// How long a poll has to wait; `None` is not at all.
    pub(super) fn poll_wait(&mut self, now: Duration) -> Option<Duration> {
        self.look(now);
        let until = match &self.phase {
            Phase::Closed { .. } => None,
            Phase::Open { until, .. } => Some(*until),
            Phase::HalfOpen { next_poll, .. } => *next_poll,
        };
        until.filter(|until| now < *until).map(|until| until - now)
    }

    pub(super) fn polling(&mut self, now: Duration) {
        if let Phase::HalfOpen { next_poll: Some(next), .. } = &mut self.phase {
            *next = now + POLL_EVERY;
        }
    }

    pub(super) fn begin(&mut self, call: Call, now: Duration) -> Begun {
        self.look(now);
        Begun { call, era: self.era }
    }

    /// Counts how a call went. Calls of an earlier era change nothing: those that were under way when it
    /// opened would open it again long after the provider has come back.
    pub(super) fn report(&mut self, begun: Begun, outcome: Outcome<'_>, now: Duration) {
        self.look(now);
        if begun.era != self.era {
            return;
        }
        match (begun.call, verdict(begun.call, outcome)) {
            (Call::Submit, Verdict::Works) => self.submit_worked(now),
            (Call::Submit, Verdict::Fails) => self.submit_failed(now),
            // Not an answer to the question; another may ask.
            (Call::Submit, Verdict::Nothing) => self.forget_probe(None),
            (Call::Poll, Verdict::Works) => self.poll_worked(now),
            (Call::Poll, Verdict::Fails) => self.poll_failed(now),
            (Call::Poll, Verdict::Nothing) => {}
        }
    }

    /// The place of a probe was given up. If the probe was never reported, another one may go.
    pub(super) fn forget_probe(&mut self, id: Option<u64>) {
        if let Phase::HalfOpen { probe, .. } = &mut self.phase
            && probe.is_some_and(|probe| id.is_none_or(|id| id == probe.id))
        {
            *probe = None;
        }
    }

    /// Time alone ends `Open`.
    fn look(&mut self, now: Duration) {
        if let Phase::Open { until, lasts, submits_failed } = self.phase
            && now >= until
        {
            self.turn(Phase::HalfOpen { probe: None, next_poll: Some(now), lasts, submits_failed });
        }
    }

    fn turn(&mut self, phase: Phase) {
        self.phase = phase;
        self.era += 1;
    }

    fn submit_worked(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Closed { submits, polls } => {
                submits.note(false, &self.rules, now);
                polls.in_a_row = 0;
                self.open_if_due(now);
            }
            Phase::HalfOpen { .. } => self.turn(Phase::closed()),
            Phase::Open { .. } => {}
        }
    }

    fn submit_failed(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Closed { submits, .. } => {
                submits.note(true, &self.rules, now);
                self.open_if_due(now);
            }
            Phase::HalfOpen { lasts, .. } => {
                let lasts = (*lasts * 2).min(OPEN_MAX.max(self.rules.open_for));
                self.turn(Phase::Open { until: now + lasts, lasts, submits_failed: true });
            }
            Phase::Open { .. } => {}
        }
    }

    /// A poll that is answered does not outweigh submissions that are not.
    fn poll_worked(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Closed { polls, .. } => polls.note(false, &self.rules, now),
            Phase::HalfOpen { submits_failed: false, .. } => self.turn(Phase::closed()),
            Phase::HalfOpen { next_poll, .. } => *next_poll = None,
            Phase::Open { .. } => {}
        }
    }

    fn poll_failed(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Closed { polls, .. } => {
                polls.note(true, &self.rules, now);
                self.open_if_due(now);
            }
            // The probe decides; polls stay rare until then.
            Phase::HalfOpen { next_poll, .. } => *next_poll = Some(now + POLL_EVERY),
            Phase::Open { .. } => {}
        }
    }

    fn open_if_due(&mut self, now: Duration) {
        let Phase::Closed { submits, polls } = &self.phase else { return };
        let in_a_row = submits.in_a_row.saturating_add(polls.in_a_row);
        if in_a_row < self.rules.failures
            && !submits.half_failed(&self.rules)
            && !polls.half_failed(&self.rules)
        {
            return;
        }
        let submits_failed = submits.in_a_row > 0 || submits.half_failed(&self.rules);
        let lasts = self.rules.open_for;
        self.turn(Phase::Open { until: now + lasts, lasts, submits_failed });
    }
}
