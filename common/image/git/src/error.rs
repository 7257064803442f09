//! Why a repository could not be fetched.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a repository could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Over SSH: that takes a client of SSH.
    #[error("{0}: repositories over SSH are not fetched; write its address with https://")]
    Ssh(String),
    /// The server did not answer, or not with what was asked.
    #[error(transparent)]
    Web(Box<registry::Error>),
    /// The same, of git's own protocol.
    #[error("connect to {host}: {source}")]
    Connect {
        /// The server.
        host: String,
        /// The cause.
        source: io::Error,
    },
    /// The server speaks otherwise than git's protocol says.
    #[error("{remote}: {problem}")]
    Protocol {
        /// The repository.
        remote: String,
        /// What is wrong.
        problem: String,
    },
    /// No branch, tag or commit of this name.
    #[error("{remote} has no {reference:?}")]
    NoReference {
        /// The repository.
        remote: String,
        /// The name.
        reference: String,
    },
    /// It is another commit than it has to be.
    #[error("{remote}: expected commit {wanted}, found {found}")]
    Commit {
        /// The repository.
        remote: String,
        /// What it has to be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// An object that is missing or is not what it has to be.
    #[error("{remote}: object {id}: {problem}")]
    Object {
        /// The repository.
        remote: String,
        /// Its name.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// A directory that the repository does not have.
    #[error("{remote} has no directory {path:?}")]
    NoDirectory {
        /// The repository.
        remote: String,
        /// The directory.
        path: String,
    },
    /// A name of a file that could lead elsewhere.
    #[error("{remote}: invalid file name {name:?}")]
    Name {
        /// The repository.
        remote: String,
        /// The name.
        name: String,
    },
    /// More files or bytes than are taken.
    #[error("{remote}: {source}")]
    TooMuch {
        /// The repository.
        remote: String,
        /// Which limit.
        source: io::Error,
    },
    /// Writing failed.
    #[error("{verb} {path:?}: {source}")]
    System {
        /// What was tried.
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: names the object of a call that failed.
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
