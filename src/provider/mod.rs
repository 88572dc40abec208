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

/// Why a provider cannot serve an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The field of the create request (`api.md`).
    pub field: &'static str,
    pub why: String,
}

/// What of an order this provider cannot serve, all of it, so that one answer can name everything
/// (PROV-1, PROV-3). Empty: it can.
pub fn unsupported(able: &Capabilities, order: &Order) -> Vec<Unsupported> {
    let mut found = Vec::new();
    let mut refuse = |field, why| found.push(Unsupported { field, why });
    if !able.kinds.contains(&order.kind) {
        refuse("mode", format!("{} does not make {}", able.name, order.kind.as_str()));
    }
    let weighted = |weight: Option<f32>| weight.is_some() && !able.weights;
    for (asked, field) in [
        (!order.negative_tags.is_empty() && !able.negative_tags, "negative_tags"),
        (order.vocal_gender.is_some() && !able.vocal_gender, "vocal_gender"),
        (order.reference_audio_url.is_some() && !able.reference_audio, "reference_audio_url"),
        (order.persona_id.is_some() && !able.personas, "persona_id"),
        (weighted(order.style_weight), "style_weight"),
        (weighted(order.weirdness), "weirdness"),
        (weighted(order.audio_weight), "audio_weight"),
    ] {
        if asked {
            refuse(field, format!("{} does not take this", able.name));
        }
    }
    match order.model.as_deref() {
        Some(model) if !able.models.contains(&model) => {
            refuse("model", format!("{} has {}", able.name, able.models.join(", ")));
        }
        _ => found.extend(too_long(able, order)),
    }
    found
}

/// Texts above the limits of the order's model. The prompt of a `lyrics` task is shortened instead.
fn too_long(able: &Capabilities, order: &Order) -> Vec<Unsupported> {
    let model = order.model.as_deref().or(able.models.first().copied()).unwrap_or_default();
    let limits = (able.limits)(model);
    let chars = |text: &Option<String>| text.as_deref().map_or(0, |text| text.chars().count());
    let style = order.style_tags.join(", ").chars().count();
    let described = order.kind == TaskKind::Generate && order.lyrics.is_none();
    let texts = [
        ("title", chars(&order.title), limits.title),
        ("lyrics", chars(&order.lyrics), limits.lyrics),
        ("style_tags", style, limits.style),
        ("prompt", if described { chars(&order.prompt) } else { 0 }, limits.prompt),
    ];
    let over = texts.into_iter().filter(|(_, is, most)| is > most);
    over.map(|(field, is, most)| Unsupported {
        field,
        why: format!("{is} characters; {} takes {most}", able.name),
    })
    .collect()
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

    /// The provider of this name, with its limits.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.provider.capabilities().name == name)
    }
}
