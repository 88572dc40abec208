//! Suno through a gateway: sunoapi.org, or kie.ai with the same paths and other numbers (`suno.md`).
//!
//! From outside to inside: capabilities here, bodies in `request` and, for what is made of clips that
//! exist, in `further`; everything that comes back in `answer`, its shapes in `fields`, its numbers and
//! words in `codes`.
//!
//! Not here: `merge`, for which this gateway has no endpoint, and what only it has (WAV, MIDI, cover
//! images, mashups).

mod answer;
mod codes;
mod fields;
mod further;
mod request;

use async_trait::async_trait;
use reqwest::{RequestBuilder, Url};
use secrecy::{ExposeSecret, SecretString};

pub use codes::Dialect;

use super::failure::{Class, Failure};
use super::http::{Http, Purpose, send};
use super::signature::{self, Header};
use super::{
    BadSignature, Callback, Capabilities, Malformed, News, Order, Provider, ProviderTaskId, Submitted,
    TaskKind, TextLimits,
};
use crate::time::Time;

/// Where the gateway is and how it is spoken to.
#[derive(Clone, Debug)]
pub struct SunoSettings {
    pub base_url: String,
    pub api_key: SecretString,
    pub dialect: Dialect,
    /// Where a finished clip's file lies under its id (`suno.md` section 7).
    pub cdn_url: String,
    /// What follows the id: `.mp3`; the simulator makes `.wav`.
    pub cdn_suffix: String,
    /// For orders that name no model.
    pub default_model: String,
    /// What callbacks are signed with; without it they are vouched for by their url alone.
    pub webhook_secret: Option<SecretString>,
    pub stems: Stems,
}

/// Into what clips are separated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stems {
    /// Vocals, and the rest.
    #[default]
    Two,
    /// Each instrument for itself, for five times the gateway's price.
    Twelve,
}

impl Stems {
    const fn as_str(self) -> &'static str {
        match self {
            Stems::Two => "separate_vocal",
            Stems::Twelve => "split_stem",
        }
    }
}

impl SunoSettings {
    /// sunoapi.org's defaults.
    pub fn new(base_url: impl Into<String>, api_key: impl Into<SecretString>) -> Self {
        Self {
            base_url: base_url.into(),
            api_key: api_key.into(),
            dialect: Dialect::Sunoapi,
            cdn_url: "https://cdn1.suno.ai".into(),
            cdn_suffix: ".mp3".into(),
            default_model: CAPABILITIES.models[0].into(),
            webhook_secret: None,
            stems: Stems::default(),
        }
    }
}

static CAPABILITIES: Capabilities = Capabilities {
    name: "suno",
    kinds: &[
        TaskKind::Lyrics,
        TaskKind::Generate,
        TaskKind::Extend,
        TaskKind::ReplaceSection,
        TaskKind::Cover,
        TaskKind::Stems,
        TaskKind::Persona,
        TaskKind::Video,
    ],
    foreign_sources: &[TaskKind::Extend, TaskKind::ReplaceSection, TaskKind::Cover],
    refuses: further::refusals,
    variants: 2,
    clips_per_call: 2,
    texts_per_call: 2,
    callbacks: true,
    synchronous: false,
    submit_timeout: None,
    negative_tags: true,
    vocal_gender: true,
    weights: true,
    reference_audio: true,
    personas: true,
    instrumental: |_| true,
    writes_words: |_| true,
    extends_as_made: true,
    prompt_beside_words: false,
    models: &["V5", "V5_5", "V4_5PLUS", "V4_5ALL", "V4_5", "V4"],
    configured_model: None,
    limits,
    duration_s_max: Some(480),
    typical_s: 75,
    cost_usd_milli: 60,
};

/// What it can do, before there is one.
pub fn capabilities() -> &'static Capabilities {
    &CAPABILITIES
}

/// `suno.md` section 3, "Length limits".
fn limits(model: &str) -> TextLimits {
    let newer = TextLimits { prompt: 500, lyrics: 5000, style: 1000, title: 100, lyrics_prompt: 200 };
    match model {
        "V3_5" | "V4" => TextLimits { lyrics: 3000, style: 200, title: 80, ..newer },
        "V4_5ALL" => TextLimits { title: 80, ..newer },
        _ => newer,
    }
}

/// The adapter. Holds no state but its settings and connections.
#[derive(Debug)]
pub struct Suno {
    settings: SunoSettings,
    able: Capabilities,
    http: Http,
}

