//! Writes the orders that work on a clip that exists (`suno.md` section 3).
//!
//! Pure. A clip of the gateway's own is named by its ids; one of another provider's making is uploaded from
//! its url, where the gateway has a way for that.

use serde_json::{Map, Value, json};

use super::Stems;
use super::request::{self, Body, NEUTRAL_STYLE, Request, given, tags};
use crate::provider::failure::{Class, Failure};
use crate::provider::{Order, SourceClip, TextLimits, Unsupported, Work};

/// A section that is replaced is 6 to 60 s long, and at most half of the song.
const SECTION_MS: std::ops::RangeInclusive<i64> = 6_000..=60_000;
/// A persona is made from 10 to 30 s.
const PERSONA_MS: std::ops::RangeInclusive<i64> = 10_000..=30_000;
/// Where an extension begins must lie before the end.
const BEFORE_END_MS: i64 = 10;
/// What is sung where nobody sings.
const INSTRUMENTAL: &str = "[Instrumental]";

/// How the gateway is told which clip is meant.
enum Place<'a> {
    Own { task: &'a str, clip: &'a str },
    Elsewhere(&'a str),
}

fn own(of: &SourceClip) -> Option<Place<'_>> {
    let made_here = of.provider == super::CAPABILITIES.name;
    let (task, clip) = (given(&of.provider_task)?, given(&of.clip_id)?);
    made_here.then_some(Place::Own { task, clip })
}

fn place(of: &SourceClip) -> Option<Place<'_>> {
    own(of).or_else(|| given(&of.audio_url).map(Place::Elsewhere))
}

/// Whether the gateway is to fetch something for this order from an address that we name.
pub(super) fn sends_a_url(order: &Order) -> bool {
    match &order.work {
        Work::Generate => given(&order.options.reference_audio_url).is_some(),
        Work::Cover { .. } => true,
        Work::Extend { of, .. } | Work::ReplaceSection { of, .. } => own(of).is_none(),
        Work::Lyrics
        | Work::Merge { .. }
        | Work::Stems { .. }
        | Work::Persona { .. }
        | Work::Video { .. } => false,
    }
}

/// What it refuses of an order for the sake of the clip it works on, and what the request has no place for (PROV-1).
pub(super) fn refusals(order: &Order, model: &str) -> Vec<Unsupported> {
    let mut found = of_clip(order);
    let limits = super::limits(model);
    match &order.work {
        Work::Generate => found.extend(request::without_place(order, limits)),
        Work::Cover { of } => found.extend(request::without_place(&covering(order, of), limits)),
        Work::Extend { of, .. } if is_wish(order, of) => {
            found.extend(request::without_place(&filled(order, of), limits));
        }
        Work::Lyrics
        | Work::Extend { .. }
        | Work::ReplaceSection { .. }
        | Work::Merge { .. }
        | Work::Stems { .. }
        | Work::Persona { .. }
        | Work::Video { .. } => {}
    }
    found
}

/// What it refuses for the sake of the clip.
fn of_clip(order: &Order) -> Vec<Unsupported> {
    let mut found = Vec::new();
    let mut refuse = |asked: bool, field, why: &str| {
        if asked {
            found.push(Unsupported { field, why: why.to_owned() });
        }
    };
    let lost = "suno has neither the ids of this clip nor a url of it";
    let unknown = "suno has lost the ids of this clip";
    match &order.work {
        Work::Lyrics | Work::Generate | Work::Merge { .. } => {}
        Work::Extend { of, continue_at_ms } => {
            refuse(place(of).is_none(), "variant_number", lost);
            let inside = |at: &i64| *at > 0 && of.duration_ms.is_none_or(|end| *at < end);
            let outside = !continue_at_ms.as_ref().is_none_or(inside);
            refuse(outside, "continue_at_s", "it must lie within the clip");
        }
        Work::ReplaceSection { of, start_ms, end_ms } => {
            refuse(place(of).is_none(), "variant_number", lost);
            let length = end_ms.saturating_sub(*start_ms);
            refuse(*start_ms < 0, "start_s", "it must lie within the clip");
            refuse(of.duration_ms.is_some_and(|end| *end_ms > end), "end_s", "it must lie within the clip");
            refuse(!SECTION_MS.contains(&length), "end_s", "suno replaces sections of 6 to 60 s");
            let most = of.duration_ms.is_some_and(|whole| length > whole / 2);
            refuse(most, "end_s", "suno replaces at most half of a song");
            refuse(section_words(order, of).is_none(), "lyrics", "suno needs the words of the section");
        }
        Work::Cover { of } => refuse(given(&of.audio_url).is_none(), "variant_number", lost),
        Work::Persona { of, .. } => {
            refuse(own(of).is_none(), "variant_number", unknown);
            let short = of.duration_ms.is_some_and(|length| length < *PERSONA_MS.start());
            refuse(short, "variant_number", "suno makes personas from clips of 10 s at least");
        }
        Work::Stems { of } | Work::Video { of } => refuse(own(of).is_none(), "variant_number", unknown),
    }
    found
}

