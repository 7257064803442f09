//! How a filter runs: input, plan, record begun, apply, launch, record done, release, write.
//! `docs/architecture.md` has the same list.

use std::{ffi::OsString, process::ExitCode};

use document::{Contribution, Document};
use operation::{Scope, apply_all, interrupt};

use super::{
    check, fail,
    hooks::{Hooks, Pipe},
    plan,
    take_back::{Attempt, Failed},
    to_output, undo, usage, written,
};
use crate::{
    Common, Exit, Filter, Plan, Session, Stage,
    arguments::{self, Asked, Invocation},
    failure,
    input::Input,
    kind::Kind,
    schema, session,
    streams::{close_output, explained, shows},
};

/// The whole `main` of a filter.
pub fn filter<F: Filter>() -> ExitCode {
    filter_with::<F, Pipe>(Invocation::parse())
}

/// As [`filter`], for a command line that was parsed already.
pub fn filter_of<F: Filter>(invocation: Invocation<F>) -> ExitCode {
    filter_with::<F, Pipe>(invocation)
}

/// As [`filter_of`], for a tool with its own [`Hooks`].
pub fn filter_with<F: Filter, H: Hooks<F>>(invocation: Invocation<F>) -> ExitCode {
    let Invocation { tool, version, arguments, asked } = invocation;
    let status = match asked {
        Asked::Job(filter) => job::<F, H>(&tool, &version, &filter),
        Asked::Aside(common) => aside::<F>(&tool, &common, &arguments) as u8,
        Asked::Usage(error) => {
            let mut hooks = H::salvage(&arguments);
            let exit = usage(&tool, &error, &hooks.input(), |document| hooks.pass_on(document));
            H::status(exit, None)
        }
    };
    status.into()
}

fn job<F: Filter, H: Hooks<F>>(tool: &str, version: &str, filter: &F) -> u8 {
    let mut hooks = match H::open(filter) {
        Ok(hooks) => hooks,
        Err(error) => {
            failure::print(tool, &error);
            return H::status(Exit::Failed, Some(&error));
        }
    };
    let mut document = match hooks.input().read() {
        Ok(document) => document,
        Err(unread) => {
            let explains = filter.common().explain;
            let exit = unread.fail(tool, |document| {
                if !explains {
                    hooks.pass_on(document)
                }
            });
            return H::status(exit, None);
        }
    };
    if document.has_failed() && !hooks.looks_into(&mut document) {
        hooks.pass_on(&document);
        return H::status(Exit::Upstream, None);
    }
    if filter.common().explain {
        return H::status(explained(tool, plan::explain(filter, &document)), None);
    }
    match document.is_planned() {
        Ok(false) if !filter.common().dry_run => {}
        Ok(_) => return planned(tool, version, filter, &mut hooks, document),
        Err(error) => {
            let exit = fail(tool, document, Stage::Plan, &error.into(), |document| hooks.pass_on(document));
            return H::status(exit, None);
        }
    }
    match surrounded(tool, version, filter, &mut hooks, document) {
        Ok((document, Some(process), _)) => hooks.stay(process, document),
        Ok((_, None, exit)) => H::status(exit, None),
        Err(Failed { document, stage, error }) => {
            let exit = fail(tool, *document, stage, &error, |document| hooks.pass_on(document));
            H::status(exit, Some(&error))
        }
    }
}

/// Runs `--dry-run`: prints what the filter would do, and writes the document as it would be.
fn planned<F: Filter, H: Hooks<F>>(
    tool: &str,
    version: &str,
    filter: &F,
    hooks: &mut H,
    document: Document,
) -> u8 {
    match plan::plan(tool, version, filter, &document) {
        Ok((document, lines)) => {
            plan::print(filter.common(), &lines);
            match hooks.write_planned(&document) {
                Ok(()) => H::status(Exit::Done, None),
                Err(error) => {
                    failure::print(tool, &error);
                    H::status(Exit::Failed, Some(&error))
                }
            }
        }
        Err((stage, error)) => {
            let exit = fail(tool, document, stage, &error, |document| hooks.pass_on(document));
            H::status(exit, Some(&error))
        }
    }
}

/// Does the job, with what comes before and after it. The error of the latter is told; it is in no document.
fn surrounded<F: Filter, H: Hooks<F>>(
    tool: &str,
    version: &str,
    filter: &F,
    hooks: &mut H,
    document: Document,
) -> Result<(Document, Option<H::Process>, Exit), Failed> {
    let failed = |document: &Document, error| Failed::new(document.clone(), Stage::Apply, error);
    let scope = filter.common().scope().map_err(|error| failed(&document, error))?;
    if filter.is_rehearsed() {
        rehearse(tool, version, filter, &scope, &document)
            .map_err(|error| Failed::new(document.clone(), Stage::Plan, error))?;
    }
    filter.before(&scope, &document).map_err(|error| failed(&document, error))?;
    let done = attempt(tool, version, filter, hooks, &scope, document);
    let after = match &done {
        Ok((document, _)) => filter.after(&scope, document),
        Err(failed) => filter.after(&scope, &failed.document),
    };
    let exit = match after {
        Ok(()) => Exit::Done,
        Err(error) => {
            failure::print(tool, &error);
            Exit::Failed
        }
    };
    done.map(|(document, process)| (document, process, exit))
}

/// Looks whether the job would be refused: plans it, and drops the plan. The locks are free again when this returns.
fn rehearse<F: Filter>(
    tool: &str,
    version: &str,
    filter: &F,
    scope: &Scope,
    document: &Document,
) -> anyhow::Result<()> {
    let common = filter.common();
    let session = Session::open(tool, version, scope, document.clone(), common.id.as_ref())?;
    let plan = session::lock(scope, F::LOCK).and_then(|_lock| {
        let context = common.context_in(scope.clone(), Some(session.id()));
        filter.plan(&context, session.document())
    });
    session.give_up();
    plan.map(drop)
}

