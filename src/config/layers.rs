//! Where values come from, one layer over the other: defaults, the file, the environment. Each value
//! keeps its source, and unknown keys are found here, while it is known where they stand.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Num, Value};
use figment::{Metadata, Profile, Provider};

use super::values::MASK;
use super::{Config, ConfigError, DEFAULT_SOURCE, Problem};

/// Prefix of our environment variables; two underscores stand for the dot of a key.
const PREFIX: &str = "SONGFLIGHT_";
/// Arguments of the command line that may stand in the environment; no settings.
const ARGUMENTS: [&str; 2] = ["SONGFLIGHT_CONFIG", "SONGFLIGHT_TOKEN"];
/// Parts of a name that hint at a secret, for keys that do not exist.
const SECRET_WORDS: [&str; 5] = ["key", "secret", "password", "token", "url"];
/// Variables that are customary elsewhere, and the keys they set. `PORT` sets a part of one.
const CUSTOMARY: [(&str, &str); 3] =
    [("DATABASE_URL", "database.url"), ("REDIS_URL", "cluster.redis_url"), ("RUST_LOG", "log.filter")];

/// Every effective value by its key, such as `tasks.poll.initial`.
pub(super) type Values = BTreeMap<String, Setting>;

/// One value of one key, and who set it.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) source: String,
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(&self.key, self.value.clone());
        Ok(Profile::Default.collect(nested.into_dict().unwrap_or_default()))
    }
}

impl Setting {
    /// The value as it may be shown: never a secret.
    pub(super) fn shown(&self) -> String {
        match &self.value {
            Value::Empty(..) => "(not set)".into(),
            _ if is_secret(&self.key) => MASK.into(),
            value => written(&self.key, value),
        }
    }
}

/// As it would stand in the file. Credits are numbers there, although they are not floats inside.
pub(super) fn written(key: &str, value: &Value) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|_| "?".into());
    let number = key.starts_with("credits.") && text.trim_matches('"').parse::<f64>().is_ok();
    if number { text.trim_matches('"').to_owned() } else { text }
}

/// Whether a key's value must not be shown. Urls may hold a password.
fn is_secret(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    let named = ["api_key", "webhook_secret", "jwt_secret", "previous_secrets", "redis_url"].contains(&name);
    named || key == "database.url"
}

/// The keys there are, each with its default.
pub(super) fn defaults() -> Values {
    let value = Value::serialize(Config::default()).expect("the defaults are plain values");
    let setting =
        |(key, value): (String, Value)| (key.clone(), Setting { key, value, source: DEFAULT_SOURCE.into() });
    leaves(value).into_iter().map(setting).collect()
}

/// A tree as its leaves, by their dotted paths.
pub(super) fn leaves(value: Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    collect(String::new(), value, &mut found);
    found
}

fn collect(path: String, value: Value, found: &mut BTreeMap<String, Value>) {
    let Value::Dict(_, dict) = value else {
        found.insert(path, value);
        return;
    };
    for (key, value) in dict {
        let path = if path.is_empty() { key } else { format!("{path}.{key}") };
        collect(path, value, found);
    }
}

/// Lays the file over the values.
///
/// # Errors
/// When it cannot be read or is no TOML. An unknown key is not an error yet but a problem.
pub(super) fn add_file(
    values: &mut Values,
    path: &Path,
    problems: &mut Vec<Problem>,
) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File(path.into(), error))?;
    // Its line by its number alone: what is written there may be a secret.
    let dict: Dict = Toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ConfigError::Syntax(path.into(), format!("line {line}: {}", error.message()))
    })?;
    let set = leaves(Value::from(dict)).into_iter().filter(|(key, value)| !left_empty(values, key, value));
    for (key, value) in set.collect::<Vec<_>>() {
        add(values, Setting { key, value, source: path.display().to_string() }, problems);
    }
    Ok(())
}

/// Whether it is an empty text for what need not be set: a template in which nothing was filled in. It counts as left out.
fn left_empty(values: &Values, key: &str, value: &Value) -> bool {
    let optional = values.get(key).is_some_and(|known| matches!(known.value, Value::Empty(..)));
    optional && value.as_str().is_some_and(|text| text.trim().is_empty())
}

/// Lays the environment over the values. A variable that is empty counts as not set.
pub(super) fn add_environment(
    values: &mut Values,
    variables: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) {
    let set = || variables.iter().filter(|(_, text)| !text.trim().is_empty());
    for (name, text) in set().filter(|(name, _)| !ARGUMENTS.contains(&name.as_str())) {
        if let Some(key) = name.strip_prefix(PREFIX).filter(|rest| !is_service_link(rest, text)) {
            add_variable(values, key.to_lowercase().replace("__", "."), name, text, problems);
        }
    }
    for (name, text) in set() {
        if let Some((_, key)) = CUSTOMARY.iter().find(|(customary, _)| customary == name) {
            add_variable(values, (*key).to_owned(), name, text, problems);
        }
        if name == "PORT" {
            let bind = format!("{}:{text}", host_of(values));
            add_variable(values, "http.bind".into(), name, &bind, problems);
        }
    }
}

