//! What a submission must look like, as Mureka's manual has it.

use serde_json::{Map, Value};

use crate::simulator::tasks::{Kind, Order};

const MODELS: [&str; 9] = [
    "auto",
    "mureka-6",
    "mureka-7.5",
    "mureka-7.6",
    "mureka-8",
    "mureka-9",
    "mureka-9.5",
    "mureka-o1",
    "mureka-o2",
];
const LYRICS_MAX: usize = 5000;
const STYLE_MAX: usize = 1024;
const PROMPT_MAX: usize = 2000;

/// The field at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw(pub(super) &'static str);

/// How many songs an order wants. Mureka's songs have no title, so that is where their number is kept.
pub(super) fn songs(order: &Order) -> usize {
    order.title.parse().unwrap_or(1)
}

/// Reads the body of `POST /v1/song/generate`. The words are the order's prompt, the prompt its style.
///
/// # Errors
/// The first [`Flaw`]; so for all of these.
pub(super) fn song(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    let lyrics = fields.required("lyrics", LYRICS_MAX)?;
    let style = fields.at_most("prompt", STYLE_MAX)?;
    fields.one_of("gender", &["", "female", "male"])?;
    Ok(Order {
        custom: true,
        prompt: lyrics.into(),
        style: style.into(),
        model: fields.model(true)?,
        title: fields.count()?,
        ..nothing(Kind::Music)
    })
}

pub(super) fn easy(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    let prompt = fields.required("prompt", PROMPT_MAX)?;
    Ok(Order {
        prompt: prompt.into(),
        model: fields.model(false)?,
        title: fields.count()?,
        ..nothing(Kind::Music)
    })
}

pub(super) fn instrumental(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    let model = fields.model(true)?;
    if model.starts_with("mureka-o") {
        return Err(Flaw("model"));
    }
    let prompt = match fields.text("instrumental_id") {
        "" => fields.required("prompt", STYLE_MAX)?,
        _ => fields.at_most("prompt", STYLE_MAX)?,
    };
    let title = fields.count()?;
    Ok(Order { instrumental: true, prompt: prompt.into(), model, title, ..nothing(Kind::Music) })
}

pub(super) fn extend(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    fields.source(&["song_id", "upload_audio_id"])?;
    let lyrics = fields.required("lyrics", LYRICS_MAX)?;
    fields.whole("extend_at", 8_000..=420_000)?;
    fields.one_of("extend_type", &["", "tail", "head"])?;
    let model = fields.model(false)?;
    Ok(Order { custom: true, prompt: lyrics.into(), model, title: "1".into(), ..nothing(Kind::Music) })
}

pub(super) fn region(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    fields.source(&["song_id"])?;
    let start = fields.whole("edit_start", 12_000..=i64::MAX)?.ok_or(Flaw("edit_start"))?;
    let end = fields.whole("edit_end", 0..=i64::MAX)?.ok_or(Flaw("edit_end"))?;
    if end.saturating_sub(start) < 3_000 {
        return Err(Flaw("edit_end"));
    }
    let lyrics = fields.at_most("lyrics", LYRICS_MAX)?;
    let custom = !lyrics.is_empty();
    Ok(Order { custom, prompt: lyrics.into(), title: "1".into(), ..nothing(Kind::Music) })
}

/// As quick as a text, and answered as a text is.
pub(super) fn stems(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    let url = fields.required("url", usize::MAX)?;
    let web = ["https://", "http://", "data:"].iter().any(|scheme| url.starts_with(scheme));
    fields.one_of("model", &["", "audio-separation-1", "audio-separation-2", "audio-separation-3"])?;
    if !web {
        return Err(Flaw("url"));
    }
    // Only the beginning: a song may stand in it.
    Ok(Order { prompt: url.chars().take(PROMPT_MAX).collect::<String>().into(), ..nothing(Kind::Lyrics) })
}

pub(super) fn lyrics(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    Ok(Order { prompt: fields.required("prompt", PROMPT_MAX)?.into(), ..nothing(Kind::Lyrics) })
}

pub(super) fn more_lyrics(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    Ok(Order { prompt: fields.required("lyrics", LYRICS_MAX)?.into(), ..nothing(Kind::Lyrics) })
}

