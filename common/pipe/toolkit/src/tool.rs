//! What a tool is: one of five traits, implemented by the type of its arguments. [`crate::run`] runs it.

use document::{Contribution, Document, Id, Member, Step};
use operation::{Operation, Scope};
use serde_json::Value;

use crate::{Common, Context};

/// A tool in mid-pipe: reads the document, makes something and adds its member.
pub trait Filter: clap::Parser {
    /// What each of its steps adds to members of the document: each is the sum of what all steps add to it.
    type Adds: Contribution;
    /// Its operations.
    type Operation: Operation;
    /// The name of a lock below `$STAVE_RUN/locks`. It is held from before [`Filter::plan`] until the record is
    /// written, and by `--undo`. For tools whose plan depends on things that others may be changing.
    const LOCK: Option<&'static str> = None;
    /// The names of the members that it reads.
    const READS: &'static [&'static str] = &[];

    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// Looks at the document and the system, and decides; changes nothing.
    ///
    /// # Errors
    /// Whatever makes the job impossible; the document leaves with it, unchanged otherwise.
    fn plan(&self, context: &Context, document: &Document) -> anyhow::Result<Plan<Self>>;

    /// Puts back what all containers share and somebody else took away. Runs under the lock, before a plan that is carried
    /// out and before `--repair`; does nothing where nothing is missing.
    ///
    /// # Errors
    /// When it cannot be put back.
    fn restore(scope: &Scope) -> anyhow::Result<()> {
        let _ = scope;
        Ok(())
    }

    /// What the step adds once the operations are applied, for facts that only the kernel decides.
    ///
    /// # Errors
    /// Everything is undone then.
    fn finish(
        &self,
        document: &Document,
        adds: Self::Adds,
        operations: &[Self::Operation],
    ) -> anyhow::Result<Self::Adds> {
        let _ = (document, operations);
        Ok(adds)
    }

    /// Whether `--undo` with these arguments is about this step; about each, unless the tool says otherwise.
    fn is_meant(&self, step: &Step) -> bool {
        let _ = step;
        true
    }

    /// Refuses to undo a step on which other steps of its container rely, by the container's record.
    ///
    /// # Errors
    /// What relies on it. The step stays as it is then.
    fn refuse_undo(recorded: &Document, step: &Step) -> anyhow::Result<()> {
        let _ = (recorded, step);
        Ok(())
    }

    /// Takes what it added out of a document, after its last step was undone, where the steps do not tell what that is:
    /// those of before version 0.2, and one that did not come to be done.
    ///
    /// # Errors
    /// When a member that it shares with another tool cannot be read.
    fn forget(document: &mut Document) -> anyhow::Result<()> {
        Self::Adds::MEMBERS.iter().for_each(|member| document.remove(member));
        Ok(())
    }

    /// Undoes what it can of a step of a container that has no record, as after a restart of the machine: at most what lies
    /// below `$STAVE_ROOT/containers/<id>`, whatever the document says.
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

/// A tool at the head of a pipe: it makes an image and starts the document.
pub trait Source: clap::Parser {
    /// What it puts into the document.
    type Member: Member;

    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// Does the job. The result belongs to the store and not to a container, so undo does not remove it.
    ///
    /// # Errors
    /// Whatever makes the job impossible; the store does not change then.
    fn make(&self, context: &Context) -> anyhow::Result<Self::Member>;

    /// The document of a job that failed, without its `error`: what a person needs to look into it. By default there is nothing.
    fn left(&self) -> Document {
        Document::new()
    }

    /// Takes back what is in a document of [`Source::left`] that could not be written.
    fn unwritten(&self, _context: &Context, _document: &Document) {}

    /// What [`Source::make`] would do, one line each.
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn explain(&self, context: &Context) -> anyhow::Result<Vec<String>>;

    /// The lines of `--dry-run`, where these say more than [`Source::explain`].
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn rehearse(&self, context: &Context) -> anyhow::Result<Vec<String>> {
        self.explain(context)
    }

    /// What a terminal shows instead of the document.
    fn shown(&self, member: &Self::Member) -> Option<String> {
        let _ = member;
        None
    }

    /// What is wrong with the input, where the user asks for that only; none where he does not. Nothing is made then, and no document
    /// written. Lines mean failure.
    ///
    /// # Errors
    /// Whatever keeps it from being looked at.
    fn check(&self, _context: &Context) -> Option<anyhow::Result<Vec<String>>> {
        None
    }
}

/// A tool of the store (`img-ls`, `img-tag`): prints one JSON value.
pub trait Report: clap::Parser {
    /// Whether [`Report::report`] itself heeds `--dry-run`.
    const PLANS: bool = false;

    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// Does the job.
    ///
    /// # Errors
    /// Whatever makes it impossible; the store does not change then.
    fn report(&self, context: &Context) -> anyhow::Result<Value>;

    /// What [`Report::report`] would change, one line each; none if it changes nothing.
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn explain(&self, context: &Context) -> anyhow::Result<Vec<String>>;

    /// What is wrong by this report, where it is one of faults: it is told after the report was printed, and the tool fails.
    ///
    /// # Errors
    /// What is wrong.
    fn verdict(&self, report: &Value) -> anyhow::Result<()> {
        let _ = report;
        Ok(())
    }

    /// The exit status after [`Report::report`] has succeeded, for a tool that runs something: that of what it ran.
    fn status(&self, report: &Value) -> u8 {
        let _ = report;
        0
    }

    /// The text to print instead of JSON, if the arguments ask for it (`--table`).
    fn text(&self, report: &Value) -> Option<String> {
        let _ = report;
        None
    }

    /// What a terminal shows instead of JSON. Without a line where [`Report::report`] has told everything on standard error.
    fn shown(&self, report: &Value) -> Option<String> {
        let _ = report;
        None
    }
}

/// A tool that makes something of a container that outlives it (img-commit). It takes the container from the document,
/// or by its id from the record, and sets the document's member. It pushes no step, because nothing of the container
/// could be undone, and leaves the record as it is.
pub trait Export: clap::Parser {
    /// What it puts into the document.
    type Member: Member;
    /// The names of the members that it reads.
    const READS: &'static [&'static str] = &[];

    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// The container that the arguments name; none if its document is on standard input.
    fn container(&self) -> Option<&Id>;

    /// Does the job.
    ///
    /// # Errors
    /// Whatever made the job impossible; the document leaves with it, unchanged otherwise.
    fn make(&self, context: &Context, document: &Document) -> anyhow::Result<Self::Member>;

    /// What [`Export::make`] would do, one line each.
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn explain(&self, context: &Context, document: &Document) -> anyhow::Result<Vec<String>>;
}

/// A tool that goes over the steps of complete documents, including failed ones: unwind.
pub trait Walker: clap::Parser {
    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// The documents that the arguments name; none if the document is on standard input.
    ///
    /// # Errors
    /// When one of them cannot be read.
    fn documents(&self) -> anyhow::Result<Option<Vec<Document>>>;

    /// Works on one of them. Returns the errors after everything was attempted. `error` is set in the document if a
    /// called tool has reported one.
    ///
    /// # Errors
    /// When nothing could be attempted.
    fn walk(&self, document: &mut Document) -> anyhow::Result<Vec<anyhow::Error>>;

    /// What a terminal shows instead of a document that was worked on.
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
