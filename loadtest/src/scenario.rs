//! What is done: who orders which songs when, over what kind of sockets, and what goes wrong meanwhile. Read
//! from TOML; a mistake is told with its line and its key.
//!
//! Not here: the scenarios themselves (`loadtest/scenarios/*.toml`), nor how any of it is done.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::Failure;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    #[serde(skip)]
    pub name: String,
    /// Its text, for the report.
    #[serde(skip)]
    pub source: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// About how long it takes, in words.
    pub takes: String,
    #[serde(default)]
    pub users: Users,
    pub load: Load,
    /// The kinds of songs, by their shares.
    pub songs: Vec<Kind>,
    /// The kinds of sockets, by their shares; default: all are steady.
    #[serde(default = "steady")]
    pub sockets: Vec<Sockets>,
    /// What is posted to the simulator's `/control` before the first song.
    #[serde(default)]
    pub provider: toml::Table,
    #[serde(default)]
    pub outage: Vec<Outage>,
    /// All sockets are lost, and come back, at the same moment.
    #[serde(default)]
    pub storm: Vec<Storm>,
    pub kill: Option<Kills>,
    pub commits: Option<Commits>,
    /// The server's settings, in their environment form.
    #[serde(default)]
    pub server: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Users {
    /// People who order songs, one after the other in turn.
    pub count: usize,
    /// People who order none, and only hold their socket.
    pub idle: usize,
    /// Sockets of each person who orders.
    pub sockets: usize,
}

