//! The shell around one song in flight: an actor that carries events to [`step`], steps to the journal,
//! and acts to the provider, always in the order *decide, commit, act*.
//!
//! Deliberately absent: any `if` about what an event means (`song::step`), any SQL (`store`). A song with
//! nothing due soon has no actor: the directory keeps its time and wakes it again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, AtomicResponse, Context, Handler, Message,
    SpawnHandle, WrapFuture,
};
use futures_util::FutureExt;

use super::directory::{Directory, Rest};
use super::due::{self, Due};
use super::event::Event;
use super::parts::News;
use super::phase::{AdditionState, CallState, Phase, Rules, Run, Song};
use super::places::Places;
use super::queueing::{Asker, stand_for_seat, stand_in_queue};
use super::refusal::{self, Refusal};
use super::step::{Act, Step, step};
use super::submission::{Beginning, Submission, UnderWay};
use crate::cluster::Lease;
use crate::credit::Credits;
use crate::credit::plan::{Plan, Plans};
use crate::credit::seats::{Seat, Seats};
use crate::id::{CallKey, TaskId, UserId};
use crate::mutant::{Mutant, planted};
use crate::provider::failure::{Class, Failure};
use crate::provider::gate::{Ask, Call, Outcome, Rank, TaskSlot};
use crate::provider::{Capabilities, Member, Providers};
use crate::store::claims::Claim;
use crate::store::database::Database;
use crate::store::journal::{CommitError, Committed, Entry, Journal};
use crate::store::row::{InboxRow, StepRow};
use crate::time::{Clock, Time};

/// What every song of a node shares.
pub struct World {
    pub rules: Rules,
    pub clock: Clock,
    pub journal: Journal,
    /// What the songs' shells ask; the doors ask `pool`.
    pub database: Arc<dyn Database>,
    pub pool: deadpool_postgres::Pool,
    pub providers: Providers,
    pub lease: Lease,
    /// How many songs of one user are made at once (CRED-3).
    pub seats: Seats,
    pub plans: Plans,
    /// The url that a provider is to call for this call (CB-1).
    pub reply_to: ReplyTo,
    /// The longest that one submit call lasts, where its provider names no longer time.
    pub call_timeout: Duration,
    /// How often a song is taken up without moving before it is given up (`durability.md` section 6).
    pub activations_max: i16,
    /// Submissions under way, from the intent to the durable answer; a graceful stop waits for them.
    pub calls: AtomicUsize,
    /// Songs that have an actor.
    pub awake: AtomicUsize,
}

/// Makes the callback url of a song's call.
pub type ReplyTo = Box<dyn Fn(&Song, &CallKey) -> String + Send + Sync>;

/// A song whose next need is farther off than this gives its actor up …
const LINGER: Duration = Duration::from_secs(20);
/// … or than this, where nothing is due at all, or while very many are awake on this node: an actor holds its whole song in
/// memory, of a song that rests only the time and its places are kept.
const LINGER_BRIEFLY: Duration = Duration::from_secs(4);
/// Very many.
const CROWD: usize = 20_000;
/// A call starts at most this long after its intent was recorded.
const CALL_WITHIN: Duration = Duration::from_secs(5);
/// A song whose step was refused by the database is looked at again after this.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);

pub struct SongActor {
    song: Arc<Song>,
    version: i64,
    world: Arc<World>,
    directory: Addr<Directory>,
    timer: Option<SpawnHandle>,
    places: Places,
    /// Until its first submission is answered, or it has to wait for something.
    beginning: Option<Beginning>,
    /// When the provider was last asked, or this actor took the song up.
    polled: Time,
    /// Waits for a slot and polls that are under way.
    busy: Vec<Due>,
    /// Polls that the provider's limits hold back, and until when.
    held_back: Vec<(CallKey, Time)>,
    /// Calls that stand in a provider's queue.
    waits: Vec<(CallKey, SpawnHandle)>,
}

/// Something happened. Answered once it is durable.
#[derive(Message)]
#[rtype(result = "Result<Told, TellError>")]
pub struct Happened {
    pub event: Event,
    /// The owner's wish is checked and may be refused; our own events never are.
    pub by: Option<UserId>,
    /// The callback that brought it, to be kept in the same commit (CB-2).
    pub inbox: Option<InboxRow>,
}

