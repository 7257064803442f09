use std::fmt;

use rustix::io::Errno;

/// What failed on which cgroup, and the system's reason.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {errno}")]
pub struct Error {
    action: String,
    #[source]
    errno: Errno,
}

impl Error {
    pub(crate) fn at(action: impl fmt::Display) -> impl FnOnce(Errno) -> Self {
        let action = action.to_string();
        move |errno| Self { action, errno }
    }

    /// The system's reason.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;
