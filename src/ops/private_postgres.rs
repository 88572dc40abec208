//! The private database: a Postgres cluster of our own, for whoever starts Songflight with nothing
//! configured (`design.md` section 7). Made on the first start, stopped with the program.
//!
//! Not here: migrations and queries (`store`), and any use of it when `DATABASE_URL` is set.
//! `programs` finds the executables, `account` says as whom they run, `place` where the files are.

mod account;
mod place;
mod programs;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio_postgres::{Config, NoTls};

use crate::time::Clock;
use account::Account;
use programs::Programs;

/// User and database of the cluster; the user owns everything in it.
const NAME: &str = "songflight";
/// How long a server of an earlier run may take to go away before ours gives up.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(30);
/// How long a start may take; most of it is the recovery after a crash.
const READY_WAIT: Duration = Duration::from_secs(300);
/// How long a fast shutdown may take; it writes one checkpoint.
const STOP_WAIT: Duration = Duration::from_secs(60);
/// How often the server is looked after while it runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The log is begun anew at a start that finds it larger; one older log is kept.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// How much of the log an error shows.
const TAIL_LINES: usize = 15;

/// What each server is started with. On the command line, so that no file can disagree.
const SETTINGS: [&str; 8] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "max_connections=100",
    // After each checkpoint a page is logged whole when it changes for the first time: so they are rare.
    "max_wal_size=4GB",
    // Files of the log that are kept, to be used again by a later load.
    "min_wal_size=256MB",
    "checkpoint_timeout=15min",
    "jit=off",
    "log_line_prefix=%m [%p] ",
];

/// The server's own cache: an eighth of the memory that the machine (`/proc/meminfo`) or its container (cgroup 2's
/// `memory.max`, in bytes) has, 128 MB to 1 GB; 256 MB where neither is told. As long as what is under way fits in, nobody
/// who commits has to write other pages to disk first.
fn cache_mb(machine: &str, container: &str) -> u64 {
    let total = machine.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let machine = total.and_then(|total| total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    // It says `max` where there is no limit.
    let container = container.trim().parse::<u64>().ok().map(|bytes| bytes / 1024);
    let kib = machine.into_iter().chain(container).min();
    kib.map_or(256, |kib| (kib / 1024 / 8).clamp(128, 1024))
}

/// Why there is no database. Each message tells the reader what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("Songflight is already running in this folder (pid {pid})")]
    AlreadyRunning { pid: String },
    #[error("no DATABASE_URL is set, and the Postgres programs are not on this machine.\n{advice}")]
    NoPrograms { advice: String },
    #[error(
        "the database was made by Postgres {data}, and only version {found} is installed. \
         Install version {data}, or move the data with pg_dump, or remove it (`make clean-data`)"
    )]
    WrongVersion { data: u32, found: u32 },
    #[error(
        "{path} holds files that are not a database's, and stays as it is; let database.data_dir name a folder \
         that is empty or not there yet",
        path = .0.display()
    )]
    NotOurs(PathBuf),
    #[error("Postgres does not run as root, and no user was found to run it as: {0}")]
    Account(String),
    #[error("{path}: {0}{hint}", path = .1.display(), hint = whose(.0))]
    Files(#[source] io::Error, PathBuf),
    #[error("{what} failed{why}. The end of what Postgres said:\n{tail}", why = hint(.tail))]
    Failed { what: &'static str, tail: String },
}

impl StartError {
    /// What to do about it, in a line.
    pub fn advice(&self) -> &'static str {
        match self {
            StartError::AlreadyRunning { .. } => "stop it, or look from where its database can be reached",
            StartError::NoPrograms { .. } => "install Postgres 15 or later (make setup), or set DATABASE_URL",
            StartError::WrongVersion { .. } => "install that version, or set DATABASE_URL",
            StartError::Account(_) => "run it as another user than root, or set DATABASE_URL",
            StartError::Files(error, _) if error.kind() == io::ErrorKind::PermissionDenied => {
                "run it as the user whose folder it is, or set database.data_dir to a folder of your own"
            }
            StartError::NotOurs(_) => "set database.data_dir to another folder, or set DATABASE_URL",
            StartError::Files(..) => "see to that folder, or set database.data_dir to another",
            StartError::Failed { .. } => "what Postgres said tells more; all of it is in postgres.log",
        }
    }
}

/// A running private cluster. Dropping it asks the server to stop; [`PrivatePostgres::stop`] also waits.
#[derive(Debug)]
pub struct PrivatePostgres {
    socket_dir: PathBuf,
    watchdog: Child,
    /// The end of this pipe is the watchdog's signal to stop the server.
    lifeline: Option<ChildStdin>,
    /// Held for as long as the server is ours.
    _lock: File,
}

