//! Lists the differences between the files of two containers, or of one container at two snapshots.
//!
//! # Does
//! Compares the root file systems as they were at snapshots, or as they are now. Directories that both
//! share are not read. Volumes and empty mount points are left out.
//! # Reads
//! No document: the records of the containers.
//! # Adds
//! Nothing. Prints one JSON object a line: `path`, `change` (`added`, `changed` or `removed`), `kind`, and
//! for a changed file `what`. With `--patch`, prints a patch in the format of `git diff`, for `git apply`
//! and `patch -p1`.
//! # Undoes
//! Nothing.
//! # Needs
//! Root, to read every file and overlayfs's own attributes.

mod patch;

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    process::ExitCode,
};

use archive::Shown;
use clap::Parser;
use document::At;
use layer::diff::{Change, Side, states};
use rustix::fs::FileType;
use serde_json::{Value, json};
use toolkit::prelude::*;

/// List the differences between the files of two containers or snapshots
#[derive(Parser)]
#[command(name = "union-diff", version, after_help = toolkit::EQUIVALENT_HELP)]
struct UnionDiff {
    /// A container; with @N at its snapshot N: web, web@2. web@0 is before the first write
    #[arg(value_name = "A")]
    old: At,
    /// The container or snapshot to compare it with
    #[arg(value_name = "B")]
    new: At,
    /// Print a patch that turns A into B
    #[arg(long)]
    patch: bool,
    #[command(flatten)]
    common: Common,
}

impl Report for UnionDiff {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let (old, new, shared) = union::pair(&context.scope, &self.old, &self.new)?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        let told = states(&old, &new, shared, |change| -> Result<()> {
            match self.patch {
                true => patch::write(&mut out, &change),
                false => Ok(writeln!(out, "{}", line(&change))?),
            }
        });
        match told.and_then(|()| Ok(out.flush()?)) {
            // A reader may close the pipe early.
            Err(error) if is_closed(&error) => {}
            told => told.map_err(|error| error.context("compare the files"))?,
        }
        Ok(Value::Null)
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        union::pair(&context.scope, &self.old, &self.new)?;
        Ok(toolkit::equivalent([format!("diff -r {} {}", self.old, self.new)]))
    }

    /// Everything is printed already.
    fn text(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A path as text. If it is not UTF-8, the bytes are escaped as in Rust.
fn shown(path: &[u8]) -> String {
    match OsStr::from_bytes(path).to_str() {
        Some(text) => format!("/{text}"),
        None => format!("/{}", Shown::new(path)),
    }
}

fn line(change: &Change) -> Value {
    let kind = |side: &Option<Side>| side.as_ref().map(|side| name(side.kind()));
    let path = shown(&change.path);
    match (kind(&change.old), kind(&change.new)) {
        (None, new) => json!({"path": path, "change": "added", "kind": new}),
        (old, None) => json!({"path": path, "change": "removed", "kind": old}),
        (_, new) => json!({"path": path, "change": "changed", "kind": new, "what": change.what}),
    }
}

fn name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "unknown",
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<UnionDiff>()
}
