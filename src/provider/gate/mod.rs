//! The limits and the health of one provider key: requests per window and tasks at once, who is next, and
//! the circuit breaker (PROV-11, PROV-14). Wraps a provider from outside; a submission goes before a poll
//! (`design.md` section 10), unless that is late.
//!
//! `pace` counts requests, `queue` says who is next, `breaker` whether the provider is to be asked at all,
//! `wait` is one submission that waits for all three.
//!
//! Not here: whether a song should be submitted at all (`song::step`), limits of our users (`credit`), which
//! provider a song is given to (`provider::choice`).

mod breaker;
mod clock;
mod pace;
mod queue;
#[cfg(test)]
mod tests;
mod wait;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use breaker::Breaker;
pub use breaker::{Begun, BreakerRules, BreakerState, Call, OPEN_MAX, Outcome};
#[cfg(test)]
pub(crate) use clock::Hand;
pub use clock::Ticks;
use pace::Pace;
pub use pace::Rate;
use queue::Queue;
pub use queue::{Ask, Rank};
pub use wait::SubmitWait;

/// How long a poll is sent away while a submission waits and nothing tells a better time.
const POLL_LATER: Duration = Duration::from_secs(1);
/// A poll that is late by this much gets every other request, whoever wants to submit: the provider may have no other
/// way to say that a song is finished.
const POLL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a request is kept for a late poll that was told when to come.
const KEPT_FOR_POLL: Duration = Duration::from_millis(100);
/// Polls stay away no longer than this for what a submission was told: they may have limits of their own, and what runs
/// at the provider must be asked for before its deadline (PROV-7).
const POLLS_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A pause ends at the latest after this, whatever the provider said.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What a provider key may be asked for; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub rate: Option<Rate>,
    pub tasks_max: Option<usize>,
    pub breaker: BreakerRules,
}

/// Why submissions wait, where more than the pace holds them up: the reason to be shown (PROV-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// All places are taken, until a task ends.
    Places,
    /// The provider asked for patience.
    Pause { left: Duration },
    /// The provider fails; `left` until it is tried again, zero while that is under way.
    Outage { left: Duration },
}

/// Cheap to clone; all clones share the limits.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    /// For the figures; a gate without a name has none.
    name: Option<&'static str>,
    clock: Ticks,
    pace: Option<Pace<Ticks>>,
    tasks_max: Option<usize>,
    state: Mutex<State>,
}

struct State {
    tasks: usize,
    paused_until: Option<Duration>,
    polls_paused_until: Option<Duration>,
    /// Until when the next request is a late poll's.
    kept_for_poll: Option<Duration>,
    /// Whether a late poll had the last request that submissions waited for.
    polled_last: bool,
    queue: Queue<Waker>,
    breaker: Breaker,
    /// The breaker's state that the figures show.
    shown: &'static str,
}

/// Why nothing can be submitted at this moment.
enum Wait {
    For(Duration),
    /// Until a task ends.
    Place,
}

/// One task's place at the provider, from its submission to its end. Dropping it makes room.
#[must_use = "dropping it gives the place to the next task"]
pub struct TaskSlot {
    inner: Arc<Inner>,
    /// The submission that finds out whether the provider is back.
    probe: Option<u64>,
}

impl Gate {
    /// Without a name and with the default breaker.
    pub fn new(rate: Option<Rate>, tasks_max: Option<usize>) -> Self {
        Self::with_clock(None, Limits { rate, tasks_max, ..Limits::default() }, Ticks::tokio())
    }

    /// The gate of this provider, by whose name its figures are kept.
    pub fn of(name: &'static str, limits: Limits) -> Self {
        Self::with_clock(Some(name), limits, Ticks::tokio())
    }

    fn with_clock(name: Option<&'static str>, limits: Limits, clock: Ticks) -> Self {
        let state = State {
            tasks: 0,
            paused_until: None,
            polls_paused_until: None,
            kept_for_poll: None,
            polled_last: false,
            queue: Queue::default(),
            breaker: Breaker::new(limits.breaker),
            shown: BreakerState::Closed.as_str(),
        };
        let inner = Inner {
            name,
            pace: limits.rate.map(|rate| Pace::new(rate, clock.clone())),
            clock,
            tasks_max: limits.tasks_max.map(|max| max.max(1)),
            state: Mutex::new(state),
        };
        inner.tell_figures(BreakerState::Closed);
        Self { inner: Arc::new(inner) }
    }

