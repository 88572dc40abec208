//! What happened at the simulated providers, and how often the same intent was paid for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Value, json};

/// Counts of one run; `POST /control/reset` sets them back, except what is under way.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) lyrics: AtomicU64,
    pub(super) generate: AtomicU64,
    /// What was wanted beside songs that exist: stems, videos, personas.
    pub(super) additions: AtomicU64,
    /// The submissions in order, by provider.
    providers: Mutex<BTreeMap<&'static str, Submissions>>,
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Callbacks that were answered with 2xx.
    pub(super) callbacks_sent: AtomicU64,
    /// Callbacks that were given up on.
    pub(super) callbacks_failed: AtomicU64,
    /// Callbacks that were lost on purpose.
    pub(super) callbacks_lost: AtomicU64,
    /// Tries that were not answered with 2xx.
    pub(super) callback_tries_failed: AtomicU64,
    pub(super) polls: AtomicU64,
    pub(super) duplicates_of_intent: AtomicU64,
    pub(super) answers_cut: AtomicU64,
    pub(super) files: AtomicU64,
    pub(super) tasks_open: AtomicU64,
}

/// How one provider answered submissions whose form it found in order.
#[derive(Default, Serialize)]
struct Submissions {
    accepted: u64,
    refused: u64,
}

impl Stats {
    /// A submission was taken, or refused.
    pub(super) fn submitted(&self, provider: &'static str, taken: bool) {
        let mut providers = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = providers.entry(provider).or_default();
        let (own, all) = match taken {
            true => (&mut counts.accepted, &self.accepted),
            false => (&mut counts.refused, &self.refused),
        };
        *own += 1;
        Self::add(all);
    }

    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn reset(&self) {
        for counter in [
            &self.lyrics,
            &self.generate,
            &self.additions,
            &self.accepted,
            &self.refused,
            &self.callbacks_sent,
            &self.callbacks_failed,
            &self.callbacks_lost,
            &self.callback_tries_failed,
            &self.polls,
            &self.duplicates_of_intent,
            &self.answers_cut,
            &self.files,
        ] {
            counter.store(0, Relaxed);
        }
        self.providers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn shown(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let providers = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        json!({
            "submissions": {
                "lyrics": read(&self.lyrics),
                "generate": read(&self.generate),
                "additions": read(&self.additions),
            },
            "providers": &*providers,
            "accepted": read(&self.accepted),
            "refused": read(&self.refused),
            "callbacks_sent": read(&self.callbacks_sent),
            "callbacks_failed": read(&self.callbacks_failed),
            "callbacks_lost": read(&self.callbacks_lost),
            "callback_tries_failed": read(&self.callback_tries_failed),
            "polls": read(&self.polls),
            "duplicates_of_intent": read(&self.duplicates_of_intent),
            "answers_cut": read(&self.answers_cut),
            "files": read(&self.files),
            "tasks_open": read(&self.tasks_open),
        })
    }
}

/// How often each key was seen, for the newest `most` keys.
pub(super) struct Counts<K> {
    counts: HashMap<K, u32>,
    by_age: VecDeque<K>,
    most: usize,
}

impl<K: Clone + Eq + Hash> Counts<K> {
    pub(super) fn new(most: usize) -> Self {
        Self { counts: HashMap::new(), by_age: VecDeque::new(), most }
    }

    /// Counts `key` once more; answers how often it has been seen, this time included.
    pub(super) fn count(&mut self, key: K) -> u32 {
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
            return *count;
        }
        if self.by_age.len() >= self.most
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.counts.remove(&oldest);
        }
        self.by_age.push_back(key.clone());
        self.counts.insert(key, 1);
        1
    }

    pub(super) fn at_least(&self, min: u32, most: usize) -> Vec<(K, u32)> {
        let keys = self.by_age.iter().filter_map(|key| Some((key.clone(), *self.counts.get(key)?)));
        keys.filter(|(_, count)| *count >= min).take(most).collect()
    }

    pub(super) fn clear(&mut self) {
        self.counts.clear();
        self.by_age.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_and_the_oldest_forgotten() {
        let mut counts = Counts::new(2);
        assert_eq!([counts.count("a"), counts.count("b"), counts.count("a")], [1, 1, 2]);
        assert_eq!(counts.at_least(2, 10), [("a", 2)]);
        assert_eq!(counts.count("c"), 1);
        assert_eq!(counts.count("a"), 1, "it was the oldest, and forgotten");
        assert_eq!(counts.at_least(1, 10).len(), 2);
        assert_eq!(counts.at_least(1, 1).len(), 1);
    }
}
