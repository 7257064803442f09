//! Runs an [`Export`].

use std::process::ExitCode;

use document::{Document, Member, members::Planned, record};

use super::{fail, plan, to_output, usage, written};
use crate::{
    Exit, Export, Stage,
    arguments::{Asked, Invocation},
    input::{self, FROM_CONTAINER, FROM_TOOL, Input},
    kind::Kind,
    schema, session,
    streams::explained,
};

/// The whole `main` of an export.
pub fn export<E: Export>() -> ExitCode {
    let Invocation { tool, arguments, asked, .. } = Invocation::<E>::parse_as(Kind::Export);
    let exit = match asked {
        Asked::Job(export) => job(&tool, &export),
        Asked::Aside(common) if common.schema || common.generate.is_some() => {
            schema::print::<E>((&tool, Kind::Export), &common, E::READS, &[E::Member::NAME])
        }
        // An export has no step to undo or check.
        Asked::Aside(common) => match input::read(&tool, &common, FROM_TOOL) {
            Ok(document) => written(&tool, &document),
            Err(exit) => exit,
        },
        Asked::Usage(error) => {
            let is_new = arguments.iter().any(|argument| argument == "-n" || argument == "--null-input");
            let input = if is_new { Input::Empty } else { Input::Standard(FROM_CONTAINER) };
            usage(&tool, &error, &input, to_output)
        }
    };
    exit.into()
}

fn job<E: Export>(tool: &str, export: &E) -> Exit {
    let common = export.common();
    let mut document = match export.container() {
        None => match input::read(tool, common, FROM_CONTAINER) {
            Ok(document) => document,
            Err(exit) => return exit,
        },
        Some(id) => match common.scope().and_then(|scope| Ok(record::read_existing(&scope.run_dir, id)?)) {
            Ok(document) => document,
            Err(error) => return fail(tool, Document::new(), Stage::Record, &error, to_output),
        },
    };
    if document.has_failed() && export.container().is_none() {
        to_output(&document);
        return Exit::Upstream;
    }
    let context = document.id().map_err(anyhow::Error::from).and_then(|id| common.context(id.as_ref()));
    if common.explain {
        return explained(tool, context.and_then(|context| export.explain(&context, &document)));
    }
    if common.dry_run || document.is_planned().unwrap_or_default() {
        let planned = context.and_then(|context| {
            let lines = export.explain(&context, &document)?;
            document.set(&Planned(true))?;
            Ok(lines)
        });
        return match planned {
            Ok(lines) => {
                plan::print(common, &lines);
                written(tool, &document)
            }
            Err(error) => fail(tool, document, Stage::Plan, &error, to_output),
        };
    }
    let made = context
        .and_then(|context| {
            session::refuse_other(&context.scope, &document)?;
            session::refuse_lost(&context.scope, &document)?;
            export.make(&context, &document)
        })
        .and_then(|member| Ok(document.set(&member)?));
    match made {
        Ok(()) => written(tool, &document),
        Err(error) => fail(tool, document, Stage::Apply, &error, to_output),
    }
}
