//! Hooks: where a filter's document comes from and goes to, and what a tool that starts a process does in
//! addition.

use std::{convert::Infallible, ffi::OsString};

use anyhow::{Result, bail};
use document::Document;
use operation::Scope;

use crate::{
    Exit, Filter, Plan,
    input::{FROM_TOOL, Input},
    streams::{shows, write_document, write_text},
};

/// What a filter does beyond the usual. [`filter`](crate::filter) calls these functions in this order.
///
/// A tool that starts a process leaves standard output to the process. The process is launched after the
/// operations and before the record. It is held back until the record names it, and then released.
pub trait Hooks<F: Filter>: Sized {
    /// The process that [`Hooks::launch`] starts. It ends if this value is dropped before the release.
    type Process;
    /// Whether the last operation of the plan is launched instead of applied. If it is the only operation, no
    /// record is written before the launch: the process ends with the tool until it is released, and the
    /// record names it by then.
    const LAUNCHES: bool = false;

    /// Opens the files that the arguments name, so that errors are found before anything is made.
    ///
    /// # Errors
    /// When a file cannot be opened.
    fn open(filter: &F) -> Result<Self>;

    /// As [`Hooks::open`], for wrong arguments: finds out as far as possible where to pass the document on.
    fn salvage(arguments: &[OsString]) -> Self;

    /// Where the document comes from.
    fn input(&self) -> Input;

    /// Prepares the job, after the plan is made and signals are blocked. Changes nothing that others see.
    ///
    /// # Errors
    /// Whatever makes the job impossible.
    fn prepare(&mut self, plan: &mut Plan<F>) -> Result<()> {
        let _ = plan;
        Ok(())
    }

    /// Launches the process of the plan's last operation for the container of `document`, holds it back, and
    /// writes its identity into the operation.
    ///
    /// # Errors
    /// When the process cannot be started.
    fn launch(
        &mut self,
        scope: &Scope,
        document: &Document,
        operation: &mut F::Operation,
    ) -> Result<Self::Process> {
        let _ = (scope, document, operation);
        bail!("it launches no process")
    }

    /// Releases the process, after the record names it.
    ///
    /// # Errors
    /// When the process cannot begin its work. Everything is undone then.
    fn release(&mut self, process: &mut Self::Process) -> Result<()> {
        let _ = process;
        Ok(())
    }

    /// Whether the job is to look into an earlier failure. If so, removes `error` from the document. By
    /// default a document with `error` is passed on.
    fn looks_into(&self, document: &mut Document) -> bool {
        let _ = document;
        false
    }

    /// Writes the document of a job that is done.
    ///
    /// # Errors
    /// When the document cannot be written. Everything is undone then.
    fn write(&mut self, document: &Document) -> Result<()>;

    /// Writes the document of a job that was only planned.
    ///
    /// # Errors
    /// When the document cannot be written.
    fn write_planned(&mut self, document: &Document) -> Result<()> {
        Ok(write_document(document)?)
    }

    /// Writes the document of a job that failed. Ignores errors.
    fn pass_on(&mut self, document: &Document);

    /// Waits until the process ends. The record is not locked meanwhile. Returns the exit status of the tool.
    fn stay(&mut self, process: Self::Process, document: Document) -> u8 {
        let _ = (process, document);
        Exit::Done as u8
    }

    /// The exit status of the tool if it has no process.
    fn status(exit: Exit, error: Option<&anyhow::Error>) -> u8 {
        let _ = error;
        exit as u8
    }
}

/// The hooks of a filter between two pipes.
#[derive(Debug)]
pub(super) struct Pipe {
    input: Input,
    /// Whether writing to standard output has failed. If so, nothing more is written.
    is_broken: bool,
    /// What is printed instead of the document.
    shown: Option<fn(&Document) -> String>,
}

impl<F: Filter> Hooks<F> for Pipe {
    type Process = Infallible;

    fn open(filter: &F) -> Result<Self> {
        let input = match F::STARTS {
            true => Input::Empty,
            false => Input::named(filter.container(), filter.common())?,
        };
        Ok(Self { input, is_broken: false, shown: F::SHOWN.filter(|_| shows(filter.common())) })
    }

    fn salvage(arguments: &[OsString]) -> Self {
        let is_new = arguments.iter().any(|argument| argument == "-n" || argument == "--null-input");
        Self {
            input: if is_new || F::STARTS { Input::Empty } else { Input::Standard(FROM_TOOL) },
            is_broken: false,
            shown: None,
        }
    }

    fn input(&self) -> Input {
        self.input.clone()
    }

    fn write(&mut self, document: &Document) -> Result<()> {
        let written = match self.shown {
            Some(shown) => write_text(shown(document).as_bytes()),
            None => write_document(document),
        };
        self.is_broken = written.is_err();
        Ok(written?)
    }

    fn pass_on(&mut self, document: &Document) {
        if !self.is_broken && self.shown.is_none() {
            let _ = write_document(document);
        }
    }
}