impl Suno {
    pub fn new(settings: SunoSettings, http: Http) -> Self {
        Self { able: CAPABILITIES.with_default_model(&settings.default_model), settings, http }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.base_url.trim_end_matches('/'))
    }

    fn request(&self, order: &Order, model: &str, reply_to: &str) -> Result<request::Request, Failure> {
        let limits = limits(model);
        match order.kind() {
            TaskKind::Lyrics => request::lyrics(order, limits, reply_to),
            TaskKind::Generate => request::generate(order, model, limits, reply_to),
            TaskKind::Extend
            | TaskKind::ReplaceSection
            | TaskKind::Merge
            | TaskKind::Cover
            | TaskKind::Stems
            | TaskKind::Persona
            | TaskKind::Video => further::request(order, model, limits, self.settings.stems, reply_to),
        }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(self.settings.api_key.expose_secret())
    }
}

#[async_trait(?Send)]
impl Provider for Suno {
    fn capabilities(&self) -> &Capabilities {
        &self.able
    }

    async fn submit(&self, order: &Order, reply_to: &str) -> Result<Submitted, Failure> {
        let model = self.able.model_of(order);
        let request = self.request(order, model, reply_to)?;
        let call = self
            .authorized(self.http.post(&self.url(request.path)))
            .header("Idempotency-Key", order.key.to_string())
            .json(&request.body);
        let answer = send(call, Purpose::Submit).await?;
        let submitted = match order.kind() {
            TaskKind::Persona => answer::persona(&answer, self.settings.dialect)
                .map(|persona| Submitted::Done(News::Made(persona))),
            _ => answer::submitted(&answer, self.settings.dialect).map(|task| Submitted::Task(task.into())),
        };
        submitted.map_err(|failure| self.judge(order, failure))
    }

    async fn poll(&self, order: &Order, task: &str) -> Result<News, Failure> {
        let kind = order.kind();
        let path = match kind {
            TaskKind::Lyrics => "/api/v1/lyrics/record-info",
            TaskKind::Stems => "/api/v1/vocal-removal/record-info",
            TaskKind::Video => "/api/v1/mp4/record-info",
            TaskKind::Generate
            | TaskKind::Extend
            | TaskKind::ReplaceSection
            | TaskKind::Cover
            | TaskKind::Merge
            | TaskKind::Persona => "/api/v1/generate/record-info",
        };
        let url = Url::parse_with_params(&self.url(path), [("taskId", task)])
            .map_err(|error| Failure::new(Class::ProviderError, error.to_string()).operator())?;
        let answer = send(self.authorized(self.http.get(url.as_str())), Purpose::Ask).await?;
        let news = answer::polled(&answer, kind, self.settings.dialect)?;
        Ok(match news {
            News::Failed(failure) => News::Failed(self.judge(order, failure)),
            told => told,
        })
    }

    fn verify(&self, header: Header<'_>, body: &[u8], now: Time) -> Result<(), BadSignature> {
        let Some(secret) = &self.settings.webhook_secret else { return Ok(()) };
        let secret = secret.expose_secret().as_bytes();
        match self.settings.dialect {
            Dialect::Kie => signature::of_task(secret, answer::task_id(body).as_deref(), header, now),
            Dialect::Sunoapi => signature::of_body(secret, body, header, now),
        }
    }

    fn signed_task(&self, body: &[u8]) -> Option<ProviderTaskId> {
        let of_the_task = self.settings.webhook_secret.is_some() && self.settings.dialect == Dialect::Kie;
        of_the_task.then(|| answer::task_id(body)).flatten()
    }

    fn read(&self, kind: TaskKind, body: &[u8]) -> Result<Callback, Malformed> {
        answer::called_back(body, kind, self.settings.dialect)
    }

    /// 451 is a file that could not be fetched: where we named none, it is one of the gateway's own, and no matter of
    /// the user's (`suno.md` section 4).
    fn judge(&self, order: &Order, failure: Failure) -> Failure {
        let of_a_file = failure.code.as_deref() == Some("451") && failure.class == Class::InvalidInput;
        let theirs = of_a_file && !further::sends_a_url(order);
        if theirs { Failure { class: Class::ProviderError, ..failure } } else { failure }
    }

    fn audio_from_clip_id(&self, clip_id: &str) -> Option<String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let safe = (1..=64).contains(&clip_id.len()) && clip_id.bytes().all(plain);
        let SunoSettings { cdn_url, cdn_suffix, .. } = &self.settings;
        safe.then(|| format!("{}/{clip_id}{cdn_suffix}", cdn_url.trim_end_matches('/')))
    }
}
