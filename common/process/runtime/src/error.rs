use std::fmt::Display;

use operation::{Cause, Place};

/// Why a process did not run: the error, and the exit status that a shell would have.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Error {
    #[source]
    error: operation::Error,
    status: u8,
}

/// The result of this crate's functions.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The exit status if the surroundings could not be made.
const SURROUNDINGS: u8 = 125;

impl Error {
    /// The surroundings could not be made, for a reason without a system error.
    pub(crate) fn new(message: impl Display) -> Self {
        operation::Error::new("", "", message.to_string()).into()
    }

    /// The surroundings could not be made, because of a system error.
    pub(crate) fn system(verb: &'static str, object: impl Display, cause: impl Into<Cause>) -> Self {
        operation::Error::new(verb, object, cause).of(Place::Namespace).into()
    }

    /// For `map_err`.
    pub(crate) fn at<E: Into<Cause>>(verb: &'static str, object: impl Display) -> impl FnOnce(E) -> Self {
        move |cause| Self::system(verb, object, cause)
    }

    /// An error with another exit status than the one for failed surroundings.
    pub(crate) fn with_status(status: u8, error: operation::Error) -> Self {
        Self { error, status }
    }

    /// Adds a hint for the user.
    pub(crate) fn with_hint(self, hint: String) -> Self {
        Self { error: self.error.with_hint(hint), ..self }
    }

    /// The error without its exit status.
    pub(crate) fn inner(&self) -> &operation::Error {
        &self.error
    }

    /// The system error behind it, even if it happened in another process.
    pub fn errno(&self) -> Option<nix::errno::Errno> {
        self.error.errno()
    }

    /// The exit status that a shell would have: 125 if the surroundings could not be made, 126 if the command
    /// cannot be executed, 127 if the command does not exist.
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
    /// The exit status is kept, because `error` is the source of the new error.
    fn from(error: Error) -> Self {
        Self::caused_by(error)
    }
}
