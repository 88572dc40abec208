//! The providers: one trait, one file for each, one line of registration (PROV-1).
//!
//! Not here: when to submit, poll or try again (`song::step`, `song::due`), nor rate limits, queue and circuit
//! breaker (`provider::gate`, which wraps all providers from outside).

pub mod choice;
pub mod failure;
pub mod gate;
pub mod health;
pub mod http;
mod json;
pub mod minimax;
pub mod mureka;
pub mod musicgpt;
pub mod signature;
pub mod suno;
mod words;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use crate::song::parts::{
    Clip, LyricsText, Made, Makes, MusicOptions, News, Order, SourceClip, Stage, Stem, TaskKind, VocalGender,
    Work,
};
use crate::time::Time;
use failure::Failure;
use gate::{Gate, Hold};
use health::Health;

/// The provider's own id of a task; opaque text.
pub type ProviderTaskId = String;

/// What a provider can do. A request it cannot serve is refused with the reason before anything is
/// charged (PROV-1).
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// As in `api.md`: `suno`, `mureka`, `minimax`, `musicgpt`.
    pub name: &'static str,
    pub kinds: &'static [TaskKind],
    /// Those of the kinds that also work on a clip which another provider made.
    pub foreign_sources: &'static [TaskKind],
    /// What else it refuses of an order of one of its kinds, with this model: what the request needs of the clip it
    /// works on, say, or what it has no place for. Pure.
    pub refuses: fn(&Order, model: &str) -> Vec<Unsupported>,
    /// Variants of a song that names no number.
    pub variants: u8,
    /// The most clips that one `generate` call brings; more variants take more calls.
    pub clips_per_call: u8,
    /// Texts that one `lyrics` call brings; a choice of two takes two calls where it is 1 (SONG-5).
    pub texts_per_call: u8,
    pub callbacks: bool,
    /// One long call answers with the result: no task id, nothing to poll (MiniMax).
    pub synchronous: bool,
    /// How long a submission may take, where it is longer than the configured `tasks.call_timeout`.
    pub submit_timeout: Option<Duration>,
    pub negative_tags: bool,
    pub vocal_gender: bool,
    pub weights: bool,
    pub reference_audio: bool,
    pub personas: bool,
    /// Whether this model makes music without vocals.
    pub instrumental: fn(model: &str) -> bool,
    /// Whether this model writes the words of a sung song itself, from a prompt.
    pub writes_words: fn(model: &str) -> bool,
    /// Whether a song's prompt is sent as well where it has words to sing and style tags.
    pub prompt_beside_words: bool,
    /// Whether a clip of its own is extended with the model that it was made with, where that is known.
    pub extends_as_made: bool,
    /// Every model name that is taken; the first is the default, unless one is configured.
    pub models: &'static [&'static str],
    /// What the operator has made the default.
    pub configured_model: Option<String>,
    /// Most characters of `generate`'s texts for a model, and of the prompt of `lyrics`.
    pub limits: fn(model: &str) -> TextLimits,
    /// Longest song in seconds, where known.
    pub duration_s_max: Option<u32>,
    /// What a generate call usually takes, in seconds.
    pub typical_s: u32,
    /// What a generate call costs its operator, in thousandths of a US dollar: an estimate, to compare by (PROV-12).
    pub cost_usd_milli: u32,
}

impl Capabilities {
    /// How many calls it takes to make this many variants of a song.
    pub const fn music_calls(&self, variants: u8) -> u8 {
        let per_call = if self.clips_per_call == 0 { 1 } else { self.clips_per_call };
        let calls = variants.div_ceil(per_call);
        if calls == 0 { 1 } else { calls }
    }

    /// How many calls it takes to have two texts to choose from.
    pub const fn lyrics_calls(&self) -> u8 {
        if self.texts_per_call >= 2 { 1 } else { 2 }
    }

    /// The model of an order that names none.
    pub fn default_model(&self) -> &str {
        let first = self.models.first().copied().unwrap_or_default();
        self.configured_model.as_deref().unwrap_or(first)
    }

