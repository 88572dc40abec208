//! Moving songs on: what many steps write, a statement for each table. A batch is sent those of them that its steps
//! need, all in one round trip, and all of its steps move or none does.
//!
//! Not here: what a step's columns are (`row`), the transaction around it and what becomes of steps that do not move
//! (`session`), when it is sent and what becomes of a broken connection (`journal`).

mod library;
mod people;
mod tasks;

use std::collections::{HashMap, HashSet};

use tokio_postgres::Client;

use self::library::Library;
use self::people::People;
use self::tasks::Tasks;
use super::StoreError;
use super::journal::NodeKey;
use super::row::StepRow;
use crate::id::TaskId;
use crate::time::Time;

/// A session's statements. Each is planned once, whatever the tables hold at that time and however many rows a batch
/// has: a plan each time would cost more than small batches themselves. It does well in any case because tables are
/// reached by their keys alone (the session allows no other way).
pub(super) struct Moves {
    library: Library,
    tasks: Tasks,
    people: People,
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

/// A user's newest event, and when it was committed.
type Newest = HashMap<String, (i64, Time)>;

impl Moves {
    pub(super) async fn prepare(client: &Client) -> Result<Self, StoreError> {
        let (library, tasks, people) =
            tokio::try_join!(Library::prepare(client), Tasks::prepare(client), People::prepare(client))?;
        Ok(Self { library, tasks, people })
    }

    /// Answers of each step, in their order, the number of its event and when it was committed, if watchers are to be told.
    ///
    /// The library comes first: a task that ends with a failure looks there for what failed (`migrations/V7`). Then the
    /// heads, which stop all that follows unless every one of them moves.
    pub(super) async fn write(
        &self,
        client: &Client,
        steps: &[&StepRow],
        node: NodeKey,
    ) -> Result<Vec<Option<(i64, Time)>>, NotMoved> {
        let back = back(steps);
        // `join` polls in this order, and the client sends what is polled.
        let (songs, moved, newest, events, variants, texts, further, notices) = tokio::join!(
            biased;
            self.library.songs(client, steps),
            self.tasks.heads(client, steps, node),
            self.people.number(client, steps),
            self.people.events(client, steps, &back),
            self.library.variants(client, steps),
            self.library.texts(client, steps),
            self.tasks.further(client, steps, node),
            self.people.notices(client, steps),
        );
        // Of several errors the first one says why.
        songs?;
        moved?;
        let newest = newest?;
        events.and(variants).and(texts).and(further).and(notices)?;
        let told = steps.iter().zip(back).map(|(row, back)| {
            let (u, at) = newest.get(row.user.as_str()).filter(|_| row.event.is_some())?;
            Some((u - back, *at))
        });
        Ok(told.collect())
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
}

/// How many events of its user come after each step's in the batch.
fn back(steps: &[&StepRow]) -> Vec<i64> {
    let mut after: HashMap<&str, i64> = HashMap::new();
    let mut back: Vec<i64> = steps
        .iter()
        .rev()
        .map(|row| {
            let after = after.entry(row.user.as_str()).or_default();
            let back = *after;
            *after += i64::from(row.event.is_some());
            back
        })
        .collect();
    back.reverse();
    back
}
