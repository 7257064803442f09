//! What all tools share: arguments, reading and writing the document, the record, undo, explain, check, exit
//! statuses.
//!
//! A tool is one of five kinds. Each kind has a trait, and a function that is the whole `main` of the tool. A
//! [`Filter`] reads the document and adds a member. A [`Source`] starts a document. A [`Report`] prints
//! something about the store. An [`Export`] makes something of a container that outlives the container. A
//! [`Walker`] goes over the steps of documents.
//!
//! The traits are in `tool`; the code that runs them is in `run`. `docs/architecture.md` says what happens
//! when a filter runs, and `docs/exit-codes.md` what the statuses mean.

mod arguments;
mod defaults;
mod equivalent;
mod exit;
mod failure;
mod input;
mod kind;
pub mod listing;
mod made;
mod manual;
mod named;
mod naming;
mod output;
mod recorded;
pub mod rows;
mod run;
mod schema;
pub mod session;
mod streams;
mod switches;
mod tool;
mod writing;

pub use arguments::{Common, Context, Invocation, one_of, pair, scope};
pub use document::Stage;
pub use equivalent::{EQUIVALENT_HELP, equivalent};
pub use exit::Exit;
pub use failure::{hint, of_place, print as print_error, report_line, with_failures};
pub use input::{Input, Unread};
pub use made::made_image;
pub use named::{FORMAT_WITH_STATUS, Named};
pub use output::{is_stdout, write_file, write_output};
pub use recorded::{Records, Settled, recorded};
pub use run::{
    Hooks, Marker, UNWINDING, begin_step, export, filter, filter_of, filter_with, finish_step, help,
    is_unwound, marker, report, report_document, say, source, walker,
};
pub use session::Session;
pub use streams::write_document;
pub use tool::{Each, Export, Filter, Plan, Report, Source, Walker};
pub use writing::Writing;

/// What the tools' mains use, so that a tool needs only this crate for them.
pub mod prelude {
    pub use crate::{Common, Context, Filter, Plan, Report, Source, Writing, hint};
    pub use anyhow::{Context as _, Result, anyhow, bail};
    pub use document::{Document, members};
}
