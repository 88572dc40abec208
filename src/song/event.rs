//! What can happen to a song, and what its watchers are told of it.

use serde::{Deserialize, Serialize};

use super::parts::News;
use crate::id::{CallKey, TaskId};
use crate::provider::failure::Failure;
use crate::time::Time;

/// Something that happened. Whether it matters is for [`step`](super::step::step) to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A limit of the provider keeps the song from being submitted.
    Limited,
    /// The call is about to be made: it starts before `not_after` or never.
    Submitting {
        call: CallKey,
        not_after: Time,
    },
    /// The call was not made after all; nothing left this machine.
    NotSent {
        call: CallKey,
    },
    Submitted {
        call: CallKey,
        provider_task: String,
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
    },
    /// The owner asks again after a failure (PROV-10), maybe with other words (PROV-15).
    Retried {
        task: TaskId,
        prompt: Option<String>,
        lyrics: Option<String>,
    },
    Cancelled,
    Viewed,
    /// The owner's favourite variant.
    Selected {
        variant_number: i16,
        selected: bool,
    },
    Deleted,
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
            EventKind::Ready => "ready",
            EventKind::Complete => "complete",
            EventKind::Failed => "failed",
            EventKind::Cancelled => "cancelled",
            EventKind::Updated => "updated",
            EventKind::Gone => "gone",
        }
    }
}
