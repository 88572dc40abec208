//! Whether a song's owner may do a thing now; what to say if not. Pure.
//!
//! Not here: who the owner is (the query that loads the song), or whether the money suffices (the
//! commit itself decides that, with the row locked).

use std::time::Duration;

use super::event::{Choice, Event};
use super::parts::Makes;
use super::phase::{ADDITIONS_MAX, ManualRetries, Phase, Rules, Song, Status};
use crate::time::Time;

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The song was deleted.
    Gone,
    WrongState(Status),
    NoSuchVariant,
    /// None of the lyrics has this number; those that there are.
    NoSuchLyrics(Vec<i16>),
    /// After moderation or bad input the same words would fail again (`design.md` section 10).
    NeedsOtherWords,
    /// Its lyrics are what failed: there are none yet that could be other ones.
    NoLyricsYet,
    /// As many retries in the last hour as there may be.
    RetryLater {
        per_hour: u16,
        /// Until there may be one again.
        wait: Duration,
        /// When there may be all of them again.
        full_at: Time,
    },
    /// None left of as many as there may ever be: contact support (PROV-10).
    NoRetriesLeft {
        max: u16,
    },
    /// It is in this state, and has as many additions as a song may have.
    TooManyAdditions(Status),
}

/// # Errors
/// Why the owner's wish is refused; [`step`](super::step::step) would do nothing with it.
pub fn check(song: &Song, event: &Event, now: Time, rules: &Rules) -> Result<(), Refusal> {
    match event {
        // Deleting again is fine (SONG-12).
        Event::Deleted => return Ok(()),
        _ if song.phase == Phase::Deleted => return Err(Refusal::Gone),
        _ => {}
    }
    match event {
        Event::Chosen { choice, .. } => can_choose(song, choice),
        Event::Retried { prompt, lyrics, .. } => {
            can_retry(song, prompt.as_deref(), lyrics.as_deref(), now, rules)
        }
        Event::Cancelled => match song.phase {
            Phase::Lyrics(_) | Phase::Music(_) | Phase::LyricsReady | Phase::Cancelled => Ok(()),
            Phase::Ready | Phase::Complete | Phase::Failed(_) | Phase::Deleted => {
                Err(Refusal::WrongState(song.status()))
            }
        },
        Event::Selected { variant_number, .. } | Event::Unshared { variant_number, .. } => {
            let there = song.variants.iter().any(|variant| variant.variant_number == *variant_number);
            if there { Ok(()) } else { Err(Refusal::NoSuchVariant) }
        }
        Event::Asked { .. } => can_add(song),
        Event::Resumed { .. } => can_resume(song, now, rules),
        Event::Limited { .. }
        | Event::Submitting { .. }
        | Event::NotSent { .. }
        | Event::Submitted { .. }
        | Event::Answered { .. }
        | Event::SubmitFailed { .. }
        | Event::News { .. }
        | Event::Wake
        | Event::Claimed { .. }
        | Event::PutBack { .. }
        | Event::GivenUp
        | Event::Viewed
        | Event::Deleted => Ok(()),
    }
}

fn can_add(song: &Song) -> Result<(), Refusal> {
    match song.phase {
        Phase::Ready | Phase::Complete if song.additions.len() < ADDITIONS_MAX => Ok(()),
        Phase::Ready | Phase::Complete => Err(Refusal::TooManyAdditions(song.status())),
        Phase::Lyrics(_)
        | Phase::LyricsReady
        | Phase::Music(_)
        | Phase::Failed(_)
        | Phase::Cancelled
        | Phase::Deleted => Err(Refusal::WrongState(song.status())),
    }
}

fn can_choose(song: &Song, choice: &Choice) -> Result<(), Refusal> {
    if song.phase != Phase::LyricsReady {
        return Err(Refusal::WrongState(song.status()));
    }
    match choice {
        Choice::Variant(index) if !song.lyrics_variants.iter().any(|v| v.variant_index == *index) => {
            Err(Refusal::NoSuchLyrics(song.lyrics_variants.iter().map(|v| v.variant_index).collect()))
        }
        Choice::Variant(_) | Choice::Text { .. } => Ok(()),
    }
}

fn can_retry(
    song: &Song,
    prompt: Option<&str>,
    lyrics: Option<&str>,
    now: Time,
    rules: &Rules,
) -> Result<(), Refusal> {
    let Phase::Failed(failure) = &song.phase else { return Err(Refusal::WrongState(song.status())) };
    if lyrics.is_some() && song.head.kind.makes() == Makes::Lyrics {
        return Err(Refusal::NoLyricsYet);
    }
    let changed = prompt.is_some_and(|prompt| song.wish.prompt.as_deref() != Some(prompt))
        || lyrics.is_some_and(|lyrics| song.lyrics.as_deref() != Some(lyrics));
    if !failure.retryable() && !changed {
        return Err(Refusal::NeedsOtherWords);
    }
    within_limits(song, now, rules)
}

/// What runs beside the song ends first: it has one task under way, or several beside it.
fn can_resume(song: &Song, now: Time, rules: &Rules) -> Result<(), Refusal> {
    match song.phase {
        Phase::Ready | Phase::Complete if song.runs().next().is_none() => within_limits(song, now, rules),
        Phase::Ready
        | Phase::Complete
        | Phase::Lyrics(_)
        | Phase::LyricsReady
        | Phase::Music(_)
        | Phase::Failed(_)
        | Phase::Cancelled
        | Phase::Deleted => Err(Refusal::WrongState(song.status())),
    }
}

fn within_limits(song: &Song, now: Time, rules: &Rules) -> Result<(), Refusal> {
    let ManualRetries { max, per_hour } = rules.manual_retries;
    match next_retry(song, now, rules) {
        NextRetry::Now => Ok(()),
        NextRetry::At(at) => {
            let full_at = song.retries.last().map_or(at, |last| *last + HOUR);
            Err(Refusal::RetryLater { per_hour, wait: at.since(now), full_at })
        }
        NextRetry::Never => Err(Refusal::NoRetriesLeft { max }),
    }
}

/// When the owner may ask again (PROV-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextRetry {
    Now,
    At(Time),
    Never,
}

/// As far as the two limits go; whether there is anything to retry is another question.
pub fn next_retry(song: &Song, now: Time, rules: &Rules) -> NextRetry {
    let limits = rules.manual_retries;
    if song.retries.len() >= usize::from(limits.max) {
        return NextRetry::Never;
    }
    // The oldest of the last `per_hour` retries must be an hour ago.
    let nth = song.retries.len().checked_sub(usize::from(limits.per_hour));
    match nth.and_then(|index| song.retries.get(index)) {
        Some(at) if *at + HOUR > now => NextRetry::At(*at + HOUR),
        _ => NextRetry::Now,
    }
}
