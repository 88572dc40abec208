//! The laws of `law`, over many histories (`design.md` section 9).

use super::dice::{Dice, histories};
use super::law::{Law, hold};
use super::world::{World, any_event, in_variations, others};
use super::*;

#[test]
fn a_song_of_music_keeps_every_law_whatever_happens_and_comes_to_an_end() {
    histories(60_000, |dice| World::new(dice, Mode::Music).live());
}

#[test]
fn a_song_of_lyrics_first_keeps_every_law_whatever_happens_and_comes_to_an_end() {
    histories(60_000, |dice| World::new(dice, Mode::LyricsFirst).live());
}

#[test]
fn any_events_in_any_order_keep_the_books_the_numbers_and_the_view() {
    histories(60_000, anything);
}

/// Events that no shell would tell in this order: no panic, no wrong number, no wrong entry.
fn anything(dice: &mut Dice) -> Result<(), String> {
    let mut wish = a_wish(dice.pick(&[Mode::Music, Mode::LyricsFirst]));
    wish.calls = Calls { lyrics: 1 + dice.below(2) as u8, music: 1 + dice.below(2) as u8 };
    wish.alternatives = others(dice);
    if dice.percent(30) {
        in_variations(&mut wish);
    }
    let (mut song, mut now, rules) = (created(wish), NOON, rules());
    let mut law = Law::of(&song, &rules);
    let mut next_task = 2;
    for _ in 0..20 {
        now = now + seconds(dice.pick(&[0, 1, 60, 200, 1000]));
        let due = due::due(&song, |_| now, &rules);
        hold!(due.is_none() == song.runs().next().is_none(), "due {due:?} in {:?}", song.phase);
        // Mostly what could be, else it would never get far.
        let event = match due {
            Some((_, Due::Submit(call))) if dice.percent(40) => submitting(call, now),
            _ => any_event(dice, now, next_task),
        };
        let step = law.step(&song, &event, now)?;
        dice.note(|| format!("{event:?} => {:?} {:?} {:?}", step.kind, step.writes, step.song.phase));
        law.commit_unordered(&song, &event, &step, now)?;
        if step.song.head.task != song.head.task || step.song.additions.len() != song.additions.len() {
            next_task += 1;
        }
        song = step.song;
    }
    Ok(())
}
