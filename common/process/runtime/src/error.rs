use std::fmt::Display;

use operation::{Cause, Place};

/// Why a process did not run: the error, and the exit status of a shell.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Error {
    #[source]
    error: operation::Error,
    status: u8,
}

/// The result of this crate's functions.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The surroundings could not be made.
const SURROUNDINGS: u8 = 125;

impl Error {
    /// The surroundings could not be made, for a reason without an error of the system.
    pub(crate) fn new(message: impl Display) -> Self {
        operation::Error::new("", "", message.to_string()).into()
    }

    /// The surroundings could not be made, because of an error of the system.
    pub(crate) fn system(verb: &'static str, object: impl Display, cause: impl Into<Cause>) -> Self {
        operation::Error::new(verb, object, cause).of(Place::Namespace).into()
    }

    /// For `map_err`.
    pub(crate) fn at<E: Into<Cause>>(verb: &'static str, object: impl Display) -> impl FnOnce(E) -> Self {
        move |cause| Self::system(verb, object, cause)
    }

    /// With another exit status than the one for failed surroundings.
    pub(crate) fn with_status(status: u8, error: operation::Error) -> Self {
        Self { error, status }
    }

    /// With a hint for the user.
    pub(crate) fn with_hint(self, hint: String) -> Self {
        Self { error: self.error.with_hint(hint), ..self }
    }

    /// What failed.
    pub(crate) fn inner(&self) -> &operation::Error {
        &self.error
    }

    /// The system's error behind it, even if it happened in another process.
    pub fn errno(&self) -> Option<nix::errno::Errno> {
        self.error.errno()
    }

    /// The exit status of a shell: 125 if the surroundings could not be made, 126 if the command cannot be executed,
    /// 127 if there is none with that name.
    pub fn status(&self) -> u8 {
        self.status
    }
}

impl From<operation::Error> for Error {
    fn from(error: operation::Error) -> Self {
        Self { error, status: SURROUNDINGS }
    }
}

impl From<Error> for operation::Error {
    /// The status is kept: it is the error's source.
    fn from(error: Error) -> Self {
        Self::caused_by(error)
    }
}
