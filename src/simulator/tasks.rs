//! The tasks that the simulated providers took, as long as they can be polled.
//!
//! Not here: what becomes of a task; all of that is decided at its submission (`plan.rs`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::chance::Chance;
use super::plan::{Event, Plan};
use crate::time::Time;

/// How long a finished task can still be polled.
pub(super) const KEPT: Duration = Duration::from_secs(30 * 60);
const TASKS_MAX: usize = 500_000;
const TEXT_BYTES_MAX: usize = 256 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Lyrics,
    Music,
}

/// What was ordered, whichever provider it was ordered from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) kind: Kind,
    /// The prompt is to be sung word for word.
    pub(super) custom: bool,
    pub(super) instrumental: bool,
    pub(super) model: Box<str>,
    pub(super) prompt: Box<str>,
    pub(super) style: Box<str>,
    pub(super) title: Box<str>,
    /// Empty where none are wanted.
    pub(super) callback_url: Box<str>,
}

impl Order {
    pub(super) fn texts(&self) -> [&str; 3] {
        [&self.prompt, &self.style, &self.title]
    }

    fn text_bytes(&self) -> usize {
        self.prompt.len() + self.style.len() + self.title.len() + self.callback_url.len()
    }
}

/// A task that was taken.
pub(super) struct Task {
    pub(super) id: Uuid,
    /// What the submission called itself, for observers.
    pub(super) intent: Arc<str>,
    pub(super) order: Order,
    pub(super) plan: Plan,
    /// Drawn from the seed and the task's number.
    pub(super) draw: u64,
    /// The simulator's own origin as the client named it; files are offered under it.
    pub(super) origin: Box<str>,
    pub(super) born: Instant,
    pub(super) created: Time,
    /// The last callback was given up on.
    pub(super) callback_refused: AtomicBool,
    pub(super) voice: &'static Voice,
}

/// A provider as far as its tasks need it.
pub(super) struct Voice {
    /// By which it is found again after a restart.
    pub(super) name: &'static str,
    /// How it writes a callback.
    pub(super) write: fn(&Task, Event) -> String,
}

impl Task {
    /// Its id as the providers write it: 32 hexadecimal digits.
    pub(super) fn name(&self) -> String {
        self.id.simple().to_string()
    }

    /// The chance of what is told of this task, the same in every run of a seed.
    pub(super) fn chance(&self, salt: &str) -> Chance {
        Chance::of(&[&self.draw.to_be_bytes(), salt.as_bytes()].concat())
    }

    /// The id of one of its clips. Like the task's own id, and unlike chance, it never comes again: who
    /// stores it must not meet it in the next run.
    pub(super) fn clip(&self, salt: &str) -> Uuid {
        let mut chance = Chance::of(&[self.id.as_bytes(), salt.as_bytes()].concat());
        let bits = u128::from(chance.next()) << 64 | u128::from(chance.next());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }
}

/// The tasks that can be polled: bounded in number, in bytes, and in how long they are kept.
#[derive(Default)]
pub(super) struct Tasks {
    by_id: HashMap<Uuid, Arc<Task>>,
    by_age: VecDeque<Uuid>,
    text_bytes: usize,
}

impl Tasks {
    pub(super) fn add(&mut self, task: Arc<Task>) {
        while self.by_id.len() >= TASKS_MAX
            || self.text_bytes > TEXT_BYTES_MAX
            || self.oldest_is_over(task.born)
        {
            self.forget_oldest();
        }
        self.text_bytes += task.order.text_bytes();
        self.by_age.push_back(task.id);
        self.by_id.insert(task.id, task);
    }

    pub(super) fn get(&self, id: Uuid) -> Option<Arc<Task>> {
        self.by_id.get(&id).cloned()
    }

    fn oldest_is_over(&self, now: Instant) -> bool {
        let oldest = self.by_age.front().and_then(|id| self.by_id.get(id));
        oldest.is_some_and(|task| is_over(&task.plan, now.saturating_duration_since(task.born)))
    }

    fn forget_oldest(&mut self) {
        if let Some(task) = self.by_age.pop_front().and_then(|id| self.by_id.remove(&id)) {
            self.text_bytes -= task.order.text_bytes();
        }
    }
}

/// Whether a task so old has been over for as long as it is kept.
pub(super) fn is_over(plan: &Plan, age: Duration) -> bool {
    age > plan.ends_at().unwrap_or_default().saturating_add(KEPT)
}

#[cfg(test)]
mod tests {
    use super::super::behaviour::{Behaviour, Latency};
    use super::super::script::Script;
    use super::*;
    use crate::time::Clock;

    #[test]
    fn a_task_is_forgotten_some_time_after_its_end() {
        let mut tasks = Tasks::default();
        let start = Clock.monotonic();
        let [old, young] = [task(1, start), task(2, start + KEPT)];
        tasks.add(old.clone());
        tasks.add(young.clone());
        assert!(tasks.get(old.id).is_some(), "its end was less long ago");
        tasks.add(task(3, start + KEPT + Duration::from_secs(2)));
        assert!(tasks.get(old.id).is_none() && tasks.get(young.id).is_some());
        assert_eq!(tasks.text_bytes, 2 * young.order.text_bytes());
    }

    fn task(number: u128, born: Instant) -> Arc<Task> {
        let behaviour = Behaviour::new(Latency { lyrics_ms: [1_000, 1_000], music_ms: [0, 0] }, 1);
        let mut chance = Chance::new(1, 1);
        Arc::new(Task {
            id: Uuid::from_u128(number),
            intent: "".into(),
            order: Order {
                kind: Kind::Lyrics,
                custom: false,
                instrumental: false,
                model: "".into(),
                prompt: "rain".into(),
                style: "".into(),
                title: "".into(),
                callback_url: "http://127.0.0.1/x".into(),
            },
            plan: Plan::new(Kind::Lyrics, &behaviour, &Script::default(), None, &mut chance),
            draw: 0,
            origin: "".into(),
            born,
            created: Time::from_millis(0),
            callback_refused: AtomicBool::new(false),
            voice: &Voice { name: "nobody", write: |_, _| String::new() },
        })
    }
}
