//! Audio that was given to us as bytes: kept as files on this machine, and served by urls that nobody can guess.
//!
//! Not here: fetching what lies at a provider, storage that several nodes share, and asking who may hear it: whoever
//! has the url may, as with a provider's own.

mod range;
mod serve;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix_web::web;

use crate::id;

/// The endings of names, and what they stand for.
const MEDIA_TYPES: [(&str, &str); 2] = [("mp3", "audio/mpeg"), ("wav", "audio/wav")];
/// Hexadecimal digits of a name.
const NAME_DIGITS: usize = 32;
/// What a file is called until it is whole.
const UNFINISHED: &str = "part";

/// A folder of files and the url they are found under. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Assets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    base_url: String,
}

impl Assets {
    /// The folder need not exist. What an earlier run left unfinished in it goes. `base_url` is where clients
    /// reach us.
    pub fn new(dir: impl Into<PathBuf>, base_url: &str) -> Self {
        let dir = dir.into();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == UNFINISHED) {
                // It is in nobody's way.
                let _ = fs::remove_file(path);
            }
        }
        let base_url = format!("{}/assets", base_url.trim_end_matches('/'));
        Self { inner: Arc::new(Inner { dir, base_url }) }
    }

    /// Keeps a file and says its url. All of it is on the disk then, or nothing; it blocks until it is.
    ///
    /// # Errors
    /// The disk is full, the folder cannot be written, or files of this type are not kept.
    pub fn keep(&self, file: &[u8], media_type: &str) -> io::Result<String> {
        let ending = MEDIA_TYPES.iter().find(|(_, known)| *known == media_type).map(|(ending, _)| ending);
        let ending = ending.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("files of type {media_type} are not kept"))
        })?;
        let name = id::secret().simple();
        fs::create_dir_all(&self.inner.dir)?;
        let unfinished = self.inner.dir.join(format!("{name}.{UNFINISHED}"));
        let name = format!("{name}.{ending}");
        write_whole(&unfinished, &self.inner.dir.join(&name), file)?;
        Ok(format!("{}/{name}", self.inner.base_url))
    }

    /// The file of this name and its type, if it could be one of ours.
    fn find(&self, name: &str) -> Option<(PathBuf, &'static str)> {
        let (digits, ending) = name.split_once('.')?;
        let ours = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if digits.len() != NAME_DIGITS || !digits.bytes().all(ours) {
            return None;
        }
        let (_, media_type) = MEDIA_TYPES.iter().find(|(known, _)| *known == ending)?;
        Some((self.inner.dir.join(name), media_type))
    }
}

/// Needs the [`Assets`] as app data.
pub fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::resource("/assets/{name}").route(web::get().to(serve::file)).route(web::head().to(serve::file)),
    );
}

/// Writes a file under a name of its own and gives it its place only when it is whole and safe on the disk.
fn write_whole(unfinished: &Path, finished: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(unfinished, finished)?;
        // The name is on the disk when its folder is.
        finished.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    })();
    if written.is_err() {
        // It may not have come so far as to exist.
        let _ = fs::remove_file(unfinished);
        let _ = fs::remove_file(finished);
    }
    written
}

#[cfg(test)]
mod tests;
