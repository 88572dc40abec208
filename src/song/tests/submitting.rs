//! Orders: sent once, taken on when their fate was unknown, tried again, limited.

use super::*;
use crate::song::phase::Waiting;
use crate::song::step::Act;
use crate::song::view::view;

#[test]
fn an_order_is_sent_only_with_its_intent() {
    let song = a_song();
    assert_eq!(song.due(), Some((NOON, Due::Submit(song.key(0, 0)))));
    let song = song.submitting(0, 0);
    assert_eq!(song.last.acts, [Act::Submit(song.key(0, 0))]);
    song.unmoved_by(submitting(song.key(0, 0), NOON));
}

#[test]
fn a_callback_adopts_an_order_of_unknown_fate() {
    let song = a_song().ambiguous(0).later(minutes(1)).heard(0, 0, clips(Stage::First, &["a"]));
    assert!(matches!(song.state(0), CallState::Submitted { .. }));
    assert_eq!(song.status(), Status::GeneratingMusic);
}

#[test]
fn a_callback_adopts_the_first_order_as_long_as_the_second_is_not_sent() {
    let song = a_song().ambiguous(0).until_due().wake();
    assert!(matches!(song.state(0), CallState::Accepted { .. }));
    let song = song.heard(0, 0, clips(Stage::First, &["a"]));
    assert_eq!(song.run().calls[0].attempt, 0);
    let late = submitting(song.key(0, 1), song.now);
    song.unmoved_by(late);
}

#[test]
fn a_superseded_order_that_reports_late_changes_nothing_but_what_it_cost() {
    let song = a_song().ambiguous(0).until_due().wake().ordered(0, 1);
    let call = song.key(0, 0);
    let late = song.clone().then(Event::News { call, provider_task: Some("p".into()), news: finished() });
    assert_eq!(late.song, song.song);
    assert_eq!((late.taken(), late.last.writes.len()), (vec![(call, Some("p"))], 1));
    let told_in_the_answer = song.clone().then(Event::Answered { call, news: finished() });
    assert_eq!(told_in_the_answer.song, song.song);
    assert_eq!(told_in_the_answer.taken(), [(call, None)]);
}

#[test]
fn a_provider_that_answers_at_once_took_the_call_though_it_names_no_task() {
    let song = of_two_calls(Mode::Music).submitting(0, 0).submitting(1, 0);
    let (first, second) = (song.key(0, 0), song.key(1, 0));
    let song = song.answered(0, 0, clips(Stage::Complete, &["a"]));
    assert_eq!(song.taken(), [(first, None)]);
    let song = song.answered(1, 0, clips(Stage::Complete, &["b"]));
    assert_eq!((song.taken(), song.status()), (vec![(second, None)], Status::Ready));
}

#[test]
fn a_call_that_was_answered_too_late_for_its_song_is_paid_for_all_the_same() {
    for end in [Event::Cancelled, Event::Deleted] {
        let song = a_song().submitting(0, 0).then(end);
        let (call, before) = (song.key(0, 0), song.song.clone());
        let song = song.answered(0, 0, finished());
        assert_eq!(song.song, before);
        assert_eq!((song.taken(), song.last.writes.len()), (vec![(call, None)], 1));
    }
}

#[test]
fn what_a_provider_made_and_nobody_could_keep_is_paid_for() {
    let song = a_song().submitting(0, 0).refused(0, 0, Class::Storage);
    assert_eq!(song.taken(), [(song.key(0, 0), None)]);
    let song = a_song().submitting(0, 0).refused(0, 0, Class::ProviderError);
    assert_eq!(song.taken(), []);
}

#[test]
fn an_order_that_failed_is_not_revived_by_what_was_under_way() {
    let song = a_song().ordered(0, 0).heard(0, 0, gave_up(Class::ProviderError));
    for news in [News::Working, clips(Stage::First, &["a"])] {
        song.unmoved_by(Event::News { call: song.key(0, 0), provider_task: None, news });
    }
}

#[test]
fn a_second_order_beside_one_of_unknown_fate_is_sent_after_the_grace_and_once_only() {
    let song = a_song().ambiguous(0);
    assert_eq!(song.due(), Some((NOON + minutes(2), Due::Wake)));
    let song = song.until_due().wake().ambiguous(1).until_due().wake();
    assert_eq!(song.status(), Status::Failed);
    assert_eq!(song.settled(), Some((Settlement::Release, 1000)));
}