/// Whether it is one of the variables by which Kubernetes tells every container of a service that is called `songflight` or
/// `songflight-…`: `…_SERVICE_HOST`, `…_SERVICE_PORT`, `…_PORT=tcp://…` and `…_PORT_80_TCP_ADDR`. No key is written so.
fn is_service_link(rest: &str, text: &str) -> bool {
    let of_service = rest.starts_with("SERVICE_") || rest.contains("_SERVICE_");
    let of_port = rest.starts_with("PORT_") || rest.contains("_PORT_");
    let address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme));
    !rest.contains("__")
        && (of_service && (rest.ends_with("_HOST") || rest.contains("SERVICE_PORT"))
            || of_port
                && ["_TCP", "_UDP", "_SCTP", "_PROTO", "_PORT", "_ADDR"]
                    .iter()
                    .any(|end| rest.ends_with(end))
            || address && (rest == "PORT" || rest.ends_with("_PORT")))
}

/// The address of `http.bind` without its port, in brackets where a port behind it needs them.
fn host_of(values: &Values) -> String {
    let bind = values.get("http.bind").and_then(|setting| setting.value.as_str()).unwrap_or_default();
    match bind.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Ok(IpAddr::V4(address)) => address.to_string(),
        Err(_) => bind.rsplit_once(':').map_or(bind, |(host, _)| host).to_owned(),
    }
}

fn add_variable(values: &mut Values, key: String, name: &str, text: &str, problems: &mut Vec<Problem>) {
    let value = values.get(&key).map_or_else(|| Value::from(text), |now| read_as(&now.key, &now.value, text));
    add(values, Setting { key, value, source: format!("env {name}") }, problems);
}

/// A variable's text as the kind of value its key has: a secret of digits stays text.
fn read_as(key: &str, like: &Value, text: &str) -> Value {
    // Optional, so their default does not tell that they are numbers.
    const NUMBERS: [&str; 3] = ["http.workers", ".max_concurrent", ".poll.multiplier"];
    let number = NUMBERS.iter().any(|end| key.ends_with(end));
    match like {
        Value::Array(..) if !text.trim_start().starts_with('[') => {
            Value::from(text.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>())
        }
        Value::Array(..) | Value::Bool(..) | Value::Num(..) => parsed(text),
        _ if number => parsed(text),
        _ => Value::from(text),
    }
}

fn parsed(text: &str) -> Value {
    text.parse().unwrap_or_else(|_| Value::from(text))
}

/// Takes a value if its key exists; says what was probably meant if not.
fn add(values: &mut Values, mut setting: Setting, problems: &mut Vec<Problem>) {
    if let Some(known) = values.get(&setting.key) {
        setting.value = like(&known.value, setting.value);
        values.insert(setting.key.clone(), setting);
        return;
    }
    let inside = format!("{}.", setting.key);
    let section = values.keys().any(|key| key.starts_with(&inside));
    let meant = nearest(values, &setting.key).filter(|_| !section);
    let allowed = match meant {
        _ if section => format!("this is a section, with keys such as {}", names(values, &inside)),
        Some(key) => format!("there is no such key; did you mean {key}?"),
        None => "there is no such key; `songflight config` lists them".into(),
    };
    // A misspelt key may be that of a secret: only what was surely meant for something else is shown.
    let secret = |key: &str| SECRET_WORDS.iter().any(|word| key.contains(word));
    let harmless = meant.is_some_and(|meant| !secret(meant)) && !secret(&setting.key);
    let value = if harmless { written(&setting.key, &setting.value) } else { MASK.into() };
    problems.push(Problem { key: setting.key, value, source: setting.source, allowed });
}

/// `multiplier = 2` in a file is meant as 2.0.
fn like(known: &Value, value: Value) -> Value {
    match (known, &value) {
        (Value::Num(_, Num::F64(_)), Value::Num(_, number)) => match number.to_i128() {
            Some(whole) => Value::from(whole as f64),
            None => value,
        },
        _ => value,
    }
}

fn names(values: &Values, section: &str) -> String {
    values.keys().filter(|key| key.starts_with(section)).take(3).cloned().collect::<Vec<_>>().join(", ")
}

/// The key closest to a misspelt one, when it is close enough to be meant.
fn nearest<'a>(values: &'a Values, key: &str) -> Option<&'a str> {
    let named = |known: &str| known.rsplit('.').next() == key.rsplit('.').next();
    let by_distance = values.keys().map(|known| (distance(known, key), known.as_str()));
    let (distance, closest) = by_distance.min()?;
    let close = distance <= 3.max(key.len() / 5);
    if close { Some(closest) } else { values.keys().map(String::as_str).find(|known| named(known)) }
}

/// How many letters must be changed, added or dropped (Levenshtein).
fn distance(one: &str, two: &str) -> usize {
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in two.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[two.len()]
}
