//! What is shown: progress while it runs, and a table at the end.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::time::Duration;

use songflight::time::Clock;

use super::figures::{Seen, Times};
use super::process::Usage;
use super::scenario::Scenario;
use super::stage::Look;

pub fn title(scenario: &Scenario) {
    let [least, most] = scenario.latency();
    println!(
        "\n  {} songs ({}) ordered at once by {} people; the provider takes {} to {}",
        scenario.songs,
        scenario.mode.as_str(),
        scenario.users(),
        time(Some(Duration::from_millis(least))),
        time(Some(Duration::from_millis(most))),
    );
    if cfg!(debug_assertions) {
        println!("  a development build: its figures say nothing about speed");
    }
    println!();
}

/// One line that is written over and over, where somebody sees it.
pub async fn show_progress(seen: Rc<RefCell<Seen>>, songs: usize) {
    while std::io::stderr().is_terminal() {
        {
            let seen = seen.borrow();
            let passed = seen.began.map(|began| Clock.monotonic().duration_since(began)).unwrap_or_default();
            let done = (seen.ready + seen.lost) * 30 / songs.max(1);
            let bar: String = (0..30).map(|at| if at < done { '█' } else { '·' }).collect();
            eprint!(
                "\r  {bar}  created {}  with a clip {}  ready {}/{songs}  {:.1} s ",
                seen.created,
                seen.with_clip,
                seen.ready,
                passed.as_secs_f64()
            );
            let _ = std::io::stderr().flush();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub fn print(scenario: &Scenario, seen: &Seen, before: &Look, after: &Look, faults: &[String], over: bool) {
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    let songs = scenario.songs.max(1);
    let took = seen.began.zip(seen.ended).map(|(began, ended)| ended.duration_since(began));
    let rate = took.map_or(0.0, |took| seen.ready as f64 / took.as_secs_f64());
    println!("  {} of {songs} ready after {} ({rate:.0} songs/s)\n", seen.ready, time(took));
    println!("                              p50        p99        max");
    row("create", &seen.creates);
    row("callback to socket", &seen.callbacks);
    row("order to ready", &seen.whole);
    println!("\n                              CPU    per song     memory       peak");
    usage("server", before.server, after.server, songs);
    usage("Postgres", before.postgres, after.postgres, songs);
    usage("this, with the provider", Some(before.here), Some(after.here), songs);
    if let (Some(before), Some(after)) = (before.database, after.database) {
        let each = |index: usize| (after[index] - before[index]) as f64 / songs as f64;
        println!(
            "\n  per song: {:.2} transactions, {:.0} bytes of WAL, {:.3} syncs",
            each(0),
            each(1),
            each(2)
        );
    }
    if let (Some(before), Some(after)) = (before.journal_commits, after.journal_commits) {
        println!("  the journal: {:.3} commits per song", (after - before) as f64 / songs as f64);
    }
    if let Some([accepted, twice]) = after.orders {
        println!("  the provider: {accepted} orders, {twice} of them twice");
    }
    println!(
        "\n  create: from the request to the whole answer, {songs} at the same moment. callback to socket: from \
         the\n  simulator's writing the callback to its event's being read from the socket, by one clock \
         ({} of them).",
        seen.callbacks.count()
    );
    verdict(seen, faults, over);
}

fn verdict(seen: &Seen, faults: &[String], over: bool) {
    if over && faults.is_empty() {
        println!("  Every event of every song came, once and in order; every song is as HTTP tells it.\n");
        return;
    }
    if !over {
        println!("\n  Gave up waiting: {} are ready, {} were lost.", seen.ready, seen.lost);
    }
    println!("\n  {} faults:", faults.len());
    for fault in faults.iter().take(10) {
        println!("    {fault}");
    }
    println!();
}

fn row(name: &str, times: &Times) {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| time(times.quantile(share)));
    println!("  {name:<20} {p50:>10} {p99:>10} {max:>10}");
}

fn usage(name: &str, before: Option<Usage>, after: Option<Usage>, songs: usize) {
    let (Some(before), Some(after)) = (before, after) else { return };
    let cpu = after.cpu.saturating_sub(before.cpu);
    let each = cpu / u32::try_from(songs).unwrap_or(u32::MAX);
    println!(
        "  {name:<23} {:>7} {:>11} {:>10} {:>10}",
        time(Some(cpu)),
        time(Some(each)),
        memory(Some(after.memory_kib)),
        memory(after.peak_kib)
    );
}

fn memory(kib: Option<u64>) -> String {
    kib.map_or_else(|| "–".to_owned(), |kib| format!("{:.1} MiB", kib as f64 / 1024.0))
}

fn time(time: Option<Duration>) -> String {
    let Some(time) = time else { return "–".to_owned() };
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds => format!("{:.2} ms", seconds * 1000.0),
    }
}
