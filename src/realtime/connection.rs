//! One connection as everybody outside its actor sees it: its outbox, how alive it is, the line
//! to cut it by; and the registry of all of them.
//!
//! The actor is frozen while its peer does not read, so nothing here waits for it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use metrics::{counter, gauge};

use super::Settings;
use super::line::Line;
use super::outbox::{Closing, Event, LaneId, Limits, Outbox, Pushed};
use super::reaper::{Act, Liveness, Observed};
use super::wire;
use crate::id::UserId;
use crate::time::{Clock, Time};

pub struct Connection {
    id: u64,
    outbox: Mutex<Outbox>,
    liveness: Mutex<Liveness>,
    user: Mutex<Option<UserId>>,
    /// Let go when the connection ends, or the peer would see no end.
    line: Mutex<Option<Arc<Line>>>,
    peer_closed: AtomicBool,
    ended: AtomicBool,
    clock: Clock,
}

/// Nothing that is behind these locks can be left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// What the client is told its connection is called.
    pub fn name(&self, node: &str) -> String {
        format!("{node}-{:04x}", self.id)
    }

    pub fn outbox(&self) -> MutexGuard<'_, Outbox> {
        lock(&self.outbox)
    }

    pub fn user(&self) -> Option<UserId> {
        lock(&self.user).clone()
    }

    pub fn push(&self, lane: LaneId, event: &Event) -> Pushed {
        let pushed = self.outbox().push(lane, event);
        match pushed {
            Pushed::Conflated => counter!("songflight_realtime_conflated_total").increment(1),
            Pushed::TooSlow => self.cut("too slow"),
            Pushed::Queued | Pushed::Known | Pushed::Gone => {}
        }
        pushed
    }

    /// Answers the client. A peer that lets hundreds of answers wait is cut.
    pub fn say(&self, text: &str) {
        self.send(wire::text(text));
    }

    pub fn send(&self, frame: Bytes) {
        if !self.outbox().reply(frame) {
            self.cut("too slow");
        }
    }

    pub fn close(&self, code: u16, reason: &str) {
        self.close_after(code, reason, None);
    }

    pub fn close_after(&self, code: u16, reason: &str, after_ms: Option<u64>) {
        let mut outbox = self.outbox();
        if outbox.closing().is_none() && !self.has_ended() {
            counter!("songflight_realtime_closed_total", "code" => code.to_string()).increment(1);
        }
        outbox.close(Closing { code: Some(code), reason: reason.to_owned(), after_ms, asked: false });
    }

    /// The client's close frame has come: answered with the same code, and over.
    pub fn peer_closed(&self, code: Option<u16>) {
        let mut outbox = self.outbox();
        if outbox.closing().is_none() {
            counter!("songflight_realtime_closed_total", "code" => label(code)).increment(1);
        }
        outbox.close(Closing { code, reason: String::new(), after_ms: None, asked: true });
        self.peer_closed.store(true, Ordering::Relaxed);
        outbox.wake();
    }

    /// Whether the peer has nothing more to say, so that the socket may go once our close frame is out.
    pub fn has_peer_closed(&self) -> bool {
        self.peer_closed.load(Ordering::Relaxed)
    }

    /// Nothing readable will come any more: no close frame is waited for.
    pub fn stop_listening(&self) {
        self.peer_closed.store(true, Ordering::Relaxed);
        self.outbox().wake();
    }

    /// 4008: the peer is jammed, so a close frame could not be written; a reset reaches it anyway.
    pub fn cut(&self, reason: &str) {
        self.close(4008, reason);
        self.kill();
    }

    fn kill(&self) {
        self.stop_listening();
        if let Some(line) = lock(&self.line).take() {
            line.cut();
        }
    }

    /// Any frame counts as life.
    pub fn heard(&self) {
        lock(&self.liveness).heard(self.clock.monotonic());
    }

    pub fn hello_came(&self) {
        lock(&self.liveness).hello_came();
    }

    pub fn token_ends(&self, at: Time) {
        lock(&self.liveness).token_ends(at, self.clock.now());
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Looks after the connection; called every tick by the reaper.
    pub(super) fn tick(&self, settings: &Settings) {
        let observed = {
            let outbox = self.outbox();
            Observed {
                now: self.clock.monotonic(),
                wall: self.clock.now(),
                waiting: outbox.waiting(),
                bytes_taken: outbox.bytes_taken(),
                closing: outbox.closing().is_some(),
            }
        };
        let act = lock(&self.liveness).check(&observed, settings);
        match act {
            None => {}
            Some(Act::Ping) => self.outbox().ping(observed.wall),
            Some(Act::AuthSoon) => self.say(&super::frames::auth_soon()),
            Some(Act::Close(code, reason)) => self.close(code, reason),
            Some(Act::Cut(reason)) => self.cut(reason),
            Some(Act::Kill) => self.kill(),
        }
    }
}

