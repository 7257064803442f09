//! Runs a [`Walker`].

use std::ffi::OsString;

use clap::error::ErrorKind;
use document::{Document, Member, members::Failure};

use super::{fail, plan, planned, show, to_output, usage, written};
use crate::{
    Exit, Stage, Walker,
    arguments::{Asked, Invocation},
    failure,
    input::{self, FROM_CONTAINER, Input},
    kind::Kind,
    schema,
    streams::{explained, shows},
};

/// The whole `main` of a walker. Prints each document on one line, as it is after the work.
pub fn walker<W: Walker>() -> Exit {
    let Invocation { tool, arguments, asked, .. } = Invocation::<W>::parse_as(Kind::Walker);
    let walker = match asked {
        Asked::Job(walker) => walker,
        Asked::Aside(common) if common.schema || common.generate.is_some() => {
            return schema::print::<W>((&tool, Kind::Walker), &common, &[], &[]);
        }
        Asked::Aside(_) => {
            let words = format!("{tool} makes nothing that could be undone, checked or repaired");
            let error = W::command().error(ErrorKind::ArgumentConflict, words);
            return usage(&tool, &error, &source(&arguments), to_output);
        }
        Asked::Usage(error) => return usage(&tool, &error, &source(&arguments), to_output),
    };
    let common = walker.common();
    let documents = match walker.documents() {
        Ok(Some(documents)) => documents,
        Ok(None) => match input::read(&tool, common, FROM_CONTAINER) {
            Ok(document) => vec![document],
            Err(exit) => return exit,
        },
        Err(error) => {
            failure::print(&tool, &error);
            return Exit::Failed;
        }
    };
    if common.explain {
        let lines = documents.iter().map(|document| walker.explain(document));
        return explained(&tool, lines.collect::<anyhow::Result<Vec<_>>>().map(|lines| lines.concat()));
    }
    if common.dry_run {
        let lines = documents.iter().map(|document| walker.explain(document));
        return planned(&tool, common, lines.collect::<anyhow::Result<Vec<_>>>().map(|lines| lines.concat()));
    }
    let mut exit = Exit::Done;
    for document in documents {
        if walk(&tool, &walker, document) != Exit::Done {
            exit = Exit::Failed;
        }
    }
    exit
}

/// Where the document comes from. Standard input is not read if the arguments name containers.
fn source(arguments: &[OsString]) -> Input {
    let names = arguments.iter().skip(1).any(|argument| !argument.as_encoded_bytes().starts_with(b"-"));
    if names { Input::Empty } else { Input::Standard(FROM_CONTAINER) }
}

/// Walks over a document. A planned one loses its steps, and nothing else happens.
fn walk<W: Walker>(tool: &str, walker: &W, mut document: Document) -> Exit {
    match document.is_planned() {
        Ok(false) => {}
        Ok(true) => {
            let lines = walker.explain(&document);
            let taken = lines.and_then(|lines| {
                plan::print(walker.common(), &lines);
                let steps: Vec<usize> = (0..document.tools()?.len()).collect();
                Ok(document.remove_steps(&steps)?)
            });
            return match taken {
                Ok(()) => written(tool, &document),
                Err(error) => fail(tool, document, Stage::Plan, &error, to_output),
            };
        }
        Err(error) => return fail(tool, document, Stage::Undo, &error.into(), to_output),
    }
    let errors = walker.walk(&mut document).unwrap_or_else(|error| vec![error]);
    let mut errors = errors.into_iter();
    if let Some(first) = errors.next() {
        errors.for_each(|error| failure::print(tool, &error));
        // The message says everything, and no tool reads from a terminal.
        if shows(walker.common()) {
            return failure::end(tool, &first);
        }
        return fail(tool, document, Stage::Undo, &first, to_output);
    }
    let told = document.raw(Failure::NAME).is_some();
    let shown = shows(walker.common()).then(|| walker.shown(&document)).flatten();
    match shown.map_or_else(|| written(tool, &document), |text| show(tool, &text)) {
        Exit::Done if told => Exit::Failed,
        exit => exit,
    }
}
