//! One run, from the empty stage to the report.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use songflight::time::Clock;

use super::check::{Verdict, check};
use super::commits;
use super::crowd::Crowd;
use super::figures::{Seen, Times};
use super::page;
use super::process::Usage;
use super::report;
use super::result::{Machine, Outcome, Quantiles, Used};
use super::sample::{self, Samples};
use super::scenario::Scenario;
use super::stage::{Look, Place, Stage};
use super::trouble::{self, Marks};
use super::{Failure, cannot};

/// Where the result goes besides the terminal.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub json: Option<PathBuf>,
    pub html: Option<PathBuf>,
}

/// The database publishes its figures with a delay of up to a second.
const FIGURES_AFTER: Duration = Duration::from_millis(1_500);

/// Of the simulator's own.
const PROVIDER_COUNTS: [&str; 9] = [
    "accepted",
    "refused",
    "callbacks_sent",
    "callbacks_lost",
    "callbacks_failed",
    "callback_tries_failed",
    "polls",
    "duplicates_of_intent",
    "answers_cut",
];
const TROUBLE_ENDS_WITHIN: Duration = Duration::from_secs(60);

/// Whether everything that was seen was right.
///
/// # Errors
/// When the stage cannot be set, or the result not be written.
pub async fn run(scenario: Scenario, place: &Place, wanted: &Wanted) -> Result<bool, Failure> {
    report::title(&scenario);
    let at = Clock.now().rfc3339();
    let stage = Rc::new(Stage::set(place, &scenario).await?);
    let outcome = play(&stage, &scenario, at).await;
    if let Ok(stage) = Rc::try_unwrap(stage) {
        stage.strike().await;
    }
    let outcome = outcome?;
    report::print(&outcome);
    if let Some(path) = &wanted.json {
        let text = serde_json::to_string(&outcome).map_err(cannot("the result"))?;
        std::fs::write(path, text).map_err(cannot("--json"))?;
    }
    write_page(&outcome, wanted.html.as_deref())?;
    Ok(outcome.over && outcome.checks.iter().all(|check| check.right))
}

/// # Errors
/// When it cannot be written.
pub fn write_page(outcome: &Outcome, path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, page::page(outcome)).map_err(cannot("--html"))?;
    println!("  The report: {}\n", path.display());
    Ok(())
}

async fn play(stage: &Rc<Stage>, scenario: &Scenario, at: String) -> Result<Outcome, Failure> {
    let start = stage.look().await?;
    let crowd = Crowd::gather(stage, scenario).await?;
    let bare = match (&scenario.commits, &stage.own) {
        (Some(wanted), Some(own)) => Some((own.bare_database().await?, wanted)),
        _ => None,
    };
    let mut bare_commits = Times::default();
    if let Some((database, wanted)) = &bare {
        commits::measure(database, wanted, &mut bare_commits).await?;
    }
    let before = stage.look().await?;
    let (samples, marks) = (Samples::default(), Marks::default());
    let showing = actix_web::rt::spawn(sample::watch(stage.clone(), crowd.world.clone(), samples.clone()));
    let troubles = trouble::brew(stage, &crowd.world, &marks);
    let over = crowd.go().await;
    for mut trouble in troubles {
        // One that is under way is waited for: a server that is being started again is needed.
        if tokio::time::timeout(TROUBLE_ENDS_WITHIN, &mut trouble).await.is_err() {
            trouble.abort();
            let _ = trouble.await;
        }
    }
    tokio::time::sleep(FIGURES_AFTER).await;
    showing.abort();
    let _ = showing.await;
    report::end_of_line();
    let after = stage.look().await?;
    if let Some((database, wanted)) = &bare {
        commits::measure(database, wanted, &mut bare_commits).await?;
    }
    crowd.world.seen.borrow_mut().commits = bare_commits;
    let verdict = check(&crowd, stage, &after).await;
    let provider = match &stage.own {
        Some(own) => own.provider.stats().await,
        None => Value::Null,
    };
    let seen = crowd.world.seen.borrow();
    let looks = [&start, &before, &after];
    Ok(Outcome {
        scenario: scenario.name.clone(),
        about: scenario.about.clone(),
        at,
        machine: machine(),
        source: scenario.source.clone(),
        took_s: seen.began.zip(seen.last_end).map_or(0.0, |(from, to)| to.duration_since(from).as_secs_f64()),
        over,
        counts: counts(&seen, &verdict, &provider),
        ends: verdict.ends,
        times: times(&seen),
        slowest: slowest(&seen),
        usage: usage(looks),
        per_song: per_song(looks, seen.created),
        cuts: seen.cuts.clone(),
        checks: verdict.checks,
        marks: marks.take(),
        samples: samples.take(),
        faults: verdict.faults,
    })
}

