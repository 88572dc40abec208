//! What operators and the sweep may do with a song that does not get on (OPS-1, OPS-2).

use super::*;

#[test]
fn an_operator_puts_a_failed_song_back_whatever_its_owner_used_up() {
    let mut song = a_song();
    for number in 2..=4 {
        song = song
            .ordered(0, 0)
            .heard(0, 0, gave_up(Class::InvalidInput))
            .then(Event::PutBack { task: task(number) });
        assert_eq!(song.song.retries, []);
        assert!(song.song.phase.run().is_some());
        assert_eq!(song.song.head.task, task(number));
        assert_eq!(song.song.cost + -song.song.refunded, song.song.head.price, "reserved once more");
    }
}

#[test]
fn only_what_failed_is_put_back() {
    a_song().unmoved_by(Event::PutBack { task: task(2) });
    a_song().ordered(0, 0).heard(0, 0, finished()).unmoved_by(Event::PutBack { task: task(2) });
    a_song().then(Event::Cancelled).unmoved_by(Event::PutBack { task: task(2) });
}

#[test]
fn a_song_that_nothing_keeps_from_its_submission_is_given_up_and_refunded() {
    let song = a_song().then(Event::GivenUp);
    assert_eq!(song.settled(), Some((Settlement::Release, 1000)));
    assert!(matches!(&song.song.phase, Phase::Failed(failure) if failure.class == Class::Unknown));
}

#[test]
fn what_may_be_at_a_provider_is_not_given_up() {
    for song in [a_song().submitting(0, 0), a_song().ordered(0, 0), a_song().ambiguous(0)] {
        song.unmoved_by(Event::GivenUp);
    }
}
