//! What a run came to, as text.

use std::io::IsTerminal;

use super::result::{End, Outcome, Quantiles, best_minute};
use super::scenario::Scenario;

/// A callback that takes longer is told of by itself.
const SLOW_MS: f64 = 1_000.0;
const FAULTS_SHOWN: usize = 12;

pub fn title(scenario: &Scenario) {
    let when = match scenario.load.rate {
        Some(rate) => format!("{rate} in a second"),
        None => "all at once".to_owned(),
    };
    println!("\n  {}: {}", scenario.name, scenario.about);
    println!(
        "  {} songs, {when}, by {} people; takes about {}",
        scenario.load.songs, scenario.users.count, scenario.takes
    );
    if cfg!(debug_assertions) {
        println!("  a development build: its figures say nothing about speed");
    }
    println!();
}

/// After the line that moved.
pub fn end_of_line() {
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
}

pub fn print(outcome: &Outcome) {
    let created = outcome.counts.get("songs created").copied().unwrap_or_default();
    let ready: u64 = outcome.ends.iter().filter(|end| end.is_ready()).map(|end| end.count).sum();
    let rate = if outcome.took_s > 0.0 { ready as f64 / outcome.took_s } else { 0.0 };
    println!("\n  {created} songs made, {ready} ready, after {:.1} s ({rate:.0} songs/s)", outcome.took_s);
    if let Some(rate) = best_minute(&outcome.samples) {
        println!("  {rate:.0} ready in each second of the best minute");
    }
    println!();
    ends(&outcome.ends);
    println!("                                 count       p50       p90       p99     p99.9       max");
    for (name, times) in &outcome.times {
        row(name, times);
    }
    if outcome.slowest.first().is_some_and(|(ms, _)| *ms > SLOW_MS) {
        println!("\n  the slowest from callback to socket:");
        outcome.slowest.iter().for_each(|(ms, what)| println!("  {:>9}  {what}", time(*ms)));
    }
    usage(outcome);
    println!();
    let width = outcome.counts.keys().map(String::len).max().unwrap_or_default();
    for (name, count) in &outcome.counts {
        println!("  {name:<width$} {count:>9}");
    }
    for mark in &outcome.marks {
        println!("  at {:>6.1} s  {} ({:.1} s)", mark.from_s, mark.what, mark.to_s - mark.from_s);
    }
    if !outcome.cuts.is_empty() {
        println!("\n  sockets that were lost:");
        outcome.cuts.iter().for_each(|(how, count)| println!("  {count:>7}  {how}"));
    }
    verdict(outcome);
}

fn ends(ends: &[End]) {
    println!("  wished    mode          made by   ended as             class                  songs");
    for End { wished, mode, provider, ended_as, class, count } in ends {
        println!("  {wished:<9} {mode:<13} {provider:<9} {ended_as:<20} {class:<20} {count:>7}");
    }
    println!();
}

fn usage(outcome: &Outcome) {
    println!("\n                                 CPU   at start   gathered    at end      peak");
    for (name, used) in &outcome.usage {
        let mib = |mib: f64| format!("{mib:.0} MiB");
        println!(
            "  {name:<25} {:>7.1} s {:>10} {:>10} {:>9} {:>9}",
            used.cpu_s,
            mib(used.memory_at_start_mib),
            mib(used.memory_gathered_mib),
            mib(used.memory_mib),
            used.peak_mib.map_or_else(|| "–".to_owned(), mib)
        );
    }
    if outcome.per_song.is_empty() {
        return;
    }
    let each: Vec<_> = outcome.per_song.iter().map(|(name, value)| format!("{value:.3} {name}")).collect();
    println!("\n  per song: {}", each.join(", "));
}

fn verdict(outcome: &Outcome) {
    println!();
    if !outcome.over {
        println!("  ✗ gave up waiting for songs that had not ended");
    }
    for check in &outcome.checks {
        println!("  {} {}\n      {}", if check.right { '✓' } else { '✗' }, check.what, check.detail);
    }
    for fault in outcome.faults.iter().take(FAULTS_SHOWN) {
        println!("    {}", fault.chars().take(400).collect::<String>());
    }
    if outcome.faults.len() > FAULTS_SHOWN {
        println!("    and {} more", outcome.faults.len() - FAULTS_SHOWN);
    }
    println!();
}

fn row(name: &str, times: &Quantiles) {
    let [p50, p90, p99, p999, max] =
        [times.p50_ms, times.p90_ms, times.p99_ms, times.p999_ms, times.max_ms].map(time);
    println!("  {name:<26} {:>9} {p50:>9} {p90:>9} {p99:>9} {p999:>9} {max:>9}", times.count);
}

pub fn time(ms: f64) -> String {
    match ms {
        ms if ms >= 100_000.0 => format!("{:.0} s", ms / 1000.0),
        ms if ms >= 1000.0 => format!("{:.2} s", ms / 1000.0),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.2} ms"),
    }
}
