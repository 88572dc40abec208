//! Makes many songs at once through a real server, watches every one of them over its owner's WebSocket,
//! checks what the owners see, and measures.
//!
//! `scenario` says what is done; `stage` is what it is done with (`server`, database, `provider`); `crowd`, `person` and
//! `socket` do it while `trouble` comes by the clock; `follow` and `check` hold it against the rules; `figures` and
//! `sample` count. What came of it is an `Outcome` (`result`), which `report`, `page` and `compare` show. A new kind of
//! load is a new file in `scenarios/`. `bench` measures single things beside the least that they could cost.

mod bench;
mod check;
mod commits;
mod compare;
mod crowd;
mod figures;
mod follow;
mod page;
mod person;
mod postgres;
mod process;
mod provider;
mod report;
mod result;
mod run;
mod sample;
mod scenario;
mod server;
mod socket;
mod stage;
mod trouble;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use run::{Wanted, run};
use scenario::{BUILT_IN, Scenario};
use stage::Place;

#[derive(Debug, Parser)]
#[command(about, version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario; without a name, the burst
    Run(Run),
    /// What there is to be run
    List,
    /// A result again, as text or as a report with plots
    Show {
        result: PathBuf,
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Two results side by side
    Compare { before: PathBuf, after: PathBuf },
    /// What one thing costs, beside the least that it could cost
    Bench {
        #[command(subcommand)]
        bench: bench::Bench,
    },
}

#[derive(Clone, Debug, Args)]
struct Run {
    /// One of `list`, or a TOML file
    #[arg(default_value = "burst")]
    scenario: String,
    /// So many songs in place of the scenario's
    #[arg(long)]
    songs: Option<usize>,
    /// So many people in place of the scenario's
    #[arg(long)]
    users: Option<usize>,
    /// Write the result here, to be compared with another
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report with its plots here
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// The server's own: what it is measured with should cost as little as that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    let done = match arguments.command.unwrap_or(Command::Run(arguments.run)) {
        Command::Run(wanted) => start(wanted).await,
        Command::List => list(),
        Command::Show { result, html } => compare::read(&result).and_then(|outcome| {
            report::print(&outcome);
            run::write_page(&outcome, html.as_deref())?;
            Ok(true)
        }),
        Command::Compare { before, after } => compare(&before, &after),
        Command::Bench { bench } => bench::run(bench).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("\n  {failure}\n");
            ExitCode::from(2)
        }
    }
}

fn list() -> Result<bool, Failure> {
    println!();
    for (name, text) in BUILT_IN {
        let scenario = Scenario::read(name, text)?;
        println!("  {name:<17} {:<8} {}", scenario.takes, scenario.about);
    }
    println!("\n  songflight-loadtest run <name or file>\n");
    Ok(true)
}

fn compare(before: &Path, after: &Path) -> Result<bool, Failure> {
    compare::print(&compare::read(before)?, &compare::read(after)?);
    Ok(true)
}

/// Whether everything that was seen was right.
async fn start(wanted: Run) -> Result<bool, Failure> {
    let mut scenario = Scenario::find(&wanted.scenario)?;
    if let Some(songs) = wanted.songs {
        scenario.load.songs = songs;
    }
    if let Some(users) = wanted.users {
        scenario.users.count = users.max(1);
    }
    run(scenario, &wanted.place, &Wanted { json: wanted.json, html: wanted.html }).await
}
