//! What one thing costs beside the least that it could cost, both measured in the same run on the same machine: rates
//! and times swing with the disk and with whoever else is at work, their ratio does not.
//!
//! A measurement is a file in `bench/`. What they share stands here: a database of their own, doing a thing for a while
//! with so many under way, and the table. Not here: whole songs under load, which are scenarios (`run`).

mod bare;
mod create;
mod ground;
mod journal;
#[allow(dead_code, reason = "shared with the journal's tests, which need more of it")]
#[path = "../../tests/journal/life.rs"]
mod life;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use clap::Subcommand;
use futures_util::future::try_join_all;
use songflight::time::Clock;

use super::figures::Times;
use super::{Failure, report};
use ground::Ground;

#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// A song's creation, beside a bare `select 1`
    Create(create::Wanted),
    /// The lives of many songs, written by the journal and by a bare writer (about 1 min)
    Journal(journal::Wanted),
}

/// # Errors
/// When something could not be started, or was not done as it should be.
pub async fn run(bench: Bench) -> Result<bool, Failure> {
    match bench {
        Bench::Create(wanted) => create::run(&wanted).await,
        Bench::Journal(wanted) => journal::run(&wanted).await,
    }
}

/// The middle one of a few, by nearest rank; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).abs() < f64::EPSILON);
    }
}
