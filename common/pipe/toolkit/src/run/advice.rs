//! An operation's error as the toolkit's.

use std::fmt;

use crate::{Filter, hint};

/// An operation's error with what a person can do about it.
pub(super) fn advised<F: Filter>(error: operation::Error) -> anyhow::Error {
    let error = from_boxed(error);
    match F::advise(&error) {
        Some(what) => hint(error, what),
        None => error,
    }
}

/// An operation's error as the toolkit's, with its chain of causes.
pub(super) fn from_boxed(error: operation::Error) -> anyhow::Error {
    anyhow::Error::new(Boxed(error))
}

/// An operation's error in its box, which is looked for among the causes by its own type. (Behind
/// [`anyhow::Error::from_boxed`] nobody finds it.)
#[derive(Debug)]
struct Boxed(operation::Error);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Boxed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}
