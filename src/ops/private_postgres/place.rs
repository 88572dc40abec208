//! Where the cluster's files live: beside the log and the lock, or elsewhere with a link when the
//! server's user cannot come here. Makes and names folders; starts nothing except `initdb`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::StartError;
use super::account::Account;
use super::programs::Programs;

/// Longest socket folder: `sun_path` ends at 103 bytes (macOS; Linux 107), the file's name takes 16.
const SOCKET_DIR_BYTES_MAX: usize = 85;

/// The absolute path of a data folder that need not exist yet; its parent is made.
pub(super) fn absolute(data_dir: &Path) -> Result<PathBuf, StartError> {
    let (Some(parent), Some(name)) = (data_dir.parent(), data_dir.file_name()) else {
        return Err(StartError::Files(
            io::Error::other("database.data_dir names no folder"),
            data_dir.into(),
        ));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let in_parent = |error| StartError::Files(error, parent.to_path_buf());
    std::fs::create_dir_all(parent).map_err(in_parent)?;
    Ok(parent.canonicalize().map_err(in_parent)?.join(name))
}

/// The folder the cluster is really in. When the server's user cannot enter `data_dir`'s parent, that
/// is a folder under `/var/lib` (or `/var/tmp`), and `data_dir` a link to it.
pub(super) fn settle(
    data_dir: &Path,
    account: &Account,
    progress: &dyn Fn(&str),
) -> Result<PathBuf, StartError> {
    if let Ok(target) = data_dir.canonicalize()
        && account.can_enter(target.parent().unwrap_or(&target))
    {
        return Ok(target);
    }
    if account.can_enter(data_dir.parent().unwrap_or(data_dir)) {
        forget_dangling_link(data_dir);
        return Ok(data_dir.to_path_buf());
    }
    outside(data_dir, account, progress).map_err(|error| StartError::Files(error, data_dir.to_path_buf()))
}

fn outside(data_dir: &Path, account: &Account, progress: &dyn Fn(&str)) -> io::Result<PathBuf> {
    let root = ["/var/lib", "/var/tmp"].into_iter().find(|root| account.can_enter(Path::new(root)));
    let home = Path::new(root.unwrap_or("/tmp")).join(format!("songflight-{}", short_hash(data_dir)));
    let cluster = home.join("postgres");
    forget_dangling_link(data_dir);
    if home.symlink_metadata().is_ok() && !account.owns(&home) {
        return Err(io::Error::other(format!("{} belongs to someone else", home.display())));
    }
    // Whoever removed `.songflight` meant to begin anew; what it linked to is set aside, not deleted.
    if cluster.exists() && data_dir.symlink_metadata().is_err() {
        let aside = set_aside(&cluster)?;
        progress(&format!("The data of an earlier checkout was moved to {}", aside.display()));
    }
    account.private_dir(&home)?;
    if data_dir.symlink_metadata().is_ok() {
        // A cluster made here before the path was closed to the server's user.
        std::fs::rename(data_dir, &cluster)?;
    }
    std::os::unix::fs::symlink(&cluster, data_dir)?;
    progress(&format!("The database is kept in {}, which its user can enter", home.display()));
    Ok(cluster)
}

fn forget_dangling_link(data_dir: &Path) {
    let is_link = data_dir.symlink_metadata().is_ok_and(|found| found.is_symlink());
    if is_link && !data_dir.exists() {
        let _ = std::fs::remove_file(data_dir);
    }
}

/// Moves `dir` to the first free `<dir>.old-<n>`.
fn set_aside(dir: &Path) -> io::Result<PathBuf> {
    let free = (1..).map(|n| with_suffix(dir, &format!(".old-{n}"))).find(|path| !path.exists());
    let aside = free.expect("one of endlessly many names is free");
    std::fs::rename(dir, &aside)?;
    Ok(aside)
}

/// The major version that made the cluster; `None` when there is none yet.
pub(super) fn version(cluster: &Path) -> Option<u32> {
    let version = std::fs::read_to_string(cluster.join("PG_VERSION")).ok()?;
    cluster.join("global/pg_control").is_file().then(|| version.trim().parse().ok())?
}

/// Makes a new cluster: in a sibling that is renamed when whole, so that a killed `initdb` leaves
/// nothing that looks finished.
pub(super) fn create(
    cluster: &Path,
    programs: &Programs,
    account: &Account,
    progress: &dyn Fn(&str),
) -> Result<(), StartError> {
    let in_cluster = |error| StartError::Files(error, cluster.to_path_buf());
    let there = entries(cluster).map_err(in_cluster)?;
    if !there.is_empty() && !there.iter().any(|name| name == "PG_VERSION") {
        return Err(StartError::NotOurs(cluster.to_path_buf()));
    }
    if !there.is_empty() {
        let aside = set_aside(cluster).map_err(in_cluster)?;
        progress(&format!("Found an unfinished database; it was moved to {}", aside.display()));
    }
    let making = with_suffix(cluster, ".new");
    if making.exists() {
        std::fs::remove_dir_all(&making).map_err(in_cluster)?;
    }
    account.private_dir(&making).map_err(in_cluster)?;
    run_initdb(&making, programs, account)?;
    if cluster.exists() {
        std::fs::remove_dir(cluster).map_err(in_cluster)?;
    }
    std::fs::rename(&making, cluster).map_err(in_cluster)?;
    // The rename is durable only once the folder is.
    let parent = cluster.parent().unwrap_or(cluster);
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(in_cluster)
}

/// The names in a folder; none where there is no folder.
fn entries(folder: &Path) -> io::Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn run_initdb(into: &Path, programs: &Programs, account: &Account) -> Result<(), StartError> {
    let mut command = Command::new(programs.program("initdb"));
    // Sorted by bytes, which is fast; letters of all languages have their upper and lower case.
    let letters = if cfg!(target_os = "macos") { "--lc-ctype=UTF-8" } else { "--lc-ctype=C.UTF-8" };
    command.args(["--encoding=UTF8", "--locale=C", letters, "--username=songflight"]);
    // Until there are old ones to be used again, each file of the log is written full of zeros when it is begun, and all
    // who commit wait for that: 20 ms with the usual 16 MB, every two seconds at a thousand steps in each.
    command.arg("--wal-segsize=1");
    // Nobody else can reach the socket (its folder is 0700), so no password; nothing listens on TCP.
    command.args(["--auth-local=trust", "--auth-host=reject", "--pgdata"]).arg(into);
    let output =
        account.apply(&mut command).output().map_err(|error| StartError::Files(error, into.into()))?;
    if output.status.success() {
        return Ok(());
    }
    let _ = std::fs::remove_dir_all(into);
    let said = [output.stdout, output.stderr].concat();
    Err(StartError::Failed { what: "making the database", tail: String::from_utf8_lossy(&said).into_owned() })
}

/// A short folder for the socket, the server's own: the name comes from the cluster's, so that two
/// copies do not meet.
pub(super) fn socket_dir(cluster: &Path, account: &Account) -> Result<PathBuf, StartError> {
    let hash = short_hash(cluster);
    let names = (0..8).map(|n| PathBuf::from(format!("/tmp/sf-{hash}{}", "x".repeat(n))));
    for dir in names.filter(|dir| dir.as_os_str().len() <= SOCKET_DIR_BYTES_MAX) {
        if dir.symlink_metadata().is_err() || account.owns(&dir) {
            account.private_dir(&dir).map_err(|error| StartError::Files(error, dir.clone()))?;
            return Ok(dir);
        }
    }
    let taken = io::Error::other("every name for the socket's folder is taken by other users");
    Err(StartError::Files(taken, PathBuf::from(format!("/tmp/sf-{hash}"))))
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn short_hash(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
