//! What a bench stands on: a private Postgres that syncs as in production, with the schema, and its counters.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use songflight::ops::private_postgres::PrivatePostgres;
use songflight::store;
use songflight::time::Clock;
use tokio_postgres::{Client, Config};

use crate::process::{self, Usage};
use crate::{Failure, cannot};

/// A Postgres of this run's own, as safe as the private one of a server: it waits for its disk.
pub(super) struct Ground {
    postgres: PrivatePostgres,
    postmaster: u32,
    home: PathBuf,
}

/// A look at one of its databases from outside.
pub(super) struct Counters {
    look: Client,
    postmaster: u32,
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    at: Instant,
    commits: i64,
    wal_bytes: i64,
    syncs: i64,
    postgres: Usage,
}

/// What was used between two moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub(super) took: Duration,
    pub(super) commits: f64,
    pub(super) wal_bytes: f64,
    pub(super) syncs: f64,
    pub(super) postgres_cpu: Duration,
}

impl Ground {
    pub(super) async fn prepare() -> Result<Self, Failure> {
        let home = std::env::temp_dir().join(format!("songflight-bench-{}", std::process::id()));
        std::fs::create_dir_all(&home).map_err(cannot("a folder for the database"))?;
        let data_dir = home.join("postgres");
        match crate::postgres::start(&data_dir).await {
            Ok((postgres, postmaster)) => Ok(Self { postgres, postmaster, home }),
            Err(error) => {
                let _ = std::fs::remove_dir_all(&home);
                Err(error)
            }
        }
    }

    /// A new database with our tables.
    pub(super) async fn database(&self, name: &str) -> Result<Config, Failure> {
        let database = self.postgres.fresh_database(name).await.map_err(cannot("a database"))?;
        store::migrate(&database).await.map_err(Failure)?;
        Ok(database)
    }

    pub(super) async fn counters(&self, database: &Config) -> Result<Counters, Failure> {
        let look = store::connect(database, "bench").await.map_err(cannot("the database"))?;
        Ok(Counters { look, postmaster: self.postmaster })
    }

    /// Stops it, and takes its files away.
    pub(super) async fn clear(self) {
        self.postgres.stop().await;
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

impl Counters {
    /// Everything of the past is on disk and in the counters.
    pub(super) async fn moment(&self) -> Result<Moment, Failure> {
        let sql = "select (select sum(xact_commit)::bigint from pg_stat_database where datname = current_database()),
                          pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, wal_sync
                     from pg_stat_wal";
        // Counters of other sessions are told with a delay of up to a second.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let row = self.look.query_one(sql, &[]).await.map_err(cannot("the database's figures"))?;
        Ok(Moment {
            at: Clock.monotonic(),
            commits: row.get(0),
            wal_bytes: row.get(1),
            syncs: row.get(2),
            postgres: process::family(self.postmaster),
        })
    }

    pub(super) async fn checkpoint(&self) -> Result<(), Failure> {
        for sql in ["vacuum analyze", "checkpoint"] {
            self.look.batch_execute(sql).await.map_err(cannot("a checkpoint"))?;
        }
        Ok(())
    }
}

impl Moment {
    pub(super) fn until(self, later: Self) -> Spent {
        Spent {
            took: later.at.duration_since(self.at),
            commits: (later.commits - self.commits) as f64,
            wal_bytes: (later.wal_bytes - self.wal_bytes) as f64,
            syncs: (later.syncs - self.syncs) as f64,
            postgres_cpu: later.postgres.cpu.saturating_sub(self.postgres.cpu),
        }
    }
}