/// The song after the event.
#[derive(Clone, Debug)]
pub struct Told {
    pub song: Arc<Song>,
    pub changed: bool,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TellError {
    /// There is none, or it is somebody else's.
    #[error("no such song")]
    NotFound,
    #[error("refused: {0:?}")]
    Refused(Refusal),
    #[error("costs {required}, there are {available}")]
    Short { required: Credits, available: Credits },
    /// Not known to be durable: try again later.
    #[error("the song cannot be changed now")]
    Unavailable,
    /// Another node writes this song.
    #[error("the song is another node's")]
    Elsewhere,
}

impl SongActor {
    pub fn new(
        song: Song,
        version: i64,
        places: Places,
        beginning: Option<Beginning>,
        world: Arc<World>,
        directory: Addr<Directory>,
    ) -> Self {
        // Before any submission: what finished while nobody listened is asked for once (OPS-3).
        let polled = Time::from_millis(0);
        Self {
            song: Arc::new(song),
            version,
            world,
            directory,
            timer: None,
            places,
            beginning,
            polled,
            busy: Vec::new(),
            held_back: Vec::new(),
            waits: Vec::new(),
        }
    }

    fn member(&self, call: CallKey) -> Option<&Member> {
        self.world.providers.member(self.song.provider_of(call.task))
    }

    /// Looks at what the song needs next: does it, or sets the timer for it, or rests.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let now = self.world.clock.now();
        match self.next() {
            Some((at, what)) if at <= now => self.perform(what, ctx),
            next => {
                // It waits, for whatever it is: others may begin.
                self.beginning = None;
                let crowd = self.world.awake.load(Relaxed) > CROWD;
                let linger = if crowd || next.is_none() { LINGER_BRIEFLY } else { LINGER };
                let left = next.map_or(linger, |(at, _)| at.since(now));
                let rest = next.is_none() || left > linger;
                // Rounded up: a timer that fires early would find nothing due.
                let wait = left.min(linger) + Duration::from_millis(1);
                let timer = ctx.run_later(wait, move |actor, ctx| {
                    actor.timer = None;
                    if rest { actor.rest(ctx) } else { actor.arm(ctx) }
                });
                self.timer = Some(timer);
            }
        }
    }

    /// What is due next, of all that is not under way. A poll that is held back comes when it may, and nothing waits for it.
    fn next(&self) -> Option<(Time, Due)> {
        let all = due::all(&self.song, self.polled, &self.world.rules).into_iter();
        let may = |(at, what): (Time, Due)| match what {
            Due::Poll(call) => (self.held_until(call).map_or(at, |until| at.max(until)), what),
            Due::Submit(_) | Due::Wake => (at, what),
        };
        all.filter(|(_, what)| !self.busy.contains(what)).map(may).min_by_key(due::in_order)
    }

    fn held_until(&self, call: CallKey) -> Option<Time> {
        self.held_back.iter().find(|(held, _)| *held == call).map(|(_, until)| *until)
    }

    /// Gives the actor up until something is due or asked.
    fn rest(&mut self, ctx: &mut Context<Self>) {
        if !self.busy.is_empty() {
            return self.arm_later(LINGER, ctx);
        }
        let due = self.next().map(|(at, _)| at);
        self.directory.do_send(Rest {
            song: self.song.id,
            due,
            places: std::mem::take(&mut self.places),
            actor: Some(ctx.address()),
        });
        ctx.stop();
    }

    fn arm_later(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        self.timer = Some(ctx.run_later(wait, |actor, ctx| {
            actor.timer = None;
            actor.arm(ctx);
        }));
    }

    fn perform(&mut self, what: Due, ctx: &mut Context<Self>) {
        match what {
            Due::Submit(call) => self.seek_slot(call, ctx),
            Due::Poll(call) => self.poll(call, ctx),
            Due::Wake => match self.last_chance() {
                Some(call) => self.ask(call, ctx),
                None => ctx.notify(Happened { event: Event::Wake, by: None, inbox: None }),
            },
        }
    }

    // --- submitting ---

    /// Gets what a submission needs: one of the owner's seats, then a place at the provider.
    fn seek_slot(&mut self, call: CallKey, ctx: &mut Context<Self>) {
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
        self.wait_in(stand_in_queue(call, gate, place, ctx.address()), call, ctx);
    }

