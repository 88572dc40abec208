//! The server's program as a process of its own: started, killed, started again at the same place, and what it
//! counted over all of its lives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::process::{self, Usage};
use super::{Failure, cannot};

pub struct Server {
    pub url: String,
    pub lives_before: Lives,
    program: PathBuf,
    home: PathBuf,
    settings: Vec<(String, String)>,
    child: Child,
}

/// What is left of the lives that ended: their counters as last read, and their time.
#[derive(Clone, Debug, Default)]
pub struct Lives {
    counters: BTreeMap<String, f64>,
    cpu: Duration,
    peak_kib: Option<u64>,
}

impl Lives {
    pub fn metric(&self, name: &str) -> f64 {
        self.counters.get(name).copied().unwrap_or_default()
    }
}

/// Counters that are added up over several lives.
const KEPT: [&str; 2] = ["songflight_journal_commit_seconds_count", "songflight_possible_duplicates_total"];

impl Server {
    /// # Errors
    /// When it ends before it says where it is; its own words are on the terminal.
    pub async fn start(
        program: &Path,
        home: &Path,
        settings: Vec<(String, String)>,
    ) -> Result<Self, Failure> {
        let (child, url) = spawn(program, home, &settings, "127.0.0.1:0").await?;
        let (program, home) = (program.to_owned(), home.to_owned());
        Ok(Self { url, lives_before: Lives::default(), program, home, settings, child })
    }

    /// SIGKILL. What it counted is read shortly before, so the very last may be missing.
    pub async fn kill(&mut self) {
        let metrics = metrics(&self.url).await;
        for name in KEPT {
            *self.lives_before.counters.entry(name.to_owned()).or_default() += metric(&metrics, name);
        }
        let usage = self.child.id().map(process::usage).unwrap_or_default();
        self.lives_before.cpu += usage.cpu;
        self.lives_before.peak_kib = self.lives_before.peak_kib.max(usage.peak_kib);
        let _ = self.child.kill().await;
    }

    /// # Errors
    /// As [`Server::start`].
    pub async fn revive(&mut self) -> Result<(), Failure> {
        let bind = self.url.rsplit('/').next().unwrap_or_default().to_owned();
        (self.child, _) = spawn(&self.program, &self.home, &self.settings, &bind).await?;
        Ok(())
    }

    /// Over all lives; the memory is the present one's.
    pub fn usage(&self) -> Usage {
        let mut usage = self.child.id().map(process::usage).unwrap_or_default();
        usage.cpu += self.lives_before.cpu;
        usage.peak_kib = usage.peak_kib.max(self.lives_before.peak_kib);
        usage
    }

    pub async fn stop(mut self) {
        let _ = self.child.kill().await;
    }
}

/// The server's program of the same build as this one, made fresh where cargo started us.
pub async fn program(no_build: bool) -> Result<PathBuf, Failure> {
    let here = std::env::current_exe().map_err(cannot("this program's place"))?;
    if let Some(cargo) = std::env::var_os("CARGO").filter(|_| !no_build) {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "songflight", "--bin", "songflight"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.status().await.map_err(cannot("cargo"))?;
        if !built.success() {
            return Err(Failure("the server could not be built".to_owned()));
        }
    }
    let program = here.with_file_name("songflight");
    match program.exists() {
        true => Ok(program),
        false => Err(Failure(format!("{} is not there: build it first", program.display()))),
    }
}

/// Starts it and waits until it says where it is.
async fn spawn(
    program: &Path,
    home: &Path,
    settings: &[(String, String)],
    bind: &str,
) -> Result<(Child, String), Failure> {
    let mut server = Command::new(program)
        .arg("serve")
        .current_dir(home)
        .envs(settings.iter().map(|(key, value)| (key, value)))
        .env("SONGFLIGHT_HTTP__BIND", bind)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(cannot("the server"))?;
    let stdout = server.stdout.take().ok_or_else(|| Failure("the server has no output".to_owned()))?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await.map_err(cannot("the server"))? {
        if let Some((_, url)) = line.split_once(" is up at ") {
            let url = url.trim().to_owned();
            // What it prints later must go somewhere.
            actix_web::rt::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((server, url));
        }
    }
    Err(Failure("the server ended at once".to_owned()))
}

/// All it counts, as text; empty while it is away.
pub async fn metrics(url: &str) -> String {
    let answer = async { reqwest::get(format!("{url}/metrics")).await?.text().await };
    answer.await.unwrap_or_default()
}

/// One of them, summed over its labels; before it has counted anything it is not there.
pub fn metric(metrics: &str, name: &str) -> f64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let bare = rest.starts_with([' ', '{']);
        rest.rsplit(' ').next().filter(|_| bare)?.parse::<f64>().ok()
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_over_its_labels() {
        let text = "# TYPE a counter\na{b=\"c d\"} 2\na{b=\"e\"} 3\na_sum 7\n";
        assert!((metric(text, "a") - 5.0).abs() < f64::EPSILON);
        assert!(metric(text, "nothing").abs() < f64::EPSILON);
    }
}
