//! What all routes of a running simulator share, and how a submission becomes a task.
//!
//! Providers translate a [`Refusal`] or an [`Answer`] into their own words; none is named here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Options;
use super::behaviour::{Behaviour, FailureClass};
use super::chance::Chance;
use super::courier::{self, Courier};
use super::memory::{Memory, Record, Remembered, Written};
use super::plan::{Event, Plan};
use super::script::Script;
use super::seen::{Observer, Seen};
use super::stats::{Counts, Stats};
use super::tasks::{Kind, Order, Task, Tasks, Voice};
use crate::id;
use crate::time::Clock;

const INTENTS_MAX: usize = 1_000_000;
const INTENT_BYTES_MAX: usize = 200;
const TRIES_MAX: usize = 100_000;

pub(super) struct World {
    pub(super) address: SocketAddr,
    pub(super) api_key: Option<String>,
    pub(super) stats: Stats,
    pub(super) courier: Courier,
    observer: Option<Observer>,
    pub(super) memory: Memory,
    clock: Clock,
    at_start: Behaviour,
    behaviour: Mutex<Arc<Behaviour>>,
    tasks: Mutex<Tasks>,
    /// Accepted submissions by intent.
    intents: Mutex<Counts<Arc<str>>>,
    /// Submissions that asked to fail some times, by what tells them apart.
    tries: Mutex<Counts<u64>>,
    /// When the last submissions came, for the rate limit.
    recent: Mutex<VecDeque<Instant>>,
    submitted: AtomicU64,
    /// Tasks of an earlier run, and what was told of them, until [`World::go_on`].
    taken_up: Mutex<Vec<(Arc<Task>, Vec<Event>)>>,
}

/// Why a submission was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// HTTP 500.
    ServerError,
    RateLimited,
    NoCredits,
    InvalidInput,
    /// A proxy in between answers with a page of its own.
    BadGateway,
    /// The connection breaks.
    Cut,
}

/// How an accepted submission is answered.
pub(super) struct Answer {
    pub(super) task: Arc<Task>,
    pub(super) delay: Duration,
    pub(super) cut: bool,
    written: Option<Written>,
}

impl Answer {
    /// Ready when the task would survive the end of this program: only then may the client know of it.
    pub(super) async fn remembered(&mut self) {
        if let Some(written) = self.written.take() {
            // An error says that the memory is gone; the task goes on without.
            let _ = written.await;
        }
    }
}

/// A submission whose form its provider found in order.
pub(super) struct Submission {
    pub(super) order: Order,
    /// The `Idempotency-Key`, where the client sent one.
    pub(super) key: Option<String>,
    pub(super) origin: String,
    pub(super) voice: &'static Voice,
}

