//! The values that songs and providers exchange: what is ordered, and what comes back.
//!
//! Not here: what an answer *means* for a song (`song::step`), nor any provider's wire format
//! (`provider/<name>.rs`).

use serde::{Deserialize, Serialize};

use crate::id::{CallKey, SongId};
use crate::provider::failure::Failure;

/// What a task makes (PROV-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    Lyrics,
    Generate,
    Extend,
    ReplaceSection,
    Merge,
    Cover,
    Stems,
    Persona,
    Video,
}

/// What comes of a task, which decides how its song treats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Makes {
    /// Texts to choose from; no audio.
    Lyrics,
    /// The clips of a song: the phase that ends with `ready`.
    Music,
    /// Something beside a song that is there already; the song stays what it is.
    Addition,
}

impl TaskKind {
    pub const ALL: [TaskKind; 9] = [
        TaskKind::Lyrics,
        TaskKind::Generate,
        TaskKind::Extend,
        TaskKind::ReplaceSection,
        TaskKind::Merge,
        TaskKind::Cover,
        TaskKind::Stems,
        TaskKind::Persona,
        TaskKind::Video,
    ];

    /// All that is to be said of a kind: its name everywhere (JSON, SQL, prices), and what comes of it.
    const fn about(self) -> (&'static str, Makes) {
        match self {
            TaskKind::Lyrics => ("lyrics", Makes::Lyrics),
            TaskKind::Generate => ("generate", Makes::Music),
            TaskKind::Extend => ("extend", Makes::Music),
            TaskKind::ReplaceSection => ("replace_section", Makes::Music),
            TaskKind::Merge => ("merge", Makes::Music),
            TaskKind::Cover => ("cover", Makes::Music),
            TaskKind::Stems => ("stems", Makes::Addition),
            TaskKind::Persona => ("persona", Makes::Addition),
            TaskKind::Video => ("video", Makes::Addition),
        }
    }

    pub const fn as_str(self) -> &'static str {
        self.about().0
    }

    pub const fn makes(self) -> Makes {
        self.about().1
    }
}

/// What one task is to do. The kinds beyond `lyrics` and `generate` work on clips that exist.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    Lyrics,
    #[default]
    Generate,
    /// Goes on where the clip ends, or from a place in it.
    Extend {
        of: SourceClip,
        continue_at_ms: Option<i64>,
    },
    ReplaceSection {
        of: SourceClip,
        start_ms: i64,
        end_ms: i64,
    },
    /// Two clips or more, in the order in which they are to be heard.
    Merge {
        of: Vec<SourceClip>,
    },
    /// The same song anew, in another style.
    Cover {
        of: SourceClip,
    },
    Stems {
        of: SourceClip,
    },
    /// A voice and manner to sing other songs in.
    Persona {
        of: SourceClip,
        name: String,
        description: String,
    },
    Video {
        of: SourceClip,
    },
}

impl Work {
    pub const fn kind(&self) -> TaskKind {
        match self {
            Work::Lyrics => TaskKind::Lyrics,
            Work::Generate => TaskKind::Generate,
            Work::Extend { .. } => TaskKind::Extend,
            Work::ReplaceSection { .. } => TaskKind::ReplaceSection,
            Work::Merge { .. } => TaskKind::Merge,
            Work::Cover { .. } => TaskKind::Cover,
            Work::Stems { .. } => TaskKind::Stems,
            Work::Persona { .. } => TaskKind::Persona,
            Work::Video { .. } => TaskKind::Video,
        }
    }

    /// The clips it works on.
    pub fn sources(&self) -> &[SourceClip] {
        match self {
            Work::Lyrics | Work::Generate => &[],
            Work::Merge { of } => of,
            Work::Extend { of, .. }
            | Work::ReplaceSection { of, .. }
            | Work::Cover { of }
            | Work::Stems { of }
            | Work::Persona { of, .. }
            | Work::Video { of } => std::slice::from_ref(of),
        }
    }

    /// Whether what comes of both is the same to a song, which has it once: made of the same variant, and personas of one
    /// name. A refetched url or a changed title of the clip does not make it another one.
    pub fn adds_the_same_as(&self, other: &Work) -> bool {
        let same = match (self, other) {
            (Work::Persona { name, .. }, Work::Persona { name: other, .. }) => name == other,
            _ => self.kind() == other.kind(),
        };
        let variant = |work: &Work| work.sources().first().map(|clip| clip.variant_number);
        same && variant(self) == variant(other)
    }
}

/// A finished clip that further work is done on, with all that a provider may ask for to find it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceClip {
    pub song: SongId,
    pub variant_number: i16,
    /// Who made it: its ids mean nothing to another provider.
    pub provider: String,
    /// The provider's id of the task that brought the clip.
    pub provider_task: Option<String>,
    pub clip_id: Option<String>,
    /// Where anybody can fetch it.
    pub audio_url: Option<String>,
    pub duration_ms: Option<i64>,
    /// The model it was made with, where one was named.
    pub model: Option<String>,
    pub title: Option<String>,
    /// The words that are sung in it.
    pub lyrics: Option<String>,
    #[serde(default)]
    pub style_tags: Vec<String>,
    #[serde(default)]
    pub instrumental: bool,
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
    pub work: Work,
    pub title: Option<String>,
    pub prompt: Option<String>,
    /// The words to be sung; `None` lets the provider write them.
    pub lyrics: Option<String>,
    pub options: MusicOptions,
    /// How many clips this one call is to bring, where the provider lets us say.
    pub variants: u8,
}

impl Order {
    pub const fn kind(&self) -> TaskKind {
        self.work.kind()
    }
}

/// How the music is to be (PROV-3). What was not asked for is not written down.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MusicOptions {
    #[serde(skip_serializing_if = "is_default")]
    pub style_tags: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub instrumental: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub negative_tags: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub vocal_gender: Option<VocalGender>,
    /// 0.0 to 1.0, like the two below.
    #[serde(skip_serializing_if = "is_default")]
    pub style_weight: Option<f32>,
    #[serde(skip_serializing_if = "is_default")]
    pub weirdness: Option<f32>,
    #[serde(skip_serializing_if = "is_default")]
    pub audio_weight: Option<f32>,
    #[serde(skip_serializing_if = "is_default")]
    pub reference_audio_url: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub persona_id: Option<String>,
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
    /// Nothing more will come of this clip, though its task is not said to have ended. When that is so of
    /// all the clips of a call, the call has ended (MusicGPT tells of each clip alone).
    pub finished: bool,
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
    /// What was made beside a song.
    Made(Made),
    /// The provider gave up on this call.
    Failed(Failure),
}

/// The result of a task that adds to a song.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Made {
    Stems { stems: Vec<Stem> },
    Persona { persona_id: String, name: Option<String>, description: Option<String> },
    Video { video_url: String },
}

/// One track of a separated clip, or an archive of all of them (`name` is then `archive`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stem {
    /// `vocals`, `instrumental`, `backing_vocals`, `drums`, `bass`, `guitar`, `keyboard`, `percussion`, `strings`,
    /// `synth`, `fx`, `brass`, `woodwinds`, `archive`, `midi_archive`.
    pub name: String,
    pub url: String,
}
