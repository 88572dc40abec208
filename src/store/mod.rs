//! All SQL. A file for each family of tables; songs are written by `journal` alone.
//!
//! Not here: what a change means (`song::step`), who may ask for it (`api`).

pub mod accounts;
mod asking;
pub mod audit;
pub mod births;
pub mod claims;
mod columns;
pub mod database;
pub mod feed;
pub mod insight;
pub mod journal;
mod lanes;
pub mod ledger;
pub mod letters;
pub mod moves;
pub mod nodes;
pub mod orders;
pub mod revocations;
pub mod row;
pub mod server;
mod session;
pub mod songs;
pub mod stuck;

use std::sync::Arc;

use actix::Message;
use serde_json::value::RawValue;

pub use self::asking::{ask, ask_within, pool};
use self::server::Server;
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
            // 58 system error, 25006 read-only after a fail-over, 25P03 waited too long within a transaction, 40
            // serialisation and deadlock.
            Some(code)
                if ["08", "53", "57", "58", "40"].iter().any(|class| code.starts_with(class))
                    || ["25006", "25P03"].contains(&code) =>
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

fn time(stamp: jiff::Timestamp) -> Time {
    Time::from_millis(stamp.as_millisecond())
}

/// As Postgres takes it; times beyond its range are the farthest it has.
fn timestamp(millis: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX)
}

/// A connection of its own, for whoever keeps one: the journal, audits, migrations. The name shows in
/// `pg_stat_activity`.
///
/// # Errors
/// [`StoreError::Unavailable`] when none can be had.
pub async fn connect(server: impl Into<Server>, name: &str) -> Result<tokio_postgres::Client, StoreError> {
    let Server { config, tls } = server.into().named(name);
    // Whatever it says (a password that changed, a server that lets nobody in yet), no row is to blame.
    let connected = config.connect(tls).await;
    let (client, connection) = connected.map_err(|error| StoreError::Unavailable(describe(&error)))?;
    actix::spawn(async move {
        if let Err(error) = connection.await {
            tracing::info!(error = describe(&error), "a database connection ended");
        }
    });
    Ok(client)
}

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// How often a migration is tried that others are in the way of.
const MIGRATION_ATTEMPTS: u32 = 30;
/// For whoever waited for one meanwhile.
const MIGRATION_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// How audits of a running service are called in `pg_stat_activity`.
pub const AUDIT: &str = "songflight audit";
/// They come again in an hour; whoever starts wants to start now.
const END_AUDITS: &str = "select pg_cancel_backend(pid) from pg_stat_activity
    where application_name = $1 and datname = current_database() and usename = current_user";

fn is_in_the_way(error: &refinery::Error) -> bool {
    use tokio_postgres::error::SqlState;
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let codes = causes.filter_map(|cause| cause.downcast_ref::<tokio_postgres::Error>()?.code());
    codes
        .into_iter()
        .any(|code| [SqlState::T_R_DEADLOCK_DETECTED, SqlState::LOCK_NOT_AVAILABLE].contains(code))
}

/// The newest migration in the database, if this program does not have it: it was the next version's. What a migration does
/// lets the version before work on, and so must be able to start (a restart, or the way back from an upgrade).
async fn newer_than_this(client: &tokio_postgres::Client) -> Result<Option<i64>, String> {
    let runner = embedded::migrations::runner();
    let known = runner.get_migrations().iter().map(|one| i64::from(one.version())).max();
    let there = "select to_regclass('refinery_schema_history') is not null";
    let row = client.query_one(there, &[]).await.map_err(|error| error.to_string())?;
    if !row.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client.query_one("select max(version)::bigint from refinery_schema_history", &[]).await;
    let newest: Option<i64> = row.map_err(|error| error.to_string())?.get(0);
    Ok(newest.filter(|newest| known.is_some_and(|known| *newest > known)))
}

