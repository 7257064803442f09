use std::fmt::Display;

pub use operation::Error;
use operation::{Cause, Place};

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// For `map_err`: the error of `verb` on a cgroup.
pub(crate) fn at<C: Into<Cause>>(verb: &'static str, object: impl Display) -> impl FnOnce(C) -> Error {
    move |cause| Error::new(verb, object, cause).of(Place::Namespace)
}
