//! Which provider is given a song that names none (PROV-12). Pure: from what is known of each to an order.
//!
//! Not here: what a provider can do (`provider::unsupported`), nor the figures themselves (`gate`, `health`).

use std::cmp::Ordering;
use std::time::Duration;

use super::gate::BreakerState;

/// What is known of a provider at the moment of the choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub name: &'static str,
    /// Whether it can do all that is asked.
    pub capable: bool,
    pub state: BreakerState,
    /// How much longer it wants to be left alone.
    pub paused: Duration,
    /// The share of its tasks that succeeded lately, 0.0 to 1.0.
    pub success: f64,
    /// What a task of this kind usually takes, once submitted.
    pub expected: Duration,
    /// What the song would cost, in thousandths of a US dollar.
    pub cost_usd_milli: u32,
    /// Submissions that stand in its queue.
    pub waiting: usize,
    /// Tasks that it works on, and how many those may be.
    pub tasks: usize,
    pub tasks_max: Option<usize>,
}

/// What a second of waiting is worth, in thousandths of a dollar: being heard a minute earlier may cost three
/// cents, about half a song.
const SECOND: f64 = 0.5;
/// What a certain failure would be worth: the wait for the next try, and the owner's patience. One song in ten
/// failing costs as much as 40 seconds.
const FAILURE: f64 = 200.0;
/// Whoever wants to be left alone for longer takes no songs for now; a shorter pause is a wait like any other.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Where no number of tasks is set, each that waits stands for its request alone.
const REQUEST: Duration = Duration::from_secs(1);

/// The candidates that can, best first, by their places in `candidates`.
///
/// First come those that take songs: closed ones, and one that is to be tried again and has no song to try it
/// with. Behind them those that somebody else is just trying, last those that are shut or asked for a long pause, the
/// soonest to be tried first. Among equals the lower sum wins:
///
/// | part | weight |
/// |---|---|
/// | price | thousandths of a dollar, as they are |
/// | latency: the usual time of a task | 0.5 per second |
/// | queue: the time until there is a place, and of a short pause what is left | 0.5 per second |
/// | failures: the share that failed lately | 200 for all, so 20 for one in ten |
///
/// The queue's part grows without bound with the queue, so a cheap provider never takes everything. Equal sums
/// keep the order of `candidates`, which is the configured preference.
pub fn rank(candidates: &[Candidate]) -> Vec<usize> {
    let mut able: Vec<usize> = (0..candidates.len()).filter(|index| candidates[*index].capable).collect();
    able.sort_by(|one, other| compare(&candidates[*one], &candidates[*other]));
    able
}

fn compare(one: &Candidate, other: &Candidate) -> Ordering {
    standing(one).cmp(&standing(other)).then_with(|| score(one).total_cmp(&score(other)))
}

/// What no price outweighs, the least first.
fn standing(candidate: &Candidate) -> (u8, Duration) {
    match candidate.state {
        BreakerState::Open { left } => (2, left.max(candidate.paused)),
        _ if candidate.paused > PAUSE_MAX => (2, candidate.paused),
        BreakerState::Closed => (0, Duration::ZERO),
        BreakerState::HalfOpen { probing: false } if candidate.waiting == 0 => (0, Duration::ZERO),
        BreakerState::HalfOpen { .. } => (1, Duration::ZERO),
    }
}

fn score(candidate: &Candidate) -> f64 {
    // Not a number is no success either.
    let failed = if candidate.success.is_nan() { 1.0 } else { 1.0 - candidate.success.clamp(0.0, 1.0) };
    let time = candidate.expected.as_secs_f64() + queue_time(candidate).as_secs_f64();
    f64::from(candidate.cost_usd_milli) + SECOND * time + FAILURE * failed
}

/// How long a song given to it would wait for a place.
pub fn queue_time(candidate: &Candidate) -> Duration {
    let place =
        time_until_place(candidate.waiting + 1, candidate.tasks, candidate.tasks_max, candidate.expected);
    place.max(candidate.paused)
}

