//! What a submission must look like: the fields of `musicgpt.md` section 2, and of the manual for work on
//! finished clips.
//!
//! An [`Order`] has no place for what kind of conversion it is; its `model` keeps that, for nothing else
//! that is simulated depends on the model.

use serde_json::{Map, Value};

use super::form::Fields;
use crate::simulator::tasks::{Kind, Order};

pub(super) const PROMPT_TOO_LONG: &str = "Input Prompt cannot be more than 300 characters";
const LYRICS_PROMPT_MAX: usize = 280;
const FORM_LYRICS_MAX: usize = 3000;
/// Appended to the kind of a conversion when only one is wanted.
const ALONE: &str = ":1";

/// What is wrong with a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) detail: String,
}

impl Flaw {
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into() }
    }
}

/// In characters, and what else a version tells apart.
pub(super) struct Version {
    prompt: usize,
    prompt_too_long: &'static str,
    lyrics: usize,
    models: &'static [&'static str],
}

pub(super) static V1: Version =
    Version { prompt: 300, prompt_too_long: PROMPT_TOO_LONG, lyrics: 3000, models: &[] };
pub(super) static V2: Version = Version {
    prompt: 1000,
    prompt_too_long: "Input Prompt cannot be more than 1000 characters",
    lyrics: 5000,
    models: &["v6", "v6-pro", "v7", "v7-pro"],
};

/// By which kind a task is to be asked for.
pub(super) fn conversion_type(order: &Order) -> &str {
    order.model.strip_suffix(ALONE).unwrap_or(&order.model)
}

/// How many clips come of an order.
pub(super) fn clips(order: &Order) -> usize {
    if order.model.ends_with(ALONE) { 1 } else { 2 }
}

/// Whether tracks come of it.
pub(super) fn separates(order: &Order) -> bool {
    &*order.model == "STEMS_SEPARATION"
}

/// Reads the body of `MusicAI`.
///
/// # Errors
/// The first [`Flaw`].
pub(super) fn song(body: &[u8], version: &Version) -> Result<Order, Flaw> {
    let fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| Flaw::new("the body is not a JSON object"))?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    for name in ["make_instrumental", "vocal_only", "generate_album_cover", "lyrics_timestamps"] {
        let odd = fields.get(name).is_some_and(|value| !value.is_boolean() && !value.is_null());
        if odd {
            return Err(Flaw::new(format!("{name} must be a boolean")));
        }
    }
    if !version.models.is_empty() && !text("model").is_empty() && !version.models.contains(&text("model")) {
        return Err(Flaw::new("model is not supported"));
    }
    at_most(text("prompt"), version.prompt, version.prompt_too_long)?;
    at_most(text("lyrics"), version.lyrics, "lyrics are too long")?;
    let instrumental = fields.get("make_instrumental").and_then(Value::as_bool).unwrap_or_default();
    let asked = Asked {
        prompt: required(text("prompt"), "prompt")?,
        lyrics: if instrumental { "" } else { text("lyrics") },
        style: text("music_style"),
        title: text("title"),
        gender: text("gender"),
        webhook_url: text("webhook_url"),
    };
    Ok(Order { instrumental, ..asked.order("MUSIC_AI")? })
}

/// Reads the prompt of `prompt_to_lyrics`.
///
/// # Errors
/// That it is missing or too long.
pub(super) fn lyrics(prompt: &str) -> Result<Order, Flaw> {
    required(prompt, "prompt")?;
    at_most(prompt, LYRICS_PROMPT_MAX, "Prompt must be between 1 and 280 characters.")?;
    let asked = Asked { prompt, ..Asked::default() };
    Ok(Order { kind: Kind::Lyrics, ..asked.order("LYRICS_GENERATOR")? })
}

/// Reads the form of `extend`.
///
/// # Errors
/// The first [`Flaw`], as for the forms below.
pub(super) fn extend(fields: &Fields) -> Result<Order, Flaw> {
    time(fields, "extend_after")?;
    worked_on(fields, "lyrics_section_to_extend", "EXTEND")
}

/// Reads the form of `inpaint`.
pub(super) fn inpaint(fields: &Fields) -> Result<Order, Flaw> {
    required(text(fields, "prompt"), "prompt")?;
    if time(fields, "replace_start_at")? >= time(fields, "replace_end_at")? {
        return Err(Flaw::new("replace_end_at must be after replace_start_at"));
    }
    match text(fields, "num_outputs") {
        "" | "1" => worked_on(fields, "lyrics_section_to_replace", "INPAINT:1"),
        "2" => worked_on(fields, "lyrics_section_to_replace", "INPAINT"),
        _ => Err(Flaw::new("num_outputs must be 1 or 2")),
    }
}

/// Reads the form of `Remix`.
pub(super) fn remix(fields: &Fields) -> Result<Order, Flaw> {
    required(text(fields, "prompt"), "prompt")?;
    worked_on(fields, "lyrics", "REMIX")
}

/// Reads the form of `Extraction`.
pub(super) fn extraction(fields: &Fields) -> Result<Order, Flaw> {
    let stems: Vec<String> = serde_json::from_str(text(fields, "stems"))
        .map_err(|_| Flaw::new("stems must be a JSON list of names"))?;
    let stems = stems.join(",");
    required(&stems, "stems")?;
    let order = worked_on(fields, "lyrics", "STEMS_SEPARATION")?;
    Ok(Order { style: stems.into(), ..order })
}