/// Its provider broke while it took the order.
fn broke(song: Story, attempt: u16) -> Story {
    let call = song.key(0, attempt);
    let failure = Failure::new(Class::ProviderError, "overloaded").code(503).maybe_arrived();
    song.submitting(0, attempt).then(Event::SubmitFailed { call, failure })
}

#[test]
fn what_a_provider_said_that_broke_while_it_took_an_order_is_what_the_song_ends_with() {
    let error = |song: &Story| {
        let failure = song.song.music_progress.as_ref().and_then(|progress| progress.error.clone());
        failure.map(|failure| (failure.class, failure.code))
    };
    let said = Some((Class::ProviderError, Some("503".to_owned())));
    let song = broke(a_song(), 0);
    assert_eq!((song.run().waiting, error(&song)), (Some(Waiting::ProviderAnswer), said.clone()));
    let song = song.until_due().wake();
    assert_eq!((song.run().waiting, error(&song)), (Some(Waiting::Retry), said.clone()));
    assert_eq!(song.run().possible_duplicates(), 1);
    let song = broke(song, 1).until_due().wake();
    assert_eq!((song.status(), error(&song)), (Status::Failed, said));
    assert_eq!(song.settled(), Some((Settlement::Release, 1000)));
    let Phase::Failed(failure) = &song.song.phase else { panic!("it failed") };
    assert_eq!(failure.message, "overloaded");
}

#[test]
fn a_provider_that_broke_is_left_alone_as_long_as_it_asks_for_and_its_failure_counts_as_one() {
    let call = a_song().key(0, 0);
    let wait = Some(minutes(7));
    let failure = Failure::new(Class::ProviderError, "busy").code(503).retry_after(wait).maybe_arrived();
    let song = a_song().submitting(0, 0).then(Event::SubmitFailed { call, failure });
    assert_eq!(song.due(), Some((NOON + minutes(2), Due::Wake)));
    // After the grace time it holds no place any more, and waits for what is left.
    let mut song = song.until_due().wake();
    assert_eq!(song.due(), Some((NOON + minutes(7), Due::Submit(song.key(0, 1)))));
    // Of three more tries this was the first.
    for attempt in 1..3 {
        song = song.until_due().submitting(0, attempt).refused(0, attempt, Class::ProviderError);
        assert_eq!(song.run().waiting, Some(Waiting::Retry));
    }
    let song = song.until_due().submitting(0, 3).refused(0, 3, Class::ProviderError);
    assert_eq!(song.status(), Status::Failed);
}

#[test]
fn who_is_to_be_left_alone_for_longer_than_a_song_waits_is_not_asked_again() {
    let failure = |song: &Story| {
        let call = song.key(0, 0);
        let failure = Failure::new(Class::ProviderError, "busy").code(503).retry_after(Some(minutes(61)));
        (
            Event::SubmitFailed { call, failure: failure.clone() },
            Event::SubmitFailed { call, failure: failure.maybe_arrived() },
        )
    };
    let song = a_song().submitting(0, 0);
    let (refused, doubtful) = failure(&song);
    assert_eq!(song.clone().then(refused).status(), Status::Failed);
    assert_eq!(
        song.then(doubtful).until_due().wake().status(),
        Status::Failed,
        "once its grace time is over"
    );
    let limit = |song: &Story| {
        let failure = Failure::new(Class::RateLimited, "later").retry_after(Some(minutes(61)));
        Event::SubmitFailed { call: song.key(0, 0), failure }
    };
    let song = a_song().submitting(0, 0);
    assert_eq!(song.clone().then(limit(&song)).status(), Status::Failed);
    let song = with_another(Mode::Music).submitting(0, 0);
    assert_eq!(song.clone().then(limit(&song)).song.head.provider, "minimax");
}

#[test]
fn an_order_that_may_have_arrived_is_not_sent_again_where_its_failure_is_never_tried_again() {
    let call = a_song().key(0, 0);
    let failure = Failure::new(Class::Timeout, "no word").maybe_arrived();
    let song = a_song().submitting(0, 0).then(Event::SubmitFailed { call, failure });
    let song = song.until_due().wake();
    assert!(matches!(&song.song.phase, Phase::Failed(failure) if failure.class == Class::Timeout));
}

