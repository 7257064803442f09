use std::path::Path;

pub use operation::Error;
use operation::{Cause, Place};
use rustix::io::Errno;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// For `map_err`: the error of `verb` on the file `path` below `--root`.
pub(crate) fn on<C: Into<Cause>>(verb: &'static str, path: &Path) -> impl FnOnce(C) -> Error {
    move |cause| Error::new(verb, format_args!("{path:?}"), cause).of(Place::Store)
}

/// For `map_err`: the error of `verb` on the mount at `path`.
pub(crate) fn mounting<C: Into<Cause>>(verb: &'static str, path: &Path) -> impl FnOnce(C) -> Error {
    move |cause| Error::new(verb, format_args!("{path:?}"), cause).of(Place::Namespace)
}

/// An error number with an explanation in words.
pub(crate) fn explained(errno: Errno, words: String) -> Cause {
    Cause::Explained(nix::errno::Errno::from_raw(errno.raw_os_error()), words)
}

/// The system's message for an error, without a number.
pub fn strerror(errno: Errno) -> &'static str {
    nix::errno::Errno::from_raw(errno.raw_os_error()).desc()
}