/// What differs between the real cluster and the one of a test.
#[derive(Clone, Copy, Default)]
struct Manner<'a> {
    /// Tests survive a killed process, not a power cut: no fsync.
    hasty: bool,
    /// A folder the watchdog removes when the server is gone.
    remove: Option<&'a Path>,
}

impl PrivatePostgres {
    /// Starts the cluster in `data_dir`, made first where there is none, and waits until it answers.
    /// The log is `postgres.log` beside `data_dir`. Files and `initdb` (about half a second, once)
    /// block the calling thread: this belongs before anything is served.
    ///
    /// # Errors
    /// To be shown as they are; none is worth another try without a change to the machine.
    pub async fn start(data_dir: &Path, progress: impl Fn(&str)) -> Result<Self, StartError> {
        Self::start_as(data_dir, Manner::default(), &progress).await
    }

    async fn start_as(
        data_dir: &Path,
        manner: Manner<'_>,
        progress: &dyn Fn(&str),
    ) -> Result<Self, StartError> {
        let data_dir = place::absolute(data_dir)?;
        let lock = lock(&place::with_suffix(&data_dir, ".lock"))?;
        let account = Account::choose()?.of_owner(&data_dir)?;
        let cluster = place::settle(&data_dir, &account, progress)?;
        let version = place::version(&cluster);
        let programs = Programs::find(&account, version)?;
        if version.is_none() {
            progress("Making a private database (once, about a second) …");
            place::create(&cluster, &programs, &account, progress)?;
        }
        let socket_dir = place::socket_dir(&cluster, &account)?;
        let server = Server { cluster, socket_dir, log: data_dir.with_extension("log"), programs, account };
        server.wait_for_predecessor(progress);
        let mut watchdog = server.run(manner).await?;
        let lifeline = watchdog.stdin.take();
        Ok(Self { socket_dir: server.socket_dir, watchdog, lifeline, _lock: lock })
    }

    /// How to connect to the cluster that another process of ours runs in `data_dir`; `None` when none does.
    pub fn of_running(data_dir: &Path) -> Option<Config> {
        // Line 5 of the server's own file is its first socket folder.
        let file = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
        let socket_dir = file.lines().nth(4).filter(|line| !line.is_empty())?;
        Some(config(Path::new(socket_dir), NAME))
    }

    /// How to connect: by the unix socket, without a password.
    pub fn config(&self) -> Config {
        config(&self.socket_dir, NAME)
    }

    /// The same as text, for `psql` and for whoever takes a url.
    pub fn url(&self) -> String {
        format!("postgresql:///{NAME}?host={}&user={NAME}", self.socket_dir.display())
    }

    /// The process id of the watchdog, which leads the server's process group.
    pub fn watchdog_id(&self) -> u32 {
        self.watchdog.id()
    }

