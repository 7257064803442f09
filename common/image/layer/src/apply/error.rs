use std::io;

use archive::Shown;
use oci::Digest;

use crate::pipeline;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The blob could not be read or decompressed, or is too large.
    #[error(transparent)]
    Blob(#[from] pipeline::Error),
    /// The content is not a valid archive.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// An entry could not be unpacked.
    #[error("entry {name}: {source}")]
    Entry {
        /// The entry's name.
        name: Shown,
        /// The cause.
        source: EntryError,
    },
    /// The directories, whiteouts and links (and for an image all names) need too much memory.
    #[error("its names, directories, whiteouts and links take more than {} MiB of memory", limit >> 20)]
    Memory {
        /// The limit in bytes.
        limit: usize,
    },
    /// An existing layer contains device nodes, and none are allowed.
    #[error("it holds device nodes, which are not allowed")]
    Devices,
    /// The lower layers could not be examined.
    #[error("{verb} {name} in the layers below: {source}")]
    Below {
        /// What was attempted.
        verb: &'static str,
        /// The path in the lower layers.
        name: Shown,
        /// The cause.
        source: io::Error,
    },
    /// The archive does not match the image.
    #[error("archive has DiffID {found}, the image says {expected}")]
    DiffId {
        /// The digest in the image.
        expected: Digest,
        /// The digest of the archive.
        found: Digest,
    },
    /// A file or directory of the store could not be used.
    #[error("{verb} {path:?}: {source}")]
    Store {
        /// What was attempted.
        verb: &'static str,
        /// The path.
        path: std::path::PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An image was requested in a user namespace.
    #[error("EROFS images cannot be mounted in a user namespace")]
    Namespace,
    /// The system's state could not be examined.
    #[error("{0}")]
    System(#[source] operation::Error),
    /// A signal asked to stop.
    #[error("{0}")]
    Interrupted(#[source] operation::Error),
    /// One of several layers failed.
    #[error("layer {digest}: {source}")]
    Layer {
        /// The digest of the layer's blob.
        digest: Digest,
        /// The cause.
        source: Box<Error>,
    },
}

/// Why an entry could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// A system call failed.
    #[error("{verb}: {source}")]
    Call {
        /// What was attempted.
        verb: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// An extended attribute could not be set.
    #[error("set attribute {name}: {source}")]
    Attribute {
        /// The attribute's name.
        name: Shown,
        /// The kernel's error.
        source: io::Error,
    },
    /// No layer may have such an entry.
    #[error(transparent)]
    Name(#[from] archive::NameError),
    /// A symbolic link among the parents leads to a name that only a whiteout can have.
    #[error("a link leads to the name of a whiteout")]
    LinkToWhiteout,
    /// A parent exists but is not a directory.
    #[error("parent {0} is not a directory")]
    Parent(Shown),
    /// Symbolic links form a loop.
    #[error("too many symbolic links in {0}")]
    Loop(Shown),
    /// The entry is a device node, and none are allowed.
    #[error("device nodes are not allowed")]
    Device,
    /// The entry is a device node, which a user namespace cannot have.
    #[error("a user namespace has no device nodes")]
    NamespaceDevice,
    /// The owner has no mapping in the user namespace.
    #[error("owner {uid}:{gid} has no mapping in this user namespace")]
    Owner {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// The archive ends early or is damaged.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The image cannot be written.
    #[error(transparent)]
    Image(#[from] erofs::Error),
    /// The lower layers could not be examined.
    #[error(transparent)]
    Below(Box<Error>),
}

impl EntryError {
    /// What the user can do if the user namespace cannot represent the layer, besides
    /// [`super::Options::rootless`].
    pub fn hint(&self) -> Option<&'static str> {
        let beyond = matches!(self, Self::Owner { .. } | Self::NamespaceDevice);
        beyond.then_some("use subordinate ids (`unshare --map-auto`) for more owners")
    }

    /// For `map_err`: the kernel's error for `verb`.
    pub(super) fn call<E: Into<io::Error>>(verb: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Call { verb, source: source.into() }
    }
}

impl Error {
    /// What the user can do about the error: see [`EntryError::hint`].
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Entry { source, .. } => source.hint(),
            Self::Layer { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// Whether the layer is far larger than its blob ([`archive::Limits::ratio`]).
    pub fn is_of_ratio(&self) -> bool {
        match self {
            Self::Blob(pipeline::Error::Exceeded(archive::Exceeded::Ratio(_))) => true,
            Self::Layer { source, .. } => source.is_of_ratio(),
            _ => false,
        }
    }

    /// Whether the cause is that a user namespace cannot mount images.
    pub fn is_of_namespace(&self) -> bool {
        match self {
            Self::Namespace => true,
            Self::Layer { source, .. } => source.is_of_namespace(),
            _ => false,
        }
    }

    /// An error from examining the lower layers, outside any entry.
    pub(crate) fn from_below(error: EntryError) -> Self {
        Self::entry(b".")(error)
    }

    /// For `map_err`: an error of the entry with this name.
    pub(super) fn entry(name: &[u8]) -> impl FnOnce(EntryError) -> Self {
        move |source| match source {
            // Errors of the lower layers and of the stream have their own name.
            EntryError::Below(error) => *error,
            source => Self::Entry { name: Shown::new(name), source },
        }
    }
}
