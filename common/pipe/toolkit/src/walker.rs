//! A tool that works on whole documents that exist already, failed ones among them: unwind.

use std::ffi::OsString;

use clap::error::ErrorKind;
use document::{Document, Member, members::Failure};

use crate::{
    Common, Exit, Stage,
    arguments::{self, Asked, Invocation},
    export::FROM_CONTAINER,
    failure,
    filter::{fail, input, usage},
    schema,
    streams::{explained, write_document},
};

/// A tool that walks over the steps of documents. The type is the tool's arguments.
pub trait Walker: clap::Parser {
    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// The documents that the arguments name; none where it is the one on standard input.
    ///
    /// # Errors
    /// When one of them cannot be read.
    fn documents(&self) -> anyhow::Result<Option<Vec<Document>>>;

    /// Works on one of them. Whatever fails is returned once all was attempted; `error` is set in the document for what
    /// a tool that was called has told of itself.
    ///
    /// # Errors
    /// When nothing could be attempted.
    fn walk(&self, document: &mut Document) -> anyhow::Result<Vec<anyhow::Error>>;

    /// What [`Walker::walk`] would do, a line each.
    ///
    /// # Errors
    /// When nothing could be attempted.
    fn explain(&self, document: &Document) -> anyhow::Result<Vec<String>>;
}

/// The whole `main` of a walker. Prints every document on a line of its own, as it then is.
pub fn walker<W: Walker>() -> Exit {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let Invocation { tool, asked, .. } = arguments::parse::<W>(arguments.iter().cloned());
    let walker = match asked {
        Asked::Job(walker) => walker,
        Asked::Aside(common) if common.schema || common.generate.is_some() => {
            return schema::print::<W>(&tool, &common, &[], &[]);
        }
        Asked::Aside(_) => {
            let words = format!("{tool} makes nothing that could be undone, checked or repaired");
            let error = W::command().error(ErrorKind::ArgumentConflict, words);
            return usage(&tool, &error, reads(&arguments));
        }
        Asked::Usage(error) => return usage(&tool, &error, reads(&arguments)),
    };
    let common = walker.common();
    let documents = match walker.documents() {
        Ok(Some(documents)) => documents,
        Ok(None) => match input(&tool, common, FROM_CONTAINER) {
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
    let mut exit = Exit::Done;
    for document in documents {
        if walk(&tool, &walker, document) != Exit::Done {
            exit = Exit::Failed;
        }
    }
    exit
}

/// With ids among the arguments, standard input is somebody else's.
fn reads(arguments: &[OsString]) -> bool {
    arguments.iter().skip(1).all(|argument| argument.as_encoded_bytes().starts_with(b"-"))
}

fn walk<W: Walker>(tool: &str, walker: &W, mut document: Document) -> Exit {
    let errors = walker.walk(&mut document).unwrap_or_else(|error| vec![error]);
    let mut errors = errors.into_iter();
    if let Some(first) = errors.next() {
        errors.for_each(|error| failure::print(tool, &error));
        return fail(tool, document, Stage::Undo, &first);
    }
    let told = document.raw(Failure::NAME).is_some();
    match write_document(&document) {
        Ok(()) if !told => Exit::Done,
        Ok(()) => Exit::Failed,
        Err(error) => {
            failure::print(
                tool,
                &anyhow::Error::from(error).context("write the document to standard output"),
            );
            Exit::Failed
        }
    }
}
