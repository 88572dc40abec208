//! Which of the journal's writers takes an entry: the first one as long as it keeps up, because few large batches cost
//! less than many small ones; beyond that whoever has least to do, because a writer's connection keeps one of Postgres's
//! cores busy and no more. People of whom something is under way stay with the writer that has it: their numbers keep
//! the order of the commits, and writers need not wait for each other's rows. (Only where a guest's song becomes an
//! account's it goes by the account: should that meet others of the guest's, the database ends one of two that wait for
//! each other, which is written again, and watchers find out of order by their numbers.)
//!
//! Not here: what an entry is and what a writer does with it (`journal`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

/// The writers' queues.
pub(super) struct Lanes<T> {
    queues: Box<[mpsc::Sender<T>]>,
    /// Entries that the first writer may have before the others help.
    help_at: usize,
    names: RandomState,
    /// How many entries wait or are being written.
    many: Arc<AtomicUsize>,
    under_way: Arc<Mutex<UnderWay>>,
}

/// What waits or is being written, where there are several writers.
struct UnderWay {
    /// By name: whose writer it is, and how many entries.
    names: HashMap<u64, (usize, u32)>,
    /// How many entries each writer has.
    entries: Vec<usize>,
}

/// Held by an entry until everybody knows what became of it.
pub(super) struct Stay {
    many: Arc<AtomicUsize>,
    /// Its name, where there are several writers.
    among: Option<(u64, Arc<Mutex<UnderWay>>)>,
}

impl<T> Lanes<T> {
    pub(super) fn new(queues: Vec<mpsc::Sender<T>>, help_at: usize) -> Self {
        assert!(!queues.is_empty(), "a journal has a writer");
        let under_way = UnderWay { names: HashMap::new(), entries: vec![0; queues.len()] };
        let under_way = Arc::new(Mutex::new(under_way));
        Self { queues: queues.into(), help_at, names: RandomState::new(), many: Arc::default(), under_way }
    }

    /// The queue for an entry of this one's. Of two people whose names have the same hash both stay, which does no harm.
    pub(super) fn of(&self, name: impl std::hash::Hash) -> (&mpsc::Sender<T>, Stay) {
        self.many.fetch_add(1, Ordering::AcqRel);
        let stay = |among| Stay { many: Arc::clone(&self.many), among };
        let [only] = &*self.queues else {
            let name = self.names.hash_one(name);
            return (self.among_several(name), stay(Some((name, Arc::clone(&self.under_way)))));
        };
        (only, stay(None))
    }

    fn among_several(&self, name: u64) -> &mpsc::Sender<T> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let UnderWay { names, entries } = &mut *under_way;
        let least = || (0..entries.len()).min_by_key(|lane| entries[*lane]).unwrap_or(0);
        let free = || if entries[0] < self.help_at { 0 } else { least() };
        let (lane, many) = names.entry(name).or_insert_with(|| (free(), 0));
        *many += 1;
        entries[*lane] += 1;
        &self.queues[*lane]
    }

    /// Whether it is known of every entry what became of it.
    pub(super) fn is_idle(&self) -> bool {
        self.many.load(Ordering::Acquire) == 0
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.many.fetch_sub(1, Ordering::AcqRel);
        let Some((name, under_way)) = &self.among else { return };
        let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let UnderWay { names, entries } = &mut *under_way;
        let Entry::Occupied(mut here) = names.entry(*name) else { return };
        let (lane, many) = here.get_mut();
        entries[*lane] -= 1;
        *many -= 1;
        if *many == 0 {
            here.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writers with room for ten entries each, of which the first is helped from three on.
    fn lanes(many: usize) -> (Lanes<Stay>, Vec<mpsc::Receiver<Stay>>) {
        let (queues, waiting) = (0..many).map(|_| mpsc::channel(10)).unzip();
        (Lanes::new(queues, 3), waiting)
    }

    fn put(lanes: &Lanes<Stay>, name: &str) {
        let (queue, stay) = lanes.of(name);
        assert!(queue.try_send(stay).is_ok(), "there is room");
    }

    fn lengths(waiting: &[mpsc::Receiver<Stay>]) -> Vec<usize> {
        waiting.iter().map(mpsc::Receiver::len).collect()
    }

    #[test]
    fn the_first_writer_does_it_alone_until_it_falls_behind() {
        let (lanes, waiting) = lanes(3);
        for name in ["a", "b", "c"] {
            put(&lanes, name);
        }
        assert_eq!(lengths(&waiting), [3, 0, 0]);
        for name in ["d", "e", "f", "g"] {
            put(&lanes, name);
        }
        assert_eq!(lengths(&waiting), [3, 2, 2], "then whoever has least to do");
    }

    #[test]
    fn whoever_has_something_under_way_stays_with_its_writer_and_no_longer() {
        let (lanes, mut waiting) = lanes(2);
        for name in ["a", "b", "c", "late"] {
            put(&lanes, name);
        }
        assert_eq!(lengths(&waiting), [3, 1]);
        // Taken out of the queue, but nobody knows yet what became of it.
        let taken = waiting[1].try_recv();
        while waiting[0].try_recv().is_ok() {}
        put(&lanes, "late");
        assert_eq!(lengths(&waiting), [0, 1], "although the first writer is free");
        let again = waiting[1].try_recv();
        drop((taken, again));
        put(&lanes, "late");
        assert_eq!(lengths(&waiting), [1, 0], "all is known");
    }

    #[test]
    fn what_is_being_written_or_waits_to_be_tried_again_is_under_way() {
        for writers in [1, 2] {
            let (lanes, mut waiting) = lanes(writers);
            assert!(lanes.is_idle());
            put(&lanes, "a");
            let taken = waiting[0].try_recv();
            assert!(!lanes.is_idle(), "although nothing waits in a queue");
            drop(taken);
            assert!(lanes.is_idle());
        }
    }

    #[test]
    fn nothing_is_remembered_of_whom_nothing_is_under_way() {
        let (lanes, mut waiting) = lanes(2);
        for name in ["a", "a", "b"] {
            put(&lanes, name);
        }
        while waiting[0].try_recv().is_ok() {}
        assert!(lanes.is_idle());
        let under_way = lanes.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(under_way.names.is_empty());
        assert_eq!(under_way.entries, [0, 0]);
    }
}
