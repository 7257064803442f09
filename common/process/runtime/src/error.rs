use std::fmt::Display;

use rustix::io::Errno;

/// Why a process did not run. The message is one line: verb, object, cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    status: u8,
}

/// The result of this crate's functions.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The surroundings could not be made.
    pub(crate) fn new(message: impl Display) -> Self {
        Self { message: message.to_string(), status: 125 }
    }

    /// The same, of the system.
    pub(crate) fn system(action: impl Display, errno: Errno) -> Self {
        Self::new(format_args!("{action}: {}", mount::strerror(errno)))
    }

    /// As it came from the process.
    pub(crate) fn with_status(status: u8, message: impl Display) -> Self {
        Self { message: message.to_string(), status }
    }

    /// For `map_err`.
    pub(crate) fn at<E: Into<Errno>>(action: impl Display) -> impl FnOnce(E) -> Self {
        move |errno| Self::system(action, errno.into())
    }

    /// What a shell would exit with: 125 where the surroundings could not be made, 126 where the command cannot be
    /// executed, 127 where there is none of that name.
    pub fn status(&self) -> u8 {
        self.status
    }
}

impl From<mount::Error> for Error {
    fn from(error: mount::Error) -> Self {
        Self::new(error)
    }
}
