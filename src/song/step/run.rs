//! A task under way: submitting it, hearing of it, time passing over it (`durability.md` section 5).

use std::sync::Arc;
use std::time::Duration;

use super::end::conclude;
use super::{Act, Draft, addition};
use crate::chance;
use crate::id::{CallKey, TaskId};
use crate::provider::failure::{Arrived, Class, Failure};
use crate::song::clips;
use crate::song::event::EventKind;
use crate::song::parts::{Makes, News, Stage};
use crate::song::phase::{Call, CallState, Lost, PassedOver, Run, Waiting};
use crate::song::wish::Alternative;
use crate::time::Time;

pub(super) fn limited(
    next: &mut Draft,
    mut run: Run,
    key: CallKey,
    by: Waiting,
    queue_position: Option<u32>,
    open: &[String],
) {
    let Some(index) = present(next.task(), &run, key) else { return };
    if !matches!(run.calls[index].state, CallState::Accepted { from } if from <= next.now) {
        return;
    }
    if by == Waiting::ProviderDown && untouched(&run, next.now) && around(next, &run, open) {
        return;
    }
    run.waiting = Some(by);
    run.queue_position = queue_position;
    // For one's own songs to end one waits as long as it takes.
    if by != Waiting::Concurrency {
        run.limited_since.get_or_insert(next.now);
    }
    next.kind = Some(EventKind::Waiting);
    next.keep(run);
}

/// Nothing of it is at any provider, nor is anything that may be there still waited for.
fn untouched(run: &Run, now: Time) -> bool {
    let waited_for = |lost: Lost| lost.until > now;
    run.calls
        .iter()
        .all(|call| matches!(call.state, CallState::Accepted { .. }) && !call.lost.is_some_and(waited_for))
}

/// Around a provider that is down for the moment, to one that takes songs now; where all are down the song stays. The one
/// that it leaves did not fail it, and may have it back, once.
fn around(next: &mut Draft, run: &Run, open: &[String]) -> bool {
    let leaves = next.song.wish.provider.clone();
    let again = !next.progress().passed_over.iter().any(|one| one.provider == leaves);
    let gone = elsewhere_among(next, run, Class::Network, |one| open.contains(&one.provider));
    if gone && again {
        let wish = Arc::make_mut(&mut next.song.wish);
        let back = wish.left.pop_if(|one| one.provider == leaves);
        wish.alternatives.extend(back);
    }
    gone
}

/// Goes on at the next provider that can, where the choice was ours (PROV-12). `false`: there is none.
pub(super) fn elsewhere(next: &mut Draft, run: &Run, class: Class) -> bool {
    elsewhere_among(next, run, class, |_| true)
}

fn elsewhere_among(next: &mut Draft, run: &Run, class: Class, takes: impl Fn(&Alternative) -> bool) -> bool {
    let place = next.song.wish.alternatives.iter().position(takes);
    let Some(place) = place.filter(|_| next.beside.is_none()) else { return false };
    let mut wish = (*next.song.wish).clone();
    let chosen = wish.alternatives.remove(place);
    let (at, before) = (next.now, std::mem::replace(&mut wish.provider, chosen.provider.clone()));
    let model = wish.options.model.clone();
    // Without a model of its own it would be asked for one of the other's.
    if model.is_some() || chosen.model.is_none() {
        wish.left.push(Alternative { provider: before.clone(), calls: wish.calls, model });
    }
    wish.calls = chosen.calls;
    if chosen.model.is_some() {
        wish.options.model = chosen.model;
    }
    next.song.wish = Arc::new(wish);
    next.song.head.provider = chosen.provider;
    clips::forget_all(&mut next.song);
    let calls = next.song.wish.calls(next.kind());
    next.count_retry();
    let progress = next.progress();
    progress.passed_over.push(PassedOver { provider: before, class, at });
    progress.provider_task = None;
    next.kind = Some(EventKind::ProviderChanged);
    next.keep(Run { waiting: Some(Waiting::Retry), ..Run::elsewhere(run, calls, at) });
    true
}

/// What kept one call from being made (a lease about to end) keeps the next from it for a moment too.
const NOT_SENT_PAUSE: Duration = Duration::from_secs(1);

/// The call of this key in its present attempt, if it is of the task that runs.
pub(super) fn present(task: TaskId, run: &Run, key: CallKey) -> Option<usize> {
    let index = usize::from(key.call);
    let call = run.calls.get(index)?;
    (key.task == task && key.attempt == call.attempt).then_some(index)
}

