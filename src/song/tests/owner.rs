//! What the owner does: choose, ask again, cancel, open, delete.

use super::*;
use crate::song::refusal::{self, Refusal};

fn again(number: u8, prompt: Option<&str>, lyrics: Option<&str>) -> Event {
    let (prompt, lyrics) = (prompt.map(str::to_owned), lyrics.map(str::to_owned));
    Event::Retried { task: task(number), prompt, lyrics, unable: Vec::new() }
}

fn refused(song: &Story, event: &Event) -> Option<Refusal> {
    refusal::check(&song.song, event, song.now, &rules()).err()
}

fn fails(song: Story, class: Class) -> Story {
    song.ordered(0, 0).heard(0, 0, gave_up(class))
}

#[test]
fn a_cancelled_song_is_refunded_in_every_state_of_its_call() {
    let unknown = a_song().ambiguous(0);
    let again = a_song().ordered(0, 0).heard(0, 0, gave_up(Class::ProviderError));
    for song in [a_song(), a_song().submitting(0, 0), a_song().ordered(0, 0), unknown, again] {
        let song = song.then(Event::Cancelled);
        assert_eq!(song.settled(), Some((Settlement::Release, 1000)));
        assert_eq!(song.due(), None);
        song.unmoved_by(Event::Cancelled);
    }
}

#[test]
fn clips_that_come_after_a_cancel_change_nothing() {
    let song = a_song().ordered(0, 0).then(Event::Cancelled);
    song.unmoved_by(Event::News { call: song.key(0, 0), provider_task: None, news: finished() });
}

#[test]
fn a_clip_that_is_there_is_not_refunded_by_a_cancel() {
    let song = a_song().ordered(0, 0).heard(0, 0, clips(Stage::First, &["a"])).then(Event::Cancelled);
    assert_eq!(song.settled(), Some((Settlement::Capture, 500)));
}

#[test]
fn lyrics_that_were_written_are_not_refunded_by_a_cancel() {
    let song = lyrics_first().ordered(0, 0).heard(0, 0, texts(&["la", "lo"])).then(Event::Cancelled);
    assert_eq!(song.status(), Status::Cancelled);
    assert_eq!(song.settled(), None);
    assert_eq!((song.song.cost.thousandths(), song.song.refunded.thousandths()), (100, 0));
}

#[test]
fn the_answer_to_a_submission_is_kept_after_a_cancel_or_a_delete() {
    for end in [Event::Cancelled, Event::Deleted] {
        let song = a_song().submitting(0, 0).then(end);
        let call = song.key(0, 0);
        let song = song.then(submitted(call, "p"));
        assert_eq!((song.taken(), song.last.writes.len()), (vec![(call, Some("p"))], 1));
    }
}

#[test]
fn a_deleted_song_is_refunded_once_and_stays_gone() {
    let song = a_song().ordered(0, 0).then(Event::Deleted);
    assert_eq!(song.settled(), Some((Settlement::Release, 1000)));
    for event in [Event::Deleted, Event::Viewed, Event::Cancelled, again(2, None, None)] {
        song.unmoved_by(event);
    }
    assert_eq!(refused(&song, &Event::Viewed), Some(Refusal::Gone));
    assert_eq!(refused(&song, &Event::Deleted), None);
}

#[test]
fn a_moderated_song_is_refunded_at_once_and_needs_other_words() {
    let song = fails(a_song(), Class::Moderation);
    assert_eq!(song.settled(), Some((Settlement::Release, 1000)));
    assert_eq!(refused(&song, &again(2, None, None)), Some(Refusal::NeedsOtherWords));
    assert_eq!(refused(&song, &again(2, Some("a waltz"), None)), Some(Refusal::NeedsOtherWords));
    let song = song.then(again(2, Some("a polka"), None));
    assert_eq!(song.song.wish.prompt.as_deref(), Some("a polka"));
    assert_eq!((song.song.cost.thousandths(), song.song.refunded.thousandths()), (2000, 1000));
}

#[test]
fn where_the_lyrics_are_what_failed_nobody_can_give_other_ones() {
    for class in [Class::Moderation, Class::InsufficientProviderCredits] {
        let song = fails(lyrics_first(), class);
        for prompt in [None, Some("a polka")] {
            let again = again(2, prompt, Some("la"));
            assert_eq!(refused(&song, &again), Some(Refusal::NoLyricsYet));
            song.unmoved_by(again);
        }
    }
}

#[test]
fn lyrics_given_with_a_retry_are_a_further_variant_and_the_selected_one() {
    let song = lyrics_first().ordered(0, 0).heard(0, 0, texts(&["la", "lo"])).chosen(2);
    let song = fails(song, Class::Moderation).then(again(3, None, Some("lu")));
    let texts: Vec<_> = song.song.lyrics_variants.iter().map(|v| (v.text.as_str(), v.selected)).collect();
    assert_eq!(texts, [("la", false), ("lo", false), ("lu", true)]);
    assert_eq!(song.song.lyrics.as_deref(), Some("lu"));
}

