//! A song in several variations, each made by a call of its own (CRED-8).

use super::*;
use crate::song::event::EventKind;
use crate::song::phase::VariantStatus;
use crate::song::wish::Variation;

fn in_three() -> Story {
    let tagged = |tag: &str| Variation { style_tags: vec![tag.into()] };
    story(Wish {
        variants: 3,
        variations: vec![tagged("slow"), tagged("waltz"), tagged("loud")],
        calls: Calls { lyrics: 1, music: 3 },
        ..a_wish(Mode::Music)
    })
}

fn clip_ids(song: &Story) -> Vec<Option<&str>> {
    song.song.variants.iter().map(|variant| variant.clip_id.as_deref()).collect()
}

/// The third one failed for good.
fn two_of_three() -> Story {
    let song = in_three().ordered(0, 0).ordered(1, 0).submitting(2, 0);
    let song = song.heard(1, 0, clips(Stage::Complete, &["c", "d"]));
    song.heard(0, 0, clips(Stage::Complete, &["a", "b"])).refused(2, 0, Class::InvalidInput)
}

#[test]
fn each_call_is_ordered_with_its_own_style_beside_the_songs() {
    let song = in_three();
    let tags = |call| song.song.order(song.key(call, 0)).options.style_tags;
    assert_eq!([tags(0), tags(1), tags(2)], [vec!["waltz", "slow"], vec!["waltz"], vec!["waltz", "loud"]]);
    assert_eq!(song.song.order(song.key(1, 0)).variants, 1);
}

#[test]
fn each_call_fills_its_own_place_with_its_first_clip() {
    let song = two_of_three();
    assert_eq!(clip_ids(&song), [Some("a"), Some("c"), None]);
    let same = in_three().ordered(1, 0).heard(1, 0, clips(Stage::First, &["c"]));
    let same = same.heard(1, 0, News::Clips(Stage::Complete, vec![clip("d"), clip("c")]));
    assert_eq!(clip_ids(&same), [None, Some("c"), None]);
}

#[test]
fn two_of_three_are_a_song() {
    let song = two_of_three();
    assert_eq!(song.status(), Status::Ready);
    let statuses: Vec<_> = song.song.variants.iter().map(|variant| variant.status).collect();
    assert_eq!(statuses, [VariantStatus::Complete, VariantStatus::Complete, VariantStatus::Failed]);
}

#[test]
fn only_what_is_missing_is_made_again_and_it_costs_nothing() {
    let song = two_of_three();
    let cost = song.song.cost;
    let song = song.then(Event::Resumed { task: task(2) });
    assert_eq!(song.status(), Status::GeneratingMusic);
    assert!(song.last.writes.is_empty(), "{:?}", song.last.writes);
    assert_eq!(song.due().map(|(_, due)| due), Some(Due::Submit(song.key(2, 0))));
    assert_eq!([song.state(0), song.state(1)], [&CallState::Done, &CallState::Done]);
    assert_eq!(clip_ids(&song), [Some("a"), Some("c"), None]);
    let song = song.ordered(2, 0).heard(2, 0, clips(Stage::Complete, &["e", "f"]));
    assert_eq!((song.status(), song.song.cost), (Status::Ready, cost));
    assert_eq!(clip_ids(&song), [Some("a"), Some("c"), Some("e")]);
    song.unmoved_by(Event::Resumed { task: task(3) });
}

#[test]
fn what_stays_missing_takes_nothing_away() {
    let song = two_of_three().then(Event::Resumed { task: task(2) }).refused(2, 0, Class::InvalidInput);
    let song = song.submitting(2, 0).refused(2, 0, Class::InvalidInput);
    assert_eq!(song.status(), Status::Ready);
    assert_eq!(clip_ids(&song), [Some("a"), Some("c"), None]);
}

#[test]
fn who_no_longer_wants_what_is_missing_keeps_what_is_there() {
    let song = two_of_three().then(Event::Resumed { task: task(2) }).submitting(2, 0).then(Event::Cancelled);
    assert_eq!((song.status(), song.song.refunded), (Status::Ready, Credits::ZERO));
    assert_eq!(clip_ids(&song), [Some("a"), Some("c"), None]);
    let seen = two_of_three().then(Event::Viewed).then(Event::Resumed { task: task(2) });
    let seen = seen.then(Event::Cancelled);
    assert_eq!((seen.status(), seen.last.kind), (Status::Complete, Some(EventKind::Complete)));
    // And may change their mind.
    let song = seen.then(Event::Resumed { task: task(3) }).ordered(2, 0);
    let song = song.heard(2, 0, clips(Stage::Complete, &["e"]));
    assert_eq!(clip_ids(&song), [Some("a"), Some("c"), Some("e")]);
}

#[test]
fn a_song_without_variations_has_none_missing() {
    let told = News::Clips(Stage::Complete, vec![clip("a"), named_clip("b")]);
    let song = a_song().ordered(0, 0).heard(0, 0, told);
    assert_eq!(song.status(), Status::Ready);
    song.unmoved_by(Event::Resumed { task: task(2) });
}

#[test]
fn a_clip_more_than_is_kept_does_not_end_its_call() {
    let over = |id: &str| Clip { finished: true, ..clip(id) };
    let song = in_three().ordered(0, 0).heard(0, 0, News::Clips(Stage::Text, vec![named_clip("a")]));
    let song = song.heard(0, 0, News::Clips(Stage::First, vec![over("b")]));
    assert!(!song.state(0).ended(), "{:?}", song.state(0));
    let song = song.heard(0, 0, News::Clips(Stage::First, vec![over("a")]));
    assert_eq!(song.state(0), &CallState::Done);
}
