//! Reads conversions out of whatever MusicGPT wraps them in (CB-3; `musicgpt.md` sections 3 and 4).
//!
//! A *conversion* is its word for a clip. Everything outside is optional here: what cannot be used is
//! `None`, never an error.

use reqwest::Url;
use serde_json::Value;
use uuid::Uuid;

use crate::provider::json::clean;
use crate::provider::{Clip, Stem};

/// Two conversions are a task's result; more than this is none.
const ITEMS_MAX: usize = 32;
/// The deepest known nesting is `data.conversion`.
const DEPTH_MAX: u8 = 4;
const URL_BYTES_MAX: usize = 2048;
const ID_BYTES_MAX: usize = 200;
/// No song is longer than a day.
const DURATION_S_MAX: f64 = 86_400.0;

const WRAPPINGS: &[&str] = &["conversion", "conversions", "data", "result"];
/// What a conversion, or a task with its two, is known by; with the endings `_1` and `_2` as well.
const OWN: &[&str] =
    &["status", "subtype", "conversion_id", "conversion_path", "audio_url", "lyrics", "image_path"];
const IMAGE: &[&str] = &["album_cover_path", "image_path", "image_url", "album_art"];

/// What the fields of a conversion are called.
struct Keys {
    id: &'static [&'static str],
    title: &'static [&'static str],
    words: &'static [&'static str],
    duration: &'static [&'static str],
    audio: &'static [&'static str],
    /// [G]: version 2 tells an address of a stream; under which key is not known.
    stream: &'static [&'static str],
}

const ONE: Keys = Keys {
    id: &["conversion_id"],
    title: &["title"],
    words: &["lyrics"],
    duration: &["conversion_duration", "duration"],
    audio: &["conversion_path", "audio_url", "conversion_path_wav"],
    stream: &["streaming_url", "stream_url"],
};
const BOTH: [Keys; 2] = [
    Keys {
        id: &["conversion_id_1"],
        title: &["title_1", "title"],
        words: &["lyrics_1"],
        duration: &["conversion_duration_1"],
        audio: &["conversion_path_1", "audio_url_1", "conversion_path_wav_1"],
        stream: &["streaming_url_1", "stream_url_1"],
    },
    Keys {
        id: &["conversion_id_2"],
        title: &["title_2", "title"],
        words: &["lyrics_2"],
        duration: &["conversion_duration_2"],
        audio: &["conversion_path_2", "audio_url_2", "conversion_path_wav_2"],
        stream: &["streaming_url_2", "stream_url_2"],
    },
];

/// What is told of conversions: the nearest objects that look like some.
pub(super) fn records(value: &Value) -> Vec<&Value> {
    below(value, DEPTH_MAX)
}

fn below(value: &Value, depth: u8) -> Vec<&Value> {
    match value {
        Value::Array(list) if depth > 0 => {
            list.iter().flat_map(|item| below(item, depth - 1)).take(ITEMS_MAX).collect()
        }
        Value::Object(object) if depth > 0 => {
            let wrapped = WRAPPINGS
                .iter()
                .filter_map(|key| object.get(*key))
                .map(|inner| below(inner, depth - 1))
                .find(|found| !found.is_empty());
            wrapped.unwrap_or_else(|| if is_record(value) { vec![value] } else { Vec::new() })
        }
        _ => Vec::new(),
    }
}

fn is_record(value: &Value) -> bool {
    OWN.iter().any(|key| value.get(key).is_some()) || is_task(value)
}

/// Whether it tells of a task with its conversions, not of one conversion.
pub(super) fn is_task(value: &Value) -> bool {
    let mut keys = BOTH.iter().flat_map(|keys| keys.id.iter().chain(keys.audio).chain(keys.stream));
    keys.any(|key| value.get(key).is_some())
}

/// The one conversion that a record tells of.
pub(super) fn conversion(record: &Value) -> Clip {
    let clip = clip(record, &ONE);
    // The manual's own webhook has no id, but the files are called by it.
    let clip_id = clip.clip_id.or_else(|| clip.audio_url.as_deref().and_then(id_in_url));
    Clip { clip_id, ..clip }
}

/// The conversions of a task that are known at all.
pub(super) fn conversions(record: &Value) -> Vec<Clip> {
    let clips = BOTH.iter().map(|keys| clip(record, keys));
    clips.filter(|clip| clip.clip_id.is_some() || clip.audio_url.is_some()).collect()
}

/// The ids that were told with the acceptance of an order.
pub(super) fn conversion_ids(value: &Value) -> Vec<String> {
    BOTH.iter().filter_map(|keys| id(value, keys.id)).collect()
}

fn clip(record: &Value, keys: &Keys) -> Clip {
    Clip {
        clip_id: id(record, keys.id),
        title: text(record, keys.title),
        lyrics: text(record, keys.words).filter(|words| !is_instrumental_mark(words)),
        duration_ms: duration_ms(record, keys.duration),
        stream_url: url(record, keys.stream),
        audio_url: url(record, keys.audio),
        image_url: url(record, IMAGE),
        ..Clip::default()
    }
}

fn is_instrumental_mark(words: &str) -> bool {
    words.trim_matches(['[', ']', ' ']).eq_ignore_ascii_case("instrumental")
}

