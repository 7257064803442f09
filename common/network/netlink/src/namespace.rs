//! Runs work in another network namespace and returns.

use std::{
    fs::{self, File},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};

use crate::errno_of;

/// Runs `work` in the network namespace at `path`. A socket that `work` opens stays in that
/// namespace and can be used from anywhere. Afterwards the calling thread is back in its own
/// namespace.
///
/// # Errors
/// When the namespace cannot be opened or entered; EINVAL if the file is not a network namespace.
pub fn enter<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    let namespace = File::open(path).map_err(|error| errno_of(&error))?;
    away(|| {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

/// Whether the path is a plain file, not a namespace: the mount point of a namespace that was not
/// mounted yet, or was unmounted.
pub fn is_plain_file(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| fstatfs(file).is_ok_and(|found| found.filesystem_type() != NSFS_MAGIC))
}

/// Whether this is the network namespace of the calling thread.
pub fn is_own(path: &Path) -> bool {
    let key = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let own = key(Path::new("/proc/thread-self/ns/net"));
    own.is_some() && own == key(path)
}

/// Runs `work`, which enters another network namespace.
///
/// It runs on this thread, which returns afterwards. If this thread could not return, `work` runs
/// on a new thread that ends afterwards: a process from another user namespace has no rights in its
/// original network namespace. A panic in `work` is passed on to this thread.
///
/// # Errors
/// The errors of `work`; when no thread can be started.
pub fn away<T: Send>(work: impl FnOnce() -> Result<T, Errno> + Send) -> Result<T, Errno> {
    if let Some(_back) = Back::known()? {
        return work();
    }
    thread::scope(|scope| {
        let started = thread::Builder::new().stack_size(1 << 18).spawn_scoped(scope, work);
        match started.map_err(|error| errno_of(&error))?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// This thread's network namespace. Dropping it returns the thread there.
struct Back(File);

impl Back {
    /// Opens the current namespace. None if the thread could not return to it.
    fn known() -> Result<Option<Self>, Errno> {
        let own = File::open("/proc/thread-self/ns/net").map_err(|error| errno_of(&error))?;
        match setns(own.as_fd(), CloneFlags::CLONE_NEWNET) {
            Ok(()) => Ok(Some(Self(own))),
            Err(Errno::EPERM) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        let back = || setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET);
        let mut returned = back();
        // Returning was possible a moment ago, so the failure may be temporary: a lack of memory,
        // for example.
        for _ in 0..10 {
            if returned.is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
            returned = back();
        }
        if let Err(errno) = returned {
            // This process must do nothing more in the wrong namespace.
            operation::note(&format!("return to the network namespace: {}", errno.desc()));
            std::process::abort();
        }
    }
}
