//! Removes everything that the tools of a pipe made for a container.
//!
//! # Does
//! Calls each tool's `--undo` in the reverse order of the document's `steps`, and continues after errors. If
//! an id has no record because the machine was restarted, removes what is left in `$STAVE_ROOT`.
//! # Reads
//! `steps`, from standard input or from the records of the given ids.
//! # Adds
//! Nothing; prints each document afterwards: without steps, or with `error` and the remaining steps.
//! # Undoes
//! Nothing of its own. Things that are already gone are no error.
//! # Needs
//! The tools, in its own directory. Foreign tools are started only from directories given with `--with`.

mod forks;
mod undo;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, anyhow};
use clap::Parser;
use document::{Document, Id};
use toolkit::{Common, Exit, Walker, walker};

/// Undo what a pipe made, by the document on standard input or the container's id
#[derive(Parser)]
#[command(name = "unwind", version)]
struct Unwind {
    /// The ids of the containers to remove; by default, read a document from standard input
    #[arg(value_name = "ID")]
    ids: Vec<Id>,
    /// Also undo steps of other tools, found in this directory; repeatable
    #[arg(long, value_name = "DIR")]
    with: Vec<PathBuf>,
    /// Fail if a named container does not exist
    #[arg(long)]
    strict: bool,
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
        // Each record is read when no other tool works on it any more.
        let named = |id: &Id| -> Result<Document> {
            let mut document = Document::new();
            document.set(id)?;
            Ok(document)
        };
        let scope = self.common.scope()?;
        let mut ids: Vec<_> = self.ids.iter().map(|id| (forks::depth(&scope, id), id)).collect();
        // What stands on others goes first.
        ids.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        ids.into_iter().map(|(_, id)| named(id)).collect::<Result<_>>().map(Some)
    }

    fn walk(&self, document: &mut Document) -> Result<Vec<anyhow::Error>> {
        let mut tools = undo::Tools::new(&self.with, &self.common)?;
        if !self.ids.is_empty()
            && let Some(id) = document.id()?
            && !tools.knows(document)?
        {
            let nothing = anyhow!("container \"{id}\" does not exist in {:?}", self.common.scope()?.run_dir);
            match (self.strict, self.common.quiet) {
                (true, _) => return Err(nothing),
                (false, false) => operation::tell!("unwind: {nothing}"),
                (false, true) => {}
            }
        }
        forks::refuse(&self.common.scope()?, document)?;
        tools.undo_all(document)
    }

    fn shown(&self, document: &Document) -> Option<String> {
        Some(document.id().ok()??.to_string() + "\n")
    }

    fn explain(&self, document: &Document) -> Result<Vec<String>> {
        undo::Tools::new(&self.with, &self.common)?.explain(document)
    }
}

pub(crate) fn main() -> ExitCode {
    let exit: Exit = walker::<Unwind>();
    exit.into()
}