/// `…/<conversion id>.mp3`.
fn id_in_url(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let name = url.path_segments()?.next_back()?;
    let stem = name.split('.').next()?;
    Uuid::try_parse(stem).is_ok().then(|| stem.to_owned())
}

/// The tracks of a separated clip: names and addresses, as an object or as text that holds one.
pub(super) fn stems(record: &Value) -> Vec<Stem> {
    let found = ["audio_url", "conversion_path", "stems"].iter().find_map(|key| match record.get(key)? {
        object @ Value::Object(_) => Some(object.clone()),
        Value::String(text) => serde_json::from_str(text).ok().filter(Value::is_object),
        _ => None,
    });
    let Some(Value::Object(tracks)) = found else { return Vec::new() };
    let stem = |(name, url): (&String, &Value)| {
        let url = url.as_str().filter(|url| is_url(url))?.to_owned();
        clean(name).map(|name| Stem { name: stem_name(&name), url })
    };
    tracks.iter().filter_map(stem).take(ITEMS_MAX).collect()
}

/// Our name of a track.
fn stem_name(theirs: &str) -> String {
    let name = theirs.to_lowercase();
    match name.as_str() {
        "back_vocal" => "backing_vocals".to_owned(),
        "keys" | "piano" => "keyboard".to_owned(),
        "winds" => "woodwinds".to_owned(),
        _ => name,
    }
}

/// Seconds on the wire, as a number or as text.
fn duration_ms(value: &Value, keys: &[&str]) -> Option<i64> {
    let seconds = keys.iter().find_map(|key| match value.get(key)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    })?;
    let usable = seconds > 0.0 && seconds <= DURATION_S_MAX;
    usable.then(|| (seconds * 1000.0).round() as i64)
}

/// The first of the keys that holds usable text.
pub(super) fn text(value: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| match value.get(key)? {
        Value::String(text) => clean(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// An opaque id: short text without blanks.
pub(super) fn id(value: &Value, keys: &[&str]) -> Option<String> {
    let is_id =
        |text: &String| text.len() <= ID_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    keys.iter().find_map(|key| text(value, &[*key]).filter(is_id))
}

fn url(value: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().filter_map(|key| text(value, &[*key])).find(|url| is_url(url))
}

/// `http` too: the simulator speaks it.
fn is_url(text: &str) -> bool {
    text.len() <= URL_BYTES_MAX
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "f1aa6fc4-64f6-5e04-b4c0-965abf3e5daa";

    #[test]
    fn conversions_are_found_in_every_known_wrapping() {
        let one = json!({"conversion_id": "c", "status": "COMPLETED"});
        for body in [
            json!({"success": true, "conversion": one}),
            json!({"data": {"conversion": one}}),
            json!({"conversion": [one]}),
            json!({"success": true, "data": [one]}),
            json!([one]),
            one.clone(),
        ] {
            assert_eq!(records(&body), [&one], "{body}");
        }
        for body in [json!({}), json!([]), json!({"data": 1}), json!("x"), json!({"success": true})] {
            assert!(records(&body).is_empty(), "{body}");
        }
    }

    #[test]
    fn a_conversion_without_id_is_known_by_its_file() {
        let told = |url: &str| conversion(&json!({"audio_url": url})).clip_id;
        assert_eq!(told(&format!("https://x.test/standard/{ID}/{ID}.mp3?sig=1")).as_deref(), Some(ID));
        assert_eq!(told("https://x.test/audiofile.mp3"), None);
        let named =
            conversion(&json!({"conversion_id": "c", "audio_url": format!("https://x.test/{ID}.mp3")}));
        assert_eq!(named.clip_id.as_deref(), Some("c"));
    }

    #[test]
    fn unusable_fields_are_left_out() {
        let record = json!({
            "conversion_id": "a b", "conversion_path": "ftp://x.test/a", "streaming_url": "nowhere",
            "image_path": "", "album_art": "http://127.0.0.1/i.png", "title": " \u{0}",
            "lyrics": "[Instrumental]", "conversion_duration": -3
        });
        let image_url = Some("http://127.0.0.1/i.png".into());
        assert_eq!(conversion(&record), Clip { image_url, ..Clip::default() });
        for duration in [json!("NaN"), json!(1e300), json!(0), json!([3]), json!("x"), json!(null)] {
            assert_eq!(conversion(&json!({"conversion_duration": duration})).duration_ms, None);
        }
        assert_eq!(conversion(&json!({"conversion_duration": "61.5"})).duration_ms, Some(61_500));
    }

    #[test]
    fn a_file_is_found_under_its_second_name_when_the_first_is_empty() {
        let record = json!({"conversion_path": "", "conversion_path_wav": "https://x.test/a.wav"});
        assert_eq!(conversion(&record).audio_url.as_deref(), Some("https://x.test/a.wav"));
    }

    #[test]
    fn tracks_are_read_from_an_object_and_from_text_that_holds_one() {
        let tracks =
            json!({"vocals": "https://x.test/v.mp3", "back_vocal": "https://x.test/b.mp3", "bad": 3});
        for audio in [tracks.clone(), json!(tracks.to_string())] {
            let found = stems(&json!({"audio_url": audio}));
            let named = |name: &str| found.iter().any(|stem| stem.name == name);
            assert!(found.len() == 2 && named("vocals") && named("backing_vocals"), "{found:?}");
        }
        assert!(stems(&json!({"audio_url": "https://x.test/a.mp3"})).is_empty());
    }
}
