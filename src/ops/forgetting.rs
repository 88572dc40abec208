//! Removes dead letters that were closed long ago, once an hour (OPS-1).
//!
//! Not here: callbacks and events, which go with their day's partition.

use std::time::Duration;

use deadpool_postgres::{Object, Pool};

use crate::store::{StoreError, ask, letters};

const EVERY: Duration = Duration::from_secs(3600);
/// Removed by one statement; others follow at once.
const PAGE: i64 = 1000;

/// Removes them for ever, those that were closed so many days before.
pub async fn keep_forgetting(pool: Pool, keep_days: u32) {
    loop {
        match forget(&pool, keep_days).await {
            Ok(0) => {}
            Ok(letters) => tracing::info!(letters, "dead letters that were closed long ago were removed"),
            Err(error) => tracing::warn!(%error, "old dead letters could not be removed; again in an hour"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn forget(pool: &Pool, keep_days: u32) -> Result<u64, StoreError> {
    let page = async |client: &Object| letters::forget_old(client, keep_days, PAGE).await;
    let mut total = 0;
    loop {
        let many = ask(pool, page).await?;
        total += many;
        if i64::try_from(many).is_ok_and(|many| many < PAGE) {
            return Ok(total);
        }
    }
}
