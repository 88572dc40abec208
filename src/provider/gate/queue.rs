//! Who is next: the better plan first, the older first within a plan, and nobody for ever behind
//! (PROV-14). Pure.
//!
//! Every plan has a head start: an ask counts as if it had been made that much earlier. So no ask is
//! overtaken by one that comes later than the largest head start after it, whatever keeps coming, and
//! whoever waits is served once those before have been.
//!
//! Not here: whether there is room for anybody (`gate`).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Time;

/// What a plan is worth in the queue, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    Guest,
    #[default]
    Free,
    Pro,
    Premium,
}

impl Rank {
    pub const ALL: [Rank; 4] = [Rank::Guest, Rank::Free, Rank::Pro, Rank::Premium];

    /// Of a plan by its name; one that is not known ranks like `free`.
    pub fn of_plan(name: &str) -> Self {
        match name {
            "guest" => Rank::Guest,
            "pro" => Rank::Pro,
            "premium" => Rank::Premium,
            _ => Rank::Free,
        }
    }

    /// How much earlier it counts as asked. Long enough to matter in a queue of some length, short beside
    /// the minutes that a song takes: the most that a guest can lose is a minute's worth of others.
    pub const fn head_start(self) -> Duration {
        match self {
            Rank::Guest => Duration::ZERO,
            Rank::Free => Duration::from_secs(10),
            Rank::Pro => Duration::from_secs(30),
            Rank::Premium => Duration::from_secs(60),
        }
    }
}

/// Who asks for a place at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub plan: Rank,
    /// Since when the song waits: a stored time, so that a restart sends nobody to the end.
    pub since: Time,
}

/// A place in the queue; the least is next. The number keeps the order of those that asked together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    counts_as: Time,
    number: u64,
}

/// Up to this many are counted for a position each time; more are listed once in a while.
const COUNTED_MAX: usize = 512;
/// How old such a list may be.
const LISTED_FOR: Duration = Duration::from_secs(1);

/// All that wait, each with what it takes to wake it.
pub(super) struct Queue<W> {
    waiting: BTreeMap<Turn, W>,
    joined: u64,
    /// For positions in a long queue: the turns in order, as they were when it was made.
    listed: Vec<Turn>,
    listed_at: Option<Duration>,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), joined: 0, listed: Vec::new(), listed_at: None }
    }
}

impl<W> Queue<W> {
    pub(super) fn join(&mut self, ask: Ask, waker: W) -> Turn {
        let turn = Turn { counts_as: ask.since - ask.plan.head_start(), number: self.joined };
        self.joined += 1;
        self.waiting.insert(turn, waker);
        turn
    }

    pub(super) fn leave(&mut self, turn: Turn) -> Option<W> {
        let left = self.waiting.remove(&turn);
        if self.waiting.is_empty() {
            // A rush that is over keeps no memory.
            (self.listed, self.listed_at) = (Vec::new(), None);
        }
        left
    }

    pub(super) fn first(&self) -> Option<&W> {
        self.waiting.first_key_value().map(|(_, waker)| waker)
    }

    pub(super) fn is_first(&self, turn: Turn) -> bool {
        self.waiting.first_key_value().is_some_and(|(first, _)| *first == turn)
    }

