//! Steps of other makers' tools, in any language. `step-begin` and `step-done` keep document and record for
//! them.

use std::process::ExitCode;

use anyhow::{Result, bail};
use document::{Document, Step, StepState, members::Planned, table};
use operation::{Condition, Error, Operation, Scope};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{fail, plan, to_output, undo::Undo, usage, written};
use crate::{
    Common, Exit, Session, Stage,
    arguments::{Asked, Invocation},
    input::{self, FROM_TOOL, Input},
    kind::Kind,
    schema, session,
    streams::explained,
};

/// A tool that keeps the record of another tool's step. The type is the arguments.
pub trait Marker: clap::Parser {
    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// The name of the tool that the step belongs to.
    fn of(&self) -> &str;

    /// Writes the step into the record and the document.
    ///
    /// # Errors
    /// When the record cannot be written. It is unchanged then.
    fn mark(&self, scope: &Scope, document: Document) -> Result<Document>;
}

/// An operation of another maker's tool. Only that tool can apply and undo it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct Foreign(Value);

impl Operation for Foreign {
    fn explain(&self) -> Vec<String> {
        vec![self.0.to_string()]
    }
    fn apply(&mut self, _: &Scope) -> Result<(), Error> {
        Ok(())
    }
    fn undo(&self, _: &Scope) -> Result<(), Error> {
        Ok(())
    }
    fn check(&self, _: &Scope) -> Result<Condition, Error> {
        Ok(Condition::Present)
    }
}

/// Pushes the step of `tool` as begun, and writes the record. From now on `unwind` finds what the tool is
/// about to make.
///
/// # Errors
/// When `tool` is a tool of Stave or not the name of a program; when the document is not the container's, or
/// the record cannot be written.
pub fn begin_step(
    tool: &str,
    version: &str,
    operations: Vec<Value>,
    (scope, common): (&Scope, &Common),
    document: Document,
) -> Result<Document> {
    if tool.is_empty() || tool.contains('/') || tool.starts_with('.') {
        bail!("{tool:?} is not the name of a program: `unwind --with DIR` looks for DIR/NAME");
    }
    if table::tools().any(|own| own == tool) {
        bail!("{tool:?} is a tool of Stave: it writes its own steps");
    }
    let operations: Vec<_> = operations.into_iter().map(Foreign).collect();
    if is_plan(common, &document)? {
        let (_, mut document) = session::foreseen(scope, &document, common.id.as_ref())?;
        document.set(&Planned(true))?;
        if !common.explain {
            let lines = operations.iter().flat_map(Operation::explain);
            plan::print(common, &lines.map(|line| format!("{tool}: {line}")).collect::<Vec<_>>());
        }
        document.push_step(&Step::new(tool, version, StepState::Begun, operations))?;
        return Ok(document);
    }
    let mut session = Session::open(tool, version, scope, document, common.id.as_ref())?;
    match session.begin(&operations) {
        Ok(()) => Ok(session.into_document()),
        Err(error) => {
            let _ = session.abandon(&operations, &[]);
            Err(error)
        }
    }
}

/// Marks the begun step of `tool` as done, with what it adds to members, and writes the record. `operations`,
/// if given, replace those that the step began with.
///
/// # Errors
/// When no such step is begun, or the record cannot be written.
pub fn finish_step(
    tool: &str,
    operations: Option<Vec<Value>>,
    adds: Map<String, Value>,
    (scope, common): (&Scope, &Common),
    document: Document,
) -> Result<Document> {
    if let Some(name) = adds.keys().find(|name| table::is_of_contract(name)) {
        bail!("member {name:?} belongs to the contract: no step adds to it");
    }
    if is_plan(common, &document)? {
        let (_, mut document) = session::foreseen(scope, &document, common.id.as_ref())?;
        let (at, step) = session::begun(&document, tool)?;
        document.set(&Planned(true))?;
        let operations = operations.unwrap_or(step.operations);
        let step = Step { state: StepState::Done, operations, adds: adds.clone(), ..step };
        document.replace_step(at, &step)?;
        for (name, added) in &adds {
            document.add(name, added)?;
        }
        return Ok(document);
    }
    let mut session = Session::open(tool, "", scope, document, common.id.as_ref())?;
    let done = session.resume().and_then(|step| {
        let operations = operations.unwrap_or(step.operations);
        session.done_with(&operations.into_iter().map(Foreign).collect::<Vec<_>>(), adds)
    });
    match done {
        Ok(()) => Ok(session.into_document()),
        Err(error) => {
            session.give_up();
            Err(error)
        }
    }
}

/// Whether the record stays as it is, because the step is only planned or explained.
fn is_plan(common: &Common, document: &Document) -> Result<bool> {
    Ok(common.dry_run || common.explain || document.is_planned()?)
}

/// The whole `main` of a [`Marker`].
pub fn marker<M: Marker>() -> ExitCode {
    run::<M>().into()
}

fn run<M: Marker>() -> Exit {
    let Invocation { tool, arguments, asked, .. } = Invocation::<M>::parse();
    let (marker, is_undo) = match asked {
        Asked::Job(marker) => (marker, false),
        Asked::Aside(common) if common.schema || common.generate.is_some() => {
            return schema::print::<M>((&tool, Kind::Filter), &common, &[], &["steps"]);
        }
        Asked::Aside(_) => match M::try_parse_from(&arguments) {
            Ok(marker) => (marker, true),
            Err(error) => return usage(&tool, &error, &Input::Standard(FROM_TOOL), to_output),
        },
        Asked::Usage(error) => return usage(&tool, &error, &Input::Standard(FROM_TOOL), to_output),
    };
    let common = marker.common();
    let mut document = match input::read(&tool, common, FROM_TOOL) {
        Ok(document) => document,
        Err(exit) => return exit,
    };
    if is_undo {
        if !common.undo {
            // Only their maker can check the operations.
            return written(&tool, &document);
        }
        let undone = common.scope().and_then(|scope| {
            let undo = Undo {
                tool: marker.of(),
                scope: &scope,
                lock: None,
                is_meant: &|_| true,
                refuse: |_, _, _| Ok(()),
                complete: |_, _| Ok(()),
                forget: &|_| Ok(()),
                unrecorded: |_, _| Ok(()),
            };
            undo.steps::<Foreign>(common.steps, &mut document)
        });
        return match undone {
            Ok(()) => written(&tool, &document),
            Err(error) => fail(&tool, document, Stage::Undo, &error, to_output),
        };
    }
    if document.has_failed() {
        to_output(&document);
        return Exit::Upstream;
    }
    let marked = common.scope().and_then(|scope| marker.mark(&scope, document.clone()));
    if common.explain {
        // Only the other tool knows the commands for its operations.
        return explained(&tool, marked.map(|_| Vec::new()));
    }
    match marked {
        Ok(document) => written(&tool, &document),
        Err(error) => fail(&tool, document, Stage::Record, &error, to_output),
    }
}
