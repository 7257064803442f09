//! Locks in `$STAVE_RUN/locks`.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use operation::{Cause, Error, Namespace, Place, unless_gone};
use rustix::{
    fs::{FlockOperation, flock},
    io::{Errno, retry_on_intr},
};

use crate::{Id, shared_lock, waiting};

/// For `map_err`: makes the error of `verb` on a record, a lock or their directory at `path`.
pub(crate) fn failed<C: Into<Cause>>(verb: &'static str, path: &Path) -> impl FnOnce(C) -> Error {
    move |cause| Error::new(verb, format_args!("{path:?}"), cause).of(Place::RunDir)
}

/// A file lock (`flock`). It is held until the value is dropped or the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    held: File,
    /// The same for all run directories.
    beside: Option<OwnedFd>,
}

/// The lock of the tools that change a network: run directories share it, because they share the network namespace.
const NETWORK: &str = "network";

impl Lock {
    /// Takes the lock `$STAVE_RUN/locks/<name>`. Waits until its holder releases it.
    ///
    /// # Errors
    /// When the lock's file cannot be made or locked.
    pub fn take(run_dir: &Path, name: &str) -> Result<Self, Error> {
        let path = run_dir.join("locks").join(name);
        loop {
            if let Some(mut lock) = Self::wait(&path, Self::open(&path)?)? {
                if name == NETWORK {
                    lock.beside = shared_lock::take(name).map_err(failed("lock", &path))?;
                }
                return Ok(lock);
            }
        }
    }

    /// As [`Lock::take`], but returns `None` if another process has the lock.
    pub(crate) fn take_if_free(run_dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        let path = run_dir.join("locks").join(name);
        let file = Self::open(&path)?;
        match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Err(Errno::WOULDBLOCK) => Ok(None),
            locked => locked.map_err(failed("lock", &path)).and_then(|()| Self::current(&path, file)),
        }
    }

    /// Opens the lock's file. Makes it and its directory, if they are missing.
    fn open(path: &Path) -> Result<File, Error> {
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let again = |error: io::Error| match (error.kind(), path.parent()) {
            (io::ErrorKind::NotFound, Some(directory)) => {
                operation::make_directories(directory, 0o777).and_then(|()| options.open(path))
            }
            _ => Err(error),
        };
        options.open(path).or_else(again).map_err(failed("open lock", path))
    }

    /// As [`Lock::take`], but returns `None` if the lock's file does not exist. Makes no file.
    pub(crate) fn take_existing(run_dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        let path = run_dir.join("locks").join(name);
        match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => Self::wait(&path, result.map_err(failed("open lock", &path))?),
        }
    }

    /// Waits for the lock. Returns `None` if its last holder has removed the file: nobody else would see a
    /// lock on it.
    fn wait(path: &Path, file: File) -> Result<Option<Self>, Error> {
        let lock = |how| retry_on_intr(|| flock(&file, how));
        let locked = match lock(FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                let (named, holder) = (format!("{path:?}"), || waiting::holder(&file));
                waiting::told(&named, holder, || lock(FlockOperation::LockExclusive))
            }
            locked => locked,
        };
        locked.map_err(|errno| failed("lock", path)(io::Error::from(errno)))?;
        Self::current(path, file)
    }

    /// The lock on this file, if the file is still the lock's.
    fn current(path: &Path, file: File) -> Result<Option<Self>, Error> {
        let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let opened = file.metadata().map_err(failed("lock", path))?;
        let lock = Self { path: path.to_owned(), held: file, beside: None };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => Ok((inode(found.map_err(failed("lock", path))?) == inode(opened)).then_some(lock)),
        }
    }

    /// The lock, which is not taken; none if its file does not exist.
    pub(crate) fn seen(run_dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        let path = run_dir.join("locks").join(name);
        let held = unless_gone(File::open(&path)).map_err(failed("open lock", &path))?;
        Ok(held.map(|held| Self { path, held, beside: None }))
    }

    /// Notes this process's network and pid namespace in the lock's file, which is there as long as the record
    /// is. On a full disk nothing is noted, and nothing is compared later.
    pub(crate) fn note_origin(&self) {
        if let (Ok(network), Ok(pids)) = (Namespace::Network.own(), Namespace::Pids.own()) {
            let _ = self.held.write_all_at(format!("{network:20} {pids:20}\n").as_bytes(), 0);
        }
    }

    /// What [`Lock::note_origin`] noted: the inodes of this namespace and of the pid namespace. None for a record
    /// of a version before 0.2.
    pub(crate) fn noted(&self, namespace: Namespace) -> Result<Option<(u64, u64)>, Error> {
        let mut noted = [0; 42];
        let length = self.held.read_at(&mut noted, 0).map_err(failed("read", &self.path))?;
        let noted = String::from_utf8_lossy(&noted[..length]);
        let mut inodes = noted.split_whitespace().map(str::parse);
        Ok(match (inodes.next(), inodes.next()) {
            (Some(Ok(network)), Some(Ok(pids))) => match namespace {
                Namespace::Network => Some((network, pids)),
                Namespace::Pids => Some((pids, pids)),
            },
            _ => None,
        })
    }

    /// As [`record::is_of_this`](crate::record::is_of_this).
    pub(crate) fn is_of_this(&self, namespace: Namespace, id: &Id) -> Result<bool, Error> {
        match self.noted(namespace)? {
            Some((inode, pids)) => namespace.is_here(format_args!("container \"{id}\""), inode, pids),
            None => Ok(true),
        }
    }

    /// Removes the lock's file, and releases the lock. Who waits for it makes another file.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(self) -> Result<(), Error> {
        remove_file(&self.path)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A child that was forked meanwhile holds the descriptor, and so the lock, until it executes its
        // program. An error here does not matter: the kernel releases the lock when the process ends.
        drop(self.beside.take());
        let _ = flock(&self.held, FlockOperation::Unlock);
    }
}

/// Removes the file, if it is there.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    unless_gone(fs::remove_file(path)).map(drop).map_err(failed("remove", path))
}
