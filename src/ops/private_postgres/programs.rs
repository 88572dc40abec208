//! Finds the Postgres programs on this machine. Runs nothing but `--version` and `pg_config`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::StartError;
use super::account::Account;

/// The oldest major version the migrations are tested with.
const MAJOR_MIN: u32 = 15;

/// Folders with one sub-folder per version: Debian, Red Hat, Homebrew on both kinds of Mac, Postgres.app.
const VERSIONED: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "pgsql-*/bin"),
    ("/opt/homebrew/opt", "postgresql*/bin"),
    ("/usr/local/opt", "postgresql*/bin"),
    ("/Applications/Postgres.app/Contents/Versions", "bin"),
];

/// One installation: a folder in which `initdb` and `postgres` stand together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) bin: PathBuf,
    pub(super) major: u32,
}

impl Programs {
    /// The newest usable installation, or the one of `wanted`, the version that made the data.
    ///
    /// # Errors
    /// [`StartError::NoPrograms`] or [`StartError::WrongVersion`], which say what to install.
    pub(super) fn find(account: &Account, wanted: Option<u32>) -> Result<Self, StartError> {
        let mut found: Vec<Self> =
            candidates().into_iter().filter_map(|bin| Self::look_at(bin, account)).collect();
        found.sort_by_key(|programs| std::cmp::Reverse(programs.major));
        let newest = found.first().map(|programs| programs.major);
        let fits = |programs: &Self| match wanted {
            Some(major) => programs.major == major,
            None => programs.major >= MAJOR_MIN,
        };
        match (found.into_iter().find(fits), wanted, newest) {
            (Some(programs), _, _) => Ok(programs),
            (None, Some(data), Some(found)) => Err(StartError::WrongVersion { data, found }),
            (None, _, _) => Err(StartError::NoPrograms { advice: advice(newest) }),
        }
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Asked as the account that will run it: a folder in root's home is of no use to that one.
    fn look_at(bin: PathBuf, account: &Account) -> Option<Self> {
        if !bin.join("initdb").is_file() {
            return None;
        }
        let mut command = Command::new(bin.join("postgres"));
        let output = account.apply(command.arg("--version")).output().ok()?;
        let major = major_of(std::str::from_utf8(&output.stdout).ok()?)?;
        output.status.success().then_some(Self { bin, major })
    }
}

/// `postgres (PostgreSQL) 15.6 (Debian 15.6-1)` or `… 17beta1` to the major version.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

/// Every folder worth a look, links resolved (`/usr/local/bin/initdb` often points elsewhere), once each.
fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut bins: Vec<PathBuf> = std::env::split_paths(&path).filter_map(|dir| home_of(&dir)).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        bins.extend(home_of(Path::new(String::from_utf8_lossy(&output.stdout).trim())));
    }
    for (root, pattern) in VERSIONED {
        bins.extend(versions_in(Path::new(root), pattern));
    }
    let mut once: Vec<PathBuf> = Vec::new();
    for bin in bins {
        if !once.contains(&bin) {
            once.push(bin);
        }
    }
    once
}

/// Where the `initdb` of a folder really stands.
fn home_of(dir: &Path) -> Option<PathBuf> {
    let program = dir.join("initdb").canonicalize().ok()?;
    program.parent().map(Path::to_path_buf)
}

/// `pattern` is `bin` (any sub-folder) or `prefix*/bin`.
fn versions_in(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let prefix = pattern.split_once('*').map_or("", |(prefix, _)| prefix);
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| home_of(&entry.path().join("bin")))
        .collect()
}

/// What to do about it, for the system this was built for.
fn advice(newest: Option<u32>) -> String {
    let install = if cfg!(target_os = "macos") {
        "brew install postgresql@17"
    } else {
        "sudo apt-get install postgresql   (or run `make setup`, which does it)"
    };
    let found = newest.map_or_else(String::new, |major| {
        format!("  Found only version {major}; {MAJOR_MIN} or newer is needed.\n")
    });
    format!("{found}  Install them:  {install}\n  or name a database of yours:  DATABASE_URL=postgres://…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_distributions_print() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta2"), Some(18));
        assert_eq!(major_of("postgres"), None);
    }
}
