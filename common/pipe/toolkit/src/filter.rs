//! A tool that reads the document, makes something and adds its member.

use std::{ffi::OsString, fmt, io, io::IsTerminal, process::ExitCode};

use anyhow::anyhow;
use document::{Document, Error, Id, Member, record::Lock};
use operation::{Operation, Scope, apply_all, interrupt, undo_all};

use crate::{
    Common, Context, Exit, Session, Stage,
    arguments::{self, Asked, Invocation},
    check, failure, hint, schema,
    streams::{close_output, explained, read_document, write_document},
    undo,
};

/// A tool in mid-pipe. The type is the tool's arguments.
pub trait Filter: clap::Parser {
    /// What it puts into the document.
    type Member: Member;
    /// What it does.
    type Operation: Operation;
    /// A lock of its own below `$STAVE_RUN/locks`, held from before [`Filter::plan`] until the record is written, and by
    /// `--undo`: for tools that decide upon what others may be changing.
    const LOCK: Option<&'static str> = None;
    /// The names of the members that it reads.
    const READS: &'static [&'static str] = &[];

    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// Looks, decides, changes nothing.
    ///
    /// # Errors
    /// Whatever makes the job impossible; the document leaves with it, unchanged otherwise.
    fn plan(&self, context: &Context, document: &Document) -> anyhow::Result<Plan<Self>>;

    /// The member once the operations are applied, for facts that only the kernel decides.
    ///
    /// # Errors
    /// Everything is taken back then.
    fn finish(&self, member: Self::Member, operations: &[Self::Operation]) -> anyhow::Result<Self::Member> {
        let _ = operations;
        Ok(member)
    }

    /// What a person can do about an error of its operations, applied or repaired: the line `hint:`.
    fn advise(error: &anyhow::Error) -> Option<String> {
        let _ = error;
        None
    }

    /// Takes its member out of a document, after its last step was undone.
    ///
    /// # Errors
    /// When a member that it shares with another tool cannot be read.
    fn forget(document: &mut Document) -> anyhow::Result<()> {
        document.remove(Self::Member::NAME);
        Ok(())
    }
}

/// What a [`Filter`] decided.
#[derive(Debug)]
pub struct Plan<F: Filter> {
    /// What the document will hold.
    pub member: F::Member,
    /// What will be done, in this order.
    pub operations: Vec<F::Operation>,
}

/// The whole `main` of a filter.
pub fn filter<F: Filter>() -> ExitCode {
    run::<F>(std::env::args_os()).into()
}

fn run<F: Filter>(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let Invocation { tool, version, asked } = arguments::parse::<F>(arguments.iter().cloned());
    match asked {
        Asked::Job(filter) => job(&tool, &version, &filter),
        Asked::Aside(common) => aside::<F>(&tool, &common),
        Asked::Usage(error) => {
            usage(&tool, &error, !arguments.iter().any(|a| a == "-n" || a == "--null-input"))
        }
    }
}

fn job<F: Filter>(tool: &str, version: &str, filter: &F) -> Exit {
    let common = filter.common();
    let document = match input(tool, common, FROM_TOOL) {
        Ok(document) => document,
        Err(exit) => return exit,
    };
    if document.has_failed() {
        return pass_on(&document, Exit::Upstream);
    }
    if common.explain {
        return explain(tool, filter, &document);
    }
    match attempt(tool, version, filter, document) {
        Ok(()) => Exit::Done,
        Err(Failed { document, stage, error }) => fail(tool, *document, stage, &error),
    }
}

/// The document as it is to leave, and why.
struct Failed {
    document: Box<Document>,
    stage: Stage,
    error: anyhow::Error,
}

fn attempt<F: Filter>(tool: &str, version: &str, filter: &F, document: Document) -> Result<(), Failed> {
    let common = filter.common();
    let failed = |document, stage| move |error| Failed { document: Box::new(document), stage, error };
    let scope = common.scope().map_err(failed(document.clone(), Stage::Arguments))?;
    let mut session = Session::open(tool, version, &scope, document.clone(), common.id.as_ref())
        .map_err(failed(document.clone(), Stage::Record))?;

    // The tool's lock is taken after the record's, here and in --undo.
    let prepared = lock::<F>(&scope).and_then(|lock| {
        let context = common.context_in(scope.clone(), Some(session.id()));
        let plan = filter.plan(&context, session.document())?;
        interrupt::block()?;
        Ok((lock, plan))
    });
    let (_lock, Plan { member, mut operations }) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Err(failed(session.give_up(), Stage::Plan)(error)),
    };
    if let Err(error) = session.begin(&operations) {
        let (document, _) = session.abandon(&operations, &[]);
        return Err(failed(document, Stage::Record)(error));
    }
    if let Err((error, left)) = apply_all(&mut operations, &scope) {
        let error = advised::<F>(error);
        return Err(abandon(tool, session, &operations, left, Stage::Apply, error));
    }
    let written = filter
        .finish(member, &operations)
        .and_then(|member| session.done(&operations, &member))
        .map_err(|error| (Stage::Record, error))
        .and_then(|()| {
            let unwritten =
                |error| anyhow::Error::from(error).context("write the document to standard output");
            write_document(session.document()).map_err(|error| (Stage::Write, unwritten(error)))
        });
    match written {
        Ok(()) => Ok(()),
        Err((stage, error)) => {
            let left = undo_all(&operations, &scope);
            Err(abandon(tool, session, &operations, left, stage, error))
        }
    }
}

