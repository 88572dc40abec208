//! Two results side by side: what got better, what worse.

use super::report::time;
use super::result::Outcome;
use super::{Failure, cannot};

/// Differences below this share are noise.
const NOISE: f64 = 0.05;

pub fn read(path: &std::path::Path) -> Result<Outcome, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(cannot(&name))?;
    serde_json::from_str(&text).map_err(cannot(&name))
}

pub fn print(before: &Outcome, after: &Outcome) {
    println!("\n  {} ({})  →  {} ({})\n", before.scenario, before.at, after.scenario, after.at);
    if before.scenario != after.scenario || before.source != after.source {
        println!("  These are different scenarios.\n");
    }
    if before.machine.build != after.machine.build || before.machine.cpu != after.machine.cpu {
        println!("  These were different builds or machines.\n");
    }
    println!("                                        before       after");
    line("took", before.took_s * 1000.0, after.took_s * 1000.0, time);
    for (name, was) in &before.times {
        let Some(is) = after.times.get(name) else { continue };
        for (share, was, is) in
            [("p50", was.p50_ms, is.p50_ms), ("p99", was.p99_ms, is.p99_ms), ("max", was.max_ms, is.max_ms)]
        {
            line(&format!("{name}, {share}"), was, is, time);
        }
    }
    for (name, was) in &before.usage {
        let Some(is) = after.usage.get(name) else { continue };
        line(&format!("{name}, CPU"), was.cpu_s * 1000.0, is.cpu_s * 1000.0, time);
        let peak = |used: &super::result::Used| used.peak_mib.unwrap_or(used.memory_mib);
        line(&format!("{name}, memory at most"), peak(was), peak(is), |mib| format!("{mib:.0} MiB"));
    }
    for (name, was) in &before.per_song {
        let Some(is) = after.per_song.get(name) else { continue };
        line(&format!("for each song, {name}"), *was, *is, |value| format!("{value:.3}"));
    }
    let ready = |outcome: &Outcome| {
        outcome.ends.iter().filter(|end| end.is_ready()).map(|end| end.count).sum::<u64>() as f64
    };
    line("songs ready", ready(before), ready(after), |count| format!("{count:.0}"));
    for check in &after.checks {
        let was = before.checks.iter().find(|other| other.what == check.what).is_none_or(|other| other.right);
        if was != check.right {
            println!(
                "  {} {}: {}",
                if check.right { "✓ right again:" } else { "✗ wrong at last:" },
                check.what,
                check.detail
            );
        }
    }
    println!();
}

fn line(name: &str, before: f64, after: f64, shown: impl Fn(f64) -> String) {
    let change = change(before, after);
    println!("  {name:<32} {:>11} {:>11}  {change}", shown(before), shown(after));
}

fn change(before: f64, after: f64) -> String {
    match after / before {
        ratio if !ratio.is_finite() || (ratio - 1.0).abs() < NOISE => String::new(),
        ratio if ratio >= 2.0 => format!("× {ratio:.1}"),
        ratio => format!("{:+.0} %", (ratio - 1.0) * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_changes_are_not_told() {
        let told = [(100.0, 104.0), (100.0, 120.0), (100.0, 50.0), (1.0, 3.0), (0.0, 1.0)]
            .map(|(a, b)| change(a, b));
        assert_eq!(told, ["", "+20 %", "-50 %", "× 3.0", ""]);
    }
}
