//! The wish: what somebody asked for, checked and settled once, at the door. Nothing in it changes
//! while the song lives, but for texts that a retry replaces (PROV-15).

use serde::{Deserialize, Serialize};

use super::parts::{Order, TaskKind, VocalGender};
use crate::credit::Credits;
use crate::id::{CallKey, ShareToken};

/// The way in (SONG-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Lyrics are written, the owner picks, then the music is made.
    LyricsFirst,
    /// Straight to music: own lyrics, a prompt only, or instrumental.
    Music,
}

impl Mode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::LyricsFirst => "lyrics_first",
            Mode::Music => "music",
        }
    }

    pub const fn first_task(self) -> TaskKind {
        match self {
            Mode::LyricsFirst => TaskKind::Lyrics,
            Mode::Music => TaskKind::Generate,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    pub mode: Mode,
    pub title: Option<String>,
    pub prompt: Option<String>,
    pub lyrics: Option<String>,
    #[serde(default)]
    pub style_tags: Vec<String>,
    #[serde(default)]
    pub instrumental: bool,
    /// The provider that was chosen; `auto` was settled before anything was stored.
    pub provider: String,
    pub model: Option<String>,
    #[serde(default)]
    pub negative_tags: Vec<String>,
    pub vocal_gender: Option<VocalGender>,
    pub style_weight: Option<f32>,
    pub weirdness: Option<f32>,
    pub audio_weight: Option<f32>,
    pub reference_audio_url: Option<String>,
    pub persona_id: Option<String>,
    /// Clips to expect: that many placeholders are shown from the submission on (SONG-9).
    pub variants: u8,
    /// How many calls a phase takes at this provider: two where it writes one lyrics text per call (SONG-5).
    pub calls: Calls,
    #[serde(default)]
    pub preview: bool,
    pub prices: Prices,
    /// One for each variant there can be, so that the core need not make any (SONG-9).
    pub share_tokens: Vec<ShareToken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    pub lyrics: u8,
    pub generate: u8,
}

/// What each phase costs the user, as it stood when the song was created (CRED-1); all zero in a preview.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prices {
    pub lyrics: Credits,
    pub generate: Credits,
}

impl Wish {
    pub fn price(&self, kind: TaskKind) -> Credits {
        match kind {
            TaskKind::Lyrics => self.prices.lyrics,
            TaskKind::Generate => self.prices.generate,
        }
    }

    pub fn calls(&self, kind: TaskKind) -> u8 {
        match kind {
            TaskKind::Lyrics => self.calls.lyrics,
            TaskKind::Generate => self.calls.generate,
        }
    }

    /// The order for one call, with the words that are to be sung by now.
    pub fn order(&self, key: CallKey, kind: TaskKind, title: Option<&str>, lyrics: Option<&str>) -> Order {
        Order {
            key,
            kind,
            title: title.map(str::to_owned),
            prompt: self.prompt.clone(),
            lyrics: lyrics.map(str::to_owned),
            style_tags: self.style_tags.clone(),
            instrumental: self.instrumental,
            model: self.model.clone(),
            negative_tags: self.negative_tags.clone(),
            vocal_gender: self.vocal_gender,
            style_weight: self.style_weight,
            weirdness: self.weirdness,
            audio_weight: self.audio_weight,
            reference_audio_url: self.reference_audio_url.clone(),
            persona_id: self.persona_id.clone(),
        }
    }
}