/// The request for an order that works on a clip.
///
/// # Errors
/// `InvalidInput` when the clip or the order lacks what the request needs.
pub(super) fn request(
    order: &Order,
    model: &str,
    limits: TextLimits,
    stems: Stems,
    reply_to: &str,
) -> Result<Request, Failure> {
    let refused = |it: Unsupported| Failure::new(Class::InvalidInput, format!("{}: {}", it.field, it.why));
    if let Some(first) = of_clip(order).into_iter().next() {
        return Err(refused(first));
    }
    let by_ids = |path, of, more| ids(path, of, more, reply_to);
    match &order.work {
        Work::Extend { of, continue_at_ms } => extend(order, of, *continue_at_ms, model, limits, reply_to),
        Work::ReplaceSection { of, start_ms, end_ms } => {
            replace(order, of, [*start_ms, *end_ms], model, limits, reply_to)
        }
        Work::Cover { of } => request::generate(&covering(order, of), model, limits, reply_to),
        Work::Stems { of } => by_ids("/api/v1/vocal-removal/generate", of, json!({"type": stems.as_str()})),
        Work::Video { of } => by_ids("/api/v1/mp4/generate", of, json!({})),
        Work::Persona { of, name, description } => persona(of, name, description),
        Work::Lyrics | Work::Generate | Work::Merge { .. } => Err(not_made()),
    }
}

fn not_made() -> Failure {
    Failure::new(Class::InvalidInput, "suno does not make this of a clip")
}

fn ids(path: &'static str, of: &SourceClip, more: Value, reply_to: &str) -> Result<Request, Failure> {
    let Some(Place::Own { task, clip }) = own(of) else { return Err(not_made()) };
    let body = json!({"taskId": task, "audioId": clip, "callBackUrl": reply_to});
    Ok(Request { path, body: Body::Further(joined(body, more)) })
}

/// Synchronous: nobody is called back.
fn persona(of: &SourceClip, name: &str, description: &str) -> Result<Request, Failure> {
    let Some(Place::Own { task, clip }) = own(of) else { return Err(not_made()) };
    let description = if description.trim().is_empty() { name } else { description };
    // 0 to 30 s unless the clip is shorter than that.
    let end = of.duration_ms.filter(|length| length < PERSONA_MS.end()).map(|length| length / 1000);
    let body = json!({
        "taskId": task, "audioId": clip, "name": name, "description": description, "vocalEnd": end,
    });
    Ok(Request { path: "/api/v1/generate/generate-persona", body: Body::Further(joined(body, json!({}))) })
}

fn extend(
    order: &Order,
    of: &SourceClip,
    from_ms: Option<i64>,
    model: &str,
    limits: TextLimits,
    reply_to: &str,
) -> Result<Request, Failure> {
    let from = from_ms.or(of.duration_ms.map(|end| end - BEFORE_END_MS)).map(seconds);
    match place(of).ok_or_else(not_made)? {
        Place::Own { clip, .. } => {
            let flag = from_ms.is_some() || !adds_nothing(order, of);
            let who = json!({
                "defaultParamFlag": flag, "audioId": clip, "model": model, "callBackUrl": reply_to,
            });
            let texts = || {
                let words = section_words(order, of).or(given(&of.lyrics)).unwrap_or(INSTRUMENTAL);
                joined(texts(order, of, limits), json!({"prompt": words, "continueAt": from}))
            };
            let body = joined(who, if flag { texts() } else { json!({}) });
            Ok(Request { path: "/api/v1/generate/extend", body: Body::Further(body) })
        }
        Place::Elsewhere(url) => {
            let filled = filled(order, of);
            let instrumental = filled.options.instrumental;
            let flag = !is_wish(order, of);
            let who = json!({
                "defaultParamFlag": flag, "uploadUrl": url, "instrumental": instrumental, "model": model,
                "continueAt": from, "callBackUrl": reply_to,
            });
            // Without words of their own the gateway writes them from the wish.
            let texts = if flag { texts(order, of, limits) } else { wish(&filled, limits)? };
            let body = joined(who, texts);
            Ok(Request { path: "/api/v1/generate/upload-extend", body: Body::Further(body) })
        }
    }
}

