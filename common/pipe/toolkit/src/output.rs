//! The output file that a user names.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Write},
    path::Path,
};

use anyhow::{Context, Result, anyhow};

use operation::Place;

use crate::{hint, of_place};

/// Whether a path means standard output, as `-` does.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Has `write` write to `path`, and returns what it returns: beside it, so that half of it is never left there, and renamed.
/// With `sync` ([`Writing::is_synced`](crate::Writing::is_synced)) it lasts when this returns. What is no regular file (a
/// FIFO, `/dev/null`) is written as it is. `-` is standard output.
///
/// # Errors
/// Those of `write`, of opening and of renaming; a terminal on standard output, which `what` must not go to.
pub fn write_output<T>(
    path: &Path,
    what: &str,
    sync: bool,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<T> {
    if !is_stdout(path) {
        return into_file(path, sync, write)
            .with_context(|| format!("write {path:?}"))
            .map_err(|error| of_place(error, Place::File));
    }
    if io::stdout().is_terminal() {
        return Err(hint(
            anyhow!("the {what} would be written to a terminal"),
            "give -o FILE, or send standard output to a file or a pipe",
        ));
    }
    write(&mut io::stdout().lock()).map_err(|error| of_place(error, Place::Output))
}

/// Writes a file beside its place, and gives it its name. With `sync` its content is on the disk before, and its name when
/// this returns: a power cut leaves the file of before, or the new one.
fn into_file<T>(path: &Path, sync: bool, write: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return write(&mut File::options().write(true).open(path)?);
    }
    let beside = path.with_added_extension(format!("{}.part", std::process::id()));
    let mut file = File::options().write(true).create_new(true).open(&beside)?;
    let written = write(&mut file).and_then(|written| {
        if sync {
            file.sync_all()?;
        }
        fs::rename(&beside, path)?;
        if sync {
            sync_name(path)?;
        }
        Ok(written)
    });
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Sees to it that the name of a file lasts.
fn sync_name(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(directory)?.sync_all() {
        // What some network file systems answer, which have nothing to do there.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}
