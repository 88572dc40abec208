//! What a step says of the provider that had the song: its history, by which the next ones are chosen (PROV-12).
//!
//! Not here: what becomes of it (`provider::health`).

use crate::id::TaskId;
use crate::provider::failure::Failure;
use crate::song::phase::{AdditionState, Call, CallState, Phase, Song};
use crate::time::Time;

/// Whether the provider delivered what ended with this step; `None` where that says nothing of the provider.
pub(super) fn how_it_went(before: &Song, after: &Song, task: TaskId) -> Option<bool> {
    if before.provider_of(task) != after.provider_of(task) {
        // One that only waited there had no order to fail.
        let waits = |call: &Call| matches!(call.state, CallState::Accepted { .. });
        let ordered = before.run_of(task).is_some_and(|run| !run.calls.iter().all(waits));
        return ordered.then_some(false);
    }
    if after.run_of(task).is_some() {
        return None;
    }
    let failure = |failure: &Failure| failure.is_the_providers().then_some(false);
    match (after.addition(task).map(|one| &one.state), &after.phase) {
        (Some(AdditionState::Done(_)), _) | (None, Phase::Ready | Phase::LyricsReady) => Some(true),
        (Some(AdditionState::Failed(told)), _) | (None, Phase::Failed(told)) => failure(told),
        (Some(AdditionState::Running(_)), _)
        | (None, Phase::Lyrics(_) | Phase::Music(_) | Phase::Complete | Phase::Cancelled | Phase::Deleted) => {
            None
        }
    }
}

/// Since when its provider has been at work on it: where others were before, not since they were.
pub(super) fn at_work_since(song: &Song, task: TaskId) -> Option<Time> {
    let progress = song.progress_of(task)?;
    let Some(last) = progress.passed_over.last() else { return progress.started_at };
    let ordered = |call: &Call| match &call.state {
        CallState::Submitted { since, .. } => Some(*since),
        // Within seconds of its start.
        CallState::Intent { not_after, .. } => Some(*not_after),
        CallState::Accepted { .. }
        | CallState::Unknown { .. }
        | CallState::Done
        | CallState::Failed { .. } => None,
    };
    // Of an order of unknown fate no more is known than when it got the song.
    song.run_of(task)?.calls.iter().filter_map(ordered).min().or(Some(last.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::failure::Class;
    use crate::song::event::Event;
    use crate::song::phase::Waiting;
    use crate::song::tests::{Story, a_song, finished, gave_up, minutes, seconds, with_another};
    use crate::song::wish::Mode;

    fn went(before: &Story, after: &Story) -> Option<bool> {
        how_it_went(&before.song, &after.song, before.song.head.task)
    }

    #[test]
    fn a_provider_that_only_kept_a_song_waiting_has_not_failed_it() {
        let song = with_another(Mode::Music);
        let call = song.key(0, 0);
        let down = Event::Limited {
            call,
            by: Waiting::ProviderDown,
            queue_position: Some(1),
            open: vec!["minimax".into()],
        };
        let gone = song.clone().then(down);
        assert_eq!((gone.song.head.provider.as_str(), went(&song, &gone)), ("minimax", None));
        let song = song.ordered(0, 0);
        let gone = song.clone().heard(0, 0, gave_up(Class::InsufficientProviderCredits));
        assert_eq!((gone.song.head.provider.as_str(), went(&song, &gone)), ("minimax", Some(false)));
    }

    #[test]
    fn a_provider_is_told_how_long_it_took_itself() {
        let song = with_another(Mode::Music).ordered(0, 0).later(minutes(9));
        assert_eq!(at_work_since(&song.song, song.song.head.task), Some(song.now - minutes(9)));
        let song =
            song.heard(0, 0, gave_up(Class::InsufficientProviderCredits)).later(minutes(5)).ordered(0, 1);
        let since = song.now;
        let song = song.later(seconds(60));
        assert_eq!(at_work_since(&song.song, song.song.head.task), Some(since));
        let song = with_another(Mode::Music).ordered(0, 0);
        let song =
            song.heard(0, 0, gave_up(Class::InsufficientProviderCredits)).ambiguous(1).later(seconds(40));
        assert_eq!(at_work_since(&song.song, song.song.head.task), Some(song.now - seconds(40)));
        let done = a_song().ordered(0, 0);
        assert_eq!(went(&done, &done.clone().heard(0, 0, finished())), Some(true));
    }
}
