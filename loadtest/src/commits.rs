//! The least that makes anything durable here: a row changed and committed, so many times a second, half of them before
//! the load and half after it: a disk that is slow for a moment is so for both.
//! What a callback takes to its watchers' sockets is held against this (`durability.md` section 8).

use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use songflight::store;
use songflight::time::Clock;
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config};

use super::crowd::until;
use super::figures::Times;
use super::scenario::Commits;
use super::{Failure, cannot};

/// Connections that commit in turn; those that commit at the same moment share a sync.
const SIDE_BY_SIDE: usize = 32;

/// Adds to `times` how long each took of one half of them, from the moment it was to begin.
pub async fn measure(database: &Config, wanted: &Commits, times: &mut Times) -> Result<(), Failure> {
    let mut clients: Vec<Rc<Mutex<Client>>> = Vec::new();
    for number in 0..SIDE_BY_SIDE {
        let client = store::connect(database, "load").await.map_err(cannot("the database"))?;
        if number == 0 {
            let table = format!(
                "create table if not exists bare_rows (id integer primary key, n bigint not null) with (fillfactor = 50);
                 insert into bare_rows select i, 0 from generate_series(0, {SIDE_BY_SIDE} - 1) i on conflict do nothing"
            );
            client.batch_execute(&table).await.map_err(cannot("a table"))?;
        }
        clients.push(Rc::new(Mutex::new(client)));
    }
    let began = Clock.monotonic();
    let many = (wanted.lasts.as_secs_f64() * wanted.rate / 2.0) as usize;
    let mut commits: FuturesUnordered<_> = (0..many)
        .map(|number| {
            let at = Duration::from_secs_f64(number as f64 / wanted.rate);
            let client = clients[number % SIDE_BY_SIDE].clone();
            async move {
                until(began, at).await;
                let sql = format!("update bare_rows set n = n + 1 where id = {}", number % SIDE_BY_SIDE);
                client.lock().await.batch_execute(&sql).await?;
                Ok::<_, tokio_postgres::Error>(Clock.monotonic().duration_since(began).saturating_sub(at))
            }
        })
        .collect();
    while let Some(took) = commits.next().await {
        times.add(took.map_err(cannot("a commit"))?);
    }
    Ok(())
}
