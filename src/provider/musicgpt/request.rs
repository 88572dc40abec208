//! Writes orders as MusicGPT's requests (`musicgpt.md` section 2).
//!
//! Pure. Songs are ordered by version 2, whose predecessor is announced to end. What works on a finished clip
//! is a form; its fields are those of the manual's pages Extend, Inpaint, Remix and Extraction [D, read
//! 2026-11-21], where not marked as a guess [G].

use serde::Serialize;

use crate::provider::failure::{Class, Failure};
use crate::provider::words::{crowded, given, shortened, tags};
use crate::provider::{Order, SourceClip, TextLimits, Unsupported, VocalGender, Work};

/// What is wished for when nothing says how it should sound.
const NEUTRAL_PROMPT: &str = "A song in the style of these words";
const NEUTRAL_CHANGE: &str = "In the style of the song";
/// Above 300 the endpoints of version 1 refuse a prompt; the manual advises 280.
const V1_PROMPT_CHARS_MAX: usize = 280;
/// Most characters of the whole song's words beside a prompt.
const V1_LYRICS_CHARS_MAX: usize = 2000;
/// Of the words of a part that is made anew.
const PART_LYRICS_CHARS_MAX: usize = 3000;
/// Which tracks a clip is separated into.
const STEMS: &str = r#"["vocals","instrumental"]"#;

/// A body and where it goes.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    pub(super) path: &'static str,
    pub(super) body: Body,
}

