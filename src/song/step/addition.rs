//! Tasks beside a finished song: its stems, a video, a persona. Whatever comes of them, the song stays what it is
//! (PROV-2, `design.md` section 10).
//!
//! Not here: submitting and hearing of them, which is as for every other task (`run`).

use super::Draft;
use super::end::{deliver, first_failure};
use crate::credit::Credits;
use crate::provider::failure::{Class, Failure};
use crate::song::event::{Event, EventKind, NewAddition};
use crate::song::parts::{Made, TaskKind};
use crate::song::phase::{Addition, AdditionState, Call, CallState, Progress, Run};
use crate::song::refusal;

/// Begins one, paid for. One that is there or under way is not made again.
pub(super) fn ask(next: &mut Draft, new: &NewAddition) {
    let event = Event::Asked { addition: Box::new(new.clone()) };
    if refusal::check(&next.song, &event, next.now, next.rules).is_err()
        || is_there(&next.song.additions, new)
    {
        return;
    }
    let number = next.song.next_number();
    next.charge(new.task, new.work.kind(), new.price);
    next.song.additions.push(Addition {
        task: new.task,
        number,
        provider: new.provider.clone(),
        work: new.work.clone(),
        price: new.price,
        state: AdditionState::Running(Run::new(1, next.now)),
        progress: Progress { task: Some(new.task), ..Progress::default() },
    });
    next.kind = Some(EventKind::TaskStarted);
}

/// Whether the same was asked for before and has not failed.
fn is_there(additions: &[Addition], new: &NewAddition) -> bool {
    additions.iter().any(|one| {
        let failed = matches!(one.state, AdditionState::Failed(_));
        one.task == new.task || !failed && one.work.adds_the_same_as(&new.work)
    })
}

/// The result came; that of another kind is not ours, whatever the provider thinks.
pub(super) fn made(next: &mut Draft, mut run: Run, made: &Made) {
    let Some(index) = next.beside else { return };
    let fits = match (next.kind(), made) {
        (TaskKind::Stems, Made::Stems { stems }) => !stems.is_empty(),
        (TaskKind::Persona, Made::Persona { .. }) | (TaskKind::Video, Made::Video { .. }) => true,
        (
            TaskKind::Lyrics
            | TaskKind::Generate
            | TaskKind::Extend
            | TaskKind::ReplaceSection
            | TaskKind::Merge
            | TaskKind::Cover
            | TaskKind::Stems
            | TaskKind::Persona
            | TaskKind::Video,
            Made::Stems { .. } | Made::Persona { .. } | Made::Video { .. },
        ) => false,
    };
    if !fits {
        return next.keep(run);
    }
    run.calls.iter_mut().for_each(|call| call.state = CallState::Done);
    next.song.additions[index].state = AdditionState::Done(made.clone());
    deliver(next, Credits::ZERO);
    if let Made::Video { video_url } = made {
        show_video(next, index, video_url);
    }
    next.kind = Some(EventKind::TaskCompleted);
}

fn show_video(next: &mut Draft, index: usize, video_url: &str) {
    let number = next.song.additions[index].variant_number();
    for variant in next.song.variants.iter_mut().filter(|variant| Some(variant.variant_number) == number) {
        variant.video_url = Some(video_url.to_owned());
    }
}

pub(super) fn fail(next: &mut Draft, calls: &[Call]) {
    let failure =
        first_failure(calls).unwrap_or_else(|| Failure::new(Class::ProviderError, "ended without a result"));
    give_up(next, failure);
    next.kind = Some(EventKind::TaskFailed);
}

/// The song goes: what is still to be made for it is not paid for.
pub(super) fn abandon_all(next: &mut Draft) {
    for index in 0..next.song.additions.len() {
        if next.song.additions[index].run().is_some() {
            next.beside = Some(index);
            give_up(next, Failure::new(Class::Unknown, "the song was deleted"));
        }
    }
    next.beside = None;
}

fn give_up(next: &mut Draft, failure: Failure) {
    let Some(index) = next.beside else { return };
    let (now, price) = (next.now, next.price());
    let progress = next.progress();
    progress.completed_at = Some(now);
    progress.error = Some(failure.clone());
    next.settle(price);
    next.song.additions[index].state = AdditionState::Failed(failure);
}

/// Whether watchers see no difference: all of an addition but the inside of its run.
pub(super) fn look_alike(before: &[Addition], after: &[Addition]) -> bool {
    let waiting = |one: &Addition| one.run().map(|run| run.waiting);
    let ended = |one: &Addition| one.run().is_none().then(|| one.state.clone());
    before.len() == after.len()
        && before.iter().zip(after).all(|(before, after)| {
            before.progress.looks_like(&after.progress)
                && waiting(before) == waiting(after)
                && ended(before) == ended(after)
        })
}
