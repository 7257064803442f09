//! An example of a tool outside this repository, as small as possible. It leaves a note in the file system.
//!
//! # Does
//! Makes one file below `$STAVE_RUN/notes`.
//! # Reads
//! Nothing.
//! # Adds
//! `hosts`, because it has no member of its own. A tool with its own member implements `document::Member` for
//! a type.
//! # Undoes
//! Removes the file.
//! # Needs
//! Permission to write to `$STAVE_RUN`. `unwind --with DIR` finds the tool if DIR is its directory.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Parser;
use operation::{Condition, Error, Operation, Scope, words};
use serde::{Deserialize, Serialize};
use toolkit::prelude::*;

/// Leaves notes
#[derive(Parser)]
#[command(name = "leave-note", version)]
struct LeaveNote {
    /// The names of the notes
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// An empty file.
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
