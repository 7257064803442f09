//! Undoes a step that failed. No other code does.

use document::Document;
use operation::{Operation, Scope, causes, undo_all};

use crate::{Session, Stage, failure, hint};

/// Why a step failed, and the document to pass on.
pub(super) struct Failed {
    pub(super) document: Box<Document>,
    pub(super) stage: Stage,
    pub(super) error: anyhow::Error,
}

impl Failed {
    /// The failure of a step that was not begun. The document leaves unchanged.
    pub(super) fn new(document: Document, stage: Stage, error: anyhow::Error) -> Self {
        Self { document: Box::new(document), stage, error }
    }
}

/// A step that is on record, or will be soon.
pub(super) struct Attempt<'a, O> {
    pub(super) tool: &'a str,
    pub(super) scope: &'a Scope,
    pub(super) session: Session,
    pub(super) operations: Vec<O>,
}

impl<O: Operation> Attempt<'_, O> {
    /// Undoes all operations, and removes the step.
    pub(super) fn take_back(self, stage: Stage, error: anyhow::Error) -> Failed {
        let left = undo_all(&self.operations, self.scope);
        self.give_up(left, stage, error)
    }

    /// Removes the step after its operations were undone. Reports those that could not be undone, `left`.
    pub(super) fn give_up(
        self,
        left: Vec<(usize, operation::Error)>,
        stage: Stage,
        error: anyhow::Error,
    ) -> Failed {
        let Self { tool, session, operations, .. } = self;
        let id = session.id().clone();
        let indices: Vec<usize> = left.iter().map(|(at, _)| *at).collect();
        let mut errors: Vec<_> =
            causes(left).map(|error| anyhow::Error::from(error).context("undo")).collect();
        failure::once(&mut errors);
        errors.iter().for_each(|error| failure::print(tool, error));
        let (document, restored) = session.abandon(&operations, &indices);
        if let Err(error) = restored {
            failure::print(tool, &error);
        }
        let error = match indices.is_empty() {
            true => error,
            false => hint(error, format!("`unwind {id}` tries again to undo what is left")),
        };
        Failed::new(document, stage, error)
    }
}
