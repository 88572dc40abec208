//! What a call needs before it is made: one of its owner's seats, a place at the provider, a lease that lasts; and its
//! making.
//!
//! Not here: who is next (`queueing`), the call itself (`submission`).

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message, WrapFuture};
use futures_util::FutureExt;

use super::{Happened, SongActor};
use crate::credit::plan::Plan;
use crate::credit::seats::Seat;
use crate::id::CallKey;
use crate::provider::failure::{Class, Failure};
use crate::provider::gate::{Ask, Rank, TaskSlot};
use crate::song::due::Due;
use crate::song::event::Event;
use crate::song::queueing::{Asker, stand_for_seat, stand_in_queue};
use crate::song::submission::{Submission, UnderWay};
use crate::time::Time;

/// A call starts at most this long after its intent was recorded.
const CALL_WITHIN: Duration = Duration::from_secs(5);

impl SongActor {
    /// Gets what a submission needs: one of the owner's seats, then a place at the provider.
    pub(super) fn seek_slot(&mut self, call: CallKey, ctx: &mut Context<Self>) {
        let Some(gate) = self.member(call).map(|member| member.gate.clone()) else {
            return self.no_provider(call, ctx);
        };
        self.busy.push(Due::Submit(call));
        if self.needs_seat(call) {
            let mut asking = self.ask_for_seat();
            match asking.as_mut().now_or_never() {
                Some(seat) => self.places.sit(seat),
                None => return self.wait_in(stand_for_seat(call, asking, self.asker(ctx)), call, ctx),
            }
        }
        if self.places.has(call) {
            return ctx.notify(SlotHeld { call, slot: None });
        }
        if let Some(slot) = gate.try_submit_slot() {
            return ctx.notify(SlotHeld { call, slot: Some(slot) });
        }
        // Who waited before a restart has waited since then.
        let since = self.song.run_of(call.task).and_then(|run| run.limited_since);
        let plan = Rank::of_plan(self.song.wish.plan.as_deref().unwrap_or_default());
        let place = gate.queue(Ask { plan, since: since.unwrap_or_else(|| self.world.clock.now()) });
        self.wait_in(stand_in_queue(call, gate, place, self.world.clone(), ctx.address()), call, ctx);
    }

    pub(super) fn ask_for_seat(&self) -> Pin<Box<dyn Future<Output = Seat>>> {
        let plan = self.song.wish.plan.as_deref().and_then(Plan::parse).unwrap_or(Plan::Free);
        let limit = self.world.plans.of(plan).concurrent;
        let (world, user) = (self.world.clone(), self.song.user.clone());
        let (song, since) = (self.song.id, self.song.created_at);
        Box::pin(async move { world.seats.seat(&user, limit, song, since).await })
    }

    /// What is made beside a finished song is not one of the songs at once.
    pub(super) fn needs_seat(&self, call: CallKey) -> bool {
        call.task == self.song.head.task && !self.places.has_seat()
    }

    pub(super) fn wait_in(
        &mut self,
        queue: impl Future<Output = ()> + 'static,
        call: CallKey,
        ctx: &mut Context<Self>,
    ) {
        let waiting = ctx.spawn(queue.into_actor(self));
        self.waits.push((call, waiting));
        // Maybe for long: nothing else that is due must wait for it.
        self.arm(ctx);
    }

    pub(super) fn asker(&self, ctx: &mut Context<Self>) -> Asker {
        Asker {
            me: ctx.address(),
            world: self.world.clone(),
            user: self.song.user.clone(),
            song: self.song.id,
        }
    }

    /// Leaves the queues for what is not to be submitted any more.
    pub(super) fn leave_queues(&mut self, ctx: &mut Context<Self>) {
        if self.busy.is_empty() && self.waits.is_empty() {
            return;
        }
        let all = self.all_due();
        let wanted = |due: &Due| all.iter().any(|(_, wanted)| wanted == due);
        self.busy.retain(|due| !matches!(due, Due::Submit(_)) || wanted(due));
        let busy = &self.busy;
        let (stay, leave) = std::mem::take(&mut self.waits)
            .into_iter()
            .partition(|(call, _)| busy.contains(&Due::Submit(*call)));
        self.waits = stay;
        for (_, waiting) in leave {
            ctx.cancel_future(waiting);
        }
    }

