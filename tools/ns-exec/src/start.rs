//! Starting a container's process, and staying with it.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
};

use document::{Document, Error, Id, members::Process};
use oci_spec::runtime::BoxBuilder;
use operation::{Scope, apply_all, interrupt, undo_all};
use runtime::{Foreground, Identity, Running, Started, Stdio, Streams, Supervised, Terminal, foreground};
use toolkit::{Session, Stage, prelude::*, print_error};

use crate::{
    NOT_STARTED,
    arguments::NsExec,
    output::Output,
    plan::{self, ContainerOperation},
    record,
};

const TOOL: &str = "ns-exec";

/// The whole of the tool's job. Returns what it exits with.
pub(crate) fn run(tool: &NsExec) -> u8 {
    let mut output = match Output::open(tool) {
        Ok(output) => output,
        Err(error) => {
            print_error(TOOL, &error);
            return NOT_STARTED;
        }
    };
    let document = match read(tool) {
        Ok(document) => document,
        Err(error) => {
            if let Some(Error::Version { document, .. }) = error.downcast_ref() {
                output.pass_on(document);
            }
            print_error(TOOL, &error);
            return NOT_STARTED;
        }
    };
    if document.has_failed() {
        output.pass_on(&document);
        return NOT_STARTED;
    }
    if tool.common.explain {
        return explain(tool, &document);
    }
    match start(tool, &mut output, document) {
        Ok(status) => status,
        Err(Failed { mut document, stage, error }) => {
            print_error(TOOL, &error);
            if document.set(&toolkit::failure_member(TOOL, &stage.to_string(), &error)).is_ok() {
                output.pass_on(&document);
            }
            status_of(&error)
        }
    }
}

/// What a shell would exit with, where the command itself was the reason.
pub(crate) fn status_of(error: &anyhow::Error) -> u8 {
    let of_command = error.chain().find_map(|cause| cause.downcast_ref::<runtime::Error>());
    of_command.map_or(NOT_STARTED, runtime::Error::status)
}

fn read(tool: &NsExec) -> Result<Document> {
    if let Some(path) = &tool.from {
        let file = File::open(path).with_context(|| format!("open {path:?}"))?;
        return Document::read(file).with_context(|| format!("read {path:?}"));
    }
    if tool.common.null_input {
        return Ok(Document::new());
    }
    if io::stdin().is_terminal() {
        let error = anyhow!("standard input is a terminal, not a document");
        return Err(hint(error, "stand it behind another tool, or use --from, -n or --join"));
    }
    Ok(toolkit::read_document()?)
}

fn explain(tool: &NsExec, document: &Document) -> u8 {
    let lines = || -> Result<String> {
        let id = document.id()?.or(tool.common.id.clone()).unwrap_or_else(Id::random);
        let (_, operations) = plan::plan(tool, &tool.common.context(Some(&id))?, document)?;
        let lines = operations.iter().flat_map(operation::Operation::explain);
        Ok(lines.map(|line| line + "\n").collect())
    };
    match lines() {
        Ok(lines) => {
            // A reader that has seen enough is no failure.
            let _ = io::stdout().lock().write_all(lines.as_bytes());
            0
        }
        Err(error) => {
            print_error(TOOL, &error);
            NOT_STARTED
        }
    }
}

struct Failed {
    document: Document,
    stage: Stage,
    error: anyhow::Error,
}

/// A process that was forked and not released yet.
enum Begun {
    Own(Started),
    Background(Supervised),
}

impl Begun {
    fn identity(&self) -> Identity {
        match self {
            Self::Own(started) => started.identity(),
            Self::Background(supervised) => supervised.identity(),
        }
    }

