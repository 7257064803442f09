//! A tool that makes something of a container which outlives it, and changes nothing about the container: img-commit.

use std::{ffi::OsString, process::ExitCode};

use anyhow::anyhow;
use document::{Document, Id, Member, record};

use crate::{
    Common, Context, Exit, Stage,
    arguments::{self, Asked, Invocation},
    failure,
    filter::{FROM_TOOL, fail, input, pass_on, usage},
    hint, schema,
    streams::{explained, write_document},
};

/// A tool that takes the container from the document, or by its id from the record, and puts what it made into the
/// document's member. It pushes no step, since there is nothing of the container that could be undone, and leaves the
/// record as it is. The type is the tool's arguments.
pub trait Export: clap::Parser {
    /// What it puts into the document.
    type Member: Member;
    /// The names of the members that it reads.
    const READS: &'static [&'static str] = &[];

    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// The container that the arguments name; none where its document is on standard input.
    fn container(&self) -> Option<&Id>;

    /// Does the job.
    ///
    /// # Errors
    /// Whatever made the job impossible; the document leaves with it, unchanged otherwise.
    fn make(&self, context: &Context, document: &Document) -> anyhow::Result<Self::Member>;

    /// What [`Export::make`] would do, a line each.
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn explain(&self, context: &Context, document: &Document) -> anyhow::Result<Vec<String>>;
}

/// Where a container comes from that is none of the arguments.
pub(crate) const FROM_CONTAINER: &str = "name a container, or give it the document of one";

/// The whole `main` of an export.
pub fn export<E: Export>() -> ExitCode {
    run::<E>(std::env::args_os().collect()).into()
}

fn run<E: Export>(arguments: Vec<OsString>) -> Exit {
    let Invocation { tool, asked, .. } = arguments::parse::<E>(arguments.iter().cloned());
    match asked {
        Asked::Job(export) => job(&tool, &export),
        Asked::Aside(common) if common.schema || common.generate.is_some() => {
            schema::print::<E>(&tool, &common, E::READS, &[E::Member::NAME])
        }
        // There is no step of it that could be undone or checked.
        Asked::Aside(common) => match input(&tool, &common, FROM_TOOL) {
            Ok(document) => written(&tool, &document),
            Err(exit) => exit,
        },
        Asked::Usage(error) => {
            usage(&tool, &error, !arguments.iter().any(|a| a == "-n" || a == "--null-input"))
        }
    }
}

fn job<E: Export>(tool: &str, export: &E) -> Exit {
    let common = export.common();
    let mut document = match export.container() {
        None => match input(tool, common, FROM_CONTAINER) {
            Ok(document) => document,
            Err(exit) => return exit,
        },
        Some(id) => match recorded(common, id) {
            Ok(document) => document,
            Err(error) => return fail(tool, Document::new(), Stage::Record, &error),
        },
    };
    if document.has_failed() && export.container().is_none() {
        return pass_on(&document, Exit::Upstream);
    }
    let context = document.id().map_err(anyhow::Error::from).and_then(|id| common.context(id.as_ref()));
    if common.explain {
        return explained(tool, context.and_then(|context| export.explain(&context, &document)));
    }
    let made = context
        .and_then(|context| export.make(&context, &document))
        .and_then(|member| Ok(document.set(&member)?));
    match made {
        Ok(()) => written(tool, &document),
        Err(error) => fail(tool, document, Stage::Apply, &error),
    }
}

fn recorded(common: &Common, id: &Id) -> anyhow::Result<Document> {
    let run_dir = common.scope()?.run_dir;
    record::read(&run_dir, id)?.ok_or_else(|| {
        hint(anyhow!("no container \"{id}\" in {}", run_dir.display()), "container-ls lists them")
    })
}

fn written(tool: &str, document: &Document) -> Exit {
    match write_document(document) {
        Ok(()) => Exit::Done,
        Err(error) => {
            let error = anyhow::Error::from(error).context("write the document to standard output");
            failure::print(tool, &error);
            Exit::Failed
        }
    }
}
