//! Who keeps which song: one directory on each arbiter, songs spread over them by id. It finds the actor of
//! a song that runs, wakes one that rests, and holds the time at which a resting song is due.
//!
//! Not here: anything about what a song is or does.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, Addr, ArbiterHandle, AsyncContext, Context, Handler, Message, ResponseFuture,
    SpawnHandle, WrapFuture,
};
use tokio::sync::oneshot;

use super::actor::{Afresh, Happened, SongActor, TellError, Told, World};
use super::due::NEVER;
use super::event::Event;
use super::phase::Song;
use super::places::Places;
use super::submission::Beginning;
use crate::id::{SongId, UserId};
use crate::store::StoreError;
use crate::store::row::InboxRow;
use crate::store::songs::{Loaded, Stored};
use crate::time::Time;

pub struct Directory {
    world: Arc<World>,
    awake: HashMap<SongId, Addr<SongActor>>,
    /// Songs that are being loaded, and who waits for them.
    waking: HashMap<SongId, Vec<Waiter>>,
    /// Those of them that nobody has begun to load yet, and how many loads are under way.
    to_load: VecDeque<SongId>,
    loads: usize,
    /// Songs that rest until a time, with their place at the provider.
    asleep: HashMap<SongId, Sleep>,
    resting: metrics::Gauge,
    wheel: BTreeSet<(Time, SongId)>,
    timer: Option<(Time, SpawnHandle)>,
}

/// Somebody who asked for a song that is being loaded.
type Waiter = oneshot::Sender<Result<Addr<SongActor>, TellError>>;

struct Sleep {
    due: Time,
    /// See [`Rest::asked_until`].
    asked_until: Time,
    places: Places,
}

/// Songs that are woken, and loaded, in one go; the rest follow at once after.
const WAKE_AT_ONCE: usize = 256;
/// Loads that one directory has under way.
const LOADS_AT_ONCE: usize = 2;

/// Questions that may wait for one directory.
const MAILBOX: usize = 4096;

/// The directories of all arbiters.
#[derive(Clone)]
pub struct Directories {
    each: Arc<[Addr<Directory>]>,
}

impl Directories {
    pub fn start(world: &Arc<World>, arbiters: &[ArbiterHandle]) -> Self {
        let each = arbiters
            .iter()
            .map(|arbiter| {
                let world = world.clone();
                Directory::start_in_arbiter(arbiter, move |ctx| {
                    ctx.set_mailbox_capacity(MAILBOX);
                    Directory::new(world)
                })
            })
            .collect();
        Self { each }
    }

    /// A single one, on the thread that asks for it.
    pub fn here(world: &Arc<World>) -> Self {
        let directory = Directory::create(|ctx| {
            ctx.set_mailbox_capacity(MAILBOX);
            Directory::new(world.clone())
        });
        Self { each: Arc::new([directory]) }
    }

    /// Whether one has stumbled over a fault of ours: it does not come back, and its songs stand still.
    pub fn have_fallen(&self) -> bool {
        !self.each.iter().all(Addr::connected)
    }

    /// The one that keeps this song.
    pub fn of(&self, song: SongId) -> &Addr<Directory> {
        &self.each[self.place(song)]
    }

    fn place(&self, song: SongId) -> usize {
        let spread = song.0.as_u64_pair().1.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        usize::try_from(spread).unwrap_or(0) % self.each.len()
    }

    /// Those of these songs that nobody looks after.
    pub async fn unknown(&self, songs: Vec<SongId>) -> Vec<SongId> {
        let mut shares: Vec<Vec<SongId>> = vec![Vec::new(); self.each.len()];
        for song in songs {
            shares[self.place(song)].push(song);
        }
        let asked = self.each.iter().zip(shares).map(|(directory, songs)| directory.send(Unknown { songs }));
        futures_util::future::join_all(asked).await.into_iter().flatten().flatten().collect()
    }

    /// Has a song's actor begin anew from what is stored.
    ///
    /// # Errors
    /// See [`TellError`].
    pub async fn begin_anew(&self, song: SongId) -> Result<(), TellError> {
        let found = self.of(song).send(Find { song, by: None }).await;
        found.map_err(|_| TellError::Unavailable)??.do_send(Afresh);
        Ok(())
    }

