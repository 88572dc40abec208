//! Whether the node that ran in this folder before is gone for certain: it held the folder's lock, which the system takes
//! away with its process. Then nobody need wait until its lease has run out (OPS-3). Who holds it also leaves word of
//! where it is reached, for the commands that are run beside it.
//!
//! Not here: what becomes of its songs (`song::recovery`).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// Holds the lock and, in it, the name of the node that runs here.
const FILE: &str = "node.lock";
/// Holds the url of the service that runs here.
const ADDRESS: &str = "address";
/// An id, a blank and the name of a machine; or a url.
const BYTES_MAX: u64 = 512;

/// The folder's lock; the system frees it when we end, however we end.
pub(super) struct Folder {
    file: File,
    former: Option<Uuid>,
    address: PathBuf,
}

impl Folder {
    /// `None` where another process runs here, or nothing can be written: then leases decide, as among machines.
    pub(super) fn lock(dir: &Path) -> Option<Self> {
        let path = dir.join(FILE);
        let opened = std::fs::create_dir_all(dir)
            .and_then(|()| File::options().read(true).write(true).create(true).truncate(false).open(&path));
        let mut file = opened
            .inspect_err(|error| tracing::debug!(%error, path = %path.display(), "not locked"))
            .ok()
            .filter(|file| file.try_lock().is_ok())?;
        let mut text = String::new();
        let read = (&mut file).take(BYTES_MAX).read_to_string(&mut text);
        let former = read.ok().and_then(|_| former(&text, &machine()));
        Some(Self { file, former, address: dir.join(ADDRESS) })
    }

    /// The last node that ran here, on this machine.
    pub(super) const fn former(&self) -> Option<Uuid> {
        self.former
    }

    /// The node that runs here has lost its songs, to one that may have been started in a copy of the folder: the next one
    /// begins as another.
    pub(super) fn forget(&self) {
        if let Err(error) = self.file.set_len(0) {
            tracing::debug!(%error, "the node's name could not be taken out of its folder");
        }
    }

    /// Leaves word of the node that runs here from now on. Where that fails, the next one waits for its lease.
    pub(super) fn keep(&mut self, node: Uuid) {
        let text = format!("{node} {}\n", machine());
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(text.as_bytes()));
        if let Err(error) = written {
            tracing::debug!(%error, "the node's name could not be left in its folder");
        }
    }

    /// Leaves word of where the service is. Where that fails, the commands beside it are to be told by `--url`.
    pub(super) fn serves_at(&self, url: &str) {
        if let Err(error) = std::fs::write(&self.address, format!("{url}\n")) {
            tracing::debug!(%error, "the service's address could not be left in its folder");
        }
    }

    /// The service is not reached any more. After a crash its address stays until the next start.
    pub(super) fn serves_no_more(&self) {
        if let Err(error) = std::fs::remove_file(&self.address) {
            tracing::debug!(%error, "the service's address could not be taken out of its folder");
        }
    }
}

/// The url of the service that runs in this folder, as it left word there.
pub(super) fn address(dir: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(dir.join(ADDRESS)).ok()?;
    file.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    let url = text.trim_end();
    url.starts_with("http://").then(|| url.to_owned())
}

/// The folder may be shared with another machine that does not see our locks: only a node of this one counts.
fn former(text: &str, machine: &str) -> Option<Uuid> {
    let (node, of) = text.trim_end().split_once(' ')?;
    node.parse().ok().filter(|_| of == machine)
}

fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::fresh;

    #[test]
    fn who_comes_next_learns_who_was_here_once_that_one_has_gone() {
        let dir = std::env::temp_dir().join(format!("songflight-folder-{}", fresh()));
        let node = fresh();
        let mut first = Folder::lock(&dir).expect("a folder of our own");
        assert_eq!(first.former(), None);
        first.keep(node);
        assert!(Folder::lock(&dir).is_none(), "while the first is here");
        drop(first);
        let second = Folder::lock(&dir).expect("free again");
        assert_eq!(second.former(), Some(node));
        drop(second);
        std::fs::write(dir.join(FILE), [0xff; 600]).expect("written");
        assert_eq!(Folder::lock(&dir).expect("free").former(), None, "no name at all");
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn whoever_comes_into_the_folder_learns_where_the_service_is_as_long_as_it_runs() {
        let dir = std::env::temp_dir().join(format!("songflight-folder-{}", fresh()));
        let folder = Folder::lock(&dir).expect("a folder of our own");
        assert_eq!(address(&dir), None);
        folder.serves_at("http://127.0.0.1:8081");
        assert_eq!(address(&dir).as_deref(), Some("http://127.0.0.1:8081"));
        folder.serves_no_more();
        assert_eq!(address(&dir), None);
        std::fs::write(dir.join(ADDRESS), [0xff; 600]).expect("written");
        assert_eq!(address(&dir), None, "no url at all");
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn a_node_of_another_machine_may_live() {
        let node = fresh();
        assert_eq!(former(&format!("{node} here\n"), "here"), Some(node));
        for text in [format!("{node} there\n"), format!("{node}\n"), "x here\n".to_owned(), String::new()] {
            assert_eq!(former(&text, "here"), None, "{text}");
        }
    }
}
