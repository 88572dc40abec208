//! Results: lyrics and clips, in order and out of it, in time and too late.

use super::*;
use crate::song::event::EventKind;
use crate::song::phase::{Push, VariantStatus};

fn statuses(song: &Story) -> Vec<VariantStatus> {
    song.song.variants.iter().map(|variant| variant.status).collect()
}

fn clip_ids(song: &Story) -> Vec<Option<&str>> {
    song.song.variants.iter().map(|variant| variant.clip_id.as_deref()).collect()
}

#[test]
fn a_song_is_made_paid_and_announced_once() {
    let song = a_song().ordered(0, 0).heard(0, 0, finished());
    assert_eq!(song.status(), Status::Ready);
    assert_eq!(song.settled(), Some((Settlement::Capture, 0)));
    assert!(song.last.writes.contains(&Write::Notify(Push::MusicReady)));
    song.unmoved_by(Event::News { call: song.key(0, 0), provider_task: None, news: finished() });
}

#[test]
fn the_first_clip_is_shown_at_once_and_ends_nothing() {
    let song = a_song().ordered(0, 0).heard(0, 0, clips(Stage::First, &["a"]));
    assert_eq!(song.last.kind, Some(EventKind::ClipReady));
    assert_eq!(song.status(), Status::GeneratingMusic);
    assert_eq!(statuses(&song), [VariantStatus::Complete, VariantStatus::Generating]);
}

#[test]
fn a_failure_after_the_first_clip_fails_the_song_and_takes_the_clip_back() {
    let refused = News::Failed(Failure::new(Class::Moderation, "contained artist name"));
    let song = a_song().ordered(0, 0).heard(0, 0, clips(Stage::First, &["a"])).heard(0, 0, refused);
    assert_eq!(song.status(), Status::Failed);
    assert_eq!(song.song.refunded, song.song.cost);
    assert_eq!(statuses(&song), [VariantStatus::Failed, VariantStatus::Failed]);
    assert!(song.song.variants.iter().all(|variant| !variant.playable()));
}

#[test]
fn first_after_complete_changes_nothing() {
    let song = a_song().ordered(0, 0).heard(0, 0, finished());
    let news = clips(Stage::First, &["c"]);
    song.unmoved_by(Event::News { call: song.key(0, 0), provider_task: None, news });
}

#[test]
fn a_complete_before_the_answer_to_the_submission_is_the_song() {
    let song = a_song().submitting(0, 0).heard(0, 0, finished());
    assert_eq!(song.status(), Status::Ready);
}

#[test]
fn clips_keep_their_places_in_whatever_order_they_are_told() {
    let told = News::Clips(Stage::Text, vec![named_clip("a"), named_clip("b")]);
    let song = a_song().ordered(0, 0).heard(0, 0, told).heard(0, 0, clips(Stage::Complete, &["b", "a"]));
    assert_eq!(clip_ids(&song), [Some("a"), Some("b")]);
}

#[test]
fn nobody_says_how_long_a_song_takes_that_takes_longer_than_expected() {
    let eta = |song: &Story| crate::song::view::view(&song.song, &rules())["eta_ms"].clone();
    let song = a_song().ordered(0, 0);
    assert_eq!(eta(&song), 60_000);
    assert_eq!(eta(&song.clone().later(seconds(20)).heard(0, 0, clips(Stage::First, &["a"]))), 40_000);
    assert_eq!(
        eta(&song.later(seconds(61)).heard(0, 0, clips(Stage::First, &["a"]))),
        serde_json::Value::Null
    );
}

#[test]
fn a_song_that_is_made_once_more_takes_as_long_once_more() {
    let eta = |song: &Story| crate::song::view::view(&song.song, &rules())["eta_ms"].clone();
    let song = a_song().ordered(0, 0).later(seconds(50)).heard(0, 0, gave_up(Class::ProviderError));
    assert_eq!(eta(&song), serde_json::Value::Null, "nobody works on it");
    assert_eq!(eta(&song.until_due().ordered(0, 1)), 60_000);
}

#[test]
fn clips_without_ids_have_a_place_each() {
    let stream = |n: u8| Clip { stream_url: Some(format!("https://s/{n}")), ..Clip::default() };
    let told = News::Clips(Stage::First, vec![stream(1), stream(2)]);
    let song = a_song().ordered(0, 0).heard(0, 0, told.clone()).heard(0, 0, told);
    let streams: Vec<_> = song.song.variants.iter().map(|v| v.stream_url.as_deref()).collect();
    assert_eq!(streams, [Some("https://s/1"), Some("https://s/2")]);
}

#[test]
fn without_a_playable_clip_a_complete_is_a_failure() {
    let told = News::Clips(Stage::Complete, vec![named_clip("a")]);
    let song = a_song().ordered(0, 0).heard(0, 0, told);
    assert_eq!(song.last.kind, Some(EventKind::RetryScheduled));
}

#[test]
fn the_deadline_completes_from_the_first_clip() {
    let song = a_song().ordered(0, 0).heard(0, 0, clips(Stage::First, &["a"])).later(minutes(10)).wake();
    assert_eq!(song.status(), Status::Ready);
    assert_eq!(statuses(&song), [VariantStatus::Complete, VariantStatus::Failed]);
    assert_eq!(song.settled(), Some((Settlement::Capture, 0)), "the call brought something to play");
}

#[test]
fn at_the_deadline_a_stream_gets_the_url_its_file_will_have() {
    let streaming = Clip { stream_url: Some("https://s/a".into()), ..named_clip("a") };
    let song = a_song().ordered(0, 0).heard(0, 0, News::Clips(Stage::First, vec![streaming]));
    let song = song.later(minutes(10)).wake();
    assert_eq!(song.song.variants[0].audio_url.as_deref(), Some("https://cdn/a.mp3"));
}

