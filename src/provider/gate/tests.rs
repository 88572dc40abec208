//! The gate as a whole. Time stands still in [`Hand`]'s clock where it matters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;

use super::*;
use crate::provider::failure::{Class, Failure};
use crate::time::{Clock, Time};

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

fn ask(plan: Rank, since_s: i64) -> Ask {
    Ask { plan, since: Time::from_millis(since_s * 1000) }
}

fn waits(wait: &mut std::pin::Pin<Box<SubmitWait>>) -> bool {
    wait.as_mut().now_or_never().is_none()
}

#[tokio::test]
async fn submissions_are_served_in_the_order_of_asking() {
    let gate = Gate::new(None, Some(1));
    let running = gate.try_submit_slot().unwrap();
    let mut first = Box::pin(gate.submit_slot());
    let mut second = Box::pin(gate.submit_slot());
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    assert_eq!(gate.waiting(), 2);

    drop(running);
    assert!(gate.try_submit_slot().is_none(), "nobody overtakes the queue");
    assert!(second.as_mut().now_or_never().is_none());
    let slot = first.await;
    assert!(second.as_mut().now_or_never().is_none());
    drop(slot);
    let _slot = second.await;
    assert_eq!((gate.waiting(), gate.tasks()), (0, 1));
}

#[tokio::test]
async fn a_submission_that_gives_up_does_not_block_the_next() {
    let gate = Gate::new(None, Some(1));
    let running = gate.adopt_slot();
    let mut gone = Box::pin(gate.submit_slot());
    assert!(gone.as_mut().now_or_never().is_none());
    let mut next = Box::pin(gate.submit_slot());
    assert!(next.as_mut().now_or_never().is_none());
    drop(running);
    drop(gone);
    let _slot = next.await;
    assert_eq!(gate.waiting(), 0);
}

#[tokio::test]
async fn resumed_tasks_count_even_above_the_limit() {
    let gate = Gate::new(None, Some(2));
    let resumed: Vec<_> = (0..3).map(|_| gate.adopt_slot()).collect();
    assert_eq!(gate.tasks(), 3);
    let mut waits = Box::pin(gate.submit_slot());
    let mut resumed = resumed.into_iter();
    for _ in 0..2 {
        assert!(waits.as_mut().now_or_never().is_none());
        drop(resumed.next());
    }
    let _slot = waits.await;
    assert_eq!(gate.tasks(), 2);
}

#[tokio::test]
async fn polls_leave_the_requests_to_submissions() {
    let gate = Gate::new(Some(rate("1/1h")), None);
    let _running = gate.try_submit_slot().unwrap();
    let later = gate.try_poll_slot(Duration::ZERO).unwrap_err();
    assert!(later > Duration::from_secs(3500), "the request is used up: {later:?}");
    let mut waits = Box::pin(gate.submit_slot());
    assert!(waits.as_mut().now_or_never().is_none());
    assert_eq!(gate.try_poll_slot(Duration::ZERO), Err(POLL_LATER));
}

#[tokio::test]
async fn a_poll_that_is_late_gets_every_other_request() {
    let (gate, hand) = held(Limits { rate: Some(rate("1/1s")), ..Limits::default() });
    let late = POLL_PATIENCE;
    let _running = gate.try_submit_slot().unwrap();
    let mut queue: Vec<_> = (0..3).map(|_| Box::pin(gate.submit_slot())).collect();
    assert!(queue.iter_mut().all(waits));
    let mut gone = Vec::new();
    for _ in 0..4 {
        let wait = gate.try_poll_slot(late).unwrap_err();
        hand.advance(wait);
        // Whoever is first in the queue comes at the same moment.
        gone.push(if queue.first_mut().is_some_and(|first| !waits(first)) {
            drop(queue.remove(0));
            "submission"
        } else {
            gate.try_poll_slot(late).map_or("nobody", |()| "poll")
        });
    }
    assert_eq!(gone, ["poll", "submission", "poll", "submission"]);
    assert_eq!(gate.try_poll_slot(Duration::ZERO), Err(POLL_LATER));
}

