//! Notes of the processes that write to the store. The blobs of a new image have no name until the image is complete, and a
//! big image on a slow line takes longer than any grace of `img-gc`. So everything since the oldest of these processes
//! began counts as in use.
//!
//! A note is a file, `images/.writing-<pid>-<time>.lock`, which its process holds locked. It may list digests that are in use as
//! well. The note of a killed process is not locked, and the next process removes it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    sync::{MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use oci_spec::image::Descriptor;
use rustix::{
    fs::FlockOperation,
    io::{Errno, retry_on_intr},
};

use super::{Error, Layout, blob::open_regular};
use crate::digest::Digest;

const PREFIX: &str = ".writing-";
const SUFFIX: &str = ".lock";
/// The time of a file may be that of the kernel's last tick.
const TICK: Duration = Duration::from_secs(1);

/// The note of this process. It is removed on drop.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
    /// Locked until the end.
    file: File,
}

impl Drop for Note {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The note of another process that is running.
pub(crate) struct Writer {
    pub(crate) path: PathBuf,
    /// When it began to write.
    pub(crate) since: SystemTime,
}

impl Layout {
    /// Notes that this process writes to the store: until it ends or drops the layout and its clones, `img-gc` keeps
    /// everything that is new from now on. Waits for an `img-gc` that is working. Do not call it during an
    /// [`Edit`](super::Edit).
    ///
    /// # Errors
    /// When the note cannot be written.
    pub(crate) fn note_writing(&self) -> Result<(), Error> {
        self.noted().map(drop)
    }

    /// Keeps these manifests, and all that they mention, from `img-gc` as well, even if their names are removed
    /// meanwhile.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn keep_meanwhile(&self, digests: &[Digest]) -> Result<(), Error> {
        let mut noted = self.noted()?;
        let Some(Note { path, file }) = noted.as_mut() else { return Ok(()) };
        let lines: String = digests.iter().map(|digest| format!("{digest}\n")).collect();
        file.write_all(lines.as_bytes()).map_err(Error::io("write", path.clone()))
    }

    /// Keeps an image from `img-gc` while this process reads it, even if its name goes meanwhile. A process that may not
    /// write to the store cannot.
    pub fn keep_while_reading(&self, image: &Descriptor) {
        if let Ok(digest) = Digest::try_from(image.digest()) {
            let _ = self.keep_meanwhile(&[digest]);
        }
    }

    fn noted(&self) -> Result<MutexGuard<'_, Option<Note>>, Error> {
        let mut noted = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.is_none() {
            // While img-gc works, it holds this lock. So it sees the note, or has finished.
            let lock = self.lock()?;
            self.writers(false)?;
            let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let path = self.path.join(format!("{PREFIX}{}-{}{SUFFIX}", std::process::id(), time.as_nanos()));
            let file = File::options().write(true).create_new(true).open(&path);
            let file = file.map_err(Error::io("write", &path))?;
            let note = Note { path, file };
            lock_now(&note.file).map_err(|errno| Error::io("lock", &note.path)(errno.into()))?;
            drop(lock);
            *noted = Some(note);
        }
        Ok(noted)
    }

    /// The processes that write to the store. The caller holds the lock of the list: a note is made and locked under it.
    /// With `look`, notes of killed processes stay.
    pub(crate) fn writers(&self, look: bool) -> Result<Vec<Writer>, Error> {
        let mut writers = Vec::new();
        let at = |error| Error::io("read directory", &self.path)(error);
        for entry in fs::read_dir(&self.path).map_err(at)? {
            let entry = entry.map_err(at)?;
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let path = entry.path();
            match open_regular(&path) {
                Ok(note) if lock_now(&note).is_ok() => {
                    if !look {
                        let _ = fs::remove_file(path);
                    }
                    continue;
                }
                // Only a regular file is a note.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) =>
                {
                    continue;
                }
                _ => {}
            }
            let time = name.strip_suffix(SUFFIX).and_then(|name| name.split_once('-'));
            let nanoseconds = time.and_then(|(_, time)| time.parse().ok()).unwrap_or(0);
            let since = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds);
            writers.push(Writer { path, since: since.checked_sub(TICK).unwrap_or(since) });
        }
        Ok(writers)
    }
}

/// Locks a file that nobody has locked, until it is closed.
fn lock_now(file: &File) -> Result<(), Errno> {
    retry_on_intr(|| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive))
}
