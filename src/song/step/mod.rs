//! What an event means for a song. The only place that knows (`design.md` section 1).
//!
//! Pure and total: no clock, no chance, no I/O, and no event that is an error. What comes late, twice
//! or out of order is a [`Step::nothing`] (CB-4). `run` is a task under way, `end` how phases end. Not here:
//! what is due next (`song::due`), whether an
//! owner's wish is to be refused (`song::refusal`), how clips are matched (`song::clips`).

mod addition;
mod end;
mod run;

use super::event::{Choice, Event, EventKind};
use super::parts::{Makes, TaskKind};
use super::phase::{
    AdditionState, CallState, Head, LyricsVariant, Phase, Progress, Push, Rules, Run, Song, Variant,
};
use super::wish::{Mode, Wish};
use super::{clips, refusal};
use crate::credit::Credits;
use crate::id::{CallKey, ShareToken, TaskId, UserId};
use crate::mutant::{Mutant, planted};
use crate::time::Time;
use end::{cancel, delete};
use run::{answered, give_up, limited, not_sent, reported, submit_failed, submitted, submitting, wake};

/// One step of a song: how it is afterwards, what is written with it, what is done once all of that is
/// durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub song: Song,
    /// The event its watchers see; `None` when nothing public changed.
    pub kind: Option<EventKind>,
    pub writes: Vec<Write>,
    pub acts: Vec<Act>,
}

/// A row to write beside the song's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Money for the new head task; the step is refused where it is lacking (CRED-2).
    Reserve {
        task: TaskId,
        kind: TaskKind,
        amount: Credits,
    },
    /// The one settling entry of a task: `Capture` gives back what was not delivered, `Release` all.
    Settle {
        task: TaskId,
        kind: TaskKind,
        settlement: Settlement,
        amount: Credits,
    },
    Notify(Push),
    /// That a provider took one of our calls, which is what it costs us (CRED-6), and what it calls it, if it
    /// calls it anything (PROV-5).
    Ref {
        call: CallKey,
        provider: String,
        provider_task: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    Capture,
    Release,
}

/// What to do once the step is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Make the call whose intent was just recorded.
    Submit(CallKey),
}

impl Step {
    /// The event changes nothing.
    pub fn nothing(song: &Song) -> Self {
        Self { song: song.clone(), kind: None, writes: Vec::new(), acts: Vec::new() }
    }

    /// Whether there is nothing to commit.
    pub fn is_nothing(&self, before: &Song) -> bool {
        self.writes.is_empty() && self.acts.is_empty() && self.song == *before
    }
}

/// Takes a song one event further.
pub fn step(song: &Song, event: &Event, now: Time, rules: &Rules) -> Step {
    let mut next = Draft::new(song, now, rules);
    next.beside = event.call().and_then(|call| song.additions.iter().position(|one| one.task == call.task));
    match (event.call(), &song.phase) {
        // What is told of a call is the matter of its task, whatever else the song does.
        (Some(_), Phase::Deleted) => heard_late(&mut next, event),
        (Some(call), _) => match song.run_of(call.task) {
            Some(run) => at_work(&mut next, run.clone(), event),
            None if planted(Mutant::NoTerminalCheck) => {
                at_work(&mut next, never_ended(song, call, now), event)
            }
            None => heard_late(&mut next, event),
        },
        (None, Phase::Lyrics(_) | Phase::Music(_)) => running(&mut next, event),
        (None, Phase::LyricsReady) => lyrics_ready(&mut next, event),
        (None, Phase::Ready) => ready(&mut next, event),
        (None, Phase::Failed(_)) => failed(&mut next, event),
        (None, Phase::Complete | Phase::Cancelled) => ended(&mut next, event),
        (None, Phase::Deleted) => {}
    }
    next.finish(song)
}

/// As [`step`]. Where the song goes on elsewhere, that is at whoever comes first in `ranked`, which is asked only then: who was
/// next when it was ordered may want to be left alone by now (PROV-12).
pub fn step_ranked(
    song: &Song,
    event: &Event,
    now: Time,
    rules: &Rules,
    ranked: impl FnOnce() -> Vec<&'static str>,
) -> Step {
    let next = step(song, event, now, rules);
    let goes = next.song.wish.provider != song.wish.provider;
    if !goes || song.wish.alternatives.len() < 2 {
        return next;
    }
    step(&song.preferring(&ranked()), event, now, rules)
}

