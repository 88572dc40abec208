//! The shell around one song in flight: an actor that carries events to [`step`], steps to the journal,
//! and acts to the provider, always in the order *decide, commit, act*.
//!
//! Deliberately absent: any `if` about what an event means (`song::step`), any SQL (`store`). A song with
//! nothing due soon has no actor: the directory keeps its time and wakes it again.

mod history;
mod polling;
mod submitting;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, AtomicResponse, Context, Handler, Message,
    ResponseActFuture, SpawnHandle, WrapFuture,
};

pub use self::polling::with_fallback_urls;
pub(super) use self::submitting::{SeatHeld, SlotHeld};
use super::directory::{Directory, Rest};
use super::due::{self, Due, NEVER};
use super::event::Event;
use super::parts::News;
use super::phase::{CallState, Rules, Song};
use super::places::Places;
use super::refusal::{self, Refusal};
use super::step::{Act, Step, step_ranked};
use super::submission::{Beginning, UnderWay};
use crate::cluster::Lease;
use crate::credit::Credits;
use crate::credit::plan::Plans;
use crate::credit::seats::Seats;
use crate::id::{CallKey, UserId};
use crate::mutant::{Mutant, planted};
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

impl World {
    /// How long one submit call of this provider may last.
    pub(super) fn call_lasts(&self, able: &Capabilities) -> Duration {
        able.submit_timeout.unwrap_or_default().max(self.call_timeout)
    }

    /// The longest that one may last, whoever is called.
    pub fn longest_call(&self) -> Duration {
        let each = self.providers.members().map(|member| self.call_lasts(member.provider.capabilities()));
        each.fold(self.call_timeout, Duration::max)
    }
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
    /// When this actor last asked about a call.
    polled: Vec<(CallKey, Time)>,
    /// Of calls it has not asked about, until when the actor before it made all polls that were due ([`Rest`]).
    asked_until: Time,
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

/// To be waited for before the next message.
type Answer = ResponseActFuture<SongActor, Result<Told, TellError>>;

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
        asked_until: Time,
        beginning: Option<Beginning>,
        world: Arc<World>,
        directory: Addr<Directory>,
    ) -> Self {
        Self {
            song: Arc::new(song),
            version,
            world,
            directory,
            timer: None,
            places,
            beginning,
            polled: Vec::new(),
            asked_until,
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
        let all = self.all_due().into_iter();
        let may = |(at, what): (Time, Due)| match what {
            Due::Poll(call) => (self.held_until(call).map_or(at, |until| at.max(until)), what),
            Due::Submit(_) | Due::Wake => (at, what),
        };
        all.filter(|(_, what)| !self.busy.contains(what)).map(may).min_by_key(due::in_order)
    }

    /// Gives the actor up until something is due or asked.
    fn rest(&mut self, ctx: &mut Context<Self>) {
        if !self.busy.is_empty() {
            return self.arm_later(LINGER, ctx);
        }
        let due = self.next().map(|(at, _)| at);
        let now = self.world.clock.now();
        // But for what is held back, and what fell due because this timer was late.
        let all_asked = self.held_back.is_empty() && due.is_none_or(|due| due > now);
        let asked_until = if all_asked { now } else { NEVER };
        self.directory.do_send(Rest {
            song: self.song.id,
            due,
            asked_until,
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
                // It arms, whatever it brings.
                None if self.last_answer_comes() => self.arm_later(LINGER, ctx),
                None => ctx.notify(Happened { event: Event::Wake, by: None, inbox: None }),
            },
        }
    }

    /// What the event means; where to go on elsewhere is asked of the providers as they are now.
    fn decide(&self, event: &Event, now: Time) -> Step {
        step_ranked(&self.song, event, now, &self.world.rules, || {
            let others = &self.song.wish.alternatives;
            let cost = |able: &Capabilities| {
                let one = others.iter().find(|one| one.provider == able.name)?;
                Some(able.cost_usd_milli.saturating_mul(u32::from(one.calls.music)))
            };
            let order = self.world.providers.ranked(self.song.head.kind, cost);
            order.iter().map(|member| member.provider.capabilities().name).collect()
        })
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
            let Some(ok) = history::how_it_went(&self.song, after, task) else { continue };
            let Some(member) = self.world.providers.member(provider) else { continue };
            let took = history::at_work_since(&self.song, task)
                .map_or(Duration::ZERO, |at| self.world.clock.now().since(at));
            member.health.ended(self.song.kind_of(task), took, ok);
        }
    }

    /// What is in memory may not be what is stored: stop; whoever needs the song loads it again.
    fn lost(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        let again = self.song.runs().next().map(|_| self.world.clock.now() + pause);
        let places = std::mem::take(&mut self.places);
        self.directory.do_send(Rest {
            song: self.song.id,
            due: again,
            asked_until: NEVER,
            places,
            actor: Some(ctx.address()),
        });
        ctx.stop();
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
    fn handle(&mut self, happened: Happened, _: &mut Context<Self>) -> Self::Result {
        AtomicResponse::new(self.happen(happened))
    }
}

