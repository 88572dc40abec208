//! How many files this process may have open, and how many of them are for connections: where all were taken, calls to
//! providers and to Postgres would fail, and even the next connection could not be told so.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Where the system sets no limit, or more than anybody needs.
const MANY: usize = 1_000_000;

/// Raises the limit to what the system allows, and says what it is now.
pub(super) fn raise() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit = raised,
            Err(error) => tracing::debug!(%error, "the limit of open files stays as it is"),
        }
    }
    limit.current.and_then(|limit| usize::try_from(limit).ok()).map_or(MANY, |limit| limit.min(MANY))
}

/// Connections from outside: each is a file, and an eighth of all is for what this program opens itself. One that comes
/// beyond them waits at the door until another goes.
pub(super) const fn for_connections(files: usize) -> usize {
    files - files / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_it_was_raised_there_is_no_more_to_be_had() {
        let files = raise();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
        assert!(files > 0 && current.is_none_or(|current| files as u64 <= current));
    }

    #[test]
    fn connections_leave_files_for_the_rest() {
        for files in [64, 1024, 20_000, MANY] {
            let left = files - for_connections(files);
            assert_eq!(left, files / 8, "of {files}");
        }
    }
}
