//! A task under way, as a value: its calls to the provider, how each is doing, what it waits for.
//!
//! Not here: what an event does to it (`song::step`), what is due for it (`song::due`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{CallKey, TaskId};
use crate::provider::failure::{Class, Failure};
use crate::song::parts::{LyricsText, Stage, is_default};
use crate::time::Time;

/// A task under way: its calls to the provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub calls: Vec<Call>,
    /// Since when a limit has kept it from starting; it gives up after [`Rules::max_wait`](super::Rules::max_wait).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_since: Option<Time>,
    /// What it is waiting for, as its owner sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Its place in the queue it stands in, from 1, as it was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u32>,
    /// How long the whole takes at this provider, by our own history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes: Option<Duration>,
    /// When it should be done, once it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_at: Option<Time>,
}

impl Run {
    /// A run of `calls` calls that may start at once.
    pub fn new(calls: u8, now: Time) -> Self {
        Self {
            calls: (0..calls.max(1)).map(|_| Call::new(now)).collect(),
            limited_since: None,
            waiting: None,
            queue_position: None,
            takes: None,
            expected_at: None,
        }
    }

    /// The same task at another provider: calls under numbers that the calls of `before` never had.
    pub(in crate::song) fn elsewhere(before: &Run, calls: u8, now: Time) -> Self {
        let mut run = Self::new(calls, now);
        let number = before.calls.iter().map(|call| call.next_attempt).max().unwrap_or(0);
        for call in &mut run.calls {
            call.attempt = number;
            call.next_attempt = number.saturating_add(1);
        }
        run
    }

    /// Submissions made although an earlier one may have arrived (PROV-5); a metric.
    pub fn possible_duplicates(&self) -> usize {
        self.calls.iter().filter(|call| call.resent).count()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// The plan's songs at once are used up (CRED-3).
    Concurrency,
    /// The provider takes no more at the moment.
    ProviderLimit,
    /// The provider does not answer; it is asked again from time to time (PROV-11).
    ProviderDown,
    /// Nobody knows whether the order arrived: it may still report (PROV-5).
    ProviderAnswer,
    Retry,
}

/// One call to the provider, in its present attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub attempt: u16,
    /// The number of the next new attempt; above every one that was ever submitted.
    pub next_attempt: u16,
    pub state: CallState,
    /// The lyrics it brought, once done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<LyricsText>,
    /// The numbers of the variants that its clips fill.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<i16>,
    /// The clips of which nothing more will come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finished: Vec<String>,
    /// How far its music is; reports of less fill gaps only (CB-4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Failures that used up an automatic attempt, each class on its own (PROV-9).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Class>,
    /// An earlier attempt of which nobody knows whether it arrived: it may still be adopted (PROV-5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// It was submitted again although it may have arrived, which happens once at most (PROV-5).
    #[serde(default, skip_serializing_if = "is_default")]
    pub resent: bool,
}

impl Call {
    pub fn new(now: Time) -> Self {
        Self {
            attempt: 0,
            next_attempt: 1,
            state: CallState::Accepted { from: now },
            texts: Vec::new(),
            places: Vec::new(),
            finished: Vec::new(),
            stage: None,
            failures: Vec::new(),
            lost: None,
            resent: false,
        }
    }

    /// Automatic attempts that this class of failure has used up.
    pub(in crate::song) fn failed_by(&self, class: Class) -> u16 {
        let times = self.failures.iter().filter(|failed| **failed == class).count();
        u16::try_from(times).unwrap_or(u16::MAX)
    }
}

/// An attempt of unknown fate that another one has taken the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub attempt: u16,
    /// Before this nothing is submitted beside it (PROV-5).
    pub until: Time,
}

/// The life of one submission (`durability.md` section 5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// To be submitted, not before `from`.
    Accepted {
        from: Time,
    },
    /// Being submitted. The call starts before `not_after` or never; from `settled_by` on none can be
    /// under way, and if nothing was heard by then it is [`CallState::Unknown`].
    Intent {
        not_after: Time,
        settled_by: Time,
    },
    /// The provider works on it.
    Submitted {
        provider_task: String,
        since: Time,
    },
    /// Nobody knows whether the order arrived. A callback may still adopt it, until `until`.
    Unknown {
        until: Time,
        /// What went wrong, where anything did: a 5xx, an answer that cannot be read, a connection that broke, no time left.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    Done,
    Failed {
        failure: Failure,
    },
}

impl CallState {
    pub const fn ended(&self) -> bool {
        matches!(self, CallState::Done | CallState::Failed { .. })
    }
}

/// Names a call of a task.
pub fn call_key(task: TaskId, index: usize, call: &Call) -> CallKey {
    CallKey { task, call: u8::try_from(index).unwrap_or(u8::MAX), attempt: call.attempt }
}