/// What waits for its commit.
struct Decided {
    next: Step,
    /// The call whose intent it is.
    submitting: Option<CallKey>,
    under_way: Option<UnderWay>,
}

impl SongActor {
    fn happen(&mut self, Happened { event, by, inbox }: Happened) -> Answer {
        let event = self.judged(event);
        let submitting = event.call().filter(|_| matches!(event, Event::Submitting { .. }));
        let now = self.world.clock.now();
        if let Some(error) = self.refused(&event, by.as_ref(), now) {
            return self.at_once(|_, _| Err(error));
        }
        let under_way = submitting.and_then(|_| UnderWay::begin_unless_leaving(&self.world));
        if let (Some(call), None) = (submitting, &under_way) {
            return self.at_once(move |actor, ctx| {
                actor.may_not_send(call, ctx);
                Err(TellError::Unavailable)
            });
        }
        let next = self.decide(&event, now);
        if planted(Mutant::CallBeforeRecord) {
            for Act::Submit(key) in &next.acts {
                self.submit(*key, not_after(&next.song, *key).unwrap_or(now), UnderWay::begin(&self.world));
            }
        }
        let Some(entry) = self.entry(&next, inbox, now) else {
            return self.at_once(move |actor, ctx| {
                submitting.into_iter().for_each(|call| actor.place_not_used(call));
                actor.arm(ctx);
                Ok(actor.told(false))
            });
        };
        let (journal, asked_for) = (self.world.journal.clone(), by.is_some());
        let commit = async move {
            if asked_for { journal.commit(entry).await } else { journal.commit_in_line(entry).await }
        };
        let decided = Decided { next, submitting, under_way };
        Box::pin(
            commit.into_actor(self).map(|committed, actor, ctx| actor.committed(committed, decided, ctx)),
        )
    }

    /// An answer without a commit.
    fn at_once(
        &self,
        answer: impl FnOnce(&mut Self, &mut Context<Self>) -> Result<Told, TellError> + 'static,
    ) -> Answer {
        let answer = std::future::ready(()).into_actor(self).map(|(), actor, ctx| answer(actor, ctx));
        Box::pin(answer)
    }

    /// What is to be written of a step and the callback that brought it; `None` is nothing.
    fn entry(&self, next: &Step, inbox: Option<InboxRow>, now: Time) -> Option<Entry> {
        Some(match (next.is_nothing(&self.song), inbox) {
            (true, None) => return None,
            (true, Some(inbox)) => Entry::Callback(InboxRow { outcome: "nothing new", ..inbox }),
            (false, _) if next.song.user != self.song.user => {
                Entry::Claim(Box::new(Claim::new(&self.song, self.version, &next.song, &self.world.rules)))
            }
            (false, inbox) => {
                let row = StepRow::new(&self.song, self.version, next, &self.world.rules, now);
                Entry::Step(Box::new(row), inbox)
            }
        })
    }

    fn committed(
        &mut self,
        committed: Result<Committed, CommitError>,
        Decided { next, submitting, under_way }: Decided,
        ctx: &mut Context<Self>,
    ) -> Result<Told, TellError> {
        match committed {
            Ok(Committed::Moved) => {
                self.adopt(next, under_way, ctx);
                Ok(self.told(true))
            }
            Ok(Committed::Kept) => Ok(self.told(false)),
            Ok(Committed::Short { required, available }) => Err(TellError::Short { required, available }),
            Err(CommitError::Busy) => {
                // Nothing was written: the song in memory is still the song, and what it was to submit
                // still is to be submitted.
                submitting.into_iter().for_each(|call| self.place_not_used(call));
                self.arm_later(Duration::from_millis(200), ctx);
                Err(TellError::Unavailable)
            }
            // A row that does not go in would not go in a second later either.
            Err(CommitError::Refused(_)) => {
                // Nobody else need wait for what is not submitted.
                submitting.into_iter().for_each(|call| self.place_not_used(call));
                self.lost(REFUSED_PAUSE, ctx);
                Err(TellError::Unavailable)
            }
            Ok(_) | Err(_) => {
                self.lost(Duration::from_secs(1), ctx);
                Err(TellError::Unavailable)
            }
        }
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
