//! Writes orders as the gateway's request bodies (`suno.md` section 3).
//!
//! Pure. Custom mode is derived from the order (`design.md` section 10), not asked of the user.

use serde::Serialize;

use crate::provider::failure::{Class, Failure};
pub(super) use crate::provider::words::{given, tags};
use crate::provider::words::{joined, shortened};
use crate::provider::{MusicOptions, Order, TextLimits, Unsupported, VocalGender};

/// What a custom order is sung as when nothing says how it should sound.
pub(super) const NEUTRAL_STYLE: &str = "pop";
const NO_TITLE: &str = "Untitled";
/// A title made from the first words stays a title.
const MADE_TITLE_CHARS_MAX: usize = 40;
/// As much of a prompt as describes a style.
const MADE_STYLE_CHARS_MAX: usize = 200;

/// A body and where it goes.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    pub(super) path: &'static str,
    pub(super) body: Body,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Body {
    Lyrics(Lyrics),
    Generate(Box<Generate>),
    /// Of a clip that exists (`further`).
    Further(serde_json::Value),
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lyrics {
    prompt: String,
    call_back_url: String,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Generate {
    pub(super) custom_mode: bool,
    pub(super) instrumental: bool,
    pub(super) model: String,
    pub(super) call_back_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upload_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) style: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) negative_tags: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vocal_gender: Option<VocalGender>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) style_weight: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) weirdness_constraint: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) audio_weight: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) persona_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) persona_model: Option<&'static str>,
}

/// The request for lyrics.
///
/// # Errors
/// `InvalidInput` when the order has no words to work from, here and below.
pub(super) fn lyrics(order: &Order, limits: TextLimits, reply_to: &str) -> Result<Request, Failure> {
    let prompt = given(&order.prompt).or(given(&order.title)).map(String::from);
    let prompt = prompt.or_else(|| tags(&order.options.style_tags)).ok_or_else(no_words)?;
    let prompt = shortened(&prompt, limits.lyrics_prompt).to_owned();
    let body = Body::Lyrics(Lyrics { prompt, call_back_url: reply_to.to_owned() });
    Ok(Request { path: "/api/v1/lyrics", body })
}

/// The request for a song.
///
/// # Errors
/// As above.
pub(super) fn generate(
    order: &Order,
    model: &str,
    limits: TextLimits,
    reply_to: &str,
) -> Result<Request, Failure> {
    let upload_url = given(&order.options.reference_audio_url).map(String::from);
    let path = if upload_url.is_some() { "/api/v1/generate/upload-cover" } else { "/api/v1/generate" };
    let texts = if is_custom(order, limits) { custom(order, limits) } else { simple(order, limits)? };
    let body = Generate {
        instrumental: order.options.instrumental,
        model: model.to_owned(),
        call_back_url: reply_to.to_owned(),
        upload_url,
        ..texts
    };
    Ok(Request { path, body: Body::Generate(Box::new(body)) })
}

/// In custom mode a prompt is sung word for word, so a song with vocals needs its words; without them
/// the gateway writes them from the prompt, and takes nothing else. An instrumental is described by its style.
fn is_custom(order: &Order, limits: TextLimits) -> bool {
    if !order.options.instrumental {
        return given(&order.lyrics).is_some();
    }
    let described = given(&order.title).is_some() && tags(&order.options.style_tags).is_some();
    let fits = sound(order).is_none_or(|sound| sound.chars().count() <= limits.style);
    (described && fits) || given(&order.prompt).is_none() || !of_custom_mode(&order.options).is_empty()
}

/// What was asked for that only custom mode takes. Nobody sings in an instrumental, so that it has no voice to choose.
fn of_custom_mode(options: &MusicOptions) -> Vec<&'static str> {
    let fields = [
        (tags(&options.negative_tags).is_some(), "negative_tags"),
        (options.vocal_gender.is_some() && !options.instrumental, "vocal_gender"),
        (options.style_weight.is_some(), "style_weight"),
        (options.weirdness.is_some(), "weirdness"),
        (options.audio_weight.is_some(), "audio_weight"),
        (given(&options.persona_id).is_some(), "persona_id"),
    ];
    fields.into_iter().filter(|(asked, _)| *asked).map(|(_, field)| field).collect()
}