    /// The configuration no longer has the provider that this song was given to.
    pub(super) fn no_provider(&mut self, call: CallKey, ctx: &mut Context<Self>) {
        let failure = Failure::new(Class::ProviderError, "the provider is not configured").operator();
        ctx.notify(Happened { event: Event::SubmitFailed { call, failure }, by: None, inbox: None });
    }

    /// Makes the call whose intent is durable, unless it is too late for it (PROV-5).
    pub(super) fn submit(&mut self, key: CallKey, not_after: Time, under_way: UnderWay) {
        let Some(member) = self.member(key) else { return };
        let submission = Submission {
            key,
            not_after,
            order: self.song.order(key),
            reply_to: (self.world.reply_to)(&self.song, &key),
            song: self.song.id,
            directory: self.directory.clone(),
            world: self.world.clone(),
            member: member.clone(),
            beginning: self.beginning.take(),
            under_way,
        };
        actix::spawn(submission.make());
    }

    /// The slot that was waited for is not needed after all.
    pub(super) fn place_not_used(&mut self, call: CallKey) {
        self.busy.retain(|due| *due != Due::Submit(call));
        self.free_places();
    }

    /// Without the lease nothing may be sent; it comes back with the database (`durability.md` section 5).
    pub(super) fn may_not_send(&mut self, call: CallKey, ctx: &mut Context<Self>) {
        self.place_not_used(call);
        self.arm_later(Duration::from_secs(1), ctx);
    }

    pub(super) fn free_places(&mut self) {
        let submitting = |due: &Due| match due {
            Due::Submit(call) => Some(*call),
            Due::Poll(_) | Due::Wake => None,
        };
        let soon: Vec<CallKey> = self.busy.iter().filter_map(submitting).collect();
        self.places.keep_needed(&self.song, &soon);
    }
}

/// The provider has room for this call.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::song) struct SlotHeld {
    pub(in crate::song) call: CallKey,
    /// `None` where the song already has its place.
    pub(in crate::song) slot: Option<TaskSlot>,
}

impl Handler<SlotHeld> for SongActor {
    type Result = ();

    fn handle(&mut self, SlotHeld { call, slot }: SlotHeld, ctx: &mut Context<Self>) {
        self.waits.retain(|(waiting, _)| *waiting != call);
        if !self.busy.contains(&Due::Submit(call)) {
            // It moved on meanwhile; the slot goes to the next.
            return;
        }
        if let Some(slot) = slot {
            self.places.take(call, slot);
        }
        let lease_left = self.world.lease.ends().saturating_duration_since(self.world.clock.monotonic());
        if lease_left < Duration::from_millis(100) {
            return self.may_not_send(call, ctx);
        }
        let not_after = self.world.clock.now() + lease_left.min(CALL_WITHIN);
        let able = self.member(call).map(|member| member.provider.capabilities());
        let lasts = able.map_or(self.world.call_timeout, |able| self.world.call_lasts(able));
        let event = Event::Submitting {
            call,
            not_after,
            settled_by: not_after + lasts,
            takes: self.member(call).map(|member| member.health.expected(self.song.kind_of(call.task))),
            synchronous: able.is_some_and(|able| able.synchronous),
        };
        ctx.notify(Happened { event, by: None, inbox: None });
    }
}

/// One of the owner's other songs ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::song) struct SeatHeld {
    pub(in crate::song) call: CallKey,
    pub(in crate::song) seat: Seat,
}

impl Handler<SeatHeld> for SongActor {
    type Result = ();

    fn handle(&mut self, SeatHeld { call, seat }: SeatHeld, ctx: &mut Context<Self>) {
        self.waits.retain(|(waiting, _)| *waiting != call);
        let wanted = self.busy.iter().position(|due| *due == Due::Submit(call));
        // Else it moved on meanwhile; the seat goes to the next.
        if let Some(index) = wanted {
            self.busy.remove(index);
            self.places.sit(seat);
            self.seek_slot(call, ctx);
        }
    }
}