#[test]
fn a_call_of_unknown_fate_that_was_stored_without_a_reason_is_read() {
    let stored = r#"{"unknown":{"until":1766318400000}}"#;
    let read = serde_json::from_str::<CallState>(stored).expect("as before");
    assert_eq!(read, CallState::Unknown { until: NOON, failure: None });
}

#[test]
fn nothing_is_sent_beside_an_order_of_unknown_fate_although_another_one_failed() {
    let song = a_song().ambiguous(0).until_due().wake().ambiguous(1);
    let grace_ends = song.now + minutes(2);
    let song = song.heard(0, 0, News::Working).heard(0, 0, gave_up(Class::Network));
    assert_eq!(song.due(), Some((grace_ends, Due::Submit(song.key(0, 2)))));
}

#[test]
fn each_of_two_calls_may_be_sent_a_second_time_after_a_crash() {
    let song = of_two_calls(Mode::LyricsFirst).submitting(0, 0).submitting(1, 0);
    let song = song.until_due().wake().until_due().wake();
    assert!(song.run().calls.iter().all(|call| matches!(call.state, CallState::Accepted { .. })));
    assert_eq!(song.run().possible_duplicates(), 2);
}

#[test]
fn a_crash_between_intent_and_answer_leads_to_the_unknown_once_no_call_can_be_under_way() {
    let song = a_song().submitting(0, 0);
    assert_eq!(song.due(), Some((NOON + seconds(35), Due::Wake)));
    let song = song.until_due().wake();
    assert!(matches!(song.state(0), CallState::Unknown { .. }));
}

#[test]
fn that_an_order_did_not_arrive_is_believed_also_late() {
    let song = a_song().submitting(0, 0).until_due().wake().refused(0, 0, Class::InvalidInput);
    assert_eq!(song.status(), Status::Failed);
}

#[test]
fn a_callback_before_the_answer_to_the_submission_leaves_the_song_pollable() {
    let song = a_song().submitting(0, 0).heard(0, 0, clips(Stage::Text, &[]));
    let call = song.key(0, 0);
    let song = song.then(submitted(call, "p"));
    assert!(matches!(song.due(), Some((_, Due::Poll(_)))));
    let progress = song.song.music_progress.as_ref().expect("it started");
    assert_eq!(progress.provider_task.as_deref(), Some("p"));
}

#[test]
fn each_class_of_failure_has_its_own_attempts() {
    let mut song = a_song();
    for attempt in 0..3 {
        song = song.until_due().submitting(0, attempt).refused(0, attempt, Class::Network);
    }
    let song = song.until_due().submitting(0, 3).refused(0, 3, Class::ProviderError);
    assert!(matches!(song.state(0), CallState::Accepted { .. }));
}

#[test]
fn a_provider_error_is_tried_three_times_more_and_then_refunded() {
    let mut song = a_song();
    for attempt in 0..4 {
        assert_ne!(song.status(), Status::Failed);
        song = song.until_due().submitting(0, attempt).refused(0, attempt, Class::ProviderError);
    }
    assert_eq!(song.status(), Status::Failed);
    assert_eq!(song.settled(), Some((Settlement::Release, 1000)));
}

#[test]
fn a_provider_limit_is_waited_for_without_using_an_attempt_and_not_for_ever() {
    let mut song = a_song();
    let mut attempt = 0;
    while song.now.since(NOON) < minutes(59) {
        song = song.until_due().submitting(0, attempt).refused(0, attempt, Class::RateLimited);
        assert_eq!(song.run().waiting, Some(Waiting::ProviderLimit));
        attempt += 1;
    }
    assert_eq!(song.song.music_progress.as_ref().map(|progress| progress.retry_count), Some(0));
    let song = song.later(minutes(2)).wake();
    assert_eq!(song.status(), Status::Failed);
}

#[test]
fn an_order_that_was_taken_and_failed_by_a_limit_is_placed_four_times_and_not_for_ever() {
    let mut song = a_song();
    for attempt in 0..4 {
        assert_ne!(song.status(), Status::Failed, "{attempt}");
        song = song.until_due().ordered(0, attempt).heard(0, attempt, gave_up(Class::RateLimited));
    }
    assert_eq!(song.status(), Status::Failed);
    assert_eq!(song.settled(), Some((Settlement::Release, 1000)));
}