#[derive(Debug, PartialEq)]
pub(super) enum Body {
    /// A `GET` that costs money.
    Question {
        prompt: String,
    },
    Song(Box<Song>),
    Form(Form),
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Song {
    prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    music_style: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lyrics: Option<String>,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gender: Option<&'static str>,
    make_instrumental: bool,
    generate_album_cover: bool,
    /// Kept with the raw webhooks; nothing shows them so far.
    lyrics_timestamps: bool,
    webhook_url: String,
}

/// The text fields of a `multipart/form-data` body (RFC 7578).
#[derive(Debug, Default, PartialEq)]
pub(super) struct Form(Vec<(&'static str, String)>);

impl Form {
    fn with(mut self, name: &'static str, value: impl Into<Option<String>>) -> Self {
        self.0.extend(value.into().map(|value| (name, value)));
        self
    }

    /// The content type and the body, with a boundary that is in none of the values.
    pub(super) fn written(&self) -> (String, String) {
        let mut boundary = String::from("songflight");
        while self.0.iter().any(|(_, value)| value.contains(&boundary)) {
            boundary.push_str("-x");
        }
        let part = |(name, value): &(&str, String)| {
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let parts: String = self.0.iter().map(part).collect();
        (format!("multipart/form-data; boundary={boundary}"), format!("{parts}--{boundary}--\r\n"))
    }
}

/// The request for an order.
///
/// # Errors
/// `InvalidInput` when the order has no words to work from, too many, or a clip that nobody can fetch.
pub(super) fn request(
    order: &Order,
    model: &str,
    limits: TextLimits,
    reply_to: &str,
) -> Result<Request, Failure> {
    let form = |of: &SourceClip| {
        let audio = of.audio_url.clone().ok_or_else(|| invalid("the clip has no address".into()))?;
        Ok::<_, Failure>(Form::default().with("audio_url", audio).with("webhook_url", reply_to.to_owned()))
    };
    let (path, body) = match &order.work {
        Work::Lyrics => ("/v1/prompt_to_lyrics", lyrics(order, limits)?),
        Work::Generate => ("/v2/MusicAI", song(order, model, limits, reply_to)?),
        Work::Extend { of, continue_at_ms } => ("/v1/extend", extend(form(of)?, order, of, *continue_at_ms)?),
        Work::ReplaceSection { of, start_ms, end_ms } => {
            ("/v1/inpaint", inpaint(form(of)?, order, of, (*start_ms, *end_ms))?)
        }
        Work::Cover { of } => ("/v1/Remix", remix(form(of)?, order, of)?),
        Work::Stems { of } => ("/v1/Extraction", Body::Form(form(of)?.with("stems", STEMS.to_owned()))),
        Work::Merge { .. } | Work::Persona { .. } | Work::Video { .. } => {
            return Err(invalid(format!("musicgpt does not make {}", order.kind().as_str())));
        }
    };
    Ok(Request { path, body })
}

/// What of an order is impossible, before anything is charged (PROV-1, PROV-3): of its texts, and of work on a clip.
pub(super) fn refused(order: &Order, model: &str) -> Vec<Unsupported> {
    let lyrics_max = match &order.work {
        Work::Extend { .. } | Work::ReplaceSection { .. } => PART_LYRICS_CHARS_MAX,
        Work::Cover { .. } => V1_LYRICS_CHARS_MAX,
        Work::Lyrics | Work::Generate | Work::Merge { .. } | Work::Stems { .. } => usize::MAX,
        Work::Persona { .. } | Work::Video { .. } => usize::MAX,
    };
    let endless = |of: &SourceClip| of.duration_ms.is_none();
    let placeless = matches!(&order.work, Work::Extend { of, continue_at_ms: None } if endless(of));
    let unreachable = order.work.sources().iter().any(|of| of.audio_url.is_none());
    let mut found = Vec::new();
    let mut refuse = |field, why| found.push(Unsupported { field, why });
    if unreachable {
        refuse("variant_number", "the clip has no address".to_owned());
    }
    if placeless {
        refuse("continue_at_s", "the length of the clip is not known".to_owned());
    }
    if let Err(failure) = words(order, lyrics_max) {
        refuse("lyrics", failure.message);
    }
    found.extend(without_room(order, super::limits(model)));
    found
}

/// A song's prompt has a place of its own; how a clip is to be changed is one text. The style that the clip has anyway
/// only guides, so that it may be left out.
fn without_room(order: &Order, limits: TextLimits) -> Option<Unsupported> {
    let (name, prompt) = (super::CAPABILITIES.name, ("prompt", given(&order.prompt)));
    match &order.work {
        Work::Generate => crowded(name, &[prompt], limits.prompt),
        Work::Extend { of, .. } | Work::ReplaceSection { of, .. } | Work::Cover { of } => {
            let asked = order.options.style_tags != of.style_tags;
            let style = tags(&order.options.style_tags).filter(|_| asked);
            crowded(name, &[prompt, ("style_tags", style.as_deref())], V1_PROMPT_CHARS_MAX)
        }
        Work::Lyrics
        | Work::Merge { .. }
        | Work::Stems { .. }
        | Work::Persona { .. }
        | Work::Video { .. } => None,
    }
}

fn lyrics(order: &Order, limits: TextLimits) -> Result<Body, Failure> {
    let prompt = described(order).ok_or_else(no_words)?;
    Ok(Body::Question { prompt: shortened(&prompt, limits.lyrics_prompt).to_owned() })
}

fn song(order: &Order, model: &str, limits: TextLimits, reply_to: &str) -> Result<Body, Failure> {
    let instrumental = order.options.instrumental;
    let lyrics = given(&order.lyrics).filter(|_| !instrumental).map(String::from);
    let prompt = described(order).or_else(|| lyrics.as_ref().map(|_| NEUTRAL_PROMPT.to_owned()));
    let prompt = prompt.ok_or_else(no_words)?;
    Ok(Body::Song(Box::new(Song {
        prompt: shortened(&prompt, limits.prompt).to_owned(),
        music_style: tags(&order.options.style_tags),
        lyrics,
        model: model.to_owned(),
        title: given(&order.title).map(String::from),
        gender: gender(order),
        make_instrumental: instrumental,
        generate_album_cover: true,
        lyrics_timestamps: !instrumental,
        webhook_url: reply_to.to_owned(),
    })))
}

fn extend(form: Form, order: &Order, of: &SourceClip, from_ms: Option<i64>) -> Result<Body, Failure> {
    let from_ms = from_ms.or(of.duration_ms);
    let from_ms = from_ms.ok_or_else(|| invalid("neither a place to go on from nor a length".into()))?;
    let form = form
        .with("extend_after", seconds(from_ms))
        .with("prompt", change(order))
        .with("lyrics", whole_words(of))
        .with("lyrics_section_to_extend", part_words(order)?)
        .with("gender", gender(order).map(String::from));
    Ok(Body::Form(form))
}

fn inpaint(
    form: Form,
    order: &Order,
    of: &SourceClip,
    (start_ms, end_ms): (i64, i64),
) -> Result<Body, Failure> {
    let form = form
        .with("prompt", change(order).unwrap_or_else(|| NEUTRAL_CHANGE.to_owned()))
        .with("replace_start_at", seconds(start_ms))
        .with("replace_end_at", seconds(end_ms))
        .with("num_outputs", order.variants.clamp(1, 2).to_string())
        .with("lyrics", whole_words(of))
        .with("lyrics_section_to_replace", part_words(order)?)
        .with("gender", gender(order).map(String::from));
    Ok(Body::Form(form))
}

fn remix(form: Form, order: &Order, of: &SourceClip) -> Result<Body, Failure> {
    let words = words(order, V1_LYRICS_CHARS_MAX)?.or_else(|| whole_words(of));
    let form = form
        .with("prompt", change(order).unwrap_or_else(|| NEUTRAL_CHANGE.to_owned()))
        .with("lyrics", words.filter(|_| !order.options.instrumental))
        // [G]: named among the fields in public code only.
        .with("title", given(&order.title).map(String::from))
        .with("gender", gender(order).map(String::from));
    Ok(Body::Form(form))
}

/// What the order says of the song: its prompt, else its title, else its style.
fn described(order: &Order) -> Option<String> {
    let text = given(&order.prompt).or(given(&order.title)).map(String::from);
    text.or_else(|| tags(&order.options.style_tags))
}

/// How a clip is to be changed: prompt and style, as far as both fit.
fn change(order: &Order) -> Option<String> {
    let prompt = given(&order.prompt).map(|prompt| shortened(prompt, V1_PROMPT_CHARS_MAX).to_owned());
    match (prompt, tags(&order.options.style_tags)) {
        (Some(prompt), Some(tags)) => {
            let both = format!("{prompt}, {tags}");
            Some(if both.chars().count() <= V1_PROMPT_CHARS_MAX { both } else { prompt })
        }
        (Some(text), None) => Some(text),
        (None, Some(tags)) => Some(shortened(&tags, V1_PROMPT_CHARS_MAX).to_owned()),
        (None, None) => None,
    }
}

/// The words of the clip that is worked on; they only guide, so that they may be cut.
fn whole_words(of: &SourceClip) -> Option<String> {
    given(&of.lyrics).map(|words| shortened(words, V1_LYRICS_CHARS_MAX).to_owned())
}

fn part_words(order: &Order) -> Result<Option<String>, Failure> {
    words(order, PART_LYRICS_CHARS_MAX)
}

/// The words that are to be sung: all of them or none.
fn words(order: &Order, chars_max: usize) -> Result<Option<String>, Failure> {
    let words = given(&order.lyrics);
    match words.map_or(0, |words| words.chars().count()) {
        over if over > chars_max => {
            Err(invalid(format!("lyrics: {over} characters; musicgpt takes {chars_max} here")))
        }
        _ => Ok(words.map(String::from)),
    }
}

fn gender(order: &Order) -> Option<&'static str> {
    let asked = order.options.vocal_gender.filter(|_| !order.options.instrumental);
    asked.map(|gender| match gender {
        VocalGender::Female => "female",
        VocalGender::Male => "male",
    })
}

/// Milliseconds as the decimal seconds that are wanted here.
fn seconds(ms: i64) -> String {
    (ms as f64 / 1000.0).to_string()
}

fn invalid(why: String) -> Failure {
    Failure::new(Class::InvalidInput, why)
}

fn no_words() -> Failure {
    invalid("neither prompt nor title nor style tags".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_written_as_its_parts() {
        let form = Form::default().with("prompt", "soft\r\npiano".to_owned()).with("gender", None);
        let (content_type, body) = form.written();
        assert_eq!(content_type, "multipart/form-data; boundary=songflight");
        let part = "--songflight\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nsoft\r\npiano\r\n";
        assert_eq!(body, format!("{part}--songflight--\r\n"));
    }

    #[test]
    fn no_text_can_end_its_part() {
        let wicked = "x\r\n--songflight--\r\n--songflight-x--";
        let (content_type, body) = Form::default().with("prompt", wicked.to_owned()).written();
        assert!(content_type.ends_with("=songflight-x-x"));
        assert_eq!(body.matches("--songflight-x-x").count(), 2, "one part and the end");
    }

    #[test]
    fn times_are_decimal_seconds() {
        assert_eq!([35_000, 12_500, 0, 1].map(seconds), ["35", "12.5", "0", "0.001"]);
    }
}