    fn ask_for_seat(&self) -> Pin<Box<dyn Future<Output = Seat>>> {
        let plan = self.song.wish.plan.as_deref().and_then(Plan::parse).unwrap_or(Plan::Free);
        let limit = self.world.plans.of(plan).concurrent;
        let (world, user) = (self.world.clone(), self.song.user.clone());
        let (song, since) = (self.song.id, self.song.created_at);
        Box::pin(async move { world.seats.seat(&user, limit, song, since).await })
    }

    /// What is made beside a finished song is not one of the songs at once.
    fn needs_seat(&self, call: CallKey) -> bool {
        call.task == self.song.head.task && !self.places.has_seat()
    }

    fn wait_in(&mut self, queue: impl Future<Output = ()> + 'static, call: CallKey, ctx: &mut Context<Self>) {
        let waiting = ctx.spawn(queue.into_actor(self));
        self.waits.push((call, waiting));
        // Maybe for long: nothing else that is due must wait for it.
        self.arm(ctx);
    }

    fn asker(&self, ctx: &mut Context<Self>) -> Asker {
        Asker {
            me: ctx.address(),
            world: self.world.clone(),
            user: self.song.user.clone(),
            song: self.song.id,
        }
    }

    /// Leaves the queues for what is not to be submitted any more.
    fn leave_queues(&mut self, ctx: &mut Context<Self>) {
        if self.busy.is_empty() && self.waits.is_empty() {
            return;
        }
        let all = due::all(&self.song, self.polled, &self.world.rules);
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

    /// What the event means. Where the song goes on elsewhere, that is at whoever can take it soonest by now: who was next
    /// when it was ordered may want to be left alone (PROV-12).
    fn decide(&self, event: &Event, now: Time) -> Step {
        let rules = &self.world.rules;
        let next = step(&self.song, event, now, rules);
        let stays = next.song.wish.provider == self.song.wish.provider;
        if stays || self.song.wish.alternatives.len() < 2 {
            return next;
        }
        let cost = |able: &Capabilities| {
            let one = self.song.wish.alternatives.iter().find(|one| one.provider == able.name)?;
            Some(able.cost_usd_milli.saturating_mul(u32::from(one.calls.music)))
        };
        let order = self.world.providers.ranked(self.song.head.kind, cost);
        let names: Vec<&str> = order.iter().map(|member| member.provider.capabilities().name).collect();
        step(&self.song.preferring(&names), event, now, rules)
    }

    /// What a callback told of a failure, in the light of what was ordered, which its reader did not know (PROV-8).
    fn judged(&self, event: Event) -> Event {
        let Event::News { call, provider_task, news: News::Failed(failure) } = event else { return event };
        let failure = match self.member(call) {
            Some(member) => member.provider.judge(&self.song.order(call), failure),
            None => failure,
        };
        Event::News { call, provider_task, news: News::Failed(failure) }
    }

    /// The configuration no longer has the provider that this song was given to.
    fn no_provider(&mut self, call: CallKey, ctx: &mut Context<Self>) {
        let failure = Failure::new(Class::ProviderError, "the provider is not configured").operator();
        ctx.notify(Happened { event: Event::SubmitFailed { call, failure }, by: None, inbox: None });
    }

    /// Makes the call whose intent is durable, unless it is too late for it (PROV-5).
    fn submit(&mut self, key: CallKey, not_after: Time, under_way: UnderWay) {
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

    // --- asking ---

    fn poll(&mut self, call: CallKey, ctx: &mut Context<Self>) {
        let now = self.world.clock.now();
        let Some(member) = self.member(call) else { return self.hold_back(call, now + LINGER, ctx) };
        let all = due::all(&self.song, self.polled, &self.world.rules);
        let due = all.iter().find(|(_, what)| *what == Due::Poll(call)).map_or(now, |(at, _)| *at);
        match member.gate.try_poll_slot(now.since(due)) {
            Ok(()) => self.ask(call, ctx),
            Err(wait) => self.hold_back(call, now + wait.max(Duration::from_millis(50)), ctx),
        }
    }

    fn hold_back(&mut self, call: CallKey, until: Time, ctx: &mut Context<Self>) {
        self.held_back.retain(|(held, _)| *held != call);
        self.held_back.push((call, until));
        self.arm(ctx);
    }

    /// A call that is to be given up, and has not been asked about for the provider's limits: once it is, whatever they
    /// are. What is finished there must not be lost for them (PROV-7).
    fn last_chance(&self) -> Option<CallKey> {
        let now = self.world.clock.now();
        let over = |call: &CallKey| due::is_over(&self.song, *call, now, &self.world.rules);
        self.held_back.iter().map(|(call, _)| *call).find(over)
    }

    fn ask(&mut self, call: CallKey, ctx: &mut Context<Self>) {
        self.held_back.retain(|(held, _)| *held != call);
        let Some(task) = provider_task(self.song.run_of(call.task), call) else { return self.arm(ctx) };
        let Some(member) = self.member(call).cloned() else { return self.arm(ctx) };
        self.busy.push(Due::Poll(call));
        let order = self.song.order(call);
        let (provider, gate, me) = (member.provider, member.gate, ctx.address());
        actix::spawn(async move {
            let begun = gate.begin(Call::Poll);
            let answer = provider.poll(&order, &task).await;
            gate.report(begun, Outcome::of(&answer));
            me.do_send(Polled { call, answer });
        });
    }

    // --- keeping ---

    fn adopt(&mut self, step: Step, mut under_way: Option<UnderWay>, ctx: &mut Context<Self>) {
        if resends(&step.song) > resends(&self.song) {
            metrics::counter!("songflight_possible_duplicates_total").increment(1);
        }
        self.tell_health(&step.song);
        let changed_hands = self.song.user != step.song.user;
        self.song = Arc::new(step.song);
        self.version += 1;
        self.leave_queues(ctx);
        self.free_places();
        if changed_hands {
            self.change_owner(ctx);
        }
        for act in &step.acts {
            match act {
                Act::Submit(key) => {
                    self.busy.retain(|due| *due != Due::Submit(*key));
                    self.polled = self.world.clock.now();
                    if let Some(not_after) = not_after(&self.song, *key)
                        && !planted(Mutant::CallBeforeRecord)
                    {
                        let under_way = under_way.take().unwrap_or_else(|| UnderWay::begin(&self.world));
                        self.submit(*key, not_after, under_way);
                    }
                }
            }
        }
        self.arm(ctx);
    }

    /// It takes one of its new owner's seats, and stands in queues under their plan (CRED-7).
    fn change_owner(&mut self, ctx: &mut Context<Self>) {
        self.places.change_owner(&self.song, &self.world.seats);
        for (call, waiting) in std::mem::take(&mut self.waits) {
            ctx.cancel_future(waiting);
            self.busy.retain(|due| *due != Due::Submit(call));
        }
    }

    /// What ended with this step is remembered as the provider's history (PROV-12): its own successes and failures.
    fn tell_health(&self, after: &Song) {
        for (task, _) in self.song.runs() {
            let provider = self.song.provider_of(task);
            let Some(ok) = how_it_went(&self.song, after, task) else { continue };
            let Some(member) = self.world.providers.member(provider) else { continue };
            let started = self.song.progress_of(task).and_then(|progress| progress.started_at);
            let took = started.map_or(Duration::ZERO, |at| self.world.clock.now().since(at));
            member.health.ended(self.song.kind_of(task), took, ok);
        }
    }

    /// What is in memory may not be what is stored: stop; whoever needs the song loads it again.
    fn lost(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        let again = self.song.runs().next().map(|_| self.world.clock.now() + pause);
        let places = std::mem::take(&mut self.places);
        self.directory.do_send(Rest { song: self.song.id, due: again, places, actor: Some(ctx.address()) });
        ctx.stop();
    }

    /// The slot that was waited for is not needed after all.
    fn place_not_used(&mut self, call: CallKey) {
        self.busy.retain(|due| *due != Due::Submit(call));
        self.free_places();
    }

    /// Without the lease nothing may be sent; it comes back with the database (`durability.md` section 5).
    fn may_not_send(&mut self, call: CallKey, ctx: &mut Context<Self>) {
        self.place_not_used(call);
        self.arm_later(Duration::from_secs(1), ctx);
    }

    fn free_places(&mut self) {
        let submitting = |due: &Due| match due {
            Due::Submit(call) => Some(*call),
            Due::Poll(_) | Due::Wake => None,
        };
        let soon: Vec<CallKey> = self.busy.iter().filter_map(submitting).collect();
        self.places.keep_needed(&self.song, &soon);
    }

    fn told(&self, changed: bool) -> Told {
        Told { song: self.song.clone(), changed }
    }

    fn refused(&self, event: &Event, by: Option<&UserId>, now: Time) -> Option<TellError> {
        let owner = by?;
        if *owner != self.song.user {
            return Some(TellError::NotFound);
        }
        refusal::check(&self.song, event, now, &self.world.rules).err().map(|refusal| match refusal {
            Refusal::Gone => TellError::NotFound,
            other => TellError::Refused(other),
        })
    }
}

impl Actor for SongActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Room for a burst of callbacks; who finds it full waits.
        ctx.set_mailbox_capacity(32);
        if self.places.is_empty() {
            self.places = Places::adopted(&self.song, &self.world.providers, &self.world.seats);
        }
        self.arm(ctx);
    }
}

