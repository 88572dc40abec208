//! Moving songs on: the journal's statement for steps (`journal.sql`), for many in one, and of it only the parts that
//! they need.
//!
//! Not here: what a step's columns are (`row`), when it is sent and what becomes of a broken connection (`journal`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio_postgres::types::Json;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::journal::NodeKey;
use super::row::StepRow;
use super::{StoreError, timestamp};

const MOVE: &str = include_str!("journal.sql");

/// A part's name, and whether a step needs it.
type Part = (&'static str, fn(&StepRow) -> bool);

/// The parts that not every batch needs. What goes with an ending mostly comes together, and so does what is rare: few
/// combinations, each of which is planned and kept.
const PARTS: [Part; 7] = [
    ("people", |row| row.event.is_some() || ends(row)),
    ("ending", ends),
    ("over", |row| row.run.is_none()),
    ("library", |row| row.library.is_some()),
    ("variants", |row| row.variants.is_some()),
    ("refs", |row| row.refs.is_some()),
    ("rare", |row| {
        row.lyrics.is_some() || row.further_task.is_some() || row.additions.is_some() || row.reserve.is_some()
    }),
];

fn ends(row: &StepRow) -> bool {
    row.settle.is_some() || row.notify.is_some()
}

/// Whether a batch needs each of the [`PARTS`].
type Needed = [bool; PARTS.len()];

fn needed(steps: &[(usize, &StepRow)]) -> Needed {
    PARTS.map(|(_, needs)| steps.iter().any(|(_, row)| needs(row)))
}

/// The statement's text. A part in another is there where both are needed.
fn text(needed: Needed) -> String {
    let mut text = String::with_capacity(MOVE.len());
    let mut within: Vec<bool> = Vec::new();
    for line in MOVE.lines() {
        match line.trim().strip_prefix("-- ") {
            Some("end") => drop(within.pop()),
            Some(mark) if mark.starts_with("if ") => {
                let place = PARTS.iter().position(|(name, _)| *name == &mark[3..]);
                within.push(place.is_none_or(|place| needed[place]));
            }
            _ if within.iter().all(|there| *there) => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    text
}

/// Every statement that there can be.
pub fn statements() -> impl Iterator<Item = String> {
    (0..1_u32 << PARTS.len()).filter_map(|bits| {
        let mut needed = [false; PARTS.len()];
        needed.iter_mut().enumerate().for_each(|(place, needed)| *needed = bits >> place & 1 == 1);
        // Whatever has an end has people.
        (needed[0] || !needed[1]).then(|| text(needed))
    })
}

/// A session's statements, each prepared when it is needed for the first time.
#[derive(Default)]
pub(super) struct Moves {
    prepared: Mutex<HashMap<Needed, Statement>>,
}

impl Moves {
    /// The statement that moves these on. To be had before the transaction: it may cost a round trip.
    pub(super) async fn statement(
        &self,
        client: &Client,
        steps: &[(usize, &StepRow)],
    ) -> Result<Option<Statement>, StoreError> {
        if steps.is_empty() {
            return Ok(None);
        }
        let needed = needed(steps);
        let known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(&needed).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let statement = client.prepare(&text(needed)).await?;
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(needed, statement.clone());
        Ok(Some(statement))
    }
}

/// Answers a row for each step that moved.
pub(super) async fn step(
    client: &Client,
    statement: Option<&Statement>,
    steps: &[(usize, &StepRow)],
    node: NodeKey,
) -> Result<Vec<Row>, StoreError> {
    let Some(statement) = statement else { return Ok(Vec::new()) };
    let rows = || steps.iter().map(|(_, row)| *row);
    let heads: Vec<Uuid> = rows().map(|row| row.head.0).collect();
    let versions: Vec<i64> = rows().map(|row| row.version).collect();
    let songs: Vec<Uuid> = rows().map(|row| row.song.0).collect();
    let users: Vec<&str> = rows().map(|row| row.user.as_str()).collect();
    let seqs: Vec<i64> = rows().map(|row| row.seq).collect();
    let runs: Vec<_> = rows().map(|row| row.run.as_ref().map(Json)).collect();
    let progress: Vec<_> = rows().map(|row| Json(&row.progress)).collect();
    let times: Vec<_> = rows().map(|row| timestamp(row.at.millis())).collect();
    let kinds: Vec<_> = rows().map(StepRow::event_kind).collect();
    let sets: Vec<_> = rows().map(|row| row.event.as_ref().map(|(_, set)| Json(set))).collect();
    let library: Vec<_> = rows().map(|row| row.library.as_ref().map(Json)).collect();
    let lyrics: Vec<_> = rows().map(|row| row.lyrics.as_ref().map(Json)).collect();
    let variants: Vec<_> = rows().map(|row| row.variants.as_ref().map(Json)).collect();
    let further: Vec<_> = rows().map(|row| row.further_task.as_ref().map(Json)).collect();
    let settles: Vec<_> = rows().map(|row| row.settle.as_ref().map(Json)).collect();
    let notify: Vec<_> = rows().map(|row| row.notify).collect();
    let refs: Vec<_> = rows().map(|row| row.refs.as_ref().map(Json)).collect();
    let reserved: Vec<_> = rows().map(|row| row.reserve.as_ref().map(|reserve| reserve.task.0)).collect();
    let additions: Vec<_> = rows().map(|row| row.additions.as_ref().map(Json)).collect();
    let providers: Vec<_> = rows().map(|row| row.provider.as_deref()).collect();
    Ok(client
        .query(
            statement,
            &[
                &node.id,
                &node.epoch,
                &heads,
                &versions,
                &songs,
                &users,
                &seqs,
                &runs,
                &progress,
                &times,
                &kinds,
                &sets,
                &library,
                &lyrics,
                &variants,
                &further,
                &settles,
                &notify,
                &refs,
                &reserved,
                &additions,
                &providers,
            ],
        )
        .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_statement_has_a_name_that_steps_can_need_and_an_end() {
        let marks = MOVE.lines().filter_map(|line| line.trim().strip_prefix("-- if "));
        let mut names: Vec<&str> = marks.clone().collect();
        names.sort_unstable();
        names.dedup();
        let mut known: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        known.sort_unstable();
        assert_eq!(names, known);
        assert_eq!(marks.count(), MOVE.lines().filter(|line| line.trim() == "-- end").count());
    }

    #[test]
    fn a_statement_holds_what_is_needed_and_nothing_else() {
        let whole = text([true; PARTS.len()]);
        let least = text([false; PARTS.len()]);
        for table in [
            "song_events",
            "credit_entries",
            "update songs",
            "song_variants",
            "provider_refs",
            "lyrics_variants",
        ] {
            assert!(whole.contains(table), "{table} is missing");
            assert!(!least.contains(table), "{table} is not needed");
        }
        assert!(least.contains("update tasks"), "every step moves its song");
        let told = text(PARTS.map(|(name, _)| name == "people"));
        assert!(told.contains("song_events") && !told.contains("credit_entries"), "an event costs nothing");
    }
}