#[test]
fn lyrics_given_with_a_retry_are_still_sung_after_the_next_failure() {
    let song = fails(a_song(), Class::Moderation).then(again(2, None, Some("la")));
    let song = song.ordered(0, 0).heard(0, 0, clips(Stage::First, &["a"]));
    let song = song.heard(0, 0, gave_up(Class::ProviderError));
    assert_eq!(song.song.lyrics.as_deref(), Some("la"));
}

#[test]
fn a_retry_makes_the_failed_phase_again_and_keeps_the_lyrics() {
    let song = lyrics_first().ordered(0, 0).heard(0, 0, texts(&["la", "lo"])).chosen(2);
    let song = fails(song, Class::InsufficientProviderCredits).retried(3);
    assert_eq!(song.status(), Status::GeneratingMusic);
    assert_eq!(song.song.lyrics.as_deref(), Some("la"));
    assert_eq!(song.song.head.number, 3);
}

#[test]
fn an_owner_may_ask_again_three_times_an_hour_and_five_times_in_all() {
    let mut song = fails(a_song(), Class::InsufficientProviderCredits);
    for number in 2..5 {
        song = fails(song.later(minutes(1)).retried(number), Class::InsufficientProviderCredits);
    }
    let full_at = *song.song.retries.last().unwrap() + minutes(60);
    let later = Refusal::RetryLater { per_hour: 3, wait: minutes(58), full_at };
    assert_eq!(refused(&song, &again(9, None, None)), Some(later));
    song.unmoved_by(again(9, None, None));
    let mut song = song.later(minutes(60));
    for number in 5..7 {
        song = fails(song.retried(number), Class::InsufficientProviderCredits);
    }
    let song = song.later(minutes(600));
    assert_eq!(refused(&song, &again(9, None, None)), Some(Refusal::NoRetriesLeft { max: 5 }));
    song.unmoved_by(again(9, None, None));
}

#[test]
fn callbacks_for_the_task_before_a_retry_change_nothing() {
    let song = fails(a_song(), Class::InsufficientProviderCredits);
    let call = song.key(0, 0);
    let song = song.retried(2);
    song.unmoved_by(Event::News { call, provider_task: None, news: finished() });
}

#[test]
fn choosing_reserves_the_music_and_selects_exactly_one_text() {
    let song = lyrics_first().ordered(0, 0).heard(0, 0, texts(&["la", "lo"]));
    let choice = Choice::Text { text: "mine".into(), title: Some("Us".into()) };
    let song = song.then(Event::Chosen { choice, task: task(2), unable: Vec::new() });
    assert_eq!(song.song.title.as_deref(), Some("Us"));
    assert_eq!(song.song.lyrics.as_deref(), Some("mine"));
    assert_eq!(song.song.lyrics_variants.iter().filter(|variant| variant.selected).count(), 1);
    assert!(matches!(song.last.writes[..], [Write::Reserve { .. }]));
    song.unmoved_by(Event::Chosen { choice: Choice::Variant(0), task: task(3), unable: Vec::new() });
}

#[test]
fn a_ready_song_is_complete_once_its_owner_opened_it() {
    let song = a_song().ordered(0, 0).heard(0, 0, finished()).then(Event::Viewed);
    assert_eq!(song.status(), Status::Complete);
    assert_eq!(refused(&song, &Event::Cancelled), Some(Refusal::WrongState(Status::Complete)));
}

#[test]
fn there_is_one_favourite_at_most() {
    let song = a_song().ordered(0, 0).heard(0, 0, finished());
    let select = |variant_number| Event::Selected { variant_number, selected: true };
    let song = song.then(select(1)).then(select(2));
    let selected: Vec<_> = song.song.variants.iter().map(|variant| variant.selected).collect();
    assert_eq!(selected, [false, true]);
    assert_eq!(refused(&song, &select(7)), Some(Refusal::NoSuchVariant));
}

#[test]
fn a_share_link_that_is_taken_back_is_replaced_and_the_others_stay() {
    let song = a_song().ordered(0, 0).heard(0, 0, finished());
    let links =
        |song: &Story| song.song.variants.iter().map(|variant| variant.share_token).collect::<Vec<_>>();
    let before = links(&song);
    let fresh = ShareToken(Uuid::from_u128(77));
    let unshare = |variant_number| Event::Unshared { variant_number, share_token: fresh };
    let song = song.then(unshare(1));
    assert_eq!(links(&song), [fresh, before[1]]);
    assert_eq!(refused(&song, &unshare(7)), Some(Refusal::NoSuchVariant));
    // Made again after a failure, a place keeps the link that it has now.
    let failed = fails(a_song(), Class::Moderation).then(unshare(1));
    let song = failed.then(again(2, Some("other words"), None));
    assert_eq!(song.song.variants[0].share_token, fresh);
}
