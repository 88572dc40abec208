//! The breaker by itself, at times that are written down.

use super::*;
use proptest::prelude::*;

const RULES: BreakerRules = BreakerRules { failures: 3, open_for: Duration::from_secs(15) };

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn broken() -> Failure {
    Failure::new(Class::Network, "connection refused")
}

/// A call that begins and ends at once.
fn call(breaker: &mut Breaker, call: Call, outcome: Outcome<'_>, now: Duration) {
    let begun = breaker.begin(call, now);
    breaker.report(begun, outcome, now);
}

fn fail(breaker: &mut Breaker, kind: Call, now: Duration) {
    call(breaker, kind, Outcome::Failure(&broken()), now);
}

/// Opened by submissions at second 0.
fn open() -> Breaker {
    let mut breaker = Breaker::new(RULES);
    (0..RULES.failures).for_each(|_| fail(&mut breaker, Call::Submit, at(0)));
    assert_eq!(breaker.state(at(0)), BreakerState::Open { left: at(15) });
    breaker
}

fn is_open(breaker: &mut Breaker, now: Duration) -> bool {
    matches!(breaker.state(now), BreakerState::Open { .. })
}

#[test]
fn so_many_failures_in_a_row_open_it_and_one_success_between_does_not() {
    let mut breaker = Breaker::new(RULES);
    for outcome in [Outcome::Failure(&broken()), Outcome::Failure(&broken()), Outcome::Ok] {
        call(&mut breaker, Call::Submit, outcome, at(0));
    }
    fail(&mut breaker, Call::Submit, at(0));
    fail(&mut breaker, Call::Poll, at(0));
    assert_eq!(breaker.state(at(0)), BreakerState::Closed);
    fail(&mut breaker, Call::Submit, at(0));
    assert!(is_open(&mut breaker, at(0)));
    assert_eq!((breaker.submit_wait(at(5)), breaker.poll_wait(at(5))), (Some(at(10)), Some(at(10))));
}

#[test]
fn only_failures_of_the_provider_itself_count() {
    use Class::*;
    for (class, counts) in [
        (Network, true),
        (ProviderError, true),
        (Timeout, true),
        (InsufficientProviderCredits, true),
        (RateLimited, false),
        (InvalidInput, false),
        (Moderation, false),
        (Storage, false),
        (Unknown, false),
    ] {
        let failure = Failure::new(class, "");
        let mut breaker = Breaker::new(RULES);
        (0..9).for_each(|_| call(&mut breaker, Call::Submit, Outcome::Failure(&failure), at(0)));
        assert_eq!(is_open(&mut breaker, at(0)), counts, "{class:?}");
    }
    assert_eq!(
        verdict(Call::Submit, Outcome::Failure(&Failure::new(Unknown, "").operator())),
        Verdict::Fails
    );
}

#[test]
fn a_task_that_the_provider_has_forgotten_is_no_outage() {
    let gone = Failure::new(Class::ProviderError, "no such task").code(404).operator();
    assert_eq!(verdict(Call::Poll, Outcome::Failure(&gone)), Verdict::Nothing);
    assert_eq!(verdict(Call::Submit, Outcome::Failure(&gone)), Verdict::Fails);
}

#[test]
fn polls_that_are_answered_do_not_hide_submissions_that_fail() {
    let mut breaker = Breaker::new(RULES);
    for _ in 0..RULES.failures {
        call(&mut breaker, Call::Poll, Outcome::Ok, at(0));
        fail(&mut breaker, Call::Submit, at(0));
    }
    assert!(is_open(&mut breaker, at(0)));
}

#[test]
fn a_submission_that_is_taken_makes_up_for_polls_that_failed() {
    let mut breaker = Breaker::new(RULES);
    for outcomes in 0..2 * RULES.failures {
        fail(&mut breaker, Call::Poll, at(0));
        call(&mut breaker, Call::Submit, Outcome::Ok, at(0));
        assert_eq!(breaker.state(at(0)), BreakerState::Closed, "{outcomes}");
    }
}

#[test]
fn half_of_the_last_calls_failing_opens_it_although_never_in_a_row() {
    let mut breaker = Breaker::new(RULES);
    for number in 0..11 {
        let outcome = if number % 2 == 0 { Outcome::Failure(&broken()) } else { Outcome::Ok };
        call(&mut breaker, Call::Submit, outcome, at(number));
        assert_eq!(breaker.state(at(number)), BreakerState::Closed, "{number} are too few to tell");
    }
    call(&mut breaker, Call::Submit, Outcome::Ok, at(11));
    assert!(is_open(&mut breaker, at(11)));
}

#[test]
fn failures_of_long_ago_are_no_share() {
    let mut breaker = Breaker::new(RULES);
    for number in 0..40 {
        let outcome = if number % 2 == 0 { Outcome::Failure(&broken()) } else { Outcome::Ok };
        call(&mut breaker, Call::Submit, outcome, at(number * 30));
    }
    assert_eq!(breaker.state(at(1200)), BreakerState::Closed);
}

#[test]
fn exactly_one_probe_goes_and_its_success_lets_everybody_through() {
    let mut breaker = open();
    assert_eq!(breaker.submit_wait(at(14)), Some(at(1)));
    assert_eq!(breaker.state(at(15)), BreakerState::HalfOpen { probing: false });
    assert_eq!(breaker.submit_wait(at(15)), None);
    assert!(breaker.submitting(at(15)).is_some());
    assert_eq!(breaker.state(at(15)), BreakerState::HalfOpen { probing: true });
    assert_eq!(breaker.submit_wait(at(15)), Some(PROBE_PATIENCE), "the second waits");
    call(&mut breaker, Call::Submit, Outcome::Ok, at(16));
    assert_eq!(breaker.state(at(16)), BreakerState::Closed);
    assert_eq!(breaker.submit_wait(at(16)), None);
    assert_eq!(breaker.submitting(at(16)), None, "no probe any more");
}