fn counts(seen: &Seen, verdict: &Verdict, provider: &Value) -> BTreeMap<String, u64> {
    let figures = verdict.figures;
    let mut counts = BTreeMap::from([
        ("orders sent", seen.sent as u64),
        ("songs created", seen.created as u64),
        ("orders refused", seen.refused as u64),
        ("songs with a first clip", seen.with_clip as u64),
        ("events", figures.events),
        ("events repeated after a resume", figures.repeated),
        ("events merged", figures.skipped),
        ("resumes", figures.resumes),
        ("snapshots", figures.snapshots),
        ("connections", seen.connections),
    ])
    .into_iter()
    .map(|(name, count)| (name.to_owned(), count))
    .collect::<BTreeMap<_, _>>();
    for name in PROVIDER_COUNTS {
        if let Some(count) = provider[name].as_u64() {
            counts.insert(format!("provider: {}", name.replace('_', " ")), count);
        }
    }
    counts
}

fn times(seen: &Seen) -> BTreeMap<String, Quantiles> {
    [
        ("bare commit", &seen.commits),
        ("create", &seen.creates),
        ("create, afterwards", &seen.creates_afterwards),
        ("rush over to calm", &seen.calm),
        ("refusal", &seen.refusals),
        ("callback to socket", &seen.callbacks),
        ("callback to rough socket", &seen.callbacks_rough),
        ("order to ready", &seen.whole),
        ("SIGKILL to all taken over", &seen.take_overs),
        ("back on the socket", &seen.returns),
        ("this program was late", &seen.late),
    ]
    .into_iter()
    .filter(|(_, times)| times.count() > 0)
    .map(|(name, times)| (name.to_owned(), Quantiles::of(times)))
    .collect()
}

fn slowest(seen: &Seen) -> Vec<(f64, String)> {
    let sorted = seen.slowest.clone().into_sorted_vec();
    sorted.into_iter().map(|Reverse((took, what))| (took.as_secs_f64() * 1000.0, what)).collect()
}

fn usage([start, before, after]: [&Look; 3]) -> BTreeMap<String, Used> {
    let used = |of: fn(&Look) -> Option<Usage>| {
        let (start, before, after) = (of(start)?, of(before)?, of(after)?);
        Some(Used {
            cpu_s: after.cpu.saturating_sub(before.cpu).as_secs_f64(),
            memory_mib: mib(after.memory_kib),
            memory_at_start_mib: mib(start.memory_kib),
            memory_gathered_mib: mib(before.memory_kib),
            peak_mib: after.peak_kib.map(mib),
        })
    };
    let all = [
        ("server", used(|look| look.server)),
        ("Postgres", used(|look| look.postgres)),
        ("load and provider", used(|look| Some(look.here))),
    ];
    all.into_iter().filter_map(|(name, used)| Some((name.to_owned(), used?))).collect()
}

fn per_song([_, before, after]: [&Look; 3], songs: usize) -> BTreeMap<String, f64> {
    let songs = songs.max(1) as f64;
    let mut all = BTreeMap::new();
    if let (Some(before), Some(after)) = (before.database, after.database) {
        for (index, name) in ["transactions", "bytes of WAL", "syncs of the WAL"].into_iter().enumerate() {
            all.insert(name.to_owned(), (after[index] - before[index]) as f64 / songs);
        }
    }
    if let (Some(before), Some(after)) = (before.journal_commits, after.journal_commits) {
        all.insert("commits of the journal".to_owned(), (after - before) / songs);
    }
    for (name, of) in [
        ("CPU ms of the server", (|look: &Look| look.server) as fn(&Look) -> Option<Usage>),
        ("CPU ms of Postgres", |look| look.postgres),
    ] {
        if let (Some(before), Some(after)) = (of(before), of(after)) {
            all.insert(name.to_owned(), after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1000.0 / songs);
        }
    }
    all
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn machine() -> Machine {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    Machine {
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        cpu: name.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
        memory_mib: kib.unwrap_or_default() / 1024,
        build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
    }
}
