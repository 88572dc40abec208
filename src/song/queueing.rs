//! Standing in a queue for a song's actor: for one of its owner's seats, then for a place at the provider. The owner is
//! told what the song waits for, and in which place, when that changes (PROV-11, CRED-3).
//!
//! Not here: who is next (`credit::seats`, `provider::gate`). A queue is left by dropping the future.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;

use super::actor::{Happened, SeatHeld, SlotHeld, SongActor, World};
use super::event::Event;
use super::phase::Waiting;
use crate::credit::seats::Seat;
use crate::id::{CallKey, SongId, UserId};
use crate::provider::gate::{Gate, Hold, SubmitWait};

/// A wait that lasts longer is shown to the song's owner.
const SHOWS_AFTER: Duration = Duration::from_secs(1);
/// Places up to this one are told exactly.
const NEAR: u32 = 20;
/// How often its place in the queue is looked at again.
const POSITION_EVERY: Duration = Duration::from_secs(10);

/// Who waits for a seat.
pub(super) struct Asker {
    pub(super) me: Addr<SongActor>,
    pub(super) world: Arc<World>,
    pub(super) user: UserId,
    pub(super) song: SongId,
}

/// Waits for one of the owner's other songs to end (CRED-3).
pub(super) async fn stand_for_seat(call: CallKey, seat: Pin<Box<dyn Future<Output = Seat>>>, asker: Asker) {
    let Asker { me, world, user, song } = asker;
    let place = || (Waiting::Concurrency, world.seats.position(&user, song));
    let seat = stand(call, seat, place, Vec::new, &me).await;
    me.do_send(SeatHeld { call, seat });
}

/// Waits for the provider to have room for a call (PROV-11).
pub(super) async fn stand_in_queue(
    call: CallKey,
    gate: Gate,
    place: SubmitWait,
    world: Arc<World>,
    me: Addr<SongActor>,
) {
    let place = std::cell::RefCell::new(place);
    let shown = || {
        let by = match gate.hold() {
            Some(Hold::Outage { .. }) => Waiting::ProviderDown,
            Some(Hold::Places | Hold::Pause { .. }) | None => Waiting::ProviderLimit,
        };
        (by, place.borrow().position())
    };
    let waiting = std::future::poll_fn(|context| Pin::new(&mut *place.borrow_mut()).poll(context));
    let open = || {
        let up = world.providers.members().filter(|member| !member.gate.is_down());
        up.map(|member| member.name().to_owned()).collect()
    };
    let slot = stand(call, waiting, shown, open, &me).await;
    me.do_send(SlotHeld { call, slot: Some(slot) });
}

/// Each telling is a commit, an event and a frame, and in a long queue everybody moves all the time: far back only a step
/// of a quarter is told, so that a song that waits tells of fifty places at most, however many are before it.
fn worth_telling(shown: Option<(Waiting, Option<u32>)>, seen: (Waiting, Option<u32>)) -> bool {
    match (shown, seen) {
        (Some((before, Some(far))), (now, Some(place))) if before == now && place > NEAR => {
            far.abs_diff(place) >= far / 4
        }
        _ => shown != Some(seen),
    }
}

/// Waits, and tells the song's owner what for and in which place, when that has changed; and the song, while its provider
/// is down, who else could take it.
async fn stand<T>(
    call: CallKey,
    turn: impl Future<Output = T> + Unpin,
    place: impl Fn() -> (Waiting, Option<usize>),
    others: impl Fn() -> Vec<String>,
    me: &Addr<SongActor>,
) -> T {
    let (mut turn, mut shown, mut known, mut pause) = (turn, None, Vec::new(), SHOWS_AFTER);
    loop {
        match tokio::time::timeout(pause, &mut turn).await {
            Ok(came) => return came,
            Err(_) => {
                let (by, position) = place();
                let queue_position = position.and_then(|position| u32::try_from(position).ok());
                let open = if by == Waiting::ProviderDown { others() } else { Vec::new() };
                if worth_telling(shown, (by, queue_position)) || open != known {
                    shown = Some((by, queue_position));
                    known.clone_from(&open);
                    let event = Event::Limited { call, by, queue_position, open };
                    me.do_send(Happened { event, by: None, inbox: None });
                }
                pause = POSITION_EVERY;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_back_in_a_queue_few_places_are_told_and_the_last_twenty_all_are() {
        for length in [20, 1_000, 50_000] {
            let (mut shown, mut told) = (None, Vec::new());
            for place in (1..=length).rev() {
                let seen = (Waiting::ProviderLimit, Some(place));
                if worth_telling(shown, seen) {
                    shown = Some(seen);
                    told.push(place);
                }
            }
            assert!(told.ends_with(&(1..=20).rev().collect::<Vec<_>>()), "{told:?}");
            assert!(told.len() <= 50, "{} of {length}", told.len());
            // What is shown is never more than a quarter too far back.
            assert!(told.windows(2).all(|two| two[0] - two[1] <= two[0].div_ceil(4)), "{told:?}");
        }
    }

    #[test]
    fn another_reason_is_told_wherever_it_waits() {
        let shown = Some((Waiting::ProviderLimit, Some(700)));
        assert!(worth_telling(None, (Waiting::ProviderLimit, Some(700))));
        assert!(worth_telling(shown, (Waiting::ProviderDown, Some(700))));
        assert!(worth_telling(shown, (Waiting::ProviderLimit, None)));
        assert!(!worth_telling(shown, (Waiting::ProviderLimit, Some(699))));
    }
}
