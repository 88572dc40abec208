//! What all parts of one world share: its tables, its laws, its dice, its time, and each node's life.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use songflight::store::journal::NodeKey;
use songflight::time::{Clock, Time};
use tokio::time::Instant;
use uuid::Uuid;

use super::dice::Dice;
use super::law::Law;
use super::plan::{Faults, Plan};
use super::provider::Orders;
use super::tables::Tables;

#[derive(Clone)]
pub struct Sim {
    shared: Arc<Shared>,
}

struct Shared {
    zero: Instant,
    state: Mutex<State>,
}

pub struct State {
    pub dice: Dice,
    pub plan: Plan,
    /// Those that happen at the moment.
    pub faults: Faults,
    pub tables: Tables,
    pub law: Law,
    pub orders: Orders,
    /// The database is away until then.
    pub outage_until: Option<Instant>,
    notes: Option<Vec<String>>,
    /// Of all that was committed and when: two runs of one seed have the same.
    pub fingerprint: u64,
}

/// The database's clock at the beginning of every world.
pub const NOON: Time = Time::from_millis(1_766_318_400_000);

impl Sim {
    pub fn new(mut dice: Dice, noted: bool) -> Self {
        let plan = Plan::drawn(&mut dice);
        let state = State {
            faults: plan.faults,
            dice,
            plan,
            tables: Tables::default(),
            law: Law::new(),
            orders: Orders::default(),
            outage_until: None,
            notes: noted.then(Vec::new),
            fingerprint: 0,
        };
        let sim = Self { shared: Arc::new(Shared { zero: Instant::now(), state: Mutex::new(state) }) };
        sim.note(|| format!("{:?}", sim.lock().plan));
        sim
    }

    /// Whoever panicked while he held it has failed the world anyway.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the database's clock shows.
    pub fn now(&self) -> Time {
        NOON + self.shared.zero.elapsed()
    }

    pub fn with<T>(&self, act: impl FnOnce(&mut State, Time) -> T) -> T {
        let now = self.now();
        act(&mut self.lock(), now)
    }

    pub fn dice<T>(&self, throw: impl FnOnce(&mut Dice) -> T) -> T {
        throw(&mut self.lock().dice)
    }

    /// Tells a moment of the history, where somebody reads it.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if self.lock().notes.is_some() {
            let line = format!("{:>9.3} {}", self.shared.zero.elapsed().as_secs_f64(), line());
            self.lock().notes.iter_mut().for_each(|notes| notes.push(line.clone()));
        }
    }

    pub fn take_notes(&self) -> Vec<String> {
        self.lock().notes.take().unwrap_or_default()
    }

    /// A machine's own clock: not quite the database's, and set once.
    pub fn a_clock(&self) -> Clock {
        let (skew, after, step) = self.with(|state, _| match state.faults.skew {
            true => {
                let dice = &mut state.dice;
                (dice.below(SKEW_HALF), dice.millis(1_000, 300_000), dice.below(SKEW_HALF))
            }
            false => (0, Duration::ZERO, 0),
        });
        let step = i64::try_from(step).expect("small") - i64::try_from(SKEW_HALF / 2).expect("small");
        let step = if skew == 0 { 0 } else { step };
        Clock::simulated(self.now() + Duration::from_millis(skew), after, step)
    }
}

/// Skew and step together stay within what the laws allow for.
const SKEW_HALF: u64 = super::plan::SKEW_MILLIS / 2;

impl State {
    pub fn mark(&mut self, what: u64, now: Time) {
        let mixed = self.fingerprint.rotate_left(7) ^ what ^ now.millis().unsigned_abs();
        self.fingerprint = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// One run of one node's program, as the world sees it: nothing leaves it once it is dead, and nothing happens in it
/// while it is stopped.
pub struct Life {
    pub number: usize,
    pub clock: Clock,
    alive: AtomicBool,
    /// It was asked to end, and does so in its own way.
    pub leaving: AtomicBool,
    inner: Mutex<Inner>,
}

struct Inner {
    key: NodeKey,
    stopped_until: Option<Instant>,
    /// It does not reach the database until then, though others may.
    cut_until: Option<Instant>,
    waker: Option<Waker>,
}

impl Life {
    pub fn new(number: usize, clock: Clock) -> Arc<Self> {
        let key = NodeKey { id: Uuid::nil(), epoch: 0, inherits: None };
        let inner = Mutex::new(Inner { key, stopped_until: None, cut_until: None, waker: None });
        Arc::new(Self { number, clock, alive: AtomicBool::new(true), leaving: AtomicBool::new(false), inner })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn key(&self) -> NodeKey {
        self.inner().key
    }

    pub fn entered(&self, key: NodeKey) {
        self.inner().key = key;
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub fn die(&self) {
        self.alive.store(false, Ordering::Release);
        self.wake();
    }

    pub fn stop_for(&self, time: Duration) {
        self.inner().stopped_until = Some(Instant::now() + time);
        self.wake();
    }

    pub fn cut_off_for(&self, time: Duration) {
        self.inner().cut_until = Some(Instant::now() + time);
    }

    pub fn is_cut_off(&self) -> bool {
        self.inner().cut_until.is_some_and(|until| until > Instant::now())
    }

    pub fn go_on(&self) {
        (self.inner().stopped_until, self.inner().cut_until) = (None, None);
        self.wake();
    }

    pub fn stopped_until(&self) -> Option<Instant> {
        self.inner().stopped_until.filter(|until| *until > Instant::now())
    }

    pub fn keep(&self, waker: &Waker) {
        self.inner().waker = Some(waker.clone());
    }

    fn wake(&self) {
        let waker = self.inner().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A moment at which a program may die or be stopped, between any two things that it does: so often in a thousand.
    pub async fn moment(&self, sim: &Sim, mille: u64) {
        let blow = sim.with(|state, _| {
            let (faults, dice) = (state.faults, &mut state.dice);
            let blow = dice.below(1000);
            if blow < mille && faults.kill {
                Some(None)
            } else if blow >= 1000 - mille && faults.pause {
                Some(Some(dice.millis(0, 60_000)))
            } else {
                None
            }
        });
        match blow {
            Some(None) => {
                sim.note(|| format!("node {} dies at its work", self.number));
                self.die();
            }
            Some(Some(time)) => {
                sim.note(|| format!("node {} is stopped for {time:?} at its work", self.number));
                self.stop_for(time);
                tokio::task::yield_now().await;
            }
            None => {}
        }
        self.or_never().await;
    }

    /// What a dead program asks for never happens.
    pub async fn or_never(&self) {
        if !self.is_alive() {
            std::future::pending::<()>().await;
        }
    }
}
