//! What a container without a record left in `$STAVE_ROOT`: after a restart of the machine nothing of it is mounted.

use std::path::Path;

use ::operation::{Scope, is_gone};

use crate::{Error, Result, error::on, operation, table};

/// Whether `directory`, the container's `$STAVE_ROOT/containers/<id>`, was left behind.
///
/// # Errors
/// When something is mounted in it: then the container belongs to somebody who keeps records elsewhere.
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

/// Removes it.
///
/// # Errors
/// As [`is_left`]; when something in it cannot be removed.
pub fn remove(scope: &Scope, directory: &Path) -> Result<()> {
    match is_left(scope, directory)? {
        true => operation::directory::remove(scope, directory),
        false => Ok(()),
    }
}
