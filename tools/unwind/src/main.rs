//! Takes a container back: everything that the tools of a pipe made for it.
//!
//! # Does
//! Calls each tool's `--undo` in the reverse order of the document's `steps`. Attempts all of them. Of an id without steps
//! and record, which is from before the machine was started anew, what is left in `$STAVE_ROOT` goes.
//! # Reads
//! `steps`, from standard input or from the records of the ids given as arguments.
//! # Adds
//! Nothing; prints each document as it then is: no steps left, or `error` and what remains.
//! # Undoes
//! Nothing of its own. What is gone already is no error.
//! # Needs
//! The tools beside itself; a tool that is not one of Stave's is looked for only in directories given with `--with`.

mod undo;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use document::{Document, Id};
use toolkit::{Common, Exit, Walker, walker};

/// Takes back what a pipe of Stave's tools made, from a document on standard input or by the container's id
#[derive(Parser)]
#[command(name = "unwind", version)]
struct Unwind {
    /// The containers to take back, by their records; without any, the document on standard input
    #[arg(value_name = "ID")]
    ids: Vec<Id>,
    /// A directory with tools of other makers, whose steps may be taken back too
    #[arg(long, value_name = "DIR")]
    with: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl Walker for Unwind {
    fn common(&self) -> &Common {
        &self.common
    }

    fn documents(&self) -> Result<Option<Vec<Document>>> {
        if self.ids.is_empty() {
            return Ok(None);
        }
        // Each one's record is read once nobody works on it any more.
        let named = |id: &Id| -> Result<Document> {
            let mut document = Document::new();
            document.set(id)?;
            Ok(document)
        };
        self.ids.iter().map(named).collect::<Result<_>>().map(Some)
    }

    fn walk(&self, document: &mut Document) -> Result<Vec<anyhow::Error>> {
        undo::Tools::new(&self.with, &self.common)?.undo_all(document)
    }

    fn explain(&self, document: &Document) -> Result<Vec<String>> {
        undo::Tools::new(&self.with, &self.common)?.explain(document)
    }
}

fn main() -> ExitCode {
    let exit: Exit = walker::<Unwind>();
    exit.into()
}
