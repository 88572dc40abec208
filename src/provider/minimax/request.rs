//! Writes orders as bodies of `POST /v1/music_generation` (`minimax.md` section 2).
//!
//! Pure. Which of the models for covers is used follows from the order: that there is audio to cover, and whether a
//! free model was named.

use serde::Serialize;

use super::OutputFormat;
use crate::provider::failure::{Class, Failure};
use crate::provider::words::{crowded, given, tags, together};
use crate::provider::{Order, TextLimits, Unsupported, Work};

/// What a song is like when nothing says how it should sound.
const NEUTRAL_STYLE: &str = "pop";
/// Fewer words are refused by the older models.
const LYRICS_CHARS_MIN: usize = 10;

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Request {
    model: String,
    prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lyrics: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    lyrics_optimizer: bool,
    #[serde(skip_serializing_if = "is_false")]
    is_instrumental: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_url: Option<String>,
    output_format: &'static str,
    audio_setting: AudioSetting,
}

#[derive(Debug, PartialEq, Serialize)]
struct AudioSetting {
    sample_rate: u32,
    bitrate: u32,
    format: &'static str,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// "2.5+ and 2.6", and what came after; 2.5 and before have no such switch.
pub(super) fn has_instrumental_switch(model: &str) -> bool {
    matches!(model, "music-2.5+" | "music-2.6" | "music-2.6-free" | "music-3.0")
}

/// 2.5 and later write the words themselves.
pub(super) fn has_lyrics_optimizer(model: &str) -> bool {
    has_instrumental_switch(model) || model == "music-2.5"
}

/// What of an order cannot be done, known before anything is charged: on a clip, after an example, or with texts that
/// have no room.
pub(super) fn refused(order: &Order, model: &str) -> Vec<Unsupported> {
    let limits = super::limits(model);
    let mut found = Vec::new();
    if matches!(order.work, Work::Generate | Work::Cover { .. }) {
        found.extend(without_room(order, limits));
    }
    found.extend(too_few_words(order, model).map(|why| Unsupported { field: "lyrics", why }));
    let field = match &order.work {
        work if !work.sources().is_empty() => "variant_number",
        Work::Generate if given(&order.options.reference_audio_url).is_some() => "instrumental",
        _ => return found,
    };
    let failed = request(order, model, limits, OutputFormat::Url).err();
    found.extend(failed.map(|failure| Unsupported { field, why: failure.message }));
    found
}

/// Said of a song that is made of nothing but words; a cover has the clip's.
fn too_few_words(order: &Order, model: &str) -> Option<String> {
    let alone = order.work == Work::Generate && given(&order.options.reference_audio_url).is_none();
    let sung = given(&order.lyrics).filter(|_| alone && !order.options.instrumental)?;
    let few = sung.chars().count() < LYRICS_CHARS_MIN && !has_lyrics_optimizer(model);
    few.then(|| format!("{model} sings at least {LYRICS_CHARS_MIN} characters"))
}

/// Style tags and prompt share one place.
fn without_room(order: &Order, limits: TextLimits) -> Option<Unsupported> {
    let style = tags(&order.options.style_tags);
    let (style, prompt) = (("style_tags", style.as_deref()), ("prompt", given(&order.prompt)));
    let texts = if style_leads(order) { [style, prompt] } else { [prompt, style] };
    crowded("minimax", &texts, limits.prompt)
}

/// The body for an order.
///
/// # Errors
/// `InvalidInput`, with what is wrong: nothing was sent.
pub(super) fn request(
    order: &Order,
    model: &str,
    limits: TextLimits,
    output: OutputFormat,
) -> Result<Request, Failure> {
    let source = match &order.work {
        Work::Generate => given(&order.options.reference_audio_url),
        Work::Cover { of } => {
            Some(given(&of.audio_url).ok_or_else(|| invalid("the clip has no audio to cover"))?)
        }
        Work::Lyrics
        | Work::Extend { .. }
        | Work::ReplaceSection { .. }
        | Work::Merge { .. }
        | Work::Stems { .. }
        | Work::Persona { .. }
        | Work::Video { .. } => {
            return Err(invalid(format!("MiniMax does not make {}", order.kind().as_str())));
        }
    };
    let body = Request {
        model: model.to_owned(),
        prompt: prompt(order, limits.prompt),
        lyrics: given(&order.lyrics).filter(|_| !order.options.instrumental).map(String::from),
        lyrics_optimizer: false,
        is_instrumental: false,
        audio_url: source.map(String::from),
        output_format: match output {
            OutputFormat::Url => "url",
            OutputFormat::Hex => "hex",
        },
        audio_setting: audio_setting(output),
    };
    if source.is_some() { cover(body, order) } else { song(body, order) }
}

/// A song from nothing but words.
fn song(body: Request, order: &Order) -> Result<Request, Failure> {
    let model = body.model.clone();
    if order.options.instrumental {
        let able = has_instrumental_switch(&model);
        let refused = || invalid(format!("MiniMax makes no instrumentals with {model}"));
        return able.then_some(Request { is_instrumental: true, ..body }).ok_or_else(refused);
    }
    if let Some(why) = too_few_words(order, &model) {
        return Err(invalid(why));
    }
    match body.lyrics {
        Some(_) => Ok(body),
        None if !has_lyrics_optimizer(&model) => {
            Err(invalid(format!("{model} sings only words that it is given")))
        }
        None if given(&order.prompt).or(given(&order.title)).is_none()
            && order.options.style_tags.is_empty() =>
        {
            Err(invalid("neither prompt nor title nor style tags"))
        }
        None => Ok(Request { lyrics_optimizer: true, ..body }),
    }
}

/// The same song in another style; the words are its own unless others are given.
fn cover(body: Request, order: &Order) -> Result<Request, Failure> {
    if order.options.instrumental {
        return Err(invalid("MiniMax covers songs only with their vocals"));
    }
    let model = if body.model.ends_with("-free") { "music-cover-free" } else { "music-cover" };
    Ok(Request { model: model.to_owned(), ..body })
}

/// How it is to sound and what it is about; what leads is what must not be left out.
fn prompt(order: &Order, chars_max: usize) -> String {
    let style = tags(&order.options.style_tags);
    let (style, wish) = (style.as_deref(), given(&order.prompt).or(given(&order.title)));
    let prompt = match style_leads(order) {
        true => together(style, given(&order.prompt), chars_max).or_else(|| together(wish, None, chars_max)),
        false => together(wish, style, chars_max),
    };
    prompt.unwrap_or_else(|| NEUTRAL_STYLE.to_owned())
}

/// Where nothing has to be written from the wish.
fn style_leads(order: &Order) -> bool {
    given(&order.lyrics).is_some() || order.options.instrumental
}

/// A link may lead to the best there is; in the answer itself the song takes twice its size.
const fn audio_setting(output: OutputFormat) -> AudioSetting {
    let bitrate = match output {
        OutputFormat::Url => 256_000,
        OutputFormat::Hex => 128_000,
    };
    AudioSetting { sample_rate: 44_100, bitrate, format: "mp3" }
}

fn invalid(why: impl AsRef<str>) -> Failure {
    Failure::new(Class::InvalidInput, why)
}
