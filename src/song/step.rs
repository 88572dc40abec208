//! What an event means for a song. The only place that knows (`design.md` section 1).
//!
//! Pure and total: no clock, no chance, no I/O, and no event that is an error. What comes late, twice
//! or out of order is a [`Step::nothing`] (CB-4). Not here: what is due next (`song::due`), whether an
//! owner's wish is to be refused (`song::refusal`), how clips are matched (`song::clips`).

use std::time::Duration;

use super::event::{Choice, Event, EventKind};
use super::parts::{LyricsText, News, Stage, TaskKind};
use super::phase::{
    Call, CallState, Head, Lost, LyricsVariant, Phase, Progress, Push, Rules, Run, Song, Waiting,
};
use super::wish::Mode;
use super::{chance, clips, refusal};
use crate::credit::Credits;
use crate::id::{CallKey, TaskId};
use crate::provider::failure::{Arrived, Class, Failure, TOO_FEW_LYRICS};
use crate::time::Time;

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
    /// The provider's name for one of our calls (PROV-5).
    Ref {
        call: CallKey,
        provider_task: String,
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
    match &song.phase {
        Phase::Lyrics(run) | Phase::Music(run) => running(&mut next, run.clone(), event),
        Phase::LyricsReady => lyrics_ready(&mut next, event),
        Phase::Ready => ready(&mut next, event),
        Phase::Failed(_) => failed(&mut next, event),
        Phase::Complete | Phase::Cancelled => ended(&mut next, event),
        Phase::Deleted => gone(&mut next, event),
    }
    next.finish(song)
}

/// A step being worked out.
struct Draft<'a> {
    song: Song,
    kind: Option<EventKind>,
    writes: Vec<Write>,
    acts: Vec<Act>,
    now: Time,
    rules: &'a Rules,
}

impl<'a> Draft<'a> {
    fn new(song: &Song, now: Time, rules: &'a Rules) -> Self {
        Self { song: song.clone(), kind: None, writes: Vec::new(), acts: Vec::new(), now, rules }
    }

    /// Gives the step its number if anybody can see a difference.
    fn finish(mut self, before: &Song) -> Step {
        let kind = shows_a_difference(before, &self.song).then(|| self.kind.unwrap_or(EventKind::Updated));
        if kind.is_some() {
            self.song.seq = before.seq + 1;
            self.song.updated_at = self.now;
        }
        Step { song: self.song, kind, writes: self.writes, acts: self.acts }
    }

    /// Stays in the running phase, with this run.
    fn keep(&mut self, run: Run) {
        self.song.phase = match self.song.head.kind {
            TaskKind::Lyrics => Phase::Lyrics(run),
            TaskKind::Generate => Phase::Music(run),
        };
    }

    fn progress(&mut self) -> &mut Progress {
        let kind = self.song.head.kind;
        self.song.progress_mut(kind).get_or_insert_with(Progress::default)
    }

    /// Ends the head task's reservation by giving this much of it back.
    fn settle(&mut self, amount: Credits) {
        let head = &self.song.head;
        if head.price == Credits::ZERO {
            return;
        }
        let settlement = if amount == head.price { Settlement::Release } else { Settlement::Capture };
        self.song.refunded = self.song.refunded + amount;
        self.writes.push(Write::Settle { task: head.task, kind: head.kind, settlement, amount });
    }