impl Default for Users {
    fn default() -> Self {
        Self { count: 100, idle: 0, sockets: 1 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    pub songs: usize,
    /// Orders in a second, whatever becomes of the earlier ones; without it all come at the same moment.
    pub rate: Option<f64>,
    /// How often an order that got no answer, 408, 429 or 5xx is sent, under the same key; default once.
    #[serde(default = "once")]
    pub tries: u32,
    /// Refusals (408, 429, 5xx) are counted, and are no fault.
    #[serde(default)]
    pub refusals_allowed: bool,
    /// Most orders that wait for their answer at the same time, as behind a proxy with so many connections; later ones
    /// are sent as answers come. Default: no limit.
    pub at_once: Option<usize>,
    /// Orders that come when those have been answered, at a rate that anybody can bear: how soon all is quick again.
    pub afterwards: Option<Afterwards>,
    /// Give up so long after the last order.
    #[serde(deserialize_with = "duration")]
    pub patience: Duration,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Afterwards {
    pub songs: usize,
    /// Orders in a second.
    pub rate: f64,
}

/// Rows changed and committed before the load begins, for comparison.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commits {
    /// In a second.
    pub rate: f64,
    #[serde(rename = "for", deserialize_with = "duration")]
    pub lasts: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    #[serde(default = "whole")]
    pub share: f64,
    /// As in the API: `suno`, `musicgpt`, `mureka`, `minimax` or `auto`.
    pub provider: String,
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Music,
    /// The owner takes the first words at sight.
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

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sockets {
    #[serde(default = "whole")]
    pub share: f64,
    pub behaviour: Manner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// Reads what comes as it comes.
    Steady,
    /// Is lost every 1 to 5 seconds, and back within one.
    Flapping,
    /// Reads one message in a tenth of a second, through a small window.
    Slow,
    /// Stops reading altogether for a while, as a page whose computer sleeps.
    Jammed,
    /// Falls silent without a goodbye for 3 to 15 seconds, then comes back from elsewhere.
    Mobile,
    /// None: asks over HTTP every two seconds.
    None,
}

impl Manner {
    pub const fn as_str(self) -> &'static str {
        match self {
            Manner::Steady => "steady",
            Manner::Flapping => "flapping",
            Manner::Slow => "slow",
            Manner::Jammed => "jammed",
            Manner::Mobile => "mobile",
            Manner::None => "none",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    pub provider: String,
    #[serde(deserialize_with = "duration")]
    pub at: Duration,
    #[serde(rename = "for", deserialize_with = "duration")]
    pub lasts: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    #[serde(deserialize_with = "duration")]
    pub at: Duration,
}

/// The server is killed with SIGKILL, and started again at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kills {
    #[serde(deserialize_with = "duration")]
    pub first: Duration,
    #[serde(deserialize_with = "duration")]
    pub every: Duration,
    pub times: u32,
}

pub const PROVIDERS: [&str; 4] = ["suno", "musicgpt", "mureka", "minimax"];

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        /// Those that come with the program, by name.
        pub const BUILT_IN: &[(&str, &str)] = &[$(($name, include_str!(concat!("../scenarios/", $name, ".toml"))),)*];
    };
}

built_in!(
    "smoke",
    "burst",
    "steady",
    "callbacks",
    "sustained",
    "storm",
    "slow-clients",
    "flaky-provider",
    "mixed",
    "crash",
    "kills",
    "overload",
    "idle-sockets",
    "fan-out",
    "hundred-thousand",
);

impl Scenario {
    /// One of those that come with the program, or else a file.
    ///
    /// # Errors
    /// In words: what is wrong, and where.
    pub fn find(name: &str) -> Result<Self, Failure> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Self::read(name, text);
        }
        let path = Path::new(name);
        let text = std::fs::read_to_string(path).map_err(|error| {
            let known: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            Failure(format!("{name} is neither a file ({error}) nor one of {}", known.join(", ")))
        })?;
        Self::read(&path.file_stem().unwrap_or_default().to_string_lossy(), &text)
    }

    pub fn read(name: &str, text: &str) -> Result<Self, Failure> {
        let mut scenario: Self =
            toml::from_str(text).map_err(|error| Failure(format!("the scenario {name}: {error}")))?;
        name.clone_into(&mut scenario.name);
        text.clone_into(&mut scenario.source);
        match scenario.impossible() {
            None => Ok(scenario),
            Some((key, why)) => Err(Failure(format!("the scenario {name}: {key} {why}"))),
        }
    }

    /// The first key whose value cannot be meant.
    fn impossible(&self) -> Option<(String, String)> {
        let wrong = |key: &str, why: &str| Some((key.to_owned(), why.to_owned()));
        let share = |share: f64| share.is_finite() && share > 0.0;
        if self.users.count == 0 || self.users.sockets == 0 {
            return wrong("users.count and users.sockets", "must be at least 1");
        }
        if self.load.rate.is_some_and(|rate| !share(rate)) {
            return wrong("load.rate", "must be above 0; leave it out for all at once");
        }
        if self.load.tries == 0 {
            return wrong("load.tries", "must be at least 1");
        }
        if self.commits.as_ref().is_some_and(|commits| !share(commits.rate)) {
            return wrong("commits.rate", "must be above 0");
        }
        if self.load.afterwards.is_some_and(|afterwards| !share(afterwards.rate)) {
            return wrong("load.afterwards.rate", "must be above 0");
        }
        if self.load.at_once == Some(0) {
            return wrong("load.at_once", "must be at least 1; leave it out for no limit");
        }
        if self.songs.is_empty() || self.sockets.is_empty() {
            return wrong("songs and sockets", "need at least one entry each");
        }
        let shares = self.songs.iter().map(|kind| kind.share).chain(self.sockets.iter().map(|s| s.share));
        if shares.into_iter().any(|one| !share(one)) {
            return wrong("songs.share and sockets.share", "must be above 0");
        }
        let songs = self.songs.iter().map(|kind| ("songs.provider", &kind.provider));
        let outages = self.outage.iter().map(|outage| ("outage.provider", &outage.provider));
        for (key, name) in songs.chain(outages) {
            let auto = key == "songs.provider" && name == "auto";
            if !auto && !PROVIDERS.contains(&name.as_str()) {
                return Some((
                    key.into(),
                    format!("is {name:?}; there are {} (and auto)", PROVIDERS.join(", ")),
                ));
            }
        }
        let foreign = self.server.keys().find(|key| !key.starts_with("SONGFLIGHT_"));
        foreign.map(|key| (format!("server.{key}"), "must begin with SONGFLIGHT_".to_owned()))
    }

    /// The providers the server is to know: those that are named, or all where it may choose.
    pub fn providers(&self) -> Vec<&'static str> {
        let auto = self.songs.iter().any(|kind| kind.provider == "auto");
        let named = |name: &&str| auto || self.songs.iter().any(|kind| kind.provider == *name);
        PROVIDERS.into_iter().filter(named).collect()
    }

    /// Which kind of song the one of this number is: the shares hold over every stretch of songs.
    pub fn kind(&self, number: usize) -> usize {
        spread(self.songs.iter().map(|kind| kind.share), number)
    }

    pub fn manner(&self, person: usize) -> Manner {
        self.sockets[spread(self.sockets.iter().map(|sockets| sockets.share), person)].behaviour
    }

    /// Whether sockets may be lost without anybody's fault.
    pub fn is_rough(&self) -> bool {
        self.kill.is_some()
    }
}

