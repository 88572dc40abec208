//! What is done: how many songs, for how many people, how slow the provider is.

use clap::{Args, ValueEnum};

#[derive(Clone, Debug, Args)]
pub struct Scenario {
    /// Songs, all ordered at the same moment.
    #[arg(long, default_value_t = 1_000)]
    pub songs: usize,
    /// People who order them, each with a WebSocket of their own; default: one for each song, at most 1000.
    #[arg(long)]
    users: Option<usize>,
    /// Music at once, or lyrics first, of which each owner takes the first at sight.
    #[arg(long, value_enum, default_value_t = Mode::Music)]
    pub mode: Mode,
    /// How long the simulated provider works on each task, drawn evenly between the two.
    #[arg(long, num_args = 2, value_names = ["LEAST", "MOST"], default_values_t = [1_000, 2_000])]
    latency_ms: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Music,
    LyricsFirst,
}

impl Mode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Music => "music",
            Mode::LyricsFirst => "lyrics_first",
        }
    }
}

impl Scenario {
    pub fn users(&self) -> usize {
        self.users.unwrap_or(1_000).clamp(1, self.songs.max(1))
    }

    /// Least and most, in milliseconds.
    pub fn latency(&self) -> [u64; 2] {
        let at = |index: usize| self.latency_ms.get(index).copied().unwrap_or_default();
        [at(0), at(1).max(at(0))]
    }
}
