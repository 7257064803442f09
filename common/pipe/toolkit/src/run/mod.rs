//! Runs a tool. A [`Filter`](crate::Filter) is run by [`filter`], with [`Hooks`] if it starts a process. Each
//! other kind has its own function. All of them use the functions in this file.

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

use std::io::{self, IsTerminal};

use clap::error::{ContextKind, ContextValue};
use document::Document;
use nix::errno::Errno;

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
pub use undo::{UNWINDING, is_unwound};
pub use walker::walker;

/// Prints the failure, and passes the document on with `error`.
pub(crate) fn fail(
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

/// Passes a document on to standard output. An error is not printed, because the tool has failed already.
pub(crate) fn to_output(document: &Document) {
    let _ = write_document(document);
}

/// Writes the document of a job whose results stay. Prints an error of writing.
fn written(tool: &str, document: &Document) -> Exit {
    match write_document(document) {
        Ok(()) => Exit::Done,
        Err(error) => {
            failure::print(tool, &error.into());
            Exit::Failed
        }
    }
}

/// Prints the text that a terminal gets instead of a document.
fn show(tool: &str, text: &str) -> Exit {
    match write_text(text.as_bytes()) {
        Ok(()) => Exit::Done,
        Err(error) => failure::end(tool, &error.into()),
    }
}

/// Runs `--dry-run` of a tool that is not a filter: prints what the tool would do, and writes no document.
fn planned(tool: &str, common: &Common, lines: anyhow::Result<Vec<String>>) -> Exit {
    match lines {
        Ok(lines) => {
            plan::print(common, &lines);
            Exit::Done
        }
        Err(error) => failure::end(tool, &error),
    }
}

/// Prints `--help` or `--version`, which clap reports as errors, and returns how the tool ends.
pub fn help(tool: &str, error: &clap::Error) -> Exit {
    let text = error.render();
    match io::stdout().is_terminal() {
        true => say(tool, &text.ansi().to_string()),
        false => say(tool, &text.to_string()),
    }
}

/// Prints this text for people to standard output, and returns how the tool ends.
pub fn say(tool: &str, text: &str) -> Exit {
    match write_text(text.as_bytes()) {
        Ok(()) => Exit::Done,
        // The reader may close the pipe before it has read everything.
        Err(error) if error.errno() == Some(Errno::EPIPE) => Exit::Done,
        Err(error) => failure::end(tool, &error.into()),
    }
}

/// Handles wrong usage, `--help` and `--version`. In the middle of a pipe, wrong usage passes the document on
/// with `error`.
fn usage(tool: &str, error: &clap::Error, input: &Input, pass_on: impl FnOnce(&Document)) -> Exit {
    if !error.use_stderr() {
        return help(tool, error);
    }
    let exit = usage_exit(error);
    let error = usage_error(tool, error);
    // A tool that starts a document writes one only if the words are not to blame.
    let starts = matches!(input, Input::Empty) && exit == Exit::Failed;
    match (starts || input.is_there()).then(|| input.read()) {
        Some(Ok(document)) if !document.has_failed() => {
            fail(tool, document, Stage::Arguments, &error, pass_on);
            return exit;
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
    exit
}

/// How a tool ends whose words cannot be read. It is not the caller's mistake if the system fails meanwhile.
fn usage_exit(error: &clap::Error) -> Exit {
    if error.kind() == clap::error::ErrorKind::Io { Exit::Failed } else { Exit::Usage }
}

/// clap's message on one line, without usage and tips.
fn usage_error(tool: &str, error: &clap::Error) -> anyhow::Error {
    let text = error.to_string();
    let told = text.split("\n\nUsage:").next().unwrap_or_default();
    let told = told.strip_prefix("error: ").unwrap_or(told).split("\n\n").next().unwrap_or_default();
    let own = match error.get(ContextKind::Custom) {
        Some(ContextValue::String(hint)) => Some(hint.clone()),
        _ => None,
    };
    hint(
        anyhow::anyhow!("{}", told.split_whitespace().collect::<Vec<_>>().join(" ")),
        own.unwrap_or_else(|| format!("`{tool} --help` lists the arguments")),
    )
}
