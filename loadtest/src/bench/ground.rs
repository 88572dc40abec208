//! What a bench stands on: a private Postgres that syncs as in production, with the schema, and its counters.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use songflight::ops::private_postgres::PrivatePostgres;
use songflight::store;
use songflight::time::Clock;
use tokio_postgres::{Client, Config};

use crate::process::{self, Usage};
use crate::stage::postmaster;
use crate::{Failure, cannot};

pub struct Ground {
    pub database: Config,
    postgres: PrivatePostgres,
    postmaster: u32,
    look: Client,
    home: PathBuf,
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    at: Instant,
    commits: i64,
    wal_bytes: i64,
    syncs: i64,
    postgres: Usage,
    here: Usage,
}

/// What was used between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub took: Duration,
    pub commits: f64,
    pub wal_bytes: f64,
    pub syncs: f64,
    pub postgres_cpu: Duration,
    pub own_cpu: Duration,
}

impl Ground {
    pub async fn prepare() -> Result<Self, Failure> {
        let home = std::env::temp_dir().join(format!("songflight-bench-{}", std::process::id()));
        std::fs::create_dir_all(&home).map_err(cannot("a folder for the database"))?;
        let data_dir = home.join("postgres");
        let postgres = PrivatePostgres::start(&data_dir, |_| {}).await.map_err(cannot("the database"))?;
        let database = postgres.config();
        store::migrate(&database).await.map_err(cannot("the schema"))?;
        let look = store::connect(&database, "bench").await.map_err(cannot("the database"))?;
        Ok(Self { database, postmaster: postmaster(&data_dir)?, postgres, look, home })
    }

    pub async fn connect(&self) -> Result<Client, Failure> {
        store::connect(&self.database, "bench").await.map_err(cannot("the database"))
    }

    /// Everything of the past is on disk and in the counters.
    pub async fn moment(&self) -> Result<Moment, Failure> {
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
            here: process::usage(std::process::id()),
        })
    }

    pub async fn checkpoint(&self) -> Result<(), Failure> {
        for sql in ["vacuum analyze", "checkpoint"] {
            self.look.batch_execute(sql).await.map_err(cannot("a checkpoint"))?;
        }
        Ok(())
    }

    pub async fn leave(self) {
        drop(self.look);
        self.postgres.stop().await;
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

impl Moment {
    pub fn until(self, later: Self) -> Spent {
        Spent {
            took: later.at.duration_since(self.at),
            commits: (later.commits - self.commits) as f64,
            wal_bytes: (later.wal_bytes - self.wal_bytes) as f64,
            syncs: (later.syncs - self.syncs) as f64,
            postgres_cpu: later.postgres.cpu.saturating_sub(self.postgres.cpu),
            own_cpu: later.here.cpu.saturating_sub(self.here.cpu),
        }
    }
}
