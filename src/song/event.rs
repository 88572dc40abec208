//! What can happen to a song, and what its watchers are told of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::parts::{News, Work};
use super::phase::Waiting;
use crate::credit::Credits;
use crate::id::{CallKey, ShareToken, TaskId, UserId};
use crate::provider::failure::Failure;
use crate::time::Time;

/// Something that happened. Whether it matters is for [`step`](super::step::step) to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Something keeps the call from being made: a limit, or a provider that does not answer.
    Limited {
        call: CallKey,
        by: Waiting,
        /// Its place in the queue, from 1.
        queue_position: Option<u32>,
        /// Where its provider is down: those that are not.
        open: Vec<String>,
    },
    /// The call is about to be made: it starts before `not_after` or never.
    Submitting {
        call: CallKey,
        not_after: Time,
        /// From here on it cannot be under way.
        settled_by: Time,
        /// How long the provider takes, by our own history.
        takes: Option<Duration>,
        /// The call brings the result itself: the song is at work from here on.
        synchronous: bool,
    },
    /// The call was not made after all; nothing left this machine.
    NotSent {
        call: CallKey,
    },
    Submitted {
        call: CallKey,
        provider_task: String,
        /// The ids of the clips that will come, where the provider tells them at once.
        clip_ids: Vec<String>,
    },
    /// The provider answered the submission with the result itself, and names no task (MiniMax).
    Answered {
        call: CallKey,
        news: News,
    },
    SubmitFailed {
        call: CallKey,
        failure: Failure,
    },
    /// A callback or a poll brought something.
    News {
        call: CallKey,
        provider_task: Option<String>,
        news: News,
    },
    /// Time passed: something that [`due`](super::due::due) named is due.
    Wake,
    /// The owner picked a text, or wrote one (SONG-3). `task` is the id for the music's task.
    Chosen {
        choice: Choice,
        task: TaskId,
        /// The other providers that cannot sing what was picked.
        unable: Vec<String>,
    },
    /// The owner asks again after a failure (PROV-10), maybe with other words (PROV-15).
    Retried {
        task: TaskId,
        prompt: Option<String>,
        lyrics: Option<String>,
        /// The other providers that do not take these words.
        unable: Vec<String>,
    },
    /// An operator puts a failed phase back to work: no limit of the owner's counts, its price is reserved anew (OPS-1).
    PutBack {
        task: TaskId,
    },
    /// It should have moved long ago and does not: what waits to be submitted is given up (OPS-2).
    GivenUp,
    /// The owner wants something made beside the finished song (PROV-2).
    Asked {
        addition: Box<NewAddition>,
    },
    /// The owner wants the variations that did not come of a song of several (CRED-8). `task` is the id for the task
    /// that makes them.
    Resumed {
        task: TaskId,
    },
    /// A guest's song moves to the guest's account (CRED-7), which is on this plan.
    Claimed {
        by: UserId,
        plan: &'static str,
    },
    Cancelled,
    Viewed,
    /// The owner's favourite variant.
    Selected {
        variant_number: i16,
        selected: bool,
    },
    /// The owner takes a share link back: the variant gets this one in its place (protocol.md 6).
    Unshared {
        variant_number: i16,
        share_token: ShareToken,
    },
    Deleted,
}

impl Event {
    /// The call that it is about, if it is about one.
    pub const fn call(&self) -> Option<CallKey> {
        match self {
            Event::Limited { call, .. }
            | Event::Submitting { call, .. }
            | Event::NotSent { call }
            | Event::Submitted { call, .. }
            | Event::Answered { call, .. }
            | Event::SubmitFailed { call, .. }
            | Event::News { call, .. } => Some(*call),
            Event::Wake
            | Event::Chosen { .. }
            | Event::Retried { .. }
            | Event::PutBack { .. }
            | Event::GivenUp
            | Event::Asked { .. }
            | Event::Resumed { .. }
            | Event::Claimed { .. }
            | Event::Cancelled
            | Event::Viewed
            | Event::Selected { .. }
            | Event::Unshared { .. }
            | Event::Deleted => None,
        }
    }
}

/// What is to be made beside a song: settled at the door, but for its place among the song's tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct NewAddition {
    pub task: TaskId,
    pub provider: String,
    pub work: Work,
    pub price: Credits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Variant(i16),
    Text { text: String, title: Option<String> },
}

/// The kind of a public event: for toasts and analytics. A client that looks at `set` alone is right
/// (`protocol.md` section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Created,
    Waiting,
    PhaseStarted,
    LyricsReady,
    LyricsChosen,
    ClipReady,
    RetryScheduled,
    /// Another provider is asked, because the one before failed for its own reasons (PROV-12).
    ProviderChanged,
    /// A task beside the song was begun, moved on, or ended.
    TaskStarted,
    TaskCompleted,
    TaskFailed,
    Ready,
    Complete,
    Failed,
    Cancelled,
    Updated,
    Gone,
}

impl EventKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            EventKind::Created => "created",
            EventKind::Waiting => "waiting",
            EventKind::PhaseStarted => "phase_started",
            EventKind::LyricsReady => "lyrics_ready",
            EventKind::LyricsChosen => "lyrics_chosen",
            EventKind::ClipReady => "clip_ready",
            EventKind::RetryScheduled => "retry_scheduled",
            EventKind::ProviderChanged => "provider_changed",
            EventKind::TaskStarted => "task_started",
            EventKind::TaskCompleted => "task_completed",
            EventKind::TaskFailed => "task_failed",
            EventKind::Ready => "ready",
            EventKind::Complete => "complete",
            EventKind::Failed => "failed",
            EventKind::Cancelled => "cancelled",
            EventKind::Updated => "updated",
            EventKind::Gone => "gone",
        }
    }
}