fn wish(filled: &Order, limits: TextLimits) -> Result<Value, Failure> {
    Ok(json!({"prompt": request::simple(filled, limits)?.prompt}))
}

/// Whether an extension is ordered by a wish alone: of an uploaded clip, without words of its own.
fn is_wish(order: &Order, of: &SourceClip) -> bool {
    let silent = filled(order, of).options.instrumental;
    matches!(place(of), Some(Place::Elsewhere(_))) && !silent && given(&order.lyrics).is_none()
}

/// Whether everything about the extension is to be as in its source.
fn adds_nothing(order: &Order, of: &SourceClip) -> bool {
    let options = &order.options;
    let as_before = |ours: &Option<String>, theirs| ours.is_none() || ours == theirs;
    order.lyrics.is_none()
        && order.prompt.is_none()
        && as_before(&order.title, &of.title)
        && (options.style_tags.is_empty() || options.style_tags == of.style_tags)
        && options.negative_tags.is_empty()
        && options.vocal_gender.is_none()
        && options.persona_id.is_none()
        && [options.style_weight, options.weirdness, options.audio_weight] == [None; 3]
}

fn replace(
    order: &Order,
    of: &SourceClip,
    [start_ms, end_ms]: [i64; 2],
    model: &str,
    limits: TextLimits,
    reply_to: &str,
) -> Result<Request, Failure> {
    let whose = match place(of).ok_or_else(not_made)? {
        Place::Own { task, clip } => json!({"taskId": task, "audioId": clip}),
        Place::Elsewhere(url) => json!({"uploadUrl": url, "model": model}),
    };
    let filled = filled(order, of);
    let what = json!({
        "prompt": section_words(order, of),
        "tags": tags(&filled.options.style_tags).unwrap_or_else(|| NEUTRAL_STYLE.to_owned()),
        "title": request::title(&filled, limits.title),
        "negativeTags": tags(&order.options.negative_tags).unwrap_or_default(),
        "infillStartS": seconds(start_ms),
        "infillEndS": seconds(end_ms),
        "fullLyrics": of.lyrics,
        "callBackUrl": reply_to,
    });
    Ok(Request { path: "/api/v1/generate/replace-section", body: Body::Further(joined(whose, what)) })
}

/// What is sung in the new part; a description does where there are no words.
fn section_words<'a>(order: &'a Order, of: &SourceClip) -> Option<&'a str> {
    let silent = (order.options.instrumental || of.instrumental).then_some(INSTRUMENTAL);
    given(&order.lyrics).or(given(&order.prompt)).or(silent)
}

/// The texts and options of custom mode.
fn texts(order: &Order, of: &SourceClip, limits: TextLimits) -> Value {
    let it = request::custom(&filled(order, of), limits);
    json!({
        "prompt": it.prompt, "style": it.style, "title": it.title, "negativeTags": it.negative_tags,
        "vocalGender": it.vocal_gender, "styleWeight": it.style_weight,
        "weirdnessConstraint": it.weirdness_constraint, "audioWeight": it.audio_weight,
        "personaId": it.persona_id, "personaModel": it.persona_model,
    })
}

/// The order, as its source is where it says nothing.
fn filled(order: &Order, of: &SourceClip) -> Order {
    let mut filled = order.clone();
    filled.title = filled.title.or_else(|| of.title.clone());
    filled.options.instrumental |= of.instrumental && order.lyrics.is_none();
    if filled.options.style_tags.is_empty() && order.prompt.is_none() {
        filled.options.style_tags.clone_from(&of.style_tags);
    }
    filled
}

/// The same song, from its own sound: `upload-cover`.
fn covering(order: &Order, of: &SourceClip) -> Order {
    let mut covering = filled(order, of);
    covering.lyrics = covering.lyrics.or_else(|| of.lyrics.clone());
    covering.options.reference_audio_url.clone_from(&of.audio_url);
    covering.work = Work::Generate;
    covering
}

/// The fields of both, those without a value left out.
fn joined(mut body: Value, more: Value) -> Value {
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
        let there = std::mem::take(body).into_iter().filter(|(_, value)| !value.is_null());
        *body = there.collect::<Map<_, _>>();
    }
    body
}

/// In steps of 0.01, whole where they are whole.
fn seconds(millis: i64) -> Value {
    let hundredths = millis / 10;
    if hundredths % 100 == 0 { json!(hundredths / 100) } else { json!(hundredths as f64 / 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_two_decimals_at_most() {
        assert_eq!(seconds(60_000), json!(60));
        assert_eq!(seconds(120_500), json!(120.5));
        assert_eq!(seconds(62_259), json!(62.25));
        assert_eq!(seconds(0), json!(0));
    }
}
