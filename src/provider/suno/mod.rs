//! Suno through a gateway: sunoapi.org, or kie.ai with the same paths and other numbers (`suno.md`).
//!
//! From outside to inside: capabilities here, bodies in `request`, everything that comes back in
//! `answer`, its shapes in `fields`, its numbers and words in `codes`.

mod answer;
mod codes;
mod fields;
mod request;

use async_trait::async_trait;
use reqwest::{RequestBuilder, Url};
use secrecy::{ExposeSecret, SecretString};

pub use codes::Dialect;

use super::failure::{Class, Failure};
use super::http::{Http, Purpose, send};
use super::{Callback, Capabilities, Malformed, News, Order, Provider, Submitted, TaskKind, TextLimits};

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
        }
    }
}

static CAPABILITIES: Capabilities = Capabilities {
    name: "suno",
    kinds: &[TaskKind::Lyrics, TaskKind::Generate],
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
    models: &["V5", "V5_5", "V4_5PLUS", "V4_5ALL", "V4_5", "V4"],
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
    http: Http,
}

impl Suno {
    pub fn new(settings: SunoSettings, http: Http) -> Self {
        Self { settings, http }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.base_url.trim_end_matches('/'))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(self.settings.api_key.expose_secret())
    }
}

#[async_trait(?Send)]
impl Provider for Suno {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    async fn submit(&self, order: &Order, reply_to: &str) -> Result<Submitted, Failure> {
        let model = order.options.model.as_deref().unwrap_or(&self.settings.default_model);
        let request = request::request(order, model, limits(model), reply_to)?;
        let call = self
            .authorized(self.http.post(&self.url(request.path)))
            .header("Idempotency-Key", order.key.to_string())
            .json(&request.body);
        let answer = send(call, Purpose::Submit).await?;
        match answer::submitted(&answer, self.settings.dialect) {
            Ok(task) => Ok(Submitted::Task(task.into())),
            Err(failure) => Err(without_file(failure, order)),
        }
    }

    async fn poll(&self, order: &Order, task: &str) -> Result<News, Failure> {
        let kind = order.kind();
        let path = match kind {
            TaskKind::Lyrics => "/api/v1/lyrics/record-info",
            _ => "/api/v1/generate/record-info",
        };
        let url = Url::parse_with_params(&self.url(path), [("taskId", task)])
            .map_err(|error| Failure::new(Class::ProviderError, error.to_string()).operator())?;
        let answer = send(self.authorized(self.http.get(url.as_str())), Purpose::Ask).await?;
        answer::polled(&answer, kind, self.settings.dialect)
    }

    fn read(&self, kind: TaskKind, body: &[u8]) -> Result<Callback, Malformed> {
        answer::called_back(body, kind, self.settings.dialect)
    }

    fn audio_from_clip_id(&self, clip_id: &str) -> Option<String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let safe = (1..=64).contains(&clip_id.len()) && clip_id.bytes().all(plain);
        let SunoSettings { cdn_url, cdn_suffix, .. } = &self.settings;
        safe.then(|| format!("{}/{clip_id}{cdn_suffix}", cdn_url.trim_end_matches('/')))
    }
}

/// 451 is a file that could not be fetched: the user's, or else one of the gateway's own.
fn without_file(failure: Failure, order: &Order) -> Failure {
    let theirs = failure.code.as_deref() == Some("451") && order.options.reference_audio_url.is_none();
    if theirs { Failure { class: Class::ProviderError, ..failure } } else { failure }
}