impl Handler<Happened> for SongActor {
    type Result = AtomicResponse<Self, Result<Told, TellError>>;

    /// Decides, commits, then acts: nothing is shown that is not durable (RT-1). The next message waits.
    fn handle(&mut self, Happened { event, by, inbox }: Happened, _: &mut Context<Self>) -> Self::Result {
        let event = self.judged(event);
        let submitting = event.call().filter(|_| matches!(event, Event::Submitting { .. }));
        let now = self.world.clock.now();
        if let Some(error) = self.refused(&event, by.as_ref(), now) {
            return AtomicResponse::new(Box::pin(std::future::ready(Err(error)).into_actor(self)));
        }
        let under_way = submitting.and_then(|_| UnderWay::begin_unless_leaving(&self.world));
        if let (Some(call), None) = (submitting, &under_way) {
            return AtomicResponse::new(Box::pin(std::future::ready(()).into_actor(self).map(
                move |(), actor, ctx| {
                    actor.may_not_send(call, ctx);
                    Err(TellError::Unavailable)
                },
            )));
        }
        let next = self.decide(&event, now);
        if planted(Mutant::CallBeforeRecord) {
            for Act::Submit(key) in &next.acts {
                self.submit(*key, not_after(&next.song, *key).unwrap_or(now), UnderWay::begin(&self.world));
            }
        }
        let nothing = next.is_nothing(&self.song);
        let entry = match (nothing, inbox) {
            (true, None) => {
                if let Some(call) = submitting {
                    self.place_not_used(call);
                }
                let told = self.told(false);
                return AtomicResponse::new(Box::pin(std::future::ready(Ok(told)).into_actor(self).map(
                    |told, actor, ctx| {
                        actor.arm(ctx);
                        told
                    },
                )));
            }
            (true, Some(inbox)) => Entry::Callback(InboxRow { outcome: "nothing new", ..inbox }),
            (false, _) if next.song.user != self.song.user => {
                Entry::Claim(Box::new(Claim::new(&self.song, self.version, &next.song, &self.world.rules)))
            }
            (false, inbox) => {
                let row = StepRow::new(&self.song, self.version, &next, &self.world.rules, now);
                Entry::Step(Box::new(row), inbox)
            }
        };
        let journal = self.world.journal.clone();
        let asked_for = by.is_some();
        let commit = async move {
            if asked_for { journal.commit(entry).await } else { journal.commit_in_line(entry).await }
        };
        AtomicResponse::new(Box::pin(commit.into_actor(self).map(
            move |committed, actor, ctx| match committed {
                Ok(Committed::Moved) => {
                    actor.adopt(next, under_way, ctx);
                    Ok(actor.told(true))
                }
                Ok(Committed::Kept) => Ok(actor.told(false)),
                Ok(Committed::Short { required, available }) => Err(TellError::Short { required, available }),
                Err(CommitError::Busy) => {
                    // Nothing was written: the song in memory is still the song, and what it was to submit
                    // still is to be submitted.
                    if let Some(call) = submitting {
                        actor.place_not_used(call);
                    }
                    actor.arm_later(Duration::from_millis(200), ctx);
                    Err(TellError::Unavailable)
                }
                // A row that does not go in would not go in a second later either.
                Err(CommitError::Refused(_)) => {
                    actor.lost(REFUSED_PAUSE, ctx);
                    Err(TellError::Unavailable)
                }
                Ok(_) | Err(_) => {
                    actor.lost(Duration::from_secs(1), ctx);
                    Err(TellError::Unavailable)
                }
            },
        )))
    }
}