#[tokio::test]
async fn polls_heed_what_a_submission_was_told_for_ten_seconds_and_what_a_poll_was_told_for_good() {
    let (gate, hand) = held(Limits::default());
    gate.pause(Duration::from_secs(86_400));
    assert_eq!(gate.try_poll_slot(Duration::ZERO), Err(POLLS_PAUSE_MAX));
    hand.advance(POLLS_PAUSE_MAX);
    let mut queued = Box::pin(gate.submit_slot());
    assert!(waits(&mut queued));
    assert_eq!(gate.try_poll_slot(Duration::ZERO), Ok(()));
    gate.pause_polls(Duration::from_secs(600));
    assert_eq!(gate.try_poll_slot(Duration::ZERO), Err(Duration::from_secs(600)));
}

#[tokio::test]
async fn polls_go_on_while_submissions_wait_for_a_task_to_end() {
    let gate = Gate::new(Some(rate("100/1h")), Some(1));
    let _running = gate.adopt_slot();
    let mut waits = Box::pin(gate.submit_slot());
    assert!(waits.as_mut().now_or_never().is_none());
    assert_eq!(gate.try_poll_slot(Duration::ZERO), Ok(()));
}

#[tokio::test]
async fn after_a_rate_limit_nothing_is_sent_until_the_pause_is_over() {
    let gate = Gate::new(None, None);
    gate.pause(Duration::from_millis(30));
    gate.pause(Duration::from_millis(1));
    let before = Clock.monotonic();
    assert!(gate.try_submit_slot().is_none());
    assert!(gate.try_poll_slot(Duration::ZERO).is_err());
    let _slot = gate.submit_slot().await;
    assert!(Clock.since(before) >= Duration::from_millis(25));
    assert_eq!(gate.try_poll_slot(Duration::ZERO), Ok(()));
}

#[tokio::test]
async fn a_submission_waits_for_the_next_request() {
    let gate = Gate::new(Some(rate("1/40ms")), None);
    let before = Clock.monotonic();
    let _slots = (gate.submit_slot().await, gate.submit_slot().await);
    assert!(Clock.since(before) >= Duration::from_millis(35));
}

#[test]
fn arbiters_on_several_threads_share_one_limit_and_some_songs_give_up() {
    let gate = Gate::new(None, Some(3));
    let most = Arc::new(AtomicUsize::new(0));
    let arbiters: Vec<_> = (0..4)
        .map(|_| {
            let (gate, most) = (gate.clone(), most.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let song = async |number: u32| {
                    let patience = async {
                        match number % 3 {
                            0 => tokio::task::yield_now().await,
                            _ => std::future::pending().await,
                        }
                    };
                    let _slot = tokio::select! {
                        biased;
                        slot = gate.submit_slot() => slot,
                        () = patience => return,
                    };
                    most.fetch_max(gate.tasks(), Ordering::SeqCst);
                    tokio::task::yield_now().await;
                };
                runtime.block_on(futures_util::future::join_all((0..300).map(song)));
            })
        })
        .collect();
    for arbiter in arbiters {
        arbiter.join().unwrap();
    }
    assert_eq!((gate.tasks(), gate.waiting()), (0, 0));
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_premium_song_that_comes_later_goes_first_and_everybody_knows_the_place() {
    let gate = Gate::new(None, Some(1));
    let running = gate.adopt_slot();
    let mut free = Box::pin(gate.queue(ask(Rank::Free, 1000)));
    let mut guest = Box::pin(gate.queue(ask(Rank::Guest, 1000)));
    let mut premium = Box::pin(gate.queue(ask(Rank::Premium, 1040)));
    assert_eq!(premium.position(), None, "not in the queue yet");
    assert!(waits(&mut free) && waits(&mut guest) && waits(&mut premium));
    assert_eq!((premium.position(), free.position(), guest.position()), (Some(1), Some(2), Some(3)));
    drop(running);
    assert!(waits(&mut free) && waits(&mut guest));
    let slot = premium.await;
    assert_eq!((free.position(), guest.position()), (Some(1), Some(2)));
    drop(slot);
    let _slot = free.await;
}