    /// Waits for a request and a task's place, in the queue's order (PROV-14), and through an outage. It stands
    /// in the queue from its first poll on; dropping it gives up the place.
    pub fn queue(&self, ask: Ask) -> SubmitWait {
        SubmitWait::new(self.inner.clone(), ask)
    }

    /// As [`Gate::queue`] for somebody of no particular plan who asks at this moment: first come first served.
    #[cfg(test)]
    fn submit_slot(&self) -> SubmitWait {
        self.queue(Ask { plan: Rank::default(), since: crate::time::Clock.now() })
    }

    /// The slot if it can be had at once and nobody waits before us.
    pub fn try_submit_slot(&self) -> Option<TaskSlot> {
        let mut state = self.inner.lock();
        if state.queue.len() > 0 {
            return None;
        }
        let probe = self.inner.take(&mut state).ok()?;
        Some(TaskSlot { inner: self.inner.clone(), probe })
    }

    /// A place for a task that already runs at the provider (resumed after a restart): at once, even
    /// above the limit, because refusing would not stop it.
    pub fn adopt_slot(&self) -> TaskSlot {
        self.inner.lock().tasks += 1;
        TaskSlot { inner: self.inner.clone(), probe: None }
    }

    /// Submissions that stand in the queue.
    pub fn waiting(&self) -> usize {
        self.inner.lock().queue.len()
    }

    /// Tasks that hold a place.
    pub fn tasks(&self) -> usize {
        self.inner.lock().tasks
    }

    /// How many there may be.
    pub fn tasks_max(&self) -> Option<usize> {
        self.inner.tasks_max
    }

    pub fn state(&self) -> BreakerState {
        let mut state = self.inner.lock();
        let now = self.inner.clock.now();
        let breaker = state.breaker.state(now);
        self.inner.show(&mut state, breaker);
        breaker
    }

    /// What holds submissions up. `None`: nothing, or only their own pace.
    pub fn hold(&self) -> Option<Hold> {
        let mut state = self.inner.lock();
        let now = self.inner.clock.now();
        let pause = left(state.paused_until, now).map(|left| Hold::Pause { left });
        match state.breaker.state(now) {
            BreakerState::Open { left } => Some(Hold::Outage { left }),
            BreakerState::HalfOpen { probing: true } => Some(Hold::Outage { left: Duration::ZERO }),
            BreakerState::HalfOpen { probing: false } | BreakerState::Closed => {
                pause.or_else(|| (!self.inner.has_room(&state)).then_some(Hold::Places))
            }
        }
    }

    /// Whether it fails, and takes nothing but a probe.
    pub fn is_down(&self) -> bool {
        matches!(self.hold(), Some(Hold::Outage { .. }))
    }

    /// One request for a poll that has been due for `late`, unless a submission could use it.
    ///
    /// # Errors
    /// How long to stay away before asking again.
    pub fn try_poll_slot(&self, late: Duration) -> Result<(), Duration> {
        let mut state = self.inner.lock();
        let now = self.inner.clock.now();
        if let Some(left) = left(state.polls_paused_until, now).max(state.breaker.poll_wait(now)) {
            return Err(left);
        }
        // Submissions that wait for a place get it when a task ends, and that is what polls find out.
        let could_submit = self.inner.has_room(&state)
            && state.breaker.submit_wait(now).is_none()
            && left(state.paused_until, now).is_none();
        let in_the_way = could_submit && state.queue.len() > 0;
        if in_the_way && (late < POLL_PATIENCE || state.polled_last) {
            return Err(POLL_LATER);
        }
        if let Some(Err(wait)) = self.inner.pace.as_ref().map(Pace::take) {
            if in_the_way {
                state.kept_for_poll = Some(now + wait + KEPT_FOR_POLL);
            }
            return Err(wait);
        }
        state.kept_for_poll = None;
        state.polled_last = in_the_way;
        state.breaker.polling(now);
        Ok(())
    }

    /// A submission was told to have patience: none is made for this long.
    pub fn pause(&self, time: Duration) {
        let now = self.inner.clock.now();
        let mut state = self.inner.lock();
        state.paused_until = state.paused_until.max(Some(now + time.min(PAUSE_MAX)));
        state.polls_paused_until = state.polls_paused_until.max(Some(now + time.min(POLLS_PAUSE_MAX)));
    }

