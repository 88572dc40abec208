//! Tasks beside a finished song (PROV-2).

use super::*;
use crate::provider::failure::Class;
use crate::song::event::EventKind;
use crate::song::phase::AdditionState;
use crate::song::refusal::{self, Refusal};

fn a_finished_song() -> Story {
    a_song().ordered(0, 0).heard(0, 0, finished())
}

fn beside(number: u8) -> CallKey {
    CallKey { task: task(number), call: 0, attempt: 0 }
}

fn told(story: Story, number: u8, news: News) -> Story {
    story.then(Event::News { call: beside(number), provider_task: None, news })
}

#[test]
fn stems_are_paid_for_made_and_captured_while_the_song_stays_ready() {
    let song = a_finished_song().then(asked(2, TaskKind::Stems, 1));
    let half = Credits::from_thousandths(500);
    assert!(song.last.writes.contains(&Write::Reserve {
        task: task(2),
        kind: TaskKind::Stems,
        amount: half
    }));
    assert_eq!((song.status(), song.last.kind), (Status::Ready, Some(EventKind::TaskStarted)));
    assert_eq!(song.due(), Some((song.now, Due::Submit(beside(2)))));

    let song = song.then(submitting(beside(2), NOON)).then(submitted(beside(2), "s1"));
    let song = told(song, 2, News::Made(made(TaskKind::Stems)));
    assert_eq!(song.last.kind, Some(EventKind::TaskCompleted));
    assert_eq!(song.settled(), Some((Settlement::Capture, 0)));
    assert_eq!(song.song.additions[0].state, AdditionState::Done(made(TaskKind::Stems)));
    assert_eq!((song.status(), song.due()), (Status::Ready, None));
}

#[test]
fn what_is_there_or_under_way_is_not_made_again() {
    let song = a_finished_song().then(asked(2, TaskKind::Stems, 1));
    song.unmoved_by(asked(3, TaskKind::Stems, 1));
    let song = song.then(asked(3, TaskKind::Stems, 2)).then(asked(4, TaskKind::Video, 1));
    assert_eq!(song.song.additions.len(), 3);
}

#[test]
fn a_video_is_shown_at_its_variant() {
    let song = a_finished_song().then(asked(2, TaskKind::Video, 2)).then(submitting(beside(2), NOON));
    let song = told(song, 2, News::Made(made(TaskKind::Video)));
    let urls: Vec<_> = song.song.variants.iter().map(|variant| variant.video_url.as_deref()).collect();
    assert_eq!(urls, [None, Some("https://files/v.mp4")]);
}

#[test]
fn an_addition_that_fails_gives_its_price_back_and_may_be_asked_for_again() {
    let song = a_finished_song().then(asked(2, TaskKind::Stems, 1)).then(submitting(beside(2), NOON));
    let failure = Failure::new(Class::InvalidInput, "no");
    let song = song.then(Event::SubmitFailed { call: beside(2), failure });
    assert_eq!(song.last.kind, Some(EventKind::TaskFailed));
    assert_eq!(song.settled(), Some((Settlement::Release, 500)));
    assert_eq!(song.status(), Status::Ready);
    let song = song.then(asked(3, TaskKind::Stems, 1));
    assert!(song.song.run_of(task(3)).is_some());
}

#[test]
fn an_addition_without_a_result_fails_at_its_deadline() {
    let song = a_finished_song().then(asked(2, TaskKind::Stems, 1)).then(submitting(beside(2), NOON));
    let song = song.then(submitted(beside(2), "s1")).later(minutes(10)).wake();
    assert!(
        matches!(&song.song.additions[0].state, AdditionState::Failed(failure) if failure.class == Class::Timeout)
    );
    assert_eq!(song.status(), Status::Ready);
}

#[test]
fn results_of_another_kind_are_not_taken_for_it() {
    let song = a_finished_song().then(asked(2, TaskKind::Stems, 1)).then(submitting(beside(2), NOON));
    let song = told(song.then(submitted(beside(2), "s1")), 2, News::Made(made(TaskKind::Video)));
    assert!(song.song.run_of(task(2)).is_some());
}

#[test]
fn a_deleted_song_gives_back_what_was_still_to_be_made() {
    let song = a_finished_song().then(asked(2, TaskKind::Stems, 1)).then(asked(3, TaskKind::Video, 1));
    let song = song.then(Event::Deleted);
    assert_eq!(song.settled(), Some((Settlement::Release, 500)));
    assert_eq!((song.due(), song.song.runs().count()), (None, 0));
}

#[test]
fn only_a_finished_song_is_added_to() {
    let song = a_song().ordered(0, 0);
    let refused = refusal::check(&song.song, &asked(2, TaskKind::Stems, 1), song.now, &rules());
    assert_eq!(refused, Err(Refusal::WrongState(Status::GeneratingMusic)));
    song.unmoved_by(asked(2, TaskKind::Stems, 1));
}
