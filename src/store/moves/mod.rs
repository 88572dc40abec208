//! Moving songs on: what many steps write, in one statement, which is put together of the parts that they need. All of
//! them move or none does.
//!
//! Not here: what a step's columns are (`row`), the transaction around it and what becomes of steps that do not move
//! (`session`), when it is sent and what becomes of a broken connection (`journal`).

mod inbox;
mod library;
mod people;
mod tasks;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use self::people::People;
use super::StoreError;
use super::columns::Columns;
use super::journal::NodeKey;
use super::row::{InboxRow, StepRow};
use crate::id::TaskId;
use crate::time::Time;

/// What is to be written in one go.
pub(super) struct Moving<'a> {
    node: NodeKey,
    steps: Vec<&'a StepRow>,
    /// The callbacks that came, whether they moved anything or not.
    inbox: &'a [&'a InboxRow],
    people: People<'a>,
    needed: Needed,
}

/// One of the statement's common table expressions, with whatever goes with it.
struct Part {
    /// With a question mark for each of its columns, in their order.
    sql: &'static str,
    /// Whether a batch needs it. To open tables and their indexes costs a small batch more than what it writes there.
    needed: fn(&Moving<'_>) -> bool,
    columns: for<'a> fn(&Moving<'a>) -> Columns<'a>,
    /// What the statement answers with this part in it, unless a later one says something else.
    answer: Option<&'static str>,
}

/// Each once at most, in this order. What mostly comes together is one part, and so is what is rare: few combinations, each
/// of which is planned and kept.
const PARTS: [&Part; 11] = [
    &tasks::ON,
    &tasks::OVER,
    &people::NUMBERED,
    &people::SETTLED,
    &people::TOLD,
    &library::SONGS,
    &library::VARIANTS,
    &library::TEXTS,
    &tasks::FURTHER,
    &tasks::REFS,
    &inbox::KEPT,
];

fn ends(moving: &Moving<'_>) -> bool {
    moving.steps.iter().any(|row| row.run.is_none()) || settles(moving)
}

fn settles(moving: &Moving<'_>) -> bool {
    moving.steps.iter().any(|row| !row.settle.is_empty() || row.notify.is_some())
}

fn rare(moving: &Moving<'_>) -> bool {
    let rare = |row: &StepRow| row.lyrics.is_some() || row.further_task.is_some() || row.additions.is_some();
    moving.steps.iter().any(|row| rare(row))
}

/// Whether a batch needs each of the [`PARTS`].
type Needed = [bool; PARTS.len()];

/// A session's statements, each prepared when it is needed for the first time.
///
/// Each is planned once, whatever the tables hold at that time and however many rows a batch has: a plan each time would
/// cost more than small batches themselves. It does well in any case because tables are reached by their keys alone (the
/// session allows no other way), and because no two parts are joined with each other: the planner takes every batch for
/// ten rows, and would compare each with each.
#[derive(Default)]
pub(super) struct Moves {
    prepared: Mutex<HashMap<Needed, Statement>>,
}

/// Why steps were not written; nothing of their transaction is.
#[derive(Debug)]
pub(super) enum NotMoved {
    /// Some were decided on a version that is no more, or are of songs that are not ours.
    Stale,
    Error(StoreError),
}

impl From<StoreError> for NotMoved {
    fn from(error: StoreError) -> Self {
        Self::Error(error)
    }
}

/// What `all_moved` (`migrations/V16`) says where not all of them did.
const NOT_ALL: &str = "SF001";

impl<'a> Moving<'a> {
    pub(super) fn new(node: NodeKey, steps: Vec<&'a StepRow>, inbox: &'a [&'a InboxRow]) -> Self {
        let people = People::of(&steps);
        let mut moving = Self { node, steps, inbox, people, needed: [false; PARTS.len()] };
        moving.needed = PARTS.map(|part| (part.needed)(&moving));
        moving
    }

    fn parts(&self) -> impl Iterator<Item = &'static Part> {
        PARTS.into_iter().zip(self.needed).filter_map(|(part, needed)| needed.then_some(part))
    }
}

