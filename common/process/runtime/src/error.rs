use std::fmt::Display;

use operation::{Cause, Place};

/// Why a process did not run: what failed, and what a shell would exit with.
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
    /// The surroundings could not be made, for a reason that the system has no part in.
    pub(crate) fn new(message: impl Display) -> Self {
        operation::Error::new("", "", message.to_string()).into()
    }

    /// The surroundings could not be made, as the system says.
    pub(crate) fn system(verb: &'static str, object: impl Display, cause: impl Into<Cause>) -> Self {
        operation::Error::new(verb, object, cause).of(Place::Namespace).into()
    }

    /// For `map_err`.
    pub(crate) fn at<E: Into<Cause>>(verb: &'static str, object: impl Display) -> impl FnOnce(E) -> Self {
        move |cause| Self::system(verb, object, cause)
    }

    /// With another exit status than that of surroundings which could not be made.
    pub(crate) fn with_status(status: u8, error: operation::Error) -> Self {
        Self { error, status }
    }

    /// With what a person can do about it.
    pub(crate) fn with_hint(self, hint: String) -> Self {
        Self { error: self.error.with_hint(hint), ..self }
    }

    /// What failed.
    pub(crate) fn inner(&self) -> &operation::Error {
        &self.error
    }

    /// The system's error behind it, also where it was met in another process.
    pub fn errno(&self) -> Option<nix::errno::Errno> {
        self.error.errno()
    }

    /// What a shell would exit with: 125 where the surroundings could not be made, 126 where the command cannot be
    /// executed, 127 where there is none of that name.
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
    /// The status goes along: it is the error's source.
    fn from(error: Error) -> Self {
        Self::caused_by(error)
    }
}