    /// Tells a song that something happened, and answers once that is durable.
    ///
    /// # Errors
    /// See [`TellError`].
    pub async fn tell(
        &self,
        song: SongId,
        by: Option<UserId>,
        event: Event,
        inbox: Option<InboxRow>,
    ) -> Result<Told, TellError> {
        tell(self.of(song), song, by, event, inbox).await
    }
}

pub(super) async fn tell(
    directory: &Addr<Directory>,
    song: SongId,
    by: Option<UserId>,
    event: Event,
    inbox: Option<InboxRow>,
) -> Result<Told, TellError> {
    // Again: an actor may go to rest between being found and being told. Not without end.
    for _ in 0..3 {
        let found = directory.send(Find { song, by: by.clone() }).await;
        let actor = found.map_err(|_| TellError::Unavailable)??;
        let happened = Happened { event: event.clone(), by: by.clone(), inbox: inbox.clone() };
        if let Ok(answer) = actor.send(happened).await {
            return answer;
        }
    }
    Err(TellError::Unavailable)
}

impl Directory {
    fn new(world: Arc<World>) -> Self {
        Self {
            world,
            awake: HashMap::new(),
            waking: HashMap::new(),
            to_load: VecDeque::new(),
            loads: 0,
            asleep: HashMap::new(),
            resting: metrics::gauge!("songflight_songs_resting"),
            wheel: BTreeSet::new(),
            timer: None,
        }
    }

    fn start_actor(
        &mut self,
        song: Song,
        version: i64,
        beginning: Option<Beginning>,
        ctx: &mut Context<Self>,
    ) -> Addr<SongActor> {
        let id = song.id;
        let (places, asked_until) =
            self.unschedule(id).map_or((Places::default(), NEVER), |sleep| (sleep.places, sleep.asked_until));
        let (world, me) = (self.world.clone(), ctx.address());
        let actor = SongActor::new(song, version, places, asked_until, beginning, world, me).start();
        // One that has stopped may not have said so yet.
        if self.awake.insert(id, actor.clone()).is_none() {
            self.world.awake.fetch_add(1, Relaxed);
            metrics::gauge!("songflight_song_actors").increment(1);
        }
        actor
    }

    /// What an earlier sleep of the song has beyond this one is kept.
    fn schedule(&mut self, song: SongId, mut sleep: Sleep, ctx: &mut Context<Self>) {
        if let Some(kept) = self.unschedule(song) {
            sleep.asked_until = sleep.asked_until.max(kept.asked_until);
            if sleep.places.is_empty() {
                sleep.places = kept.places;
            }
        }
        let due = sleep.due;
        self.asleep.insert(song, sleep);
        self.resting.increment(1);
        self.wheel.insert((due, song));
        self.arm(ctx);
    }

    fn unschedule(&mut self, song: SongId) -> Option<Sleep> {
        let sleep = self.asleep.remove(&song)?;
        self.resting.decrement(1);
        self.wheel.remove(&(sleep.due, song));
        Some(sleep)
    }

    /// One timer for the earliest of all.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let Some((due, _)) = self.wheel.first().copied() else { return };
        if self.timer.as_ref().is_some_and(|(at, _)| *at <= due) {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let wait = due.since(self.world.clock.now());
        let timer = ctx.run_later(wait, |directory, ctx| {
            directory.timer = None;
            directory.wake_due(ctx);
        });
        self.timer = Some((due, timer));
    }

    fn wake_due(&mut self, ctx: &mut Context<Self>) {
        let now = self.world.clock.now();
        let due: Vec<(Time, SongId)> =
            self.wheel.iter().take_while(|(at, _)| *at <= now).take(WAKE_AT_ONCE).copied().collect();
        for (at, song) in &due {
            self.wheel.remove(&(*at, *song));
        }
        let ids: Vec<SongId> = due
            .iter()
            .map(|(_, song)| *song)
            .filter(|song| !self.awake.get(song).is_some_and(Addr::connected))
            .filter(|song| !self.waking.contains_key(song))
            .collect();
        for id in ids {
            self.waking.insert(id, Vec::new());
            self.to_load.push_back(id);
        }
        self.load(ctx);
        self.arm(ctx);
    }

