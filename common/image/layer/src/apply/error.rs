use std::io;

use archive::Shown;
use oci::Digest;

use crate::pipeline;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its blob could not be read or decompressed, or is too large.
    #[error(transparent)]
    Blob(#[from] pipeline::Error),
    /// Its content is not an archive.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// One of its entries.
    #[error("entry {name}: {source}")]
    Entry {
        /// The entry's name.
        name: Shown,
        /// The cause.
        source: EntryError,
    },
    /// Too many directories, deletions and links, and for an image names, to keep in memory.
    #[error("its names, directories, whiteouts and links take more than {} MiB of memory", limit >> 20)]
    Memory {
        /// The limit in bytes.
        limit: usize,
    },
    /// An existing layer contains device nodes, and none are allowed.
    #[error("it holds device nodes, which are not allowed")]
    Devices,
    /// The lower layers could not be read.
    #[error("{verb} {name} in the layers below: {source}")]
    Below {
        /// The verb of the attempt.
        verb: &'static str,
        /// The path in them.
        name: Shown,
        /// The cause.
        source: io::Error,
    },
    /// Its archive does not match the image.
    #[error("archive has DiffID {found}, the image says {expected}")]
    DiffId {
        /// The digest in the image.
        expected: Digest,
        /// The digest of the archive.
        found: Digest,
    },
    /// The directory that it is unpacked to.
    #[error("{verb} {path:?}: {source}")]
    Store {
        /// The verb of the attempt.
        verb: &'static str,
        /// The path.
        path: std::path::PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An image, for a user namespace.
    #[error("EROFS images cannot be mounted in a user namespace")]
    Namespace,
    /// The surroundings could not be looked at.
    #[error("{0}")]
    System(#[source] operation::Error),
    /// A signal asked to stop.
    #[error("{0}")]
    Interrupted(#[source] operation::Error),
    /// One of several layers.
    #[error("layer {digest}: {source}")]
    Layer {
        /// Digest of its blob.
        digest: Digest,
        /// The cause.
        source: Box<Error>,
    },
}

/// The problem with an entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// A call of the kernel.
    #[error("{verb}: {source}")]
    Call {
        /// The verb of the attempt.
        verb: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// An extended attribute.
    #[error("set attribute {name}: {source}")]
    Attribute {
        /// The attribute's name.
        name: Shown,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A name that leads out of the layer.
    #[error("name with \"..\"")]
    DotDot,
    /// A name with a NUL byte.
    #[error("name with a NUL")]
    Nul,
    /// A name that is too long for a path.
    #[error("name longer than a path may be")]
    TooLong,
    /// The root, but not a directory.
    #[error("the root must be a directory")]
    Root,
    /// A whiteout of nothing, of `.` or of `..`.
    #[error("whiteout of no file")]
    EmptyWhiteout,
    /// A whiteout that is not an empty file, or one among the parents of a name.
    #[error("a whiteout must be an empty file")]
    NotAWhiteout,
    /// An existing parent that is not a directory.
    #[error("parent {0} is not a directory")]
    Parent(Shown),
    /// Symbolic links that form a loop.
    #[error("too many symbolic links in {0}")]
    Loop(Shown),
    /// A hard link to something that does not exist.
    #[error("hard link to {0}, which does not exist")]
    NoTarget(Shown),
    /// A hard link to a directory.
    #[error("hard link to {0}, which is a directory")]
    DirectoryTarget(Shown),
    /// The target of a hard link is not a valid name in a layer.
    #[error("hard link to {name}: {source}")]
    Target {
        /// The target.
        name: Shown,
        /// The problem.
        source: Box<EntryError>,
    },
    /// A device, although none are allowed.
    #[error("device nodes are not allowed")]
    Device,
    /// A device, in a user namespace.
    #[error("a user namespace has no device nodes")]
    NamespaceDevice,
    /// An owner without a mapping in the user namespace.
    #[error("owner {uid}:{gid} has no mapping in this user namespace")]
    Owner {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// A device that overlayfs would take for a whiteout.
    #[error("character device 0:0 is a whiteout of overlayfs")]
    WhiteoutDevice,
    /// The archive ends or is damaged.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The image that the layer becomes.
    #[error(transparent)]
    Image(#[from] erofs::Error),
    /// The layers below.
    #[error(transparent)]
    Below(Box<Error>),
}

impl EntryError {
    /// What the user can do when the user namespace cannot represent the layer, besides [`super::Options::rootless`].
    pub fn hint(&self) -> Option<&'static str> {
        let beyond = matches!(self, Self::Owner { .. } | Self::NamespaceDevice);
        beyond.then_some("use subordinate ids (`unshare --map-auto`) for more owners")
    }

    /// For `map_err`: the kernel refused `verb`.
    pub(super) fn call<E: Into<io::Error>>(verb: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Call { verb, source: source.into() }
    }
}

impl Error {
    /// What a person can do about it: see [`EntryError::hint`].
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Entry { source, .. } => source.hint(),
            Self::Layer { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// Whether a user namespace is in the way of an image's mount.
    pub fn is_of_namespace(&self) -> bool {
        match self {
            Self::Namespace => true,
            Self::Layer { source, .. } => source.is_of_namespace(),
            _ => false,
        }
    }

    /// An error while the lower layers were read, outside any entry.
    pub(crate) fn from_below(error: EntryError) -> Self {
        Self::entry(b".")(error)
    }

    /// For `map_err`: the entry with this name.
    pub(super) fn entry(name: &[u8]) -> impl FnOnce(EntryError) -> Self {
        move |source| match source {
            // Errors of the lower layers, or of the stream, have their own name.
            EntryError::Below(error) => *error,
            source => Self::Entry { name: Shown::new(name), source },
        }
    }
}