    /// The model that an order is made with, and by whose limits it is checked.
    pub fn model_of<'a>(&'a self, order: &'a Order) -> &'a str {
        let source = match &order.work {
            Work::Extend { of, .. } if self.extends_as_made && of.provider == self.name => {
                of.model.as_deref()
            }
            _ => None,
        };
        let asked = source.filter(|model| self.knows(model)).or(order.options.model.as_deref());
        asked.unwrap_or(self.default_model())
    }

    /// Whether this is the name of a model here. A default that is configured is taken by its name as well.
    fn knows(&self, model: &str) -> bool {
        self.models.contains(&model) || model == self.default_model()
    }

    /// The same, where the operator has chosen another default.
    #[must_use]
    fn with_default_model(&self, model: &str) -> Self {
        Self { configured_model: Some(model.to_owned()), ..self.clone() }
    }
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
    let (kind, options) = (order.kind(), &order.options);
    let model = able.model_of(order);
    let foreign = order.work.sources().iter().find(|source| source.provider != able.name);
    match foreign.filter(|_| !able.foreign_sources.contains(&kind)) {
        _ if !able.kinds.contains(&kind) => {
            let field = if order.work.sources().is_empty() { "mode" } else { "provider" };
            refuse(field, format!("{} does not make {}", able.name, kind.as_str()));
        }
        Some(source) => {
            let why = format!("{} makes {} only of clips of its own", able.name, kind.as_str());
            refuse("variant_number", format!("{why}; this one is from {}", source.provider));
        }
        None => found.extend((able.refuses)(order, model)),
    }
    let mut refuse = |field, why| found.push(Unsupported { field, why });
    let weighted = |weight: Option<f32>| weight.is_some() && !able.weights;
    let generates = kind == TaskKind::Generate;
    let silent = generates && options.instrumental && !(able.instrumental)(model);
    let wordless =
        generates && !options.instrumental && order.lyrics.is_none() && !(able.writes_words)(model);
    for (asked, field) in [
        (silent, "instrumental"),
        (wordless, "lyrics"),
        (!options.negative_tags.is_empty() && !able.negative_tags, "negative_tags"),
        (options.vocal_gender.is_some() && !able.vocal_gender, "vocal_gender"),
        (options.reference_audio_url.is_some() && !able.reference_audio, "reference_audio_url"),
        (options.persona_id.is_some() && !able.personas, "persona_id"),
        (weighted(options.style_weight), "style_weight"),
        (weighted(options.weirdness), "weirdness"),
        (weighted(options.audio_weight), "audio_weight"),
    ] {
        if asked {
            let why = match field {
                "lyrics" => format!("{} sings only words that it is given", able.name),
                "instrumental" => format!("{} makes no instrumentals with {model}", able.name),
                _ => format!("{} does not take this", able.name),
            };
            refuse(field, why);
        }
    }
    match options.model.as_deref() {
        Some(model) if !able.knows(model) => {
            refuse("model", format!("{} has {}", able.name, able.models.join(", ")));
        }
        // The texts of a finished song are not sung again for what is added to it.
        _ if kind.makes() == Makes::Addition => {}
        // What is told already with what takes its room is not told again.
        _ => {
            let told: Vec<_> = found.iter().map(|one| one.field).collect();
            found.extend(too_long(able, order).into_iter().filter(|one| !told.contains(&one.field)));
        }
    }
    found
}

/// Texts above the limits of the order's model. The prompt of a `lyrics` task is shortened instead.
fn too_long(able: &Capabilities, order: &Order) -> Vec<Unsupported> {
    let limits = (able.limits)(able.model_of(order));
    let chars = |text: &Option<String>| text.as_deref().map_or(0, |text| text.chars().count());
    let style = order.options.style_tags.join(", ").chars().count();
    let sings_it = matches!(order.kind(), TaskKind::Generate | TaskKind::Cover);
    let described = sings_it && order.lyrics.is_none();
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
    /// It works on it in the background.
    Task(Accepted),
    /// It answered at once with the result (MiniMax).
    Done(News),
}

/// An order that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// What to ask for it by.
    pub task: ProviderTaskId,
    /// The ids of the clips that will come, in their order, where the provider says so at once.
    pub clip_ids: Vec<String>,
}

impl From<ProviderTaskId> for Accepted {
    fn from(task: ProviderTaskId) -> Self {
        Self { task, clip_ids: Vec::new() }
    }
}

