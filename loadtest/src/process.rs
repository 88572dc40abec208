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

/// A process and its children, such as a Postgres server, with the time of children that are gone. What they share is
/// counted once, as the most that one of them has of it. To count each one's pages exactly would hold them up, 20 ms and
/// more each time.
pub fn family(parent: u32) -> Usage {
    let mut cpu = ticks(parent, &[UTIME, STIME, CUTIME, CSTIME]);
    let mut own = 0;
    let mut shared = [0; 2];
    for (number, pid) in std::iter::once(parent).chain(children(parent)).enumerate() {
        if number > 0 {
            cpu += ticks(pid, &[UTIME, STIME]);
        }
        let status = read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        own += field(&status, "RssAnon:").unwrap_or_default();
        for (most, name) in shared.iter_mut().zip(["RssFile:", "RssShmem:"]) {
            *most = field(&status, name).unwrap_or_default().max(*most);
        }
    }
    Usage { cpu, memory_kib: own + shared[0] + shared[1], peak_kib: None }
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

/// From the kernel's own list, where it keeps one (`CONFIG_PROC_CHILDREN`), else by a look at all there are.
fn children(parent: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists: std::io::Result<Vec<String>> =
        threads.map(|thread| read_to_string(thread.path().join("children"))).collect();
    if let Ok(lists) = lists {
        return lists
            .iter()
            .flat_map(|list| list.split_whitespace())
            .filter_map(|pid| pid.parse().ok())
            .collect();
    }
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|pid| stat(*pid, PPID) == Some(parent.into())).collect()
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
        assert!(family(std::process::id()).memory_kib > 0);
        assert_eq!(usage(0).memory_kib, 0);
    }

    #[test]
    fn a_family_has_its_children() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let children = children(std::process::id());
        child.kill().and_then(|()| child.wait()).expect("it ends");
        assert!(children.contains(&child.id()), "{children:?}");
    }
}