/// Gives a step up whose operations were undone but for `left`, and says what is left.
fn abandon<O: Operation>(
    tool: &str,
    session: Session,
    operations: &[O],
    left: Vec<(usize, operation::Error)>,
    stage: Stage,
    error: anyhow::Error,
) -> Failed {
    let id = session.id().clone();
    let indices: Vec<usize> = left.iter().map(|(at, _)| *at).collect();
    for (_, error) in left {
        failure::print(tool, &from_boxed(error).context("take back"));
    }
    let (document, restored) = session.abandon(operations, &indices);
    if let Err(error) = restored {
        failure::print(tool, &error);
    }
    let error = match indices.is_empty() {
        true => error,
        false => hint(error, format!("`unwind {id}` tries again to take back what is left")),
    };
    Failed { document: Box::new(document), stage, error }
}

/// The tool's own lock.
pub(crate) fn lock<F: Filter>(scope: &Scope) -> anyhow::Result<Option<Lock>> {
    Ok(F::LOCK.map(|name| Lock::take(&scope.run_dir, name)).transpose()?)
}

/// An operation's error with what a person can do about it.
pub(crate) fn advised<F: Filter>(error: operation::Error) -> anyhow::Error {
    let error = from_boxed(error);
    match F::advise(&error) {
        Some(what) => hint(error, what),
        None => error,
    }
}

/// An operation's error as the toolkit's, with its chain of causes.
pub(crate) fn from_boxed(error: operation::Error) -> anyhow::Error {
    anyhow::Error::new(Boxed(error))
}

/// An operation's error in its box, which is looked for among the causes by its own type. (Behind
/// [`anyhow::Error::from_boxed`] nobody finds it.)
#[derive(Debug)]
struct Boxed(operation::Error);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Boxed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

fn explain<F: Filter>(tool: &str, filter: &F, document: &Document) -> Exit {
    let lines = || -> anyhow::Result<Vec<String>> {
        let drawn = Id::random();
        let id = document.id()?.or(filter.common().id.clone()).unwrap_or(drawn);
        let plan = filter.plan(&filter.common().context(Some(&id))?, document)?;
        Ok(plan.operations.iter().flat_map(Operation::explain).collect())
    };
    explained(tool, lines())
}

fn aside<F: Filter>(tool: &str, common: &Common) -> Exit {
    if common.schema || common.generate.is_some() {
        return schema::print::<F>(tool, common, F::READS, &[F::Member::NAME]);
    }
    let mut document = match input(tool, common, FROM_TOOL) {
        Ok(document) => document,
        Err(exit) => return exit,
    };
    let (stage, result) = match common.undo {
        true => (Stage::Undo, undo::run::<F>(tool, common, &mut document)),
        false if document.has_failed() => return pass_on(&document, Exit::Upstream),
        false => (Stage::Check, check::run::<F>(tool, common, &mut document)),
    };
    match result {
        Ok(()) => match write_document(&document) {
            Ok(()) => {
                close_output();
                Exit::Done
            }
            Err(error) => {
                failure::print(
                    tool,
                    &anyhow::Error::from(error).context("write the document to standard output"),
                );
                Exit::Failed
            }
        },
        Err(error) => fail(tool, document, stage, &error),
    }
}

/// Where a document comes from.
pub(crate) const FROM_TOOL: &str = "stand it behind another tool, or start with -n";

/// Reads the document, or says why there is none, with `hint` about where to get one.
pub(crate) fn input(tool: &str, common: &Common, from: &str) -> Result<Document, Exit> {
    if common.null_input {
        return Ok(Document::new());
    }
    if io::stdin().is_terminal() {
        let error = anyhow!("standard input is a terminal, not a document");
        failure::print(tool, &hint(error, from));
        return Err(Exit::Usage);
    }
    read_document().map_err(|error| {
        if let Error::Version { document, .. } = &error {
            // Nothing that another version wrote may get lost on the way to whoever can read it.
            let _ = write_document(document);
        }
        failure::print(tool, &error.into());
        Exit::Unreadable
    })
}

/// Says what failed, and passes the document on with it.
pub(crate) fn fail(tool: &str, mut document: Document, stage: Stage, error: &anyhow::Error) -> Exit {
    failure::print(tool, error);
    if document.set(&failure::member(tool, &stage.to_string(), error)).is_ok() && stage != Stage::Write {
        let _ = write_document(&document);
    }
    Exit::Failed
}

pub(crate) fn pass_on(document: &Document, exit: Exit) -> Exit {
    let _ = write_document(document);
    exit
}

/// Wrong usage, `--help` or `--version`. In mid-pipe the document is passed on with the error.
pub(crate) fn usage(tool: &str, error: &clap::Error, reads: bool) -> Exit {
    if !error.use_stderr() {
        let _ = error.print();
        return Exit::Done;
    }
    let error = usage_error(tool, error);
    if reads && !io::stdin().is_terminal() {
        match read_document() {
            Ok(document) if document.has_failed() => {
                failure::print(tool, &error);
                return pass_on(&document, Exit::Usage);
            }
            Ok(document) => {
                fail(tool, document, Stage::Arguments, &error);
                return Exit::Usage;
            }
            Err(Error::Version { document, .. }) => {
                let _ = write_document(&document);
            }
            Err(_) => {}
        }
    }
    failure::print(tool, &error);
    Exit::Usage
}

/// clap's words in one line, without what it appends of usage and tips.
pub fn usage_error(tool: &str, error: &clap::Error) -> anyhow::Error {
    let text = error.to_string();
    let told = text.split("\n\nUsage:").next().unwrap_or_default();
    let told = told.strip_prefix("error: ").unwrap_or(told).split("\n\n").next().unwrap_or_default();
    hint(
        anyhow!("{}", told.split_whitespace().collect::<Vec<_>>().join(" ")),
        format!("`{tool} --help` lists the arguments"),
    )
}