/// Does the job, or nothing. All locks are released when this returns.
fn attempt<F: Filter, H: Hooks<F>>(
    tool: &str,
    version: &str,
    filter: &F,
    hooks: &mut H,
    scope: &Scope,
    document: Document,
) -> Result<(Document, Option<H::Process>), Failed> {
    let common = filter.common();
    let session = Session::open(tool, version, scope, document.clone(), common.id.as_ref())
        .map_err(|error| Failed::new(document, Stage::Record, error))?;

    // Always take the tool's lock after the record's lock, as --undo does.
    let prepared = session::lock(scope, F::LOCK).and_then(|lock| {
        F::restore(scope)?;
        let context = common.context_in(scope.clone(), Some(session.id()));
        let mut plan = filter.plan(&context, session.document())?;
        interrupt::block()?;
        hooks.prepare(&mut plan)?;
        Ok((lock, plan))
    });
    let (_lock, Plan { adds, operations }) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Err(Failed::new(session.give_up(), Stage::Plan, error)),
    };
    let mut attempt = Attempt { tool, scope, session, operations };
    let applied = attempt.operations.len().saturating_sub(usize::from(H::LAUNCHES));
    if (applied > 0 || !H::LAUNCHES)
        && let Err(error) = attempt.session.begin(&attempt.operations)
    {
        return Err(attempt.give_up(Vec::new(), Stage::Record, error));
    }
    if let Err((error, left)) = apply_all(&mut attempt.operations[..applied], scope) {
        return Err(attempt.give_up(left, Stage::Apply, error.into()));
    }
    match conclude(&mut attempt, filter, hooks, adds, applied) {
        Ok(process) => Ok((attempt.session.into_document(), process)),
        Err((stage, error)) => Err(attempt.take_back(stage, error)),
    }
}

/// Concludes the job after all operations are applied, except one that is to be launched.
fn conclude<F: Filter, H: Hooks<F>>(
    attempt: &mut Attempt<F::Operation>,
    filter: &F,
    hooks: &mut H,
    adds: F::Adds,
    applied: usize,
) -> Result<Option<H::Process>, (Stage, anyhow::Error)> {
    let Attempt { scope, session, operations, .. } = attempt;
    let document = session.document();
    let launched =
        operations[applied..].first_mut().map(|operation| hooks.launch(scope, document, operation));
    let mut process = launched.transpose().map_err(|error| (Stage::Apply, error))?;
    let recorded =
        filter.finish(session.document(), adds, operations).and_then(|adds| session.done(operations, &adds));
    recorded.map_err(|error| (Stage::Record, error))?;
    if let Some(process) = &mut process {
        hooks.release(process).map_err(|error| (Stage::Apply, error))?;
    }
    hooks.write(session.document()).map_err(|error| (Stage::Write, error))?;
    Ok(process)
}

/// `--undo`, with what comes before and after it.
fn undo<F: Filter>(
    tool: &str,
    common: &Common,
    filter: Option<&F>,
    document: &mut Document,
) -> anyhow::Result<()> {
    let scope = common.scope()?;
    let acting = match filter {
        Some(filter) if filter.is_rehearsed() => {
            undo::is_possible::<F>(tool, &scope, document)?.then_some(filter)
        }
        filter => filter,
    };
    acting.map_or(Ok(()), |filter| filter.before(&scope, document))?;
    let undone = undo::run::<F>(tool, common, &scope, filter, document);
    let after = acting.map_or(Ok(()), |filter| filter.after(&scope, document));
    undone.and(after)
}

fn aside<F: Filter>(tool: &str, common: &Common, arguments: &[OsString]) -> Exit {
    if common.schema || common.generate.is_some() {
        return schema::print::<F>((tool, Kind::Filter), common, F::READS, F::Adds::MEMBERS);
    }
    let filter = arguments::beside::<F>(Kind::Filter, arguments);
    let named = filter.as_ref().map_or(Ok(None), F::named);
    let input = match named.and_then(|container| Input::named(container.as_ref(), common)) {
        Ok(input) => input,
        Err(error) => return fail(tool, Document::new(), Stage::Arguments, &error, output::<F>(common)),
    };
    let mut document = match input.read() {
        Ok(document) => document,
        Err(unread) => return unread.fail(tool, output::<F>(common)),
    };
    let planned = document.is_planned().unwrap_or_default();
    let (stage, result) = match common.undo {
        true if planned => (Stage::Undo, plan::undo(tool, &mut document)),
        true => (Stage::Undo, undo(tool, common, filter.as_ref(), &mut document)),
        false if document.has_failed() => {
            to_output(&document);
            return Exit::Upstream;
        }
        false if planned => {
            (Stage::Check, Err(anyhow::anyhow!("the document is planned: nothing of it exists")))
        }
        false => (Stage::Check, check::run::<F>(tool, common, &mut document)),
    };
    match result {
        Ok(()) if is_shown::<F>(common) => Exit::Done,
        Ok(()) => {
            let exit = written(tool, &document);
            close_output();
            exit
        }
        Err(error) => fail(tool, document, stage, &error, output::<F>(common)),
    }
}

/// Whether the tool writes no document, because standard output is a terminal.
fn is_shown<F: Filter>(common: &Common) -> bool {
    F::SHOWN.is_some() && shows(common)
}

/// Where the document of a failure goes.
fn output<F: Filter>(common: &Common) -> fn(&Document) {
    if is_shown::<F>(common) { |_| () } else { to_output }
}
