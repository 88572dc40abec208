//! The song as a value: where it is in its life, what came of it. A task under way is in `run`, the limits that all go by in
//! `rules`.
//!
//! Not here: what an event does to it (`song::step`), what is to be done next (`song::due`), how
//! clients see it (`song::view`), how it is stored (`store`).

mod rules;
mod run;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::rules::{ManualRetries, OwnRules, PollRules, Rules};
pub use self::run::{Call, CallState, Lost, Run, Waiting, call_key};
use super::parts::{Made, Makes, Order, TaskKind, Work, is_default};
use super::wish::{Alternative, Wish};
use crate::credit::Credits;
use crate::id::{CallKey, ShareToken, SongId, TaskId, UserId};
use crate::provider::failure::{Class, Failure};
use crate::time::Time;

/// Variants a song may have (SONG-9).
pub const VARIANTS_MAX: u8 = 5;

/// A song, whole: everything that [`step`](super::step::step) needs and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Song {
    pub id: SongId,
    pub user: UserId,
    pub wish: Arc<Wish>,
    /// Opaque to us (SONG-8).
    pub metadata: Arc<serde_json::Value>,
    pub phase: Phase,
    /// The newest task. Its row carries the song's version.
    pub head: Head,
    /// How far each kind of task got, newest task of the kind.
    pub lyrics_progress: Option<Progress>,
    pub music_progress: Option<Progress>,
    /// Number of the newest event; the creation is 1.
    pub seq: i64,
    pub title: Option<String>,
    /// The words that are or will be sung.
    pub lyrics: Option<String>,
    pub lyrics_variants: Vec<LyricsVariant>,
    pub variants: Vec<Variant>,
    /// Further tasks beside the finished song, oldest first (PROV-2).
    pub additions: Vec<Addition>,
    pub cost: Credits,
    pub refunded: Credits,
    /// When the owner asked again by hand, oldest first (PROV-10).
    pub retries: Vec<Time>,
    /// What was decided to be pushed so far: each kind at most once (PUSH-2).
    pub pushes: Vec<Push>,
    pub last_viewed_at: Option<Time>,
    pub created_at: Time,
    pub updated_at: Time,
}

/// Where a song is. A phase carries exactly what exists in it.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Lyrics are being written.
    Lyrics(Run),
    /// The owner is to pick, and may take for ever (SONG-3).
    LyricsReady,
    /// The music is being made.
    Music(Run),
    /// Playable, not yet opened by its owner.
    Ready,
    Complete,
    Failed(Failure),
    Cancelled,
    /// Only its tombstone is left (SONG-12).
    Deleted,
}

impl Phase {
    pub const fn run(&self) -> Option<&Run> {
        match self {
            Phase::Lyrics(run) | Phase::Music(run) => Some(run),
            Phase::LyricsReady
            | Phase::Ready
            | Phase::Complete
            | Phase::Failed(_)
            | Phase::Cancelled
            | Phase::Deleted => None,
        }
    }
}

/// What clients and the library know of a [`Phase`] (SONG-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Pending,
    GeneratingLyrics,
    LyricsReady,
    GeneratingMusic,
    Ready,
    Complete,
    Failed,
    Cancelled,
}