    /// A poll was told to have patience: none is made for this long.
    pub fn pause_polls(&self, time: Duration) {
        let until = self.inner.clock.now() + time.min(PAUSE_MAX);
        let mut state = self.inner.lock();
        state.polls_paused_until = state.polls_paused_until.max(Some(until));
    }

    /// Just before a call is made; what it gives is named when the call is reported.
    pub fn begin(&self, call: Call) -> Begun {
        let now = self.inner.clock.now();
        self.inner.lock().breaker.begin(call, now)
    }

    /// How a call went. A failure that its *task* met (told by a callback or a poll that was answered) is none
    /// of the call.
    pub fn report(&self, begun: Begun, outcome: Outcome<'_>) {
        let now = self.inner.clock.now();
        let mut state = self.inner.lock();
        let before = state.breaker.submit_wait(now);
        state.breaker.report(begun, outcome, now);
        let after = state.breaker.submit_wait(now);
        let breaker = state.breaker.state(now);
        self.inner.show(&mut state, breaker);
        // Whoever is first sleeps until the time that it was told.
        let first = if before == after { None } else { state.queue.first().cloned() };
        drop(state);
        wake(first);
    }
}

impl Inner {
    /// Takes a place and a request together, or neither. While it is not known whether the provider is back,
    /// the submission is a probe and has a number.
    fn take(&self, state: &mut State) -> Result<Option<u64>, Wait> {
        let now = self.clock.now();
        if !self.has_room(state) {
            return Err(Wait::Place);
        }
        if let Some(left) = left(state.paused_until, now).max(state.breaker.submit_wait(now)) {
            return Err(Wait::For(at_least_a_tick(left)));
        }
        if let Some(left) = left(state.kept_for_poll, now) {
            return Err(Wait::For(at_least_a_tick(left)));
        }
        if let Some(pace) = &self.pace {
            pace.take().map_err(|wait| Wait::For(at_least_a_tick(wait)))?;
        }
        state.tasks += 1;
        state.polled_last = false;
        let probe = state.breaker.submitting(now);
        if probe.is_some() {
            self.show(state, BreakerState::HalfOpen { probing: true });
        }
        Ok(probe)
    }

    fn has_room(&self, state: &State) -> bool {
        self.tasks_max.is_none_or(|max| state.tasks < max)
    }

    /// No code panics while it holds this lock, and counts stay true even then.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the figures and the log up with the breaker.
    fn show(&self, state: &mut State, breaker: BreakerState) {
        if state.shown == breaker.as_str() {
            return;
        }
        state.shown = breaker.as_str();
        let provider = self.name.unwrap_or_default();
        match breaker {
            BreakerState::Open { left } => {
                let for_s = left.as_secs_f64();
                tracing::warn!(provider, for_s, "the provider fails; songs wait until it is tried again");
            }
            BreakerState::HalfOpen { .. } => tracing::info!(provider, "the provider is tried again"),
            BreakerState::Closed => tracing::info!(provider, "the provider works again"),
        }
        self.tell_figures(breaker);
    }

    fn tell_figures(&self, breaker: BreakerState) {
        let Some(name) = self.name else { return };
        let level = match breaker {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen { .. } => 1.0,
            BreakerState::Open { .. } => 2.0,
        };
        metrics::gauge!("songflight_provider_state", "provider" => name).set(level);
        let opened = u64::from(matches!(breaker, BreakerState::Open { .. }));
        metrics::counter!("songflight_provider_openings_total", "provider" => name).increment(opened);
    }
}

/// How long it is until then; `None` is not at all.
fn left(until: Option<Duration>, now: Duration) -> Option<Duration> {
    let left = until?.saturating_sub(now);
    (!left.is_zero()).then_some(left)
}

/// Tokio's timer counts whole milliseconds; a wait of none would spin.
fn at_least_a_tick(wait: Duration) -> Duration {
    wait.max(Duration::from_millis(1))
}

/// Outside the lock: what a waker does is not ours.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Drop for TaskSlot {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.tasks -= 1;
        if self.probe.is_some() {
            state.breaker.forget_probe(self.probe);
        }
        let first = state.queue.first().cloned();
        drop(state);
        wake(first);
    }
}
