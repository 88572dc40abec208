//! How one provider does, from our own history: how long its tasks take, and how many succeed (PROV-12, OPS-4).
//! In memory: a restart begins with what the provider documents, and learns again within a few songs.
//!
//! Not here: whether it is to be asked at all (`gate`), which one is taken (`provider::choice`).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::gate::Ticks;
use super::{Capabilities, TaskKind};

/// Durations kept of each kind of task; older ones are forgotten.
const KEPT: usize = 64;
/// What is documented counts as so many tasks, so that the first one does not decide alone.
const DOCUMENTED_COUNTS: usize = 3;
/// Texts and personas come within seconds, whatever a song takes.
const TEXT_TYPICAL: Duration = Duration::from_secs(15);
/// After this long an outcome counts half: a bad hour is forgiven within a few.
const HALF_LIFE: Duration = Duration::from_secs(15 * 60);
/// What is believed without any history: so many tasks, of which this share succeeded.
const BELIEVED: f64 = 4.0;
const BELIEVED_SHARE: f64 = 0.95;

/// Shared by all songs of a provider.
pub struct Health {
    name: &'static str,
    typical: Duration,
    clock: Ticks,
    kinds: Mutex<[History; TaskKind::ALL.len()]>,
}

/// Of one kind of task.
#[derive(Default)]
struct History {
    /// Of those that succeeded, the newest last.
    took: VecDeque<Duration>,
    /// Sums that fade; as they were at `at`.
    succeeded: f64,
    failed: f64,
    at: Duration,
    /// Since the start of the program; these do not fade.
    ended: u64,
    ended_badly: u64,
}

impl History {
    /// The sums as they count at this moment.
    fn faded(&self, now: Duration) -> (f64, f64) {
        let half_lives = now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let left = 0.5_f64.powf(half_lives);
        (self.succeeded * left, self.failed * left)
    }

    fn note(&mut self, took: Duration, ok: bool, now: Duration) {
        (self.succeeded, self.failed) = self.faded(now);
        self.at = now;
        self.ended += 1;
        if ok {
            self.succeeded += 1.0;
            self.took.push_back(took);
            if self.took.len() > KEPT {
                self.took.pop_front();
            }
        } else {
            self.failed += 1.0;
            self.ended_badly += 1;
        }
    }

    /// This part of the tasks took no longer, where `typical` was added as if it had been seen.
    fn quantile(&self, part: f64, typical: Duration) -> Duration {
        let mut all: Vec<_> = self.took.iter().copied().collect();
        all.extend([typical; DOCUMENTED_COUNTS]);
        all.sort_unstable();
        let index = ((all.len() - 1) as f64 * part).round() as usize;
        all[index.min(all.len() - 1)]
    }
}

impl Health {
    /// Begins with what the provider documents.
    pub fn new(able: &Capabilities) -> Self {
        Self::with_clock(able, Ticks::tokio())
    }

    fn with_clock(able: &Capabilities, clock: Ticks) -> Self {
        let typical = Duration::from_secs(u64::from(able.typical_s));
        Self { name: able.name, typical, clock, kinds: Mutex::default() }
    }

    /// A task came to its end, this long after its submission. `ok` is false only where the provider is to
    /// blame: a text that it refused, or a song that its owner cancelled, is not to be told here.
    pub fn ended(&self, kind: TaskKind, took: Duration, ok: bool) {
        let now = self.clock.now();
        self.lock()[index(kind)].note(took, ok, now);
        let labels = [("provider", self.name), ("kind", kind.as_str())];
        metrics::gauge!("songflight_provider_expected_seconds", &labels)
            .set(self.expected(kind).as_secs_f64());
        metrics::gauge!("songflight_provider_success_share", "provider" => self.name)
            .set(self.success_share());
        let outcome = if ok { "ok" } else { "failed" };
        metrics::counter!("songflight_provider_tasks_total", "provider" => self.name, "outcome" => outcome)
            .increment(1);
    }

    /// How long such a task usually takes, from its submission to its end: as long as half of them do.
    pub fn expected(&self, kind: TaskKind) -> Duration {
        self.lock()[index(kind)].quantile(0.5, self.typical_of(kind))
    }

    /// The share of tasks that succeeded lately, 0.0 to 1.0, over all kinds. Without any history it is a
    /// little under one, and it comes back to that with time: whoever gets no tasks cannot prove himself.
    pub fn success_share(&self) -> f64 {
        let now = self.clock.now();
        let kinds = self.lock();
        let sums = kinds.iter().map(|history| history.faded(now));
        let (succeeded, failed) = sums.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (succeeded + BELIEVED * BELIEVED_SHARE) / (succeeded + failed + BELIEVED)
    }

