//! The source of a document.

use std::{
    fs::File,
    io::{self, IsTerminal},
    path::PathBuf,
};

use anyhow::{Context as _, anyhow};
use document::{Document, Error};

use crate::{Common, Exit, failure, hint, streams};

/// What to do without a document.
pub(crate) const FROM_TOOL: &str = "put it after another tool in a pipe, or start with -n";

/// The same, for a tool that also takes a container by its id.
pub(crate) const FROM_CONTAINER: &str = "name a container, or give it a document on standard input";

/// The source of a document.
#[derive(Debug, Clone)]
pub enum Input {
    /// Standard input, with a hint in case it is a terminal.
    Standard(&'static str),
    /// A file.
    File(PathBuf),
    /// None: the document is new.
    Empty,
}

/// Why there is no document.
#[derive(Debug)]
pub struct Unread {
    error: anyhow::Error,
    exit: Exit,
}

impl Input {
    /// Standard input, unless `-n` was given.
    pub(crate) fn of(common: &Common, from: &'static str) -> Self {
        if common.null_input { Self::Empty } else { Self::Standard(from) }
    }

    /// Whether there is something to read.
    pub(crate) fn is_there(&self) -> bool {
        match self {
            Self::Standard(_) => !io::stdin().is_terminal(),
            Self::File(_) => true,
            Self::Empty => false,
        }
    }

    /// The document.
    ///
    /// # Errors
    /// When there is none. A terminal counts as wrong usage.
    pub fn read(&self) -> Result<Document, Unread> {
        match self {
            Self::Empty => Ok(Document::new()),
            Self::Standard(from) if !self.is_there() => {
                let error = hint(anyhow!("standard input is a terminal, not a document"), *from);
                Err(Unread { error, exit: Exit::Usage })
            }
            Self::Standard(_) => streams::read_document()
                .map_err(|error| Unread { error: error.into(), exit: Exit::Unreadable }),
            Self::File(path) => {
                let opened = File::open(path).with_context(|| format!("open {path:?}"));
                let read =
                    opened.and_then(|file| Document::read(file).with_context(|| format!("read {path:?}")));
                read.map_err(|error| Unread { error, exit: Exit::Unreadable })
            }
        }
    }
}

impl Unread {
    /// A document of another version, to be passed on unchanged. Tools of its version must find it complete.
    pub(crate) fn of_other_version(&self) -> Option<&Document> {
        match self.error.downcast_ref() {
            Some(Error::Version { document, .. }) => Some(document),
            _ => None,
        }
    }

    /// Prints the reason, and returns the exit status.
    pub(crate) fn tell(self, tool: &str) -> Exit {
        failure::print(tool, &self.error);
        self.exit
    }
}

/// The document from standard input for a tool that writes it to standard output, or the exit status without one.
pub(crate) fn read(tool: &str, common: &Common, from: &'static str) -> Result<Document, Exit> {
    Input::of(common, from).read().map_err(|unread| {
        if let Some(document) = unread.of_other_version() {
            let _ = streams::write_document(document);
        }
        unread.tell(tool)
    })
}