    /// Loads songs and starts their actors; whoever waits for one of them is answered. Songs that come while others are
    /// being loaded go together: after a crash thousands are asked for at once.
    fn load(&mut self, ctx: &mut Context<Self>) {
        while self.loads < LOADS_AT_ONCE && !self.to_load.is_empty() {
            let many = self.to_load.len().min(WAKE_AT_ONCE);
            let ids: Vec<SongId> = self.to_load.drain(..many).collect();
            let (world, asked) = (self.world.clone(), ids.clone());
            let loading = async move { load(&world, &asked).await };
            self.loads += 1;
            ctx.spawn(loading.into_actor(self).map(move |loaded, directory, ctx| {
                directory.loads -= 1;
                directory.loaded(&ids, loaded, ctx);
                directory.load(ctx);
            }));
        }
    }

    fn loaded(&mut self, ids: &[SongId], loaded: Result<Loaded, StoreError>, ctx: &mut Context<Self>) {
        let again = self.world.clock.now() + Duration::from_secs(2);
        let mut found = match loaded {
            Ok(loaded) => Found::from(loaded),
            Err(error) => {
                tracing::warn!(%error, songs = ids.len(), "songs could not be loaded; trying again");
                for id in ids {
                    self.answer(*id, &Err(TellError::Unavailable));
                    if self.asleep.contains_key(id) {
                        let sleep = Sleep { due: again, asked_until: NEVER, places: Places::default() };
                        self.schedule(*id, sleep, ctx);
                    }
                }
                return;
            }
        };
        for id in ids {
            let answer = self.settle(*id, &mut found, ctx);
            self.answer(*id, &answer);
        }
    }

    fn settle(
        &mut self,
        id: SongId,
        found: &mut Found,
        ctx: &mut Context<Self>,
    ) -> Result<Addr<SongActor>, TellError> {
        if let Some(actor) = self.awake.get(&id).filter(|actor| actor.connected()) {
            return Ok(actor.clone());
        }
        let Some(stored) = found.stored.remove(&id) else {
            self.unschedule(id);
            // One that is there may read again later, by another version for one: what is to be told of it must not be lost.
            let unreadable = found.unreadable.contains(&id);
            return Err(if unreadable { TellError::Unavailable } else { TellError::NotFound });
        };
        let node = self.world.journal.node();
        if !stored.owner.is_some_and(|owner| node.owns(owner)) {
            self.unschedule(id);
            return Err(TellError::Elsewhere);
        }
        Ok(self.start_actor(stored.song, stored.version, None, ctx))
    }

    fn answer(&mut self, id: SongId, answer: &Result<Addr<SongActor>, TellError>) {
        for waiter in self.waking.remove(&id).unwrap_or_default() {
            drop(waiter.send(answer.clone()));
        }
    }
}

/// Songs that were loaded, by their ids.
struct Found {
    stored: HashMap<SongId, Stored>,
    unreadable: Vec<SongId>,
}

impl From<Loaded> for Found {
    fn from(Loaded { stored, unreadable }: Loaded) -> Self {
        Self { stored: stored.into_iter().map(|stored| (stored.song.id, stored)).collect(), unreadable }
    }
}

/// Loads songs for their actors; takes those that no living node owns.
async fn load(world: &World, ids: &[SongId]) -> Result<Loaded, StoreError> {
    let (node, database) = (world.journal.node(), &world.database);
    let mut loaded = database.load(ids).await?;
    for one in &mut loaded.stored {
        let owned = one.owner.is_some_and(|owner| node.owns(owner));
        if !owned && database.claim(node, one.song.id).await? {
            // Between reading and claiming the former owner may have written: read again.
            if let Some(fresh) = database.load(&[one.song.id]).await?.stored.pop() {
                *one = fresh;
            }
        }
    }
    Ok(loaded)
}

