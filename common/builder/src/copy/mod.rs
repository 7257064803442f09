//! COPY and ADD: their sources, and how files are placed into an image.

mod archive;
mod content;
mod job;
mod mode;
mod owner;
mod place;
mod tree;

pub use archive::{is_archive, unpack_context, unpack_tree};
pub use job::{Described, Fetched, Inline, Job, Listing};
pub use mode::{Chmod, ChmodError};
pub use owner::{Owner, OwnerError};
pub use place::{Metadata, Place};
pub(crate) use tree::parts;
pub use tree::{Found, Item, Kind, Tree, clean};

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why files could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source that does not exist in the context.
    #[error("file not found in build context or excluded by .dockerignore: stat {0}: file does not exist")]
    NotInContext(String),
    /// A source that does not exist in a stage or an image.
    #[error("stat {0}: file does not exist")]
    NotFound(String),
    /// More than one source, and a destination that is not a directory.
    #[error(
        "when using {0} with more than one source file, the destination must be a directory and end with a /"
    )]
    NotADirectory(&'static str),
    /// A file where a directory is in the image.
    #[error("cannot overwrite directory {0:?} with a file")]
    OverDirectory(PathBuf),
    /// A directory where a file is in the image.
    #[error("cannot copy to non-directory: {0}")]
    OverFile(PathBuf),
    /// An invalid `--chmod`.
    #[error(transparent)]
    Chmod(#[from] ChmodError),
    /// An unknown user or group in `--chown`.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// An invalid pattern.
    #[error(transparent)]
    Pattern(#[from] crate::glob::BadPattern),
    /// An invalid `--exclude`.
    #[error(transparent)]
    Exclude(#[from] crate::ignore::IgnoreError),
    /// An archive that ends too early, or is not an archive.
    #[error("unpack {path:?}: {source}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Any error of the system.
    #[error("{verb} {path:?}: {source}")]
    System {
        /// The verb of the attempt.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rustix::io::Errno,
    },
}

/// Names the object of a system call that failed.
fn failed(verb: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> CopyError {
    let path = path.to_owned();
    move |source| CopyError::System { verb, path, source }
}

#[cfg(test)]
mod tests;
