//! A guest's song that moves to an account (CRED-7).

use super::*;
use crate::song::event::EventKind;

fn claimed(by: &str) -> Event {
    Event::Claimed { by: UserId::trusted(by), plan: "pro" }
}

#[test]
fn a_song_at_work_moves_to_the_account_and_goes_on() {
    let song = a_song().ordered(0, 0).then(claimed("bob"));
    assert_eq!((song.song.user.as_str(), song.last.kind), ("bob", Some(EventKind::Created)));
    assert_eq!(song.song.wish.plan.as_deref(), Some("pro"));
    assert!(song.last.writes.is_empty() && song.last.acts.is_empty());
    assert_eq!(song.heard(0, 0, finished()).status(), Status::Ready);
}

#[test]
fn it_takes_two_numbers_the_end_for_one_and_the_beginning_for_the_other() {
    let song = a_song();
    let before = song.song.seq;
    assert_eq!(song.then(claimed("bob")).song.seq, before + 2);
}

#[test]
fn who_has_a_song_already_does_not_get_it_again() {
    a_song().unmoved_by(claimed("alice"));
    a_song().then(Event::Deleted).unmoved_by(claimed("bob"));
}

#[test]
fn a_song_in_any_state_moves_and_stays_in_it() {
    for song in [a_song().ordered(0, 0).heard(0, 0, finished()), a_song().refused(0, 0, Class::InvalidInput)]
    {
        let status = song.status();
        let song = song.then(claimed("bob"));
        assert_eq!((song.song.user.as_str(), song.status()), ("bob", status));
    }
}
