//! What a submission must look like, as the gateway's manual has it: required fields, and limits by model.

use serde_json::{Map, Value};

use super::additions;
use crate::simulator::tasks::{Kind, Order};

const LYRICS_PROMPT_MAX: usize = 200;
const SIMPLE_PROMPT_MAX: usize = 500;

/// What is wrong with a submission, as the envelope says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) code: u16,
    pub(super) message: String,
}

/// Reads the body of `POST /api/v1/generate`.
///
/// # Errors
/// The first [`Flaw`], in the order of the manual.
pub(super) fn music(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    let custom = fields.required_truth("customMode")?;
    let instrumental = fields.required_truth("instrumental")?;
    let model = fields.required("model")?;
    let limits = Limits::of(model).ok_or_else(|| bad(String::from("model is not supported")))?;
    let callback_url = fields.callback_url()?;
    if custom {
        fields.required("style")?;
        fields.required("title")?;
    }
    if !custom || !instrumental {
        fields.required("prompt")?;
    }
    fields.optional_values()?;
    fields.at_most("prompt", if custom { limits.lyrics } else { SIMPLE_PROMPT_MAX })?;
    fields.at_most("style", limits.style)?;
    fields.at_most("title", limits.title)?;
    Ok(Order {
        kind: Kind::Music,
        custom,
        instrumental,
        model: model.into(),
        prompt: fields.text("prompt").into(),
        style: fields.text("style").into(),
        title: fields.text("title").into(),
        callback_url: callback_url.into(),
    })
}

/// Reads the body of `POST /api/v1/generate/upload-cover`.
///
/// # Errors
/// The first [`Flaw`], here and below.
pub(super) fn cover(body: &[u8]) -> Result<Order, Flaw> {
    Fields::read(body)?.url("uploadUrl")?;
    music(body)
}

/// Reads the body of `POST /api/v1/generate/extend`.
pub(super) fn extension(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    fields.required("audioId")?;
    fields.required("model")?;
    let own = fields.required_truth("defaultParamFlag")?;
    if own {
        for name in ["prompt", "style", "title"] {
            fields.required(name)?;
        }
        fields.required_seconds("continueAt")?;
    }
    fields.order(Kind::Music, own, "style")
}

/// Reads the body of `POST /api/v1/generate/upload-extend`.
pub(super) fn upload_extension(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    fields.url("uploadUrl")?;
    let own = fields.required_truth("defaultParamFlag")?;
    if own {
        fields.required("style")?;
        fields.required("title")?;
    }
    if !(own && fields.is("instrumental")) {
        fields.required("prompt")?;
    }
    fields.order(Kind::Music, own, "style")
}

/// Reads the body of `POST /api/v1/generate/replace-section`.
pub(super) fn section(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    if fields.text("uploadUrl").is_empty() {
        fields.required("taskId")?;
        fields.required("audioId")?;
    } else {
        fields.url("uploadUrl")?;
        fields.required("model")?;
    }
    for name in ["prompt", "tags", "title"] {
        fields.required(name)?;
    }
    let length = fields.required_seconds("infillEndS")? - fields.seconds("infillStartS")?;
    if !(6.0..=60.0).contains(&length) {
        return Err(bad(String::from("The section must be between 6 and 60 seconds long")));
    }
    fields.order(Kind::Section, true, "tags")
}

/// Reads the body of `POST /api/v1/vocal-removal/generate`.
pub(super) fn stems(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    let kind = fields.required("type")?;
    if !["separate_vocal", additions::TWELVE].contains(&kind) {
        return Err(bad(String::from("type must be separate_vocal or split_stem")));
    }
    Ok(Order { model: kind.into(), ..addition(&fields, Kind::Stems)? })
}

/// Reads the body of `POST /api/v1/mp4/generate`.
pub(super) fn video(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    fields.at_most("author", 50)?;
    fields.at_most("domainName", 50)?;
    addition(&fields, Kind::Video)
}

/// Reads the body of `POST /api/v1/generate/generate-persona`. Its name is the order's title, its description
/// the order's style; nobody is called back.
pub(super) fn persona(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    for name in ["taskId", "audioId", "name", "description"] {
        fields.required(name)?;
    }
    Ok(Order {
        kind: Kind::Persona,
        custom: false,
        instrumental: false,
        model: "".into(),
        prompt: fields.text("audioId").into(),
        style: fields.text("description").into(),
        title: fields.text("name").into(),
        callback_url: "".into(),
    })
}