    /// For operators.
    pub fn snapshot(&self) -> Snapshot {
        let success_share = self.success_share();
        let kinds = self.lock();
        let seen = TaskKind::ALL.into_iter().filter(|kind| kinds[index(*kind)].ended > 0);
        let kinds = seen.map(|kind| {
            let history = &kinds[index(kind)];
            let seconds = |part| history.quantile(part, self.typical_of(kind)).as_secs_f64();
            KindSnapshot {
                kind,
                ended: history.ended,
                failed: history.ended_badly,
                expected_s: seconds(0.5),
                slow_s: seconds(0.9),
            }
        });
        Snapshot { provider: self.name, success_share, kinds: kinds.collect() }
    }

    fn typical_of(&self, kind: TaskKind) -> Duration {
        match kind {
            TaskKind::Lyrics | TaskKind::Persona => self.typical.min(TEXT_TYPICAL),
            TaskKind::Generate
            | TaskKind::Extend
            | TaskKind::ReplaceSection
            | TaskKind::Merge
            | TaskKind::Cover
            | TaskKind::Stems
            | TaskKind::Video => self.typical,
        }
    }

    /// No code panics while it holds this lock.
    fn lock(&self) -> MutexGuard<'_, [History; TaskKind::ALL.len()]> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The order of `TaskKind::ALL`, which a test compares.
const fn index(kind: TaskKind) -> usize {
    kind as usize
}

/// A provider's health at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    pub provider: &'static str,
    pub success_share: f64,
    /// The kinds of which there is a history.
    pub kinds: Vec<KindSnapshot>,
}

/// Of one kind of task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindSnapshot {
    pub kind: TaskKind,
    /// Since the start of the program.
    pub ended: u64,
    pub failed: u64,
    /// Half of them take no longer.
    pub expected_s: f64,
    /// Nine of ten take no longer.
    pub slow_s: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::gate::Hand;

    fn health() -> (Health, Hand) {
        let hand = Hand::default();
        (Health::with_clock(crate::provider::suno::capabilities(), hand.ticks()), hand)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn each_kind_has_its_own_place() {
        let places: Vec<_> = TaskKind::ALL.into_iter().map(index).collect();
        assert_eq!(places, (0..TaskKind::ALL.len()).collect::<Vec<_>>());
    }

    #[test]
    fn without_history_a_song_takes_what_is_documented_and_words_a_few_seconds() {
        let (health, _) = health();
        assert_eq!(health.expected(TaskKind::Generate), seconds(75));
        assert_eq!(health.expected(TaskKind::Lyrics), seconds(15));
        assert!((0.94..0.96).contains(&health.success_share()));
    }

    #[test]
    fn what_was_seen_outweighs_what_is_documented_after_a_few_songs() {
        let (health, _) = health();
        health.ended(TaskKind::Generate, seconds(200), true);
        assert_eq!(health.expected(TaskKind::Generate), seconds(75), "one is an exception");
        (0..4).for_each(|_| health.ended(TaskKind::Generate, seconds(200), true));
        assert_eq!(health.expected(TaskKind::Generate), seconds(200));
        assert_eq!(health.expected(TaskKind::Lyrics), seconds(15), "other kinds are another matter");
    }

    #[test]
    fn only_the_newest_are_kept() {
        let (health, _) = health();
        (0..10_000).for_each(|_| health.ended(TaskKind::Stems, seconds(500), true));
        (0..KEPT).for_each(|_| health.ended(TaskKind::Stems, seconds(20), true));
        assert_eq!(health.expected(TaskKind::Stems), seconds(20));
        assert_eq!(health.lock()[index(TaskKind::Stems)].took.len(), KEPT);
    }

    #[test]
    fn failures_lower_the_share_and_say_nothing_of_the_time() {
        let (health, _) = health();
        let before = health.success_share();
        (0..10).for_each(|_| health.ended(TaskKind::Generate, seconds(1), false));
        assert!(health.success_share() < 0.3 && before > 0.9);
        assert_eq!(health.expected(TaskKind::Generate), seconds(75));
    }

    #[test]
    fn a_bad_hour_is_forgiven_with_time_although_nobody_asks_any_more() {
        let (health, hand) = health();
        (0..20).for_each(|_| health.ended(TaskKind::Generate, seconds(1), false));
        let bad = health.success_share();
        hand.advance(HALF_LIFE * 2);
        let better = health.success_share();
        hand.advance(HALF_LIFE * 10);
        assert!(bad < better && better < 0.6, "{bad} {better}");
        assert!(health.success_share() > 0.9);
    }

    #[test]
    fn operators_read_the_kinds_that_were_seen() {
        let (health, _) = health();
        health.ended(TaskKind::Lyrics, seconds(8), true);
        health.ended(TaskKind::Lyrics, seconds(1), false);
        let shown = serde_json::to_value(health.snapshot()).unwrap();
        assert_eq!(shown["provider"], "suno");
        assert_eq!(shown["kinds"].as_array().map(Vec::len), Some(1));
        let lyrics = &shown["kinds"][0];
        assert_eq!(
            (&lyrics["kind"], &lyrics["ended"], &lyrics["failed"]),
            (&"lyrics".into(), &2.into(), &1.into())
        );
    }
}
