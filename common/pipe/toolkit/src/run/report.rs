//! Runs a [`Report`].

use std::{io, process::ExitCode};

use document::Document;
use serde_json::Value;

use super::{help, planned, to_output, usage_error, usage_exit};
use crate::{
    Exit, Report,
    arguments::{Asked, Invocation},
    failure::{self, Ended},
    input,
    kind::Kind,
    schema, session,
    streams::{explained, shows, write_text},
};

/// Reads the document of a [`Report`]'s container from standard input. `from` is the hint for a user who gave
/// none.
///
/// # Errors
/// When there is no document, or it has an unknown version, or an earlier command failed. If
/// [`Report::report`] and [`Report::explain`] return this error, the tool ends as a filter would.
pub fn report_document<R: Report>(report: &R, from: &'static str) -> anyhow::Result<Document> {
    let document = input::read(R::command().get_name(), report.common(), from).map_err(Ended)?;
    match document.has_failed() {
        true => {
            to_output(&document);
            Err(Ended(Exit::Upstream).into())
        }
        false => {
            let scope = report.common().scope()?;
            session::refuse_other(&scope, &document)?;
            session::refuse_lost(&scope, &document)?;
            Ok(document)
        }
    }
}

/// The whole `main` of a report.
pub fn report<R: Report>() -> ExitCode {
    match run::<R>() {
        Ok(status) => status.into(),
        Err(exit) => exit.into(),
    }
}

/// Runs the report. Returns the exit status of a job that was done, or how the tool ended otherwise.
fn run<R: Report>() -> Result<u8, Exit> {
    let Invocation { tool, asked, .. } = Invocation::<R>::parse_as(Kind::Report);
    let report = match asked {
        Asked::Job(report) => report,
        Asked::Aside(common) if common.schema || common.generate.is_some() => {
            return Err(schema::print::<R>((&tool, Kind::Report), &common, &[], &[]));
        }
        Asked::Aside(_) => {
            failure::print(&tool, &anyhow::anyhow!("it makes nothing that could be undone or checked"));
            return Err(Exit::Usage);
        }
        Asked::Usage(error) if !error.use_stderr() => return Err(help(&tool, &error)),
        Asked::Usage(error) => {
            failure::print(&tool, &usage_error(&tool, &error));
            return Err(usage_exit(&error));
        }
    };
    let context = report.common().context(None);
    let is_plan = report.common().dry_run && !R::PLANS;
    if report.common().explain || is_plan {
        let lines = context.and_then(|context| report.explain(&context));
        return Err(match is_plan {
            true => planned(&tool, report.common(), lines),
            false => explained(&tool, lines),
        });
    }
    let printed = context.and_then(|context| report.report(&context)).and_then(|value| {
        print(&report, &value)?;
        report.verdict(&value)?;
        Ok(report.status(&value))
    });
    printed.map_err(|error| failure::end(&tool, &error))
}

fn print<R: Report>(report: &R, value: &Value) -> anyhow::Result<()> {
    let shown = || shows(report.common()).then(|| report.shown(value)).flatten();
    let text = match report.formatted(value)?.or_else(|| report.text(value)).or_else(shown) {
        Some(text) => text,
        None if io::IsTerminal::is_terminal(&io::stdout()) => format!("{value:#}\n"),
        None => format!("{value}\n"),
    };
    match write_text(text.as_bytes()) {
        // A reader may close the pipe early, as in `img-ls --table | head`.
        Err(error) if error.errno() == Some(nix::errno::Errno::EPIPE) => Ok(()),
        result => Ok(result?),
    }
}
