//! What its owner wishes of a song: words, another try, a favourite, a link taken back. Whether a wish is to be refused
//! says `song::refusal`; where nobody asked, it changes nothing here.

use std::sync::Arc;

use super::Draft;
use crate::credit::Credits;
use crate::id::{ShareToken, TaskId, UserId};
use crate::song::event::{Choice, Event, EventKind};
use crate::song::phase::{LyricsVariant, Progress, Run, Song, Variant};
use crate::song::wish::{Mode, Wish};
use crate::song::{clips, refusal};

pub(super) fn choose(next: &mut Draft, choice: &Choice, task: TaskId, unable: &[String]) {
    let song = &mut next.song;
    let chosen = match choice {
        Choice::Variant(index) => *index,
        Choice::Text { text, title } => write_own(song, text, title.as_deref()),
    };
    let Some(title) = take(song, chosen) else { return };
    give_all_a_turn(song);
    pass_over(song, unable);
    let title = title.filter(|title| !title.is_empty());
    if song.wish.title.is_none() && title.is_some() {
        song.title = title;
    }
    song.music_progress = Some(Progress::default());
    let kind = next.song.wish.work.kind();
    next.begin(task, kind);
    next.kind = Some(EventKind::LyricsChosen);
}

/// The owner's own text is a further variant (SONG-5). Answers its index.
fn write_own(song: &mut Song, text: &str, title: Option<&str>) -> i16 {
    let variant_index = i16::try_from(song.lyrics_variants.len()).unwrap_or(i16::MAX);
    let (text, title) = (text.to_owned(), title.map(str::to_owned));
    song.lyrics_variants.push(LyricsVariant { variant_index, title, text, selected: false });
    variant_index
}

/// Exactly one text is selected, and sung (SONG-5). Answers what it is called; `None` where there is no such text.
fn take(song: &mut Song, index: i16) -> Option<Option<String>> {
    let taken = song.lyrics_variants.iter().find(|variant| variant.variant_index == index)?.clone();
    for variant in &mut song.lyrics_variants {
        variant.selected = variant.variant_index == index;
    }
    song.lyrics = Some(taken.text);
    Some(taken.title)
}

/// With other words, if there are any.
pub(super) fn retry(next: &mut Draft, event: &Event) {
    let Event::Retried { task, prompt, lyrics, unable } = event else { return };
    let now = next.now;
    // The limits hold whoever forgot to ask (PROV-10).
    if refusal::check(&next.song, event, now, next.rules).is_err() {
        return;
    }
    change_words(&mut next.song, prompt.as_deref(), lyrics.as_deref());
    give_all_a_turn(&mut next.song);
    pass_over(&mut next.song, unable);
    next.song.retries.push(now);
    start_again(next, *task);
}

/// A new task at the phase that failed.
pub(super) fn start_again(next: &mut Draft, task: TaskId) {
    let kind = next.song.head.kind;
    clips::forget_all(&mut next.song);
    let retry_count = next.progress().retry_count.saturating_add(1);
    *next.progress() = Progress { retry_count, ..Progress::default() };
    next.begin(task, kind);
    next.kind = Some(EventKind::RetryScheduled);
}

fn change_words(song: &mut Song, prompt: Option<&str>, lyrics: Option<&str>) {
    let mut wish = (*song.wish).clone();
    if let Some(prompt) = prompt {
        wish.prompt = Some(prompt.to_owned());
    }
    match (lyrics, wish.mode) {
        (Some(lyrics), Mode::Music) => {
            song.lyrics = Some(lyrics.to_owned());
            wish.lyrics = Some(lyrics.to_owned());
        }
        (Some(lyrics), Mode::LyricsFirst) if song.lyrics.as_deref() != Some(lyrics) => {
            let written = write_own(song, lyrics, None);
            take(song, written);
        }
        (Some(_), Mode::LyricsFirst) | (None, _) => {}
    }
    if wish != *song.wish {
        song.wish = Arc::new(wish);
    }
}

/// Who had the song and failed it may take over once more, after the others (PROV-12).
fn give_all_a_turn(song: &mut Song) {
    if !song.wish.left.is_empty() {
        let wish = Arc::make_mut(&mut song.wish);
        let left = std::mem::take(&mut wish.left);
        wish.alternatives.extend(left);
    }
}

/// What cannot be made of its words there is not tried there (PROV-12).
fn pass_over(song: &mut Song, unable: &[String]) {
    if song.wish.alternatives.iter().any(|other| unable.contains(&other.provider)) {
        let wish = Arc::make_mut(&mut song.wish);
        wish.alternatives.retain(|other| !unable.contains(&other.provider));
    }
}

/// Makes what is missing of a song of several variations (CRED-8). What is there stays, and all of it is paid for.
pub(super) fn resume(next: &mut Draft, event: &Event, task: TaskId) {
    if refusal::check(&next.song, event, next.now, next.rules).is_err()
        || !clips::some_are_missing(&next.song)
    {
        return;
    }
    let kind = next.song.head.kind;
    let mut run = Run::new(next.song.wish.calls(kind), next.now);
    clips::resume(&mut next.song, &mut run);
    next.song.retries.push(next.now);
    let retry_count = next.progress().retry_count.saturating_add(1);
    *next.progress() = Progress { retry_count, ..Progress::default() };
    next.begin_with(task, kind, Credits::ZERO, run);
    next.kind = Some(EventKind::RetryScheduled);
}

/// The song is another's from here on, as if it had been created by them (CRED-7).
pub(super) fn claim(next: &mut Draft, by: &UserId, plan: &str) {
    if next.song.user == *by {
        return;
    }
    next.song.user = by.clone();
    let wish = Wish { plan: Some(plan.to_owned()), ..(*next.song.wish).clone() };
    next.song.wish = Arc::new(wish);
    next.kind = Some(EventKind::Created);
}

/// At most one favourite (SONG-9).
pub(super) fn select(next: &mut Draft, variant_number: i16, selected: bool) {
    if !next.song.variants.iter().any(|variant| variant.variant_number == variant_number) {
        return;
    }
    for variant in &mut next.song.variants {
        if variant.variant_number == variant_number {
            variant.selected = selected;
        } else if selected {
            variant.selected = false;
        }
    }
}

/// Who has the old link sees nothing any more; the new one is known to the owner alone (RT-6).
pub(super) fn unshare(next: &mut Draft, variant_number: i16, share_token: ShareToken) {
    let theirs = |variant: &&mut Variant| variant.variant_number == variant_number;
    if let Some(variant) = next.song.variants.iter_mut().find(theirs) {
        variant.share_token = share_token;
    }
}