    /// Lets it execute its command; it is the caller's to wait for, or its supervisor's.
    fn release(self) -> Result<Option<Running>, runtime::Error> {
        let (running, warnings) = match self {
            Self::Own(started) => {
                let mut running = started.release()?;
                let warnings = std::mem::take(&mut running.warnings);
                (Some(running), warnings)
            }
            Self::Background(supervised) => (None, supervised.release()?),
        };
        warnings.iter().for_each(|warning| eprintln!("{TOOL}: warning: {warning}"));
        Ok(running)
    }
}

/// With what a person can do about it, where a read-only root file system has no place for a volume.
fn advised(tool: &NsExec, error: anyhow::Error) -> anyhow::Error {
    let message = error.to_string();
    let refused = |volume: &&mount::Volume| {
        message.ends_with(&format!("on {:?}: Read-only file system", volume.target))
    };
    match tool.volumes.iter().find(refused) {
        Some(mount::Volume { target, .. }) => hint(
            error,
            format!(
                "the root file system is read-only and has no {target:?}: `union-mount -v` makes a place for a volume, and mounts it"
            ),
        ),
        None => error,
    }
}

/// What is decided before anything is made.
struct Prepared {
    terminal: Option<Terminal>,
    /// Held back from now on; with -d there is nobody to pass them on to.
    signals: Option<Foreground>,
    member: Process,
    operations: Vec<ContainerOperation>,
}

fn start(tool: &NsExec, output: &mut Output, document: Document) -> Result<u8, Failed> {
    let before = document.clone();
    let failed = |document, stage| move |error| Failed { document, stage, error };
    let scope = tool.common.scope().map_err(failed(before.clone(), Stage::Arguments))?;
    let mut session =
        Session::open(TOOL, env!("CARGO_PKG_VERSION"), &scope, document, tool.common.id.as_ref())
            .map_err(failed(before, Stage::Record))?;
    let mut prepared = match prepare(tool, &scope, &session) {
        Ok(prepared) => prepared,
        Err(error) => return Err(failed(session.give_up(), Stage::Plan)(error)),
    };
    let files = prepared.operations.len().saturating_sub(1);
    // Files stay. A process ends with its starter until it is released, and is on record before that.
    if files > 0
        && let Err(error) = session.begin(&prepared.operations)
    {
        let (document, _) = session.abandon(&prepared.operations, &[]);
        return Err(failed(document, Stage::Record)(error));
    }
    if let Err((error, left)) = apply_all(&mut prepared.operations[..files], &scope) {
        return Err(take_back(session, &prepared.operations, left, anyhow::Error::from_boxed(error)));
    }
    match launch(tool, output, &scope, &mut session, &mut prepared) {
        Ok(None) => Ok(0),
        Ok(Some(running)) => Ok(stay(output, &scope, session, prepared, running)),
        Err(error) => {
            let left = undo_all(&prepared.operations, &scope);
            Err(take_back(session, &prepared.operations, left, advised(tool, error)))
        }
    }
}

fn prepare(tool: &NsExec, scope: &Scope, session: &Session) -> Result<Prepared> {
    let context = tool.common.context_in(scope.clone(), Some(session.id()));
    let (member, mut operations) = plan::plan(tool, &context, session.document())?;
    let terminal = terminal(tool)?;
    if let (Some((columns, rows)), Some(ContainerOperation::Process(process))) =
        (terminal.as_ref().and_then(Terminal::size), operations.last_mut())
        && let Some(process) = process.spec.process_mut()
    {
        let size = BoxBuilder::default().width(u64::from(columns)).height(u64::from(rows)).build()?;
        process.set_console_size(Some(size));
    }
    interrupt::block()?;
    let signals = if tool.detach { None } else { Some(Foreground::new()?) };
    Ok(Prepared { terminal, signals, member, operations })
}

/// Our side of the command's terminal. What is typed comes by standard input, where that is left to it.
pub(crate) fn terminal(tool: &NsExec) -> Result<Option<Terminal>> {
    let is_document = tool.join.is_none() && tool.from.is_none() && !tool.common.null_input;
    let open = || Terminal::open(tool.interactive && !is_document);
    (tool.tty && !tool.detach).then(open).transpose().map_err(|error| match tool.interactive {
        true => hint(error, "leave -t out, and the command reads from a pipe or a file"),
        false => error.into(),
    })
}