/// A step being worked out.
struct Draft<'a> {
    song: Song,
    kind: Option<EventKind>,
    writes: Vec<Write>,
    acts: Vec<Act>,
    now: Time,
    rules: &'a Rules,
    /// The addition that this is about; `None`: the song's own newest task.
    beside: Option<usize>,
}

impl<'a> Draft<'a> {
    fn new(song: &Song, now: Time, rules: &'a Rules) -> Self {
        Self {
            song: song.clone(),
            kind: None,
            writes: Vec::new(),
            acts: Vec::new(),
            now,
            rules,
            beside: None,
        }
    }

    /// Gives the step its number if anybody can see a difference.
    fn finish(mut self, before: &Song) -> Step {
        let kind = shows_a_difference(before, &self.song).then(|| self.kind.unwrap_or(EventKind::Updated));
        if kind.is_some() {
            // The old owner's last event, and the new one's first.
            let events = if before.user == self.song.user { 1 } else { 2 };
            self.song.seq = before.seq + events;
            self.song.updated_at = self.now;
        }
        Step { song: self.song, kind, writes: self.writes, acts: self.acts }
    }

    /// Stays at work, with this run.
    fn keep(&mut self, run: Run) {
        match self.beside {
            Some(index) => self.song.additions[index].state = AdditionState::Running(run),
            None if self.kind().makes() == Makes::Lyrics => self.song.phase = Phase::Lyrics(run),
            None => self.song.phase = Phase::Music(run),
        }
    }

    fn task(&self) -> TaskId {
        self.beside.map_or(self.song.head.task, |index| self.song.additions[index].task)
    }

    fn kind(&self) -> TaskKind {
        self.beside.map_or(self.song.head.kind, |index| self.song.additions[index].work.kind())
    }

    fn price(&self) -> Credits {
        self.beside.map_or(self.song.head.price, |index| self.song.additions[index].price)
    }

    fn progress(&mut self) -> &mut Progress {
        let kind = self.kind();
        match self.beside {
            Some(index) => &mut self.song.additions[index].progress,
            None => self.song.progress_mut(kind).get_or_insert_with(Progress::default),
        }
    }

    /// Ends the task's reservation by giving this much of it back.
    fn settle(&mut self, amount: Credits) {
        let (task, kind, price) = (self.task(), self.kind(), self.price());
        if price == Credits::ZERO {
            return;
        }
        let settlement = if amount == price { Settlement::Release } else { Settlement::Capture };
        self.song.refunded = self.song.refunded + amount;
        self.writes.push(Write::Settle { task, kind, settlement, amount });
    }

    /// Takes the price of a further task.
    fn charge(&mut self, task: TaskId, kind: TaskKind, price: Credits) {
        self.song.cost = self.song.cost + price;
        if price != Credits::ZERO {
            self.writes.push(Write::Reserve { task, kind, amount: price });
        }
    }

    /// Keeps that the provider took one of our calls, and what it calls it; nothing, if it calls it nothing.
    fn refer(&mut self, call: CallKey, provider_task: &str) {
        let provider = self.song.provider_of(call.task).to_owned();
        let provider_task = Some(provider_task.to_owned()).filter(|name| !name.is_empty());
        let taken = Write::Ref { call, provider, provider_task };
        if !self.writes.contains(&taken) {
            self.writes.push(taken);
        }
    }

    fn count_retry(&mut self) {
        let progress = self.progress();
        progress.retry_count = progress.retry_count.saturating_add(1);
    }

    fn notify(&mut self, push: Push) {
        if !self.song.pushes.contains(&push) {
            self.song.pushes.push(push);
            self.writes.push(Write::Notify(push));
        }
    }

    fn begin(&mut self, task: TaskId, kind: TaskKind) {
        let run = Run::new(self.song.wish.calls(kind), self.now);
        self.begin_with(task, kind, self.song.wish.price(kind), run);
    }

    fn begin_with(&mut self, task: TaskId, kind: TaskKind, price: Credits, run: Run) {
        self.song.head = Head {
            task,
            number: self.song.next_number(),
            kind,
            provider: self.song.wish.provider.clone(),
            price,
        };
        self.charge(task, kind, price);
        self.progress().task = Some(task);
        self.keep(run);
    }
}