fn nothing(kind: Kind) -> Order {
    Order {
        kind,
        custom: false,
        instrumental: false,
        model: "".into(),
        prompt: "".into(),
        style: "".into(),
        title: "".into(),
        callback_url: "".into(),
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn read(body: &[u8]) -> Result<Self, Flaw> {
        serde_json::from_slice(body).map(Self).map_err(|_| Flaw("the body is no JSON object"))
    }

    /// Empty when absent.
    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn at_most(&self, name: &'static str, max: usize) -> Result<&str, Flaw> {
        let text = self.text(name);
        if text.chars().count() > max { Err(Flaw(name)) } else { Ok(text) }
    }

    fn required(&self, name: &'static str, max: usize) -> Result<&str, Flaw> {
        let text = self.at_most(name, max)?;
        if text.trim().is_empty() { Err(Flaw(name)) } else { Ok(text) }
    }

    fn one_of(&self, name: &'static str, allowed: &[&str]) -> Result<(), Flaw> {
        if allowed.contains(&self.text(name)) { Ok(()) } else { Err(Flaw(name)) }
    }

    fn model(&self, required: bool) -> Result<Box<str>, Flaw> {
        match self.text("model") {
            "" if !required => Ok("auto".into()),
            model if MODELS.contains(&model) => Ok(model.into()),
            _ => Err(Flaw("model")),
        }
    }

    /// Two songs unless told otherwise.
    fn count(&self) -> Result<Box<str>, Flaw> {
        Ok(self.whole("n", 1..=3)?.unwrap_or(2).to_string().into())
    }

    fn whole(&self, name: &'static str, allowed: std::ops::RangeInclusive<i64>) -> Result<Option<i64>, Flaw> {
        match self.0.get(name).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => {
                value.as_i64().filter(|number| allowed.contains(number)).map(Some).ok_or(Flaw(name))
            }
        }
    }

    /// Exactly one of these, which are ids.
    fn source(&self, names: &[&'static str]) -> Result<(), Flaw> {
        let given = names.iter().filter(|name| !self.text(name).is_empty()).count();
        if given == 1 { Ok(()) } else { Err(Flaw(names[0])) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fixture(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/fixtures/mureka/{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).unwrap()
    }

    fn text(body: &Value) -> Vec<u8> {
        body.to_string().into_bytes()
    }

    #[test]
    fn the_recorded_requests_are_taken() {
        for name in ["song", "song_reference", "song_streaming"] {
            song(&fixture(&format!("request_{name}"))).unwrap();
        }
        assert_eq!(songs(&instrumental(&fixture("request_instrumental")).unwrap()), 2);
        assert_eq!(songs(&extend(&fixture("request_extend")).unwrap()), 1);
        stems(&fixture("request_stem")).unwrap();
        lyrics(&fixture("request_lyrics")).unwrap();
        more_lyrics(&fixture("request_lyrics_extend")).unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let whole = json!({"lyrics": "la", "model": "mureka-8", "n": 3});
        for (field, value) in [
            ("lyrics", json!(null)),
            ("lyrics", json!("ä".repeat(5001))),
            ("prompt", json!("x".repeat(1025))),
            ("model", json!("mureka-1")),
            ("model", json!(null)),
            ("n", json!(4)),
            ("n", json!("2")),
            ("gender", json!("f")),
        ] {
            let mut body = whole.clone();
            body[field] = value;
            assert_eq!(song(&text(&body)), Err(Flaw(field)), "{body}");
        }
        assert_eq!(songs(&song(&text(&whole)).unwrap()), 3);
        assert_eq!(instrumental(&text(&json!({"model": "mureka-o2", "prompt": "x"}))), Err(Flaw("model")));
        let section =
            |start, end| region(&text(&json!({"song_id": "1", "edit_start": start, "edit_end": end})));
        assert!(section(12_000, 15_000).is_ok());
        assert_eq!(section(11_999, 20_000), Err(Flaw("edit_start")));
        assert_eq!(section(12_000, 14_999), Err(Flaw("edit_end")));
        assert_eq!(stems(&text(&json!({"url": "nowhere"}))), Err(Flaw("url")));
        assert!(easy(b"[]").is_err());
    }
}
