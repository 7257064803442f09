//! COPY and ADD: what they read, and how it is placed into an image.

mod archive;
mod content;
mod job;
mod mode;
mod owner;
mod place;
mod tree;

pub use job::{Fetched, Inline, Job, Listing};
pub use mode::{Chmod, ChmodError};
pub use owner::{Owner, OwnerError};
pub use place::{Metadata, Place};
pub use tree::{Found, Item, Kind, Tree, clean};

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why files could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source that is not there, in the context.
    #[error("file not found in build context or excluded by .dockerignore: stat {0}: file does not exist")]
    NotInContext(String),
    /// A source that is not there, in a stage or an image.
    #[error("stat {0}: file does not exist")]
    NotFound(String),
    /// More than one source, and a destination that is no directory.
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
    /// `--chmod` that cannot be read.
    #[error(transparent)]
    Chmod(#[from] ChmodError),
    /// `--chown` that cannot be resolved.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// A pattern that cannot be one.
    #[error(transparent)]
    Pattern(#[from] crate::glob::BadPattern),
    /// `--exclude` that cannot be read.
    #[error(transparent)]
    Exclude(#[from] crate::ignore::IgnoreError),
    /// An archive that ends too soon, or is none.
    #[error("unpack {path:?}: {source}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Anything that the system refused.
    #[error("{verb} {path:?}: {source}")]
    System {
        /// What was tried.
        verb: &'static str,
        /// On which file.
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