/// A waker that counts.
#[derive(Default)]
struct Bell(AtomicUsize);

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bell {
    fn rung(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Lets it look once; the bell rings when it is to look again.
fn bell(wait: &mut std::pin::Pin<Box<SubmitWait>>) -> Arc<Bell> {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    assert!(wait.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    bell
}

#[tokio::test]
async fn who_gives_up_when_it_would_have_been_its_turn_wakes_the_next() {
    let gate = Gate::new(None, Some(1));
    let running = gate.adopt_slot();
    let (mut first, mut second, mut third) =
        (Box::pin(gate.submit_slot()), Box::pin(gate.submit_slot()), Box::pin(gate.submit_slot()));
    let bells = [bell(&mut first), bell(&mut second), bell(&mut third)];
    drop(running);
    assert_eq!(bells.each_ref().map(|bell| bell.rung()), [1, 0, 0]);
    drop(first);
    assert_eq!(bells.each_ref().map(|bell| bell.rung()), [1, 1, 0]);
    drop(third);
    assert_eq!(bells[1].rung(), 1, "the last one leaving is nobody's turn");
    assert!(second.now_or_never().is_some());
}

#[tokio::test]
async fn a_place_that_comes_free_wakes_only_who_is_next() {
    const MANY: usize = 10_000;
    let gate = Gate::new(None, Some(1));
    let mut running = Some(gate.adopt_slot());
    let bells: Vec<_> = (0..MANY).map(|_| Arc::new(Bell::default())).collect();
    let mut songs: Vec<_> =
        bells.iter().map(|bell| (Box::pin(gate.submit_slot()), Waker::from(bell.clone()))).collect();
    let poll = |(wait, waker): &mut (std::pin::Pin<Box<SubmitWait>>, Waker)| {
        wait.as_mut().poll(&mut std::task::Context::from_waker(waker))
    };
    assert!(songs.iter_mut().all(|song| poll(song).is_pending()));
    let rung = || bells.iter().map(|bell| bell.rung()).sum::<usize>();
    for (number, song) in songs.iter_mut().enumerate().take(100) {
        running.take();
        assert_eq!(rung(), number * 2 + 1);
        let std::task::Poll::Ready(slot) = poll(song) else { panic!("{number} was woken for nothing") };
        running = Some(slot);
        // The new first one looks whether there is more; there is not.
        assert_eq!(rung(), number * 2 + 2);
    }
    assert_eq!(gate.waiting(), MANY - 100);
}

#[tokio::test]
async fn a_hundred_thousand_that_wait_are_all_served_and_know_their_places() {
    const MANY: usize = 100_000;
    let gate = Gate::new(None, Some(1));
    let mut running = Some(gate.adopt_slot());
    let plan = |number: usize| Rank::ALL[number % Rank::ALL.len()];
    let mut songs: Vec<_> = (0..MANY).map(|number| Box::pin(gate.queue(ask(plan(number), 1000)))).collect();
    assert!(songs.iter_mut().all(waits));
    assert!(songs.iter().all(|song| song.position().is_some_and(|place| (1..=MANY).contains(&place))));
    for rank in Rank::ALL.into_iter().rev() {
        let of_this = songs.iter_mut().enumerate().filter(|(number, _)| plan(*number) == rank);
        for (number, song) in of_this {
            running.take();
            running = song.as_mut().now_or_never();
            assert!(running.is_some(), "{number}, {rank:?}");
        }
    }
    assert_eq!((gate.waiting(), gate.tasks()), (0, 1));
}

fn held(limits: Limits) -> (Gate, Hand) {
    let hand = Hand::default();
    (Gate::with_clock(None, limits, hand.ticks()), hand)
}

fn report(gate: &Gate, outcome: Outcome<'_>) {
    gate.report(gate.begin(Call::Submit), outcome);
}

/// A gate whose provider just failed so often that it opened.
fn opened() -> (Gate, Hand) {
    let (gate, hand) = held(Limits::default());
    let failure = Failure::new(Class::Network, "");
    (0..BreakerRules::default().failures).for_each(|_| report(&gate, Outcome::Failure(&failure)));
    assert_eq!(gate.state(), BreakerState::Open { left: Duration::from_secs(15) });
    (gate, hand)
}

#[tokio::test]
async fn through_an_outage_songs_wait_and_one_finds_out_whether_it_is_over() {
    let (gate, hand) = opened();
    assert!(gate.try_submit_slot().is_none());
    assert_eq!(gate.try_poll_slot(Duration::ZERO), Err(Duration::from_secs(15)));
    assert_eq!(gate.hold(), Some(Hold::Outage { left: Duration::from_secs(15) }));
    let (mut first, mut second) = (Box::pin(gate.submit_slot()), Box::pin(gate.submit_slot()));
    assert!(waits(&mut first) && waits(&mut second));

    hand.advance(Duration::from_secs(15));
    let probe = first.as_mut().now_or_never().expect("the probe goes");
    let bell = bell(&mut second);
    assert_eq!(bell.rung(), 0, "exactly one goes");
    assert_eq!(gate.state(), BreakerState::HalfOpen { probing: true });
    assert_eq!(
        (gate.try_poll_slot(Duration::ZERO), gate.try_poll_slot(Duration::ZERO)),
        (Ok(()), Err(Duration::from_secs(2)))
    );
    report(&gate, Outcome::Ok);
    assert_eq!((gate.state(), gate.hold(), bell.rung()), (BreakerState::Closed, None, 1));
    let _slots = (probe, second.await);
}

#[tokio::test]
async fn a_probe_that_is_dropped_unsent_wakes_the_next() {
    let (gate, hand) = opened();
    hand.advance(Duration::from_secs(15));
    let probe = gate.try_submit_slot().expect("the probe goes");
    let mut next = Box::pin(gate.submit_slot());
    let bell = bell(&mut next);
    drop(probe);
    assert_eq!(bell.rung(), 1);
    assert!(next.now_or_never().is_some());
}

#[tokio::test]
async fn a_probe_that_fails_shuts_again_for_longer() {
    let (gate, hand) = opened();
    hand.advance(Duration::from_secs(15));
    let _probe = gate.try_submit_slot().expect("the probe goes");
    report(&gate, Outcome::Failure(&Failure::new(Class::Timeout, "").code(408)));
    assert_eq!(gate.state(), BreakerState::Open { left: Duration::from_secs(30) });
}

#[tokio::test]
async fn the_limits_use_up_no_probe() {
    let limits = Limits { rate: Some(rate("1/1h")), ..Limits::default() };
    let (gate, hand) = held(limits);
    drop(gate.try_submit_slot());
    (0..5).for_each(|_| report(&gate, Outcome::Failure(&Failure::new(Class::Network, ""))));
    hand.advance(Duration::from_secs(15));
    assert!(gate.try_submit_slot().is_none(), "the request of this hour is used up");
    assert_eq!(gate.state(), BreakerState::HalfOpen { probing: false });
}

#[test]
fn what_holds_songs_up_has_a_name() {
    let (gate, _hand) = held(Limits { tasks_max: Some(1), ..Limits::default() });
    assert_eq!(gate.hold(), None);
    let _slot = gate.adopt_slot();
    assert_eq!(gate.hold(), Some(Hold::Places));
    gate.pause(Duration::from_secs(9));
    assert_eq!(gate.hold(), Some(Hold::Pause { left: Duration::from_secs(9) }));
}
