//! The places at providers that a song's calls take up, from the submission to the end of each. Dropping one frees
//! it.

use std::collections::BTreeMap;

use super::phase::{CallState, Song};
use crate::id::{CallKey, TaskId};
use crate::provider::Providers;
use crate::provider::gate::TaskSlot;

/// By task and call: an attempt that is made again keeps the place of the one before.
#[derive(Default)]
pub struct Places {
    slots: BTreeMap<(TaskId, u8), TaskSlot>,
}

impl Places {
    /// The places of a song that is taken up in the middle of its life: they count, also above the limit.
    pub fn adopted(song: &Song, providers: &Providers) -> Self {
        let gate = |task| providers.gate(song.provider_of(task));
        let slots = working(song).filter_map(|key| Some((key, gate(key.0)?.adopt_slot()))).collect();
        Self { slots }
    }

    pub fn has(&self, call: CallKey) -> bool {
        self.slots.contains_key(&(call.task, call.call))
    }

    pub fn take(&mut self, call: CallKey, slot: TaskSlot) {
        self.slots.insert((call.task, call.call), slot);
    }

    /// Frees the places that nobody needs: of calls that have ended, and that do not stand before `submitting`.
    pub fn keep_needed(&mut self, song: &Song, submitting: impl Fn(TaskId, u8) -> bool) {
        if !self.slots.is_empty() {
            let needed: Vec<_> = working(song).collect();
            self.slots.retain(|key, _| needed.contains(key) || submitting(key.0, key.1));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

/// The calls that a provider may be working on.
fn working(song: &Song) -> impl Iterator<Item = (TaskId, u8)> {
    song.runs().flat_map(|(task, run)| {
        (0_u8..)
            .zip(&run.calls)
            .filter(|(_, call)| holds_a_place(&call.state))
            .map(move |(index, _)| (task, index))
    })
}

const fn holds_a_place(state: &CallState) -> bool {
    match state {
        CallState::Intent { .. } | CallState::Submitted { .. } | CallState::Unknown { .. } => true,
        CallState::Accepted { .. } | CallState::Done | CallState::Failed { .. } => false,
    }
}