impl World {
    /// # Errors
    /// When no HTTP client can be made.
    pub(super) fn new(
        options: Options,
        address: SocketAddr,
        voices: &[&'static Voice],
    ) -> std::io::Result<Self> {
        let (memory, remembered) = Memory::open(options.memory.as_deref(), address, Clock.now());
        let at_start = Behaviour::new(options.latency, options.seed);
        let world = Self {
            address,
            api_key: options.api_key,
            stats: Stats::default(),
            courier: Courier::new()?,
            observer: options.observer,
            memory,
            clock: Clock,
            behaviour: Mutex::new(Arc::new(at_start.clone())),
            at_start,
            tasks: Mutex::default(),
            intents: Mutex::new(Counts::new(INTENTS_MAX)),
            tries: Mutex::new(Counts::new(TRIES_MAX)),
            recent: Mutex::default(),
            submitted: AtomicU64::new(0),
            taken_up: Mutex::default(),
        };
        for task in remembered {
            world.take_up(task, voices);
        }
        Ok(world)
    }

    /// Makes a task of an earlier run one of this run's.
    fn take_up(&self, remembered: Remembered, voices: &[&'static Voice]) {
        let Remembered { record, told, refused } = remembered;
        let Some(voice) = voices.iter().find(|voice| voice.name == &*record.provider) else {
            return tracing::warn!(provider = %record.provider, "a task of an unknown provider is left alone");
        };
        let intent: Arc<str> = record.intent.into();
        held(&self.intents).count(intent.clone());
        let (now, age) = (self.clock.monotonic(), self.clock.now().since(record.created));
        let task = Arc::new(Task {
            intent,
            id: record.id,
            order: record.order,
            plan: record.plan,
            draw: record.draw,
            origin: record.origin.unwrap_or_else(|| self.own_origin().into()),
            born: now.checked_sub(age).unwrap_or(now),
            created: record.created,
            callback_refused: AtomicBool::new(refused),
            voice,
        });
        held(&self.tasks).add(task.clone());
        held(&self.taken_up).push((task, told));
    }

    /// Goes on with the tasks of an earlier run; called where the simulator serves.
    pub(super) fn go_on(self: &Arc<Self>) {
        for (task, told) in std::mem::take(&mut *held(&self.taken_up)) {
            courier::go_on(self.clone(), &task, &told);
        }
    }

    /// Where the simulator is found by who names it by its address.
    pub(super) fn own_origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn behaviour(&self) -> Arc<Behaviour> {
        held(&self.behaviour).clone()
    }

    /// Changes the behaviour as a whole or, on an error, not at all.
    ///
    /// # Errors
    /// Those of `change`.
    pub(super) fn steer<E>(
        &self,
        change: impl FnOnce(&mut Behaviour) -> Result<(), E>,
    ) -> Result<Arc<Behaviour>, E> {
        let mut held = held(&self.behaviour);
        let mut changed = Behaviour::clone(&held);
        change(&mut changed)?;
        if changed.seed != held.seed {
            self.submitted.store(0, Relaxed);
        }
        *held = Arc::new(changed);
        Ok(held.clone())
    }

    /// Back to the behaviour and the counts of the start. Tasks under way keep to their plans.
    pub(super) fn reset(&self) -> Arc<Behaviour> {
        self.stats.reset();
        self.submitted.store(0, Relaxed);
        held(&self.intents).clear();
        held(&self.tries).clear();
        held(&self.recent).clear();
        let mut behaviour = held(&self.behaviour);
        *behaviour = Arc::new(self.at_start.clone());
        behaviour.clone()
    }

    pub(super) fn intents(&self, min: u32, most: usize) -> Vec<(Arc<str>, u32)> {
        held(&self.intents).at_least(min, most)
    }

    pub(super) fn task(&self, id: &str) -> Option<Arc<Task>> {
        let id = id.parse().ok()?;
        held(&self.tasks).get(id)
    }

    pub(super) fn elapsed(&self, task: &Task) -> Duration {
        self.clock.monotonic().saturating_duration_since(task.born)
    }

    /// Takes a submission, and starts the work on it.
    ///
    /// # Errors
    /// A [`Refusal`], for the provider to put into words.
    pub(super) fn submit(self: &Arc<Self>, submission: Submission) -> Result<Answer, Refusal> {
        let behaviour = self.behaviour();
        let mut chance = Chance::new(behaviour.seed, self.submitted.fetch_add(1, Relaxed));
        let taken = self.consider(&behaviour, &submission, &mut chance);
        if taken.is_err() {
            Stats::add(&self.stats.refused);
        }
        let (script, failure) = taken?;
        let mut plan = Plan::new(submission.order.kind, &behaviour, &script, failure, &mut chance);
        if submission.order.callback_url.is_empty() {
            plan.sendings.clear();
        }
        Ok(self.accept(submission, plan, chance.next()))
    }

    fn accept(self: &Arc<Self>, submission: Submission, plan: Plan, draw: u64) -> Answer {
        let intent = self.count_intent(&submission);
        self.tell(Seen::Accepted { intent: &intent });
        let (delay, cut) = (plan.answer_delay, plan.answer_cut);
        let task = Arc::new(Task {
            id: id::fresh(),
            intent,
            order: submission.order,
            plan,
            draw,
            origin: submission.origin.into(),
            born: self.clock.monotonic(),
            created: self.clock.now(),
            callback_refused: AtomicBool::new(false),
            voice: submission.voice,
        });
        let written = self.memory.remember(|| self.record(&task));
        held(&self.tasks).add(task.clone());
        Stats::add(&self.stats.accepted);
        if cut {
            Stats::add(&self.stats.answers_cut);
        }
        courier::begin(self.clone(), &task);
        Answer { task, delay, cut, written }
    }

    fn record(&self, task: &Task) -> Record {
        Record {
            id: task.id,
            provider: task.voice.name.into(),
            order: task.order.clone(),
            plan: task.plan.clone(),
            draw: task.draw,
            origin: (*task.origin != *self.own_origin()).then(|| task.origin.clone()),
            created: task.created,
            intent: (*task.intent).into(),
        }
    }

    /// What the submission asks for, and the failure its task is to end in.
    fn consider(
        &self,
        behaviour: &Behaviour,
        submission: &Submission,
        chance: &mut Chance,
    ) -> Result<(Script, Option<FailureClass>), Refusal> {
        let server_error = chance.hit(behaviour.http_500);
        let share = behaviour.fail.filter(|share| chance.hit(share.p));
        let cut = chance.hit(0.5);
        if server_error {
            return Err(Refusal::ServerError);
        }
        if self.too_many(behaviour) {
            return Err(Refusal::RateLimited);
        }
        let script = Script::read(submission.order.texts());
        let failure = self.scripted(&script, submission).or(share.map(|share| share.class));
        match failure {
            Some(FailureClass::RateLimited) => Err(Refusal::RateLimited),
            Some(FailureClass::InsufficientProviderCredits) => Err(Refusal::NoCredits),
            Some(FailureClass::Network) if cut => Err(Refusal::Cut),
            Some(FailureClass::Network) => Err(Refusal::BadGateway),
            Some(FailureClass::InvalidInput) if submission.order.kind == Kind::Lyrics => {
                Err(Refusal::InvalidInput)
            }
            Some(
                FailureClass::InvalidInput
                | FailureClass::Moderation
                | FailureClass::ProviderError
                | FailureClass::Timeout,
            )
            | None => Ok((script, failure)),
        }
    }

    /// The failure that the words ask for, unless it was had often enough.
    fn scripted(&self, script: &Script, submission: &Submission) -> Option<FailureClass> {
        let fail = script.fail?;
        let (times, what) = match (fail.times, fail.class) {
            (Some(times), _) => (times, texts_hash(&submission.order)),
            // Who waits as long as told is let in.
            (None, FailureClass::RateLimited) => (1, intent_hash(submission)),
            (None, _) => return Some(fail.class),
        };
        (held(&self.tries).count(what) <= times).then_some(fail.class)
    }

    fn too_many(&self, behaviour: &Behaviour) -> bool {
        let Some(limit) = behaviour.rate_limit else {
            return false;
        };
        let now = self.clock.monotonic();
        let mut recent = held(&self.recent);
        while recent.front().is_some_and(|then| now.saturating_duration_since(*then) >= limit.window) {
            recent.pop_front();
        }
        let over = recent.len() >= limit.count;
        if !over {
            recent.push_back(now);
        }
        over
    }

    fn count_intent(&self, submission: &Submission) -> Arc<str> {
        let key = submission.key.as_deref().unwrap_or_else(|| path(&submission.order.callback_url));
        let intent = bounded(key);
        if held(&self.intents).count(intent.clone()) > 1 {
            Stats::add(&self.stats.duplicates_of_intent);
        }
        intent
    }

    pub(super) fn tell(&self, seen: Seen<'_>) {
        if let Some(observer) = &self.observer {
            observer(seen);
        }
    }
}

/// The same order again, whoever sends it and in whichever attempt.
fn texts_hash(order: &Order) -> u64 {
    let kind = match order.kind {
        Kind::Lyrics => "lyrics",
        Kind::Music => "music",
    };
    let [prompt, style, title] = order.texts();
    Chance::of([kind, prompt, style, title].join("\0").as_bytes()).next()
}

/// The same call of the same task, in whichever attempt: `<task>.<call>` of the key.
fn intent_hash(submission: &Submission) -> u64 {
    match submission.key.as_deref().and_then(|key| key.rsplit_once('.')) {
        Some((call, _)) => Chance::of(call.as_bytes()).next(),
        None => texts_hash(&submission.order),
    }
}

/// A key as it is remembered: a long one only by its hash, for there may be a million.
fn bounded(key: &str) -> Arc<str> {
    match key.len() <= INTENT_BYTES_MAX {
        true => key.into(),
        false => format!("hash:{:016x}", Chance::of(key.as_bytes()).next()).into(),
    }
}

/// The path of a url; all of it when it has no host.
fn path(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    url[after_scheme..].find('/').map_or(url, |slash| &url[after_scheme + slash..])
}

/// A panic elsewhere must not stop the simulator: what it holds is valid after every step.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_callback_tells_the_intent() {
        assert_eq!(path("http://127.0.0.1:8080/callbacks/suno/abc"), "/callbacks/suno/abc");
        assert_eq!(path("https://app.example.com"), "https://app.example.com");
    }
}