/// What watchers can see is all of a song but the inside of its run.
fn shows_a_difference(before: &Song, after: &Song) -> bool {
    let waiting =
        |song: &Song| song.phase.run().map(|run| (run.waiting, run.queue_position, run.expected_at));
    before.user != after.user
        || before.status() != after.status()
        || waiting(before) != waiting(after)
        || matches!(after.phase, Phase::Deleted) != matches!(before.phase, Phase::Deleted)
        || before.head != after.head
        || !progress_alike(&before.lyrics_progress, &after.lyrics_progress)
        || !progress_alike(&before.music_progress, &after.music_progress)
        || before.title != after.title
        || before.lyrics != after.lyrics
        || before.lyrics_variants != after.lyrics_variants
        || !clips::look_alike(&before.variants, &after.variants)
        || !addition::look_alike(&before.additions, &after.additions)
        || before.cost != after.cost
        || before.refunded != after.refunded
        || before.last_viewed_at != after.last_viewed_at
        || before.wish != after.wish
}

fn progress_alike(before: &Option<Progress>, after: &Option<Progress>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => before.looks_like(after),
        (before, after) => before.is_none() == after.is_none(),
    }
}

/// What is told of a call of a task that is under way.
fn at_work(next: &mut Draft, run: Run, event: &Event) {
    match event {
        Event::Limited { call, by, queue_position } => limited(next, run, *call, *by, *queue_position),
        Event::Submitting { call, not_after, settled_by, takes, synchronous } => {
            let intent = CallState::Intent { not_after: *not_after, settled_by: *settled_by };
            submitting(next, run, *call, intent, *takes, *synchronous);
        }
        Event::NotSent { call } => not_sent(next, run, *call),
        Event::Submitted { call, provider_task, clip_ids } => {
            submitted(next, run, *call, provider_task, clip_ids);
        }
        Event::Answered { call, news } => answered(next, run, *call, news),
        Event::SubmitFailed { call, failure } => submit_failed(next, run, *call, failure),
        Event::News { call, provider_task, news } => {
            reported(next, run, *call, provider_task.as_deref(), news);
        }
        Event::Wake
        | Event::Chosen { .. }
        | Event::Retried { .. }
        | Event::PutBack { .. }
        | Event::GivenUp
        | Event::Asked { .. }
        | Event::Resumed { .. }
        | Event::Claimed { .. }
        | Event::Cancelled
        | Event::Viewed
        | Event::Selected { .. }
        | Event::Unshared { .. }
        | Event::Deleted => {}
    }
}

/// For a planted mistake: the run of a task that has ended, as if it still were under way.
fn never_ended(song: &Song, call: CallKey, now: Time) -> Run {
    let mut run = Run::new(song.wish.calls(song.head.kind), now);
    if let Some(known) = run.calls.get_mut(usize::from(call.call)) {
        known.attempt = call.attempt;
        known.state = CallState::Submitted { provider_task: String::new(), since: now };
    }
    run
}

/// Of a task that has ended only that it was taken is kept, for what it costs (CRED-6), and what it is called: it must
/// be known when it reports (PROV-5).
fn heard_late(next: &mut Draft, event: &Event) {
    if let Event::Submitted { call, provider_task, .. } = event {
        next.refer(*call, provider_task);
    }
    if let Event::Answered { call, .. } = event {
        next.refer(*call, "");
    }
}

fn running(next: &mut Draft, event: &Event) {
    match event {
        Event::Wake => to_all(next, wake),
        Event::GivenUp => to_all(next, give_up),
        Event::Cancelled => cancel(next),
        Event::Viewed => next.song.last_viewed_at = Some(next.now),
        Event::Selected { variant_number, selected } => select(next, *variant_number, *selected),
        Event::Unshared { variant_number, share_token } => unshare(next, *variant_number, *share_token),
        Event::Claimed { by, plan } => claim(next, by, plan),
        Event::Deleted => {
            cancel(next);
            delete(next);
        }
        Event::Limited { .. }
        | Event::Submitting { .. }
        | Event::NotSent { .. }
        | Event::Submitted { .. }
        | Event::Answered { .. }
        | Event::SubmitFailed { .. }
        | Event::News { .. }
        | Event::Chosen { .. }
        | Event::Asked { .. }
        | Event::Resumed { .. }
        | Event::PutBack { .. }
        | Event::Retried { .. } => {}
    }
}

/// Something concerns everything that is under way.
fn to_all(next: &mut Draft, what: fn(&mut Draft, Run)) {
    if let Some(run) = next.song.phase.run().cloned() {
        what(next, run);
    }
    for index in 0..next.song.additions.len() {
        if let Some(run) = next.song.additions[index].run().cloned() {
            next.beside = Some(index);
            what(next, run);
        }
    }
}

// --- between and after ------------------------------------------------------------------------

