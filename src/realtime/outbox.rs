//! What waits to be written to one connection: bounded whatever the peer does (RT-4). Pure; whoever
//! pushes or takes holds the lock that is around it.
//!
//! In the order in which it is taken: answers to commands; shared frames of events, as long as they are
//! few; pages of snapshots and replays; and one slot *per song* into which events merge once the frames
//! are too many. A lane is a channel of this connection. While anything of a lane waits in its slots,
//! its cursor is withheld, so that a cut in the middle gives duplicates, never holes (`protocol.md` 1.3).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::frames::{self, Cursor};
use super::overlay::Overlay;
use super::wire;
use crate::id::SongId;
use crate::song::event::EventKind;
use crate::time::Time;

/// An event as the watchers of one channel get it: framed once, shared by all of them.
#[derive(Clone, Debug)]
pub struct Event {
    /// What the channel's cursor counts: `u` on `me`, `seq` elsewhere.
    pub n: i64,
    pub song: SongId,
    pub seq: i64,
    pub at: Time,
    pub kind: EventKind,
    pub set: Arc<RawValue>,
    /// The whole frame, for those who get it unmerged.
    pub frame: Bytes,
}

/// What a lane begins with.
pub struct Start {
    /// Each with the number of the cursor that it carries, if any.
    pub frames: Vec<(Bytes, Option<i64>)>,
    /// Where they end.
    pub from: Cursor,
    /// The `seq` that they tell of each song.
    pub told: HashMap<SongId, i64>,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub frames_max: usize,
    pub bytes_max: usize,
    pub slots_bytes_max: usize,
}

/// Answers that wait although the peer reads none of them; its actor is frozen long before.
const REPLIES_MAX: usize = 512;

/// Names a lane for its whole life; a channel that is subscribed again gets a new one.
pub type LaneId = u64;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    Conflated,
    /// The lane has had it, or its snapshot has.
    Known,
    /// There is no such lane any more: the watcher is to be forgotten.
    Gone,
    /// Too much waits: the connection is to be cut (4008).
    TooSlow,
}

/// Why and how the server closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// `None` only in the answer to a close frame without a code.
    pub code: Option<u16>,
    pub reason: String,
    /// When the client may come back, if that is not to be at once.
    pub after_ms: Option<u64>,
    /// The client asked; its close frame has been seen, so no `bye`.
    pub asked: bool,
}

#[derive(Debug)]
struct Lane {
    id: LaneId,
    channel: Arc<str>,
    epoch: i64,
    /// Subscribed, but its snapshot or replay has not come yet: events wait in slots.
    starting: bool,
    /// Off, but for what waits in it. One that is starting as well writes that once it has begun, or is closed.
    retired: bool,
    /// The newest event pushed, or known from the snapshot.
    high: i64,
    /// The newest cursor that was taken.
    told: Option<i64>,
    bulk: usize,
    slots: usize,
}

struct Queued {
    lane: LaneId,
    bytes: Bytes,
    n: Option<i64>,
}

/// The number before this one, as far as a client needs it. A song that comes to somebody whole, who had it not, begins
/// with that: what it was before, when it was a guest's, lies in it (CRED-7).
pub const fn prev(kind: EventKind, seq: i64) -> i64 {
    match kind {
        EventKind::Created => 0,
        _ => seq - 1,
    }
}

struct Slot {
    /// The song's event that was told last before this; also where that is as new as this one.
    prev: i64,
    seq: i64,
    n: i64,
    at: Time,
    kind: EventKind,
    /// In the order of their coming; merged when taken or when they grow.
    set: Overlay,
    bytes: usize,
}

pub struct Outbox {
    limits: Limits,
    replies: VecDeque<Bytes>,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    bulk: VecDeque<Queued>,
    slots: HashMap<(LaneId, SongId), Slot>,
    order: VecDeque<(LaneId, SongId)>,
    slots_bytes: usize,
    lanes: Vec<Lane>,
    next_lane: LaneId,
    ping: Option<Time>,
    closing: Option<Closing>,
    close_taken: bool,
    bytes_taken: u64,
    waker: Option<Waker>,
    /// Who waits for the pages to be written.
    room: Option<Waker>,
}

