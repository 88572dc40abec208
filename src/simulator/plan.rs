//! The life of a simulated task: what happens when, all decided at the moment of its submission.
//!
//! A [`Plan`] is a pure function of the behaviour, the words in the prompt and the task's chance. What
//! a poll shows follows from the plan and the time since; `courier.rs` sends what the plan says, and
//! `memory.rs` keeps it for the next start.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::behaviour::{Behaviour, FailureClass};
use super::chance::Chance;
use super::script::Script;
use super::tasks::Kind;

/// An answer is held back for a callback to overtake it only if the client would still wait for it.
const OVERTAKEN_MAX: Duration = Duration::from_secs(2);
/// Between two callbacks of a task that are both late, so that they mostly arrive in their order.
const LATE_GAP: Duration = Duration::from_millis(50);

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Pending,
    /// The words are there.
    Text,
    /// One clip is there.
    First,
    Done,
    Failed(FailureClass),
}

/// What a callback tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    Text,
    First,
    Complete,
    Failed(FailureClass),
}

impl Event {
    pub(super) fn is_last(self) -> bool {
        matches!(self, Self::Complete | Self::Failed(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ending {
    Done,
    Failed(FailureClass),
    Never,
}

/// A callback on its way: when it leaves, and how often (0: it is lost).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sending {
    pub(super) event: Event,
    pub(super) at: Duration,
    pub(super) copies: u8,
}

/// Everything that will become of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    kind: Kind,
    latency: Duration,
    ending: Ending,
    /// In the order in which they leave.
    pub(super) sendings: Vec<Sending>,
    /// How long the answer to the submission is held back.
    pub(super) answer_delay: Duration,
    /// The connection is cut in place of the answer.
    pub(super) answer_cut: bool,
}

impl Plan {
    /// `failure` is one that an accepted task can end in; the others are refused at the door.
    pub(super) fn new(
        kind: Kind,
        behaviour: &Behaviour,
        script: &Script,
        failure: Option<FailureClass>,
        chance: &mut Chance,
    ) -> Self {
        let [low, high] = match kind {
            Kind::Lyrics | Kind::Persona => behaviour.latency.lyrics_ms,
            Kind::Music | Kind::Section | Kind::Stems | Kind::Video => behaviour.latency.music_ms,
        };
        let drawn = Duration::from_millis(chance.within(low, high));
        let latency = script.slow.filter(|_| kind != Kind::Lyrics).unwrap_or(drawn);
        let ending = match failure {
            None => Ending::Done,
            Some(FailureClass::Timeout) => Ending::Never,
            Some(class) => Ending::Failed(class),
        };
        let mut plan = Self {
            kind,
            latency,
            ending,
            sendings: Vec::new(),
            answer_delay: Duration::from_millis(behaviour.answer_delay_ms),
            answer_cut: chance.hit(behaviour.drop_answer),
        };
        plan.sendings = plan.events();
        plan.disturb(behaviour, script, chance);
        plan
    }

    /// When the task is over, unless it never is.
    pub(super) fn ends_at(&self) -> Option<Duration> {
        match self.ending {
            Ending::Done => Some(self.latency),
            Ending::Failed(class) => Some(self.latency.mul_f64(failed_at(class))),
            Ending::Never => None,
        }
    }

    /// What a poll would show so long after the submission.
    pub(super) fn stage(&self, elapsed: Duration) -> Stage {
        let over = self.ends_at().is_some_and(|end| elapsed >= end);
        match self.ending {
            Ending::Done if over => Stage::Done,
            Ending::Failed(class) if over => Stage::Failed(class),
            Ending::Done if self.kind.grows() => {
                let last = self.milestones().into_iter().rfind(|(_, at)| elapsed >= *at);
                match last {
                    Some((Event::First, _)) => Stage::First,
                    Some(_) => Stage::Text,
                    None => Stage::Pending,
                }
            }
            Ending::Done | Ending::Failed(_) | Ending::Never => Stage::Pending,
        }
    }

    /// What is left to send for who takes the task up again so long after its submission. What was due
    /// meanwhile leaves after `wait`; what is `told` does not leave again.
    pub(super) fn owed(&self, told: &[Event], elapsed: Duration, wait: Duration) -> Vec<Sending> {
        let mut late = elapsed.saturating_add(wait);
        let mut owed = Vec::new();
        for sending in self.sendings.iter().filter(|sending| !told.contains(&sending.event)) {
            if sending.at > elapsed {
                owed.push(*sending);
            } else if sending.copies > 0 {
                owed.push(Sending { at: late, ..*sending });
                late = late.saturating_add(LATE_GAP);
            }
        }
        owed.sort_by_key(|sending| sending.at);
        owed
    }

    fn milestones(&self) -> [(Event, Duration); 2] {
        [(Event::Text, self.latency.mul_f64(0.3)), (Event::First, self.latency.mul_f64(0.6))]
    }

    /// The callbacks of an undisturbed life.
    fn events(&self) -> Vec<Sending> {
        let mut events = Vec::new();
        if self.kind.grows() && self.ending == Ending::Done {
            events.extend(self.milestones());
        }
        match self.ending {
            Ending::Done => events.push((Event::Complete, self.latency)),
            Ending::Failed(class) => {
                events.push((Event::Failed(class), self.latency.mul_f64(failed_at(class))));
            }
            Ending::Never => {}
        }
        events.into_iter().map(|(event, at)| Sending { event, at, copies: 1 }).collect()
    }

    fn disturb(&mut self, behaviour: &Behaviour, script: &Script, chance: &mut Chance) {
        let silent = !behaviour.callbacks || script.lose;
        for sending in &mut self.sendings {
            let lost = chance.hit(behaviour.loss) || silent;
            let doubled = chance.hit(behaviour.duplicate) || script.twice;
            sending.copies = if lost { 0 } else { 1 + u8::from(doubled) };
        }
        if behaviour.reorder {
            self.reorder(chance);
        }
    }

    /// Callbacks leave in any order, yet never before what they tell has happened. Now and then the
    /// answer to the submission waits until the first of them has left.
    fn reorder(&mut self, chance: &mut Chance) {
        chance.shuffle(&mut self.sendings);
        let gap = (self.latency / 50).max(Duration::from_millis(5));
        let mut earliest = Duration::ZERO;
        for sending in &mut self.sendings {
            sending.at = sending.at.max(earliest);
            earliest = sending.at + gap;
        }
        let overtaken = chance.hit(0.25);
        if let Some(first) = self.sendings.first().filter(|first| overtaken && first.at < OVERTAKEN_MAX) {
            self.answer_delay = self.answer_delay.max(first.at + 2 * gap);
        }
    }
}

/// The share of its latency after which a task that fails so does fail: bad words are seen early.
fn failed_at(class: FailureClass) -> f64 {
    match class {
        FailureClass::Moderation | FailureClass::InvalidInput => 0.2,
        FailureClass::ProviderError
        | FailureClass::InsufficientProviderCredits
        | FailureClass::RateLimited
        | FailureClass::Timeout
        | FailureClass::Network => 0.6,
    }
}

#[cfg(test)]
mod tests {
    use super::super::behaviour::Latency;
    use super::*;

    const MUSIC_MS: u64 = 1_000;

    fn behaviour() -> Behaviour {
        let latency = Latency { lyrics_ms: [100, 100], music_ms: [MUSIC_MS, MUSIC_MS] };
        Behaviour::new(latency, 7)
    }

    fn plan(behaviour: &Behaviour, words: &str, failure: Option<FailureClass>, number: u64) -> Plan {
        let script = Script::read([words]);
        Plan::new(Kind::Music, behaviour, &script, failure, &mut Chance::new(7, number))
    }

    fn told(plan: &Plan) -> Vec<(Event, u128, u8)> {
        plan.sendings.iter().map(|sent| (sent.event, sent.at.as_millis(), sent.copies)).collect()
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn music_tells_its_words_then_its_first_clip_then_its_end() {
        let plan = plan(&behaviour(), "", None, 0);
        assert_eq!(told(&plan), [(Event::Text, 300, 1), (Event::First, 600, 1), (Event::Complete, 1_000, 1)]);
        let stages = [299, 300, 600, 999, 1_000].map(|at| plan.stage(ms(at)));
        assert_eq!(stages, [Stage::Pending, Stage::Text, Stage::First, Stage::First, Stage::Done]);
    }

    #[test]
    fn what_does_not_grow_tells_only_its_end() {
        for kind in [Kind::Section, Kind::Stems, Kind::Video] {
            let plan = Plan::new(kind, &behaviour(), &Script::default(), None, &mut Chance::new(7, 0));
            assert_eq!(told(&plan), [(Event::Complete, 1_000, 1)]);
            assert_eq!([999, 1_000].map(|at| plan.stage(ms(at))), [Stage::Pending, Stage::Done]);
        }
    }

    #[test]
    fn a_failed_task_tells_nothing_but_its_failure() {
        let class = FailureClass::ProviderError;
        let plan = plan(&behaviour(), "", Some(class), 0);
        assert_eq!(told(&plan), [(Event::Failed(class), 600, 1)]);
        assert_eq!([500, 600].map(|at| plan.stage(ms(at))), [Stage::Pending, Stage::Failed(class)]);
    }

    #[test]
    fn a_timeout_never_ends_and_tells_nothing() {
        let plan = plan(&behaviour(), "", Some(FailureClass::Timeout), 0);
        assert_eq!(plan.sendings, []);
        assert_eq!(plan.stage(ms(100_000_000)), Stage::Pending);
    }

    #[test]
    fn words_slow_lose_and_double() {
        let slow = plan(&behaviour(), "sim:slow=20s sim:twice", None, 0);
        assert_eq!(slow.ends_at(), Some(ms(20_000)));
        assert!(slow.sendings.iter().all(|sending| sending.copies == 2));
        let lost = plan(&behaviour(), "sim:lose sim:twice", None, 0);
        assert!(lost.sendings.iter().all(|sending| sending.copies == 0));
        assert_eq!(lost.stage(ms(MUSIC_MS)), Stage::Done);
    }

    #[test]
    fn reordered_callbacks_come_in_every_order_but_never_before_their_news() {
        let behaviour = Behaviour { reorder: true, ..behaviour() };
        let natural = plan(&self::behaviour(), "", None, 0);
        let (mut complete_first, mut overtaken) = (0, 0);
        for number in 0..200 {
            let plan = plan(&behaviour, "", None, number);
            complete_first += usize::from(plan.sendings[0].event == Event::Complete);
            overtaken += usize::from(plan.answer_delay > plan.sendings[0].at);
            assert!(plan.sendings.windows(2).all(|pair| pair[0].at < pair[1].at));
            for sending in &plan.sendings {
                let earliest = natural.sendings.iter().find(|other| other.event == sending.event).unwrap();
                assert!(sending.at >= earliest.at);
            }
        }
        assert!((40..100).contains(&complete_first), "{complete_first}");
        assert!((30..70).contains(&overtaken), "{overtaken}");
    }

    #[test]
    fn who_takes_a_task_up_again_owes_what_was_not_told() {
        let plan = plan(&behaviour(), "", None, 0);
        let owed = |told: &[Event], elapsed| {
            let owed = plan.owed(told, ms(elapsed), ms(500));
            owed.iter().map(|sending| (sending.event, sending.at.as_millis())).collect::<Vec<_>>()
        };
        assert_eq!(owed(&[Event::Text], 450), [(Event::First, 600), (Event::Complete, 1_000)]);
        assert_eq!(
            owed(&[Event::Text], 9_000),
            [(Event::First, 9_500), (Event::Complete, 9_550)],
            "late ones leave soon after the start"
        );
        assert_eq!(owed(&[Event::Text, Event::First, Event::Complete], 9_000), []);
    }

    #[test]
    fn the_same_seed_and_number_plan_the_same_life() {
        let mut behaviour = Behaviour { loss: 0.3, duplicate: 0.3, reorder: true, ..behaviour() };
        behaviour.latency.music_ms = [800, 1_500];
        assert_eq!(plan(&behaviour, "", None, 5), plan(&behaviour, "", None, 5));
        assert_ne!(plan(&behaviour, "", None, 5), plan(&behaviour, "", None, 6));
    }
}
