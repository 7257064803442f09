//! The code that runs a tool. A [`Filter`](crate::Filter) goes through [`filter`], with [`Hooks`] if it starts a
//! process; each other kind has its own runner. All of them end with the code in this file.

mod check;
mod export;
mod filter;
mod hooks;
mod plan;
mod report;
mod source;
mod step;
mod take_back;
mod undo;
mod walker;

use document::Document;

use crate::{
    Common, Exit, Stage, failure, hint,
    input::Input,
    streams::{write_document, write_text},
};

pub use export::export;
pub use filter::{filter, filter_of, filter_with};
pub use hooks::Hooks;
pub use report::{report, report_document};
pub use source::source;
pub use step::{Marker, begin_step, finish_step, marker};
pub use undo::UNWINDING;
pub use walker::walker;

/// Prints the failure, and passes the document on with it.
fn fail(
    tool: &str,
    mut document: Document,
    stage: Stage,
    error: &anyhow::Error,
    pass_on: impl FnOnce(&Document),
) -> Exit {
    failure::print(tool, error);
    if document.set(&failure::member(tool, stage, error)).is_ok() {
        pass_on(&document);
    }
    Exit::Failed
}

/// Passes a document on to standard output. If that fails, only the exit status tells of the failure.
fn to_output(document: &Document) {
    let _ = write_document(document);
}

/// Writes the document at the end of a job that keeps its results, or prints why it cannot.
fn written(tool: &str, document: &Document) -> Exit {
    match write_document(document) {
        Ok(()) => Exit::Done,
        Err(error) => {
            failure::print(tool, &error.into());
            Exit::Failed
        }
    }
}

/// Shows what a terminal gets instead of a document.
fn show(tool: &str, text: &str) -> Exit {
    match write_text(text.as_bytes()) {
        Ok(()) => Exit::Done,
        Err(error) => failure::end(tool, &error.into()),
    }
}

/// `--dry-run` of a tool that is no filter: says what it would do, and writes no document.
fn planned(tool: &str, common: &Common, lines: anyhow::Result<Vec<String>>) -> Exit {
    match lines {
        Ok(lines) => {
            plan::print(common, &lines);
            Exit::Done
        }
        Err(error) => failure::end(tool, &error),
    }
}

/// Wrong usage, `--help` or `--version`. In mid-pipe, the document is passed on with the error.
fn usage(tool: &str, error: &clap::Error, input: &Input, pass_on: impl FnOnce(&Document)) -> Exit {
    if !error.use_stderr() {
        // A reader may close the pipe before it has read all of the help.
        let _ = error.print();
        return Exit::Done;
    }
    let error = usage_error(tool, error);
    match input.is_there().then(|| input.read()) {
        Some(Ok(document)) if !document.has_failed() => {
            fail(tool, document, Stage::Arguments, &error, pass_on);
            return Exit::Usage;
        }
        Some(Ok(document)) => pass_on(&document),
        Some(Err(unread)) => {
            if let Some(document) = unread.of_other_version() {
                pass_on(document);
            }
        }
        None => {}
    }
    failure::print(tool, &error);
    Exit::Usage
}

/// clap's message on one line, without its usage and tips.
fn usage_error(tool: &str, error: &clap::Error) -> anyhow::Error {
    let text = error.to_string();
    let told = text.split("\n\nUsage:").next().unwrap_or_default();
    let told = told.strip_prefix("error: ").unwrap_or(told).split("\n\n").next().unwrap_or_default();
    hint(
        anyhow::anyhow!("{}", told.split_whitespace().collect::<Vec<_>>().join(" ")),
        format!("`{tool} --help` lists the arguments"),
    )
}
