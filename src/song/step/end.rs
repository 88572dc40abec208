//! How phases end: delivered, failed, cancelled; and what that owes (CRED-2, SONG-11).

use super::run::elsewhere;
use super::{Draft, addition};
use crate::credit::Credits;
use crate::provider::failure::{Class, Failure, TOO_FEW_LYRICS};
use crate::song::clips;
use crate::song::event::EventKind;
use crate::song::parts::{LyricsText, Makes};
use crate::song::phase::{Call, CallState, LyricsVariant, Phase, Push, Run, Song};

/// Ends the phase once all of its calls have ended.
pub(super) fn conclude(next: &mut Draft, run: Run) {
    if !run.calls.iter().all(|call| call.state.ended()) {
        return next.keep(run);
    }
    match next.kind().makes() {
        Makes::Lyrics => conclude_lyrics(next, &run),
        Makes::Music => conclude_music(next, &run),
        // One that was made has ended already.
        Makes::Addition => addition::fail(next, &run.calls),
    }
}

pub(super) fn conclude_lyrics(next: &mut Draft, run: &Run) {
    let texts: Vec<&LyricsText> = run.calls.iter().flat_map(|call| &call.texts).collect();
    if texts.len() < 2 {
        let failure = first_failure(&run.calls).unwrap_or_else(|| {
            let message = format!("{} of at least 2 lyrics came back with words", texts.len());
            Failure::new(Class::ProviderError, message).code(TOO_FEW_LYRICS)
        });
        return fail(next, run, failure);
    }
    next.song.lyrics_variants = (0..)
        .zip(texts)
        .map(|(variant_index, text)| LyricsVariant {
            variant_index,
            title: text.title.clone(),
            text: text.text.clone(),
            selected: false,
        })
        .collect();
    deliver(next, Credits::ZERO);
    next.song.phase = Phase::LyricsReady;
    next.notify(Push::LyricsReady);
    next.kind = Some(EventKind::LyricsReady);
}

pub(super) fn conclude_music(next: &mut Draft, run: &Run) {
    if !next.song.variants.iter().any(crate::song::phase::Variant::playable) {
        let failure = first_failure(&run.calls)
            .unwrap_or_else(|| Failure::new(Class::ProviderError, "finished without a playable clip"));
        return fail(next, run, failure);
    }
    clips::close(&mut next.song);
    let missing = brought_nothing(&next.song, run);
    deliver(next, missing);
    next.song.phase = Phase::Ready;
    next.notify(Push::MusicReady);
    next.kind = Some(EventKind::Ready);
}

pub(super) fn first_failure(calls: &[Call]) -> Option<Failure> {
    calls.iter().find_map(|call| match &call.state {
        CallState::Failed { failure } => Some(failure.clone()),
        CallState::Accepted { .. }
        | CallState::Intent { .. }
        | CallState::Submitted { .. }
        | CallState::Unknown { .. }
        | CallState::Done => None,
    })
}

/// What was asked for is there, but for what this much is given back for.
pub(super) fn deliver(next: &mut Draft, missing: Credits) {
    let now = next.now;
    let progress = next.progress();
    progress.completed_at = Some(now);
    progress.error = None;
    next.settle(missing);
}

/// The phase failed: at another provider it may yet succeed, where the choice was ours (PROV-12).
pub(super) fn fail(next: &mut Draft, run: &Run, failure: Failure) {
    if failure.is_the_providers() && elsewhere(next, run, failure.class) {
        next.progress().error = Some(failure);
        return;
    }
    let now = next.now;
    let progress = next.progress();
    progress.completed_at = Some(now);
    progress.error = Some(failure.clone());
    clips::abandon(&mut next.song);
    next.settle(next.song.head.price);
    next.song.phase = Phase::Failed(failure);
    next.kind = Some(EventKind::Failed);
}

pub(super) fn cancel(next: &mut Draft) {
    if next.song.phase.run().is_some() {
        if goes_on(&next.song) {
            return leave_missing(next);
        }
        clips::abandon(&mut next.song);
        next.settle(not_delivered(&next.song));
    }
    next.song.phase = Phase::Cancelled;
    next.kind = Some(EventKind::Cancelled);
}

/// Whether what is made now was missing of a song that was delivered before (CRED-8).
fn goes_on(song: &Song) -> bool {
    !song.wish.variations.is_empty() && song.head.price == Credits::ZERO && clips::finished(song) > 0
}

/// The song is again what it was before its owner asked for what is missing: that was delivered, and stays theirs.
fn leave_missing(next: &mut Draft) {
    clips::abandon(&mut next.song);
    deliver(next, Credits::ZERO);
    let seen = next.song.last_viewed_at.is_some();
    next.song.phase = if seen { Phase::Complete } else { Phase::Ready };
    next.kind = Some(if seen { EventKind::Complete } else { EventKind::Ready });
}

/// What is given back for calls that were paid for and brought nothing. The variations of an order that are missing are
/// made later, for what was paid.
fn brought_nothing(song: &Song, run: &Run) -> Credits {
    let empty = run.calls.iter().filter(|call| !clips::playable(song, call)).count();
    match (i64::try_from(empty), i64::try_from(run.calls.len())) {
        (Ok(empty), Ok(all @ 1..)) if song.wish.variations.is_empty() => {
            Credits::from_thousandths(song.head.price.thousandths() * empty / all)
        }
        _ => Credits::ZERO,
    }
}

/// What is given back for a phase that was cut off: a clip that is there is paid for (SONG-11).
pub(super) fn not_delivered(song: &Song) -> Credits {
    let price = song.head.price;
    match (song.head.kind.makes(), clips::finished(song), i64::try_from(song.variants.len())) {
        (Makes::Music, there @ 1.., Ok(of)) => {
            price + -Credits::from_thousandths(price.thousandths() * there / of)
        }
        (Makes::Music | Makes::Lyrics | Makes::Addition, ..) => price,
    }
}

pub(super) fn delete(next: &mut Draft) {
    addition::abandon_all(next);
    next.song.phase = Phase::Deleted;
    next.kind = Some(EventKind::Gone);
}
