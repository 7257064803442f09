//! The five kinds of tools. A tool implements one of these traits for the type of its arguments, and
//! [`crate::run`] runs it.

use document::{Contribution, Document, Id, Member, Step};
use operation::{Operation, Scope};
use serde_json::Value;

use crate::{Common, Context, Named, rows};

/// A tool in the middle of a pipe. It reads the document, makes something, and adds to members of the
/// document.
pub trait Filter: clap::Parser {
    /// What a step adds to members. A member is the sum of what all steps add to it.
    type Adds: Contribution;
    /// The operations of the tool.
    type Operation: Operation;
    /// The name of the tool's lock, below `$STAVE_RUN/locks`, for a tool whose plan depends on things that
    /// other tools may change. The lock is held from before [`Filter::plan`] until the record is written, and
    /// by `--undo`.
    const LOCK: Option<&'static str> = None;
    /// The names of the members that the tool reads.
    const READS: &'static [&'static str] = &[];
    /// Whether it starts a new document: for its job it reads none.
    const STARTS: bool = false;
    /// What the tool prints on a terminal instead of the document, for a tool that people start alone. It prints
    /// nothing there after `--undo`.
    const SHOWN: Option<fn(&Document) -> String> = None;

    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// The container that the arguments name: its record is the document then. None if the document is on standard input.
    fn container(&self) -> Option<&Id> {
        None
    }

    /// The container that `--undo`, `--check` and `--repair` are for, where the arguments name it in another way than
    /// the tool's job does. By default [`Filter::container`].
    ///
    /// # Errors
    /// When the arguments name no container that there is.
    fn named(&self) -> anyhow::Result<Option<Id>> {
        Ok(self.container().cloned())
    }

    /// Looks at the document and the system, and decides; changes nothing.
    ///
    /// # Errors
    /// Whatever makes the job impossible. The document leaves with this error and is otherwise unchanged.
    fn plan(&self, context: &Context, document: &Document) -> anyhow::Result<Plan<Self>>;

    /// Whether [`Filter::before`] does what cannot be taken back. Then [`Filter::plan`] or [`Filter::refuse_undo`] is asked once before
    /// it, so that it is not done for a job that is refused.
    fn is_rehearsed(&self) -> bool {
        false
    }

    /// What comes before the record is locked, because others write to it meanwhile. Not called where nothing is to be done.
    ///
    /// # Errors
    /// Whatever makes the job impossible.
    fn before(&self, scope: &Scope, document: &Document) -> anyhow::Result<()> {
        let _ = (scope, document);
        Ok(())
    }

    /// What comes after the record is free again, whether the job was done or not. Called once [`Filter::before`] was.
    ///
    /// # Errors
    /// They are told; what the tool has made stays.
    fn after(&self, scope: &Scope, document: &Document) -> anyhow::Result<()> {
        let _ = (scope, document);
        Ok(())
    }

    /// Puts into the operations of a step what other steps of the same document say, and which is not written twice. Runs before
    /// they are undone, checked or repaired.
    ///
    /// # Errors
    /// When the document cannot be read.
    fn complete(document: &Document, operations: &mut [Value]) -> anyhow::Result<()> {
        let _ = (document, operations);
        Ok(())
    }

    /// Puts back what all containers share and somebody else took away. Runs under the lock, before a plan that is carried
    /// out and before `--repair`; does nothing where nothing is missing.
    ///
    /// # Errors
    /// When something cannot be restored.
    fn restore(scope: &Scope) -> anyhow::Result<()> {
        let _ = scope;
        Ok(())
    }

    /// Completes what the step adds, after the operations were applied: facts that only the kernel decides.
    ///
    /// # Errors
    /// After any error, everything is undone.
    fn finish(
        &self,
        document: &Document,
        adds: Self::Adds,
        operations: &[Self::Operation],
    ) -> anyhow::Result<Self::Adds> {
        let _ = (document, operations);
        Ok(adds)
    }

    /// Whether `--undo` with these arguments applies to this step. By default it applies to each step.
    fn is_meant(&self, step: &Step) -> bool {
        let _ = step;
        true
    }

    /// Refuses to undo a step if other steps of its container depend on it. `recorded` is the container's
    /// record.
    ///
    /// # Errors
    /// What relies on it. The step stays as it is then.
    fn refuse_undo(scope: &Scope, recorded: &Document, step: &Step) -> anyhow::Result<()> {
        let _ = (scope, recorded, step);
        Ok(())
    }

    /// Removes from a document what the tool adds, after the tool's last step was undone. Needed for steps
    /// that do not say what they add: steps of versions before 0.2, and steps that were never done.
    ///
    /// # Errors
    /// When a member that the tool shares with another tool cannot be read.
    fn forget(document: &mut Document) -> anyhow::Result<()> {
        Self::Adds::MEMBERS.iter().for_each(|member| document.remove(member));
        Ok(())
    }

    /// Undoes a step as far as possible for a container without a record, for example after a restart of the
    /// machine. Must not touch anything outside `$STAVE_ROOT/containers/<id>`, whatever the document says.
    ///
    /// # Errors
    /// When something there cannot be removed.
    fn undo_unrecorded(scope: &Scope, id: &Id) -> anyhow::Result<()> {
        let _ = (scope, id);
        Ok(())
    }
}

