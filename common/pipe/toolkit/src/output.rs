//! Output to a file that the user names.

use std::{
    fs::{self, File},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};

use operation::Place;

use crate::{hint, of_place};

/// Whether `path` is `-`, which means standard output.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Writes to `path` what `write` writes, and returns the result of `write`. The content goes to a new file
/// beside `path`, which is renamed at the end, so that `path` never has half of it. With `sync`
/// ([`Writing::is_synced`](crate::Writing::is_synced)) the file survives a power cut when this returns. A
/// FIFO, `/dev/null` and the like are written directly. `-` is standard output.
///
/// # Errors
/// The errors of `write`, of opening and of renaming. A terminal as standard output is refused; `what` names
/// the content in this message.
pub fn write_output<T>(
    path: &Path,
    what: &str,
    sync: bool,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<T> {
    if !is_stdout(path) {
        return write_file(path, sync, write);
    }
    if io::stdout().is_terminal() {
        return Err(hint(
            anyhow!("the {what} would be written to a terminal"),
            "give -o FILE, or send standard output to a file or a pipe",
        ));
    }
    write(&mut io::stdout().lock()).map_err(|error| of_place(error, Place::Output))
}

/// As [`write_output`], to a file; `-` is one, too.
///
/// # Errors
/// The errors of `write`, of opening and of renaming.
pub fn write_file<T>(path: &Path, sync: bool, write: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T> {
    into_file(path, sync, write)
        .with_context(|| format!("write {path:?}"))
        .map_err(|error| of_place(error, Place::File))
}

/// Writes a file beside `path` and renames it. With `sync`, the content is on the disk before the rename, and
/// the name when this returns. So after a power cut, `path` is the old file or the new one.
fn into_file<T>(path: &Path, sync: bool, write: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return write(&mut File::options().write(true).open(path)?);
    }
    let (beside, mut file) = new_beside(path)?;
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

/// A new file beside `path`. Its name is random: where process ids repeat, as in the containers of a CI system, a
/// killed process may have left a file with the same pid.
fn new_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    loop {
        let random = RandomState::new().build_hasher().finish();
        let beside = path.with_added_extension(format!("{random:016x}.part"));
        match File::options().write(true).create_new(true).open(&beside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (beside, file)),
        }
    }
}

/// Makes the name of a file survive a power cut, by syncing its directory.
fn sync_name(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(directory)?.sync_all() {
        // Some network file systems answer this. They have nothing to sync.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}