fn lyrics_ready(next: &mut Draft, event: &Event) {
    match event {
        Event::Chosen { choice, task, unable } => choose(next, choice, *task, unable),
        Event::Cancelled => cancel(next),
        Event::Limited { .. }
        | Event::Submitting { .. }
        | Event::NotSent { .. }
        | Event::Submitted { .. }
        | Event::Answered { .. }
        | Event::SubmitFailed { .. }
        | Event::News { .. }
        | Event::Wake
        | Event::Retried { .. }
        | Event::Resumed { .. }
        | Event::Claimed { .. }
        | Event::PutBack { .. }
        | Event::GivenUp
        | Event::Asked { .. }
        | Event::Viewed
        | Event::Selected { .. }
        | Event::Unshared { .. }
        | Event::Deleted => ended(next, event),
    }
}

fn choose(next: &mut Draft, choice: &Choice, task: TaskId, unable: &[String]) {
    let song = &mut next.song;
    let chosen = match choice {
        Choice::Variant(index) => *index,
        Choice::Text { text, title } => write_own(song, text, title.as_deref()),
    };
    let Some(title) = take(song, chosen) else { return };
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

fn ready(next: &mut Draft, event: &Event) {
    ended(next, event);
    if matches!(event, Event::Viewed) {
        next.song.phase = Phase::Complete;
        next.kind = Some(EventKind::Complete);
    }
}

fn failed(next: &mut Draft, event: &Event) {
    if let Event::PutBack { task } = event {
        return start_again(next, *task);
    }
    let Event::Retried { task, prompt, lyrics, unable } = event else { return ended(next, event) };
    let now = next.now;
    // The limits hold whoever forgot to ask (PROV-10).
    if refusal::check(&next.song, event, now, next.rules).is_err() {
        return;
    }
    change_words(&mut next.song, prompt.as_deref(), lyrics.as_deref());
    pass_over(&mut next.song, unable);
    next.song.retries.push(now);
    start_again(next, *task);
}

/// A new task at the phase that failed.
fn start_again(next: &mut Draft, task: TaskId) {
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
        song.wish = std::sync::Arc::new(wish);
    }
}

/// What cannot be made of its words there is not tried there (PROV-12).
fn pass_over(song: &mut Song, unable: &[String]) {
    if song.wish.alternatives.iter().any(|other| unable.contains(&other.provider)) {
        let wish = std::sync::Arc::make_mut(&mut song.wish);
        wish.alternatives.retain(|other| !unable.contains(&other.provider));
    }
}

/// What may still happen to any song that is not at work.
fn ended(next: &mut Draft, event: &Event) {
    match event {
        Event::Viewed => next.song.last_viewed_at = Some(next.now),
        Event::Selected { variant_number, selected } => select(next, *variant_number, *selected),
        Event::Unshared { variant_number, share_token } => unshare(next, *variant_number, *share_token),
        Event::Deleted => delete(next),
        Event::Wake => to_all(next, wake),
        Event::GivenUp => to_all(next, give_up),
        Event::Asked { addition } => addition::ask(next, addition),
        Event::Resumed { task } => resume(next, event, *task),
        Event::Claimed { by, plan } => claim(next, by, plan),
        Event::Limited { .. }
        | Event::Submitting { .. }
        | Event::NotSent { .. }
        | Event::Submitted { .. }
        | Event::Answered { .. }
        | Event::SubmitFailed { .. }
        | Event::News { .. }
        | Event::Chosen { .. }
        | Event::Retried { .. }
        | Event::PutBack { .. }
        | Event::Cancelled => {}
    }
}

/// Makes what is missing of a song of several variations (CRED-8). What is there stays, and all of it is paid for.
fn resume(next: &mut Draft, event: &Event, task: TaskId) {
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
fn claim(next: &mut Draft, by: &UserId, plan: &str) {
    if next.song.user == *by {
        return;
    }
    next.song.user = by.clone();
    let wish = Wish { plan: Some(plan.to_owned()), ..(*next.song.wish).clone() };
    next.song.wish = std::sync::Arc::new(wish);
    next.kind = Some(EventKind::Created);
}

/// At most one favourite (SONG-9).
fn select(next: &mut Draft, variant_number: i16, selected: bool) {
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
fn unshare(next: &mut Draft, variant_number: i16, share_token: ShareToken) {
    let theirs = |variant: &&mut Variant| variant.variant_number == variant_number;
    if let Some(variant) = next.song.variants.iter_mut().find(theirs) {
        variant.share_token = share_token;
    }
}
