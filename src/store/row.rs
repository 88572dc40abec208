//! What one step writes, as plain columns: the difference between the song before and after, and the
//! step's own writes. Made by the song's actor, so that the journal only has to carry.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use uuid::Uuid;

use super::births::Terms;
use crate::credit::Credits;
use crate::id::{CallKey, SongId, TaskId, UserId};
use crate::provider::failure::Failure;
use crate::song::event::EventKind;
use crate::song::phase::{Addition, Phase, Progress, Rules, Song, Status, Variant};
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
    pub library: Option<Library>,
    pub lyrics: Option<Column>,
    pub new_variants: Vec<Variant>,
    pub changed_variants: Vec<Variant>,
    pub further_task: Option<Column>,
    /// Tasks beside the head that are new or moved on.
    pub additions: Option<Column>,
    /// Who works on the head from here on, where that is another one.
    pub provider: Option<String>,
    pub settle: Vec<Settle>,
    pub notify: Option<&'static str>,
    pub refs: Vec<Ref>,
    /// Money to be taken for the further task; without it nothing of the step happens.
    pub reserve: Option<Reserve>,
}

#[derive(Clone, Debug)]
pub struct Reserve {
    pub task: TaskId,
    pub kind: &'static str,
    pub amount: Credits,
}

/// The columns of `songs` that a step may touch.
#[derive(Clone, Debug, PartialEq)]
pub struct Library {
    pub status: Status,
    /// Where it is another one.
    pub wish: Option<Arc<Wish>>,
    pub title: Option<String>,
    pub lyrics: Option<String>,
    pub error: Option<Failure>,
    pub cost: Credits,
    pub refunded: Credits,
    pub retries: Vec<Time>,
    pub viewed: Option<Time>,
    pub deleted: Option<Time>,
}

/// The entry that settles a task's reservation, with what of it is given back.
#[derive(Clone, Debug)]
pub struct Settle {
    pub task: TaskId,
    pub kind: &'static str,
    pub reason: &'static str,
    pub amount: Credits,
}

/// That a provider took a call, and what it calls it.
#[derive(Clone, Debug)]
pub struct Ref {
    pub call: CallKey,
    pub provider: String,
    pub provider_task: Option<String>,
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
            event: step.kind.map(|kind| match kind {
                EventKind::Gone => (kind, view::nothing()),
                _ => (kind, view::changes(Some(before), after, rules)),
            }),
            library: library(before, after, now),
            lyrics: changed(&before.lyrics_variants, &after.lyrics_variants),
            new_variants: Vec::new(),
            changed_variants: Vec::new(),
            further_task: replaced.then(|| column(&further_task(after))),
            additions: additions(before, after),
            provider: (!replaced && before.head.provider != after.head.provider)
                .then(|| after.head.provider.clone()),
            settle: Vec::new(),
            notify: None,
            refs: Vec::new(),
            reserve: None,
        };
        for variant in after.variants.iter().filter(|variant| !before.variants.contains(variant)) {
            let known = before.variants.iter().any(|known| known.variant_number == variant.variant_number);
            let rows = if known { &mut row.changed_variants } else { &mut row.new_variants };
            rows.push(variant.clone());
        }
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
                    row.settle.push(Settle { task: *task, kind: kind.as_str(), reason, amount: *amount });
                }
                Write::Notify(push) => row.notify = Some(push.as_str()),
                Write::Ref { call, provider, provider_task } => {
                    let (provider, provider_task) = (provider.clone(), provider_task.clone());
                    row.refs.push(Ref { call: *call, provider, provider_task });
                }
            }
        }
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

impl Library {
    fn of(song: &Song, now: Time) -> Self {
        Self {
            status: song.status(),
            wish: None,
            title: song.title.clone(),
            lyrics: song.lyrics.clone(),
            error: match &song.phase {
                Phase::Failed(failure) => Some(failure.clone()),
                _ => None,
            },
            cost: song.cost,
            refunded: song.refunded,
            retries: song.retries.clone(),
            viewed: song.last_viewed_at,
            deleted: matches!(song.phase, Phase::Deleted).then_some(now),
        }
    }
}

/// All of them, if any of them changed.
fn library(before: &Song, after: &Song, now: Time) -> Option<Library> {
    let wish = (before.wish != after.wish).then(|| after.wish.clone());
    let (old, new) = (Library::of(before, now), Library { wish, ..Library::of(after, now) });
    (old != new).then_some(new)
}

/// A new song on its way to Postgres (`births`).
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