impl Status {
    pub const ALL: [Status; 8] = [
        Status::Pending,
        Status::GeneratingLyrics,
        Status::LyricsReady,
        Status::GeneratingMusic,
        Status::Ready,
        Status::Complete,
        Status::Failed,
        Status::Cancelled,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::GeneratingLyrics => "generating_lyrics",
            Status::LyricsReady => "lyrics_ready",
            Status::GeneratingMusic => "generating_music",
            Status::Ready => "ready",
            Status::Complete => "complete",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<Status> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl Song {
    /// As it is at its creation: its first task is to be made, and nothing is known of it yet but what was asked for.
    pub fn pending(
        id: SongId,
        user: UserId,
        wish: Wish,
        metadata: serde_json::Value,
        task: TaskId,
        now: Time,
    ) -> Self {
        let kind = wish.first_task();
        let (run, price) = (Run::new(wish.calls(kind), now), wish.price(kind));
        let progress = Some(Progress { task: Some(task), ..Progress::default() });
        let (phase, lyrics_progress, music_progress) = match kind.makes() {
            Makes::Lyrics => (Phase::Lyrics(run), progress, None),
            Makes::Music | Makes::Addition => (Phase::Music(run), None, progress),
        };
        Self {
            id,
            user,
            metadata: Arc::new(metadata),
            phase,
            head: Head { task, number: 1, kind, provider: wish.provider.clone(), price },
            lyrics_progress,
            music_progress,
            seq: 1,
            title: wish.title.clone(),
            lyrics: wish.lyrics.clone(),
            lyrics_variants: Vec::new(),
            variants: Vec::new(),
            additions: Vec::new(),
            cost: price,
            refunded: Credits::ZERO,
            retries: Vec::new(),
            pushes: Vec::new(),
            last_viewed_at: None,
            created_at: now,
            updated_at: now,
            wish: Arc::new(wish),
        }
    }

    /// After the first start a song is never `pending` again (`design.md` section 10).
    pub fn status(&self) -> Status {
        let started = |progress: &Option<Progress>| progress.as_ref().is_some_and(|p| p.started_at.is_some());
        match &self.phase {
            Phase::Lyrics(_) | Phase::Music(_) if !self.ever_started() => Status::Pending,
            Phase::Lyrics(_) => Status::GeneratingLyrics,
            Phase::Music(_) => Status::GeneratingMusic,
            Phase::LyricsReady => Status::LyricsReady,
            Phase::Ready => Status::Ready,
            Phase::Complete => Status::Complete,
            Phase::Failed(_) => Status::Failed,
            Phase::Cancelled => Status::Cancelled,
            // Nobody sees it; its row keeps the nearest thing.
            Phase::Deleted
                if started(&self.music_progress) || self.variants.iter().any(Variant::playable) =>
            {
                Status::Complete
            }
            Phase::Deleted => Status::Cancelled,
        }
    }

    fn ever_started(&self) -> bool {
        !self.retries.is_empty()
            || [&self.lyrics_progress, &self.music_progress]
                .into_iter()
                .flatten()
                .any(|progress| progress.started_at.is_some())
    }

    /// Of the phases; an addition keeps its own.
    pub fn progress_mut(&mut self, kind: TaskKind) -> &mut Option<Progress> {
        match kind.makes() {
            Makes::Lyrics => &mut self.lyrics_progress,
            Makes::Music | Makes::Addition => &mut self.music_progress,
        }
    }

    pub fn progress(&self, kind: TaskKind) -> Option<&Progress> {
        match kind.makes() {
            Makes::Lyrics => self.lyrics_progress.as_ref(),
            Makes::Music | Makes::Addition => self.music_progress.as_ref(),
        }
    }

    /// Every task that is under way: the phase's, then the additions'.
    pub fn runs(&self) -> impl Iterator<Item = (TaskId, &Run)> {
        let head = self.phase.run().map(|run| (self.head.task, run));
        let beside = self.additions.iter().filter_map(|one| one.run().map(|run| (one.task, run)));
        head.into_iter().chain(beside)
    }

    /// The run of this task, if it is under way.
    pub fn run_of(&self, task: TaskId) -> Option<&Run> {
        self.runs().find(|(id, _)| *id == task).map(|(_, run)| run)
    }

    pub fn addition(&self, task: TaskId) -> Option<&Addition> {
        self.additions.iter().find(|one| one.task == task)
    }

    /// The provider that works on this task.
    pub fn provider_of(&self, task: TaskId) -> &str {
        self.addition(task).map_or(&self.head.provider, |one| &one.provider)
    }

    /// What this task makes.
    pub fn kind_of(&self, task: TaskId) -> TaskKind {
        self.addition(task).map_or(self.head.kind, |one| one.work.kind())
    }

    pub fn progress_of(&self, task: TaskId) -> Option<&Progress> {
        match self.addition(task) {
            Some(addition) => Some(&addition.progress),
            None => self.progress(self.head.kind),
        }
    }

    /// The order for one of this song's calls, with the words that are to be sung by now.
    pub fn order(&self, key: CallKey) -> Order {
        let work = match self.addition(key.task) {
            Some(addition) => &addition.work,
            None if self.head.kind.makes() == Makes::Lyrics => &Work::Lyrics,
            None => &self.wish.work,
        };
        self.wish.order(key, work, self.title.as_deref(), self.lyrics.as_deref())
    }

    /// The same, to go on elsewhere in this order; whoever is not in it comes last.
    pub(super) fn preferring(&self, names: &[&str]) -> Self {
        let mut song = self.clone();
        let place = |one: &Alternative| names.iter().position(|name| one.provider == *name);
        let alternatives = &mut Arc::make_mut(&mut song.wish).alternatives;
        alternatives.sort_by_key(|one| place(one).unwrap_or(names.len()));
        song
    }

    /// The number that a further task of this song gets.
    pub(super) fn next_number(&self) -> i16 {
        self.additions.iter().map(|one| one.number).fold(self.head.number, i16::max) + 1
    }
}

/// A task beside a finished song: its stems, a video, a persona. The song stays what it is, whatever comes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Addition {
    pub task: TaskId,
    /// Among all tasks of the song.
    pub number: i16,
    pub provider: String,
    pub work: Work,
    /// Reserved when it was asked for; captured or released when it ends.
    pub price: Credits,
    pub state: AdditionState,
    pub progress: Progress,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdditionState {
    Running(Run),
    Done(Made),
    Failed(Failure),
}

/// Additions a song may have, those that failed included.
pub const ADDITIONS_MAX: usize = 50;

impl Addition {
    pub const fn run(&self) -> Option<&Run> {
        match &self.state {
            AdditionState::Running(run) => Some(run),
            AdditionState::Done(_) | AdditionState::Failed(_) => None,
        }
    }

    /// The variant that it is made of.
    pub fn variant_number(&self) -> Option<i16> {
        self.work.sources().first().map(|source| source.variant_number)
    }
}

/// The newest task's row, as far as it never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub task: TaskId,
    /// Counts a song's tasks from 1.
    pub number: i16,
    pub kind: TaskKind,
    pub provider: String,
    /// Reserved when the task began; captured or released when it ends.
    pub price: Credits,
}

/// How a phase went so far, as its owner sees it (SONG-4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The newest task of the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Automatic and manual attempts after the first.
    #[serde(skip_serializing_if = "is_default")]
    pub retry_count: u16,
    /// Providers that failed for their own reasons before the present one was asked (PROV-12).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOver>,
}