fn addition(fields: &Fields, kind: Kind) -> Result<Order, Flaw> {
    fields.required("taskId")?;
    let clip = fields.required("audioId")?;
    let callback_url = fields.callback_url()?;
    Ok(Order {
        kind,
        custom: false,
        instrumental: false,
        model: "".into(),
        prompt: clip.into(),
        style: "".into(),
        title: "".into(),
        callback_url: callback_url.into(),
    })
}

/// Reads the body of `POST /api/v1/lyrics`.
///
/// # Errors
/// The first [`Flaw`].
pub(super) fn lyrics(body: &[u8]) -> Result<Order, Flaw> {
    let fields = Fields::read(body)?;
    let prompt = fields.required("prompt")?;
    let callback_url = fields.callback_url()?;
    fields.at_most("prompt", LYRICS_PROMPT_MAX)?;
    Ok(Order {
        kind: Kind::Lyrics,
        custom: false,
        instrumental: false,
        model: "".into(),
        prompt: prompt.into(),
        style: "".into(),
        title: "".into(),
        callback_url: callback_url.into(),
    })
}

/// In characters.
struct Limits {
    lyrics: usize,
    style: usize,
    title: usize,
}

impl Limits {
    fn of(model: &str) -> Option<Self> {
        Some(match model {
            "V3_5" | "V4" => Self { lyrics: 3000, style: 200, title: 80 },
            "V4_5ALL" => Self { lyrics: 5000, style: 1000, title: 80 },
            "V4_5" | "V4_5PLUS" | "V5" | "V5_5" => Self { lyrics: 5000, style: 1000, title: 100 },
            _ => return None,
        })
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn read(body: &[u8]) -> Result<Self, Flaw> {
        let fields = serde_json::from_slice(body).map(Self);
        fields.map_err(|_| bad(String::from("The request body is not a JSON object")))
    }

    /// Empty when absent.
    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn required(&self, name: &str) -> Result<&str, Flaw> {
        let text = Some(self.text(name)).filter(|text| !text.trim().is_empty());
        text.ok_or_else(|| missing(name))
    }

    /// Not negative.
    fn seconds(&self, name: &str) -> Result<f64, Flaw> {
        let seconds = self.0.get(name).and_then(Value::as_f64).filter(|seconds| *seconds >= 0.0);
        seconds.ok_or_else(|| missing(name))
    }

    fn required_seconds(&self, name: &str) -> Result<f64, Flaw> {
        self.seconds(name).ok().filter(|seconds| *seconds > 0.0).ok_or_else(|| missing(name))
    }

    fn is(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    /// An order for music made of a clip; `custom`: its prompt is sung.
    fn order(&self, kind: Kind, custom: bool, style: &str) -> Result<Order, Flaw> {
        let model = Some(self.text("model")).filter(|model| !model.is_empty()).unwrap_or("V5");
        let limits = Limits::of(model).ok_or_else(|| bad(String::from("model is not supported")))?;
        let callback_url = self.callback_url()?;
        self.optional_values()?;
        self.at_most("prompt", if custom { limits.lyrics } else { SIMPLE_PROMPT_MAX })?;
        self.at_most(style, limits.style)?;
        self.at_most("title", limits.title)?;
        Ok(Order {
            kind,
            custom,
            instrumental: self.is("instrumental") || self.text("prompt") == "[Instrumental]",
            model: model.into(),
            prompt: self.text("prompt").into(),
            style: self.text(style).into(),
            title: self.text("title").into(),
            callback_url: callback_url.into(),
        })
    }

    fn required_truth(&self, name: &str) -> Result<bool, Flaw> {
        self.0.get(name).and_then(Value::as_bool).ok_or_else(|| missing(name))
    }

    fn callback_url(&self) -> Result<&str, Flaw> {
        self.url("callBackUrl")
    }

    fn url(&self, name: &str) -> Result<&str, Flaw> {
        let url = self.required(name)?;
        let web = reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if web { Ok(url) } else { Err(bad(format!("{name} is not a valid url"))) }
    }

    fn at_most(&self, name: &str, max: usize) -> Result<(), Flaw> {
        match self.text(name).chars().count() > max {
            true => Err(Flaw { code: 413, message: format!("The {name} is too long") }),
            false => Ok(()),
        }
    }

    /// Those that nothing is made of, yet that the gateway would refuse.
    fn optional_values(&self) -> Result<(), Flaw> {
        for name in ["styleWeight", "weirdnessConstraint", "audioWeight"] {
            let weight = self.0.get(name).filter(|value| !value.is_null());
            if weight.is_some_and(|value| !value.as_f64().is_some_and(|weight| (0.0..=1.0).contains(&weight)))
            {
                return Err(bad(format!("{name} must be between 0 and 1")));
            }
        }
        match self.text("vocalGender") {
            "" | "m" | "f" => Ok(()),
            _ => Err(bad(String::from("vocalGender must be m or f"))),
        }
    }
}

fn bad(message: String) -> Flaw {
    Flaw { code: 400, message }
}

fn missing(name: &str) -> Flaw {
    bad(format!("{name} can not be empty"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fixture(name: &str) -> Value {
        let path = format!("{}/tests/fixtures/suno/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn music_with(change: Value) -> Result<Order, Flaw> {
        let mut body = fixture("request_generate_custom_vocal");
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        music(body.to_string().as_bytes())
    }

    #[test]
    fn the_recorded_requests_are_taken() {
        for name in ["custom_vocal", "custom_instrumental", "simple", "persona"] {
            music(fixture(&format!("request_generate_{name}")).to_string().as_bytes()).unwrap();
        }
        lyrics(fixture("request_lyrics").to_string().as_bytes()).unwrap();
    }

    #[test]
    fn the_recorded_requests_about_clips_are_taken_and_each_of_their_needs_is_named() {
        type Read = fn(&[u8]) -> Result<Order, Flaw>;
        let needs: [(&str, Read, Kind, &[&str]); 9] = [
            ("extend_custom", extension, Kind::Music, &["defaultParamFlag", "prompt", "continueAt"]),
            ("extend_inherit", extension, Kind::Music, &["audioId", "model", "callBackUrl"]),
            ("upload_extend", upload_extension, Kind::Music, &["uploadUrl", "style", "title", "prompt"]),
            ("upload_cover", cover, Kind::Music, &["uploadUrl", "customMode"]),
            ("replace_section", section, Kind::Section, &["taskId", "tags", "infillStartS", "infillEndS"]),
            ("vocal_removal", stems, Kind::Stems, &["taskId", "audioId", "type", "callBackUrl"]),
            ("split_stem", stems, Kind::Stems, &[]),
            ("mp4", video, Kind::Video, &["taskId", "audioId", "callBackUrl"]),
            ("persona", persona, Kind::Persona, &["taskId", "audioId", "name", "description"]),
        ];
        for (name, read, kind, needed) in needs {
            let body = fixture(&format!("request_{name}"));
            assert_eq!(read(body.to_string().as_bytes()).unwrap().kind, kind, "{name}");
            for field in needed {
                let mut without = body.clone();
                without[field] = Value::Null;
                let flaw = read(without.to_string().as_bytes()).unwrap_err();
                assert_eq!(flaw, missing(field), "{name}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let recorded = fixture("response_error_400_param");
        let flaw = music_with(json!({"callBackUrl": null})).unwrap_err();
        assert_eq!(
            (json!(flaw.code), json!(flaw.message)),
            (recorded["code"].clone(), recorded["msg"].clone())
        );
        for name in ["customMode", "instrumental", "model", "style", "title", "prompt"] {
            let flaw = music_with(json!({name: null})).unwrap_err();
            assert_eq!(flaw, Flaw { code: 400, message: format!("{name} can not be empty") });
        }
        assert!(music_with(json!({"instrumental": true, "prompt": ""})).is_ok());
    }

    #[test]
    fn texts_are_measured_in_characters_and_by_model() {
        let recorded = fixture("response_error_413");
        let flaw = music_with(json!({"prompt": "ä".repeat(5001)})).unwrap_err();
        assert_eq!(
            (json!(flaw.code), json!(flaw.message)),
            (recorded["code"].clone(), recorded["msg"].clone())
        );
        assert!(music_with(json!({"prompt": "ä".repeat(5000)})).is_ok());
        assert!(music_with(json!({"prompt": "ä".repeat(3001), "model": "V4"})).is_err());
        assert!(music_with(json!({"title": "x".repeat(81), "model": "V4_5ALL"})).is_err());
        assert!(music_with(json!({"prompt": "x".repeat(501), "customMode": false})).is_err());
        assert!(
            lyrics(json!({"prompt": "x".repeat(201), "callBackUrl": "http://a/b"}).to_string().as_bytes())
                .is_err()
        );
    }

    #[test]
    fn impossible_values_are_refused() {
        for change in [
            json!({"model": "V9"}),
            json!({"callBackUrl": "nowhere"}),
            json!({"callBackUrl": "ftp://a/b"}),
            json!({"styleWeight": 1.5}),
            json!({"vocalGender": "x"}),
            json!({"customMode": "true"}),
        ] {
            assert_eq!(music_with(change).unwrap_err().code, 400);
        }
        assert_eq!(music(b"[]").unwrap_err().code, 400);
    }
}
