//! Where a filter's document comes from and goes to, and what a tool does that starts a process.

use std::{convert::Infallible, ffi::OsString};

use anyhow::{Result, bail};
use document::{Document, Id};
use operation::Scope;

use crate::{
    Exit, Filter, Plan,
    input::{FROM_TOOL, Input},
    streams::write_document,
};

/// What a tool does otherwise than a filter between two pipes. [`filter`](crate::filter) calls them in the order in which
/// they stand here.
///
/// A tool that starts a process owns standard output only until then. The process is launched between the operations and
/// the record, held back until the record tells which it is, and let go.
pub trait Hooks<F: Filter>: Sized {
    /// What [`Hooks::launch`] starts. Dropped before it was let go, it ends.
    type Process;
    /// Whether the last operation of the plan is launched instead of applied. Where it is the only one, there is no
    /// record before it: what it makes ends with the tool until it is let go, and is on record by then.
    const LAUNCHES: bool = false;

    /// Opens what the arguments name, so that what cannot be written is found out before anything is made.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn open(filter: &F) -> Result<Self>;

    /// The same as far as it can be told from arguments that are wrong, for passing on the document.
    fn salvage(arguments: &[OsString]) -> Self;

    /// Where the document comes from.
    fn input(&self) -> Input;

    /// Gets ready, once the plan is made and signals are held back; changes nothing that others see.
    ///
    /// # Errors
    /// What makes the job impossible.
    fn prepare(&mut self, plan: &mut Plan<F>) -> Result<()> {
        let _ = plan;
        Ok(())
    }

    /// Starts the process of the plan's last operation, holds it back, and writes into the operation which it is.
    ///
    /// # Errors
    /// When it cannot be started.
    fn launch(&mut self, scope: &Scope, id: &Id, operation: &mut F::Operation) -> Result<Self::Process> {
        let _ = (scope, id, operation);
        bail!("it launches no process")
    }

    /// Lets the process go, once it is on record.
    ///
    /// # Errors
    /// When it cannot do what it was started for; everything is taken back then.
    fn release(&mut self, process: &mut Self::Process) -> Result<()> {
        let _ = process;
        Ok(())
    }

    /// Writes the document of a job that is done.
    ///
    /// # Errors
    /// When it cannot be written; everything is taken back then.
    fn write(&mut self, document: &Document) -> Result<()>;

    /// Writes the document of a job that was only planned.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write_planned(&mut self, document: &Document) -> Result<()> {
        Ok(write_document(document)?)
    }

    /// Writes the document of a job that was not done. What cannot be written then is no news.
    fn pass_on(&mut self, document: &Document);

    /// Stays until the process ends. The record is everybody's again. Returns what the tool exits with.
    fn stay(&mut self, process: Self::Process, document: Document) -> u8 {
        let _ = (process, document);
        Exit::Done as u8
    }

    /// What the tool exits with, if it does so without a process.
    fn status(exit: Exit, error: Option<&anyhow::Error>) -> u8 {
        let _ = error;
        exit as u8
    }
}

/// A filter between two pipes.
#[derive(Debug)]
pub(super) struct Pipe {
    input: Input,
    /// Standard output has failed; nothing more is written to it.
    is_broken: bool,
}

impl<F: Filter> Hooks<F> for Pipe {
    type Process = Infallible;

    fn open(filter: &F) -> Result<Self> {
        Ok(Self { input: Input::of(filter.common(), FROM_TOOL), is_broken: false })
    }

    fn salvage(arguments: &[OsString]) -> Self {
        let is_new = arguments.iter().any(|argument| argument == "-n" || argument == "--null-input");
        Self { input: if is_new { Input::Empty } else { Input::Standard(FROM_TOOL) }, is_broken: false }
    }

    fn input(&self) -> Input {
        self.input.clone()
    }

    fn write(&mut self, document: &Document) -> Result<()> {
        let written = write_document(document);
        self.is_broken = written.is_err();
        Ok(written?)
    }

    fn pass_on(&mut self, document: &Document) {
        if !self.is_broken {
            let _ = write_document(document);
        }
    }
}
