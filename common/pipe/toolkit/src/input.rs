//! Where a tool's document comes from.

use std::{
    fs::File,
    io::{self, IsTerminal},
    path::PathBuf,
};

use anyhow::{Context as _, anyhow};
use document::{Document, Error, Id, record};

use crate::{Common, Exit, Stage, failure, hint, run, streams};

/// The hint for a user who gave no document.
pub(crate) const FROM_TOOL: &str = "put it after another tool in a pipe, or start with -n";

/// The hint for a user who gave no document to a tool that also takes a container's id.
pub(crate) const FROM_CONTAINER: &str = "name a container, or give it a document on standard input";

/// Where the document comes from.
#[derive(Debug, Clone)]
pub enum Input {
    /// Standard input. The text is the hint for a user whose standard input is a terminal.
    Standard(&'static str),
    /// A file.
    File(PathBuf),
    /// The record of a container, in `$STAVE_RUN`.
    Record(PathBuf, Id),
    /// None: the document is new.
    Empty,
}

/// Why there is no document, and the exit status.
#[derive(Debug)]
pub struct Unread {
    error: anyhow::Error,
    exit: Exit,
    /// Whether it is the record of a container that the arguments name.
    is_recorded: bool,
}

impl Input {
    /// The record of a container that the arguments name, or else standard input.
    ///
    /// # Errors
    /// As [`Common::scope`].
    pub(crate) fn named(container: Option<&Id>, common: &Common) -> anyhow::Result<Self> {
        Ok(match container {
            Some(id) => Self::Record(common.scope()?.run_dir, id.clone()),
            None => Self::of(common, FROM_TOOL),
        })
    }

    /// Standard input, unless `-n` was given.
    pub(crate) fn of(common: &Common, from: &'static str) -> Self {
        if common.null_input { Self::Empty } else { Self::Standard(from) }
    }

    /// Whether there is a document to read: a file, or standard input that is not a terminal.
    pub(crate) fn is_there(&self) -> bool {
        match self {
            Self::Standard(_) => !io::stdin().is_terminal(),
            Self::File(_) | Self::Record(..) => true,
            Self::Empty => false,
        }
    }

    /// Reads the document.
    ///
    /// # Errors
    /// When there is none, or it is not valid. A terminal as standard input counts as wrong usage.
    pub fn read(&self) -> Result<Document, Unread> {
        match self {
            Self::Empty => Ok(Document::new()),
            Self::Standard(from) if !self.is_there() => {
                let error = hint(anyhow!("standard input is a terminal, not a document"), *from);
                Err(Unread { error, exit: Exit::Usage, is_recorded: false })
            }
            Self::Standard(_) => streams::read_document().map_err(|error| Unread {
                error: error.into(),
                exit: Exit::Unreadable,
                is_recorded: false,
            }),
            Self::Record(run_dir, id) => {
                let read = record::read_existing(run_dir, id);
                read.map_err(|error| Unread { error: error.into(), exit: Exit::Failed, is_recorded: true })
            }
            Self::File(path) => {
                let opened = File::open(path).with_context(|| format!("open {path:?}"));
                let read =
                    opened.and_then(|file| Document::read(file).with_context(|| format!("read {path:?}")));
                read.map_err(|error| Unread { error, exit: Exit::Unreadable, is_recorded: false })
            }
        }
    }
}

impl Unread {
    /// The document, if it has another version of the contract. It is passed on unchanged, so that tools of
    /// that version find it complete.
    pub(crate) fn of_other_version(&self) -> Option<&Document> {
        match self.error.downcast_ref() {
            Some(Error::Version { document, .. }) => Some(document),
            _ => None,
        }
    }

    /// Ends a tool that cannot go on. A document of another version is passed on as it is; without a record, a document that
    /// says only what failed.
    pub(crate) fn fail(self, tool: &str, pass_on: impl FnOnce(&Document)) -> Exit {
        if self.is_recorded {
            return run::fail(tool, Document::new(), Stage::Record, &self.error, pass_on);
        }
        if let Some(document) = self.of_other_version() {
            pass_on(document);
        }
        self.tell(tool)
    }

    /// Prints the reason, and returns the exit status.
    pub(crate) fn tell(self, tool: &str) -> Exit {
        failure::print(tool, &self.error);
        self.exit
    }
}

/// Reads the document for a tool that writes it to standard output. Returns the exit status if there is no
/// document.
pub(crate) fn read(tool: &str, common: &Common, from: &'static str) -> Result<Document, Exit> {
    Input::of(common, from).read().map_err(|unread| unread.fail(tool, run::to_output))
}
