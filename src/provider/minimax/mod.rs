//! MiniMax (`minimax.md`): one long call brings one song.
//!
//! From outside to inside: capabilities here, bodies in `request`, everything that comes back in `answer`, songs that
//! come inside the answer in `hex`, codes in `codes`. Deliberately absent: tasks to poll, callbacks, streams, and
//! lyrics alone (their endpoint is seen in others' code only).

mod answer;
mod codes;
mod hex;
mod request;

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};

use super::failure::{Class, Failure};
use super::http::{Http, Purpose, send_up_to};
use super::{
    Callback, Capabilities, Clip, Malformed, News, Order, Provider, Stage, Submitted, TaskKind, TextLimits,
};
use answer::Audio;

/// The longest answer: a song of 32 MiB, twice as long in hexadecimal.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Keeps audio of this type, and says at which url of ours it is found. It may block.
pub type Keep = Arc<dyn Fn(Bytes, &str) -> io::Result<String> + Send + Sync>;

/// How a song is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// As a link that lives for some hours.
    #[default]
    Url,
    /// In the answer itself, as hexadecimal text.
    Hex,
}

/// Where MiniMax is and how it is spoken to.
#[derive(Clone)]
pub struct MinimaxSettings {
    pub base_url: String,
    pub api_key: SecretString,
    /// For orders that name no model.
    pub default_model: String,
    pub output_format: OutputFormat,
    /// For songs that come in the answer, whatever was asked for.
    pub keep: Keep,
    /// Where that fails (a full disk), once more after each of these. Together they are shorter than `tasks.grace`: until
    /// then nobody orders the song again.
    pub keep_again: Vec<Duration>,
}

const KEEP_AGAIN: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(30)];

impl MinimaxSettings {
    pub fn new(base_url: impl Into<String>, api_key: impl Into<SecretString>, keep: Keep) -> Self {
        Self {
            base_url: base_url.into(),
            api_key: api_key.into(),
            default_model: CAPABILITIES.models[0].into(),
            output_format: OutputFormat::default(),
            keep,
            keep_again: KEEP_AGAIN.to_vec(),
        }
    }
}

static CAPABILITIES: Capabilities = Capabilities {
    name: "minimax",
    kinds: &[TaskKind::Generate, TaskKind::Cover],
    foreign_sources: &[TaskKind::Cover],
    refuses: request::refused,
    variants: 2,
    clips_per_call: 1,
    texts_per_call: 1,
    callbacks: false,
    synchronous: true,
    submit_timeout: Some(Duration::from_secs(300)),
    negative_tags: false,
    vocal_gender: false,
    weights: false,
    reference_audio: true,
    personas: false,
    instrumental: request::has_instrumental_switch,
    writes_words: request::has_lyrics_optimizer,
    extends_as_made: false,
    prompt_beside_words: true,
    models: &[
        "music-2.6",
        "music-3.0",
        "music-2.6-free",
        "music-2.5+",
        "music-2.5",
        "music-2.0",
        "music-1.5",
    ],
    configured_model: None,
    limits,
    duration_s_max: None,
    typical_s: 60,
    // 15 cents a song, one song a call.
    cost_usd_milli: 150,
};

/// What it can do, before there is one. Which of the cover models works follows from the order, so they are not named.
pub fn capabilities() -> &'static Capabilities {
    &CAPABILITIES
}

/// `minimax.md` section 2. A title is not sent at all, nor is anything a lyrics task.
fn limits(model: &str) -> TextLimits {
    let newer =
        TextLimits { prompt: 2000, lyrics: 3500, style: 2000, title: usize::MAX, lyrics_prompt: 2000 };
    match model {
        "music-2.0" | "music-1.5" => TextLimits { lyrics: 3000, ..newer },
        _ => newer,
    }
}

/// The adapter. Holds no state but its settings and connections.
pub struct Minimax {
    settings: MinimaxSettings,
    able: Capabilities,
    http: Http,
}

impl fmt::Debug for Minimax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minimax").field("base_url", &self.settings.base_url).finish_non_exhaustive()
    }
}

impl Minimax {
    pub fn new(settings: MinimaxSettings, http: Http) -> Self {
        Self { able: CAPABILITIES.with_default_model(&settings.default_model), settings, http }
    }

    /// Where it is found afterwards. It is paid for, and nobody but us has it: a disk that is full is given a while.
    async fn keep(&self, file: Bytes) -> Result<String, Failure> {
        let kind = hex::media_type(&file);
        let mut again = self.settings.keep_again.iter();
        loop {
            let (keep, bytes) = (self.settings.keep.clone(), file.clone());
            let error = match aside(move || keep(bytes, kind)).await? {
                Ok(url) => return Ok(url),
                Err(error) => error,
            };
            // What is no audio will not be any.
            let pause = again.next().filter(|_| error.kind() != io::ErrorKind::InvalidInput);
            tracing::error!(%error, again = ?pause, "a song that is paid for could not be stored");
            let Some(pause) = pause else {
                return Err(Failure::new(Class::Storage, format!("the song could not be stored: {error}")));
            };
            tokio::time::sleep(*pause).await;
        }
    }
}

#[async_trait(?Send)]
impl Provider for Minimax {
    fn capabilities(&self) -> &Capabilities {
        &self.able
    }

    async fn submit(&self, order: &Order, _: &str) -> Result<Submitted, Failure> {
        let model = self.able.model_of(order);
        let request = request::request(order, model, limits(model), self.settings.output_format)?;
        let url = format!("{}/v1/music_generation", self.settings.base_url.trim_end_matches('/'));
        let call = self
            .http
            .post(&url)
            .bearer_auth(self.settings.api_key.expose_secret())
            .header("Idempotency-Key", order.key.to_string())
            .json(&request);
        let answer = send_up_to(BODY_BYTES_MAX, call, Purpose::Submit).await?;
        let song = aside(move || answer::song(answer)).await??;
        let audio_url = match song.audio {
            Audio::Url(url) => url,
            Audio::File(file) => self.keep(file).await?,
        };
        let (clip_id, duration_ms) = (song.id, song.duration_ms);
        let clip = Clip { clip_id, duration_ms, audio_url: Some(audio_url), ..Clip::default() };
        Ok(Submitted::Done(News::Clips(Stage::Complete, vec![clip])))
    }

    async fn poll(&self, _: &Order, _: &str) -> Result<News, Failure> {
        Err(Failure::new(Class::ProviderError, "MiniMax has no tasks to ask for"))
    }

    fn read(&self, _: TaskKind, _: &[u8]) -> Result<Callback, Malformed> {
        Err(Malformed("MiniMax sends no callbacks".into()))
    }

    fn audio_from_clip_id(&self, _: &str) -> Option<String> {
        None
    }
}

/// What takes a while, as reading a song in an answer and writing it does, where nobody waits for this thread.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::new(Class::Unknown, error.to_string()).maybe_arrived())
}