/// The plan of a [`Filter`].
#[derive(Debug)]
pub struct Plan<F: Filter> {
    /// What the step adds to the document.
    pub adds: F::Adds,
    /// The operations, in order.
    pub operations: Vec<F::Operation>,
}

/// A tool at the start of a pipe. It makes an image and starts the document.
pub trait Source: clap::Parser {
    /// The member that the tool puts into the document.
    type Member: Member;

    /// The hint for `--check` without a document, if users of other programs expect something else of it.
    const CHECK_HINT: Option<&'static str> = None;

    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// Does the job. The result belongs to the store and not to a container, so undo does not remove it.
    ///
    /// # Errors
    /// Whatever makes the job impossible. The store does not change then.
    fn make(&self, context: &Context) -> anyhow::Result<Self::Member>;

    /// The document of a job that failed, without `error`: what a person needs to look into the failure.
    /// Empty by default.
    fn left(&self) -> Document {
        Document::new()
    }

    /// Takes back what [`Source::left`] put into a document, when the document could not be written.
    fn unwritten(&self, _context: &Context, _document: &Document) {}

    /// What [`Source::make`] would do, one line each.
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn explain(&self, context: &Context) -> anyhow::Result<Vec<String>>;

    /// The lines of `--dry-run`. By default those of [`Source::explain`].
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn rehearse(&self, context: &Context) -> anyhow::Result<Vec<String>> {
        self.explain(context)
    }

    /// The text of `--format`, if that was given. It is printed rather than the document.
    ///
    /// # Errors
    /// When the format does not fit.
    fn formatted(&self, context: &Context, member: &Self::Member) -> anyhow::Result<Option<String>> {
        let _ = (context, member);
        Ok(None)
    }

    /// What the tool prints on a terminal instead of the document. `None` for the document.
    fn shown(&self, member: &Self::Member) -> Option<String> {
        let _ = member;
        None
    }

    /// Only checks the input, if the arguments ask for that; `None` if they do not. Returns what is wrong, one
    /// line each. Any line means failure. Nothing is made then, and no document is written.
    ///
    /// # Errors
    /// Whatever prevents the check.
    fn check(&self, _context: &Context) -> Option<anyhow::Result<Vec<String>>> {
        None
    }
}

/// A tool of the store (`img-ls`, `img-tag`). It prints one JSON value.
pub trait Report: clap::Parser {
    /// Whether [`Report::report`] handles `--dry-run` itself.
    const PLANS: bool = false;

    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// Does the job.
    ///
    /// # Errors
    /// Whatever makes the job impossible. The store does not change then.
    fn report(&self, context: &Context) -> anyhow::Result<Value>;

    /// What [`Report::report`] would change, one line each. Empty if it changes nothing.
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn explain(&self, context: &Context) -> anyhow::Result<Vec<String>>;

    /// Fails if the report is about faults and has found some. Called after the report was printed.
    ///
    /// # Errors
    /// What is wrong.
    fn verdict(&self, report: &Value) -> anyhow::Result<()> {
        let _ = report;
        Ok(())
    }

    /// The exit status after [`Report::report`] succeeded. A tool that runs a command returns the status of
    /// the command.
    fn status(&self, report: &Value) -> u8 {
        let _ = report;
        0
    }

