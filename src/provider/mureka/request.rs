//! Writes orders as Mureka's request bodies (`mureka.md` section 2).
//!
//! Pure. What Mureka cannot do although it does the kind (a clip that another provider made, a section too close to
//! the ends) is refused here, before anything is sent.

use serde::Serialize;

use super::NAME;
use crate::provider::failure::{Class, Failure};
use crate::provider::words::{crowded, given, shortened, tags, together};
use crate::provider::{Order, SourceClip, TextLimits, Unsupported, VocalGender, Work};

/// The most songs that one call may bring.
const SONGS_MAX: u8 = 3;
/// From where a song can be extended, in milliseconds.
const EXTEND_AT_MS: std::ops::RangeInclusive<i64> = 8_000..=420_000;
/// The shortest section that can be replaced, and how far from the song's ends it must stay.
const SECTION_MS_MIN: i64 = 3_000;
const SECTION_MARGIN_MS: i64 = 12_000;

/// A body and where it goes.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    pub(super) path: &'static str,
    pub(super) body: Body,
}

/// The fields of all endpoints; each takes some of them.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Body {
    #[serde(skip_serializing_if = "Option::is_none")]
    lyrics: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gender: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    song_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extend_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extend_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edit_start: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edit_end: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

/// The request for an order.
///
/// # Errors
/// `InvalidInput`, with what is wrong: nothing was sent.
pub(super) fn request(order: &Order, model: &str, limits: TextLimits) -> Result<Request, Failure> {
    let (path, body) = match &order.work {
        Work::Lyrics => ("/v1/lyrics/generate", lyrics(order, limits)?),
        Work::Generate => generate(order, model, limits)?,
        Work::Extend { of, continue_at_ms } => ("/v1/song/extend", extend(order, of, *continue_at_ms)?),
        Work::ReplaceSection { of, start_ms, end_ms } => {
            ("/v1/song/region-edit", replace(order, of, *start_ms, *end_ms)?)
        }
        Work::Stems { of } => ("/v1/song/stem", stems(of)?),
        Work::Merge { .. } | Work::Cover { .. } | Work::Persona { .. } | Work::Video { .. } => {
            return Err(invalid(format!("Mureka does not make {}", order.kind().as_str())));
        }
    };
    Ok(Request { path, body })
}

/// What of an order cannot be done, known before anything is charged: of a song texts that have no room, of one on
/// clips the first fault, by its field.
pub(super) fn refused(order: &Order, model: &str) -> Vec<Unsupported> {
    if order.work == Work::Generate {
        return without_room(order, super::limits(model)).into_iter().collect();
    }
    if order.work.sources().is_empty() {
        return Vec::new();
    }
    let failed = request(order, model, super::limits(model)).err();
    failed
        .map(|failure| Unsupported { field: field_at_fault(order), why: failure.message })
        .into_iter()
        .collect()
}

/// In the order in which `request` finds them.
fn field_at_fault(order: &Order) -> &'static str {
    match &order.work {
        Work::Extend { continue_at_ms: Some(at), .. } if !EXTEND_AT_MS.contains(at) => "continue_at_s",
        Work::Extend { .. } if given(&order.lyrics).is_none() => "lyrics",
        Work::ReplaceSection { start_ms, end_ms, .. } if too_short(*start_ms, *end_ms) => "end_s",
        Work::ReplaceSection { start_ms, .. } if *start_ms < SECTION_MARGIN_MS => "start_s",
        Work::ReplaceSection { of, end_ms, .. } if *end_ms > last_end(of) => "end_s",
        Work::Lyrics
        | Work::Generate
        | Work::Extend { .. }
        | Work::ReplaceSection { .. }
        | Work::Merge { .. }
        | Work::Cover { .. }
        | Work::Stems { .. }
        | Work::Persona { .. }
        | Work::Video { .. } => "variant_number",
    }
}

fn lyrics(order: &Order, limits: TextLimits) -> Result<Body, Failure> {
    let style = tags(&order.options.style_tags);
    let wish = given(&order.prompt).or(given(&order.title)).or(style.as_deref()).ok_or_else(no_words)?;
    Ok(Body { prompt: Some(shortened(wish, limits.lyrics_prompt).to_owned()), ..Body::default() })
}

