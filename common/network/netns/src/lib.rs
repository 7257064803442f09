//! Network namespaces kept by a bind mount, as `ip netns` does.
//!
//! No process has to run in such a namespace to keep it. It can be entered by its path.

mod operation;

use std::{io, path::Path};

use nix::errno::Errno;

pub use netlink::Error;
pub use operation::NetnsOperation;

/// The error that a namespace could not be made, entered or removed.
fn error(verb: &'static str, path: &Path) -> impl Fn(Errno) -> Error {
    let object = format!("network namespace {path:?}");
    move |source| Error::new(verb, &object, source)
}

fn io_error(verb: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    let error = error(verb, path);
    move |source| error(netlink::errno_of(&source))
}

/// Runs `work` in the network namespace at `path`. A socket that `work` opens stays in that
/// namespace and can be used from anywhere. Afterwards the calling thread is back in its own
/// namespace.
///
/// # Errors
/// When the namespace cannot be opened or entered; EINVAL if the file is not a network namespace.
pub fn enter<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    netlink::namespace::enter(path, work).map_err(error("enter", path))
}