    /// The text to print instead of JSON, if the arguments ask for it (`--table`).
    fn text(&self, report: &Value) -> Option<String> {
        let _ = report;
        None
    }

    /// The text of `--format`, if that was given. It is printed rather than [`Report::text`].
    ///
    /// # Errors
    /// When the format does not fit the report.
    fn formatted(&self, report: &Value) -> anyhow::Result<Option<String>> {
        let _ = report;
        Ok(None)
    }

    /// What the tool prints on a terminal instead of JSON. Empty if [`Report::report`] has printed everything
    /// on standard error.
    fn shown(&self, report: &Value) -> Option<String> {
        let _ = report;
        None
    }
}

/// A [`Report`] about containers that the arguments name: a row for each, also after an error with another one.
/// `--format` prints a line for each.
pub trait Each: clap::Parser {
    /// What a terminal shows of a row.
    const SHOWN: &'static str = "{name}";

    /// The containers, and the arguments that every tool takes.
    fn named(&self) -> &Named;

    /// Refuses arguments that make the job impossible for all containers. Called once, before it is done for
    /// the first of them.
    ///
    /// # Errors
    /// What is wrong with the arguments.
    fn refuse(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Does the job for one container. Returns its row, which has the member `id`.
    ///
    /// # Errors
    /// Whatever makes the job impossible for this one.
    fn one(&self, context: &Context, id: &Id) -> anyhow::Result<Value>;

    /// What [`Each::one`] would change for all of them, one line each. Empty if it changes nothing.
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn explain(&self, context: &Context) -> anyhow::Result<Vec<String>>;
}

impl<T: Each> Report for T {
    fn common(&self) -> &Common {
        &self.named().common
    }

    fn report(&self, context: &Context) -> anyhow::Result<Value> {
        self.refuse()?;
        let one = |id: &Id| rows::called(&context.scope, id, || self.one(context, id));
        Ok(rows::each(Self::command().get_name(), &self.named().ids, one))
    }

    fn explain(&self, context: &Context) -> anyhow::Result<Vec<String>> {
        Each::explain(self, context)
    }

    fn verdict(&self, report: &Value) -> anyhow::Result<()> {
        rows::verdict(report)
    }

    fn text(&self, report: &Value) -> Option<String> {
        self.named().format.as_deref().map(|format| rows::lines(format, report))
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(rows::lines(Self::SHOWN, report))
    }
}

/// A tool that makes something of a container that outlives the container (img-commit). It takes the
/// container from the document, or by its id from the record, and sets its member in the document. It pushes
/// no step, because there is nothing to undo in the container, and does not change the record.
pub trait Export: clap::Parser {
    /// The member that the tool puts into the document.
    type Member: Member;
    /// The names of the members that the tool reads.
    const READS: &'static [&'static str] = &[];

    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// The container that the arguments name. `None` if its document is on standard input.
    fn container(&self) -> Option<&Id>;

    /// Does the job.
    ///
    /// # Errors
    /// Whatever makes the job impossible. The document leaves with this error and is otherwise unchanged.
    fn make(&self, context: &Context, document: &Document) -> anyhow::Result<Self::Member>;

    /// What [`Export::make`] would do, one line each.
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn explain(&self, context: &Context, document: &Document) -> anyhow::Result<Vec<String>>;
}

/// A tool that goes over the steps of whole documents, also of failed ones: unwind.
pub trait Walker: clap::Parser {
    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// The documents that the arguments name. `None` if the document is on standard input.
    ///
    /// # Errors
    /// When a document cannot be read.
    fn documents(&self) -> anyhow::Result<Option<Vec<Document>>>;

    /// Works on one document. Attempts everything, and then returns all errors. Sets `error` in the document
    /// if a called tool has reported one.
    ///
    /// # Errors
    /// When nothing could be attempted.
    fn walk(&self, document: &mut Document) -> anyhow::Result<Vec<anyhow::Error>>;

    /// What the tool prints on a terminal instead of the document. `None` for the document.
    fn shown(&self, document: &Document) -> Option<String> {
        let _ = document;
        None
    }

    /// What [`Walker::walk`] would do, one line each.
    ///
    /// # Errors
    /// When nothing could be attempted.
    fn explain(&self, document: &Document) -> anyhow::Result<Vec<String>>;
}
