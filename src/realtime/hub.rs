//! Where events meet their watchers: one actor per arbiter, users spread over them by shard.
//!
//! A hub trusts nothing that it is told to be complete: a user's events are counted without a hole, so
//! whoever tells it of one too many (or the head check) makes it read the rest from Postgres
//! (`protocol.md` 1.2). It never waits for a connection: it pushes into outboxes and goes on.
//!
//! Not here: how a subscription begins (`beginning`) and with what (`resume`), how frames wait (`outbox`).

mod beginning;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use metrics::counter;
use tokio::sync::Semaphore;
use tracing::warn;

use super::Settings;
use super::connection::Connection;
use super::frames::{self, Channel, Refusal};
use super::outbox::{LaneId, Pushed};
use super::resume;
use crate::chance;
use crate::id::{ShareToken, SongId, UserId};
use crate::song::event::EventKind;
use crate::store::feed::{Feed, Head, Page, Snapshot};
use crate::store::{SongChanged, StoreError};
use crate::time::Clock;

/// How often hubs look for who left and what is due.
const SWEEP: Duration = Duration::from_secs(5);
const MOVED: &str = "another owner's now; subscribe again";
/// Events read at once to close a gap.
const GAP_EVENTS_MAX: i64 = 500;

pub(super) struct Hub {
    feed: Arc<dyn Feed>,
    settings: Arc<Settings>,
    /// Snapshots and replays at once, for the whole node.
    admission: Arc<Semaphore>,
    users: HashMap<UserId, User>,
    clock: Clock,
    next_check: Instant,
    checks: u64,
}

/// A user somebody watches, or watched a moment ago.
#[derive(Default)]
struct User {
    /// Epoch of the log and number of the newest event that went to the watchers; `None` until the first
    /// reading.
    have: Option<(i64, i64)>,
    /// The newest event heard of.
    seen: i64,
    /// The last ones that went out, oldest first and without a hole.
    recent: VecDeque<SongChanged>,
    /// Of their texts.
    recent_bytes: usize,
    channels: HashMap<Channel, Watched>,
    reading: bool,
    idle_since: Option<Instant>,
    /// Links to a song that is gone, and who follows them: they have yet to be told.
    orphans: Vec<Orphan>,
}

/// Who followed a link, and the event with which its song went from this user, with the epoch of their log.
type Orphan = (ShareToken, Watched, SongChanged, i64);

struct Watched {
    name: Arc<str>,
    /// Which song a share link shows.
    song: Option<SongId>,
    watchers: Vec<Watcher>,
}

struct Watcher {
    connection: Arc<Connection>,
    lane: LaneId,
}

/// Begins a subscription whose lane is open already. Answered when its frames, or why there are none, are in the outbox.
#[derive(Message)]
#[rtype(result = "Begun")]
pub(super) struct Subscribe {
    pub(super) connection: Arc<Connection>,
    pub(super) lane: LaneId,
    /// What the command was called.
    pub(super) id: Option<u64>,
    pub(super) channel: Channel,
    pub(super) name: Arc<str>,
    pub(super) owner: UserId,
    /// Which song a share link shows.
    pub(super) song: Option<SongId>,
    pub(super) since: Option<String>,
}

/// Whether a subscription has begun. One that was taken back or went with its song was no mistake.
pub(super) type Begun = Result<(), Refusal>;

/// A lane was closed, or all of a connection's.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Leave {
    pub(super) connection: u64,
    pub(super) lane: Option<LaneId>,
    pub(super) owner: UserId,
}

impl Hub {
    pub(super) fn new(
        number: usize,
        feed: Arc<dyn Feed>,
        settings: Arc<Settings>,
        admission: Arc<Semaphore>,
        clock: Clock,
    ) -> Self {
        let next_check = clock.monotonic() + settings.head_check.mul_f64(chance::of_number(number as u64, 0));
        Self { feed, settings, admission, users: HashMap::new(), clock, next_check, checks: 0 }
    }

    /// Forgets who left, and users nobody has watched for a while; asks for the heads when it is time.
    fn sweep(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.monotonic();
        let kept = self.settings.hub_kept;
        self.users.retain(|_, user| {
            user.prune();
            if !user.channels.is_empty() {
                user.idle_since = None;
                return true;
            }
            now - *user.idle_since.get_or_insert(now) < kept
        });
        if now >= self.next_check {
            self.checks += 1;
            // Spread by 25 %, so that nodes do not ask in step.
            let pause = self.settings.head_check.mul_f64(0.75 + 0.5 * chance::of_number(self.checks, 1));
            self.next_check = now + pause;
            self.check_heads(ctx);
        }
    }

    fn check_heads(&mut self, ctx: &mut Context<Self>) {
        let have: Vec<(UserId, (i64, i64))> =
            self.users.iter().filter_map(|(id, user)| Some((id.clone(), user.have?))).collect();
        if have.is_empty() {
            return;
        }
        let feed = Arc::clone(&self.feed);
        let heads = async move {
            let ids: Vec<UserId> = have.iter().map(|(id, _)| id.clone()).collect();
            (feed.heads(&ids).await, have)
        };
        ctx.spawn(heads.into_actor(self).map(|(heads, have), hub, ctx| match heads {
            Ok(heads) => hub.compare(&heads, have, ctx),
            Err(error) => warn!(%error, "the heads could not be checked"),
        }));
    }

