//! Tools that read no document: those that start one, and those that speak of the store.

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use document::{Document, Member, Step, StepState};
use operation::Nothing;
use serde_json::Value;

use crate::{
    Common, Context, Exit, Stage,
    arguments::{self, Asked, Invocation},
    failure::{self, Ended},
    filter::{FROM_TOOL, fail, input, pass_on, usage_error},
    schema,
    streams::{explained, write_document},
    undo::undo_step,
};

/// A tool at the head of a pipe: it makes an image and starts the document. The type is the tool's arguments.
pub trait Source: clap::Parser {
    /// What it puts into the document.
    type Member: Member;

    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// Does the job. What it makes belongs to the store, not to a container: undo does not remove it.
    ///
    /// # Errors
    /// Whatever made the job impossible; the store is then as it was.
    fn make(&self, context: &Context) -> anyhow::Result<Self::Member>;

    /// What [`Source::make`] would do, a line each.
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn explain(&self, context: &Context) -> anyhow::Result<Vec<String>>;
}

/// A tool of the store (`img-ls`, `img-tag`): prints one JSON value. The type is the tool's arguments.
pub trait Report: clap::Parser {
    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// Does the job.
    ///
    /// # Errors
    /// Whatever made it impossible; the store is then as it was.
    fn report(&self, context: &Context) -> anyhow::Result<Value>;

    /// What [`Report::report`] would change, a line each; none where it only looks.
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn explain(&self, context: &Context) -> anyhow::Result<Vec<String>>;

    /// The value as it is printed instead of JSON, where the arguments ask for that (`--table`).
    fn text(&self, report: &Value) -> Option<String> {
        let _ = report;
        None
    }
}

/// The document of the container that a [`Report`] speaks of, from standard input. `from` says where to get one, for the
/// hint.
///
/// # Errors
/// Where there is none, or one of a version that this one does not know, or of a command that failed. Returned by
/// [`Report::report`] and [`Report::explain`], it ends the tool as it would end a filter.
pub fn report_document<R: Report>(report: &R, from: &str) -> anyhow::Result<Document> {
    let document = input(R::command().get_name(), report.common(), from).map_err(Ended)?;
    match document.has_failed() {
        true => Err(Ended(pass_on(&document, Exit::Upstream)).into()),
        false => Ok(document),
    }
}

/// The whole `main` of a source.
pub fn source<S: Source>() -> ExitCode {
    run_source::<S>(std::env::args_os()).into()
}

fn run_source<S: Source>(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let Invocation { tool, version, asked } = arguments::parse::<S>(arguments);
    let source = match asked {
        Asked::Job(source) => source,
        Asked::Aside(common) => return aside::<S>(&tool, &common),
        Asked::Usage(error) if !error.use_stderr() => {
            let _ = error.print();
            return Exit::Done;
        }
        Asked::Usage(error) => {
            // The tools behind this one then see that a command before them failed.
            fail(&tool, Document::new(), Stage::Arguments, &usage_error(&tool, &error));
            return Exit::Usage;
        }
    };
    if source.common().explain {
        return explained(&tool, source.common().context(None).and_then(|context| source.explain(&context)));
    }
    let made = source.common().context(None).and_then(|context| source.make(&context)).and_then(|member| {
        let mut document = Document::new();
        if let Some(id) = &source.common().id {
            document.set(id)?;
        }
        let operations: Vec<Value> = Vec::new();
        document.push_step(&Step { tool: tool.clone(), version, state: StepState::Done, operations })?;
        document.set(&member)?;
        Ok(document)
    });
    match made {
        Err(error) => fail(&tool, Document::new(), Stage::Apply, &error),
        Ok(document) => match write_document(&document) {
            Ok(()) => Exit::Done,
            Err(error) => {
                failure::print(
                    &tool,
                    &anyhow::Error::from(error).context("write the document to standard output"),
                );
                Exit::Failed
            }
        },
    }
}

/// A source's `--undo` only takes its member and its step out: the image stays in the store.
fn aside<S: Source>(tool: &str, common: &Common) -> Exit {
    if common.schema || common.generate.is_some() {
        return schema::print::<S>(tool, common, &[], &[S::Member::NAME]);
    }
    let mut document = match input(tool, common, FROM_TOOL) {
        Ok(document) => document,
        Err(exit) => return exit,
    };
    let undone = || -> anyhow::Result<()> {
        if !common.undo {
            return Ok(());
        }
        let forget = |document: &mut Document| {
            document.remove(S::Member::NAME);
            Ok(())
        };
        undo_step::<Nothing>(tool, &common.scope()?, &mut document, || Ok(None), forget)
    }();
    match undone {
        Err(error) => fail(tool, document, Stage::Undo, &error),
        Ok(()) if write_document(&document).is_ok() => Exit::Done,
        Ok(()) => Exit::Failed,
    }
}

/// The whole `main` of a report.
pub fn report<R: Report>() -> ExitCode {
    run_report::<R>(std::env::args_os()).into()
}

fn run_report<R: Report>(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let Invocation { tool, asked, .. } = arguments::parse::<R>(arguments);
    let report = match asked {
        Asked::Job(report) => report,
        Asked::Aside(common) if common.schema || common.generate.is_some() => {
            return schema::print::<R>(&tool, &common, &[], &[]);
        }
        Asked::Aside(_) => {
            failure::print(&tool, &anyhow::anyhow!("it makes nothing that could be undone or checked"));
            return Exit::Usage;
        }
        Asked::Usage(error) if !error.use_stderr() => {
            let _ = error.print();
            return Exit::Done;
        }
        Asked::Usage(error) => {
            failure::print(&tool, &usage_error(&tool, &error));
            return Exit::Usage;
        }
    };
    let context = report.common().context(None);
    if report.common().explain {
        return explained(&tool, context.and_then(|context| report.explain(&context)));
    }
    let printed =
        context.and_then(|context| report.report(&context)).and_then(|value| Ok(print(&report, &value)?));
    match printed {
        Ok(()) => Exit::Done,
        Err(error) => failure::end(&tool, &error),
    }
}

fn print<R: Report>(report: &R, value: &Value) -> io::Result<()> {
    let text = match report.text(value) {
        Some(text) => text,
        None if io::IsTerminal::is_terminal(&io::stdout()) => format!("{value:#}\n"),
        None => format!("{value}\n"),
    };
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough, as in `img-ls --table | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
