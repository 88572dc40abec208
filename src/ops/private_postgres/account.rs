//! As whom the server's processes run: as ourselves, or, since Postgres refuses root, as an
//! unprivileged user when we are root. Only changes of user and owner; no `su`, no `sudo`.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::StartError;

/// Users to run the server as when we are root; the first that exists.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

#[derive(Clone, Debug)]
pub(super) struct Account {
    /// User and group to become; `None` to stay who we are.
    become_user: Option<(u32, u32)>,
    /// The user id the server's files belong to.
    pub(super) uid: u32,
}

impl Account {
    pub(super) fn choose() -> Result<Self, StartError> {
        let ourselves = id_of(&["-u"]).ok_or_else(|| StartError::Account("`id -u` did not answer".into()))?;
        if ourselves != 0 {
            return Ok(Self { become_user: None, uid: ourselves });
        }
        UNPRIVILEGED
            .iter()
            .find_map(|name| Some((id_of(&["-u", name])?, id_of(&["-g", name])?)))
            .map(|(uid, gid)| Self { become_user: Some((uid, gid)), uid })
            .ok_or_else(|| StartError::Account("there is no user `postgres` or `nobody`".into()))
    }

    /// The same for data that exists: Postgres wants to run as the owner of its files, whom root can be.
    ///
    /// # Errors
    /// When the data is another user's and we are not root.
    pub(super) fn of_owner(self, data_dir: &Path) -> Result<Self, StartError> {
        match (std::fs::metadata(data_dir), self.become_user) {
            (Ok(found), _) if found.uid() == self.uid || found.uid() == 0 => Ok(self),
            (Ok(found), Some(_)) => {
                Ok(Self { become_user: Some((found.uid(), found.gid())), uid: found.uid() })
            }
            (Ok(_), None) => Err(StartError::Files(
                io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"),
                data_dir.to_path_buf(),
            )),
            (Err(_), _) => Ok(self),
        }
    }

    /// Makes a command run as this account, in a folder it can surely enter.
    pub(super) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some((uid, gid)) = self.become_user {
            command.uid(uid).gid(gid).env_remove("HOME");
        }
        command.current_dir("/").stdin(Stdio::null())
    }

    /// Whether this account gets through to `dir`: not into a checkout in root's home (mode 0700).
    pub(super) fn can_enter(&self, dir: &Path) -> bool {
        let mut command = Command::new("sh");
        command.args(["-c", "cd -- \"$1\"", "sh"]).arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
        self.become_user.is_none() || self.apply(&mut command).status().is_ok_and(|status| status.success())
    }

    /// Makes `dir` this account's own, closed to everyone else; an existing one is taken over.
    pub(super) fn private_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        if let Some((uid, gid)) = self.become_user {
            std::os::unix::fs::chown(dir, Some(uid), Some(gid))?;
        }
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
    }

    /// Whether `dir` is a real folder of this account: the name in `/tmp` can be guessed, so it
    /// may have been put there by someone else.
    pub(super) fn owns(&self, dir: &Path) -> bool {
        std::fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir() && found.uid() == self.uid)
    }
}

fn id_of(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().parse().ok())?
}
