//! What a tool is: one of five traits, implemented by the type of its arguments. What runs it is in [`crate::run`].

use document::{Contribution, Document, Id, Member};
use operation::Operation;
use serde_json::Value;

use crate::{Common, Context};

/// A tool in mid-pipe: reads the document, makes something and adds its member.
pub trait Filter: clap::Parser {
    /// What each of its steps adds to a member of the document, which is the sum of what all steps add to it.
    type Adds: Contribution;
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

    /// What the step adds once the operations are applied, for facts that only the kernel decides.
    ///
    /// # Errors
    /// Everything is taken back then.
    fn finish(
        &self,
        document: &Document,
        adds: Self::Adds,
        operations: &[Self::Operation],
    ) -> anyhow::Result<Self::Adds> {
        let _ = (document, operations);
        Ok(adds)
    }

    /// Takes what it added out of a document, after its last step was undone, where the steps do not tell what that is:
    /// those of before version 0.2, and one that did not come to be done.
    ///
    /// # Errors
    /// When a member that it shares with another tool cannot be read.
    fn forget(document: &mut Document) -> anyhow::Result<()> {
        document.remove(Self::Adds::MEMBER);
        Ok(())
    }
}

/// What a [`Filter`] decided.
#[derive(Debug)]
pub struct Plan<F: Filter> {
    /// What the step adds to the document.
    pub adds: F::Adds,
    /// What will be done, in this order.
    pub operations: Vec<F::Operation>,
}

/// A tool at the head of a pipe: it makes an image and starts the document.
pub trait Source: clap::Parser {
    /// What it puts into the document.
    type Member: Member;

    /// The arguments that every tool takes.
    fn common(&self) -> &Common;

    /// Does the job. What it makes belongs to the store, not to a container: undo does not remove it.
    ///
    /// # Errors
    /// Whatever made the job impossible; the store is then as it was.
    fn make(&self, context: &Context) -> anyhow::Result<Self::Member>;

    /// What [`Source::make`] would do, a line each.
    ///
    /// # Errors
    /// Whatever would make the job impossible.
    fn explain(&self, context: &Context) -> anyhow::Result<Vec<String>>;
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
    /// Whatever made it impossible; the store is then as it was.
    fn report(&self, context: &Context) -> anyhow::Result<Value>;

    /// What [`Report::report`] would change, a line each; none where it only looks.
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

    /// The value as it is printed instead of JSON, where the arguments ask for that (`--table`).
    fn text(&self, report: &Value) -> Option<String> {
        let _ = report;
        None
    }
}

/// A tool that makes something of a container which outlives it (img-commit). It takes the container from the document,
/// or by its id from the record, and puts what it made into the document's member. It pushes no step, since there is
/// nothing of the container that could be undone, and leaves the record as it is.
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

/// A tool that walks over the steps of whole documents that exist already, failed ones among them: unwind.
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
