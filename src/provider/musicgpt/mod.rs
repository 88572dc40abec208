//! MusicGPT (`musicgpt.md`): everything in the background but lyrics, and one webhook for each asset.
//!
//! From outside to inside: capabilities here, bodies in `request`, everything that comes back in
//! `answer`, its shapes in `fields`, its statuses and words in `codes`. Not here: the check of callbacks
//! beyond their url, for nothing is signed.

mod answer;
mod codes;
mod fields;
mod request;

use async_trait::async_trait;
use reqwest::{RequestBuilder, Url};
use secrecy::{ExposeSecret, SecretString};

use super::failure::{Class, Failure};
use super::http::{Http, Purpose, send};
use super::{Callback, Capabilities, Malformed, News, Order, Provider, Submitted, TaskKind, TextLimits};
use request::{Body, Request};

/// Where MusicGPT is and as whom it is asked.
#[derive(Clone, Debug)]
pub struct MusicGptSettings {
    pub base_url: String,
    pub api_key: SecretString,
    /// For orders that name no model.
    pub default_model: String,
}

impl MusicGptSettings {
    pub fn new(base_url: impl Into<String>, api_key: impl Into<SecretString>) -> Self {
        Self {
            base_url: base_url.into(),
            api_key: api_key.into(),
            default_model: CAPABILITIES.models[0].into(),
        }
    }
}

static CAPABILITIES: Capabilities = Capabilities {
    name: "musicgpt",
    kinds: &[
        TaskKind::Lyrics,
        TaskKind::Generate,
        TaskKind::Extend,
        TaskKind::ReplaceSection,
        TaskKind::Cover,
        TaskKind::Stems,
    ],
    variants: 2,
    clips_per_call: 2,
    texts_per_call: 1,
    callbacks: true,
    // Only lyrics are; they are answered within the usual time of a call.
    synchronous: false,
    submit_timeout: None,
    negative_tags: false,
    vocal_gender: true,
    weights: false,
    reference_audio: false,
    personas: false,
    instrumental: |_| true,
    writes_words: |_| true,
    extends_as_made: false,
    prompt_beside_words: true,
    models: &["v7", "v7-pro", "v6", "v6-pro"],
    configured_model: None,
    limits,
    foreign_sources: &[TaskKind::Extend, TaskKind::ReplaceSection, TaskKind::Cover, TaskKind::Stems],
    refuses: request::refused,
    duration_s_max: None,
    typical_s: 150,
    // The recorded `conversion_cost` is 0.12.
    cost_usd_milli: 120,
};

/// What it can do, before there is one.
pub fn capabilities() -> &'static Capabilities {
    &CAPABILITIES
}

/// All models are version 2's, with one set of limits. Those of style and title are not documented [G]; of the two
/// limits that the manual gives for lyrics prompts this is the one that is surely kept.
fn limits(_model: &str) -> TextLimits {
    TextLimits { prompt: 1000, lyrics: 5000, style: 300, title: 100, lyrics_prompt: 280 }
}

/// The adapter. Holds no state but its settings and connections.
#[derive(Debug)]
pub struct MusicGpt {
    settings: MusicGptSettings,
    able: Capabilities,
    http: Http,
}

impl MusicGpt {
    pub fn new(settings: MusicGptSettings, http: Http) -> Self {
        Self { able: CAPABILITIES.with_default_model(&settings.default_model), settings, http }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.base_url.trim_end_matches('/'))
    }

    fn question(&self, path: &str, query: &[(&str, &str)]) -> Result<Url, Failure> {
        Url::parse_with_params(&self.url(path), query)
            .map_err(|error| Failure::new(Class::ProviderError, error.to_string()).operator())
    }

    /// The bare key, without `Bearer`.
    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        request.header("Authorization", self.settings.api_key.expose_secret())
    }

    fn call(&self, Request { path, body }: Request) -> Result<RequestBuilder, Failure> {
        Ok(match body {
            Body::Question { prompt } => {
                self.http.get_once(self.question(path, &[("prompt", &prompt)])?.as_str())
            }
            Body::Song(song) => self.http.post(&self.url(path)).json(&song),
            Body::Form(form) => {
                let (content_type, body) = form.written();
                self.http.post(&self.url(path)).header("Content-Type", content_type).body(body)
            }
        })
    }
}

#[async_trait(?Send)]
impl Provider for MusicGpt {
    fn capabilities(&self) -> &Capabilities {
        &self.able
    }

    async fn submit(&self, order: &Order, reply_to: &str) -> Result<Submitted, Failure> {
        let model = self.able.model_of(order);
        let request = request::request(order, model, limits(model), reply_to)?;
        let call = self.authorized(self.call(request)?).header("Idempotency-Key", order.key.to_string());
        answer::submitted(&send(call, Purpose::Submit).await?, order)
    }

    async fn poll(&self, order: &Order, task: &str) -> Result<News, Failure> {
        let kind = order.kind();
        let query = [("conversionType", conversion_type(kind)), ("task_id", task)];
        let url = self.question("/v1/byId", &query)?;
        let answer = send(self.authorized(self.http.get(url.as_str())), Purpose::Ask).await?;
        answer::polled(&answer, kind)
    }

    fn read(&self, kind: TaskKind, body: &[u8]) -> Result<Callback, Malformed> {
        answer::called_back(body, kind)
    }

    /// Files do lie under their conversion's id, but the id is told before there is a file, and nothing says
    /// that the address needs no signature: a link that leads nowhere would stand for a song.
    fn audio_from_clip_id(&self, _clip_id: &str) -> Option<String> {
        None
    }
}

/// By which kind a task is asked for. Kinds that are not made have the one of songs.
fn conversion_type(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Lyrics => "LYRICS_GENERATOR",
        TaskKind::Extend => "EXTEND",
        TaskKind::ReplaceSection => "INPAINT",
        TaskKind::Cover => "REMIX",
        // [G]: the manual has `EXTRACTION` as well, and does not say which of the two `/v1/Extraction` makes. Asked
        // by the wrong one it is not found, which is no news; the webhook tells.
        TaskKind::Stems => "STEMS_SEPARATION",
        TaskKind::Generate | TaskKind::Merge | TaskKind::Persona | TaskKind::Video => "MUSIC_AI",
    }
}
