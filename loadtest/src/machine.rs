//! What the kernel and Postgres say of the effort.

use std::collections::HashMap;
use std::fs;

use songflight::ops::private_postgres::PrivatePostgres;
use tokio_postgres::{Client, NoTls};

use crate::Failed;

/// CPU time and memory up to a moment.
#[derive(Clone, Debug, Default)]
pub struct Effort {
    /// CPU milliseconds of the server, of all of Postgres, and of this process (clients and simulator).
    pub server_ms: u64,
    pub postgres_ms: u64,
    pub here_ms: u64,
    /// The server's memory in KiB: now, and at its largest.
    pub rss_kib: u64,
    pub peak_kib: u64,
    pub commits: i64,
    pub wal_bytes: i64,
}

impl Effort {
    pub async fn now(
        server: Option<u32>,
        postgres: &PrivatePostgres,
        database: &Database,
    ) -> Result<Self, Failed> {
        let server = server.ok_or("the server has ended")?;
        let (commits, wal_bytes) = database.counters().await?;
        Ok(Self {
            server_ms: cpu_ms(server),
            postgres_ms: descendants(postgres.watchdog_id()).into_iter().map(cpu_ms).sum(),
            here_ms: cpu_ms(std::process::id()),
            rss_kib: memory_kib(server, "VmRSS:"),
            peak_kib: memory_kib(server, "VmHWM:"),
            commits,
            wal_bytes,
        })
    }

    pub fn since(&self, before: &Effort) -> Effort {
        Effort {
            server_ms: self.server_ms - before.server_ms,
            // A backend that ended meanwhile took its time with it.
            postgres_ms: self.postgres_ms.saturating_sub(before.postgres_ms),
            here_ms: self.here_ms - before.here_ms,
            rss_kib: self.rss_kib,
            peak_kib: self.peak_kib,
            commits: self.commits - before.commits,
            wal_bytes: self.wal_bytes - before.wal_bytes,
        }
    }
}

/// User and system time; the kernel counts hundredths of a second.
fn cpu_ms(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) * 10
}

fn memory_kib(process: u32, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn descendants(root: u32) -> Vec<u32> {
    let mut parents: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        parents.entry(parent.unwrap_or(0)).or_default().push(process);
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(process) = found.get(at).copied() {
        found.extend(parents.remove(&process).unwrap_or_default());
        at += 1;
    }
    found
}

pub struct Database {
    client: Client,
}

impl Database {
    pub async fn connect(config: &tokio_postgres::Config) -> Result<Self, Failed> {
        let (client, connection) = config.connect(NoTls).await?;
        actix_web::rt::spawn(connection);
        Ok(Self { client })
    }

    async fn counters(&self) -> Result<(i64, i64), Failed> {
        let sql = "select (select xact_commit from pg_stat_database where datname = current_database()),
                          (pg_current_wal_lsn() - '0/0')::bigint";
        // The figures of other backends come with a delay of up to a second.
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        let row = self.client.query_one(sql, &[]).await?;
        Ok((row.get(0), row.get(1)))
    }

    /// For each song the intent of its last submission, as the provider was told it.
    pub async fn intents(&self) -> Result<HashMap<String, String>, Failed> {
        let sql = "select t.song_id::text, r.task_id || '.' || r.call || '.' || r.attempt
                     from provider_refs r join tasks t on t.id = r.task_id";
        let rows = self.client.query(sql, &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}