/// The statement's text: each part is an expression of its own, and what it answers are the numbers of events.
fn text(parts: &[&Part]) -> String {
    let answer = parts.iter().rev().find_map(|part| part.answer).unwrap_or("select");
    let parts: Vec<&str> = parts.iter().map(|part| part.sql).collect();
    let mut text = format!("with {}\n{answer}", parts.join(","));
    for number in 1.. {
        let Some(mark) = text.find('?') else { break };
        text.replace_range(mark..=mark, &format!("${number}"));
    }
    text
}

/// Every statement that there can be: one for callbacks alone, or what becomes of the heads and their people, and with it any
/// of the others.
pub fn statements() -> Vec<String> {
    use self::inbox::KEPT;
    use self::library::{SONGS, TEXTS, VARIANTS};
    use self::people::{NUMBERED, SETTLED, TOLD};
    use self::tasks::{FURTHER, ON, OVER, REFS};
    let heads: [&[&Part]; 5] =
        [&[&ON], &[&ON, &NUMBERED, &TOLD], &[&OVER], &[&OVER, &NUMBERED, &TOLD], &[&OVER, &SETTLED, &TOLD]];
    let others: [&[&Part]; 5] = [&[&SONGS], &[&VARIANTS], &[&TEXTS, &FURTHER], &[&REFS], &[&KEPT]];
    let mut all = vec![text(&[&KEPT])];
    for heads in heads {
        for bits in 0..1_u32 << others.len() {
            let some = others.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1);
            let parts: Vec<&Part> = heads.iter().chain(some.flat_map(|(_, parts)| *parts)).copied().collect();
            all.push(text(&parts));
        }
    }
    all
}

impl Moves {
    /// The statement that these need, if any; it costs a round trip for the first time.
    pub(super) async fn statement(
        &self,
        client: &Client,
        moving: &Moving<'_>,
    ) -> Result<Option<Statement>, StoreError> {
        let needed = moving.needed;
        if !needed.contains(&true) {
            return Ok(None);
        }
        let known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(&needed).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let text = text(&moving.parts().collect::<Vec<_>>());
        debug_assert!(statements().contains(&text), "a statement that is in no test: {text}");
        let statement = client.prepare(&text).await?;
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(needed, statement.clone());
        Ok(Some(statement))
    }
}

/// Answers of each step, in their order, the number of its event and when it was committed, if watchers are to be told.
pub(super) async fn write(
    client: &Client,
    statement: Option<&Statement>,
    moving: &Moving<'_>,
) -> Result<Vec<Option<(i64, Time)>>, NotMoved> {
    let Some(statement) = statement else { return Ok(Vec::new()) };
    let columns: Columns<'_> = moving.parts().flat_map(|part| (part.columns)(moving)).collect();
    let parameters: Vec<&(dyn ToSql + Sync)> =
        columns.iter().map(|column| &**column as &(dyn ToSql + Sync)).collect();
    match client.query(statement, &parameters).await {
        Ok(rows) => Ok(moving.people.told(&moving.steps, &rows)),
        Err(error) if error.code() == Some(&SqlState::from_code(NOT_ALL)) => Err(NotMoved::Stale),
        Err(error) => Err(StoreError::from(error).into()),
    }
}

/// Which of these steps, by their places, cannot move, when the songs with these heads were moved otherwise.
pub(super) async fn stale(
    client: &Client,
    steps: &[&StepRow],
    moved: impl Iterator<Item = TaskId>,
    node: NodeKey,
) -> Result<HashSet<usize>, StoreError> {
    let mut stale = tasks::stale(client, steps, node).await?;
    // Of several for one version only one can move.
    let mut heads: HashSet<TaskId> = moved.collect();
    for (place, row) in steps.iter().enumerate() {
        if !stale.contains(&place) && !heads.insert(row.head) {
            stale.insert(place);
        }
    }
    Ok(stale)
}
