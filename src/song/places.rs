//! What a song at work takes up: a place at the provider for each of its calls, from the submission to its end, and
//! one of its owner's seats (CRED-3). Dropping them frees them.

use super::phase::{CallState, Run, Song};
use crate::credit::seats::{Seat, Seats};
use crate::id::{CallKey, TaskId};
use crate::provider::Providers;
use crate::provider::gate::TaskSlot;
use crate::store::nodes::TakenHead;

/// By task and call: an attempt that is made again keeps the place of the one before.
#[derive(Default)]
pub struct Places {
    slots: Vec<((TaskId, u8), TaskSlot)>,
    /// For the phase; what is made beside a finished song needs none.
    seat: Option<Seat>,
}

impl Places {
    /// The places of a song that is taken up in the middle of its life: they count, also above the limit.
    pub fn adopted(song: &Song, providers: &Providers, seats: &Seats) -> Self {
        let runs = song.runs().map(|(task, run)| (task, song.provider_of(task), run));
        Self::of(runs, providers, song.head.task, || seats.adopt(&song.user, song.id))
    }

    /// The same for a song that was taken over, of which nothing else runs.
    pub fn adopted_for(taken: &TakenHead, providers: &Providers, seats: &Seats) -> Self {
        let run = (taken.task, taken.provider.as_str(), &taken.run);
        Self::of([run], providers, taken.task, || seats.adopt(&taken.user, taken.song))
    }

    fn of<'a>(
        runs: impl IntoIterator<Item = (TaskId, &'a str, &'a Run)>,
        providers: &Providers,
        head: TaskId,
        sit: impl Fn() -> Seat,
    ) -> Self {
        let mut places = Self::default();
        for (task, provider, run) in runs {
            for call in working_calls(task, run) {
                places.slots.extend(providers.gate(provider).map(|gate| (call, gate.adopt_slot())));
                if task == head && places.seat.is_none() {
                    places.seat = Some(sit());
                }
            }
        }
        places
    }

    pub const fn has_seat(&self) -> bool {
        self.seat.is_some()
    }

    pub fn sit(&mut self, seat: Seat) {
        self.seat = Some(seat);
    }

    /// The song is another user's: it takes one of theirs, if it has one.
    pub fn change_owner(&mut self, song: &Song, seats: &Seats) {
        if self.seat.is_some() {
            self.seat = Some(seats.adopt(&song.user, song.id));
        }
    }

    pub fn has(&self, call: CallKey) -> bool {
        self.slots.iter().any(|(held, _)| *held == (call.task, call.call))
    }

    pub fn take(&mut self, call: CallKey, slot: TaskSlot) {
        self.slots.retain(|(held, _)| *held != (call.task, call.call));
        // Of most songs it is the only one, and many songs rest with it.
        self.slots.reserve_exact(1);
        self.slots.push(((call.task, call.call), slot));
    }

    /// Frees what nobody needs: of calls that have ended, and that are not about to be submitted.
    pub fn keep_needed(&mut self, song: &Song, submitting: &[CallKey]) {
        if self.is_empty() {
            return;
        }
        let soon = submitting.iter().map(|key| (key.task, key.call));
        let needed: Vec<_> = working(song).chain(soon).collect();
        self.slots.retain(|(held, _)| needed.contains(held));
        if !needed.iter().any(|(task, _)| *task == song.head.task) {
            self.seat = None;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.seat.is_none()
    }
}

/// The calls that a provider may be working on.
fn working(song: &Song) -> impl Iterator<Item = (TaskId, u8)> {
    song.runs().flat_map(|(task, run)| working_calls(task, run))
}

fn working_calls(task: TaskId, run: &Run) -> impl Iterator<Item = (TaskId, u8)> {
    let calls = (0_u8..).zip(&run.calls);
    calls.filter(|(_, call)| holds_a_place(&call.state)).map(move |(index, _)| (task, index))
}

const fn holds_a_place(state: &CallState) -> bool {
    match state {
        CallState::Intent { .. } | CallState::Submitted { .. } | CallState::Unknown { .. } => true,
        CallState::Accepted { .. } | CallState::Done | CallState::Failed { .. } => false,
    }
}
