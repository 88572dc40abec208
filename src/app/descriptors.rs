//! How many files this process may have open, and how many of them are for connections: where all were taken, calls to
//! providers and to Postgres would fail, and even the next connection could not be told so.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Where the system sets no limit, or more than anybody needs.
const MANY: usize = 1_000_000;

/// Raises the limit to what the system allows, and says what it is now.
pub(super) fn raise() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit = raised,
            Err(error) => tracing::debug!(%error, "the limit of open files stays as it is"),
        }
    }
    limit.current.and_then(|limit| usize::try_from(limit).ok()).map_or(MANY, |limit| limit.min(MANY))
}

/// Connections from outside: a WebSocket takes two files (`realtime::on_connect`), and an eighth of all is for what this
/// program opens itself. One that comes beyond them waits at the door until another goes.
pub(super) const fn for_connections(files: usize) -> usize {
    (files - files / 8) / 2
}
