//! The configuration: defaults, then `songflight.toml`, then the environment (`design.md` section 7).
//!
//! `settings` has every setting, `values` the kinds of values, `layers` where they come from, `check`
//! what is refused, `origins` who may call. Nothing here connects to anything.

mod check;
mod layers;
mod origins;
mod settings;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::error::Kind;
use figment::value::Value;

use crate::credit::Credits;
use crate::song::parts::TaskKind;
use layers::Values;
pub use origins::Origins;
pub use settings::*;
pub use values::{MASK, duration};

/// The file that is read when no other is named; it may be missing.
pub const DEFAULT_FILE: &str = "songflight.toml";
/// What [`Loaded::sources`] says of a value nobody set.
pub const DEFAULT_SOURCE: &str = "default";

/// A configuration and who set what in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// By key: `default`, the file's path, or `env NAME`.
    pub sources: BTreeMap<String, String>,
}

impl Loaded {
    /// Whether somebody set this key, so that we may not choose otherwise (such as another port).
    pub fn is_chosen(&self, key: &str) -> bool {
        self.sources.get(key).is_some_and(|source| source != DEFAULT_SOURCE)
    }
}

/// One value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub key: String,
    /// As it may be shown: secrets are masked.
    pub value: String,
    pub source: String,
    pub allowed: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, source, allowed } = self;
        write!(f, "  {key} = {value}   ({source})\n      {allowed}")
    }
}

/// Why the program does not start. To be shown as it is.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {1}", path = .0.display())]
    File(PathBuf, #[source] std::io::Error),
    #[error("{path} is not valid TOML\n{1}", path = .0.display())]
    Syntax(PathBuf, String),
    /// All of them, so that one start is enough to find them.
    #[error("the configuration cannot be used:\n\n{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"))]
    Problems(Vec<Problem>),
}

impl Config {
    /// Reads the file at `path` (without one [`DEFAULT_FILE`], if it is there) and this process's
    /// environment.
    ///
    /// # Errors
    /// When there is anything unknown or impossible; the program should end with the message.
    pub fn load(path: Option<&Path>) -> Result<Loaded, ConfigError> {
        let variables = std::env::vars_os();
        let text =
            variables.filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        Self::load_from(path, text)
    }

    /// The same with an environment of the caller's.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_from(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let mut problems = Vec::new();
        let mut values = layers::defaults();
        let default = Path::new(DEFAULT_FILE);
        if let Some(path) = path.or_else(|| default.exists().then_some(default)) {
            layers::add_file(&mut values, path, &mut problems)?;
        }
        layers::add_environment(&mut values, &environment.into_iter().collect(), &mut problems);
        let mut config = extract(&values, &mut problems);
        let sources: BTreeMap<_, _> =
            values.iter().map(|(key, setting)| (key.clone(), setting.source.clone())).collect();
        let origins = "http.allowed_origins";
        if config.env == Env::Production && sources.get(origins).is_some_and(|from| from == DEFAULT_SOURCE) {
            config.http.allowed_origins.clear();
        }
        check::check(&config, &values, &mut problems);
        if problems.is_empty() {
            Ok(Loaded { config, sources })
        } else {
            Err(ConfigError::Problems(problems))
        }
    }

    /// The folder of what is kept on this machine (private cluster, development key, local assets).
    pub fn local_dir(&self) -> &Path {
        self.database.data_dir.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Whether nothing but the simulator makes songs: no provider has an address or a key.
    pub fn is_simulated(&self) -> bool {
        self.providers.all().iter().all(|(_, provider)| !provider.is_configured())
    }
}

impl Prices {
    /// What one task of this kind costs.
    pub const fn of(&self, kind: TaskKind) -> Credits {
        match kind {
            TaskKind::Lyrics => self.lyrics,
            TaskKind::Generate => self.generate,
            TaskKind::Extend => self.extend,
            TaskKind::ReplaceSection => self.replace_section,
            TaskKind::Merge => self.merge,
            TaskKind::Cover => self.cover,
            TaskKind::Stems => self.stems,
            TaskKind::Persona => self.persona,
            TaskKind::Video => self.video,
        }
    }
}

impl Config {
    /// From submission to `timeout` at the most, whoever makes a song.
    pub fn longest_deadline(&self) -> Duration {
        let own = self.providers.all().into_iter().filter_map(|(_, provider)| provider.deadline);
        own.fold(self.tasks.deadline, Duration::max)
    }
}

impl Provider {
    /// Whether there is a real (or a test's) provider to call.
    pub fn is_configured(&self) -> bool {
        self.enabled && (self.api_key.is_some() || self.base_url.is_some())
    }
}

impl Providers {
    /// Each with the name it has everywhere.
    pub fn all(&self) -> [(&'static str, &Provider); 4] {
        [
            ("suno", &self.suno),
            ("mureka", &self.mureka),
            ("minimax", &self.minimax),
            ("musicgpt", &self.musicgpt),
        ]
    }
}

impl Plans {
    /// Each with the name it has everywhere.
    pub fn all(&self) -> [(&'static str, &PlanLimits); 4] {
        [("guest", &self.guest), ("free", &self.free), ("pro", &self.pro), ("premium", &self.premium)]
    }
}

/// Reads all values as their types. One that cannot be is noted and replaced by its default, so that
/// the next one shows too.
fn extract(values: &Values, problems: &mut Vec<Problem>) -> Config {
    let defaults = layers::defaults();
    let mut values = values.clone();
    loop {
        let figment = values.values().cloned().fold(Figment::new(), Figment::merge);
        let Err(error) = figment.extract::<Config>() else {
            return figment.extract().expect("it was just read");
        };
        let mut path = error.path.clone();
        let mut key = path.join(".");
        // The path may go on into a list.
        while !values.contains_key(&key) && path.pop().is_some() {
            key = path.join(".");
        }
        let (Some(setting), Some(default)) = (values.get(&key), defaults.get(&key)) else {
            problems.push(Problem { key, value: "?".into(), source: "?".into(), allowed: error.to_string() });
            return Config::default();
        };
        let (value, source) = (setting.shown(), setting.source.clone());
        problems.push(Problem { key: key.clone(), value, source, allowed: allowed(&error.kind) });
        values.insert(key, default.clone());
    }
}

fn allowed(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => format!("must be {expected}"),
        Kind::UnknownVariant(_, variants) => format!("must be {}", variants.join(" or ")),
        Kind::Message(message) => format!("must be {message}"),
        other => other.to_string(),
    }
}

/// Every effective value and where it came from, secrets masked; a line each, sorted and aligned.
pub fn describe(loaded: &Loaded) -> String {
    let value = Value::serialize(&loaded.config).expect("a configuration is plain values");
    let lines: Vec<(String, String)> = layers::leaves(value)
        .into_iter()
        .map(|(key, value)| match value {
            Value::Empty(..) => (key, "–".to_owned()),
            value => (key.clone(), layers::written(&key, &value)),
        })
        .collect();
    let key_width = lines.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    // One long list must not push the sources of all others out of sight.
    let value_width = lines.iter().map(|(_, value)| value.chars().count()).max().unwrap_or(0).min(40);
    let mut text = String::new();
    let mut section = "";
    for (key, value) in &lines {
        let of = key.split('.').next().unwrap_or(key);
        if !section.is_empty() && section != of {
            text.push('\n');
        }
        section = of;
        let source = loaded.sources.get(key).map_or(DEFAULT_SOURCE, String::as_str);
        text.push_str(&format!("{key:key_width$} = {value:value_width$}  # {source}\n"));
    }
    text
}

#[cfg(test)]
mod tests;
