//! What processes use, as `/proc` tells it. Zero where it does not.

use std::fs::read_to_string;
use std::time::Duration;

/// Postgres counts in these; Linux has them at 100 per second for programs everywhere.
const TICK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    pub memory_kib: u64,
    /// The most it ever was; of several processes together it is not known.
    pub peak_kib: Option<u64>,
}

/// One process: its time, its resident memory and the peak of that.
pub fn usage(pid: u32) -> Usage {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    Usage {
        cpu: ticks(pid, &[UTIME, STIME]),
        memory_kib: field(&status, "VmRSS:").unwrap_or_default(),
        peak_kib: field(&status, "VmHWM:"),
    }
}

/// A process and its children, such as a Postgres server: what they share is counted once, and so is the time
/// of children that are gone. The memory only where it is asked for: counting pages holds the processes up.
pub fn family(parent: u32, with_memory: bool) -> Usage {
    let mut whole = Usage { cpu: ticks(parent, &[UTIME, STIME, CUTIME, CSTIME]), ..Usage::default() };
    let share = |pid| if with_memory { share(pid) } else { 0 };
    whole.memory_kib = share(parent);
    for child in children(parent) {
        whole.cpu += ticks(child, &[UTIME, STIME]);
        whole.memory_kib += share(child);
    }
    whole
}

/// The fields of `/proc/<pid>/stat`, counted from the one after the name (proc(5)).
const PPID: usize = 1;
const UTIME: usize = 11;
const STIME: usize = 12;
const CUTIME: usize = 13;
const CSTIME: usize = 14;

fn stat(pid: u32, field: usize) -> Option<u64> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and brackets; nothing after it does.
    stat.rsplit_once(") ")?.1.split(' ').nth(field)?.parse().ok()
}

fn ticks(pid: u32, fields: &[usize]) -> Duration {
    let ticks: u64 = fields.iter().filter_map(|field| stat(pid, *field)).sum();
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

fn children(parent: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|pid| stat(*pid, PPID) == Some(parent.into())).collect()
}

/// Its memory, with what several share divided among them.
fn share(pid: u32) -> u64 {
    let rollup = read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    field(&rollup, "Pss:").unwrap_or_default()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let mine = usage(std::process::id());
        assert!(mine.memory_kib > 0 && mine.peak_kib >= Some(mine.memory_kib));
        assert!(family(std::process::id(), true).memory_kib > 0);
        assert_eq!(usage(0).memory_kib, 0);
    }
}
