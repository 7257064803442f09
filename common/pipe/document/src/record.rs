//! The record: the document of a container at `$STAVE_RUN/<id>.json`. A killed pipe leaves it for `unwind`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use operation::Error;
use operation::{Cause, Namespace};

pub use crate::lock::Lock;
use crate::{
    Document, Id,
    lock::{failed, remove_file},
    name,
    replace::{self, replace},
    table,
};

/// A container's record, locked.
#[derive(Debug)]
pub struct Record {
    id: Id,
    path: PathBuf,
    lock: Lock,
}

impl Record {
    /// Locks the record of `id` in `run_dir` (`$STAVE_RUN`). The record need not exist yet. Waits until its
    /// holder releases it.
    ///
    /// # Errors
    /// When the lock cannot be taken.
    pub fn lock(run_dir: &Path, id: &Id) -> Result<Self, Error> {
        let lock = Lock::take(run_dir, &lock_name(id))?;
        Ok(Self { id: id.clone(), path: path(run_dir, id), lock })
    }

    /// Locks the record of `id`, unless another process has locked it.
    ///
    /// # Errors
    /// When the lock cannot be taken.
    pub(crate) fn lock_if_free(run_dir: &Path, id: &Id) -> Result<Option<Self>, Error> {
        let lock = Lock::take_if_free(run_dir, &lock_name(id))?;
        Ok(lock.map(|lock| Self { id: id.clone(), path: path(run_dir, id), lock }))
    }

    /// Locks the record of `id` if its lock exists. Makes no file, so that a process that ends while its
    /// container is being removed leaves none behind.
    ///
    /// # Errors
    /// When the lock cannot be taken.
    pub fn lock_existing(run_dir: &Path, id: &Id) -> Result<Option<Self>, Error> {
        let path = path(run_dir, id);
        Ok(Lock::take_existing(run_dir, &lock_name(id))?.map(|lock| Self { id: id.clone(), path, lock }))
    }

    /// The path of the record.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The document in the record; `None` if there is no record.
    ///
    /// # Errors
    /// When the record cannot be read, or is not a document.
    pub fn read(&self) -> Result<Option<Document>, Error> {
        read_file(&self.path)
    }

    /// Whether the record was begun in the namespace in which steps of this tool make something ([`is_of_this`]).
    ///
    /// # Errors
    /// Those of [`is_of_this`].
    pub fn is_seen_by(&self, tool: &str, id: &Id) -> Result<bool, Error> {
        table::works_in(tool).map_or(Ok(true), |namespace| self.lock.is_of_this(namespace, id))
    }

    /// Notes that what the container has on the host is made again in this process's namespaces.
    pub fn move_here(&self) {
        self.lock.note_origin();
    }

    /// Replaces the record, wholly or not at all. On a full file system this still works if the record does
    /// not grow.
    ///
    /// # Errors
    /// When the record cannot be written. The old record stays.
    pub fn write(&self, document: &Document) -> Result<(), Error> {
        if !is_there(&self.path) {
            // A link that a killed container-rename has left.
            remove_file(&self.path)?;
            self.lock.note_origin();
        }
        let beside = self.path.with_extension("json.new");
        replace(&self.path, &beside, document.to_line().as_bytes())
            .map_err(failed("write record", &self.path))
    }

    /// Removes the record, the names of the container and the lock.
    ///
    /// # Errors
    /// When one of them cannot be removed.
    pub fn remove(self) -> Result<(), Error> {
        if let Some(run_dir) = self.path.parent() {
            name::release(run_dir, &self.id, None)?;
        }
        // The spare file. No other process writes to it while the lock is held.
        remove_file(&self.path.with_extension("json.new"))?;
        remove_file(&self.path)?;
        self.lock.remove()
    }

    /// Releases the lock. Removes the lock's file if there is no record.
    pub fn release(self) {
        if !is_there(&self.path) {
            let _ = self.lock.remove();
        }
    }
}

/// Whether the record of `id` was begun in this process's network or pid namespace. If not, the container's links
/// and rules on the host, or its processes, cannot be seen from here: that is an error as long as that namespace
/// exists, and false once it has ended. True for a record of a version before 0.2, which does not tell.
///
/// # Errors
/// The refusal; when the lock's file cannot be read.
pub fn is_of_this(namespace: Namespace, run_dir: &Path, id: &Id) -> Result<bool, Error> {
    Lock::seen(run_dir, &lock_name(id))?.map_or(Ok(true), |lock| lock.is_of_this(namespace, id))
}