    /// `have` is from before the reading: what has come since then is no sign of a log gone back.
    fn compare(
        &mut self,
        heads: &HashMap<UserId, Head>,
        have: Vec<(UserId, (i64, i64))>,
        ctx: &mut Context<Self>,
    ) {
        for (id, (epoch, had)) in have {
            let Some(head) = heads.get(&id) else { continue };
            if epoch != head.epoch || head.u < had {
                self.invalidate(&id);
            } else {
                self.heard_of(&id, head.u, ctx);
            }
        }
    }

    /// The log is not the one that was read before: everybody begins anew.
    fn invalidate(&mut self, id: &UserId) {
        let Some(user) = self.users.remove(id) else { return };
        counter!("songflight_realtime_invalidated_total").increment(1);
        for watcher in user.channels.into_values().flat_map(|watched| watched.watchers) {
            watcher.connection.close(4014, "state invalidated");
        }
    }

    /// There are events up to `u`; reads what is missing, unless that is under way.
    fn heard_of(&mut self, id: &UserId, u: i64, ctx: &mut Context<Self>) {
        let Some(user) = self.users.get_mut(id) else { return };
        user.seen = user.seen.max(u);
        let Some((_, have)) = user.have else { return };
        if user.reading || user.seen <= have {
            return;
        }
        user.reading = true;
        counter!("songflight_realtime_gaps_total").increment(1);
        let (feed, id, told) = (Arc::clone(&self.feed), id.clone(), user.seen);
        let read = async move {
            let page = feed.of_user(&id, have, GAP_EVENTS_MAX).await;
            (id, page)
        };
        let close = move |(id, page): (UserId, _), hub: &mut Self, ctx: &mut Context<Self>| {
            hub.close_gap(&id, have, told, page, ctx);
        };
        ctx.spawn(read.into_actor(self).map(close));
    }

    fn close_gap(
        &mut self,
        id: &UserId,
        after: i64,
        told: i64,
        page: Result<Page, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        let Some(user) = self.users.get_mut(id) else { return };
        user.reading = false;
        let page = match page {
            Ok(page) => page,
            // The next event or the head check asks again.
            Err(error) => return warn!(%error, "a gap in a user's events could not be read"),
        };
        let same_log = user.have.is_some_and(|(epoch, _)| epoch == page.epoch) && page.u >= after;
        let dense = page.events.iter().zip(after + 1..).all(|(event, u)| event.u == u);
        if !same_log || !dense || (page.events.is_empty() && page.u > after) {
            return self.invalidate(id);
        }
        for change in page.events {
            if user.have.is_some_and(|(_, have)| change.u == have + 1) {
                user.deliver(change, &self.settings);
            }
        }
        // Told of what is not there: not to be asked for over and over. What was told since may be.
        if page.u < told && user.seen == told {
            user.seen = page.u;
        }
        let seen = user.seen;
        self.part_with_orphans(id, ctx);
        self.heard_of(id, seen, ctx);
    }

    /// Tells those who follow a link to a song that is gone: that it is, or, where it went to another owner, to subscribe
    /// again (CRED-7).
    fn part_with_orphans(&mut self, id: &UserId, ctx: &mut Context<Self>) {
        let orphans = self.users.get_mut(id).map(|user| std::mem::take(&mut user.orphans));
        for (token, watched, change, epoch) in orphans.unwrap_or_default() {
            let feed = Arc::clone(&self.feed);
            let look = async move { feed.shared(token).await };
            ctx.spawn(look.into_actor(self).map(move |found, _, _| {
                let gone = resume::event(&Channel::Share(token), &watched.name, &change, epoch);
                let again = Refusal::Unavailable { after_ms: 0 };
                let moved = frames::err(None, Some(&watched.name), again, MOVED);
                for Watcher { connection, lane } in watched.watchers {
                    if matches!(found, Ok(None)) {
                        connection.push(lane, &gone);
                        connection.outbox().retire_lane(lane);
                    } else if connection.outbox().close_lane(lane) {
                        connection.say(&moved);
                    }
                }
            }));
        }
    }

    fn leave(&mut self, owner: &UserId, connection: u64, lane: Option<LaneId>) {
        if let Some(user) = self.users.get_mut(owner) {
            user.forget(|watcher| {
                watcher.connection.id() == connection && lane.is_none_or(|lane| watcher.lane == lane)
            });
        }
    }
}

impl User {
    fn watch(&mut self, subscribe: &Subscribe) {
        self.idle_since = None;
        let watched = self.channels.entry(subscribe.channel.clone()).or_insert_with(|| Watched {
            name: Arc::clone(&subscribe.name),
            song: subscribe.song,
            watchers: Vec::new(),
        });
        let connection = Arc::clone(&subscribe.connection);
        watched.watchers.push(Watcher { connection, lane: subscribe.lane });
    }