pub(super) fn submitting(
    next: &mut Draft,
    mut run: Run,
    key: CallKey,
    intent: CallState,
    takes: Option<Duration>,
    synchronous: bool,
) {
    let Some(index) = present(next.task(), &run, key) else { return };
    if !matches!(run.calls[index].state, CallState::Accepted { from } if from <= next.now) {
        return;
    }
    run.calls[index].state = intent;
    run.waiting = None;
    run.queue_position = None;
    run.takes = takes;
    if synchronous {
        under_way(next, &mut run);
    }
    next.acts.push(Act::Submit(key));
    next.keep(run);
}

pub(super) fn not_sent(next: &mut Draft, mut run: Run, key: CallKey) {
    let Some(index) = present(next.task(), &run, key) else { return };
    if matches!(run.calls[index].state, CallState::Intent { .. }) {
        // Under a new number: told a second time, this must not take back the next intent, which was sent.
        try_again(next, &mut run, index, next.now + NOT_SENT_PAUSE);
        next.keep(run);
    }
}

pub(super) fn submitted(
    next: &mut Draft,
    mut run: Run,
    key: CallKey,
    provider_task: &str,
    clip_ids: &[String],
) {
    // Also of a superseded attempt: what it is called must be known when it reports (PROV-5).
    next.refer(key, provider_task);
    let Some(index) = present(next.task(), &run, key) else { return };
    match &run.calls[index].state {
        CallState::Intent { .. } | CallState::Unknown { .. } => {
            start(next, &mut run, index, provider_task);
            clips::name_places(&mut next.song, &mut run, index, clip_ids);
            next.keep(run);
        }
        CallState::Submitted { .. } => {
            learn_name(next, &mut run, index, provider_task);
            clips::name_places(&mut next.song, &mut run, index, clip_ids);
            next.keep(run);
        }
        CallState::Accepted { .. } | CallState::Done | CallState::Failed { .. } => {}
    }
}

/// The answer brought the result itself. Also of a superseded attempt: what it costs must be known (CRED-6).
pub(super) fn answered(next: &mut Draft, run: Run, key: CallKey, news: &News) {
    next.refer(key, "");
    reported(next, run, key, None, news);
}

