use std::path::{Path, PathBuf};

use nix::errno::Errno;
use operation::{Cause, Place};

use crate::Refusal;

/// A refusal by the kernel: of which operation, on which object, in which namespace.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {object}{}: {}{}", place(.namespace.as_deref()), .source.desc(), words(.text.as_deref()))]
pub struct Error {
    pub(crate) verb: &'static str,
    pub(crate) object: String,
    pub(crate) namespace: Option<PathBuf>,
    pub(crate) source: Errno,
    /// The kernel's explanation.
    pub(crate) text: Option<String>,
}

fn place(namespace: Option<&Path>) -> String {
    namespace.map(|path| format!(" in {}", path.display())).unwrap_or_default()
}

fn words(text: Option<&str>) -> String {
    text.map(|text| format!(" ({text})")).unwrap_or_default()
}

impl Error {
    /// The error that `verb` failed on `object`.
    pub fn new(verb: &'static str, object: impl Into<String>, refusal: impl Into<Refusal>) -> Self {
        let Refusal { errno, text } = refusal.into();
        Self { verb, object: object.into(), namespace: None, source: errno, text }
    }

    pub(crate) fn within(mut self, namespace: Option<&Path>) -> Self {
        self.namespace = namespace.map(Path::to_owned);
        self
    }

    /// The underlying errno.
    pub fn errno(&self) -> Errno {
        self.source
    }
}

/// The errno of an [`std::io::Error`].
pub fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

impl From<Error> for operation::Error {
    fn from(error: Error) -> Self {
        let Error { verb, object, namespace, source, text } = error;
        let object = object + &place(namespace.as_deref());
        let cause = match text {
            Some(_) => Cause::Explained(source, format!("{}{}", source.desc(), words(text.as_deref()))),
            None => Cause::System(source),
        };
        // Netlink knows no files, so EROFS can only come from a variable below /proc/sys.
        let place = if source == Errno::EROFS { Place::Sysctl } else { Place::Network };
        Self::new(verb, object, cause).of(place)
    }
}
