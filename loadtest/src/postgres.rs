//! The Postgres of a run's own, as safe as the private one of a server, and as one that has been at work for a while.

use std::path::Path;

use songflight::ops::private_postgres::PrivatePostgres;
use songflight::store;

use super::{Failure, cannot};

/// A new cluster has no file of its log that could be used again, and makes one after the other while all who commit wait,
/// 2 ms and more for each. One that has had its first checkpoint under load, after a quarter of an hour, does so no more:
/// what is measured is that one.
const FILES_TO_USE_AGAIN: &str = "
do $$
begin
    for file in 1 .. 256 loop
        perform pg_logical_emit_message(false, 'songflight', 'something in each');
        perform pg_switch_wal();
    end loop;
end $$";

/// Starts it, and answers its first process as well.
pub async fn start(data_dir: &Path) -> Result<(PrivatePostgres, u32), Failure> {
    let postgres = PrivatePostgres::start(data_dir, |_| {}).await.map_err(cannot("the database"))?;
    let made = async {
        let client = store::connect(&postgres.config(), "load").await.map_err(cannot("the database"))?;
        for sql in [FILES_TO_USE_AGAIN, "checkpoint"] {
            client.batch_execute(sql).await.map_err(cannot("files for the database's log"))?;
        }
        first_process(data_dir)
    };
    match made.await {
        Ok(pid) => Ok((postgres, pid)),
        Err(error) => {
            postgres.stop().await;
            Err(error)
        }
    }
}

fn first_process(data_dir: &Path) -> Result<u32, Failure> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).map_err(cannot("postmaster.pid"))?;
    let first = text.lines().next().and_then(|line| line.trim().parse().ok());
    first.ok_or_else(|| Failure("no postmaster".to_owned()))
}
