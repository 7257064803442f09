//! The directory in which an image's files are shown, and the container whose record has it.

use std::path::{Path, PathBuf};

use document::{Id, record};
use mount::MountOperation;
use operation::Scope;
use serde::Deserialize;
use toolkit::prelude::*;

/// The path of the directory, without links.
///
/// # Errors
/// When it is missing or no directory; when the mount would hide the store or the records, or be part of them.
pub(crate) fn target(scope: &Scope, directory: &Path) -> Result<PathBuf> {
    let target = directory.canonicalize().with_context(|| format!("mount on {directory:?}"))?;
    if !target.is_dir() {
        bail!("mount on {directory:?}: it is not a directory");
    }
    for own in [&scope.root, &scope.run_dir] {
        if own.starts_with(&target) || target.starts_with(own) {
            let error = anyhow!("mount on {directory:?}: {own:?}, which the tools use, would be hidden");
            return Err(hint(error, "choose another directory"));
        }
    }
    Ok(target)
}

/// The container whose record shows an image in this directory. Of several, the one that is mounted on top.
///
/// # Errors
/// When there is none, or more than one that is not on top.
pub(crate) fn container(scope: &Scope, directory: &Path) -> Result<Id> {
    let found = directory.canonicalize().or_else(|_| std::path::absolute(directory));
    let target = found.with_context(|| format!("find {directory:?}"))?;
    let mut ids = Vec::new();
    for id in record::list(&scope.run_dir)? {
        if record::read(&scope.run_dir, &id)?.is_some_and(|document| shows(&document, &target)) {
            ids.push(id);
        }
    }
    if ids.len() > 1 {
        let top = union::shown_at(&target)?;
        ids.retain(|id| Some(id.as_str()) == top.as_deref());
    }
    match ids.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(hint(
            anyhow!("no image is shown in {directory:?} by a record in {:?}", scope.run_dir),
            "`unwind ID` undoes what a record lists; container-ls lists the records",
        )),
        _ => bail!("several images are shown in {directory:?}, and none of them is on top"),
    }
}

/// Whether a step of the document shows an image at `target`.
fn shows(document: &Document, target: &Path) -> bool {
    let steps = document.steps_of("img-mount").unwrap_or_default();
    let operations = steps.iter().flat_map(|(_, step)| &step.operations);
    operations
        .filter_map(|operation| MountOperation::deserialize(operation).ok())
        .any(|operation| union::shows(&operation, target))
}
