//! COPY and ADD: their sources, and how files are placed into an image.

mod archive;
mod content;
mod job;
pub(crate) mod links;
mod mode;
mod owner;
mod parents;
mod place;
mod stat_cache;
mod tree;

pub use archive::{is_archive, unpack_context, unpack_tree};
pub use job::{Described, Fetched, Inline, Job, Listing};
pub use mode::{Chmod, ChmodError};
pub use owner::{NotOwned, Owner, OwnerError};
pub use place::{Metadata, Place};
pub(crate) use stat_cache::StatCache;
pub(crate) use tree::cleaned;
pub use tree::{Found, Item, Kind, Tree, clean};

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why files could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source does not exist in the context.
    #[error("file not found in build context or excluded by .dockerignore: stat {0}: file does not exist")]
    NotInContext(String),
    /// A source does not exist in a stage or image.
    #[error("stat {0}: file does not exist")]
    NotFound(String),
    /// There is more than one source, and the destination is not a directory.
    #[error(
        "when using {0} with more than one source file, the destination must be a directory and end with a /"
    )]
    NotADirectory(&'static str),
    /// A file would replace a directory of the image.
    #[error("cannot overwrite directory {0:?} with a file")]
    OverDirectory(PathBuf),
    /// A directory would replace a file of the image.
    #[error("cannot copy to non-directory: {0}")]
    OverFile(PathBuf),
    /// The value of `--chmod` is invalid.
    #[error(transparent)]
    Chmod(#[from] ChmodError),
    /// The user or group of `--chown` is unknown.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The name of a here-document leads to another directory.
    #[error("a file cannot have the name {0:?} of the here-document")]
    DocumentName(String),
    /// A pattern is invalid.
    #[error(transparent)]
    Pattern(#[from] crate::glob::BadPattern),
    /// The value of `--exclude` is invalid.
    #[error(transparent)]
    Exclude(#[from] crate::ignore::IgnoreError),
    /// An archive cannot be unpacked: it ends too early, or is damaged.
    #[error("unpack {path:?}: {source}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The user namespace has no mapping for the owner of a file.
    #[error("change owner of {path:?}: {source}")]
    Unmapped {
        /// The file.
        path: PathBuf,
        /// The owner.
        source: NotOwned,
    },
    /// A system call failed.
    #[error("{verb} {path:?}: {source}")]
    System {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rustix::io::Errno,
    },
}

/// For `map_err`: makes the error of `verb` on the file at `path`.
fn failed(verb: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> CopyError {
    let path = path.to_owned();
    move |source| CopyError::System { verb, path, source }
}

#[cfg(test)]
mod tests;
