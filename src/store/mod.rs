//! All SQL. A file for each family of tables; `journal` is the one writer of songs.
//!
//! Not here: what a change means (`song::step`), who may ask for it (`api`).

use std::sync::Arc;

use actix::Message;
use serde_json::value::RawValue;

use crate::id::{SongId, UserId};
use crate::song::event::EventKind;
use crate::time::Time;

/// Something public changed and is durable. Sent by the journal in the order of the commits; whoever
/// takes it may lose it, because `u` is dense: a gap is seen and read from Postgres (`protocol.md` 1).
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct SongChanged {
    pub user: UserId,
    pub song: SongId,
    pub seq: i64,
    pub u: i64,
    /// When it was committed.
    pub at: Time,
    pub kind: EventKind,
    /// A JSON object: the top-level fields that changed, with their new values.
    pub set: Arc<RawValue>,
}

/// What the caller can do about a failed statement.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres is away or too busy: the same later may work. 503 with `Retry-After`.
    #[error("the database is away: {0}")]
    Unavailable(String),
    /// The connection broke while a commit was on its way: it may have happened. Read back, never repeat.
    #[error("the database may or may not have committed: {0}")]
    Unknown(String),
    /// The statement itself was refused: a bug, or a row that no longer fits.
    #[error("the database refused: {0}")]
    Refused(String),
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = describe(&error);
        match error.code().map(tokio_postgres::error::SqlState::code) {
            // 08 connection, 53 resources (connections, disk, memory), 57 shutdown and time-out,
            // 58 system error, 25006 read-only after a fail-over, 40 serialisation and deadlock.
            Some(code)
                if ["08", "53", "57", "58", "40"].iter().any(|class| code.starts_with(class))
                    || code == "25006" =>
            {
                StoreError::Unavailable(text)
            }
            Some(_) => StoreError::Refused(text),
            None => StoreError::Unavailable(text),
        }
    }
}

impl From<deadpool_postgres::PoolError> for StoreError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => StoreError::Unavailable(describe(&error)),
            other => StoreError::Unavailable(other.to_string()),
        }
    }
}

/// The error and what caused it, which `Display` alone leaves out.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({}): {}", db.severity(), db.code().code(), db.message()),
        None => std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": "),
    }
}