    /// The lane in which this connection follows all of the user's songs.
    fn me_of(&self, connection: &Connection) -> Option<LaneId> {
        let watchers = self.channels.get(&Channel::Me).map_or(&[][..], |watched| &watched.watchers);
        let mine = watchers.iter().filter(|watcher| watcher.connection.id() == connection.id());
        mine.map(|watcher| watcher.lane).find(|lane| connection.outbox().has_lane(*lane))
    }

    /// Whether more of a song may have gone out than a reading of it has seen.
    fn has_told_more(&self, song: SongId, read: &Snapshot) -> bool {
        let unseen = self.have.map_or(0, |(_, have)| have - read.u);
        // Events further back than these are not remembered: they may have been of this song.
        unseen > i64::try_from(self.recent.len()).unwrap_or(i64::MAX)
            || self.recent.iter().any(|told| told.song == song && told.seq > read.head)
    }

    /// The lanes in which this connection follows single songs, with their channels' names.
    fn songs_of(&self, connection: &Connection) -> Vec<(LaneId, Arc<str>)> {
        let songs = self.channels.iter().filter(|(channel, _)| matches!(channel, Channel::Song(_)));
        let lanes = songs.flat_map(|(_, watched)| {
            let mine = |watcher: &&Watcher| watcher.connection.id() == connection.id();
            watched.watchers.iter().filter(mine).map(|watcher| (watcher.lane, Arc::clone(&watched.name)))
        });
        lanes.collect()
    }

    fn prune(&mut self) {
        self.forget(|watcher| {
            watcher.connection.has_ended() || !watcher.connection.outbox().has_lane(watcher.lane)
        });
    }

    fn forget(&mut self, gone: impl Fn(&Watcher) -> bool) {
        self.channels.retain(|_, watched| {
            watched.watchers.retain(|watcher| !gone(watcher));
            !watched.watchers.is_empty()
        });
    }

    /// The next event, in order.
    fn deliver(&mut self, change: SongChanged, settings: &Settings) {
        let Some((epoch, have)) = &mut self.have else { return };
        *have = change.u;
        let epoch = *epoch;
        self.tell(&Channel::Me, &change, epoch);
        self.tell(&Channel::Song(change.song), &change, epoch);
        let shares: Vec<ShareToken> = self
            .channels
            .iter()
            .filter_map(|(channel, watched)| match channel {
                Channel::Share(token) if watched.song == Some(change.song) => Some(*token),
                Channel::Share(_) | Channel::Me | Channel::Song(_) => None,
            })
            .collect();
        for token in shares {
            match change.kind {
                // Gone from this user; the link may stand where the song went.
                EventKind::Gone => {
                    let watched = self.channels.remove(&Channel::Share(token));
                    self.orphans.extend(watched.map(|watched| (token, watched, change.clone(), epoch)));
                }
                _ => self.tell(&Channel::Share(token), &change, epoch),
            }
        }
        self.recent_bytes += change.set.get().len();
        self.recent.push_back(change);
        while self.recent.len() > settings.recent_events || self.recent_bytes > settings.recent_bytes {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.set.get().len();
        }
    }

    /// Serialised once, for all watchers of the channel.
    fn tell(&mut self, channel: &Channel, change: &SongChanged, epoch: i64) {
        let Some(watched) = self.channels.get_mut(channel) else { return };
        let event = resume::event(channel, &watched.name, change, epoch);
        watched.watchers.retain(|watcher| match watcher.connection.push(watcher.lane, &event) {
            Pushed::Queued | Pushed::Conflated | Pushed::Known => true,
            Pushed::Gone | Pushed::TooSlow => false,
        });
        if event.kind == EventKind::Gone && *channel != Channel::Me {
            // Deleted, or the link was taken back: it was the last that they hear of this song.
            for watcher in std::mem::take(&mut watched.watchers) {
                watcher.connection.outbox().retire_lane(watcher.lane);
            }
        }
        if watched.watchers.is_empty() {
            self.channels.remove(channel);
        }
    }
}

impl Actor for Hub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.settings.hub_mailbox);
        ctx.run_interval(SWEEP.min(self.settings.head_check), Self::sweep);
    }
}

impl Handler<SongChanged> for Hub {
    type Result = ();

    fn handle(&mut self, change: SongChanged, ctx: &mut Self::Context) {
        let Some(user) = self.users.get_mut(&change.user) else { return };
        match user.have {
            Some((_, have)) if change.u <= have => {}
            Some((_, have)) if change.u == have + 1 && !user.reading => {
                user.seen = user.seen.max(change.u);
                let owner = change.user.clone();
                user.deliver(change, &self.settings);
                self.part_with_orphans(&owner, ctx);
            }
            Some(_) | None => self.heard_of(&change.user, change.u, ctx),
        }
    }
}

impl Handler<Leave> for Hub {
    type Result = ();

    fn handle(&mut self, leave: Leave, _: &mut Self::Context) {
        self.leave(&leave.owner, leave.connection, leave.lane);
    }
}
