use std::{fmt::Display, path::Path};

use rustix::io::Errno;

/// What failed on which object: `mount overlay on "/x": No such file or directory`.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {cause}")]
pub struct Error {
    action: String,
    cause: String,
    errno: Errno,
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the system: `action` is verb and object.
    pub fn new(action: impl Display, errno: Errno) -> Self {
        Self { action: action.to_string(), cause: strerror(errno).to_owned(), errno }
    }

    /// The same, where the kernel says more than the number.
    pub(crate) fn with_cause(action: impl Display, errno: Errno, cause: String) -> Self {
        Self { action: action.to_string(), cause, errno }
    }

    /// The same cause, of another action.
    pub(crate) fn of(self, action: impl Display) -> Self {
        Self { action: action.to_string(), ..self }
    }

    /// The system's error behind it.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// What to do about it, where that is the same for everybody.
    pub fn hint(&self) -> Option<&'static str> {
        (self.errno == Errno::OPNOTSUPP).then_some(
            "choose a place on another file system, such as a volume or a tmpfs: --root DIR (STAVE_ROOT)",
        )
    }

    /// For `map_err`: the error of `verb` on `path`.
    pub(crate) fn on<E: Into<Errno>>(verb: &str, path: &Path) -> impl FnOnce(E) -> Self {
        move |errno| Self::new(format_args!("{verb} {path:?}"), errno.into())
    }
}

/// The system's own words for an error, without a number.
pub fn strerror(errno: Errno) -> &'static str {
    nix::errno::Errno::from_raw(errno.raw_os_error()).desc()
}
