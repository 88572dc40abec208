//! The providers: one trait, one file for each, one line of registration (PROV-1).
//!
//! Not here: when to submit, poll or try again (`song::step`, `song::due`), nor rate limits
//! (`provider::gate`, which wraps all providers from outside).

pub mod failure;
pub mod gate;
pub mod http;
pub mod suno;

use std::sync::Arc;

use async_trait::async_trait;

pub use crate::song::parts::{Clip, LyricsText, News, Order, Stage, TaskKind, VocalGender};
use failure::Failure;
use gate::Gate;

/// The provider's own id of a task; opaque text.
pub type ProviderTaskId = String;

/// What a provider can do. A request it cannot serve is refused with the reason before anything is
/// charged (PROV-1).
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// As in `api.md`: `suno`, `mureka`, `minimax`, `musicgpt`.
    pub name: &'static str,
    pub kinds: &'static [TaskKind],
    /// Clips that one `generate` task brings.
    pub variants: u8,
    pub callbacks: bool,
    pub negative_tags: bool,
    pub vocal_gender: bool,
    pub weights: bool,
    pub reference_audio: bool,
    pub personas: bool,
    /// Every model name that is taken; the first is the default.
    pub models: &'static [&'static str],
    /// Most characters of `generate`'s texts for a model, and of the prompt of `lyrics`.
    pub limits: fn(model: &str) -> TextLimits,
    /// Longest song in seconds, where known.
    pub duration_s_max: Option<u32>,
    /// What a generate call usually takes, in seconds.
    pub typical_s: u32,
}

/// Character limits of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLimits {
    /// The prompt when the provider writes the words itself (not custom mode).
    pub prompt: usize,
    /// The words to be sung.
    pub lyrics: usize,
    /// All style tags joined with `", "`.
    pub style: usize,
    pub title: usize,
    /// The prompt of a `lyrics` task; longer ones are shortened at a word (`design.md` section 10).
    pub lyrics_prompt: usize,
}

/// How a provider took an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Submitted {
    /// It works in the background under this id.
    Task(ProviderTaskId),
    /// It answered at once with the result (MiniMax).
    Done(News),
}

/// A body that cannot be read as this provider's callback. The raw text is kept by the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// A callback as far as it can be read without knowing its song.
#[derive(Clone, Debug, PartialEq)]
pub struct Callback {
    /// The provider's task id where the body names one.
    pub provider_task: Option<ProviderTaskId>,
    pub news: News,
}

/// Translates between one provider's wire format and ours. Remembers nothing, retries nothing; every
/// error is classified before it leaves (PROV-8).
#[async_trait(?Send)]
pub trait Provider {
    fn capabilities(&self) -> &'static Capabilities;

    /// May cost money: called only once the intent is durable (PROV-5).
    ///
    /// # Errors
    /// A [`Failure`] whose `arrived` says whether the order may have reached the provider all the same.
    async fn submit(&self, order: &Order, reply_to: &str) -> Result<Submitted, Failure>;

    /// Free and repeatable.
    ///
    /// # Errors
    /// The *question* failed, which says nothing about the task.
    async fn poll(&self, kind: TaskKind, task: &str) -> Result<News, Failure>;

    /// Reads a callback's body.
    ///
    /// # Errors
    /// [`Malformed`] when it is not this provider's; never panics, whatever the bytes.
    fn read(&self, kind: TaskKind, body: &[u8]) -> Result<Callback, Malformed>;

    /// The url of a finished clip's audio, built from its id, where the provider has such a thing: the
    /// last resort at the deadline (PROV-7).
    fn audio_from_clip_id(&self, clip_id: &str) -> Option<String>;
}

/// A provider as songs use it. Songs run on several arbiters, so the adapter is shared between threads;
/// its futures stay on the thread that made them.
pub type SharedProvider = Arc<dyn Provider + Send + Sync>;

/// A provider with the limits of its key.
#[derive(Clone)]
pub struct Member {
    pub provider: SharedProvider,
    pub gate: Gate,
}

/// The providers that are switched on, in the order of preference. Cheap to clone.
#[derive(Clone)]
pub struct Providers {
    members: Arc<[Member]>,
}

impl Providers {
    /// Registers them; of two with one name the first is found.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Self {
        Self { members: members.into_iter().collect() }
    }

    pub fn get(&self, name: &str) -> Option<&SharedProvider> {
        self.member(name).map(|member| &member.provider)
    }

    pub fn gate(&self, name: &str) -> Option<&Gate> {
        self.member(name).map(|member| &member.gate)
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.members.iter().map(|member| member.provider.capabilities().name)
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.provider.capabilities().name == name)
    }
}
