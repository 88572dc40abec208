//! What one thing costs beside the least that it could cost, both measured in the same run on the same machine: rates
//! and times swing with the disk and with whoever else is at work, their ratio does not.
//!
//! A measurement is a file in `bench/`. What they share stands here: a database of their own, doing a thing for a while
//! with so many under way, and the table. Not here: whole songs under load, which are scenarios (`run`).

mod create;
#[allow(dead_code, reason = "shared with the journal's tests, which need more of it")]
#[path = "../../tests/journal/life.rs"]
mod life;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use futures_util::future::try_join_all;
use songflight::ops::private_postgres::PrivatePostgres;
use songflight::time::Clock;

use super::figures::Times;
use super::{Failure, cannot, report};

#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// A song's creation, beside a bare `select 1`
    Create(create::Wanted),
}

/// # Errors
/// When something could not be started, or was not done as it should be.
pub async fn run(bench: Bench) -> Result<bool, Failure> {
    match bench {
        Bench::Create(wanted) => create::run(&wanted).await,
    }
}

/// A Postgres of this run's own, as safe as the private one of a server: it waits for its disk.
struct Ground {
    postgres: PrivatePostgres,
    home: PathBuf,
}

impl Ground {
    async fn prepare() -> Result<Self, Failure> {
        let home = std::env::temp_dir().join(format!("songflight-bench-{}", std::process::id()));
        std::fs::create_dir_all(&home).map_err(cannot("a folder for the database"))?;
        match PrivatePostgres::start(&home.join("postgres"), |_| {}).await {
            Ok(postgres) => Ok(Self { postgres, home }),
            Err(error) => {
                let _ = std::fs::remove_dir_all(&home);
                Err(cannot("the database")(error))
            }
        }
    }

    /// A new database with our tables.
    async fn database(&self, name: &str) -> Result<tokio_postgres::Config, Failure> {
        let database = self.postgres.fresh_database(name).await.map_err(cannot("a database"))?;
        songflight::store::migrate(&database).await.map_err(Failure)?;
        Ok(database)
    }

    /// Stops it, and takes its files away.
    async fn clear(self) {
        self.postgres.stop().await;
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// Does a thing again and again for so long, with so many under way. `act` is told which time it is, and answers how
/// long the part of it took that counts.
async fn keep_doing<F: Future<Output = Result<Duration, Failure>>>(
    times: &mut Times,
    in_flight: usize,
    long: Duration,
    act: impl Fn(usize) -> F,
) -> Result<(), Failure> {
    let (begun, next, times) = (Clock.monotonic(), Cell::new(0), RefCell::new(times));
    let one_after_the_other = async || {
        while begun.elapsed() < long {
            let took = act(next.replace(next.get() + 1)).await?;
            times.borrow_mut().add(took);
        }
        Ok(())
    };
    try_join_all((0..in_flight).map(|_| one_after_the_other())).await.map(drop)
}

/// A thing that was measured.
struct Row {
    name: &'static str,
    in_flight: usize,
    times: Times,
}

/// Every row with how many times the first one of as many in flight it is.
fn print(rows: &[Row]) {
    println!("                           in flight     count       p50       p99   times: p50     p99");
    for row in rows {
        let beside = rows.iter().find(|other| other.in_flight == row.in_flight);
        let of = |share| (row.times.quantile_ms(share), beside.and_then(|row| row.times.quantile_ms(share)));
        let told = |share| of(share).0.map_or_else(|| "-".to_owned(), report::time);
        let ratio = |share| match of(share) {
            (Some(this), Some(least)) => format!("{:.1}", this / least),
            _ => "-".to_owned(),
        };
        println!(
            "  {:<26} {:>7} {:>9} {:>9} {:>9} {:>12} {:>7}",
            row.name,
            row.in_flight,
            row.times.count(),
            told(0.5),
            told(0.99),
            ratio(0.5),
            ratio(0.99)
        );
    }
}