impl Progress {
    /// Whether its owner sees no difference: of what went wrong they read our words, not the provider's.
    pub(super) fn looks_like(&self, other: &Self) -> bool {
        let shown = |progress: &Self| {
            let error = progress.error.as_ref();
            error.map(|it| (it.class, it.code.clone(), it.user_text(), it.text_meanwhile(), it.retryable()))
        };
        shown(self) == shown(other)
            && Self { error: None, ..self.clone() } == Self { error: None, ..other.clone() }
    }
}

/// A provider that was given up, and why: the history of an `auto` choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    pub provider: String,
    pub class: Class,
    pub at: Time,
}

/// A lyrics text to pick (SONG-5). Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LyricsVariant {
    pub variant_index: i16,
    pub title: Option<String>,
    pub text: String,
    pub selected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariantStatus {
    Pending,
    Generating,
    Complete,
    Failed,
}

impl VariantStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            VariantStatus::Pending => "pending",
            VariantStatus::Generating => "generating",
            VariantStatus::Complete => "complete",
            VariantStatus::Failed => "failed",
        }
    }
}

/// One of a song's clips, or the place kept for it (SONG-9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    pub variant_number: i16,
    pub status: VariantStatus,
    pub clip_id: Option<String>,
    /// The provider's id of the task that brings it: what further work on the clip may have to name.
    pub provider_task: Option<String>,
    pub title: Option<String>,
    pub duration_ms: Option<i64>,
    pub stream_url: Option<String>,
    pub audio_url: Option<String>,
    pub fallback_url: Option<String>,
    pub asset_url: Option<String>,
    pub image_url: Option<String>,
    pub video_url: Option<String>,
    pub share_token: ShareToken,
    pub selected: bool,
}

impl Variant {
    pub const fn playable(&self) -> bool {
        self.audio_url.is_some() || self.stream_url.is_some()
    }
}

/// What a user's devices are told (PUSH-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Push {
    LyricsReady,
    MusicReady,
}

impl Push {
    pub const fn as_str(self) -> &'static str {
        match self {
            Push::LyricsReady => "lyrics_ready",
            Push::MusicReady => "music_ready",
        }
    }

    pub fn parse(text: &str) -> Option<Push> {
        [Push::LyricsReady, Push::MusicReady].into_iter().find(|push| push.as_str() == text)
    }
}
