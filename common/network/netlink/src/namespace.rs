//! Work in another network namespace, there and back.

use std::{fs::File, os::fd::AsFd, path::Path, thread};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
};

use crate::errno_of;

/// Runs `work` in the network namespace at `path`. What it opens there (a socket) stays in that namespace, and can be used
/// from anywhere. The calling thread is back where it was when this returns.
///
/// # Errors
/// When the namespace cannot be opened or entered. A path that leads to something else is "Invalid argument".
pub fn enter<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    let namespace = File::open(path).map_err(|error| errno_of(&error))?;
    away(|| {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

/// Runs `work`, which goes into another network namespace: there and back on this thread, or, where there is no way back
/// (who came from another user namespace has no rights in the one that he came from), on a thread that is given up. A panic
/// in it is this thread's panic.
///
/// # Errors
/// What `work` returns; when no thread is to be had.
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

/// The network namespace that this thread is in, to which it returns when this is dropped.
struct Back(File);

impl Back {
    /// None where the thread could not return to it.
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
        if let Err(errno) = setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET) {
            // It was allowed a moment ago. Nothing that this process goes on to do may happen there.
            eprintln!("return to the network namespace: {}", errno.desc());
            std::process::abort();
        }
    }
}