impl Outbox {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            replies: VecDeque::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            bulk: VecDeque::new(),
            slots: HashMap::new(),
            order: VecDeque::new(),
            slots_bytes: 0,
            lanes: Vec::new(),
            next_lane: 1,
            ping: None,
            closing: None,
            close_taken: false,
            bytes_taken: 0,
            waker: None,
            room: None,
        }
    }

    // --- lanes ---------------------------------------------------------------------------------

    /// `None` when the channel is on already.
    pub fn open_lane(&mut self, channel: &str) -> Option<LaneId> {
        if self.lane_of(channel).is_some() {
            return None;
        }
        let id = self.next_lane;
        self.next_lane += 1;
        self.lanes.push(Lane {
            id,
            channel: channel.into(),
            epoch: 0,
            starting: true,
            retired: false,
            high: i64::MIN,
            told: None,
            bulk: 0,
            slots: 0,
        });
        Some(id)
    }

    pub fn lane_of(&self, channel: &str) -> Option<LaneId> {
        self.on().find(|lane| *lane.channel == *channel).map(|lane| lane.id)
    }

    pub fn has_lane(&self, id: LaneId) -> bool {
        self.on().any(|lane| lane.id == id)
    }

    /// Whether a lane is on, or is off with something of it left to be written.
    pub fn knows(&self, id: LaneId) -> bool {
        self.lanes.iter().any(|lane| lane.id == id)
    }

    pub fn lanes(&self) -> usize {
        self.on().count()
    }

    fn on(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().filter(|lane| !lane.retired)
    }

    /// Forgets a lane and all that waits in it.
    pub fn close_lane(&mut self, id: LaneId) -> bool {
        let before = self.lanes.len();
        self.lanes.retain(|lane| lane.id != id);
        self.queue.retain(|queued| queued.lane != id);
        self.queue_bytes = self.queue.iter().map(|queued| queued.bytes.len()).sum();
        self.bulk.retain(|queued| queued.lane != id);
        self.slots.retain(|(lane, _), _| *lane != id);
        self.order.retain(|(lane, _)| *lane != id);
        self.slots_bytes = self.slots.values().map(|slot| slot.bytes).sum();
        self.wake_room();
        before != self.lanes.len()
    }

    /// Takes nothing more into a lane; what waits in it is still written, so that nothing is missed between it and the
    /// lane that takes its place. False when it was off already.
    pub fn retire_lane(&mut self, id: LaneId) -> bool {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id && !lane.retired) else {
            return false;
        };
        lane.retired = true;
        self.drop_retired();
        true
    }

    /// Forgets the lanes that are off and have nothing left to be written.
    fn drop_retired(&mut self) {
        if self.lanes.iter().any(|lane| lane.retired) {
            let queue = &self.queue;
            let waits = |lane: &Lane| {
                lane.bulk > 0 || lane.slots > 0 || queue.iter().any(|queued| queued.lane == lane.id)
            };
            self.lanes.retain(|lane| !lane.retired || waits(lane));
        }
    }

    /// A snapshot or replay has come: its frames are written first, then what of the events that waited is newer. The lane
    /// is live from now on.
    pub fn start_lane(&mut self, id: LaneId, start: Start) -> bool {
        let Start { frames, from, told } = start;
        let Some(at) = self.lanes.iter().position(|lane| lane.id == id) else { return false };
        let known: Vec<_> = self
            .slots
            .iter()
            .filter(|((lane, _), slot)| *lane == id && slot.n <= from.n)
            .map(|(key, _)| *key)
            .collect();
        for key in &known {
            self.remove_slot(*key);
        }
        self.order.retain(|key| !known.contains(key));
        self.lift(id, &told);
        let lane = &mut self.lanes[at];
        lane.starting = false;
        lane.epoch = from.epoch;
        lane.high = lane.high.max(from.n);
        lane.bulk = frames.len();
        self.bulk.extend(frames.into_iter().map(|(bytes, n)| Queued { lane: id, bytes, n }));
        self.wake();
        true
    }

    /// What waits in slots may have begun with events that frames tell which are written before it: it follows on those.
    fn lift(&mut self, id: LaneId, told: &HashMap<SongId, i64>) {
        for ((_, song), slot) in self.slots.iter_mut().filter(|((lane, _), _)| *lane == id) {
            slot.prev = told.get(song).map_or(slot.prev, |told| slot.prev.max(*told));
        }
    }

    /// Pages that go with what else comes in a lane that has begun: what is pushed from now on waits behind them, as does what
    /// waits already. `told`: up to which event they show each song. False when the lane is off.
    pub fn add_pages(&mut self, id: LaneId, pages: Vec<Bytes>, told: &HashMap<SongId, i64>) -> bool {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id && !lane.retired) else {
            return false;
        };
        lane.bulk += pages.len();
        self.lift(id, told);
        self.bulk.extend(pages.into_iter().map(|bytes| Queued { lane: id, bytes, n: None }));
        self.wake();
        true
    }

    // --- in ------------------------------------------------------------------------------------

    pub fn push(&mut self, id: LaneId, event: &Event) -> Pushed {
        if self.closing.is_some() {
            return Pushed::Gone;
        }
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id && !lane.retired) else {
            return Pushed::Gone;
        };
        if event.n <= lane.high {
            return Pushed::Known;
        }
        lane.high = lane.high.max(event.n);
        let behind = lane.starting || lane.bulk > 0 || lane.slots > 0;
        let full = self.queue.len() >= self.limits.frames_max
            || self.queue_bytes + event.frame.len() > self.limits.bytes_max;
        // A frame larger than the whole queue still goes through an empty one.
        if !behind && (!full || self.queue.is_empty()) {
            self.queue_bytes += event.frame.len();
            self.queue.push_back(Queued { lane: id, bytes: event.frame.clone(), n: Some(event.n) });
            self.wake();
            return Pushed::Queued;
        }
        self.conflate(id, event);
        self.wake();
        if self.slots_bytes > self.limits.slots_bytes_max { Pushed::TooSlow } else { Pushed::Conflated }
    }

    fn conflate(&mut self, id: LaneId, event: &Event) {
        let key = (id, event.song);
        let size = event.set.get().len() + 128;
        match self.slots.get_mut(&key) {
            Some(slot) => {
                self.slots_bytes -= slot.bytes;
                slot.seq = event.seq;
                slot.n = event.n;
                slot.at = event.at;
                slot.kind = event.kind;
                if event.kind == EventKind::Gone {
                    slot.set = Overlay::default();
                }
                slot.set.add(&event.set);
                slot.bytes = slot.set.bytes() + 128;
                self.slots_bytes += slot.bytes;
            }
            None => {
                let mut set = Overlay::default();
                set.add(&event.set);
                let Event { n, seq, at, kind, .. } = *event;
                let prev = prev(kind, seq);
                self.slots.insert(key, Slot { prev, seq, n, at, kind, set, bytes: size });
                self.slots_bytes += size;
                self.order.push_back(key);
                if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id) {
                    lane.slots += 1;
                }
            }
        }
    }

    /// An answer, in front of all that waits. False when too many wait: the peer does not read.
    pub fn reply(&mut self, frame: Bytes) -> bool {
        if self.closing.is_some() || self.replies.len() >= REPLIES_MAX {
            return self.closing.is_some();
        }
        self.replies.push_back(frame);
        self.wake();
        true
    }

    /// The ping is made when it is taken, so that the heads in it are what was written before it.
    pub fn ping(&mut self, now: Time) {
        self.ping = Some(now);
        self.wake();
    }

    /// Only the first of several closings counts.
    pub fn close(&mut self, closing: Closing) {
        if self.closing.is_none() {
            self.closing = Some(closing);
            self.wake();
        }
    }

    // --- out -----------------------------------------------------------------------------------

    pub fn take(&mut self) -> Option<Bytes> {
        let bytes = self.next()?;
        self.drop_retired();
        self.bytes_taken += bytes.len() as u64;
        Some(bytes)
    }

    fn next(&mut self) -> Option<Bytes> {
        if self.close_taken {
            return None;
        }
        if let Some(reply) = self.replies.pop_front() {
            return Some(reply);
        }
        if let Some(closing) = &self.closing {
            self.close_taken = true;
            return Some(closing_frames(closing));
        }
        if let Some(now) = self.ping.take() {
            let heads = self
                .on()
                .filter_map(|lane| Some((&*lane.channel, Cursor { epoch: lane.epoch, n: lane.told? })));
            return Some(wire::text(&frames::ping(now, heads)));
        }
        if let Some(queued) = self.queue.pop_front() {
            self.queue_bytes -= queued.bytes.len();
            self.told(queued.lane, queued.n);
            return Some(queued.bytes);
        }
        if let Some(queued) = self.bulk.pop_front() {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == queued.lane) {
                lane.bulk -= 1;
            }
            self.told(queued.lane, queued.n);
            self.wake_room();
            return Some(queued.bytes);
        }
        self.take_slot()
    }

    fn take_slot(&mut self) -> Option<Bytes> {
        let starting = |id| self.lanes.iter().any(|lane: &Lane| lane.id == id && lane.starting);
        let at = self.order.iter().position(|(lane, _)| !starting(*lane))?;
        let key = self.order.remove(at)?;
        let slot = self.remove_slot(key)?;
        let lane = self.lanes.iter_mut().find(|lane| lane.id == key.0)?;
        let cursor = (lane.slots == 0).then_some(Cursor { epoch: lane.epoch, n: lane.high });
        if let Some(cursor) = cursor {
            lane.told = Some(cursor.n);
        }
        // All of it may have been told before.
        let prev = slot.prev.min(slot.seq - 1);
        Some(wire::text(&frames::event(&frames::EventFrame {
            channel: &lane.channel,
            cursor,
            song: key.1,
            seq: slot.seq,
            prev,
            skipped: slot.seq - 1 - prev,
            at: slot.at,
            kind: slot.kind,
            set: slot.set.merged(),
        })))
    }

    fn remove_slot(&mut self, key: (LaneId, SongId)) -> Option<Slot> {
        let slot = self.slots.remove(&key)?;
        self.slots_bytes -= slot.bytes;
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == key.0) {
            lane.slots -= 1;
        }
        Some(slot)
    }

    fn told(&mut self, id: LaneId, n: Option<i64>) {
        if let Some(n) = n
            && let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id)
        {
            lane.told = Some(n);
        }
    }

    // --- state ---------------------------------------------------------------------------------

    pub const fn bytes_taken(&self) -> u64 {
        self.bytes_taken
    }

    /// Whether something could be taken.
    pub fn waiting(&self) -> bool {
        !self.close_taken
            && (!self.replies.is_empty()
                || self.closing.is_some()
                || self.ping.is_some()
                || !self.queue.is_empty()
                || !self.bulk.is_empty()
                || self.order.iter().any(|(id, _)| self.lanes.iter().any(|l| l.id == *id && !l.starting)))
    }

    /// Whether the next snapshot may be made: the one before is on its way.
    pub fn has_room(&self) -> bool {
        self.bulk.is_empty()
    }

    pub const fn closing(&self) -> Option<&Closing> {
        self.closing.as_ref()
    }

    /// Whether the close frame has been handed to the socket; nothing comes after it.
    pub const fn close_taken(&self) -> bool {
        self.close_taken
    }

    pub fn wake_me(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(mine) => mine.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }

    pub fn wake_for_room(&mut self, waker: &Waker) {
        self.room = Some(waker.clone());
    }

    pub fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wake_room(&mut self) {
        if self.bulk.is_empty()
            && let Some(waker) = self.room.take()
        {
            waker.wake();
        }
    }
}

/// `bye`, then the close frame, as one piece.
fn closing_frames(closing: &Closing) -> Bytes {
    let close = wire::close(closing.code, &closing.reason);
    match closing.code {
        Some(code @ (1001 | 1012 | 1013 | 4000..)) if !closing.asked => {
            let bye = wire::text(&frames::bye(code, &closing.reason, closing.after_ms));
            [bye, close].concat().into()
        }
        _ => close,
    }
}

#[cfg(test)]
mod tests;
