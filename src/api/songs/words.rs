//! Words that change: the choice of the lyrics, and another try with others. They are held to what the song's provider takes,
//! as a creation's are, before anything is reserved (PROV-15).
//!
//! Not here: whether the song may change now (`song::refusal`), what the words do to it (`song::step`).

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde_json::Value;

use super::{own, tell};
use crate::api::problem::{FieldError, Problem};
use crate::api::shape::error_at;
use crate::api::who::Who;
use crate::api::wishes::{self, CHOOSE, RETRY};
use crate::api::{Api, Raw, body, song_id};
use crate::id::{self, TaskId};
use crate::song::event::{Choice, Event};
use crate::song::parts::TaskKind;
use crate::song::phase::{Phase, Song};
use crate::song::refusal::Refusal;
use crate::song::step::step;
use crate::song::wish::{Alternative, Mode};

/// Picks a text, or brings an edited one; the music starts (SONG-3, SONG-5).
pub(super) async fn choose(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let body = body(CHOOSE, &raw.0)?;
    let (choice, told): (Choice, Told) = match (body.integer("variant_index"), body.owned("text")) {
        (Some(index), None) if body.text("title").is_none() => (
            Choice::Variant(i16::try_from(index).unwrap_or(i16::MAX)),
            &[("lyrics", "variant_index"), ("title", "variant_index")],
        ),
        (None, Some(text)) => {
            (Choice::Text { text, title: body.owned("title") }, &[("lyrics", "text"), ("title", "title")])
        }
        (Some(_), None) => return Err(Problem::invalid_at("/title", "comes with `text` only")),
        (None, None) if names(&raw.0, "text") => return Err(Problem::invalid_at("/text", "is empty")),
        _ => return Err(Problem::invalid_at("", "send either `variant_index` or `text`")),
    };
    let event = Event::Chosen { choice, task: TaskId(id::fresh()), unable: Vec::new() };
    let event = fitting(&api, &own(&api, &who, song_id(&path)?).await?, event, told)?;
    tell(&api, who, &path, event).await
}

/// Whether a body that was read names this field with a text, of which nothing may have been left.
fn names(bytes: &[u8], field: &str) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok_and(|body| body[field].is_string())
}

/// A new attempt of the phase that failed (PROV-10), maybe with other words (PROV-15).
pub(super) async fn retry(
    api: web::Data<Api>,
    who: Who,
    path: web::Path<String>,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let body = body(RETRY, &raw.0)?;
    let (prompt, lyrics) = (body.owned("prompt"), body.owned("lyrics"));
    let mut told = Vec::new();
    if lyrics.is_some() {
        told.push(("lyrics", "lyrics"));
    }
    if prompt.is_some() {
        // Where both are one text, the tags have no more room for what is written now.
        told.extend([("prompt", "prompt"), ("style_tags", "prompt")]);
    }
    let sung = lyrics.is_some();
    let mut event = Event::Retried { task: TaskId(id::fresh()), prompt, lyrics, unable: Vec::new() };
    if !told.is_empty() {
        let song = own(&api, &who, song_id(&path)?).await?;
        if sung && song.wish.options.instrumental {
            return Err(Problem::invalid_at("/lyrics", "an instrumental has none"));
        }
        if !sung && refused_words(&song) && !hears_the_prompt(&api, &song) {
            return Err(Refusal::NeedsOtherWords.into());
        }
        if song.wish.mode == Mode::Music && !told.contains(&("prompt", "prompt")) {
            // With words to sing, both may have less room than without.
            told.extend([("prompt", "lyrics"), ("style_tags", "lyrics")]);
        }
        event = fitting(&api, &song, event, &told)?;
    }
    tell(&api, who, &path, event).await
}

/// Whether its words are what failed.
fn refused_words(song: &Song) -> bool {
    matches!(&song.phase, Phase::Failed(failure) if !failure.retryable())
}

/// Whether the song's prompt is sent at all: where it is not, with another one the same would be refused again.
fn hears_the_prompt(api: &Api, song: &Song) -> bool {
    let described = song.lyrics.is_none() || song.wish.options.style_tags.is_empty();
    let provider = api.world.providers.get(&song.head.provider);
    song.head.kind != TaskKind::Generate
        || described
        || song.wish.options.instrumental
        || provider.is_none_or(|provider| provider.capabilities().prompt_beside_words)
}

/// What a provider may find wrong (a field of a creation), and the field of this body that says it.
type Told<'a> = &'a [(&'static str, &'static str)];

/// The event, if the song's provider takes the words that it would get by it, as a creation's are looked at; and with
/// those that could take over and do not. What cannot be told by these fields stands as it was created.
fn fitting(api: &Api, song: &Song, event: Event, told: Told<'_>) -> Result<Event, Problem> {
    let changed = step(song, &event, api.clock().now(), &api.world.rules).song;
    let Some(provider) = api.world.providers.get(&changed.head.provider) else { return Ok(event) };
    let mut errors: Vec<FieldError> = Vec::new();
    for lacking in wishes::still_lacking(provider.capabilities(), &changed) {
        let Some((field, name)) = told.iter().find(|(field, _)| *field == lacking.field) else { continue };
        let why = if field == name { lacking.why } else { format!("{field}: {}", lacking.why) };
        let error = error_at(name, why);
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
    if errors.is_empty() {
        Ok(without(unable(api, changed, told), event))
    } else {
        Err(Problem::invalid(errors))
    }
}

/// Who could take over and cannot with these words (PROV-12).
fn unable(api: &Api, mut changed: Song, told: Told<'_>) -> Vec<String> {
    let others = changed.wish.alternatives.clone();
    let takes = |other: &Alternative| {
        if other.model.is_some() {
            Arc::make_mut(&mut changed.wish).options.model.clone_from(&other.model);
        }
        let Some(provider) = api.world.providers.get(&other.provider) else { return true };
        let lacking = wishes::still_lacking(provider.capabilities(), &changed);
        !lacking.iter().any(|lacking| told.iter().any(|(field, _)| *field == lacking.field))
    };
    let names = |other: Alternative| other.provider;
    let (_, unable): (Vec<_>, Vec<_>) = others.into_iter().partition(takes);
    unable.into_iter().map(names).collect()
}

fn without(others: Vec<String>, mut event: Event) -> Event {
    if let Event::Chosen { unable, .. } | Event::Retried { unable, .. } = &mut event {
        *unable = others;
    }
    event
}