/// As [`is_of_this`], but does not look where another namespace is: a record that was begun there gives false.
///
/// # Errors
/// When the lock's file cannot be read.
pub fn is_begun_here(namespace: Namespace, run_dir: &Path, id: &Id) -> Result<bool, Error> {
    match Lock::seen(run_dir, &lock_name(id))?.map_or(Ok(None), |lock| lock.noted(namespace))? {
        Some((inode, _)) => Ok(inode == namespace.own()?),
        None => Ok(true),
    }
}

/// The name of a container's lock. The suffix tells it from a shared lock (`network`).
fn lock_name(id: &Id) -> String {
    format!("{id}.container")
}

/// The path of the record of `id`.
pub fn path(run_dir: &Path, id: &Id) -> PathBuf {
    run_dir.join(format!("{id}.json"))
}

/// Whether there is a record, and not only the name of another container.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|file| !file.is_symlink())
}

fn read_file(path: &Path) -> Result<Option<Document>, Error> {
    let text = match replace::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) if path.is_symlink() => {
            let named = |id| failed("read record", path)(format!("it is the name of container \"{id}\""));
            return name::holder(path)?.map_or(Ok(None), |id| Err(named(id)));
        }
        Err(error) => return Err(failed("read record", path)(error)),
    };
    let damaged = |cause: Cause| {
        let id = path.file_stem().unwrap_or_default().to_string_lossy();
        failed("read record", path)(cause).with_hint(format!(
            "move it away; `unwind {id}` then goes by the second record in $STAVE_ROOT, if there is one"
        ))
    };
    if text.trim_ascii().is_empty() {
        return Err(damaged("it is empty".into()));
    }
    let malformed = |error| match error {
        // Its text speaks of standard input.
        crate::Error::NotADocument(cause) => damaged(format!("it is not a document: {cause}").into()),
        error => failed("read record", path)(Cause::Source(Box::new(error))),
    };
    Document::parse(&text).map(Some).map_err(malformed)
}

/// Reads the record of `id` without taking its lock. The result is complete, but may be out of date.
///
/// # Errors
/// When the record cannot be read, or is not a document.
pub fn read(run_dir: &Path, id: &Id) -> Result<Option<Document>, Error> {
    read_file(&path(run_dir, id))
}

/// As [`read`], for a container that somebody names.
///
/// # Errors
/// As [`read`]; [`missing`].
pub fn read_existing(run_dir: &Path, id: &Id) -> Result<Document, Error> {
    read(run_dir, id)?.ok_or_else(|| missing(run_dir, id))
}

/// The error for a container that somebody names and that has no record.
pub fn missing(run_dir: &Path, id: &Id) -> Error {
    let cause = format!("no container \"{id}\" in {}", run_dir.display());
    Error::new("", "", cause).with_hint("container-ls lists them")
}

/// Locks and reads the record of `id`. Waits until its holder releases it. Returns `None` if there is no
/// record; in this case, removes what a killed tool may have left: the spare file and the lock's file.
///
/// # Errors
/// When the record cannot be locked or read, or the leftovers cannot be removed.
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

/// The ids of all records in `run_dir`, sorted. Names and other files are skipped. A missing directory has no records.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(run_dir: &Path) -> Result<Vec<Id>, Error> {
    let entries = match fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read directory", run_dir)(error)),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("read directory", run_dir))?;
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            continue;
        }
        let name = entry.file_name();
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
    fn what_is_no_record_is_refused_in_words_about_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let id: Id = "web".parse().unwrap();
        let path = path(dir.path(), &id);
        let refused = |cause: &str| {
            let expected = format!("read record {path:?}: {cause}");
            let told = read(dir.path(), &id).unwrap_err().to_string();
            assert!(told.starts_with(&expected), "{told}");
        };
        for (text, cause) in [
            (&b""[..], "it is empty"),
            (b"{", "it is not a document: EOF"),
            (b"[]", "it is not a document: "),
            (&[0; 4096], "it is not a document: "),
            (b"{\"stave\":9}", "document has version 9"),
        ] {
            fs::write(&path, text).unwrap();
            refused(cause);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused("it is not a regular file");
        fs::remove_dir(&path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        refused("it is not a regular file");
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