    /// Resolves when the server ended by itself: it was killed, or gave up. Its log says why.
    pub async fn ended(&mut self) {
        while matches!(self.watchdog.try_wait(), Ok(None)) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Stops the server the fast way: open transactions are rolled back, a checkpoint is written.
    pub async fn stop(mut self) {
        drop(self.lifeline.take());
        let asked = Clock.monotonic();
        while Clock.since(asked) < STOP_WAIT && matches!(self.watchdog.try_wait(), Ok(None)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// One database server for all the tests of a binary, in a temporary folder that goes with the process.
/// Blocks until it answers.
///
/// # Panics
/// When there is none to be had: a test can do nothing without it.
pub fn for_tests() -> &'static PrivatePostgres {
    static SHARED: OnceLock<PrivatePostgres> = OnceLock::new();
    SHARED.get_or_init(|| {
        // A thread of its own: the caller's may already drive a runtime.
        let started = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime for the test database").block_on(start_for_tests())
        });
        started.join().expect("the thread that starts the test database")
    })
}

async fn start_for_tests() -> PrivatePostgres {
    let account = Account::choose().expect("a user to run the test database as");
    let temporary = [std::env::temp_dir(), "/tmp".into()];
    let temporary = temporary.iter().find(|dir| account.can_enter(dir)).expect("a temporary folder");
    let home = temporary.join(format!("songflight-test-{}", std::process::id()));
    account.private_dir(&home).expect("a folder for the test database");
    let manner = Manner { hasty: true, remove: Some(&home) };
    let started = PrivatePostgres::start_as(&home.join("postgres"), manner, &|_| {}).await;
    started.unwrap_or_else(|error| panic!("no test database: {error}"))
}

impl PrivatePostgres {
    /// A new, empty database beside the others of this cluster, so that tests do not meet.
    ///
    /// # Errors
    /// What Postgres says: the name is taken, or the server is gone.
    pub async fn fresh_database(&self, name: &str) -> Result<Config, tokio_postgres::Error> {
        create_database(&self.socket_dir, name).await?;
        Ok(config(&self.socket_dir, name))
    }
}

/// Everything one server needs to run.
struct Server {
    cluster: PathBuf,
    socket_dir: PathBuf,
    log: PathBuf,
    programs: Programs,
    account: Account,
}

impl Server {
    /// Starts until it runs. What an earlier run left behind (a server that is still stopping, shared
    /// memory of one that was killed) goes by itself, so those starts are repeated.
    async fn run(&self, manner: Manner<'_>) -> Result<Child, StartError> {
        let begun = Clock.monotonic();
        loop {
            let (mut watchdog, log_from) = self.launch(manner)?;
            match self.ready(&mut watchdog, log_from).await {
                Ok(()) => return Ok(watchdog),
                Err(StartError::Failed { tail, .. })
                    if left_behind(&tail) && Clock.since(begun) < PREDECESSOR_WAIT =>
                {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A server of an earlier run may still be shutting down, or have lost its watchdog: it gets
    /// another request to stop, and is waited for. The folder's lock is ours, so nobody uses it.
    fn wait_for_predecessor(&self, progress: &dyn Fn(&str)) {
        let pid_file = self.cluster.join("postmaster.pid");
        let Some(pid) = first_line(&pid_file) else { return self.forget_socket() };
        match command_line(&pid) {
            Some(line) if line.contains(&*self.cluster.to_string_lossy()) => {
                progress("Waiting for the database of the last run to stop …");
                let mut command = Command::new(self.programs.program("pg_ctl"));
                command.args(["stop", "--silent", "--mode=fast", "--timeout"]);
                command.arg(PREDECESSOR_WAIT.as_secs().to_string()).arg("--pgdata").arg(&self.cluster);
                let _ = self.account.apply(&mut command).stdout(Stdio::null()).stderr(Stdio::null()).status();
            }
            Some(_) => {
                // The number went to another program since; Postgres would take that one for a server.
                let _ = std::fs::remove_file(&pid_file);
                self.forget_socket();
            }
            // Nobody has it: Postgres sees that itself, and also whether old children still live.
            None => self.forget_socket(),
        }
    }

    fn forget_socket(&self) {
        for name in [".s.PGSQL.5432", ".s.PGSQL.5432.lock"] {
            let _ = std::fs::remove_file(self.socket_dir.join(name));
        }
    }

    /// Starts the watchdog, which starts the server; also where in the log this run begins.
    fn launch(&self, manner: Manner<'_>) -> Result<(Child, u64), StartError> {
        // Again for each start: the watchdog of the last run removes it, perhaps only at this moment.
        let in_sockets = |error| StartError::Files(error, self.socket_dir.clone());
        self.account.private_dir(&self.socket_dir).map_err(in_sockets)?;
        let in_log = |error| StartError::Files(error, self.log.clone());
        let (log, log_from) = open_log(&self.log).map_err(in_log)?;
        let errors = log.try_clone().map_err(in_log)?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(include_str!("private_postgres/watchdog.sh")).arg("songflight-watchdog");
        command.arg(&self.socket_dir).arg(manner.remove.unwrap_or(Path::new("")));
        command.arg(self.programs.program("postgres")).arg("-D").arg(&self.cluster);
        command.arg("-k").arg(&self.socket_dir);
        let hasty = manner.hasty.then_some("fsync=off");
        for setting in SETTINGS.into_iter().chain(hasty) {
            command.arg("-c").arg(setting);
        }
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cache = cache_mb(&read("/proc/meminfo"), &read("/sys/fs/cgroup/memory.max"));
        command.arg("-c").arg(format!("shared_buffers={cache}MB"));
        // A process group of its own: Ctrl-C in the terminal is for us; the server stops after us.
        self.account.apply(&mut command).process_group(0);
        command.stdin(Stdio::piped()).stdout(log).stderr(errors);
        let watchdog = command.spawn().map_err(|error| StartError::Files(error, "sh".into()))?;
        Ok((watchdog, log_from))
    }

    /// Waits until the server takes connections and our database is there.
    async fn ready(&self, watchdog: &mut Child, log_from: u64) -> Result<(), StartError> {
        let begun = Clock.monotonic();
        let mut pause = Duration::from_millis(10);
        loop {
            let Err(error) = create_database(&self.socket_dir, NAME).await else { return Ok(()) };
            let gone = !matches!(watchdog.try_wait(), Ok(None));
            let refused = error.as_db_error().is_some_and(|error| !error.code().code().starts_with("57P"));
            if gone || refused || expired(begun) {
                let tail = tail(&self.log, log_from);
                return Err(StartError::Failed { what: "starting the database", tail });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }
}

fn expired(begun: Instant) -> bool {
    Clock.since(begun) > READY_WAIT
}

fn config(socket_dir: &Path, database: &str) -> Config {
    let mut config = Config::new();
    config.host_path(socket_dir).user(NAME).dbname(database).application_name(NAME);
    config
}

/// Makes a database unless it is there.
async fn create_database(socket_dir: &Path, name: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = config(socket_dir, "postgres").connect(NoTls).await?;
    let asking = async {
        let known = client.query_opt("select from pg_database where datname = $1", &[&name]).await?;
        if known.is_none() {
            // The one statement that takes no parameters; quoted as an identifier.
            let quoted = name.replace('"', "\"\"");
            client.batch_execute(&format!("create database \"{quoted}\"")).await?;
        }
        Ok(())
    };
    tokio::select! {
        result = asking => result,
        result = connection => result,
    }
}

/// The lock of a folder: the system frees it when we end, however we end.
fn lock(path: &Path) -> Result<File, StartError> {
    let in_lock = |error| StartError::Files(error, path.to_path_buf());
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = opened.map_err(in_lock)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StartError::AlreadyRunning { pid: first_line(path).unwrap_or_else(|| "?".into()) });
        }
        Err(TryLockError::Error(error)) => return Err(in_lock(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(in_lock)?;
    Ok(file)
}

fn first_line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

/// The command line of a process, or `None` when there is no such process.
fn command_line(pid: &str) -> Option<String> {
    if Path::new("/proc/self/cmdline").exists() {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        return Some(String::from_utf8_lossy(&line).replace('\0', " "));
    }
    let output = Command::new("ps").args(["-o", "args=", "-p", pid]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The log, open for appending, and how long it is.
fn open_log(path: &Path) -> io::Result<(File, u64)> {
    if path.metadata().is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.old"))?;
    }
    let log = OpenOptions::new().create(true).append(true).open(path)?;
    let length = log.metadata()?.len();
    Ok((log, length))
}

/// The last lines of the log since `from`.
fn tail(path: &Path, from: u64) -> String {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut log| {
        log.seek(SeekFrom::Start(from))?;
        log.read_to_end(&mut text)
    });
    if let Err(error) = read {
        return format!("  ({}: {error})", path.display());
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
    format!("  {last}\n  (all of it: {})", path.display())
}

/// Whether a failed start met what the last run left behind and will be gone soon.
fn left_behind(tail: &str) -> bool {
    [
        "pre-existing shared memory block",
        "postmaster.pid\" already exists",
        "could not create lock file \"/tmp/sf-",
    ]
    .iter()
    .any(|sign| tail.contains(sign))
}

fn whose(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "\n  Was it made by another user, such as root? Run as that user, or name another place: \
             database.data_dir"
        }
        io::ErrorKind::StorageFull => "\n  Make room on the disk, or name another place: database.data_dir",
        _ => "",
    }
}

fn hint(tail: &str) -> &'static str {
    if tail.contains("No space left on device") {
        " because the disk is full"
    } else if tail.contains("Permission denied") {
        " because a file may not be read or written"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_no_reason_to_install_postgres() {
        let of = |kind: io::ErrorKind| StartError::Files(kind.into(), "x".into()).advice();
        assert!(of(io::ErrorKind::PermissionDenied).contains("the user whose folder it is"));
        assert!(of(io::ErrorKind::StorageFull).contains("database.data_dir"));
        assert!(StartError::NoPrograms { advice: String::new() }.advice().contains("install Postgres"));
    }

    #[test]
    fn the_cache_is_an_eighth_of_the_memory_within_bounds() {
        assert_eq!(cache_mb("MemTotal:        4194304 kB\nMemFree:  1 kB\n", ""), 512);
        assert_eq!(cache_mb("MemTotal:       67108864 kB\n", "max\n"), 1024);
        assert_eq!(cache_mb("MemTotal:       67108864 kB\n", "536870912\n"), 128);
        assert_eq!(cache_mb("", ""), 256);
    }
}