/// Makes the migrations that are missing; answers how many.
async fn apply(client: &mut tokio_postgres::Client) -> Result<usize, String> {
    let mut attempt = 1;
    loop {
        match embedded::migrations::runner().run_async(client).await {
            Ok(report) => return Ok(report.applied_migrations().len()),
            // What nodes of the version before are writing and a migration may wait for each other; one of them is ended.
            // And as long as a migration waits for somebody who reads, everybody who comes later waits for the migration.
            Err(error) if attempt < MIGRATION_ATTEMPTS && is_in_the_way(&error) => {
                tracing::warn!(%error, "a migration and somebody else are in each other's way; once more");
                // Also one of a version before this, which holds all tables until its last question.
                client.execute(END_AUDITS, &[&AUDIT]).await.map_err(|error| error.to_string())?;
                tokio::time::sleep(MIGRATION_PAUSE).await;
                attempt += 1;
            }
            Err(error) => return Err(format!("a migration failed: {error}")),
        }
    }
}

/// Brings the schema up to date, one process at a time. One that a later version has brought further is left as it is.
///
/// # Errors
/// What stood in the way, in words for an operator.
pub async fn migrate(server: impl Into<Server>) -> Result<usize, String> {
    let mut client = connect(server, "songflight migrate").await.map_err(|error| error.to_string())?;
    client.batch_execute("select pg_advisory_lock(5470600)").await.map_err(|error| error.to_string())?;
    client.batch_execute("set lock_timeout = '2s'").await.map_err(|error| error.to_string())?;
    let applied = match newer_than_this(&client).await? {
        None => apply(&mut client).await?,
        Some(newer) => {
            tracing::warn!("the database is at migration {newer}, of a later version; it is left as it is");
            0
        }
    };
    // Days are made a week ahead; if somebody reads for long just now, the hourly round makes up for it.
    if let Err(error) = client.batch_execute("select make_days()").await {
        tracing::warn!(error = describe(&error), "the coming days' partitions are made later");
    }
    // A log that came from another server (a restored dump) is not the one that clients' cursors speak of.
    let epoch = "update event_log set epoch = epoch + 1, system_identifier = s.system_identifier::text
                   from pg_control_system() s where event_log.system_identifier <> s.system_identifier::text";
    client.batch_execute(epoch).await.map_err(|error| error.to_string())?;
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use super::embedded::migrations::runner;

    /// What databases that exist have run. One that finds another text under its number refuses to start: a migration is
    /// never edited, renamed or taken away, and each new one gets its line here.
    const RUN: [(&str, u64); 21] = [
        ("V1__songs", 8_374_984_745_123_961_302),
        ("V2__create_song", 11_777_778_220_981_482_804),
        ("V3__task_kinds", 6_665_573_189_111_020_625),
        ("V4__plans", 6_565_982_313_343_807_518),
        ("V5__row_level_security", 983_741_953_242_558_331),
        ("V6__orders", 13_482_066_058_612_100_442),
        ("V7__operators", 16_638_885_302_215_693_051),
        ("V8__fewer_writes", 9_598_027_877_093_295_467),
        ("V9__costs_and_letters", 10_164_488_729_250_379_784),
        ("V10__only_those_named", 17_668_726_576_495_094_409),
        ("V11__plain_events", 11_459_265_888_036_086_021),
        ("V12__fewer_look_ups", 14_202_670_231_910_386_440),
        ("V13__ledgers_key", 15_278_994_424_322_637_532),
        ("V14__a_node_goes_on", 11_668_497_656_973_327_920),
        ("V15__smaller_commits", 1_095_073_630_433_990_846),
        ("V16__all_or_none", 141_128_704_204_181_187),
        ("V17__a_cheaper_rank", 6_554_328_513_991_244_767),
        ("V18__shared_with_users", 11_108_046_254_093_962_689),
        ("V19__revocations", 84_189_650_133_194_262),
        ("V20__old_letters", 3_361_160_545_063_424_632),
        ("V21__links_and_guests", 13_360_555_408_216_435_069),
    ];

    #[test]
    fn migrations_stay_as_they_were_run() {
        let mut all = runner().get_migrations().clone();
        all.sort_by_key(|one| one.version());
        let all: Vec<_> = all.iter().map(|one| (one.to_string(), one.checksum())).collect();
        let run = RUN.map(|(name, checksum)| (name.to_owned(), checksum));
        assert_eq!(all, run);
    }
}
