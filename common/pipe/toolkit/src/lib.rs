//! What every tool's `main` needs: arguments, the document in and out, the record, undo, explain, check, exit statuses.
//!
//! A tool is one of four kinds, each with a trait and a one-line `main`: a [`Filter`] reads the document and adds a
//! member to it, a [`Source`] starts a document, a [`Report`] speaks of the store, an [`Export`] makes something of a
//! container that outlives it. `docs/architecture.md` tells what
//! happens when a filter runs, `docs/exit-codes.md` what the statuses mean.

mod arguments;
mod check;
mod exit;
mod export;
mod failure;
mod filter;
mod output;
mod schema;
pub mod session;
mod source;
mod streams;
mod transfer;
mod undo;
mod walker;

pub use arguments::{Common, Context};
pub use exit::Exit;
pub use export::{Export, export};
pub use failure::{hint, member as failure_member, namespace_hint, print as print_error, report_line};
pub use filter::{Filter, Plan, filter, usage_error};
pub use output::{is_stdout, write_output};
pub use session::{Session, Stage};
pub use source::{Report, Source, report, report_document, source};
pub use streams::{read_document, write_document};
pub use transfer::Transfer;
pub use undo::undo_step;
pub use walker::{Walker, walker};

/// What the tools' mains use, so that a tool depends on one crate for it.
pub mod prelude {
    pub use crate::{Common, Context, Filter, Plan, Report, Source, hint};
    pub use anyhow::{Context as _, Result, anyhow, bail};
    pub use document::{Document, members};
}
