//! What a song needs next, computed from its stored state. Normal running and recovery ask the same
//! function, so starting after a crash is not a special path (`design.md` section 1).

use super::phase::{CallState, PollRules, Rules, Run, Song, call_key};
use crate::chance;
use crate::id::{CallKey, TaskId};
use crate::time::Time;

/// Something that is to be done for a song, by its actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Get a slot of the provider, record the intent, make the call.
    Submit(CallKey),
    /// Ask the provider how the call is doing.
    Poll(CallKey),
    /// Tell the song that time has passed.
    Wake,
}

/// The next thing to be done, and when; `None` when the song waits for nobody but its owner.
/// `polled` is when the provider was last asked. A process that took the song up and has not asked yet
/// gives a time before the submission: then a song that finished while nobody listened is asked for
/// once before its deadline, however long over, gives it up (OPS-3).
pub fn due(song: &Song, polled: Time, rules: &Rules) -> Option<(Time, Due)> {
    all(song, polled, rules).into_iter().next()
}

/// Everything that is to be done by the present state, in order: for whoever stands in the queue for a
/// slot with one call and must not miss the time of another, or the end of patience.
pub fn all(song: &Song, polled: Time, rules: &Rules) -> Vec<(Time, Due)> {
    let mut due: Vec<_> =
        song.runs().flat_map(|(task, run)| due_for_calls(task, run, polled, rules)).collect();
    due.sort_by_key(in_order);
    due
}

/// The same as [`due`], for a song of which nothing else runs.
pub fn due_for_run(task: TaskId, run: &Run, polled: Time, rules: &Rules) -> Option<(Time, Due)> {
    due_for_calls(task, run, polled, rules).min_by_key(in_order)
}

/// A time that passes may end what would be asked about.
fn in_order((at, due): &(Time, Due)) -> (Time, bool) {
    (*at, matches!(due, Due::Poll(_)))
}

fn due_for_calls(task: TaskId, run: &Run, polled: Time, rules: &Rules) -> impl Iterator<Item = (Time, Due)> {
    (0..run.calls.len()).flat_map(move |index| due_for_call(task, run, index, polled, rules))
}

fn due_for_call(task: TaskId, run: &Run, index: usize, polled: Time, rules: &Rules) -> Vec<(Time, Due)> {
    let call = &run.calls[index];
    let key = call_key(task, index, call);
    match &call.state {
        CallState::Accepted { from } => {
            let mut due = vec![(*from, Due::Submit(key))];
            due.extend(run.limited_since.map(|since| (since + rules.max_wait, Due::Wake)));
            due
        }
        CallState::Intent { settled_by, .. } => vec![(*settled_by, Due::Wake)],
        CallState::Unknown { until } => vec![(*until, Due::Wake)],
        CallState::Submitted { provider_task, since } => {
            let mut due = vec![(*since + rules.deadline, Due::Wake)];
            if !provider_task.is_empty() {
                due.push((next_poll(*since, polled, key, &rules.poll), Due::Poll(key)));
            }
            due
        }
        CallState::Done | CallState::Failed { .. } => Vec::new(),
    }
}

/// The first time after `polled` on the call's own timetable: 2 s after the submission, then ever
/// longer, at most 30 s apart, each with ± 10 % jitter (PROV-6). A timetable instead of a counter:
/// nothing need be stored for a poll that brings no news.
fn next_poll(since: Time, polled: Time, key: CallKey, rules: &PollRules) -> Time {
    let mut at = since;
    let mut gap = rules.initial;
    for number in 0.. {
        let jitter = 0.9 + 0.2 * chance::of(key.task.0, u64::from(key.attempt) << 32 | number);
        at = at + gap.mul_f64(jitter).max(std::time::Duration::from_millis(1));
        if at > polled || number > 100_000 {
            break;
        }
        gap = gap.mul_f64(rules.multiplier).min(rules.max);
    }
    at
}
