//! A tool of one's own, the smallest that there can be: it leaves a note in the file system.
//!
//! # Does
//! Makes one file below `$STAVE_RUN/notes`.
//! # Reads
//! Nothing.
//! # Adds
//! `hosts`, for want of a member of its own: a tool with one would implement `document::Member` for its type.
//! # Undoes
//! Removes the file.
//! # Needs
//! To be allowed to write to `$STAVE_RUN`. `unwind --with DIR` finds it where it stands.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Parser;
use operation::{Condition, Error, Operation, Scope, words};
use serde::{Deserialize, Serialize};
use toolkit::prelude::*;

/// Leaves notes
#[derive(Parser)]
#[command(name = "leave-note", version)]
struct LeaveNote {
    /// What to call them
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// A file with nothing in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename = "note")]
struct Note {
    path: PathBuf,
}

impl Operation for Note {
    fn explain(&self) -> Vec<String> {
        vec![words(["touch", &self.path.to_string_lossy()])]
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), Error> {
        if let Some(above) = scope.contain(&self.path)?.parent() {
            fs::create_dir_all(above).map_err(Error::on("create", format_args!("{above:?}")))?;
        }
        fs::File::create_new(&self.path)
            .map(drop)
            .map_err(Error::on("create", format_args!("{:?}", self.path)))
    }

    fn undo(&self, scope: &Scope) -> Result<(), Error> {
        let removed = operation::unless_gone(fs::remove_file(scope.contain(&self.path)?));
        removed.map(drop).map_err(Error::on("remove", format_args!("{:?}", self.path)))
    }

    fn check(&self, _: &Scope) -> Result<Condition, Error> {
        Ok(if self.path.exists() {
            Condition::Present
        } else {
            Condition::Missing(format!("{:?}", self.path))
        })
    }
}

impl Filter for LeaveNote {
    type Adds = members::Hosts;
    type Operation = Note;

    fn common(&self) -> &Common {
        &self.common
    }

    fn plan(&self, context: &Context, _: &Document) -> Result<Plan<Self>> {
        let note = |name: &String| Note { path: context.scope.run_dir.join("notes").join(name) };
        Ok(Plan { adds: members::Hosts::default(), operations: self.names.iter().map(note).collect() })
    }
}

fn main() -> ExitCode {
    toolkit::filter::<LeaveNote>()
}