    pub(super) fn waker(&mut self, turn: Turn) -> Option<&mut W> {
        self.waiting.get_mut(&turn)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Counted from 1. In a long queue it may be a second old: exact counting would cost every asker a
    /// walk through all that stand before.
    pub(super) fn position(&mut self, turn: Turn, now: Duration) -> Option<usize> {
        if !self.waiting.contains_key(&turn) {
            return None;
        }
        if self.waiting.len() <= COUNTED_MAX {
            return Some(self.waiting.range(..turn).count() + 1);
        }
        if self.listed_at.is_none_or(|at| now.saturating_sub(at) >= LISTED_FOR) {
            self.listed.clear();
            self.listed.extend(self.waiting.keys());
            self.listed_at = Some(now);
        }
        let before = self.listed.binary_search(&turn).unwrap_or_else(|would_be| would_be);
        Some((before + 1).min(self.waiting.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(plan: Rank, since_s: i64) -> Ask {
        Ask { plan, since: Time::from_millis(since_s * 1000) }
    }

    /// Serves all that wait and says in which order, by what they joined with.
    fn served(queue: &mut Queue<usize>) -> Vec<usize> {
        std::iter::from_fn(|| {
            let (turn, _) = queue.waiting.first_key_value()?;
            let turn = *turn;
            queue.leave(turn)
        })
        .collect()
    }

    fn order(asks: &[Ask]) -> Vec<usize> {
        let mut queue = Queue::default();
        for (index, ask) in asks.iter().enumerate() {
            queue.join(*ask, index);
        }
        served(&mut queue)
    }

    #[test]
    fn of_those_that_ask_together_premium_goes_before_pro_before_free_before_guest() {
        let asks = Rank::ALL.map(|plan| ask(plan, 1000));
        assert_eq!(order(&asks), [3, 2, 1, 0]);
    }

    #[test]
    fn within_a_plan_the_oldest_is_first_and_a_tie_keeps_the_order_of_coming() {
        assert_eq!(order(&[ask(Rank::Free, 9), ask(Rank::Free, 3), ask(Rank::Free, 9)]), [1, 0, 2]);
    }

    #[test]
    fn a_guest_who_waited_a_minute_is_not_overtaken_by_premium() {
        assert_eq!(order(&[ask(Rank::Premium, 1060), ask(Rank::Guest, 999)]), [1, 0]);
        assert_eq!(order(&[ask(Rank::Premium, 1058), ask(Rank::Guest, 999)]), [0, 1]);
    }

    #[test]
    fn a_plan_of_an_unknown_name_ranks_like_free() {
        assert_eq!(Rank::of_plan("enterprise"), Rank::Free);
        let names = ["guest", "free", "pro", "premium"].map(Rank::of_plan);
        assert_eq!(names, Rank::ALL);
    }

    #[test]
    fn positions_are_exact_in_a_short_queue_and_gone_with_the_place() {
        let mut queue = Queue::default();
        let turns: Vec<_> = (0..5).map(|second| queue.join(ask(Rank::Free, second), ())).collect();
        queue.leave(turns[1]);
        let positions: Vec<_> = turns.iter().map(|turn| queue.position(*turn, Duration::ZERO)).collect();
        assert_eq!(positions, [Some(1), None, Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn positions_in_a_long_queue_are_at_most_a_second_old() {
        let mut queue = Queue::default();
        let turns: Vec<_> = (0..10_000).map(|second| queue.join(ask(Rank::Free, second), ())).collect();
        assert_eq!(queue.position(turns[9_999], Duration::ZERO), Some(10_000));
        for turn in &turns[..2_000] {
            queue.leave(*turn);
        }
        assert_eq!(queue.position(turns[9_000], Duration::ZERO), Some(8_000), "no more than there are");
        assert_eq!(queue.position(turns[9_000], Duration::from_secs(1)), Some(7_001));
        let late = queue.join(ask(Rank::Free, 20_000), ());
        assert_eq!(queue.position(late, Duration::from_secs(1)), Some(8_001), "who came since is placed too");
    }

    /// A second of the world: who asks in it, and how many are served.
    fn any_second() -> impl Strategy<Value = (Vec<Rank>, usize)> {
        (prop::collection::vec(prop::sample::select(Rank::ALL.to_vec()), 0..6), 0..4_usize)
    }

    proptest! {
        /// Whatever arrives: those served while one waits had asked before it, or within the difference of the
        /// head starts after it. So its wait is bounded by what stood there by then.
        #[test]
        fn everybody_is_served_within_head_start_and_backlog(
            seconds in prop::collection::vec(any_second(), 1..150),
        ) {
            let mut queue = Queue::default();
            let (mut asks, mut order) = (Vec::new(), Vec::new());
            for (now, (arrive, room)) in (0_i64..).zip(&seconds) {
                for plan in arrive {
                    asks.push(ask(*plan, now));
                    queue.join(asks[asks.len() - 1], asks.len() - 1);
                }
                for _ in 0..*room {
                    let Some((turn, _)) = queue.waiting.first_key_value() else { break };
                    let turn = *turn;
                    order.extend(queue.leave(turn));
                }
            }
            order.extend(served(&mut queue));
            prop_assert_eq!(order.len(), asks.len());
            for (place, one) in order.iter().enumerate() {
                for before in &order[..place] {
                    let (one, before) = (asks[*one], asks[*before]);
                    let head = before.plan.head_start().saturating_sub(one.plan.head_start());
                    prop_assert!(before.since <= one.since + head, "{:?} before {:?}", before, one);
                }
            }
        }
    }
}
