//! Which song a task belongs to, remembered for tasks that were submitted here lately, so that a callback
//! need not ask Postgres. Forgetting is harmless.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::id::{SongId, TaskId};
use crate::song::parts::TaskKind;

/// Tasks remembered before the older half is forgotten: about 8 MB.
const HALF: usize = 50_000;

#[derive(Default)]
pub struct Tasks {
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    new: HashMap<TaskId, (SongId, TaskKind)>,
    old: HashMap<TaskId, (SongId, TaskKind)>,
}

impl Tasks {
    pub fn remember(&self, task: TaskId, song: SongId, kind: TaskKind) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if halves.new.len() >= HALF {
            halves.old = std::mem::take(&mut halves.new);
        }
        halves.new.insert(task, (song, kind));
    }

    pub fn get(&self, task: TaskId) -> Option<(SongId, TaskKind)> {
        let halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.new.get(&task).or_else(|| halves.old.get(&task)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::fresh;

    #[test]
    fn the_latest_tasks_are_remembered_and_the_memory_is_bounded() {
        let tasks = Tasks::default();
        let song = SongId(fresh());
        let ids: Vec<TaskId> = (0..3 * HALF).map(|_| TaskId(fresh())).collect();
        for id in &ids {
            tasks.remember(*id, song, TaskKind::Generate);
        }
        assert!(ids[2 * HALF..].iter().all(|id| tasks.get(*id).is_some()));
        assert_eq!(tasks.get(ids[0]), None);
    }
}
