//! The values that songs and providers exchange: what is ordered, and what comes back.
//!
//! Not here: what an answer *means* for a song (`song::step`), nor any provider's wire format
//! (`provider/<name>.rs`).

use serde::{Deserialize, Serialize};

use crate::id::CallKey;
use crate::provider::failure::Failure;

/// What a task makes (PROV-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    Lyrics,
    Generate,
}

impl TaskKind {
    pub const ALL: [TaskKind; 2] = [TaskKind::Lyrics, TaskKind::Generate];

    pub const fn as_str(self) -> &'static str {
        match self {
            TaskKind::Lyrics => "lyrics",
            TaskKind::Generate => "generate",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VocalGender {
    #[serde(rename = "f")]
    Female,
    #[serde(rename = "m")]
    Male,
}

/// One call's worth of work for a provider, in our words. An adapter turns it into its wire format.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Sent as `Idempotency-Key`, whether or not the provider knows it (`api.md`, simulator).
    pub key: CallKey,
    pub kind: TaskKind,
    pub title: Option<String>,
    pub prompt: Option<String>,
    /// The words to be sung; `None` lets the provider write them.
    pub lyrics: Option<String>,
    pub style_tags: Vec<String>,
    pub instrumental: bool,
    pub model: Option<String>,
    pub negative_tags: Vec<String>,
    pub vocal_gender: Option<VocalGender>,
    /// 0.0 to 1.0, like the two below.
    pub style_weight: Option<f32>,
    pub weirdness: Option<f32>,
    pub audio_weight: Option<f32>,
    pub reference_audio_url: Option<String>,
    pub persona_id: Option<String>,
}

/// A lyrics text as a provider wrote it. `text` may be empty: `song::step` counts only the others (SONG-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LyricsText {
    pub title: Option<String>,
    pub text: String,
}

/// One clip as far as a provider has told about it. Urls that are empty or malformed on the wire are
/// `None` here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clip {
    /// The provider's id of the clip; `None` where the answer lacked it.
    pub clip_id: Option<String>,
    pub title: Option<String>,
    /// The words that were sung, if the provider tells them (CB-3).
    pub lyrics: Option<String>,
    pub duration_ms: Option<i64>,
    pub stream_url: Option<String>,
    pub audio_url: Option<String>,
    pub image_url: Option<String>,
    pub video_url: Option<String>,
    /// Where the audio will be once it is finished, built from the clip id; tried at the deadline (PROV-7).
    pub fallback_url: Option<String>,
    /// The provider says that this clip failed while others may live.
    pub failed: bool,
}

/// How far a music task is. Ordered: a report never takes a song back (CB-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Words and ids exist; maybe a stream.
    Text,
    /// At least one clip can be played.
    First,
    /// The end: nothing more will come.
    Complete,
}

/// What a callback or a poll said about a call.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Still at work, nothing to show.
    Working,
    /// The lyrics are written: all texts, also empty ones.
    Lyrics(Vec<LyricsText>),
    /// What exists of the music.
    Clips(Stage, Vec<Clip>),
    /// The provider gave up on this call.
    Failed(Failure),
}
