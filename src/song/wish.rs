//! The wish: what somebody asked for, checked and settled once, at the door. Nothing in it changes
//! while the song lives, but for texts that a retry replaces (PROV-15).

use serde::{Deserialize, Serialize};

use super::parts::{Makes, MusicOptions, Order, TaskKind, Work, is_default};
use crate::credit::Credits;
use crate::id::{CallKey, ShareToken, SongId};

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
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    pub mode: Mode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lyrics: Option<String>,
    #[serde(flatten)]
    pub options: MusicOptions,
    /// The provider that was chosen; `auto` was settled before anything was stored, and so was the model.
    pub provider: String,
    /// How the music is made: from nothing, or from clips that exist.
    #[serde(default, skip_serializing_if = "is_default")]
    pub work: Work,
    /// The songs that it was made from (SONG-10).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parent_ids: Vec<SongId>,
    /// Clips to expect: that many placeholders are shown from the submission on (SONG-9).
    pub variants: u8,
    /// How each variant differs from the others, where that was asked for: then each is made by a call of its own (CRED-8).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variations: Vec<Variation>,
    /// How many calls a phase takes at this provider: two where it writes one lyrics text per call (SONG-5).
    pub calls: Calls,
    #[serde(default, skip_serializing_if = "is_default")]
    pub preview: bool,
    pub prices: Prices,
    /// One for each variant there can be, so that the core need not make any (SONG-9).
    pub share_tokens: Vec<ShareToken>,
    /// The owner's plan when it was asked for: how soon it is served where many wait (PROV-14).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Who else can make it, best first, where the choice was ours (`auto`, PROV-12).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
    /// Who had it and did not make it, the first one first: where its owner tries again, they may once more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Alternative>,
}

/// What one variant is to have beside what all of them have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variation {
    pub style_tags: Vec<String>,
}

/// Another provider that can serve the wish, and in how many calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    pub provider: String,
    pub calls: Calls,
    /// Its own model, where none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    pub lyrics: u8,
    #[serde(alias = "generate")]
    pub music: u8,
}

/// What each phase costs the user, as it stood when the song was created (CRED-1); all zero in a preview.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prices {
    pub lyrics: Credits,
    #[serde(alias = "generate")]
    pub music: Credits,
}

impl Wish {
    pub fn price(&self, kind: TaskKind) -> Credits {
        match kind.makes() {
            Makes::Lyrics => self.prices.lyrics,
            Makes::Music => self.prices.music,
            // Its price was settled when it was asked for, and stands with its task.
            Makes::Addition => Credits::ZERO,
        }
    }

    pub fn calls(&self, kind: TaskKind) -> u8 {
        match kind.makes() {
            Makes::Lyrics => self.calls.lyrics,
            Makes::Music => self.calls.music,
            Makes::Addition => 1,
        }
    }

    /// The kind of the song's first task.
    pub const fn first_task(&self) -> TaskKind {
        match self.mode {
            Mode::LyricsFirst => TaskKind::Lyrics,
            Mode::Music => self.work.kind(),
        }
    }

    /// The order for one call, with the words that are to be sung by now.
    pub fn order(&self, key: CallKey, work: &Work, title: Option<&str>, lyrics: Option<&str>) -> Order {
        Order {
            key,
            work: work.clone(),
            title: title.map(str::to_owned),
            prompt: self.prompt.clone(),
            lyrics: lyrics.map(str::to_owned),
            options: self.options_of_call(key.call, work),
            variants: self.variants_of_call(key.call),
        }
    }

    fn options_of_call(&self, call: u8, work: &Work) -> MusicOptions {
        let mut options = self.options.clone();
        let makes_music = work.kind().makes() == Makes::Music;
        if let Some(own) = self.variations.get(usize::from(call)).filter(|_| makes_music) {
            let new = own.style_tags.iter().filter(|tag| !self.options.style_tags.contains(tag));
            options.style_tags.extend(new.cloned());
        }
        options
    }

    /// How many of the song's clips this call of the music brings: as even as can be, the first calls more.
    pub fn variants_of_call(&self, call: u8) -> u8 {
        let calls = self.calls.music.max(1);
        self.variants / calls + u8::from(call < self.variants % calls)
    }
}
