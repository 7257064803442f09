//! Files that a container without a record left in `$STAVE_ROOT`. After a restart of the machine, none of its
//! mounts exist.

use std::path::Path;

use ::operation::{Scope, is_gone};

use crate::{Error, Result, error::on, operation, table};

/// Whether `directory`, the container's `$STAVE_ROOT/containers/<id>`, was left behind.
///
/// # Errors
/// When something is mounted in the directory. The container's record is then in another run directory.
pub fn is_left(scope: &Scope, directory: &Path) -> Result<bool> {
    match directory.symlink_metadata() {
        Err(error) if is_gone(&error) => return Ok(false),
        found => found.map_err(on("look at", directory))?,
    };
    let known_as = directory.canonicalize().map_err(on("find", directory))?;
    if table::read()?.iter().any(|entry| entry.target.starts_with(&known_as)) {
        let object = format_args!("{directory:?}");
        let cause = format!("it is mounted, and has no record in {:?}", scope.run_dir);
        return Err(Error::new("remove", object, cause)
            .with_hint("name the directory of its record: --run-dir DIR (STAVE_RUN)"));
    }
    Ok(true)
}

/// Removes the directory that was left behind.
///
/// # Errors
/// As [`is_left`]; when another container is a fork of one of its snapshots; when a file cannot be removed.
pub fn remove(scope: &Scope, directory: &Path) -> Result<()> {
    if !is_left(scope, directory)? {
        return Ok(());
    }
    let id = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(fork) = crate::level::forks(scope, id, 0)?.first() {
        let cause = format!("container {fork:?} is based on it");
        let error = Error::new("remove", format_args!("{directory:?}"), cause);
        return Err(error.with_hint(format!("`unwind {fork}` first")));
    }
    crate::merged::stop(directory, 0)?;
    operation::directory::remove(scope, directory)
}
