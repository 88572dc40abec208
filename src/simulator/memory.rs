//! Keeps the accepted tasks in a folder, so that the next simulator on it goes on with them: a real
//! provider works on while its client is away.
//!
//! One JSON line for a task, one for a callback that needs no more sending; the file is rewritten at the
//! start, without what is over. A write reaches the system before the client is answered, which outlives
//! a killed program; a power cut may take the last moments. Not here: going on (`world.rs`, `courier.rs`).

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::plan::{Event, Plan};
use super::tasks::{self, Order};
use crate::time::Time;

const TASKS: &str = "tasks.jsonl";
/// The file before, when the present one had grown full.
const TASKS_BEFORE: &str = "tasks.before.jsonl";
const PORT: &str = "port";
const LOCK: &str = "lock";
/// Of each of the two files; together the last minute of the heaviest load, or weeks of trying.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Lines that wait for the writer; more are not kept.
const QUEUE_MAX: usize = 16_384;
/// About as much goes into one write.
const WRITE_BYTES: usize = 1 << 20;

/// Everything that is needed to go on with a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: Uuid,
    pub(super) provider: Box<str>,
    pub(super) order: Order,
    pub(super) plan: Plan,
    pub(super) draw: u64,
    /// Absent when it was the simulator's own address, for that may be another one next time.
    pub(super) origin: Option<Box<str>>,
    pub(super) created: Time,
    pub(super) intent: Box<str>,
}

/// A task of an earlier run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Remembered {
    pub(super) record: Record,
    /// What needs no more callback.
    pub(super) told: Vec<Event>,
    /// The last callback was given up on.
    pub(super) refused: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Task(Box<Record>),
    /// A callback was taken, or given up on.
    Told {
        task: Uuid,
        event: Event,
        taken: bool,
    },
}

/// Ready when a task's line is written.
pub(super) type Written = oneshot::Receiver<()>;

enum Entry {
    Line(Vec<u8>, Option<oneshot::Sender<()>>),
    Close(oneshot::Sender<()>),
}

/// The way to the writer, if there is one.
pub(super) struct Memory(Option<mpsc::Sender<Entry>>);

impl Memory {
    /// Opens the folder and reads what is left of earlier runs, the oldest first. A simulator that
    /// cannot remember still simulates, so what goes wrong is only logged.
    pub(super) fn open(dir: Option<&Path>, address: SocketAddr, now: Time) -> (Self, Vec<Remembered>) {
        let Some(dir) = dir else {
            return (Self(None), Vec::new());
        };
        match Self::open_in(dir, address, now) {
            Ok((memory, remembered)) => (memory, remembered),
            Err(error) => {
                let dir = dir.display();
                tracing::warn!(%dir, %error, "the simulator will not remember its tasks");
                (Self(None), Vec::new())
            }
        }
    }

    fn open_in(dir: &Path, address: SocketAddr, now: Time) -> io::Result<(Self, Vec<Remembered>)> {
        fs::create_dir_all(dir)?;
        let lock = private().write(true).create(true).truncate(false).open(dir.join(LOCK))?;
        lock.try_lock()?;
        let remembered = compact(dir, now)?;
        fs::write(dir.join(PORT), format!("{}\n", address.port()))?;
        let file = OpenOptions::new().append(true).open(dir.join(TASKS))?;
        let bytes = file.metadata()?.len();
        let writer = Writer { dir: dir.to_owned(), file: Some(file), bytes, bytes_max: FILE_BYTES_MAX };
        let (entries, queue) = mpsc::channel(QUEUE_MAX);
        let name = String::from("simulator-memory");
        std::thread::Builder::new().name(name).spawn(move || writer.run(queue, lock))?;
        Ok((Self(Some(entries)), remembered))
    }