/// How long the song at this place of the queue (1 is next) waits, if tasks end one after the other, evenly
/// spread over the time that they usually take. Also the queue's part of a song's `eta`.
pub fn time_until_place(
    position: usize,
    tasks: usize,
    tasks_max: Option<usize>,
    expected: Duration,
) -> Duration {
    let before = u32::try_from(position.saturating_sub(1)).unwrap_or(u32::MAX);
    let Some(max) = tasks_max else { return REQUEST.saturating_mul(before) };
    let ends_needed = (tasks + position).saturating_sub(max.max(1));
    let ends_needed = u32::try_from(ends_needed).unwrap_or(u32::MAX);
    expected.saturating_mul(ends_needed) / u32::try_from(max.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn candidate(name: &'static str) -> Candidate {
        Candidate {
            name,
            capable: true,
            state: BreakerState::Closed,
            paused: Duration::ZERO,
            success: 0.95,
            expected: seconds(60),
            cost_usd_milli: 50,
            waiting: 0,
            tasks: 0,
            tasks_max: Some(10),
        }
    }

    fn names(candidates: &[Candidate]) -> Vec<&'static str> {
        rank(candidates).into_iter().map(|index| candidates[index].name).collect()
    }

    #[test]
    fn equals_stay_in_the_order_of_preference() {
        assert_eq!(names(&[candidate("b"), candidate("a"), candidate("c")]), ["b", "a", "c"]);
    }

    #[test]
    fn who_cannot_do_it_is_not_among_them() {
        let unable = Candidate { capable: false, cost_usd_milli: 0, ..candidate("unable") };
        assert_eq!(names(&[unable.clone(), candidate("able")]), ["able"]);
        assert!(rank(&[unable]).is_empty());
    }

    #[test]
    fn the_cheaper_the_faster_and_the_more_reliable_go_first() {
        let dear = Candidate { cost_usd_milli: 80, ..candidate("dear") };
        let slow = Candidate { expected: seconds(150), ..candidate("slow") };
        let failing = Candidate { success: 0.5, ..candidate("failing") };
        assert_eq!(names(&[failing, slow, dear, candidate("good")]), ["good", "dear", "slow", "failing"]);
    }

    #[test]
    fn a_minute_is_worth_three_cents() {
        let fast = Candidate { expected: seconds(30), cost_usd_milli: 79, ..candidate("fast") };
        let cheap = Candidate { expected: seconds(90), ..candidate("cheap") };
        assert_eq!(names(&[cheap.clone(), fast.clone()]), ["fast", "cheap"]);
        let fast = Candidate { cost_usd_milli: 81, ..fast };
        assert_eq!(names(&[fast, cheap]), ["cheap", "fast"]);
    }

    #[test]
    fn one_that_is_shut_is_taken_only_when_there_is_no_other() {
        let shut = |name, left| Candidate {
            state: BreakerState::Open { left: seconds(left) },
            cost_usd_milli: 0,
            ..candidate(name)
        };
        let dear = Candidate { cost_usd_milli: 5000, success: 0.1, ..candidate("dear") };
        assert_eq!(names(&[shut("later", 60), shut("soon", 5), dear]), ["dear", "soon", "later"]);
    }

    #[test]
    fn one_that_wants_to_be_left_alone_for_long_is_taken_only_when_no_other_takes_songs() {
        let paused = |name, left| Candidate { paused: seconds(left), cost_usd_milli: 0, ..candidate(name) };
        let shut = Candidate { state: BreakerState::Open { left: seconds(60) }, ..candidate("shut") };
        let dear = Candidate { cost_usd_milli: 5000, ..candidate("dear") };
        let all = [paused("ten minutes", 600), shut, paused("one minute", 61), dear];
        assert_eq!(names(&all), ["dear", "shut", "one minute", "ten minutes"]);
        assert_eq!(names(&[paused("alone", 600)]), ["alone"]);
        // A few seconds are waited for where that is cheaper than the others.
        assert_eq!(names(&[candidate("other"), paused("soon", 10)]), ["soon", "other"]);
        let soon = Candidate { cost_usd_milli: 50, ..paused("soon", 10) };
        assert_eq!(names(&[soon, candidate("other")]), ["other", "soon"]);
    }

    #[test]
    fn one_song_tries_a_provider_that_may_be_back_and_the_rest_stay_away() {
        let back = |waiting, probing| Candidate {
            state: BreakerState::HalfOpen { probing },
            cost_usd_milli: 10,
            waiting,
            ..candidate("back")
        };
        assert_eq!(names(&[candidate("other"), back(0, false)]), ["back", "other"]);
        assert_eq!(names(&[candidate("other"), back(1, false)]), ["other", "back"]);
        assert_eq!(names(&[candidate("other"), back(0, true)]), ["other", "back"]);
    }

    #[test]
    fn a_full_queue_sends_songs_elsewhere() {
        let full = Candidate { cost_usd_milli: 10, tasks: 10, waiting: 30, ..candidate("full") };
        assert_eq!(names(&[full.clone(), candidate("free")]), ["free", "full"]);
        let unlimited = Candidate { tasks_max: None, waiting: 200, ..full };
        assert_eq!(names(&[unlimited, candidate("free")]), ["free", "full"]);
    }

    #[test]
    fn the_wait_for_a_place_is_counted_in_tasks_that_must_end_before() {
        let wait = |position, tasks| time_until_place(position, tasks, Some(10), seconds(60));
        assert_eq!(wait(1, 9), Duration::ZERO);
        assert_eq!(wait(1, 10), seconds(6));
        assert_eq!(wait(10, 10), seconds(60));
        assert_eq!(wait(3, 12), seconds(30), "resumed tasks may be more than there are places");
        assert_eq!(time_until_place(5, 99, None, seconds(60)), seconds(4));
    }

    #[test]
    fn figures_that_make_no_sense_still_give_an_order() {
        let odd = Candidate {
            success: f64::NAN,
            expected: Duration::MAX,
            waiting: usize::MAX / 2,
            ..candidate("odd")
        };
        assert_eq!(names(&[odd, candidate("sane")]), ["sane", "odd"]);
    }

    proptest! {
        /// A rush of songs while none ends: nobody gets so many that another would have served one sooner and
        /// cheaper, so with a dearer provider beside it the cheap one's queue stays short.
        #[test]
        fn a_rush_is_spread_over_all_that_can(
            costs in prop::collection::vec(10..200_u32, 2..5), songs in 1..400_usize,
        ) {
            let mut all: Vec<_> = costs
                .iter()
                .map(|cost| Candidate { cost_usd_milli: *cost, ..candidate("any") })
                .collect();
            for _ in 0..songs {
                let best = rank(&all)[0];
                let one = &mut all[best];
                if one.tasks < 10 { one.tasks += 1 } else { one.waiting += 1 }
            }
            // 200 thousandths are worth 400 s, which is at most 67 places of 6 s each.
            let loads: Vec<_> = all.iter().map(|one| one.tasks + one.waiting).collect();
            let (most, least) = (loads.iter().max().copied(), loads.iter().min().copied());
            prop_assert!(most.unwrap_or(0) <= least.unwrap_or(0) + 80, "{:?}", loads);
        }
    }
}
