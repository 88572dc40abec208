//! The binary as a process: started in a folder of its own with nothing configured from outside, ended
//! with the test however that ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use songflight::id;
use tokio::sync::oneshot;

use super::within;

/// A running `songflight`, killed when dropped.
pub struct Program {
    child: Option<Child>,
    pub pid: u32,
    /// Ends the program and removes its folder when this process is gone, which `Drop` cannot.
    keeper: Option<Child>,
    log: PathBuf,
    /// Where it says it can be reached: `http://127.0.0.1:…`.
    pub url: String,
}

pub type Variables = Vec<(String, String)>;

/// A folder that goes with the last who knows it.
#[derive(Clone, Debug)]
pub struct Folder(Arc<Removed>);

#[derive(Debug)]
struct Removed(PathBuf);

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0.0
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A new, empty folder.
pub fn folder() -> Folder {
    let dir = std::env::temp_dir().join(format!("songflight-it-{}", id::fresh().simple()));
    std::fs::create_dir_all(&dir).expect("a folder");
    Folder(Arc::new(Removed(dir)))
}

/// The program with nothing configured but `variables`.
pub fn command(home: &Path, arguments: &[&str], variables: &Variables) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_songflight"));
    command.args(arguments).current_dir(home).env_clear();
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command
}

impl Program {
    /// Starts a command that serves, and waits until it says where.
    pub async fn start(home: &Path, arguments: &[&str], variables: &Variables) -> Self {
        let log = home.join("stderr.log");
        let errors = File::options().create(true).append(true).open(&log).expect("a log");
        let mut child = command(home, arguments, variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("a pipe");
        let (tell, told) = oneshot::channel();
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once(" is up at ")
                    && let Some(tell) = tell.take()
                {
                    drop(tell.send(address.trim().to_owned()));
                }
            }
        });
        let pid = child.id();
        let keeper = Command::new("sh")
            .args(["-c", "cat >/dev/null; kill -9 \"$0\" 2>/dev/null; rm -rf \"$1\""])
            .arg(pid.to_string())
            .arg(home)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut program = Self { child: Some(child), pid, keeper: Some(keeper), log, url: String::new() };
        program.url = match within("the program to say where it is", told).await {
            Ok(url) => url,
            Err(_) => panic!("{arguments:?} ended at once: {}", program.said()),
        };
        program
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid.to_string()]).status();
        assert!(sent.expect("kill runs").success(), "the program is gone already: {}", self.said());
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        self.release();
        let mut child = self.child.take().expect("it is waited for once");
        let end = tokio::task::spawn_blocking(move || child.wait().expect("its exit status"));
        within("the program to end", end).await.expect("the thread that waits")
    }

    /// What it wrote to stderr.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The keeper must not kill whoever gets the number next.
    fn release(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.kill());
            drop(keeper.wait());
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.release();
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            drop(writeln!(std::io::stderr(), "--- the end of what the program said:\n{last}\n---"));
        }
    }
}
