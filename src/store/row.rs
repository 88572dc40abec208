//! What one step writes, as plain columns: the difference between the song before and after, and the
//! step's own writes. Made by the song's actor, so that the journal only has to carry.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use uuid::Uuid;

use super::births::Terms;
use crate::credit::Credits;
use crate::id::{SongId, TaskId, UserId};
use crate::provider::failure::Failure;
use crate::song::event::EventKind;
use crate::song::phase::{Addition, Phase, Progress, Rules, Song};
use crate::song::step::{Settlement, Step, Write};
use crate::song::view;
use crate::song::wish::Wish;
use crate::time::Time;

/// A column's JSON, as text: written once, and carried to where it is kept.
pub type Column = Box<RawValue>;

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
    pub run: Option<Column>,
    pub progress: Column,
    pub at: Time,
    pub event: Option<(EventKind, Arc<RawValue>)>,
    /// The library's row, if anything in it changed.
    pub library: Option<Column>,
    pub lyrics: Option<Column>,
    pub variants: Option<Column>,
    pub further_task: Option<Column>,
    /// Tasks beside the head that are new or moved on.
    pub additions: Option<Column>,
    /// Who works on the head from here on, where that is another one.
    pub provider: Option<String>,
    pub settle: Option<Column>,
    pub notify: Option<&'static str>,
    pub refs: Option<Column>,
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
    /// What watchers are told, if the step has an event, is what they can see of the difference.
    pub fn new(before: &Song, version: i64, step: &Step, rules: &Rules, now: Time) -> Self {
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
            event: step.kind.map(|kind| (kind, view::changes(Some(before), after, rules))),
            library: library(before, after, now),
            lyrics: changed(&before.lyrics_variants, &after.lyrics_variants),
            variants: changed(&before.variants, &after.variants),
            further_task: replaced.then(|| column(&further_task(after))),
            additions: additions(before, after),
            provider: (!replaced && before.head.provider != after.head.provider)
                .then(|| after.head.provider.clone()),
            settle: None,
            notify: None,
            refs: None,
            reserve: None,
        };
        let (mut settle, mut refs) = (Vec::new(), Vec::new());
        for write in &step.writes {
            match write {
                Write::Reserve { task, kind, amount } => {
                    row.reserve = Some(Reserve { task: *task, kind: kind.as_str(), amount: *amount });
                }
                Write::Settle { task, kind, settlement, amount } => {
                    let reason = match settlement {
                        Settlement::Capture => "capture",
                        Settlement::Release => "release",
                    };
                    let (kind, amount) = (kind.as_str(), amount.thousandths());
                    settle.push(json!({"task": task, "kind": kind, "reason": reason, "amount": amount}));
                }
                Write::Notify(push) => row.notify = Some(push.as_str()),
                Write::Ref { call, provider, provider_task } => refs.push(json!({
                    "provider": provider, "provider_task": provider_task,
                    "task": call.task, "call": call.call, "attempt": call.attempt,
                })),
            }
        }
        row.settle = some(&settle);
        row.refs = some(&refs);
        row
    }

    /// The kind of the event that its watchers see, if they see any.
    pub fn event_kind(&self) -> Option<&'static str> {
        self.event.as_ref().map(|(kind, _)| kind.as_str())
    }
}

fn column<T: Serialize>(value: &T) -> Column {
    to_raw_value(value).expect("a song has text for keys, and writing to memory does not fail")
}

/// The rows, if there are any.
fn some<T: Serialize>(rows: &[T]) -> Option<Column> {
    (!rows.is_empty()).then(|| column(&rows))
}

fn additions(before: &Song, after: &Song) -> Option<Column> {
    let changed = after.additions.iter().filter(|one| !before.additions.contains(one));
    some(&changed.map(addition).collect::<Vec<_>>())
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

fn run(song: &Song) -> Option<Column> {
    song.phase.run().map(column)
}

fn progress(song: &Song, before: &Song) -> Column {
    song.progress(before.head.kind).map_or_else(|| column(&Progress::default()), column)
}

fn further_task(song: &Song) -> Value {
    let head = &song.head;
    json!({
        "id": head.task, "number": head.number, "kind": head.kind.as_str(), "provider": head.provider,
        "price": head.price, "run": song.phase.run(),
        "progress": song.progress(head.kind).cloned().unwrap_or_default(),
    })
}

/// The rows that are new or different; rows are never taken away.
fn changed<T: PartialEq + Serialize>(before: &[T], after: &[T]) -> Option<Column> {
    some(&after.iter().filter(|row| !before.contains(row)).collect::<Vec<_>>())
}

/// The columns of `songs` that a step may touch.
#[derive(PartialEq, Serialize)]
struct Library<'a> {
    status: &'static str,
    wish: Option<&'a Wish>,
    title: &'a Option<String>,
    lyrics: &'a Option<String>,
    error: Option<&'a Failure>,
    cost: Credits,
    refunded: Credits,
    retries: &'a [Time],
    viewed: Option<Time>,
    deleted: Option<Time>,
}

impl<'a> Library<'a> {
    fn of(song: &'a Song, wish: bool, now: Time) -> Self {
        Self {
            status: song.status().as_str(),
            wish: wish.then_some(&*song.wish),
            title: &song.title,
            lyrics: &song.lyrics,
            error: match &song.phase {
                Phase::Failed(failure) => Some(failure),
                _ => None,
            },
            cost: song.cost,
            refunded: song.refunded,
            retries: &song.retries,
            viewed: song.last_viewed_at,
            deleted: matches!(song.phase, Phase::Deleted).then_some(now),
        }
    }
}

/// All of them, if any of them changed.
fn library(before: &Song, after: &Song, now: Time) -> Option<Column> {
    let (old, new) = (Library::of(before, false, now), Library::of(after, before.wish != after.wish, now));
    (old != new).then(|| column(&new))
}

/// A new song on its way to Postgres: what `create_songs` takes.
#[derive(Clone, Debug)]
pub struct NewSong {
    pub song: Song,
    pub idempotency_key: Option<String>,
    pub content_hash: [u8; 32],
    pub terms: Terms,
    /// The whole song as its watchers are told of it.
    pub set: Arc<RawValue>,
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
