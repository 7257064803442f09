//! Network namespaces that are kept by a bind mount, as `ip netns` keeps them.
//!
//! Nobody needs to live in such a namespace for it to last; whoever holds the path may enter it.

mod loopback;
mod operation;

use std::{fs::File, os::fd::AsFd, path::Path, thread};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
};

pub use operation::{NetnsOperation, switch_ipv6_off};

/// Why a namespace could not be made, entered or removed.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {path:?}: {}", source.desc())]
pub struct Error {
    verb: &'static str,
    path: std::path::PathBuf,
    source: Errno,
}

impl Error {
    fn new(verb: &'static str, path: &Path) -> impl Fn(Errno) -> Self {
        move |source| Self { verb, path: path.to_owned(), source }
    }

    /// The system's error behind it.
    pub fn errno(&self) -> Errno {
        self.source
    }
}

pub(crate) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Runs `work` in the network namespace at `path`. What it opens there (a socket) stays in that namespace, and can be used
/// from anywhere. The calling thread is back where it was when this returns.
///
/// # Errors
/// When the namespace cannot be opened or entered. A path that leads to something else is "Invalid argument".
pub fn enter<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let error = Error::new("enter network namespace", path);
    let namespace = File::open(path).map_err(|source| error(errno(&source)))?;
    away(&error, || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

/// Runs `work`, which goes into another network namespace: there and back on this thread, or, where there is no way back
/// (who came from another user namespace has no rights in the one that he came from), on a thread that is given up. A panic
/// in it is this thread's panic.
pub(crate) fn away<T: Send>(
    error: &impl Fn(Errno) -> Error,
    work: impl FnOnce() -> Result<T, Errno> + Send,
) -> Result<T, Error> {
    if let Some(_back) = Back::known() {
        return work().map_err(error);
    }
    thread::scope(|scope| {
        let started = thread::Builder::new().stack_size(1 << 18).spawn_scoped(scope, work);
        match started.map_err(|source| error(errno(&source)))?.join() {
            Ok(result) => result.map_err(error),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The network namespace that this thread is in, to which it returns when this is dropped.
struct Back(File);

impl Back {
    /// None where the thread could not return to it.
    fn known() -> Option<Self> {
        let own = File::open("/proc/thread-self/ns/net").ok()?;
        setns(own.as_fd(), CloneFlags::CLONE_NEWNET).ok()?;
        Some(Self(own))
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