/// Begin anew from what is stored: it should have moved and does not (OPS-2).
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Afresh;

impl Handler<Afresh> for SongActor {
    type Result = ();

    fn handle(&mut self, _: Afresh, ctx: &mut Context<Self>) {
        self.lost(Duration::ZERO, ctx);
    }
}

/// The provider has room for this call.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SlotHeld {
    pub(super) call: CallKey,
    /// `None` where the song already has its place.
    pub(super) slot: Option<TaskSlot>,
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
        let lasts =
            able.and_then(|able| able.submit_timeout).unwrap_or_default().max(self.world.call_timeout);
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
pub(super) struct SeatHeld {
    pub(super) call: CallKey,
    pub(super) seat: Seat,
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

/// What a poll brought.
#[derive(Message)]
#[rtype(result = "()")]
struct Polled {
    call: CallKey,
    answer: Result<News, Failure>,
}

impl Handler<Polled> for SongActor {
    type Result = ();

    fn handle(&mut self, Polled { call, answer }: Polled, ctx: &mut Context<Self>) {
        self.busy.retain(|due| *due != Due::Poll(call));
        self.polled = self.world.clock.now();
        match answer {
            Ok(news) => {
                let news = with_fallback_urls(news, self.member(call));
                let event = Event::News { call, provider_task: None, news };
                ctx.notify(Happened { event, by: None, inbox: None });
            }
            // The question failed; that says nothing of the task.
            Err(failure) => {
                metrics::counter!("songflight_polls_failed_total", "class" => failure.class.as_str())
                    .increment(1);
                if failure.class == Class::RateLimited
                    && let Some(member) = self.member(call)
                {
                    member
                        .gate
                        .pause_polls(failure.retry_after.unwrap_or(self.world.rules.retry.rate_limited));
                }
                tracing::debug!(song.id = %self.song.id, ?failure, "a poll failed");
                self.arm(ctx);
            }
        }
    }
}

/// A url for each clip that may be tried at the deadline (PROV-7).
pub fn with_fallback_urls(mut news: News, member: Option<&Member>) -> News {
    if let (News::Clips(_, clips), Some(member)) = (&mut news, member) {
        for clip in clips {
            clip.fallback_url = clip.clip_id.as_ref().and_then(|id| member.provider.audio_from_clip_id(id));
        }
    }
    news
}

/// Whether the provider delivered what ended with this step; `None` where that says nothing of the provider.
fn how_it_went(before: &Song, after: &Song, task: TaskId) -> Option<bool> {
    if before.provider_of(task) != after.provider_of(task) {
        return Some(false);
    }
    if after.run_of(task).is_some() {
        return None;
    }
    let failure = |failure: &Failure| failure.is_the_providers().then_some(false);
    match (after.addition(task).map(|one| &one.state), &after.phase) {
        (Some(AdditionState::Done(_)), _) | (None, Phase::Ready | Phase::LyricsReady) => Some(true),
        (Some(AdditionState::Failed(told)), _) | (None, Phase::Failed(told)) => failure(told),
        (Some(AdditionState::Running(_)), _)
        | (None, Phase::Lyrics(_) | Phase::Music(_) | Phase::Complete | Phase::Cancelled | Phase::Deleted) => {
            None
        }
    }
}

fn resends(song: &Song) -> usize {
    song.runs().map(|(_, run)| run.possible_duplicates()).sum()
}

fn not_after(song: &Song, key: CallKey) -> Option<Time> {
    match song.run_of(key.task)?.calls.get(usize::from(key.call))?.state {
        CallState::Intent { not_after, .. } => Some(not_after),
        CallState::Accepted { .. }
        | CallState::Submitted { .. }
        | CallState::Unknown { .. }
        | CallState::Done
        | CallState::Failed { .. } => None,
    }
}

fn provider_task(run: Option<&Run>, key: CallKey) -> Option<String> {
    match &run?.calls.get(usize::from(key.call))?.state {
        CallState::Submitted { provider_task, .. } => Some(provider_task.clone()),
        CallState::Accepted { .. }
        | CallState::Intent { .. }
        | CallState::Unknown { .. }
        | CallState::Done
        | CallState::Failed { .. } => None,
    }
}
