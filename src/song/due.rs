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

/// Before any submission.
pub const NEVER: Time = Time::from_millis(0);

/// The next thing to be done, and when; `None` when the song waits for nobody but its owner.
/// `polled` says when the provider was last asked about a call. A process that took the song up and has not asked yet
/// gives a time before the submission: then a song that finished while nobody listened is asked for
/// once before its deadline, however long over, gives it up (OPS-3).
pub fn due(song: &Song, polled: impl Fn(CallKey) -> Time + Copy, rules: &Rules) -> Option<(Time, Due)> {
    all(song, polled, rules).into_iter().next()
}

/// Everything that is to be done by the present state, in order: for whoever stands in the queue for a
/// slot with one call and must not miss the time of another, or the end of patience.
pub fn all(song: &Song, polled: impl Fn(CallKey) -> Time + Copy, rules: &Rules) -> Vec<(Time, Due)> {
    let mut due: Vec<_> = song
        .runs()
        .flat_map(|(task, run)| due_for_calls(task, run, song.provider_of(task), polled, rules))
        .collect();
    due.sort_by_key(in_order);
    due
}

/// The same as [`due`], for a song of which nothing else runs, at this provider.
pub fn due_for_run(
    task: TaskId,
    run: &Run,
    provider: &str,
    polled: impl Fn(CallKey) -> Time + Copy,
    rules: &Rules,
) -> Option<(Time, Due)> {
    due_for_calls(task, run, provider, polled, rules).min_by_key(in_order)
}

/// Whether the provider has had all the time for this call that there is (PROV-7).
pub fn is_over(song: &Song, call: CallKey, now: Time, rules: &Rules) -> bool {
    let known = song.run_of(call.task).and_then(|run| run.calls.get(usize::from(call.call)));
    let Some(present) = known.filter(|known| known.attempt == call.attempt) else { return false };
    let CallState::Submitted { since, .. } = &present.state else { return false };
    *since + rules.deadline_of(song.provider_of(call.task)) <= now
}

/// A time that passes may end what would be asked about.
pub(super) fn in_order((at, due): &(Time, Due)) -> (Time, bool) {
    (*at, matches!(due, Due::Poll(_)))
}

fn due_for_calls(
    task: TaskId,
    run: &Run,
    provider: &str,
    polled: impl Fn(CallKey) -> Time + Copy,
    rules: &Rules,
) -> impl Iterator<Item = (Time, Due)> {
    (0..run.calls.len()).flat_map(move |index| due_for_call(task, run, index, provider, polled, rules))
}

fn due_for_call(
    task: TaskId,
    run: &Run,
    index: usize,
    provider: &str,
    polled: impl Fn(CallKey) -> Time + Copy,
    rules: &Rules,
) -> Vec<(Time, Due)> {
    let call = &run.calls[index];
    let key = call_key(task, index, call);
    match &call.state {
        CallState::Accepted { from } => {
            let mut due = vec![(*from, Due::Submit(key))];
            due.extend(run.limited_since.map(|since| (since + rules.max_wait, Due::Wake)));
            due
        }
        CallState::Intent { settled_by, .. } => vec![(*settled_by, Due::Wake)],
        CallState::Unknown { until, .. } => vec![(*until, Due::Wake)],
        CallState::Submitted { provider_task, since } => {
            let mut due = vec![(*since + rules.deadline_of(provider), Due::Wake)];
            if !provider_task.is_empty() {
                due.push((next_poll(*since, polled(key), key, rules.poll_of(provider)), Due::Poll(key)));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    const SUBMITTED: Time = Time::from_millis(1_766_318_400_000);
    const RULES: PollRules =
        PollRules { initial: Duration::from_secs(2), max: Duration::from_secs(30), multiplier: 1.5 };

    /// The pauses between the first polls of one call, in milliseconds.
    fn pauses(key: CallKey, polls: usize) -> Vec<f64> {
        let mut last = SUBMITTED;
        let pause = |_| {
            let next = next_poll(SUBMITTED, last, key, &RULES);
            let pause = next.since(last);
            last = next;
            pause.as_secs_f64() * 1000.0
        };
        (0..polls).map(pause).collect()
    }

    fn call(number: u128) -> CallKey {
        CallKey { task: TaskId(Uuid::from_u128(number)), call: 0, attempt: 0 }
    }

    #[test]
    fn a_provider_is_asked_after_2_s_then_half_as_late_again_and_at_least_every_30_s_a_tenth_around() {
        let planned = [2.0, 3.0, 4.5, 6.75, 10.125, 15.1875, 22.78125, 30.0, 30.0, 30.0].map(|s| s * 1000.0);
        let (mut least, mut most) = (1.0_f64, 1.0_f64);
        for number in 0..500 {
            for (pause, planned) in pauses(call(number), planned.len()).into_iter().zip(planned) {
                // Times are whole milliseconds.
                assert!(
                    (planned * 0.9 - 2.0..=planned * 1.1 + 2.0).contains(&pause),
                    "{pause} for {planned}"
                );
                least = least.min(pause / planned);
                most = most.max(pause / planned);
            }
        }
        assert!(least < 0.91 && most > 1.09, "the jitter uses its room: {least} to {most}");
    }

    #[test]
    fn the_timetable_of_a_call_is_its_own_and_needs_no_memory() {
        assert_eq!(pauses(call(1), 9), pauses(call(1), 9));
        assert_ne!(pauses(call(1), 9), pauses(call(2), 9));
        assert_ne!(pauses(call(1), 9), pauses(CallKey { attempt: 1, ..call(1) }, 9));
        let late = SUBMITTED + Duration::from_secs(100);
        let next = next_poll(SUBMITTED, late, call(1), &RULES);
        assert!(next > late && next <= late + Duration::from_secs(33), "the first entry after it was asked");
    }
}