/// What of an order for a song would have no place in the request: refused before anything is charged, rather than
/// left out (PROV-1, PROV-3). A title that is not sent is the song's all the same.
pub(super) fn without_place(order: &Order, limits: TextLimits) -> Vec<Unsupported> {
    let mut found = Vec::new();
    let mut refuse = |field, why| found.push(Unsupported { field, why });
    let style = tags(&order.options.style_tags);
    if is_custom(order, limits) {
        let chars = sound(order).map_or(0, |sound| sound.chars().count());
        if order.options.instrumental && given(&order.prompt).is_some() && chars > limits.style {
            let with = if style.is_some() { "with the style tags " } else { "" };
            let most = limits.style;
            refuse("prompt", format!("{with}{chars} characters; suno takes {most} for such an instrumental"));
        }
        return found;
    }
    for field in of_custom_mode(&order.options) {
        refuse(field, "suno takes this only with lyrics, or for an instrumental".to_owned());
    }
    let (wish, most) = (wish(order).map(without_brackets), limits.prompt);
    if let (Some(wish), Some(style)) = (wish, style) {
        let (alone, both) = (wish.chars().count(), format!("{wish}, {style}").chars().count());
        // A prompt that is too long by itself is told as that.
        if alone <= most && both > most {
            let why = format!("with the prompt {both} characters; suno takes {most} without lyrics");
            refuse("style_tags", why);
        }
    }
    found
}

pub(super) fn custom(order: &Order, limits: TextLimits) -> Generate {
    let persona_id = given(&order.options.persona_id).map(String::from);
    Generate {
        custom_mode: true,
        prompt: given(&order.lyrics).filter(|_| !order.options.instrumental).map(String::from),
        style: Some(style(order, limits.style)),
        title: Some(title(order, limits.title)),
        negative_tags: tags(&order.options.negative_tags),
        vocal_gender: order.options.vocal_gender.filter(|_| !order.options.instrumental),
        style_weight: order.options.style_weight.and_then(weight),
        weirdness_constraint: order.options.weirdness.and_then(weight),
        audio_weight: order.options.audio_weight.and_then(weight),
        persona_model: persona_id.is_some().then_some("style_persona"),
        persona_id,
        ..Generate::default()
    }
}

/// Everything else stays empty in this mode, so the tags go into the prompt where they fit.
pub(super) fn simple(order: &Order, limits: TextLimits) -> Result<Generate, Failure> {
    let wish = wish(order).map(without_brackets);
    let tags = tags(&order.options.style_tags);
    let prompt = match (wish, tags) {
        (Some(wish), Some(tags)) => joined(wish, &tags, limits.prompt),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => return Err(no_words()),
    };
    Ok(Generate { prompt: Some(prompt), ..Generate::default() })
}

/// What the song is about.
fn wish(order: &Order) -> Option<&str> {
    given(&order.prompt).or(given(&order.title))
}

/// All that is said of an instrumental, whose prompt has no other place than its style.
fn sound(order: &Order) -> Option<String> {
    let (style, prompt) = (tags(&order.options.style_tags), given(&order.prompt));
    match (style, prompt) {
        (Some(style), Some(prompt)) => Some(format!("{style}, {prompt}")),
        (style, prompt) => style.or(prompt.map(String::from)),
    }
}

/// The tags, without any the prompt; of an instrumental both.
fn style(order: &Order, chars_max: usize) -> String {
    let prompt = given(&order.prompt);
    match (tags(&order.options.style_tags), prompt) {
        (Some(tags), Some(prompt)) if order.options.instrumental => joined(tags, prompt, chars_max),
        (Some(tags), _) => tags,
        (None, Some(prompt)) if order.options.instrumental => shortened(prompt, chars_max).to_owned(),
        (None, Some(prompt)) => shortened(prompt, chars_max.min(MADE_STYLE_CHARS_MAX)).to_owned(),
        (None, None) => NEUTRAL_STYLE.to_owned(),
    }
}

/// The title given, else the first words that are sung or wished for.
pub(super) fn title(order: &Order, chars_max: usize) -> String {
    let made = || {
        let mut lines = order.lyrics.iter().flat_map(|text| text.lines()).map(str::trim);
        let sung = lines.find(|line| !line.is_empty() && !line.starts_with('['));
        let line = sung.or_else(|| given(&order.prompt)?.lines().next());
        let title = shortened(line?, MADE_TITLE_CHARS_MAX.min(chars_max));
        Some(title.trim_end_matches([',', '.', ';', ':', '-']).trim_end())
    };
    given(&order.title).or_else(made).filter(|title| !title.is_empty()).unwrap_or(NO_TITLE).to_owned()
}

fn no_words() -> Failure {
    Failure::new(Class::InvalidInput, "neither prompt nor title nor style tags")
}

/// `[Verse]` in a prompt that is not sung was seen to end in "Prompt likely malformed".
fn without_brackets(text: &str) -> String {
    text.replace(['[', ']'], "")
}

/// 0 to 1 in steps of 0.01, as the manual wants it.
fn weight(weight: f32) -> Option<f64> {
    let weight = f64::from(weight);
    weight.is_finite().then(|| (weight.clamp(0.0, 1.0) * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_two_decimals() {
        assert_eq!(weight(0.65), Some(0.65));
        assert_eq!(weight(0.333_333), Some(0.33));
        assert_eq!(weight(7.0), Some(1.0));
        assert_eq!(weight(f32::NAN), None);
    }
}