#[test]
fn words_and_ids_alone_are_no_result_at_the_deadline() {
    let told = News::Clips(Stage::Text, vec![named_clip("a"), named_clip("b")]);
    let song = a_song().ordered(0, 0).heard(0, 0, told).later(minutes(10)).wake();
    assert!(matches!(&song.song.phase, Phase::Failed(failure) if failure.class == Class::Timeout));
    assert_eq!(song.settled(), Some((Settlement::Release, 1000)));
    assert!(song.song.variants.iter().all(|variant| !variant.playable()));

    // Beside one that can be heard it is the one that is missing.
    let told = News::Clips(Stage::First, vec![clip("a"), named_clip("b")]);
    let song = a_song().ordered(0, 0).heard(0, 0, told).later(minutes(10)).wake();
    assert_eq!(statuses(&song), [VariantStatus::Complete, VariantStatus::Failed]);
}

#[test]
fn the_deadline_without_any_result_is_refunded() {
    let song = a_song().ordered(0, 0).later(minutes(10)).wake();
    assert!(matches!(&song.song.phase, Phase::Failed(failure) if failure.class == Class::Timeout));
    assert_eq!(song.settled(), Some((Settlement::Release, 1000)));
}

#[test]
fn a_song_found_again_after_its_deadline_is_asked_for_before_it_is_given_up() {
    let song = a_song().ordered(0, 0).later(minutes(30));
    let never = Time::from_millis(0);
    assert!(matches!(due::due(&song.song, |_| never, &rules()), Some((_, Due::Poll(_)))));
    assert!(matches!(due::due(&song.song, |_| song.now, &rules()), Some((_, Due::Wake))));
}

#[test]
fn a_call_that_is_tried_again_leaves_the_other_calls_clip_alone() {
    let song = of_two_calls(Mode::Music).ordered(0, 0).ordered(1, 0);
    let song = song.heard(0, 0, clips(Stage::Complete, &["a"])).heard(1, 0, gave_up(Class::ProviderError));
    assert_eq!(clip_ids(&song), [Some("a"), None]);
    let song = song.until_due().ordered(1, 1).heard(1, 1, clips(Stage::Complete, &["b"]));
    assert_eq!(song.status(), Status::Ready);
    assert_eq!(clip_ids(&song), [Some("a"), Some("b")]);
}

#[test]
fn two_calls_with_a_clip_each_do_not_share_a_place() {
    let stream = |n: u8| Clip { stream_url: Some(format!("https://s/{n}")), ..Clip::default() };
    let song = of_two_calls(Mode::Music).ordered(0, 0).ordered(1, 0);
    let song = song.heard(0, 0, News::Clips(Stage::First, vec![stream(1)]));
    let song = song.heard(1, 0, News::Clips(Stage::First, vec![stream(2)]));
    let streams: Vec<_> = song.song.variants.iter().map(|v| v.stream_url.as_deref()).collect();
    assert_eq!(streams, [Some("https://s/1"), Some("https://s/2")]);
}

#[test]
fn of_two_calls_one_clip_is_a_song_for_half_the_price() {
    let song = of_two_calls(Mode::Music).ordered(0, 0).ordered(1, 0);
    let song = song.heard(0, 0, gave_up(Class::Moderation)).heard(1, 0, clips(Stage::Complete, &["b"]));
    assert_eq!(song.status(), Status::Ready);
    assert_eq!(song.settled(), Some((Settlement::Capture, song.song.cost.thousandths() / 2)));
    assert_eq!(song.song.refunded.thousandths() * 2, song.song.cost.thousandths());
}

#[test]
fn two_calls_with_one_text_each_give_the_owner_a_choice() {
    let song = of_two_calls(Mode::LyricsFirst).ordered(0, 0).ordered(1, 0);
    let song = song.heard(0, 0, texts(&["la"]));
    assert_eq!(song.status(), Status::GeneratingLyrics);
    let song = song.heard(1, 0, texts(&["lo"]));
    assert_eq!(song.status(), Status::LyricsReady);
    assert_eq!(song.settled(), Some((Settlement::Capture, 0)));
    assert_eq!(song.due(), None);
}

#[test]
fn fewer_than_two_lyrics_with_words_fail_the_phase() {
    let song = lyrics_first().ordered(0, 0).heard(0, 0, texts(&["la", "  "]));
    assert_eq!(song.status(), Status::Failed);
    assert_eq!(song.settled(), Some((Settlement::Release, 100)));
}

#[test]
fn words_that_a_failed_attempt_sang_are_not_ordered_from_the_next() {
    let sung = Clip { lyrics: Some("la".into()), ..named_clip("a") };
    let song = a_song().ordered(0, 0).heard(0, 0, News::Clips(Stage::Text, vec![sung]));
    assert_eq!(song.song.lyrics.as_deref(), Some("la"));
    let song = song.heard(0, 0, gave_up(Class::ProviderError));
    assert_eq!(song.song.lyrics, None);
}

#[test]
fn a_url_in_reserve_is_nothing_to_tell() {
    let plain = Clip { fallback_url: None, ..named_clip("a") };
    let song = a_song().ordered(0, 0).heard(0, 0, News::Clips(Stage::Text, vec![plain]));
    let song = song.heard(0, 0, News::Clips(Stage::Text, vec![named_clip("a")]));
    assert_eq!(song.last.kind, None);
    assert_eq!(song.song.variants[0].fallback_url.as_deref(), Some("https://cdn/a.mp3"));
}