#[test]
fn the_limit_of_a_provider_that_answers_with_the_song_is_not_waited_for_for_ever_either() {
    let long_call = |song: &Story, attempt| match submitting(song.key(0, attempt), song.now) {
        Event::Submitting { call, not_after, settled_by, takes, .. } => {
            Event::Submitting { call, not_after, settled_by, takes, synchronous: true }
        }
        other => panic!("{other:?}"),
    };
    let mut song = a_song();
    let mut attempt = 0;
    while song.now.since(NOON) < minutes(59) {
        song = song.until_due();
        let event = long_call(&song, attempt);
        song = song.then(event).refused(0, attempt, Class::RateLimited);
        attempt += 1;
    }
    assert_eq!(song.later(minutes(2)).wake().status(), Status::Failed);
}

#[test]
fn what_stands_in_line_beside_an_order_that_was_taken_still_shows_that_it_waits() {
    let song = story(Wish { calls: Calls { lyrics: 1, music: 2 }, ..a_wish(Mode::Music) });
    let second = song.key(1, 0);
    let song = song.submitting(0, 0).then(limited(second, Waiting::ProviderLimit)).later(seconds(2));
    let taken = submitted(song.key(0, 0), "p");
    let song = song.then(taken);
    assert_eq!(song.run().limited_since, Some(song.now), "it has patience anew");
    let song = song.later(seconds(2)).ordered(1, 0);
    assert_eq!(song.run().limited_since, None);
}

#[test]
fn a_retry_that_a_limit_holds_up_says_so_and_does_not_wait_for_ever() {
    let song = a_song().submitting(0, 0).refused(0, 0, Class::ProviderError).until_due();
    let key = song.key(0, 1);
    let song = song.then(limited(key, Waiting::ProviderLimit));
    assert_eq!(song.run().waiting, Some(Waiting::ProviderLimit));
    let wake = (song.now + minutes(60), Due::Wake);
    assert!(due::all(&song.song, |_| song.now, &rules()).contains(&wake));
}

#[test]
fn a_song_whose_call_was_not_made_goes_on_after_a_moment() {
    let song = a_song().submitting(0, 0);
    let call = song.key(0, 0);
    let song = song.then(Event::NotSent { call });
    assert_eq!(song.due(), Some((NOON + seconds(1), Due::Submit(song.key(0, 1)))));
}

#[test]
fn that_a_call_was_not_made_takes_back_no_later_one_when_it_is_told_again() {
    let song = a_song().submitting(0, 0);
    let call = song.key(0, 0);
    let song = song.then(Event::NotSent { call }).until_due().submitting(0, 1);
    let before = song.song.clone();
    assert_eq!(song.then(Event::NotSent { call }).song, before, "the second call is under way");
}

#[test]
fn after_the_first_start_a_song_is_not_pending_again() {
    let song = a_song();
    assert_eq!(song.status(), Status::Pending);
    let song = song.ordered(0, 0).heard(0, 0, gave_up(Class::ProviderError));
    assert_eq!(song.status(), Status::GeneratingMusic);
    assert_eq!(song.run().waiting, Some(Waiting::Retry));
}

#[test]
fn a_song_that_is_tried_again_says_so_and_one_that_failed_says_what_to_do() {
    let told = |song: &Story, field: &str| {
        let view = serde_json::to_value(view(&song.song, &rules())).expect("JSON");
        view.pointer(field).and_then(|text| text.as_str()).map(String::from)
    };
    let phase = "/progress/music/error/message";
    let song = a_song().ordered(0, 0).heard(0, 0, gave_up(Class::ProviderError));
    assert_eq!(told(&song, phase).as_deref(), Some("The generation failed. It is tried again."));
    assert_eq!(told(&song, "/error/message"), None);

    let mut song = a_song().submitting(0, 0).refused(0, 0, Class::RateLimited).later(minutes(61)).wake();
    assert_eq!(song.status(), Status::Failed);
    let text = "The music service has too much to do at the moment. Please try again later.";
    assert_eq!(told(&song, "/error/message").as_deref(), Some(text));
    assert_eq!(told(&song, phase).as_deref(), Some(text));
    song = song.retried(2);
    assert_eq!((told(&song, phase), told(&song, "/error/message")), (None, None));
}
