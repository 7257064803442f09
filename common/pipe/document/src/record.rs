//! The record: the document of a container at `$STAVE_RUN/<id>.json`. A killed pipe leaves it for `unwind`.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

pub use operation::Error;
use operation::{Cause, Place, unless_gone};
use rustix::{
    fs::{FlockOperation, flock},
    io::retry_on_intr,
};

use crate::{
    Document, Id,
    replace::{self, replace},
};

/// For `map_err`: the error of `verb` on a record, a lock or their directory.
fn failed<C: Into<Cause>>(verb: &'static str, path: &Path) -> impl FnOnce(C) -> Error {
    move |cause| Error::new(verb, format_args!("{path:?}"), cause).of(Place::RunDir)
}

/// A file lock (`flock`), held until it is dropped or its process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    held: File,
}

impl Lock {
    /// Takes the lock `$STAVE_RUN/locks/<name>`, and waits for its holder.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn take(run_dir: &Path, name: &str) -> Result<Self, Error> {
        let directory = run_dir.join("locks");
        let path = directory.join(name);
        loop {
            let open = || File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
            let file = open()
                .or_else(|error| match error.kind() {
                    io::ErrorKind::NotFound => fs::create_dir_all(&directory).and_then(|()| open()),
                    _ => Err(error),
                })
                .map_err(failed("open lock", &path))?;
            if let Some(lock) = Self::wait(&path, file)? {
                return Ok(lock);
            }
        }
    }

    /// The same, if the lock's file exists; makes none.
    fn take_existing(run_dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        let path = run_dir.join("locks").join(name);
        match File::options().write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => Self::wait(&path, result.map_err(failed("open lock", &path))?),
        }
    }

    /// Waits for the lock. None if its last holder has removed the file, because then the lock is worthless.
    fn wait(path: &Path, file: File) -> Result<Option<Self>, Error> {
        let locked = retry_on_intr(|| flock(&file, FlockOperation::LockExclusive));
        locked.map_err(|errno| failed("lock", path)(io::Error::from(errno)))?;
        let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let opened = file.metadata().map_err(failed("lock", path))?;
        let lock = Self { path: path.to_owned(), held: file };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => Ok((inode(found.map_err(failed("lock", path))?) == inode(opened)).then_some(lock)),
        }
    }

    /// Removes the lock's file, and releases the lock.
    fn remove(self) -> Result<(), Error> {
        remove_file(&self.path)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A child that was forked meanwhile has the descriptor until it executes its program. What fails here ends with the
        // process.
        let _ = flock(&self.held, FlockOperation::Unlock);
    }
}

/// A container's record, locked.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    lock: Lock,
}

impl Record {
    /// Locks the record of `id` in `run_dir` (`$STAVE_RUN`), which need not exist yet; waits for its holder.
    ///
    /// # Errors
    /// When the lock cannot be taken.
    pub fn lock(run_dir: &Path, id: &Id) -> Result<Self, Error> {
        let lock = Lock::take(run_dir, &lock_name(id))?;
        Ok(Self { path: path(run_dir, id), lock })
    }

    /// Locks the record of `id` if it exists. Makes nothing: for a process that ends while its container is being
    /// removed.
    ///
    /// # Errors
    /// When the lock cannot be taken.
    pub fn lock_existing(run_dir: &Path, id: &Id) -> Result<Option<Self>, Error> {
        let path = path(run_dir, id);
        Ok(Lock::take_existing(run_dir, &lock_name(id))?.map(|lock| Self { path, lock }))
    }

    /// The path of the record.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The document in the record; none if there is no record.
    ///
    /// # Errors
    /// When it cannot be read, or is not a document.
    pub fn read(&self) -> Result<Option<Document>, Error> {
        read_file(&self.path)
    }

    /// Writes the record: wholly, or not at all. A record that becomes shorter is written on a full file system as well.
    ///
    /// # Errors
    /// When it cannot be written; then the old record stays.
    pub fn write(&self, document: &Document) -> Result<(), Error> {
        let beside = self.path.with_extension("json.new");
        replace(&self.path, &beside, document.to_line().as_bytes())
            .map_err(failed("write record", &self.path))
    }

    /// Removes the record and its lock.
    ///
    /// # Errors
    /// When one of them cannot be removed.
    pub fn remove(self) -> Result<(), Error> {
        // The spare file. No other process writes while the lock is held.
        remove_file(&self.path.with_extension("json.new"))?;
        remove_file(&self.path)?;
        self.lock.remove()
    }