/// An order for work on a clip; `part` names the field of the words for what is made anew.
fn worked_on(fields: &Fields, part: &str, conversion_type: &str) -> Result<Order, Flaw> {
    url(required(text(fields, "audio_url"), "audio_url")?, "audio_url")?;
    at_most(text(fields, "prompt"), V1.prompt, PROMPT_TOO_LONG)?;
    let words = [text(fields, "lyrics"), text(fields, part)];
    at_most(words[0], FORM_LYRICS_MAX, "lyrics are too long")?;
    at_most(words[1], FORM_LYRICS_MAX, "the section's lyrics are too long")?;
    let asked = Asked {
        prompt: text(fields, "prompt"),
        lyrics: if words[1].is_empty() { words[0] } else { words[1] },
        title: text(fields, "title"),
        gender: text(fields, "gender"),
        webhook_url: text(fields, "webhook_url"),
        style: "",
    };
    asked.order(conversion_type)
}

#[derive(Default)]
struct Asked<'a> {
    prompt: &'a str,
    lyrics: &'a str,
    style: &'a str,
    title: &'a str,
    gender: &'a str,
    webhook_url: &'a str,
}

impl Asked<'_> {
    /// Where the words are given, the wish stands under the style, so that the words for the simulator in it are
    /// found as well.
    fn order(&self, conversion_type: &str) -> Result<Order, Flaw> {
        if !matches!(self.gender, "" | "male" | "female" | "neutral") {
            return Err(Flaw::new("gender must be male, female or neutral"));
        }
        if !self.webhook_url.is_empty() {
            url(self.webhook_url, "webhook_url")?;
        }
        let custom = !self.lyrics.trim().is_empty();
        let (prompt, style) = match custom {
            true => (self.lyrics, format!("{}\n{}", self.style, self.prompt)),
            false => (self.prompt, self.style.to_owned()),
        };
        Ok(Order {
            kind: Kind::Music,
            custom,
            instrumental: false,
            model: conversion_type.into(),
            prompt: prompt.into(),
            style: style.into(),
            title: self.title.into(),
            callback_url: self.webhook_url.into(),
        })
    }
}

fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map_or("", String::as_str)
}

fn required<'a>(value: &'a str, name: &str) -> Result<&'a str, Flaw> {
    if value.trim().is_empty() { Err(Flaw::new(format!("{name} is required"))) } else { Ok(value) }
}

fn at_most(value: &str, max: usize, otherwise: &str) -> Result<(), Flaw> {
    if value.chars().count() > max { Err(Flaw::new(otherwise)) } else { Ok(()) }
}

fn url(value: &str, name: &str) -> Result<(), Flaw> {
    let web = reqwest::Url::parse(value).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if web { Ok(()) } else { Err(Flaw::new(format!("{name} is not a valid url"))) }
}

/// Seconds.
fn time(fields: &Fields, name: &str) -> Result<f64, Flaw> {
    let seconds =
        text(fields, name).parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    seconds.ok_or_else(|| Flaw::new(format!("{name} must be a time in seconds")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fixture(name: &str) -> Value {
        let path = format!("{}/tests/fixtures/musicgpt/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn song_with(change: Value) -> Result<Order, Flaw> {
        let mut body = fixture("request_music_v2");
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        song(body.to_string().as_bytes(), &V2)
    }

    fn form(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_recorded_requests_are_taken() {
        for (name, version) in
            [("request_music_v1", &V1), ("request_music_instrumental", &V1), ("request_music_v2", &V2)]
        {
            let order = song(fixture(name).to_string().as_bytes(), version).unwrap();
            assert_eq!(order.instrumental, name.contains("instrumental"));
            assert_eq!(order.custom, !order.instrumental);
        }
    }

    #[test]
    fn impossible_values_are_refused() {
        for change in [
            json!({"prompt": " "}),
            json!({"prompt": "ä".repeat(1001)}),
            json!({"lyrics": "ä".repeat(5001)}),
            json!({"model": "v9"}),
            json!({"gender": "f"}),
            json!({"make_instrumental": "no"}),
            json!({"webhook_url": "nowhere"}),
        ] {
            assert!(song_with(change.clone()).is_err(), "{change}");
        }
        assert!(song_with(json!({"prompt": "ä".repeat(1000), "webhook_url": null})).is_ok());
        let recorded = fixture("response_error_422_prompt_length");
        let flaw = song(json!({"prompt": "x".repeat(301)}).to_string().as_bytes(), &V1).unwrap_err();
        assert_eq!(recorded["detail"], flaw.detail);
        assert!(lyrics(&"x".repeat(281)).is_err() && lyrics("").is_err() && lyrics("rain").is_ok());
    }

    #[test]
    fn forms_need_a_clip_and_possible_times() {
        let clip = ("audio_url", "http://127.0.0.1/a.wav");
        assert!(extend(&form(&[clip, ("extend_after", "12.5")])).is_ok());
        assert!(extend(&form(&[clip])).is_err() && extend(&form(&[("extend_after", "1")])).is_err());
        let section = |end, outputs| {
            let times = [("replace_start_at", "10"), ("replace_end_at", end), ("num_outputs", outputs)];
            inpaint(&form(&[&[clip, ("prompt", "x")], &times[..]].concat()))
        };
        assert_eq!(clips(&section("20", "1").unwrap()), 1);
        assert_eq!(clips(&section("20", "2").unwrap()), 2);
        assert_eq!(conversion_type(&section("20", "1").unwrap()), "INPAINT");
        assert!(section("9", "1").is_err() && section("20", "3").is_err());
        assert!(remix(&form(&[clip])).is_err() && remix(&form(&[clip, ("prompt", "x")])).is_ok());
        assert!(separates(&extraction(&form(&[clip, ("stems", r#"["vocals"]"#)])).unwrap()));
        assert!(extraction(&form(&[clip, ("stems", "vocals")])).is_err());
    }
}
