//! Why a repository could not be fetched.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a repository could not be fetched, or its files not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is for SSH, which would need an SSH client.
    #[error("{0}: repositories over SSH are not fetched; write its address with https://")]
    Ssh(String),
    /// The web server did not answer, or rejected the request.
    #[error(transparent)]
    Web(Box<registry::Error>),
    /// The server of git's own protocol could not be reached.
    #[error("connect to {host}: {source}")]
    Connect {
        /// The server.
        host: String,
        /// The cause.
        source: io::Error,
    },
    /// The server breaks git's protocol.
    #[error("{remote}: {problem}")]
    Protocol {
        /// The repository.
        remote: String,
        /// What is wrong.
        problem: String,
    },
    /// The repository has no branch, tag or commit with this name.
    #[error("{remote} has no {reference:?}")]
    NoReference {
        /// The repository.
        remote: String,
        /// The name.
        reference: String,
    },
    /// The commit is not the expected one.
    #[error("{remote}: expected commit {wanted}, found {found}")]
    Commit {
        /// The repository.
        remote: String,
        /// The expected commit.
        wanted: String,
        /// The commit found.
        found: String,
    },
    /// An object is missing or damaged.
    #[error("{remote}: object {id}: {problem}")]
    Object {
        /// The repository.
        remote: String,
        /// The object's name.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// The repository does not have the directory.
    #[error("{remote} has no directory {path:?}")]
    NoDirectory {
        /// The repository.
        remote: String,
        /// The directory.
        path: String,
    },
    /// A file name is unsafe, because it could lead out of the directory.
    #[error("{remote}: invalid file name {name:?}")]
    Name {
        /// The repository.
        remote: String,
        /// The name.
        name: String,
    },
    /// The repository has too many files or bytes.
    #[error("{remote}: {source}")]
    TooMuch {
        /// The repository.
        remote: String,
        /// The exceeded limit.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("{verb} {path:?}: {source}")]
    System {
        /// What was attempted.
        verb: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: an error while doing `verb` on `path`.
    pub(crate) fn system<E: Into<io::Error>>(verb: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::System { verb, path, source: source.into() }
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        Self::Web(Box::new(error))
    }
}