/// A callback that came before the submission's answer may not have said how to ask for the task (CB-4).
pub(super) fn learn_name(next: &mut Draft, run: &mut Run, index: usize, told: &str) -> bool {
    match &mut run.calls[index].state {
        CallState::Submitted { provider_task, .. } if provider_task.is_empty() && !told.is_empty() => {
            told.clone_into(provider_task);
            next.progress().provider_task = Some(told.to_owned());
            clips::learn_task(&mut next.song, &run.calls[index]);
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
pub(super) fn start(next: &mut Draft, run: &mut Run, index: usize, provider_task: &str) {
    run.calls[index].state =
        CallState::Submitted { provider_task: provider_task.to_owned(), since: next.now };
    // The provider takes orders: the patience of calls that still stand in its queue begins anew.
    let stands = |call: &Call| matches!(call.state, CallState::Accepted { from } if from <= next.now);
    let any_stands = run.calls.iter().any(stands);
    run.limited_since = run.limited_since.filter(|_| any_stands).map(|_| next.now);
    under_way(next, run);
    next.progress().provider_task = Some(provider_task.to_owned()).filter(|id| !id.is_empty());
}

/// Its owner sees it at work from here on.
fn under_way(next: &mut Draft, run: &mut Run) {
    let now = next.now;
    run.waiting = None;
    run.queue_position = None;
    run.expected_at = run.expected_at.or(run.takes.map(|takes| now + takes));
    let starts = next.progress().started_at.is_none();
    next.progress().started_at.get_or_insert(now);
    if next.kind().makes() == Makes::Music {
        clips::keep_places(&mut next.song);
    }
    if starts {
        next.kind = Some(match next.beside {
            Some(_) => EventKind::TaskStarted,
            None => EventKind::PhaseStarted,
        });
    }
}

pub(super) fn submit_failed(next: &mut Draft, mut run: Run, key: CallKey, failure: &Failure) {
    // What was made and could not be kept was taken all the same (CRED-6).
    if failure.class == Class::Storage {
        next.refer(key, "");
    }
    let Some(index) = present(next.task(), &run, key) else { return };
    match (&run.calls[index].state, failure.arrived) {
        (CallState::Intent { .. }, Arrived::Maybe) => {
            unheard(next, &mut run, index, Some(failure.clone()));
            next.keep(run);
        }
        // Also when it was given up as unknown: that it did not arrive is better to know late than never.
        // And of a call that nobody can make: its provider is not there any more.
        (CallState::Accepted { .. } | CallState::Intent { .. } | CallState::Unknown { .. }, Arrived::No) => {
            go_wrong(next, run, index, failure.clone())
        }
        (CallState::Unknown { until, failure: None }, Arrived::Maybe) => {
            run.calls[index].state = CallState::Unknown { until: *until, failure: Some(failure.clone()) };
            next.progress().error = Some(failure.clone());
            next.keep(run);
        }
        (
            CallState::Accepted { .. }
            | CallState::Unknown { .. }
            | CallState::Submitted { .. }
            | CallState::Done
            | CallState::Failed { .. },
            _,
        ) => {}
    }
}

/// Nobody knows whether the order arrived: for the grace time it may report, and holds its place. What was said of it is kept:
/// it is why the song waits, and what it ends with if nothing more is heard.
fn unheard(next: &mut Draft, run: &mut Run, index: usize, failure: Option<Failure>) {
    let until = next.now + next.rules.grace;
    if let Some(failure) = &failure {
        next.progress().error = Some(failure.clone());
    }
    run.calls[index].state = CallState::Unknown { until, failure };
    run.waiting = Some(Waiting::ProviderAnswer);
    next.kind = Some(EventKind::Waiting);
}

// --- hearing ----------------------------------------------------------------------------------

pub(super) fn reported(
    next: &mut Draft,
    mut run: Run,
    key: CallKey,
    provider_task: Option<&str>,
    news: &News,
) {
    let Some(index) = adopted(next, &mut run, key, provider_task, news) else { return };
    match (next.kind().makes(), news) {
        (_, News::Working) => next.keep(run),
        (Makes::Lyrics, News::Lyrics(texts)) => {
            run.calls[index].texts =
                texts.iter().filter(|text| !text.text.trim().is_empty()).cloned().collect();
            run.calls[index].state = CallState::Done;
            conclude(next, run);
        }
        (Makes::Music, News::Clips(stage, found)) => {
            heard_clips(next, run, index, *stage, found);
        }
        (_, News::Failed(failure)) => go_wrong(next, run, index, failure.clone()),
        // The other kind's results: not ours, whatever the provider thinks.
        (Makes::Addition, News::Made(made)) => addition::made(next, run, made),
        (_, News::Clips(..) | News::Lyrics(_) | News::Made(_)) => next.keep(run),
    }
}

/// Which call the news is for. An order whose fate was unknown is taken on here if it turns out to be
/// alive before a later one was paid for (PROV-5). An attempt that is known to have failed stays dead,
/// whatever comes late.
pub(super) fn adopted(
    next: &mut Draft,
    run: &mut Run,
    key: CallKey,
    provider_task: Option<&str>,
    news: &News,
) -> Option<usize> {
    let index = usize::from(key.call);
    let call = run.calls.get_mut(index).filter(|_| key.task == next.task())?;
    let alive = !matches!(news, News::Failed(_));
    let present = key.attempt == call.attempt;
    let lost = call.lost.is_some_and(|lost| lost.attempt == key.attempt);
    let open = match &call.state {
        CallState::Accepted { .. } => alive && (present || lost),
        CallState::Unknown { .. } => present || (alive && lost),
        CallState::Intent { .. } | CallState::Submitted { .. } => present,
        CallState::Done | CallState::Failed { .. } => false,
    };
    let provider_task = provider_task.unwrap_or_default();
    if !open {
        // Whatever the order that took its place brings, this one was taken, too (CRED-6).
        if lost {
            next.refer(key, provider_task);
        }
        return None;
    }
    if matches!(call.state, CallState::Submitted { .. }) {
        if learn_name(next, run, index, provider_task) {
            next.refer(key, provider_task);
        }
        return Some(index);
    }
    if lost {
        call.lost = match call.state {
            CallState::Unknown { until, .. } => Some(Lost { attempt: call.attempt, until }),
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

pub(super) fn heard_clips(
    next: &mut Draft,
    mut run: Run,
    index: usize,
    stage: Stage,
    found: &[crate::song::parts::Clip],
) {
    let was_playable = next.song.variants.iter().any(crate::song::phase::Variant::playable);
    clips::merge(&mut next.song, &mut run, index, stage, found);
    if !was_playable && next.song.variants.iter().any(crate::song::phase::Variant::playable) {
        next.kind = Some(EventKind::ClipReady);
    }
    if stage == Stage::Complete || clips::all_finished(&next.song, &mut run, index, found) {
        if !clips::playable(&next.song, &run.calls[index]) {
            let failure = Failure::new(Class::ProviderError, "finished without a playable clip");
            return go_wrong(next, run, index, failure);
        }
        run.calls[index].state = CallState::Done;
        return conclude(next, run);
    }
    next.keep(run);
}

/// A call failed: again later, or for good.
pub(super) fn go_wrong(next: &mut Draft, mut run: Run, index: usize, failure: Failure) {
    let limited = failure.class == Class::RateLimited && !was_taken(&run.calls[index]);
    let waited = run.limited_since.map_or(Duration::ZERO, |since| next.now.since(since));
    let patience_left = !limited || waited < next.rules.max_wait;
    let again = again_in(next, &run.calls[index], &failure).filter(|_| patience_left);
    let Some(delay) = again else {
        // What it had shown so far is not the song: the provider takes it back (CB-6).
        clips::forget(&mut next.song, &mut run.calls[index]);
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

/// Whether the provider has, or had, the order, which is what we pay for.
const fn was_taken(call: &Call) -> bool {
    matches!(call.state, CallState::Submitted { .. })
}

/// When this failure lets the call be tried again; `None` is never (PROV-9). A limit is waited for as long as there is
/// patience, because nothing was ordered; an order that was taken and failed by one is tried again as after any error of its
/// provider's. Whoever wants to be left alone for longer than a song may wait wants no second try.
fn again_in(next: &Draft, call: &Call, failure: &Failure) -> Option<Duration> {
    let chance = chance::of(next.task().0, u64::from(call.next_attempt));
    let used = call.failed_by(failure.class);
    if failure.retry_after.is_some_and(|wait| wait > next.rules.max_wait) {
        return None;
    }
    let as_an_error = || Failure { class: Class::ProviderError, ..failure.clone() };
    let as_an_error = (failure.class == Class::RateLimited && was_taken(call)).then(as_an_error);
    as_an_error.as_ref().unwrap_or(failure).retry_in(used, &next.rules.retry, chance)
}

/// A new attempt at a call, under a number that was never used before.
pub(super) fn try_again(next: &mut Draft, run: &mut Run, index: usize, from: Time) {
    // How long it takes is counted anew once it is at work again.
    run.expected_at = None;
    let call = &mut run.calls[index];
    call.attempt = call.next_attempt;
    call.next_attempt = call.next_attempt.saturating_add(1);
    call.state = CallState::Accepted { from: call.lost.map_or(from, |lost| from.max(lost.until)) };
    clips::forget(&mut next.song, call);
}

// --- time -------------------------------------------------------------------------------------

pub(super) fn wake(next: &mut Draft, mut run: Run) {
    let lasts = next.rules.deadline_of(next.song.provider_of(next.task()));
    for index in 0..run.calls.len() {
        let state = run.calls[index].state.clone();
        match state {
            CallState::Intent { settled_by, .. } if settled_by <= next.now => {
                unheard(next, &mut run, index, None);
            }
            CallState::Unknown { until, failure } if until <= next.now => {
                let call = &run.calls[index];
                let again =
                    failure.as_ref().map_or(Some(Duration::ZERO), |failure| again_in(next, call, failure));
                let Some(delay) = again.filter(|_| !call.resent) else {
                    let unheard = || Failure::new(Class::Network, "two submissions went without an answer");
                    let failure = failure.unwrap_or_else(unheard);
                    run.calls[index].state = CallState::Failed { failure };
                    return conclude(next, run);
                };
                run.calls[index].failures.extend(failure.map(|failure| failure.class));
                run.calls[index].resent = true;
                run.calls[index].lost = Some(Lost { attempt: run.calls[index].attempt, until });
                next.count_retry();
                run.waiting = Some(Waiting::Retry);
                next.kind = Some(EventKind::RetryScheduled);
                // Its grace is part of what it waits, and is over.
                let more = delay.saturating_sub(next.rules.grace);
                try_again(next, &mut run, index, next.now.max(until + more));
            }
            CallState::Submitted { since, .. } if since + lasts <= next.now => {
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

/// Nothing moves it: what still waits to be submitted fails for our own reasons. What may be at a provider has a
/// deadline of its own, and is left to that.
pub(super) fn give_up(next: &mut Draft, mut run: Run) {
    let mut any = false;
    for call in &mut run.calls {
        if matches!(call.state, CallState::Accepted { .. }) {
            let failure = Failure::new(Class::Unknown, "it was not submitted, and nothing kept it");
            call.state = CallState::Failed { failure };
            any = true;
        }
    }
    if any {
        conclude(next, run);
    }
}

/// Ten minutes are over: what is playable, or can be had by its clip id, is the song (PROV-7).
pub(super) fn deadline(next: &mut Draft, mut run: Run, index: usize) {
    clips::fall_back(&mut next.song, &run.calls[index]);
    run.calls[index].state = if clips::playable(&next.song, &run.calls[index]) {
        CallState::Done
    } else {
        CallState::Failed { failure: Failure::new(Class::Timeout, "no result before the deadline") }
    };
    conclude(next, run);
}
