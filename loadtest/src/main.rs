//! Makes many songs at once through a real server, watches every one of them over its owner's WebSocket,
//! checks what the owners see, and measures.
//!
//! `scenario` says what is done, `stage` what it is done with (server, database, simulator), `crowd` does it,
//! `follow` checks it, `figures` counts, `report` prints. A new kind of load is a new scenario.

mod crowd;
mod figures;
mod follow;
mod process;
mod report;
mod scenario;
mod stage;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crowd::Crowd;
use scenario::Scenario;
use stage::{Place, Stage};

#[derive(Debug, Parser)]
#[command(about, version)]
struct Arguments {
    #[command(flatten)]
    scenario: Scenario,
    #[command(flatten)]
    place: Place,
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    patience: u64,
}

/// What stood in the way, in words for whoever started it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

pub fn cannot<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Failure {
    move |error| Failure(format!("{what}: {error}"))
}

#[actix_web::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("\n  {failure}\n");
            ExitCode::from(2)
        }
    }
}

/// Whether everything that was seen was right.
async fn run(arguments: Arguments) -> Result<bool, Failure> {
    let Arguments { scenario, place, patience } = arguments;
    report::title(&scenario);
    let stage = Stage::set(&place, &scenario).await?;
    let crowd = Crowd::gather(&stage, &scenario).await?;
    let before = stage.look().await?;
    let showing = actix_web::rt::spawn(report::show_progress(crowd.seen.clone(), scenario.songs));
    let over = tokio::time::timeout(Duration::from_secs(patience), crowd.go()).await.is_ok();
    showing.abort();
    // The database publishes its figures with a delay of up to a second.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let after = stage.look().await?;
    let mut faults = crowd.check(&stage).await;
    if let Some([_, twice @ (1..)]) = after.orders {
        faults.push(format!("the provider was asked for the same thing twice, {twice} times"));
    }
    report::print(&scenario, &crowd.seen.borrow(), &before, &after, &faults, over);
    stage.strike().await;
    Ok(over && faults.is_empty())
}