#[test]
fn each_probe_that_fails_doubles_the_time_up_to_two_minutes_and_a_success_forgets_it() {
    let mut breaker = open();
    let mut now = at(15);
    let mut lasted = Vec::new();
    for _ in 0..5 {
        assert!(breaker.submitting(now).is_some());
        fail(&mut breaker, Call::Submit, now);
        let wait = breaker.submit_wait(now).unwrap();
        lasted.push(wait.as_secs());
        now += wait;
    }
    assert_eq!(lasted, [30, 60, 120, 120, 120]);
    call(&mut breaker, Call::Submit, Outcome::Ok, now);
    (0..RULES.failures).for_each(|_| fail(&mut breaker, Call::Submit, now));
    assert_eq!(breaker.submit_wait(now), Some(at(15)));
}

#[test]
fn a_probe_that_is_given_up_or_never_reported_lets_another_through() {
    let mut breaker = open();
    let first = breaker.submitting(at(15));
    breaker.forget_probe(first);
    assert_eq!(breaker.submit_wait(at(15)), None);
    let second = breaker.submitting(at(15));
    assert_ne!(first, second);
    breaker.forget_probe(first);
    assert!(breaker.submit_wait(at(15)).is_some(), "the second is still on its way");
    assert_eq!(breaker.submit_wait(at(15) + PROBE_PATIENCE), None);
}

#[test]
fn a_probe_that_meets_a_rate_limit_proves_nothing_and_the_next_may_go() {
    let mut breaker = open();
    let _ = breaker.submitting(at(15));
    let limited = Failure::new(Class::RateLimited, "");
    call(&mut breaker, Call::Submit, Outcome::Failure(&limited), at(16));
    assert_eq!(breaker.state(at(16)), BreakerState::HalfOpen { probing: false });
}

#[test]
fn calls_that_began_before_it_opened_change_nothing_when_they_end() {
    let mut breaker = Breaker::new(RULES);
    let late: Vec<_> = (0..4).map(|_| breaker.begin(Call::Submit, at(0))).collect();
    (0..RULES.failures).for_each(|_| fail(&mut breaker, Call::Submit, at(0)));
    breaker.report(late[0], Outcome::Ok, at(1));
    assert!(is_open(&mut breaker, at(1)));
    breaker.report(late[1], Outcome::Failure(&broken()), at(15));
    assert_eq!(breaker.state(at(15)), BreakerState::HalfOpen { probing: false });
    call(&mut breaker, Call::Submit, Outcome::Ok, at(16));
    breaker.report(late[2], Outcome::Failure(&broken()), at(17));
    breaker.report(late[3], Outcome::Failure(&broken()), at(17));
    fail(&mut breaker, Call::Submit, at(17));
    assert_eq!(breaker.state(at(17)), BreakerState::Closed);
}

#[test]
fn polls_are_rare_until_one_is_answered_and_do_not_close_it_for_submissions() {
    let mut breaker = open();
    assert_eq!(breaker.poll_wait(at(15)), None);
    breaker.polling(at(15));
    assert_eq!(breaker.poll_wait(at(15)), Some(POLL_EVERY));
    fail(&mut breaker, Call::Poll, at(16));
    assert_eq!(breaker.poll_wait(at(16)), Some(POLL_EVERY));
    call(&mut breaker, Call::Poll, Outcome::Ok, at(18));
    breaker.polling(at(18));
    assert_eq!(breaker.poll_wait(at(18)), None);
    assert_eq!(breaker.state(at(18)), BreakerState::HalfOpen { probing: false });
}

#[test]
fn what_only_polls_opened_a_poll_closes() {
    let mut breaker = Breaker::new(RULES);
    (0..RULES.failures).for_each(|_| fail(&mut breaker, Call::Poll, at(0)));
    assert!(is_open(&mut breaker, at(0)));
    call(&mut breaker, Call::Poll, Outcome::Ok, at(15));
    assert_eq!(breaker.state(at(15)), BreakerState::Closed);
}

fn any_outcome() -> impl Strategy<Value = Option<Class>> {
    prop::option::of(prop::sample::select(Class::ALL.to_vec()))
}

proptest! {
    /// Whatever is reported, in whatever order and however late: it is never shut for longer than the longest
    /// time between two probes, and it keeps no more than its window.
    #[test]
    fn it_never_shuts_for_good(
        happenings in prop::collection::vec((0..4_u8, any_outcome(), 0..40_u64), 1..200),
    ) {
        let mut breaker = Breaker::new(RULES);
        let (mut now, mut begun) = (Duration::ZERO, Vec::new());
        for (what, class, seconds) in happenings {
            now += at(seconds);
            match what {
                0 => begun.push(breaker.begin(Call::Submit, now)),
                1 => begun.push(breaker.begin(Call::Poll, now)),
                2 if breaker.submit_wait(now).is_none() => { let _ = breaker.submitting(now); }
                _ => if !begun.is_empty() {
                    let failure = class.map(|class| Failure::new(class, ""));
                    let one = begun.swap_remove(begun.len() / 2);
                    breaker.report(one, failure.as_ref().map_or(Outcome::Ok, Outcome::Failure), now);
                },
            }
            let wait = breaker.submit_wait(now).unwrap_or_default();
            prop_assert!(wait <= OPEN_MAX);
            prop_assert_eq!(breaker.submit_wait(now + wait), None);
            if let Phase::Closed { submits, polls } = &breaker.phase {
                prop_assert!(submits.recent.len().max(polls.recent.len()) <= 12);
            }
        }
    }
}