/// How a client's close is counted: codes beyond those of RFC 6455 (section 7.4.1) are its own invention, and each would be
/// a figure of its own for ever.
fn label(code: Option<u16>) -> Cow<'static, str> {
    match code {
        None => "1005".into(),
        Some(code @ 1000..=1015) => code.to_string().into(),
        Some(_) => "other".into(),
    }
}

/// All connections of the node. In parts, each looked after by one reaper.
pub struct Registry {
    parts: Vec<Mutex<HashMap<u64, Arc<Connection>>>>,
    by_user: Mutex<HashMap<UserId, Vec<Weak<Connection>>>>,
    next: AtomicU64,
    count: AtomicUsize,
    /// How often tokens were revoked.
    revocations: AtomicU64,
    limits: Limits,
    clock: Clock,
}

impl Registry {
    pub(super) fn new(parts: usize, limits: Limits, clock: Clock) -> Self {
        Self {
            parts: (0..parts.max(1)).map(|_| Mutex::default()).collect(),
            by_user: Mutex::default(),
            next: AtomicU64::new(1),
            count: AtomicUsize::new(0),
            revocations: AtomicU64::new(0),
            limits,
            clock,
        }
    }

    pub(super) fn open(&self, line: Arc<Line>) -> Arc<Connection> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            id,
            outbox: Mutex::new(Outbox::new(self.limits)),
            liveness: Mutex::new(Liveness::new(id, self.clock.monotonic())),
            user: Mutex::default(),
            line: Mutex::new(Some(line)),
            peer_closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            clock: self.clock,
        });
        lock(self.part(id)).insert(id, Arc::clone(&connection));
        self.count.fetch_add(1, Ordering::Relaxed);
        gauge!("songflight_realtime_sessions").increment(1.0);
        connection
    }

    /// False when the user has `max` connections already.
    pub(super) fn claim(&self, user: &UserId, connection: &Arc<Connection>, max: usize) -> bool {
        let mut by_user = lock(&self.by_user);
        let theirs = by_user.entry(user.clone()).or_default();
        theirs.retain(|other| {
            other.upgrade().is_some_and(|other| !other.has_ended() && other.outbox().closing().is_none())
        });
        if theirs.len() >= max {
            return false;
        }
        theirs.push(Arc::downgrade(connection));
        *lock(&connection.user) = Some(user.clone());
        true
    }

    /// The socket is gone: everything of the connection is given back.
    pub(super) fn end(&self, connection: &Connection) {
        if connection.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        lock(self.part(connection.id)).remove(&connection.id);
        lock(&connection.line).take();
        // Hubs find its lanes gone and forget it; what waited is given back now.
        *connection.outbox() = Outbox::new(self.limits);
        if let Some(user) = connection.user() {
            let mut by_user = lock(&self.by_user);
            if let Some(theirs) = by_user.get_mut(&user) {
                theirs.retain(|other| other.upgrade().is_some_and(|other| other.id != connection.id));
                if theirs.is_empty() {
                    by_user.remove(&user);
                }
            }
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        gauge!("songflight_realtime_sessions").decrement(1.0);
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        (0..self.parts.len()).flat_map(|part| self.of_part(part)).collect()
    }

    pub(super) fn of_part(&self, part: usize) -> Vec<Arc<Connection>> {
        self.parts.get(part).map(|part| lock(part).values().cloned().collect()).unwrap_or_default()
    }

    /// A token that was checked before a revocation and claims its connection after it has to be checked again: it may
    /// have been missed by both.
    pub(super) fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::SeqCst)
    }

    /// The user's connections, now that their tokens are refused. Whoever claims one later sees that it happened.
    pub(super) fn revoked(&self, user: &UserId) -> Vec<Arc<Connection>> {
        self.revocations.fetch_add(1, Ordering::SeqCst);
        self.of_user(user)
    }

    fn of_user(&self, user: &UserId) -> Vec<Arc<Connection>> {
        let by_user = lock(&self.by_user);
        by_user.get(user).into_iter().flatten().filter_map(Weak::upgrade).collect()
    }

    fn part(&self, id: u64) -> &Mutex<HashMap<u64, Arc<Connection>>> {
        &self.parts[usize::try_from(id).unwrap_or(0) % self.parts.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_makes_up_no_figures() {
        let every = (0..=u16::MAX).map(Some).chain([None]).map(label);
        let labels: std::collections::BTreeSet<_> = every.collect();
        assert_eq!(labels.len(), 17, "{labels:?}");
        assert_eq!([Some(1000), Some(4242), None].map(label), ["1000", "other", "1005"]);
    }
}
