//! What a submission must look like, as MiniMax's manual has it: what each model needs and takes.

use serde_json::{Map, Value};

use crate::simulator::tasks::{Kind, Order};

const PROMPT_MAX: usize = 2000;

/// How the song is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Url,
    Hex,
}

/// What a model can do.
struct Model {
    /// The fewest and the most characters it sings.
    lyrics: [usize; 2],
    instrumental: bool,
    optimizer: bool,
    covers: bool,
}

impl Model {
    fn of(name: &str) -> Option<Self> {
        let newest = Self { lyrics: [1, 3500], instrumental: true, optimizer: true, covers: false };
        Some(match name {
            "music-3.0" | "music-2.6" | "music-2.6-free" | "music-2.5+" => newest,
            "music-2.5" => Self { instrumental: false, ..newest },
            "music-2.0" | "music-1.5" => {
                Self { lyrics: [10, 3000], instrumental: false, optimizer: false, covers: false }
            }
            "music-cover" | "music-cover-free" => {
                Self { instrumental: false, optimizer: false, covers: true, ..newest }
            }
            _ => return None,
        })
    }
}

/// Reads the body of `POST /v1/music_generation`. Words to be sung are the order's prompt, the prompt its style.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read(body: &[u8]) -> Result<(Order, Output), String> {
    let fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| String::from("the body is no JSON object"))?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let truth = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or_default();
    let model = Model::of(text("model")).ok_or("model is not supported")?;
    let output = match text("output_format") {
        "url" => Output::Url,
        "" | "hex" => Output::Hex,
        _ => return Err("output_format must be url or hex".into()),
    };
    if truth("stream") {
        return Err("stream is not simulated".into());
    }
    let (prompt, lyrics, instrumental) = (text("prompt"), text("lyrics"), truth("is_instrumental"));
    if prompt.chars().count() > PROMPT_MAX {
        return Err("prompt is too long".into());
    }
    let sources =
        ["audio_url", "audio_base64", "cover_feature_id"].iter().filter(|name| !text(name).is_empty());
    if sources.count() != usize::from(model.covers) {
        return Err("exactly one of audio_url, audio_base64 for cover models only".into());
    }
    if instrumental && (!model.instrumental || prompt.trim().is_empty()) {
        return Err("is_instrumental needs a prompt and a model that can".into());
    }
    let words = lyrics.chars().count();
    let written = truth("lyrics_optimizer") && model.optimizer && !prompt.trim().is_empty();
    if words == 0 && !instrumental && !written && !model.covers {
        return Err("lyrics is required".into());
    }
    if words > 0 && !(model.lyrics[0]..=model.lyrics[1]).contains(&words) {
        return Err("lyrics has a wrong length".into());
    }
    let (sung, style) = if words > 0 { (lyrics, prompt) } else { (prompt, "") };
    let order = Order {
        kind: Kind::Music,
        custom: words > 0,
        instrumental,
        model: text("model").into(),
        prompt: sung.into(),
        style: style.into(),
        title: "".into(),
        callback_url: "".into(),
    };
    Ok((order, output))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fixture(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/fixtures/minimax/{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).unwrap()
    }

    #[test]
    fn the_recorded_requests_are_taken() {
        for (name, output) in [
            ("cover", Output::Url),
            ("instrumental", Output::Url),
            ("lyrics_optimizer", Output::Url),
            ("song_url", Output::Url),
            ("song_hex", Output::Hex),
        ] {
            assert_eq!(read(&fixture(&format!("request_{name}"))).unwrap().1, output, "{name}");
        }
        assert!(read(&fixture("request_stream")).is_err());
    }

    #[test]
    fn what_a_model_cannot_do_is_refused() {
        let words = "[Verse]\nLanterns drift above the bay";
        for body in [
            json!({"model": "music-9", "prompt": "x", "lyrics": words}),
            json!({"model": "music-2.6", "prompt": "x"}),
            json!({"model": "music-2.6", "lyrics": "x".repeat(3501)}),
            json!({"model": "music-2.6", "prompt": "x".repeat(2001), "lyrics": words}),
            json!({"model": "music-2.6", "is_instrumental": true}),
            json!({"model": "music-2.6", "lyrics": words, "audio_url": "https://x.test/a.mp3"}),
            json!({"model": "music-2.6", "lyrics": words, "output_format": "wav"}),
            json!({"model": "music-2.5", "prompt": "x", "is_instrumental": true}),
            json!({"model": "music-2.0", "prompt": "x", "lyrics_optimizer": true}),
            json!({"model": "music-2.0", "prompt": "x", "lyrics": "too few"}),
            json!({"model": "music-cover", "prompt": "x"}),
            json!([]),
        ] {
            assert!(read(body.to_string().as_bytes()).is_err(), "{body}");
        }
    }
}