/// Forks the process, writes down which it is, and only then lets it go.
fn launch(
    tool: &NsExec,
    output: &mut Output,
    scope: &Scope,
    session: &mut Session,
    prepared: &mut Prepared,
) -> Result<Option<Running>> {
    let Prepared { member, operations, .. } = prepared;
    let Some(ContainerOperation::Process(process)) = operations.last() else {
        bail!("no process was planned")
    };
    let begun = fork(tool, scope, session.id(), process)?;
    let identity = begun.identity();
    plan::identify(member, operations, identity);
    session.done(operations, member)?;
    if tool.detach {
        interrupt::checked().map_err(anyhow::Error::from_boxed)?;
    }
    let running = begun.release()?;
    output.started(session.document(), identity)?;
    Ok(running)
}

fn fork(tool: &NsExec, scope: &Scope, id: &Id, process: &runtime::ProcessOperation) -> Result<Begun> {
    if tool.detach {
        let log = process.log.as_deref();
        let supervised = runtime::supervise(&process.spec, log, tool.interactive, |identity, status| {
            // Nobody is left to tell.
            let _ = record::end(&scope.run_dir, id, identity, status);
        })?;
        return Ok(Begun::Background(supervised));
    }
    let stdin = if tool.interactive { Stdio::Inherit } else { Stdio::Null };
    let streams = Streams { stdin, stdout: Stdio::Inherit, stderr: Stdio::Inherit };
    Ok(Begun::Own(runtime::start(&process.spec, streams)?))
}

/// Stays until the process ends; returns its exit status.
fn stay(output: &mut Output, scope: &Scope, session: Session, prepared: Prepared, running: Running) -> u8 {
    let Prepared { terminal, signals, mut member, .. } = prepared;
    let identity = running.identity();
    let id = session.id().clone();
    // From here on the record is everybody's again.
    let mut document = session.into_document();
    let status = signals.map_or_else(
        || Err(anyhow!("wait for process {}: no signals are held back", identity.pid)),
        |signals| wait(running, &signals, terminal),
    );
    let status = status.unwrap_or_else(|error| {
        print_error(TOOL, &error);
        i32::from(NOT_STARTED)
    });
    member.exit_status = Some(status);
    let told = document
        .set(&member)
        .map_err(anyhow::Error::from)
        .and_then(|()| record::end(&scope.run_dir, &id, identity, status))
        .and_then(|()| output.ended(&document, status));
    if let Err(error) = told {
        print_error(TOOL, &error);
    }
    u8::try_from(status).unwrap_or(NOT_STARTED)
}

/// Waits for a process in the foreground.
pub(crate) fn wait(running: Running, signals: &Foreground, terminal: Option<Terminal>) -> Result<i32> {
    let raw = terminal.map(Terminal::into_raw).transpose()?;
    Ok(foreground(running, signals, raw.as_ref())?)
}

/// Gives the step up whose operations were taken back but for `left`, and says what is left.
fn take_back(
    session: Session,
    operations: &[ContainerOperation],
    left: Vec<(usize, operation::Error)>,
    error: anyhow::Error,
) -> Failed {
    let id = session.id().clone();
    let indices: Vec<usize> = left.iter().map(|(at, _)| *at).collect();
    for (_, error) in left {
        print_error(TOOL, &anyhow::Error::from_boxed(error).context("take back"));
    }
    let (document, restored) = session.abandon(operations, &indices);
    if let Err(error) = restored {
        print_error(TOOL, &error);
    }
    let error = match indices.is_empty() {
        true => error,
        false => hint(error, format!("`unwind {id}` tries again to take back what is left")),
    };
    Failed { document, stage: Stage::Apply, error }
}