/// A callback that its provider did not sign, although it should have (CB-1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSignature(pub &'static str);

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
    /// What it can do as it is configured: its default model is the one that its orders get.
    fn capabilities(&self) -> &Capabilities;

    /// May cost money: called only once the intent is durable (PROV-5).
    ///
    /// # Errors
    /// A [`Failure`] whose `arrived` says whether the order may have reached the provider all the same.
    async fn submit(&self, order: &Order, reply_to: &str) -> Result<Submitted, Failure>;

    /// Free and repeatable.
    ///
    /// # Errors
    /// The *question* failed, which says nothing about the task.
    async fn poll(&self, order: &Order, task: &str) -> Result<News, Failure>;

    /// Checks a callback the way this provider signs, if a secret is configured for that (CB-1). The url's
    /// token was checked before. `header` looks a header up by its name in lower case.
    ///
    /// # Errors
    /// The signature is missing, wrong, or more than 5 minutes off.
    fn verify(
        &self,
        _header: &dyn Fn(&str) -> Option<String>,
        _body: &[u8],
        _now: Time,
    ) -> Result<(), BadSignature> {
        Ok(())
    }

    /// The task that a verified signature speaks of, where that is all that it vouches for: it must be the one that the
    /// url's call is known by.
    fn signed_task(&self, _body: &[u8]) -> Option<ProviderTaskId> {
        None
    }

    /// Reads a callback's body.
    ///
    /// # Errors
    /// [`Malformed`] when it is not this provider's; never panics, whatever the bytes.
    fn read(&self, kind: TaskKind, body: &[u8]) -> Result<Callback, Malformed>;

    /// A failure in the light of what was ordered, where its meaning depends on that: callbacks are read without knowing
    /// it. Asked again, the answer is the same.
    fn judge(&self, _order: &Order, failure: Failure) -> Failure {
        failure
    }

    /// The url of a finished clip's audio, built from its id, where the provider has such a thing: the
    /// last resort at the deadline (PROV-7).
    fn audio_from_clip_id(&self, clip_id: &str) -> Option<String>;
}

/// A provider as songs use it. Songs run on several arbiters, so the adapter is shared between threads;
/// its futures stay on the thread that made them.
pub type SharedProvider = Arc<dyn Provider + Send + Sync>;

/// A provider with the limits of its key and its history.
#[derive(Clone)]
pub struct Member {
    pub provider: SharedProvider,
    pub gate: Gate,
    pub health: Arc<Health>,
}

impl Member {
    /// Without any history yet.
    pub fn new(provider: SharedProvider, gate: Gate) -> Self {
        let health = Arc::new(Health::new(provider.capabilities()));
        Self { provider, gate, health }
    }

    pub fn name(&self) -> &'static str {
        self.provider.capabilities().name
    }

    /// What is known of it for the choice of a provider; `cost_usd_milli` is `None` where it cannot do
    /// what is asked.
    fn candidate(&self, kind: TaskKind, cost_usd_milli: Option<u32>) -> choice::Candidate {
        choice::Candidate {
            name: self.provider.capabilities().name,
            capable: cost_usd_milli.is_some(),
            state: self.gate.state(),
            paused: match self.gate.hold() {
                Some(Hold::Pause { left }) => left,
                Some(Hold::Places | Hold::Outage { .. }) | None => Duration::ZERO,
            },
            success: self.health.success_share(),
            expected: self.health.expected(kind),
            cost_usd_milli: cost_usd_milli.unwrap_or_default(),
            waiting: self.gate.waiting(),
            tasks: self.gate.tasks(),
            tasks_max: self.gate.tasks_max(),
        }
    }
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

    /// Those that can do it, the best first (PROV-12). `cost` says what it would cost there, in thousandths of a
    /// US dollar; `None` where it cannot be done.
    pub fn ranked(&self, kind: TaskKind, cost: impl Fn(&Capabilities) -> Option<u32>) -> Vec<&Member> {
        let candidate = |member: &Member| member.candidate(kind, cost(member.provider.capabilities()));
        let candidates: Vec<_> = self.members.iter().map(candidate).collect();
        choice::rank(&candidates).into_iter().map(|index| &self.members[index]).collect()
    }

    /// All of them, in the order of preference.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// The provider of this name, with its limits.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.provider.capabilities().name == name)
    }
}