    /// Keeps what the provider calls one of our calls, if it calls it anything.
    fn refer(&mut self, call: CallKey, provider_task: &str) {
        if !provider_task.is_empty() {
            self.writes.push(Write::Ref { call, provider_task: provider_task.to_owned() });
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
        let price = self.song.wish.price(kind);
        self.song.head = Head {
            task,
            number: self.song.head.number + 1,
            kind,
            provider: self.song.wish.provider.clone(),
            price,
        };
        self.song.cost = self.song.cost + price;
        if price != Credits::ZERO {
            self.writes.push(Write::Reserve { task, kind, amount: price });
        }
        self.progress().task = Some(task);
        self.keep(Run::new(self.song.wish.calls(kind), self.now));
    }
}

/// What watchers can see is all of a song but the inside of its run.
fn shows_a_difference(before: &Song, after: &Song) -> bool {
    let waiting = |song: &Song| song.phase.run().and_then(|run| run.waiting);
    before.status() != after.status()
        || waiting(before) != waiting(after)
        || matches!(after.phase, Phase::Deleted) != matches!(before.phase, Phase::Deleted)
        || before.head != after.head
        || before.lyrics_progress != after.lyrics_progress
        || before.music_progress != after.music_progress
        || before.title != after.title
        || before.lyrics != after.lyrics
        || before.lyrics_variants != after.lyrics_variants
        || !clips::look_alike(&before.variants, &after.variants)
        || before.cost != after.cost
        || before.refunded != after.refunded
        || before.last_viewed_at != after.last_viewed_at
        || before.wish != after.wish
}

fn running(next: &mut Draft, run: Run, event: &Event) {
    match event {
        Event::Limited => limited(next, run),
        Event::Submitting { call, not_after } => submitting(next, run, *call, *not_after),
        Event::NotSent { call } => not_sent(next, run, *call),
        Event::Submitted { call, provider_task } => submitted(next, run, *call, provider_task),
        Event::SubmitFailed { call, failure } => submit_failed(next, run, *call, failure),
        Event::News { call, provider_task, news } => {
            reported(next, run, *call, provider_task.as_deref(), news);
        }
        Event::Wake => wake(next, run),
        Event::Cancelled => cancel(next),
        Event::Viewed => next.song.last_viewed_at = Some(next.now),
        Event::Selected { variant_number, selected } => select(next, *variant_number, *selected),
        Event::Deleted => {
            cancel(next);
            delete(next);
        }
        Event::Chosen { .. } | Event::Retried { .. } => {}
    }
}

// --- submitting -------------------------------------------------------------------------------

fn limited(next: &mut Draft, mut run: Run) {
    let held_up = |call: &Call| matches!(call.state, CallState::Accepted { from } if from <= next.now);
    if run.calls.iter().any(held_up) {
        run.waiting = Some(Waiting::ProviderLimit);
        run.limited_since.get_or_insert(next.now);
        next.kind = Some(EventKind::Waiting);
        next.keep(run);
    }
}

/// What kept one call from being made (a lease about to end) keeps the next from it for a moment too.
const NOT_SENT_PAUSE: Duration = Duration::from_secs(1);

/// The call of this key in its present attempt, if it is of the task that runs.
fn present(song: &Song, run: &mut Run, key: CallKey) -> Option<usize> {
    let index = usize::from(key.call);
    let call = run.calls.get(index)?;
    (key.task == song.head.task && key.attempt == call.attempt).then_some(index)
}

fn submitting(next: &mut Draft, mut run: Run, key: CallKey, not_after: Time) {
    let Some(index) = present(&next.song, &mut run, key) else { return };
    if !matches!(run.calls[index].state, CallState::Accepted { from } if from <= next.now) {
        return;
    }
    let settled_by = not_after + next.rules.call_timeout;
    run.calls[index].state = CallState::Intent { not_after, settled_by };
    run.waiting = None;
    next.acts.push(Act::Submit(key));
    next.keep(run);
}

fn not_sent(next: &mut Draft, mut run: Run, key: CallKey) {
    let Some(index) = present(&next.song, &mut run, key) else { return };
    if matches!(run.calls[index].state, CallState::Intent { .. }) {
        run.calls[index].state = CallState::Accepted { from: next.now + NOT_SENT_PAUSE };
        next.keep(run);
    }
}

fn submitted(next: &mut Draft, mut run: Run, key: CallKey, provider_task: &str) {
    // Also of a superseded attempt: what it is called must be known when it reports (PROV-5).
    next.refer(key, provider_task);
    let Some(index) = present(&next.song, &mut run, key) else { return };
    match &run.calls[index].state {
        CallState::Intent { .. } | CallState::Unknown { .. } => {
            start(next, &mut run, index, provider_task);
            next.keep(run);
        }
        CallState::Submitted { .. } => {
            learn_name(next, &mut run, index, provider_task);
            next.keep(run);
        }
        CallState::Accepted { .. } | CallState::Done | CallState::Failed { .. } => {}
    }
}

/// A callback that came before the submission's answer may not have said how to ask for the task (CB-4).
fn learn_name(next: &mut Draft, run: &mut Run, index: usize, told: &str) -> bool {
    match &mut run.calls[index].state {
        CallState::Submitted { provider_task, .. } if provider_task.is_empty() && !told.is_empty() => {
            told.clone_into(provider_task);
            next.progress().provider_task = Some(told.to_owned());
            true
        }
        CallState::Accepted { .. }
        | CallState::Intent { .. }
        | CallState::Submitted { .. }
        | CallState::Unknown { .. }
        | CallState::Done
        | CallState::Failed { .. } => false,
    }
}

/// The provider has the order: the phase is visibly under way.
fn start(next: &mut Draft, run: &mut Run, index: usize, provider_task: &str) {
    run.calls[index].state =
        CallState::Submitted { provider_task: provider_task.to_owned(), since: next.now };
    run.waiting = None;
    run.limited_since = None;
    let now = next.now;
    let progress = next.progress();
    progress.started_at.get_or_insert(now);
    progress.provider_task = Some(provider_task.to_owned()).filter(|id| !id.is_empty());
    if next.song.head.kind == TaskKind::Generate {
        clips::keep_places(&mut next.song);
    }
    next.kind = Some(EventKind::PhaseStarted);
}

fn submit_failed(next: &mut Draft, mut run: Run, key: CallKey, failure: &Failure) {
    let Some(index) = present(&next.song, &mut run, key) else { return };
    match (&run.calls[index].state, failure.arrived) {
        (CallState::Intent { .. }, Arrived::Maybe) => {
            run.calls[index].state = CallState::Unknown { until: next.now + next.rules.grace };
            next.keep(run);
        }
        // Also when it was given up as unknown: that it did not arrive is better to know late than never.
        (CallState::Intent { .. } | CallState::Unknown { .. }, Arrived::No) => {
            go_wrong(next, run, index, failure.clone());
        }
        (CallState::Unknown { .. }, Arrived::Maybe)
        | (
            CallState::Accepted { .. }
            | CallState::Submitted { .. }
            | CallState::Done
            | CallState::Failed { .. },
            _,
        ) => {}
    }
}

// --- hearing ----------------------------------------------------------------------------------

fn reported(next: &mut Draft, mut run: Run, key: CallKey, provider_task: Option<&str>, news: &News) {
    let Some(index) = adopted(next, &mut run, key, provider_task, news) else { return };
    match (next.song.head.kind, news) {
        (_, News::Working) => next.keep(run),
        (TaskKind::Lyrics, News::Lyrics(texts)) => {
            run.calls[index].texts =
                texts.iter().filter(|text| !text.text.trim().is_empty()).cloned().collect();
            run.calls[index].state = CallState::Done;
            conclude(next, run);
        }
        (TaskKind::Generate, News::Clips(stage, found)) => {
            heard_clips(next, run, index, *stage, found);
        }
        (_, News::Failed(failure)) => go_wrong(next, run, index, failure.clone()),
        // The other kind's results: not ours, whatever the provider thinks.
        (TaskKind::Lyrics, News::Clips(..)) | (TaskKind::Generate, News::Lyrics(_)) => next.keep(run),
    }
}

/// Which call the news is for. An order whose fate was unknown is taken on here if it turns out to be
/// alive before a later one was paid for (PROV-5). An attempt that is known to have failed stays dead,
/// whatever comes late.
fn adopted(
    next: &mut Draft,
    run: &mut Run,
    key: CallKey,
    provider_task: Option<&str>,
    news: &News,
) -> Option<usize> {
    let index = usize::from(key.call);
    let call = run.calls.get_mut(index).filter(|_| key.task == next.song.head.task)?;
    let alive = !matches!(news, News::Failed(_));
    let present = key.attempt == call.attempt;
    let lost = call.lost.is_some_and(|lost| lost.attempt == key.attempt);
    let open = match &call.state {
        CallState::Accepted { .. } => alive && (present || lost),
        CallState::Unknown { .. } => present || (alive && lost),
        CallState::Intent { .. } | CallState::Submitted { .. } => present,
        CallState::Done | CallState::Failed { .. } => false,
    };
    if !open {
        return None;
    }
    let provider_task = provider_task.unwrap_or_default();
    if matches!(call.state, CallState::Submitted { .. }) {
        if learn_name(next, run, index, provider_task) {
            next.refer(key, provider_task);
        }
        return Some(index);
    }
    if lost {
        call.lost = match call.state {
            CallState::Unknown { until } => Some(Lost { attempt: call.attempt, until }),
            CallState::Accepted { .. }
            | CallState::Intent { .. }
            | CallState::Submitted { .. }
            | CallState::Done
            | CallState::Failed { .. } => None,
        };
    }
    call.attempt = key.attempt;
    next.refer(key, provider_task);
    start(next, run, index, provider_task);
    Some(index)
}

fn heard_clips(next: &mut Draft, mut run: Run, index: usize, stage: Stage, found: &[super::parts::Clip]) {
    let was_playable = next.song.variants.iter().any(super::phase::Variant::playable);
    clips::merge(&mut next.song, &mut run, index, stage, found);
    if stage == Stage::Complete {
        if !clips::playable(&next.song, &run.calls[index]) {
            let failure = Failure::new(Class::ProviderError, "finished without a playable clip");
            return go_wrong(next, run, index, failure);
        }
        run.calls[index].state = CallState::Done;
        return conclude(next, run);
    }
    if !was_playable && next.song.variants.iter().any(super::phase::Variant::playable) {
        next.kind = Some(EventKind::ClipReady);
    }
    next.keep(run);
}

/// A call failed: again later, or for good.
fn go_wrong(next: &mut Draft, mut run: Run, index: usize, failure: Failure) {
    let limited = failure.class == Class::RateLimited;
    let waited = run.limited_since.map_or(Duration::ZERO, |since| next.now.since(since));
    let patience_left = !limited || waited < next.rules.max_wait;
    let chance = chance::of(next.song.head.task.0, u64::from(run.calls[index].next_attempt));
    let used = run.calls[index].failed_by(failure.class);
    let again = failure.retry_in(used, &next.rules.retry, chance).filter(|_| patience_left);
    let Some(delay) = again else {
        run.calls[index].state = CallState::Failed { failure };
        return conclude(next, run);
    };
    if limited {
        run.limited_since.get_or_insert(next.now);
        run.waiting = Some(Waiting::ProviderLimit);
        next.kind = Some(EventKind::Waiting);
    } else {
        run.calls[index].failures.push(failure.class);
        run.limited_since = None;
        run.waiting = Some(Waiting::Retry);
        next.count_retry();
        next.progress().error = Some(failure);
        next.kind = Some(EventKind::RetryScheduled);
    }
    try_again(next, &mut run, index, next.now + delay);
    next.keep(run);
}

/// A new attempt at a call, under a number that was never used before.
fn try_again(next: &mut Draft, run: &mut Run, index: usize, from: Time) {
    let call = &mut run.calls[index];
    call.attempt = call.next_attempt;
    call.next_attempt = call.next_attempt.saturating_add(1);
    call.state = CallState::Accepted { from: call.lost.map_or(from, |lost| from.max(lost.until)) };
    clips::forget(&mut next.song, call);
}

// --- time -------------------------------------------------------------------------------------

fn wake(next: &mut Draft, mut run: Run) {
    for index in 0..run.calls.len() {
        let state = run.calls[index].state.clone();
        match state {
            CallState::Intent { settled_by, .. } if settled_by <= next.now => {
                run.calls[index].state = CallState::Unknown { until: next.now + next.rules.grace };
            }
            CallState::Unknown { until } if until <= next.now => {
                if run.calls[index].resent {
                    let failure = Failure::new(Class::Network, "two submissions went without an answer");
                    run.calls[index].state = CallState::Failed { failure };
                    return conclude(next, run);
                }
                run.calls[index].resent = true;
                run.calls[index].lost = Some(Lost { attempt: run.calls[index].attempt, until });
                next.count_retry();
                run.waiting = Some(Waiting::Retry);
                next.kind = Some(EventKind::RetryScheduled);
                try_again(next, &mut run, index, next.now);
            }
            CallState::Submitted { since, .. } if since + next.rules.deadline <= next.now => {
                return deadline(next, run, index);
            }
            CallState::Accepted { .. }
                if run.limited_since.is_some_and(|at| at + next.rules.max_wait <= next.now) =>
            {
                let failure = Failure::new(Class::RateLimited, "waited too long for the provider's limit");
                run.calls[index].state = CallState::Failed { failure };
                return conclude(next, run);
            }
            CallState::Accepted { .. }
            | CallState::Intent { .. }
            | CallState::Unknown { .. }
            | CallState::Submitted { .. }
            | CallState::Done
            | CallState::Failed { .. } => {}
        }
    }
    next.keep(run);
}

/// Ten minutes are over: what is playable, or can be had by its clip id, is the song (PROV-7).
fn deadline(next: &mut Draft, mut run: Run, index: usize) {
    clips::fall_back(&mut next.song, &run.calls[index]);
    run.calls[index].state = if clips::playable(&next.song, &run.calls[index]) {
        CallState::Done
    } else {
        CallState::Failed { failure: Failure::new(Class::Timeout, "no result before the deadline") }
    };
    conclude(next, run);
}

// --- ending -----------------------------------------------------------------------------------

/// Ends the phase once all of its calls have ended.
fn conclude(next: &mut Draft, run: Run) {
    if !run.calls.iter().all(|call| call.state.ended()) {
        return next.keep(run);
    }
    match next.song.head.kind {
        TaskKind::Lyrics => conclude_lyrics(next, &run.calls),
        TaskKind::Generate => conclude_music(next, &run.calls),
    }
}

fn conclude_lyrics(next: &mut Draft, calls: &[Call]) {
    let texts: Vec<&LyricsText> = calls.iter().flat_map(|call| &call.texts).collect();
    if texts.len() < 2 {
        let failure = first_failure(calls).unwrap_or_else(|| {
            let message = format!("{} of at least 2 lyrics came back with words", texts.len());
            Failure::new(Class::ProviderError, message).code(TOO_FEW_LYRICS)
        });
        return fail(next, failure);
    }
    next.song.lyrics_variants = (0..)
        .zip(texts)
        .map(|(variant_index, text)| LyricsVariant {
            variant_index,
            title: text.title.clone(),
            text: text.text.clone(),
            selected: false,
        })
        .collect();
    deliver(next);
    next.song.phase = Phase::LyricsReady;
    next.notify(Push::LyricsReady);
    next.kind = Some(EventKind::LyricsReady);
}

fn conclude_music(next: &mut Draft, calls: &[Call]) {
    if !next.song.variants.iter().any(super::phase::Variant::playable) {
        let failure = first_failure(calls)
            .unwrap_or_else(|| Failure::new(Class::ProviderError, "finished without a playable clip"));
        return fail(next, failure);
    }
    clips::close(&mut next.song);
    deliver(next);
    next.song.phase = Phase::Ready;
    next.notify(Push::MusicReady);
    next.kind = Some(EventKind::Ready);
}

fn first_failure(calls: &[Call]) -> Option<Failure> {
    calls.iter().find_map(|call| match &call.state {
        CallState::Failed { failure } => Some(failure.clone()),
        CallState::Accepted { .. }
        | CallState::Intent { .. }
        | CallState::Submitted { .. }
        | CallState::Unknown { .. }
        | CallState::Done => None,
    })
}

fn deliver(next: &mut Draft) {
    let now = next.now;
    let progress = next.progress();
    progress.completed_at = Some(now);
    progress.error = None;
    next.settle(Credits::ZERO);
}

fn fail(next: &mut Draft, failure: Failure) {
    let now = next.now;
    let progress = next.progress();
    progress.completed_at = Some(now);
    progress.error = Some(failure.clone());
    clips::abandon(&mut next.song);
    next.settle(next.song.head.price);
    next.song.phase = Phase::Failed(failure);
    next.kind = Some(EventKind::Failed);
}

fn cancel(next: &mut Draft) {
    if next.song.phase.run().is_some() {
        clips::abandon(&mut next.song);
        next.settle(not_delivered(&next.song));
    }
    next.song.phase = Phase::Cancelled;
    next.kind = Some(EventKind::Cancelled);
}

/// What is given back for a phase that was cut off: a clip that is there is paid for (SONG-11).
fn not_delivered(song: &Song) -> Credits {
    let price = song.head.price;
    match (song.head.kind, clips::finished(song), i64::try_from(song.variants.len())) {
        (TaskKind::Generate, there @ 1.., Ok(of)) => {
            price + -Credits::from_thousandths(price.thousandths() * there / of)
        }
        (TaskKind::Generate | TaskKind::Lyrics, ..) => price,
    }
}

fn delete(next: &mut Draft) {
    next.song.phase = Phase::Deleted;
    next.kind = Some(EventKind::Gone);
}

// --- between and after ------------------------------------------------------------------------

fn lyrics_ready(next: &mut Draft, event: &Event) {
    match event {
        Event::Chosen { choice, task } => choose(next, choice, *task),
        Event::Cancelled => cancel(next),
        Event::Limited
        | Event::Submitting { .. }
        | Event::NotSent { .. }
        | Event::Submitted { .. }
        | Event::SubmitFailed { .. }
        | Event::News { .. }
        | Event::Wake
        | Event::Retried { .. }
        | Event::Viewed
        | Event::Selected { .. }
        | Event::Deleted => ended(next, event),
    }
}

fn choose(next: &mut Draft, choice: &Choice, task: TaskId) {
    let song = &mut next.song;
    let chosen = match choice {
        Choice::Variant(index) => *index,
        Choice::Text { text, title } => {
            let variant_index = i16::try_from(song.lyrics_variants.len()).unwrap_or(i16::MAX);
            let (text, title) = (text.clone(), title.clone());
            song.lyrics_variants.push(LyricsVariant { variant_index, title, text, selected: false });
            variant_index
        }
    };
    let Some(position) = song.lyrics_variants.iter().position(|v| v.variant_index == chosen) else { return };
    for variant in &mut song.lyrics_variants {
        variant.selected = variant.variant_index == chosen;
    }
    let variant = &song.lyrics_variants[position];
    song.lyrics = Some(variant.text.clone());
    let title = variant.title.clone().filter(|title| !title.is_empty());
    if song.wish.title.is_none() && title.is_some() {
        song.title = title;
    }
    song.music_progress = Some(Progress::default());
    next.begin(task, TaskKind::Generate);
    next.kind = Some(EventKind::LyricsChosen);
}

fn ready(next: &mut Draft, event: &Event) {
    ended(next, event);
    if matches!(event, Event::Viewed) {
        next.song.phase = Phase::Complete;
        next.kind = Some(EventKind::Complete);
    }
}

fn failed(next: &mut Draft, event: &Event) {
    let Event::Retried { task, prompt, lyrics } = event else { return ended(next, event) };
    let now = next.now;
    // The limits hold whoever forgot to ask (PROV-10).
    if refusal::check(&next.song, event, now, next.rules).is_err() {
        return;
    }
    let kind = next.song.head.kind;
    change_words(&mut next.song, prompt.as_deref(), lyrics.as_deref());
    next.song.retries.push(now);
    clips::forget_all(&mut next.song);
    let retry_count = next.progress().retry_count.saturating_add(1);
    *next.progress() = Progress { retry_count, ..Progress::default() };
    next.begin(*task, kind);
    next.kind = Some(EventKind::RetryScheduled);
}

fn change_words(song: &mut Song, prompt: Option<&str>, lyrics: Option<&str>) {
    let mut wish = (*song.wish).clone();
    if let Some(prompt) = prompt {
        wish.prompt = Some(prompt.to_owned());
    }
    // Lyrics that are still to be written cannot be changed.
    if let Some(lyrics) = lyrics.filter(|_| song.head.kind == TaskKind::Generate) {
        song.lyrics = Some(lyrics.to_owned());
        if wish.mode == Mode::Music {
            wish.lyrics = Some(lyrics.to_owned());
        }
    }
    if wish != *song.wish {
        song.wish = std::sync::Arc::new(wish);
    }
}

/// What may still happen to any song that is not at work.
fn ended(next: &mut Draft, event: &Event) {
    match event {
        Event::Viewed => next.song.last_viewed_at = Some(next.now),
        Event::Selected { variant_number, selected } => select(next, *variant_number, *selected),
        Event::Deleted => delete(next),
        Event::Submitted { call, provider_task } => next.refer(*call, provider_task),
        Event::Limited
        | Event::Submitting { .. }
        | Event::NotSent { .. }
        | Event::SubmitFailed { .. }
        | Event::News { .. }
        | Event::Wake
        | Event::Chosen { .. }
        | Event::Retried { .. }
        | Event::Cancelled => {}
    }
}

fn gone(next: &mut Draft, event: &Event) {
    if let Event::Submitted { call, provider_task } = event {
        next.refer(*call, provider_task);
    }
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
