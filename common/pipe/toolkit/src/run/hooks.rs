//! The source and the destination of a filter's document, and the extra steps of a tool that starts a process.

use std::{convert::Infallible, ffi::OsString};

use anyhow::{Result, bail};
use document::Document;
use operation::Scope;

use crate::{
    Exit, Filter, Plan,
    input::{FROM_TOOL, Input},
    streams::write_document,
};

/// How a tool differs from a filter between two pipes. [`filter`](crate::filter) calls these in this order.
///
/// A tool that starts a process owns standard output only until then. The process is launched between the operations
/// and the record, held back until the record names it, and then released.
pub trait Hooks<F: Filter>: Sized {
    /// The process that [`Hooks::launch`] starts. If it is dropped before its release, it ends.
    type Process;
    /// Whether the last operation of the plan is launched instead of applied. If it is the only one, no record precedes
    /// it: its process ends with the tool until it is released, and is on record by then.
    const LAUNCHES: bool = false;

    /// Opens the files that the arguments name, so that errors are found before anything is made.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn open(filter: &F) -> Result<Self>;

    /// The same for wrong arguments, as far as possible, to pass on the document.
    fn salvage(arguments: &[OsString]) -> Self;

    /// The source of the document.
    fn input(&self) -> Input;

    /// Gets ready, after the plan is made and signals are blocked; changes nothing that others see.
    ///
    /// # Errors
    /// Whatever makes the job impossible.
    fn prepare(&mut self, plan: &mut Plan<F>) -> Result<()> {
        let _ = plan;
        Ok(())
    }

    /// Starts the process of the plan's last operation for the document's container, holds it back, and writes its identity into the operation.
    ///
    /// # Errors
    /// When it cannot be started.
    fn launch(
        &mut self,
        scope: &Scope,
        document: &Document,
        operation: &mut F::Operation,
    ) -> Result<Self::Process> {
        let _ = (scope, document, operation);
        bail!("it launches no process")
    }

    /// Releases the process, after it is on record.
    ///
    /// # Errors
    /// When it cannot do its work; everything is undone then.
    fn release(&mut self, process: &mut Self::Process) -> Result<()> {
        let _ = process;
        Ok(())
    }

    /// Whether the job is to look into what failed earlier. The `error` is taken out of the document then. By default a document with
    /// one is passed on.
    fn looks_into(&self, document: &mut Document) -> bool {
        let _ = document;
        false
    }

    /// Writes the document of a finished job.
    ///
    /// # Errors
    /// When it cannot be written; everything is undone then.
    fn write(&mut self, document: &Document) -> Result<()>;

    /// Writes the document of a job that was only planned.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write_planned(&mut self, document: &Document) -> Result<()> {
        Ok(write_document(document)?)
    }

    /// Writes the document of a job that failed. Errors of writing are ignored here.
    fn pass_on(&mut self, document: &Document);

    /// Waits until the process ends. The record is unlocked. Returns the exit status of the tool.
    fn stay(&mut self, process: Self::Process, document: Document) -> u8 {
        let _ = (process, document);
        Exit::Done as u8
    }

    /// The exit status of the tool without a process.
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
