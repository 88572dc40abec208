//! The recorded bodies in `tests/fixtures` and what their index says of them.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// One file, and its line in `index.json`.
pub(crate) struct Fixture {
    pub(crate) name: String,
    /// Exactly what travels.
    pub(crate) body: Vec<u8>,
    json: Value,
    about: Value,
}

impl Fixture {
    /// What the index says under a key; empty where it says nothing.
    pub(crate) fn about(&self, key: &str) -> &str {
        self.about[key].as_str().unwrap_or_default()
    }

    /// The header that the index names for a request; empty where it names none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.about["headers"][name].as_str().unwrap_or_default()
    }

    pub(crate) fn http_status(&self) -> u16 {
        self.about["http_status"].as_u64().map_or(200, |status| status as u16)
    }

    pub(crate) fn json(&self) -> Value {
        self.json.clone()
    }

    /// The same with another content, as it would travel.
    pub(crate) fn written(&self, json: &Value) -> Vec<u8> {
        match json {
            Value::Array(events) if is_stream(&self.name) => as_events(events),
            _ => json.to_string().into_bytes(),
        }
    }
}

/// The files of streams are lists of their events.
fn is_stream(name: &str) -> bool {
    name.starts_with("stream_")
}

fn as_events(events: &[Value]) -> Vec<u8> {
    events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>().into_bytes()
}

/// All files of a provider's index.
pub(crate) fn all(provider: &str) -> Vec<Fixture> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(provider);
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let index: Value = serde_json::from_slice(&read("index.json")).expect("an index is JSON");
    let lines = index.as_object().expect("an index is an object");
    let fixture = |(name, about): (&String, &Value)| {
        let file = read(name);
        let json: Value = serde_json::from_slice(&file).expect("fixtures are JSON");
        let body = match &json {
            Value::Array(events) if is_stream(name) => as_events(events),
            _ => file,
        };
        Fixture { name: name.clone(), body, json, about: about.clone() }
    };
    lines.iter().map(fixture).collect()
}

pub(crate) fn one(provider: &str, name: &str) -> Fixture {
    all(provider).into_iter().find(|fixture| fixture.name == name).unwrap_or_else(|| panic!("no {name}"))
}