    /// Keeps a task; `None` when there is nowhere to.
    pub(super) fn remember(&self, record: impl FnOnce() -> Record) -> Option<Written> {
        let entries = self.0.as_ref()?;
        let (tell, written) = oneshot::channel();
        let entry = Entry::Line(written_out(&Line::Task(Box::new(record()))), Some(tell));
        entries.try_send(entry).ok().map(|()| written)
    }

    /// Notes that a callback needs no more sending. Lost when the queue is full: then it comes twice.
    pub(super) fn told(&self, task: Uuid, event: Event, taken: bool) {
        if let Some(entries) = &self.0 {
            let line = written_out(&Line::Told { task, event, taken });
            let _ = entries.try_send(Entry::Line(line, None));
        }
    }

    /// Writes what waits, and leaves the folder to another.
    pub(super) async fn close(&self) {
        let Some(entries) = &self.0 else { return };
        let (tell, closed) = oneshot::channel();
        // Errors say that it is closed already.
        if entries.send(Entry::Close(tell)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

/// The port that the last simulator with this memory listened on.
pub(super) fn last_port(dir: &Path) -> Option<u16> {
    fs::read_to_string(dir.join(PORT)).ok()?.trim().parse().ok()
}

/// Prompts and the keys in callback urls are nobody else's to read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn written_out(line: &Line) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).expect("a line has no keys but texts");
    bytes.push(b'\n');
    bytes
}

/// The one who writes, on a thread of its own.
struct Writer {
    dir: PathBuf,
    /// `None` after an error: the lines that follow are let go.
    file: Option<File>,
    bytes: u64,
    bytes_max: u64,
}

impl Writer {
    /// As many lines as wait go into one write; those who wait for them are told after it.
    fn run(mut self, mut queue: mpsc::Receiver<Entry>, lock: File) {
        let (mut lines, mut waiting, mut closed) = (Vec::new(), Vec::new(), None);
        while closed.is_none() {
            let Some(mut entry) = queue.blocking_recv() else { break };
            loop {
                match entry {
                    Entry::Line(line, tell) => {
                        lines.extend_from_slice(&line);
                        waiting.extend(tell);
                    }
                    Entry::Close(tell) => {
                        closed = Some(tell);
                        break;
                    }
                }
                match queue.try_recv() {
                    Ok(next) if lines.len() < WRITE_BYTES => entry = next,
                    Ok(next) => {
                        self.write(&mut lines, &mut waiting);
                        entry = next;
                    }
                    Err(_) => break,
                }
            }
            self.write(&mut lines, &mut waiting);
        }
        drop((self, queue, lock));
        if let Some(tell) = closed {
            // Who closes may not care to wait.
            let _ = tell.send(());
        }
    }

    fn write(&mut self, lines: &mut Vec<u8>, waiting: &mut Vec<oneshot::Sender<()>>) {
        if let Err(error) = self.append(lines) {
            tracing::warn!(%error, "the simulator does not remember its tasks from here on");
            self.file = None;
        }
        lines.clear();
        for tell in waiting.drain(..) {
            // A client that has gone does not wait.
            let _ = tell.send(());
        }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.file.is_some() && self.bytes >= self.bytes_max {
            let path = self.dir.join(TASKS);
            fs::rename(&path, self.dir.join(TASKS_BEFORE))?;
            self.file = Some(private().append(true).create(true).open(path)?);
            self.bytes = 0;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        self.bytes += lines.len() as u64;
        file.write_all(lines)
    }
}

/// Reads both files and leaves one, without what is over.
fn compact(dir: &Path, now: Time) -> io::Result<Vec<Remembered>> {
    let mut found = Found::default();
    for name in [TASKS_BEFORE, TASKS] {
        found.read(&dir.join(name))?;
    }
    if found.skipped > 0 {
        tracing::warn!(lines = found.skipped, "lines of the simulator's memory could not be read");
    }
    let remembered = found.kept(now);
    let fresh = dir.join("tasks.new.jsonl");
    let mut file = BufWriter::new(private().write(true).create(true).truncate(true).open(&fresh)?);
    for task in &remembered {
        for line in task.lines() {
            file.write_all(&written_out(&line))?;
        }
    }
    file.flush()?;
    // In this order nothing is lost in between; what is then in both files is read once.
    fs::rename(fresh, dir.join(TASKS))?;
    match fs::remove_file(dir.join(TASKS_BEFORE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(remembered),
    }
}

impl Remembered {
    fn lines(&self) -> Vec<Line> {
        let mut lines = vec![Line::Task(Box::new(self.record.clone()))];
        lines.extend(self.told.iter().map(|&event| {
            let taken = !(event.is_last() && self.refused);
            Line::Told { task: self.record.id, event, taken }
        }));
        lines
    }
}

#[derive(Default)]
struct Found {
    tasks: HashMap<Uuid, Remembered>,
    skipped: usize,
}

impl Found {
    /// Of a file that is too long, only the end is read.
    fn read(&mut self, path: &Path) -> io::Result<()> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let too_many = file.metadata()?.len().saturating_sub(FILE_BYTES_MAX + 2 * WRITE_BYTES as u64);
        file.seek(SeekFrom::Start(too_many))?;
        for line in BufReader::new(file).split(b'\n') {
            self.take(&line?);
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(Line::Task(record)) => {
                let fresh = Remembered { record: *record, told: Vec::new(), refused: false };
                self.tasks.entry(fresh.record.id).or_insert(fresh);
            }
            Ok(Line::Told { task, event, taken }) => {
                let task = self.tasks.get_mut(&task).filter(|task| !task.told.contains(&event));
                if let Some(task) = task {
                    task.refused |= event.is_last() && !taken;
                    task.told.push(event);
                }
            }
            Err(_) if line.is_empty() => {}
            Err(_) => self.skipped += 1,
        }
    }

    fn kept(self, now: Time) -> Vec<Remembered> {
        let over = |record: &Record| tasks::is_over(&record.plan, now.since(record.created));
        let mut kept: Vec<_> = self.tasks.into_values().filter(|task| !over(&task.record)).collect();
        kept.sort_by_key(|task| task.record.created);
        kept
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::behaviour::{Behaviour, Latency};
    use super::super::chance::Chance;
    use super::super::script::Script;
    use super::super::tasks::{KEPT, Kind};
    use super::*;

    const NOON: Time = Time::from_millis(1_700_000_000_000);
    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4711);

    #[actix_web::test]
    async fn what_was_written_is_read_back_in_its_order() {
        let home = Home::new("back");
        let (memory, nothing) = home.open(NOON).await;
        assert_eq!(nothing, []);
        let (first, second) = (record(1, NOON), record(2, NOON + Duration::from_millis(5)));
        for record in [&second, &first] {
            memory.remember(|| record.clone()).unwrap().await.unwrap();
        }
        memory.told(first.id, Event::Text, true);
        memory.told(first.id, Event::Complete, false);
        memory.close().await;
        assert_eq!(memory.remember(|| first.clone()).map(drop), None, "it is closed");

        // A second reading finds what the first one's compaction left.
        for _ in 0..2 {
            let (memory, remembered) = home.open(NOON).await;
            let told = vec![Event::Text, Event::Complete];
            assert_eq!(
                remembered,
                [
                    Remembered { record: first.clone(), told, refused: true },
                    Remembered { record: second.clone(), told: vec![], refused: false },
                ]
            );
            memory.close().await;
        }
        assert_eq!(last_port(&home.0), Some(ADDRESS.port()));
    }

    #[actix_web::test]
    async fn a_torn_last_line_and_garbage_are_skipped() {
        let home = Home::new("torn");
        let [first, second] = [record(1, NOON), record(2, NOON)].map(|record| written_out(&line(record)));
        let half = &second[..second.len() / 2];
        let garbage: &[u8] = b"\n\xff\xfe\0garbage\n{\"task\":{}}\n{\"told\":7}\n[]\n";
        fs::write(home.0.join(TASKS), [garbage, &first, half].concat()).unwrap();
        let mut found = Found::default();
        found.read(&home.0.join(TASKS)).unwrap();
        assert_eq!((found.tasks.len(), found.skipped), (1, 5));

        let (memory, remembered) = home.open(NOON).await;
        assert_eq!(remembered.len(), 1);
        memory.remember(|| record(3, NOON)).unwrap().await.unwrap();
        memory.close().await;
        let kept = fs::read_to_string(home.0.join(TASKS)).unwrap();
        assert_eq!(kept.lines().count(), 2, "what could not be read is gone: {kept}");
    }

    #[actix_web::test]
    async fn tasks_that_were_over_long_ago_are_dropped_at_the_start() {
        let home = Home::new("old");
        let old =
            [line(record(1, NOON)), Line::Told { task: Uuid::from_u128(1), event: Event::Text, taken: true }];
        let young = line(record(2, NOON + Duration::from_secs(60)));
        fs::write(home.0.join(TASKS_BEFORE), old.map(|line| written_out(&line)).concat()).unwrap();
        fs::write(home.0.join(TASKS), written_out(&young)).unwrap();
        let (memory, remembered) = home.open(NOON + KEPT + Duration::from_secs(30)).await;
        assert_eq!(remembered.iter().map(|task| task.record.id.as_u128()).collect::<Vec<_>>(), [2]);
        assert_eq!(fs::read(home.0.join(TASKS)).unwrap(), written_out(&young));
        assert!(!home.0.join(TASKS_BEFORE).exists());
        memory.close().await;
    }

    #[test]
    fn a_full_file_makes_room_for_the_next() {
        let home = Home::new("full");
        let file = Some(private().append(true).create(true).open(home.0.join(TASKS)).unwrap());
        let mut writer = Writer { dir: home.0.clone(), file, bytes: 0, bytes_max: 10 };
        for number in 1..=4_u128 {
            writer.append(&written_out(&line(record(number, NOON)))).unwrap();
        }
        let remembered = compact(&home.0, NOON).unwrap();
        let mut ids: Vec<_> = remembered.iter().map(|task| task.record.id.as_u128()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [3, 4], "the newest are kept");
    }

    #[actix_web::test]
    async fn two_do_not_remember_in_one_folder() {
        let home = Home::new("two");
        let (first, _) = home.open(NOON).await;
        let (second, _) = home.open(NOON).await;
        assert!(second.remember(|| record(1, NOON)).is_none());
        first.remember(|| record(1, NOON)).unwrap().await.unwrap();
        first.close().await;
    }

    fn line(record: Record) -> Line {
        Line::Task(Box::new(record))
    }

    fn record(number: u128, created: Time) -> Record {
        let behaviour = Behaviour::new(Latency { lyrics_ms: [900, 900], music_ms: [1_000, 1_000] }, 1);
        let mut chance = Chance::new(1, 1);
        Record {
            id: Uuid::from_u128(number),
            provider: "suno".into(),
            order: Order {
                kind: Kind::Music,
                custom: true,
                instrumental: false,
                model: "V5".into(),
                prompt: "rain\n\"quoted\" ä".into(),
                style: "slow".into(),
                title: "Rain".into(),
                callback_url: "http://127.0.0.1:1/x".into(),
            },
            plan: Plan::new(Kind::Music, &behaviour, &Script::default(), None, &mut chance),
            draw: u64::MAX,
            origin: None,
            created,
            intent: "a.1".into(),
        }
    }

    /// A folder that goes with the test.
    struct Home(PathBuf);

    impl Home {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("songflight-memory-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        async fn open(&self, now: Time) -> (Memory, Vec<Remembered>) {
            Memory::open(Some(&self.0), ADDRESS, now)
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