/// The place in `shares` of the one with this number, such that every stretch of numbers has about its shares.
fn spread(shares: impl Iterator<Item = f64> + Clone, number: usize) -> usize {
    let sum: f64 = shares.clone().sum();
    // The golden ratio spreads whole numbers evenly over 0.0..1.0.
    let at = (number as f64 * 0.618_033_988_749_895).fract() * sum;
    let mut below = 0.0;
    let found = shares.clone().position(|share| {
        below += share;
        at < below
    });
    found.unwrap_or_else(|| shares.count().saturating_sub(1))
}

fn steady() -> Vec<Sockets> {
    vec![Sockets { share: 1.0, behaviour: Manner::Steady }]
}

const fn once() -> u32 {
    1
}

const fn whole() -> f64 {
    1.0
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    read_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("{text:?} is no duration; write 250ms, 20s, 2m or 1h"))
    })
}

fn read_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "about = 'a'\ntakes = '1 s'\n[load]\nsongs = 1\npatience = '1s'\n\
                         [[songs]]\nprovider = 'suno'\nmode = 'music'\n";

    fn refused(text: &str) -> String {
        Scenario::read("x", text).expect_err("it is wrong").to_string()
    }

    #[test]
    fn every_scenario_that_comes_with_the_program_can_be_read() {
        for (name, text) in BUILT_IN {
            let scenario = Scenario::read(name, text).unwrap_or_else(|error| panic!("{error}"));
            assert!(!scenario.about.is_empty() && text.starts_with('#'), "{name} says what it shows");
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_key() {
        assert!(Scenario::read("x", LEAST).is_ok());
        for (wrong, key) in [
            (format!("{LEAST}[users]\ncuont = 1\n"), "cuont"),
            (LEAST.replace("'1s'", "'soon'"), "patience"),
            (LEAST.replace("suno", "sumo"), "songs.provider"),
            (LEAST.replace("'music'", "'dance'"), "mode"),
            (format!("{LEAST}[server]\nPATH = 'x'\n"), "server.PATH"),
            (format!("{LEAST}[[outage]]\nprovider = 'auto'\nat = '1s'\nfor = '1s'\n"), "outage.provider"),
            (LEAST.replace("songs = 1", "songs = 1\nrate = 0.0"), "load.rate"),
        ] {
            let told = refused(&wrong);
            assert!(told.contains(key), "{key} is not in: {told}");
        }
    }

    #[test]
    fn shares_hold_over_every_stretch() {
        let shares = [60.0, 30.0, 10.0];
        for start in [0, 1_000, 77_777] {
            let mut counts = [0; 3];
            for number in start..start + 100 {
                counts[spread(shares.iter().copied(), number)] += 1;
            }
            for (count, share) in counts.into_iter().zip([60_i32, 30, 10]) {
                assert!((share - count).abs() <= 3, "{counts:?}");
            }
        }
    }
}
