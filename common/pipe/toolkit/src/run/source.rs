//! Runs a [`Source`].

use std::{
    io::{IsTerminal, stdout},
    process::ExitCode,
};

use document::{Document, Member, Step, StepState};
use operation::Nothing;
use serde_json::Value;

use super::{fail, help, planned, show, to_output, undo::Undo, usage_error, usage_exit, written};
use crate::{
    Common, Exit, Source, Stage,
    arguments::{Asked, Invocation},
    failure,
    input::{self, FROM_TOOL},
    kind::Kind,
    schema,
    streams::{explained, shows, write_document},
};

/// The whole `main` of a source.
pub fn source<S: Source>() -> ExitCode {
    run::<S>().into()
}

fn run<S: Source>() -> Exit {
    let Invocation { tool, version, asked, .. } = Invocation::<S>::parse_as(Kind::Source);
    let source = match asked {
        Asked::Job(source) => source,
        Asked::Aside(common) => return aside::<S>(&tool, &common),
        Asked::Usage(error) if !error.use_stderr() => return help(&tool, &error),
        Asked::Usage(error) => {
            // The tools after this one see that an earlier command failed. No tool reads from a terminal.
            let pass_on: fn(&Document) = if stdout().is_terminal() { |_| () } else { to_output };
            fail(&tool, Document::new(), Stage::Arguments, &usage_error(&tool, &error), pass_on);
            return usage_exit(&error);
        }
    };
    if source.common().explain {
        return explained(&tool, source.common().context(None).and_then(|context| source.explain(&context)));
    }
    if let Some(checked) = source.common().context(None).map(|context| source.check(&context)).transpose() {
        let lines = checked.and_then(|lines| lines);
        let is_bad = lines.as_ref().is_ok_and(|lines| !lines.is_empty());
        return match explained(&tool, lines) {
            Exit::Done if is_bad => Exit::Failed,
            exit => exit,
        };
    }
    if source.common().dry_run {
        let lines = source.common().context(None).and_then(|context| source.rehearse(&context));
        return planned(&tool, source.common(), lines);
    }
    let made = source.common().context(None).and_then(|context| source.make(&context)).and_then(|member| {
        let mut document = Document::new();
        if let Some(id) = &source.common().id {
            document.set(id)?;
        }
        let operations: Vec<Value> = Vec::new();
        document.push_step(&Step::new(&tool, &version, StepState::Done, operations))?;
        document.set(&member)?;
        let formatted = source.formatted(&source.common().context(None)?, &member)?;
        let shown = || shows(source.common()).then(|| source.shown(&member)).flatten();
        Ok((document, formatted.or_else(shown)))
    });
    match made {
        // The message says everything, and no tool reads from a terminal.
        Err(error) if shows(source.common()) => failure::end(&tool, &error),
        Err(error) => fail(&tool, source.left(), Stage::Apply, &error, |document| {
            if write_document(document).is_err()
                && let Ok(context) = source.common().context(None)
            {
                source.unwritten(&context, document);
            }
        }),
        Ok((_, Some(shown))) => show(&tool, &shown),
        Ok((document, None)) => written(&tool, &document),
    }
}

/// `--undo` of a source only removes its member and its step. The image stays in the store.
fn aside<S: Source>(tool: &str, common: &Common) -> Exit {
    if common.schema || common.generate.is_some() {
        return schema::print::<S>((tool, Kind::Source), common, &[], &[S::Member::NAME]);
    }
    let hint = S::CHECK_HINT.filter(|_| common.check);
    let mut document = match input::read(tool, common, hint.unwrap_or(FROM_TOOL)) {
        Ok(document) => document,
        Err(exit) => {
            // On a terminal, the hint was printed.
            if let Some(hint) = hint.filter(|_| !std::io::stdin().is_terminal()) {
                operation::tell!("hint: {hint}");
            }
            return exit;
        }
    };
    let undone = || -> anyhow::Result<()> {
        if !common.undo {
            return Ok(());
        }
        // `image` is not a sum: the last tool that made an image has replaced it.
        let forget = |document: &mut Document| -> anyhow::Result<()> {
            document.remove(S::Member::NAME);
            Ok(())
        };
        let (scope, unrecorded) = (&common.scope()?, |_: &_, _: &_| Ok(()));
        let refuse = |_: &_, _: &_, _: &_| Ok(());
        Undo {
            tool,
            scope,
            lock: None,
            is_meant: &|_| true,
            refuse,
            complete: |_, _| Ok(()),
            forget: &forget,
            unrecorded,
        }
        .steps::<Nothing>(common.steps, &mut document)
    }();
    match undone {
        Err(error) => fail(tool, document, Stage::Undo, &error, to_output),
        Ok(()) => written(tool, &document),
    }
}
