//! Mureka (`mureka.md`): songs, instrumentals and what is done with a finished song, found by polls alone.
//!
//! From outside to inside: capabilities here, bodies in `request`, everything that comes back in `answer`, errors in
//! `codes`. Deliberately absent: callbacks (Mureka has none), streams while a song is made, and reference audio,
//! which would have to be uploaded first.

mod answer;
mod codes;
mod request;

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{RequestBuilder, Url};
use secrecy::{ExposeSecret, SecretString};

use super::failure::{Class, Failure};
use super::http::{Http, Purpose, send};
use super::{
    Callback, Capabilities, Malformed, News, Order, Provider, Submitted, TaskKind, TextLimits, Work,
};

/// By which the clips that were made here are told from others'.
const NAME: &str = "mureka";

/// Where Mureka is and how it is spoken to.
#[derive(Clone, Debug)]
pub struct MurekaSettings {
    pub base_url: String,
    pub api_key: SecretString,
    /// For orders that name no model.
    pub default_model: String,
}

impl MurekaSettings {
    pub fn new(base_url: impl Into<String>, api_key: impl Into<SecretString>) -> Self {
        Self {
            base_url: base_url.into(),
            api_key: api_key.into(),
            default_model: CAPABILITIES.models[0].into(),
        }
    }
}

static CAPABILITIES: Capabilities = Capabilities {
    name: NAME,
    foreign_sources: &[TaskKind::Stems],
    refuses: request::refused,
    kinds: &[
        TaskKind::Lyrics,
        TaskKind::Generate,
        TaskKind::Extend,
        TaskKind::ReplaceSection,
        TaskKind::Stems,
    ],
    variants: 2,
    clips_per_call: 3,
    texts_per_call: 1,
    callbacks: false,
    synchronous: false,
    // Lyrics and stems are answered in the call that orders them, and a separation takes a while.
    submit_timeout: Some(Duration::from_secs(120)),
    negative_tags: false,
    vocal_gender: true,
    weights: false,
    reference_audio: false,
    personas: false,
    instrumental: |model| !matches!(model, "mureka-o1" | "mureka-o2"),
    writes_words: |_| true,
    extends_as_made: false,
    prompt_beside_words: true,
    models: &[
        "auto",
        "mureka-9.5",
        "mureka-9",
        "mureka-8",
        "mureka-7.6",
        "mureka-o2",
        "mureka-7.5",
        "mureka-6",
        "mureka-o1",
    ],
    configured_model: None,
    limits,
    duration_s_max: None,
    typical_s: 45,
    // About 4 cents a song, two songs a call.
    cost_usd_milli: 80,
};

/// What it can do, before there is one.
pub fn capabilities() -> &'static Capabilities {
    &CAPABILITIES
}

/// `mureka.md` section 2. The older text of the manual gives the older models 3000 characters to sing. A title is
/// not sent at all.
fn limits(model: &str) -> TextLimits {
    let newer =
        TextLimits { prompt: 2000, lyrics: 5000, style: 1024, title: usize::MAX, lyrics_prompt: 2000 };
    match model {
        "mureka-6" | "mureka-7.5" | "mureka-o1" => TextLimits { lyrics: 3000, ..newer },
        _ => newer,
    }
}

/// The adapter. Holds no state but its settings and connections.
#[derive(Debug)]
pub struct Mureka {
    settings: MurekaSettings,
    able: Capabilities,
    http: Http,
}

impl Mureka {
    pub fn new(settings: MurekaSettings, http: Http) -> Self {
        Self { able: CAPABILITIES.with_default_model(&settings.default_model), settings, http }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.base_url.trim_end_matches('/'))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(self.settings.api_key.expose_secret())
    }

    /// Where to ask for a task: instrumentals have a place of their own.
    fn query(&self, order: &Order, task: &str) -> Result<Url, Failure> {
        let instrumental = order.work == Work::Generate && order.options.instrumental;
        let path = if instrumental { "/v1/instrumental/query" } else { "/v1/song/query" };
        let wrong = |why: &str| Failure::new(Class::ProviderError, format!("{NAME}: {why}")).operator();
        let mut url = Url::parse(&self.url(path)).map_err(|error| wrong(&error.to_string()))?;
        url.path_segments_mut().map_err(|()| wrong("no place to ask at"))?.push(task);
        Ok(url)
    }
}

#[async_trait(?Send)]
impl Provider for Mureka {
    fn capabilities(&self) -> &Capabilities {
        &self.able
    }

    async fn submit(&self, order: &Order, _: &str) -> Result<Submitted, Failure> {
        let model = self.able.model_of(order);
        let request = request::request(order, model, limits(model))?;
        let call = self
            .authorized(self.http.post(&self.url(request.path)))
            .header("Idempotency-Key", order.key.to_string())
            .json(&request.body);
        answer::submitted(&send(call, Purpose::Submit).await?, order.kind())
    }

    async fn poll(&self, order: &Order, task: &str) -> Result<News, Failure> {
        let url = self.query(order, task)?;
        answer::polled(&send(self.authorized(self.http.get(url.as_str())), Purpose::Ask).await?)
    }

    fn read(&self, _: TaskKind, _: &[u8]) -> Result<Callback, Malformed> {
        Err(Malformed("Mureka sends no callbacks".into()))
    }

    fn audio_from_clip_id(&self, _: &str) -> Option<String> {
        None
    }
}