async fn allowed(world: &World, song: SongId, by: &UserId) -> Result<(), TellError> {
    match world.database.is_own(song, by).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(TellError::NotFound),
        Err(error) => {
            tracing::warn!(song.id = %song, %error, "a song could not be looked up");
            Err(TellError::Unavailable)
        }
    }
}

impl Actor for Directory {
    type Context = Context<Self>;
}

/// The actor of a song, woken if need be.
#[derive(Message)]
#[rtype(result = "Result<Addr<SongActor>, TellError>")]
struct Find {
    song: SongId,
    /// Whose song it must be, to be worth waking for.
    by: Option<UserId>,
}

impl Handler<Find> for Directory {
    type Result = ResponseFuture<Result<Addr<SongActor>, TellError>>;

    fn handle(&mut self, Find { song, by }: Find, ctx: &mut Context<Self>) -> Self::Result {
        if let Some(actor) = self.awake.get(&song).filter(|actor| actor.connected()) {
            return Box::pin(std::future::ready(Ok(actor.clone())));
        }
        if let Some(by) = by {
            // Other people's songs are not even woken (SEC-3); nor does who asks for one make others wait.
            let (world, me) = (self.world.clone(), ctx.address());
            return Box::pin(async move {
                allowed(&world, song, &by).await?;
                me.send(Find { song, by: None }).await.unwrap_or(Err(TellError::Unavailable))
            });
        }
        let (answer, heard) = oneshot::channel();
        match self.waking.get_mut(&song) {
            Some(waiters) => waiters.push(answer),
            None => {
                self.waking.insert(song, vec![answer]);
                self.to_load.push_back(song);
                self.load(ctx);
            }
        }
        Box::pin(async move { heard.await.unwrap_or(Err(TellError::Unavailable)) })
    }
}

/// Which of these songs have neither an actor nor a time to be woken at.
#[derive(Message)]
#[rtype(result = "Vec<SongId>")]
struct Unknown {
    songs: Vec<SongId>,
}

impl Handler<Unknown> for Directory {
    type Result = Vec<SongId>;

    fn handle(&mut self, Unknown { songs }: Unknown, _: &mut Context<Self>) -> Self::Result {
        let awake = |song: &SongId| self.awake.get(song).is_some_and(Addr::connected);
        let known =
            |song: &SongId| awake(song) || self.waking.contains_key(song) || self.asleep.contains_key(song);
        songs.into_iter().filter(|song| !known(song)).collect()
    }
}

/// A song that was just created: its actor starts from what is in memory.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Born {
    pub song: Box<Song>,
    pub beginning: Option<Beginning>,
}

impl Handler<Born> for Directory {
    type Result = ();

    fn handle(&mut self, Born { song, beginning }: Born, ctx: &mut Context<Self>) {
        if !self.awake.contains_key(&song.id) && !self.waking.contains_key(&song.id) {
            self.start_actor(*song, 1, beginning, ctx);
        }
    }
}

/// A song needs no actor before `due`. Sent by its actor that stops, and by the recovery for songs that
/// were taken over.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Rest {
    pub song: SongId,
    pub due: Option<Time>,
    /// Polls that were due until then have been made. [`NEVER`] where this process has not asked: then each call is asked
    /// about once, first of all (OPS-3).
    pub asked_until: Time,
    pub places: Places,
    pub actor: Option<Addr<SongActor>>,
}

impl Handler<Rest> for Directory {
    type Result = ();

    fn handle(&mut self, Rest { song, due, asked_until, places, actor }: Rest, ctx: &mut Context<Self>) {
        if actor.is_some() && self.awake.get(&song) == actor.as_ref() {
            self.awake.remove(&song);
            self.world.awake.fetch_sub(1, Relaxed);
            metrics::gauge!("songflight_song_actors").decrement(1);
        }
        if self.awake.get(&song).is_some_and(Addr::connected) {
            return;
        }
        if let Some(due) = due {
            self.schedule(song, Sleep { due, asked_until, places }, ctx);
        }
    }
}
