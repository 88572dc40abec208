//! Reads single values out of what a provider answers. Everything outside is optional: what cannot be used is
//! `None`, never an error.
//!
//! Not here: how a provider names and nests them (`provider/<name>`).

use reqwest::Url;
use serde_json::{Map, Value};

const URL_BYTES_MAX: usize = 2048;
const TEXT_CHARS_MAX: usize = 20_000;
const ID_BYTES_MAX: usize = 200;
/// No song is longer than a day.
const DURATION_MS_MAX: f64 = 86_400_000.0;

/// A body that is one JSON object.
pub(super) fn object(body: &[u8]) -> Option<Value> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    serde_json::from_slice(body).ok().filter(Value::is_object)
}

fn field<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.as_object().and_then(|object: &Map<String, Value>| object.get(key)).filter(|field| !field.is_null())
}

/// The first of the keys that holds usable text.
pub(super) fn text(value: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| match field(value, key)? {
        Value::String(text) => clean(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// Without the NUL that Postgres cannot store; blank is nothing.
pub(super) fn clean(text: &str) -> Option<String> {
    let text = text.trim();
    let text = match text.contains('\0') || text.len() > TEXT_CHARS_MAX {
        true => text.chars().filter(|&c| c != '\0').take(TEXT_CHARS_MAX).collect(),
        false => text.to_owned(),
    };
    (!text.is_empty()).then_some(text)
}

/// An opaque id: short text without blanks.
pub(super) fn id(value: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| text(value, &[*key]).filter(|id| is_id(id)))
}

pub(super) fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The first of the keys that holds a finite number, also as text.
pub(super) fn number(value: &Value, keys: &[&str]) -> Option<f64> {
    let number = |key: &&str| match field(value, key)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    keys.iter().filter_map(number).find(|number| number.is_finite())
}

pub(super) fn url(value: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().filter_map(|key| text(value, &[*key])).find(|url| is_url(url))
}

/// `http` too: the simulator speaks it.
fn is_url(text: &str) -> bool {
    text.len() <= URL_BYTES_MAX
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// A duration that is told in milliseconds, as a number or as text.
pub(super) fn duration_ms(value: &Value, keys: &[&str]) -> Option<i64> {
    let millis = number(value, keys)?;
    (millis > 0.0 && millis <= DURATION_MS_MAX).then(|| millis.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_an_object_is_read_with_or_without_a_byte_order_mark() {
        assert_eq!(object(b"\xef\xbb\xbf{\"a\":1}"), Some(json!({"a": 1})));
        for body in ["", "null", "[]", "7", "\"{}\"", "{\"a\":", "<html>"] {
            assert_eq!(object(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn ids_are_texts_or_numbers() {
        let body = json!({"id": 104_729_583_616_001_u64, "other": "a-1", "blank": " ", "two": "a b"});
        assert_eq!(id(&body, &["id"]).as_deref(), Some("104729583616001"));
        assert_eq!(id(&body, &["blank", "other"]).as_deref(), Some("a-1"));
        assert_eq!(id(&body, &["two", "missing"]), None);
    }

    #[test]
    fn a_duration_is_a_possible_one_or_none() {
        for (told, understood) in [
            (json!(178_200), Some(178_200)),
            (json!("178200"), Some(178_200)),
            (json!(25_364.4), Some(25_364)),
            (json!(0), None),
            (json!(-5), None),
            (json!(1e300), None),
            (json!("NaN"), None),
            (json!([1]), None),
            (Value::Null, None),
        ] {
            assert_eq!(duration_ms(&json!({"duration": told}), &["duration"]), understood, "{told}");
        }
    }
}
