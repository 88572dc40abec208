//! The limits of one provider key: requests per window and tasks at once (PROV-11). Wraps a provider
//! from outside; a submission goes before every poll (`design.md` section 10).
//!
//! Not here: whether a song should be submitted at all (`song::step`), limits of our users (`credit`).

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a poll is sent away while a submission waits and nothing tells a better time.
const POLL_LATER: Duration = Duration::from_secs(1);

/// So many requests in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub requests: NonZeroU32,
    pub window: Duration,
}

/// Governor's limiter over a clock that tests can hold.
struct Pace<C: Clock> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
}

impl<C: Clock> Pace<C> {
    fn new(rate: Rate, clock: C) -> Self {
        Self { limiter: RateLimiter::direct_with_clock(quota(rate), clock) }
    }

    /// Takes one request, or says how long until there is one.
    fn take(&self) -> Result<(), Duration> {
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

/// Tokio's time, which a simulation can stop and move.
#[derive(Clone, Debug)]
struct TokioClock {
    start: Instant,
}

impl Clock for TokioClock {
    type Instant = Duration;
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Cheap to clone; all clones share the limits.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    pace: Option<Pace<TokioClock>>,
    tasks_max: Option<usize>,
    state: Mutex<State>,
    /// The queue: tokio's mutex is handed on in the order of asking.
    turn: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
    /// Wakes whoever has the turn; a second wake-up without a sleeper is kept.
    changed: Notify,
}

#[derive(Default)]
struct State {
    tasks: usize,
    paused_until: Option<Instant>,
}

/// Why nothing can be submitted at this moment.
enum Wait {
    For(Duration),
    /// Until a task ends.
    Slot,
}

/// One task's place at the provider, from its submission to its end. Dropping it makes room.
#[must_use = "dropping it gives the place to the next task"]
pub struct TaskSlot {
    inner: Arc<Inner>,
}

impl Gate {
    /// `None` is no limit.
    pub fn new(rate: Option<Rate>, tasks_max: Option<usize>) -> Self {
        let clock = TokioClock { start: Instant::now() };
        Self {
            inner: Arc::new(Inner {
                pace: rate.map(|rate| Pace::new(rate, clock)),
                tasks_max: tasks_max.map(|max| max.max(1)),
                state: Mutex::default(),
                turn: tokio::sync::Mutex::default(),
                waiting: AtomicUsize::new(0),
                changed: Notify::new(),
            }),
        }
    }

    /// Waits for a request and a task's place, first come first served. Dropping the future gives up
    /// the place in the queue.
    pub async fn submit_slot(&self) -> TaskSlot {
        let _counted = Counted::new(&self.inner.waiting);
        let _turn = self.inner.turn.lock().await;
        loop {
            match self.inner.take() {
                Ok(()) => return self.slot(),
                Err(Wait::Slot) => self.inner.changed.notified().await,
                Err(Wait::For(time)) => {
                    // A pause may have been prolonged meanwhile; the next round sees it.
                    let _ = tokio::time::timeout(time, self.inner.changed.notified()).await;
                }
            }
        }
    }

    /// The slot if it can be had at once and nobody waits before us.
    pub fn try_submit_slot(&self) -> Option<TaskSlot> {
        let _turn = self.inner.turn.try_lock().ok()?;
        (self.waiting() == 0 && self.inner.take().is_ok()).then(|| self.slot())
    }

    /// A place for a task that already runs at the provider (resumed after a restart): at once, even
    /// above the limit, because refusing would not stop it.
    pub fn adopt_slot(&self) -> TaskSlot {
        self.inner.lock().tasks += 1;
        self.slot()
    }

    /// Submissions that stand in the queue.
    pub fn waiting(&self) -> usize {
        self.inner.waiting.load(Ordering::Acquire)
    }

    /// Tasks that hold a place.
    pub fn tasks(&self) -> usize {
        self.inner.lock().tasks
    }

    /// One request for a poll, unless a submission could use it.
    ///
    /// # Errors
    /// How long to stay away before asking again.
    pub fn try_poll_slot(&self) -> Result<(), Duration> {
        let state = self.inner.lock();
        if let Some(left) = state.pause_left() {
            return Err(left);
        }
        // Submissions that wait for a place get it when a task ends, and that is what polls find out.
        if self.waiting() > 0 && self.inner.has_room(&state) {
            return Err(POLL_LATER);
        }
        self.inner.pace.as_ref().map_or(Ok(()), Pace::take)
    }

    /// The provider asked for patience: nothing is sent for this long.
    pub fn pause(&self, time: Duration) {
        let until = Instant::now() + time.min(PAUSE_MAX);
        let mut state = self.inner.lock();
        state.paused_until = state.paused_until.max(Some(until));
    }

    fn slot(&self) -> TaskSlot {
        TaskSlot { inner: self.inner.clone() }
    }
}

/// A pause ends at the latest after this, whatever the provider said.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl Inner {
    /// Takes a place and a request together, or neither.
    fn take(&self) -> Result<(), Wait> {
        let mut state = self.lock();
        if !self.has_room(&state) {
            return Err(Wait::Slot);
        }
        if let Some(left) = state.pause_left() {
            return Err(Wait::For(left));
        }
        if let Some(pace) = &self.pace {
            // Tokio's timer counts whole milliseconds; a wait of none would spin.
            pace.take().map_err(|wait| Wait::For(wait.max(Duration::from_millis(1))))?;
        }
        state.tasks += 1;
        Ok(())
    }

    fn has_room(&self, state: &State) -> bool {
        self.tasks_max.is_none_or(|max| state.tasks < max)
    }

    /// No code panics while it holds this lock, and counts stay true even then.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pause_left(&self) -> Option<Duration> {
        let left = self.paused_until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

impl Drop for TaskSlot {
    fn drop(&mut self) {
        self.inner.lock().tasks -= 1;
        self.inner.changed.notify_one();
    }
}

/// Counts one more for as long as it lives, also when a waiting future is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
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

    #[tokio::test]
    async fn submissions_are_served_in_the_order_of_asking() {
        let gate = Gate::new(None, Some(1));
        let running = gate.try_submit_slot().unwrap();
        let mut first = Box::pin(gate.submit_slot());
        let mut second = Box::pin(gate.submit_slot());
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        assert_eq!(gate.waiting(), 2);

        drop(running);
        assert!(gate.try_submit_slot().is_none(), "nobody overtakes the queue");
        assert!(second.as_mut().now_or_never().is_none());
        let slot = first.await;
        assert!(second.as_mut().now_or_never().is_none());
        drop(slot);
        let _slot = second.await;
        assert_eq!((gate.waiting(), gate.tasks()), (0, 1));
    }

    #[tokio::test]
    async fn a_submission_that_gives_up_does_not_block_the_next() {
        let gate = Gate::new(None, Some(1));
        let running = gate.adopt_slot();
        let mut gone = Box::pin(gate.submit_slot());
        assert!(gone.as_mut().now_or_never().is_none());
        let mut next = Box::pin(gate.submit_slot());
        assert!(next.as_mut().now_or_never().is_none());
        drop(running);
        drop(gone);
        let _slot = next.await;
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test]
    async fn resumed_tasks_count_even_above_the_limit() {
        let gate = Gate::new(None, Some(2));
        let resumed: Vec<_> = (0..3).map(|_| gate.adopt_slot()).collect();
        assert_eq!(gate.tasks(), 3);
        let mut waits = Box::pin(gate.submit_slot());
        let mut resumed = resumed.into_iter();
        for _ in 0..2 {
            assert!(waits.as_mut().now_or_never().is_none());
            drop(resumed.next());
        }
        let _slot = waits.await;
        assert_eq!(gate.tasks(), 2);
    }

    #[tokio::test]
    async fn polls_leave_the_requests_to_submissions() {
        let gate = Gate::new(Some(rate("1/1h")), None);
        let _running = gate.try_submit_slot().unwrap();
        let later = gate.try_poll_slot().unwrap_err();
        assert!(later > Duration::from_secs(3500), "the request is used up: {later:?}");
        let mut waits = Box::pin(gate.submit_slot());
        assert!(waits.as_mut().now_or_never().is_none());
        assert_eq!(gate.try_poll_slot(), Err(POLL_LATER));
    }

    #[tokio::test]
    async fn polls_go_on_while_submissions_wait_for_a_task_to_end() {
        let gate = Gate::new(Some(rate("100/1h")), Some(1));
        let _running = gate.adopt_slot();
        let mut waits = Box::pin(gate.submit_slot());
        assert!(waits.as_mut().now_or_never().is_none());
        assert_eq!(gate.try_poll_slot(), Ok(()));
    }

    #[tokio::test]
    async fn after_a_rate_limit_nothing_is_sent_until_the_pause_is_over() {
        let gate = Gate::new(None, None);
        gate.pause(Duration::from_millis(30));
        gate.pause(Duration::from_millis(1));
        let before = Instant::now();
        assert!(gate.try_submit_slot().is_none());
        assert!(gate.try_poll_slot().is_err());
        let _slot = gate.submit_slot().await;
        assert!(before.elapsed() >= Duration::from_millis(25));
        assert_eq!(gate.try_poll_slot(), Ok(()));
    }

    #[tokio::test]
    async fn a_submission_waits_for_the_next_request() {
        let gate = Gate::new(Some(rate("1/40ms")), None);
        let before = Instant::now();
        let _slots = (gate.submit_slot().await, gate.submit_slot().await);
        assert!(before.elapsed() >= Duration::from_millis(35));
    }

    #[test]
    fn arbiters_on_several_threads_share_one_limit() {
        let gate = Gate::new(None, Some(3));
        let most = Arc::new(AtomicUsize::new(0));
        let arbiters: Vec<_> = (0..4)
            .map(|_| {
                let (gate, most) = (gate.clone(), most.clone());
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    let song = async || {
                        let _slot = gate.submit_slot().await;
                        most.fetch_max(gate.tasks(), Ordering::SeqCst);
                        tokio::task::yield_now().await;
                    };
                    runtime.block_on(futures_util::future::join_all((0..200).map(|_| song())));
                })
            })
            .collect();
        for arbiter in arbiters {
            arbiter.join().unwrap();
        }
        assert_eq!((gate.tasks(), gate.waiting()), (0, 0));
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }
}
