//! What an event means for a song. The only place that knows (`design.md` section 1).
//!
//! Pure and total: no clock, no chance, no I/O, and no event that is an error. What comes late, twice
//! or out of order is a [`Step::nothing`] (CB-4). `run` is a task under way, `end` how phases end, `owner` what owners
//! wish. Not here: what is due next (`song::due`), whether a wish is to be refused (`song::refusal`), how clips are
//! matched (`song::clips`).

mod addition;
mod end;
mod owner;
mod run;

use super::clips;
use super::event::{Event, EventKind};
use super::parts::{Makes, TaskKind};
use super::phase::{AdditionState, CallState, Head, Phase, Progress, Push, Rules, Run, Song};
use crate::credit::Credits;
use crate::id::{CallKey, TaskId};
use crate::mutant::{Mutant, planted};
use crate::time::Time;
use end::{cancel, delete};
use owner::{choose, claim, resume, retry, select, start_again, unshare};
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
        let kind =
            shows_a_difference(before, &self.song, self.now).then(|| self.kind.unwrap_or(EventKind::Updated));
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
fn shows_a_difference(before: &Song, after: &Song, now: Time) -> bool {
    let waiting = |song: &Song| song.phase.run().map(|run| (run.waiting, run.queue_position));
    before.user != after.user
        || before.status() != after.status()
        || waiting(before) != waiting(after)
        || takes_otherwise(before, after, now)
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

/// Whether it is said otherwise how long it takes, and not only later.
fn takes_otherwise(before: &Song, after: &Song, now: Time) -> bool {
    let expected = |song: &Song| song.phase.run().and_then(|run| run.expected_at);
    let left = |song: &Song, at: Time| expected(song).filter(|end| *end > at).map(|end| end.since(at));
    expected(before) != expected(after) && left(before, before.updated_at) != left(after, now)
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
        Event::Limited { call, by, queue_position, open } => {
            limited(next, run, *call, *by, *queue_position, open);
        }
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

fn ready(next: &mut Draft, event: &Event) {
    ended(next, event);
    if matches!(event, Event::Viewed) {
        next.song.phase = Phase::Complete;
        next.kind = Some(EventKind::Complete);
    }
}

fn failed(next: &mut Draft, event: &Event) {
    match event {
        Event::PutBack { task } => start_again(next, *task),
        Event::Retried { .. } => retry(next, event),
        Event::Limited { .. }
        | Event::Submitting { .. }
        | Event::NotSent { .. }
        | Event::Submitted { .. }
        | Event::Answered { .. }
        | Event::SubmitFailed { .. }
        | Event::News { .. }
        | Event::Wake
        | Event::Chosen { .. }
        | Event::Resumed { .. }
        | Event::Claimed { .. }
        | Event::GivenUp
        | Event::Asked { .. }
        | Event::Cancelled
        | Event::Viewed
        | Event::Selected { .. }
        | Event::Unshared { .. }
        | Event::Deleted => ended(next, event),
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
