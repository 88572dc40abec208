//! What one step writes, as plain columns: the difference between the song before and after, and the
//! step's own writes. Made by the song's actor, so that the journal only has to carry.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::births::Terms;
use crate::credit::Credits;
use crate::id::{SongId, TaskId, UserId};
use crate::song::event::EventKind;
use crate::song::phase::{Addition, Phase, Song};
use crate::song::step::{Settlement, Step, Write};
use crate::time::Time;

/// One song's step on its way to Postgres.
#[derive(Clone, Debug)]
pub struct StepRow {
    pub song: SongId,
    pub user: UserId,
    /// The task whose row carries the song's version, and the version the step was decided on.
    pub head: TaskId,
    pub version: i64,
    pub seq: i64,
    /// The head's run and progress afterwards; a head that a further task replaces has no run left.
    pub run: Option<Value>,
    pub progress: Value,
    pub at: Time,
    pub event: Option<(EventKind, Map<String, Value>)>,
    /// The library's row, if anything in it changed.
    pub library: Option<Value>,
    pub lyrics: Option<Value>,
    pub variants: Option<Value>,
    pub further_task: Option<Value>,
    /// Tasks beside the head that are new or moved on.
    pub additions: Option<Value>,
    /// Who works on the head from here on, where that is another one.
    pub provider: Option<String>,
    pub settle: Option<Value>,
    pub notify: Option<&'static str>,
    pub refs: Option<Value>,
    /// Money to be taken for the further task; without it nothing of the step happens.
    pub reserve: Option<Reserve>,
}

#[derive(Clone, Debug)]
pub struct Reserve {
    pub task: TaskId,
    pub kind: &'static str,
    pub amount: Credits,
}

impl StepRow {
    /// `set` is what watchers are told, if the step has an event.
    pub fn new(before: &Song, version: i64, step: &Step, set: Map<String, Value>, now: Time) -> Self {
        let after = &step.song;
        let replaced = before.head.task != after.head.task;
        let mut row = Self {
            song: after.id,
            user: after.user.clone(),
            head: before.head.task,
            version,
            seq: after.seq,
            run: if replaced { None } else { run(after) },
            // Where the same kind starts again, the old task keeps how it went.
            progress: progress(if replaced { before } else { after }, before),
            at: now,
            event: step.kind.map(|kind| (kind, set)),
            library: library(before, after, now),
            lyrics: changed(&before.lyrics_variants, &after.lyrics_variants),
            variants: changed(&before.variants, &after.variants),
            further_task: replaced.then(|| further_task(after)),
            additions: additions(before, after),
            provider: (!replaced && before.head.provider != after.head.provider)
                .then(|| after.head.provider.clone()),
            settle: None,
            notify: None,
            refs: None,
            reserve: None,
        };
        for write in &step.writes {
            row.add(write);
        }
        row
    }

    /// The kind of the event that its watchers see, if they see any.
    pub fn event_kind(&self) -> Option<&'static str> {
        self.event.as_ref().map(|(kind, _)| kind.as_str())
    }

    fn add(&mut self, write: &Write) {
        match write {
            Write::Reserve { task, kind, amount } => {
                self.reserve = Some(Reserve { task: *task, kind: kind.as_str(), amount: *amount });
            }
            Write::Settle { task, kind, settlement, amount } => {
                let reason = match settlement {
                    Settlement::Capture => "capture",
                    Settlement::Release => "release",
                };
                let amount = amount.thousandths();
                let kind = kind.as_str();
                let one = json!({"task": task, "kind": kind, "reason": reason, "amount": amount});
                append(&mut self.settle, one);
            }
            Write::Notify(push) => self.notify = Some(push.as_str()),
            Write::Ref { call, provider, provider_task } => {
                let one = json!({"provider": provider, "provider_task": provider_task,
                                 "task": call.task, "call": call.call, "attempt": call.attempt});
                append(&mut self.refs, one);
            }
        }
    }
}

fn append(list: &mut Option<Value>, one: Value) {
    match list {
        Some(Value::Array(list)) => list.push(one),
        _ => *list = Some(json!([one])),
    }
}

fn additions(before: &Song, after: &Song) -> Option<Value> {
    let changed = after.additions.iter().filter(|one| !before.additions.contains(one));
    let rows: Vec<Value> = changed.map(addition).collect();
    (!rows.is_empty()).then_some(Value::Array(rows))
}

fn addition(one: &Addition) -> Value {
    // While it runs its state is its run, which has a column of its own.
    let ended = one.run().is_none().then_some(&one.state);
    json!({
        "id": one.task, "number": one.number, "kind": one.work.kind().as_str(), "provider": one.provider,
        "price": one.price, "run": one.run(), "progress": one.progress,
        "addition": { "work": one.work, "ended": ended },
    })
}

fn run(song: &Song) -> Option<Value> {
    song.phase.run().map(|run| json!(run))
}

fn progress(song: &Song, before: &Song) -> Value {
    json!(song.progress(before.head.kind).cloned().unwrap_or_default())
}

fn further_task(song: &Song) -> Value {
    let head = &song.head;
    json!({
        "id": head.task, "number": head.number, "kind": head.kind.as_str(), "provider": head.provider,
        "price": head.price, "run": run(song),
        "progress": song.progress(head.kind).cloned().unwrap_or_default(),
    })
}

/// The rows that are new or different; rows are never taken away.
fn changed<T: PartialEq + serde::Serialize>(before: &[T], after: &[T]) -> Option<Value> {
    let changed: Vec<&T> = after.iter().filter(|row| !before.contains(row)).collect();
    (!changed.is_empty()).then(|| json!(changed))
}

/// The columns of `songs` that a step may touch, whole, if any of them changed.
fn library(before: &Song, after: &Song, now: Time) -> Option<Value> {
    let columns = |song: &Song, wish: bool| {
        json!({
            "status": song.status().as_str(),
            "wish": wish.then(|| json!(*song.wish)),
            "title": song.title,
            "lyrics": song.lyrics,
            "error": match &song.phase { Phase::Failed(failure) => json!(failure), _ => Value::Null },
            "cost": song.cost,
            "refunded": song.refunded,
            "retries": song.retries,
            "viewed": song.last_viewed_at,
            "deleted": matches!(song.phase, Phase::Deleted).then_some(now),
        })
    };
    let wish_changed = before.wish != after.wish;
    let (old, new) = (columns(before, false), columns(after, wish_changed));
    (old != new).then_some(new)
}

/// A new song on its way to Postgres: what `create_song` takes.
#[derive(Clone, Debug)]
pub struct NewSong {
    pub song: Song,
    pub idempotency_key: Option<String>,
    pub content_hash: [u8; 32],
    pub terms: Terms,
    /// The whole song as its watchers are told of it.
    pub set: Map<String, Value>,
}

/// A provider's callback, raw (CB-2).
#[derive(Clone, Debug)]
pub struct InboxRow {
    pub provider: &'static str,
    pub task: Uuid,
    pub call: u8,
    pub attempt: u16,
    pub body: bytes::Bytes,
    /// What came of it, for operators.
    pub outcome: &'static str,
}