/// With words they are sung; without, Mureka writes them from the prompt; an instrumental has none.
fn generate(order: &Order, model: &str, limits: TextLimits) -> Result<(&'static str, Body), Failure> {
    let style = tags(&order.options.style_tags);
    let wish = given(&order.prompt).or(given(&order.title));
    let body = Body {
        model: Some(model.to_owned()),
        n: Some(order.variants.clamp(1, SONGS_MAX)),
        ..Body::default()
    };
    if order.options.instrumental {
        let prompt = together(style.as_deref(), wish, limits.style).ok_or_else(no_words)?;
        return Ok(("/v1/instrumental/generate", Body { prompt: Some(prompt), ..body }));
    }
    let gender = order.options.vocal_gender;
    if let Some(words) = given(&order.lyrics) {
        let prompt = together(style.as_deref(), given(&order.prompt), limits.style);
        let lyrics = Some(words.to_owned());
        return Ok(("/v1/song/generate", Body { lyrics, prompt, gender: gender.map(singer), ..body }));
    }
    // This endpoint knows no gender, so the prompt names the singer.
    let voice = gender.map(voice);
    let style = together(style.as_deref(), voice.as_deref(), limits.prompt);
    let prompt = together(wish, style.as_deref(), limits.prompt).ok_or_else(no_words)?;
    Ok(("/v1/song/easy-generate", Body { prompt: Some(prompt), ..body }))
}

/// Style tags and prompt share one place, which is as long as its endpoint takes.
fn without_room(order: &Order, limits: TextLimits) -> Option<Unsupported> {
    let style = tags(&order.options.style_tags);
    let (style, prompt) = (("style_tags", style.as_deref()), ("prompt", given(&order.prompt)));
    if order.options.instrumental || given(&order.lyrics).is_some() {
        return crowded(NAME, &[style, prompt], limits.style);
    }
    let voice = order.options.vocal_gender.map_or(0, |gender| voice(gender).len() + ", ".len());
    crowded(NAME, &[prompt, style], limits.prompt - voice)
}

/// As a prompt names it.
fn voice(gender: VocalGender) -> String {
    format!("{} vocals", singer(gender))
}

const fn singer(gender: VocalGender) -> &'static str {
    match gender {
        VocalGender::Female => "female",
        VocalGender::Male => "male",
    }
}

/// At the place that is named, or at the song's end where that is known; else Mureka takes the end.
fn extend(order: &Order, of: &SourceClip, continue_at_ms: Option<i64>) -> Result<Body, Failure> {
    let (least, most) = (*EXTEND_AT_MS.start(), *EXTEND_AT_MS.end());
    if let Some(at) = continue_at_ms.filter(|at| !EXTEND_AT_MS.contains(at)) {
        let [least, most, at] = [least, most, at].map(seconds);
        return Err(invalid(format!("Mureka extends a song from {least} s to {most} s, not at {at} s")));
    }
    let end = of.duration_ms.filter(|end| *end >= least).map(|end| end.min(most));
    let words =
        given(&order.lyrics).ok_or_else(|| invalid("Mureka extends a song only with words to sing"))?;
    Ok(Body {
        song_id: Some(own_song(of)?),
        lyrics: Some(words.to_owned()),
        extend_at: continue_at_ms.or(end),
        extend_type: Some("tail"),
        model: order.options.model.clone(),
        ..Body::default()
    })
}

fn replace(order: &Order, of: &SourceClip, start_ms: i64, end_ms: i64) -> Result<Body, Failure> {
    if too_short(start_ms, end_ms) {
        return Err(invalid(format!("Mureka replaces sections of at least {} s", seconds(SECTION_MS_MIN))));
    }
    if start_ms < SECTION_MARGIN_MS || end_ms > last_end(of) {
        let margin = seconds(SECTION_MARGIN_MS);
        return Err(invalid(format!("Mureka replaces nothing within {margin} s of a song's start or end")));
    }
    Ok(Body {
        song_id: Some(own_song(of)?),
        lyrics: given(&order.lyrics).map(String::from),
        edit_start: Some(start_ms),
        edit_end: Some(end_ms),
        ..Body::default()
    })
}

fn too_short(start_ms: i64, end_ms: i64) -> bool {
    end_ms.saturating_sub(start_ms) < SECTION_MS_MIN
}

/// Where a section ends at the latest.
fn last_end(of: &SourceClip) -> i64 {
    of.duration_ms.map_or(i64::MAX, |duration| duration.saturating_sub(SECTION_MARGIN_MS))
}

/// As those read it who ask in seconds.
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn stems(of: &SourceClip) -> Result<Body, Failure> {
    let url = given(&of.audio_url).ok_or_else(|| invalid("the clip has no audio to separate"))?;
    Ok(Body { url: Some(url.to_owned()), ..Body::default() })
}

/// Mureka's id of a clip that Mureka made.
fn own_song(of: &SourceClip) -> Result<String, Failure> {
    if of.provider != NAME {
        return Err(invalid(format!(
            "the clip was made by {}; Mureka works on its own songs only",
            of.provider
        )));
    }
    given(&of.clip_id).map(String::from).ok_or_else(|| invalid("the clip's id at Mureka is not known"))
}

fn no_words() -> Failure {
    invalid("neither prompt nor title nor style tags")
}

fn invalid(why: impl AsRef<str>) -> Failure {
    Failure::new(Class::InvalidInput, why)
}