    /// Releases the record, and removes the lock's file if there is no record.
    pub fn release(self) {
        if !self.path.exists() {
            let _ = self.lock.remove();
        }
    }
}

/// The suffix keeps an id apart from shared locks ("network").
fn lock_name(id: &Id) -> String {
    format!("{id}.container")
}

/// The path of the record of `id`.
pub fn path(run_dir: &Path, id: &Id) -> PathBuf {
    run_dir.join(format!("{id}.json"))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    unless_gone(fs::remove_file(path)).map(drop).map_err(failed("remove", path))
}

fn read_file(path: &Path) -> Result<Option<Document>, Error> {
    let text = match replace::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read record", path)(error)),
    };
    let malformed = |error| failed("read record", path)(Cause::Source(Box::new(error)));
    Document::parse(&text).map(Some).map_err(malformed)
}

/// Reads the record of `id` without a lock: complete, as it was at some moment.
///
/// # Errors
/// When it cannot be read, or is not a document.
pub fn read(run_dir: &Path, id: &Id) -> Result<Option<Document>, Error> {
    read_file(&path(run_dir, id))
}

/// The record of `id`, locked, with its document; none if there is no record. Waits for its holder. Removes the remains
/// of a killed tool that never finished a record: a temporary file, a lock.
///
/// # Errors
/// When it cannot be locked or read, or the remains cannot be removed.
pub fn settled(run_dir: &Path, id: &Id) -> Result<Option<(Record, Document)>, Error> {
    let path = path(run_dir, id);
    let traces = [path.with_extension("json.new"), run_dir.join("locks").join(lock_name(id)), path];
    if !traces.iter().any(|trace| trace.exists()) {
        return Ok(None);
    }
    let record = Record::lock(run_dir, id)?;
    match record.read()? {
        Some(document) => Ok(Some((record, document))),
        None => record.remove().map(|()| None),
    }
}

/// The ids of all records in `run_dir`, sorted. Other files are skipped.
///
/// # Errors
/// When the directory cannot be read. A missing one has no records.
pub fn list(run_dir: &Path) -> Result<Vec<Id>, Error> {
    let entries = match fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read directory", run_dir)(error)),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("read directory", run_dir))?.file_name();
        ids.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).and_then(|id| id.parse().ok()));
    }
    ids.sort();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_read_listed_and_removed_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        let id: Id = "web".parse().unwrap();
        let record = Record::lock(dir.path(), &id).unwrap();
        assert!(record.read().unwrap().is_none());
        record.write(&Document::new()).unwrap();
        assert_eq!(read(dir.path(), &id).unwrap().unwrap().to_line(), r#"{"stave":1}"#);
        assert_eq!(list(dir.path()).unwrap(), std::slice::from_ref(&id));
        record.remove().unwrap();
        assert_eq!(list(dir.path()).unwrap(), []);
        assert!(Record::lock_existing(dir.path(), &id).unwrap().is_none());
        Record::lock(dir.path(), &id).unwrap().release();
        assert_eq!(fs::read_dir(dir.path().join("locks")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_writer_left_is_swept_away_and_a_record_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let id: Id = "web".parse().unwrap();
        let settled = || settled(dir.path(), &id).unwrap();
        assert!(settled().is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let record = Record::lock(dir.path(), &id).unwrap();
        fs::write(dir.path().join("web.json.new"), "{").unwrap();
        drop(record);
        assert!(settled().is_none());
        assert!(!dir.path().join("web.json.new").exists());
        assert_eq!(fs::read_dir(dir.path().join("locks")).unwrap().count(), 0);
        let record = Record::lock(dir.path(), &id).unwrap();
        record.write(&Document::new()).unwrap();
        drop(record);
        assert!(settled().is_some());
        assert!(read(dir.path(), &id).unwrap().is_some());
    }

    #[test]
    fn a_record_that_is_about_to_be_written_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let id: Id = "web".parse().unwrap();
        let record = Record::lock(dir.path(), &id).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| settled(dir.path(), &id).unwrap().is_some());
            std::thread::sleep(std::time::Duration::from_millis(50));
            record.write(&Document::new()).unwrap();
            drop(record);
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn one_at_a_time_even_when_the_lock_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let id: Id = "web".parse().unwrap();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let record = Record::lock(dir.path(), &id).unwrap();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        record.release();
                    }
                });
            }
        });
    }
}
