use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// What the kernel would not do, on which object, in which namespace.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {object}{}: {}", place(.namespace.as_deref()), .source.desc())]
pub struct Error {
    pub(crate) verb: &'static str,
    pub(crate) object: String,
    pub(crate) namespace: Option<PathBuf>,
    pub(crate) source: Errno,
}

fn place(namespace: Option<&Path>) -> String {
    namespace.map(|path| format!(" in {}", path.display())).unwrap_or_default()
}

impl Error {
    pub(crate) fn new(verb: &'static str, object: impl Into<String>, source: Errno) -> Self {
        Self { verb, object: object.into(), namespace: None, source }
    }

    pub(crate) fn within(mut self, namespace: Option<&Path>) -> Self {
        self.namespace = namespace.map(Path::to_owned);
        self
    }

    /// The system's error behind it.
    pub fn errno(&self) -> Errno {
        self.source
    }
}

pub(crate) fn errno(error: &rtnetlink::Error) -> Errno {
    match error {
        rtnetlink::Error::NetlinkError(message) => Errno::from_raw(message.raw_code().abs()),
        _ => Errno::EPROTO,
    }
}

pub(crate) fn io_errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
