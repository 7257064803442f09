//! The files of an image, read-only and without a container.

use std::path::{Path, PathBuf};

use document::members::Layers;
use mount::{MountOperation, Overlay};

use crate::{Container, Result, directory, layers};

/// Plans the mounts that show the files of `layers` at `target`, a path without links. What they need besides is made
/// below `--run-dir`, so that a restart of the machine leaves nothing.
///
/// # Errors
/// When a layer cannot be looked at.
pub fn view(container: Container<'_>, layers: &Layers, target: PathBuf) -> Result<Vec<MountOperation>> {
    let Container { scope, id, planned } = container;
    let beside = scope.run_dir.join("views").join(id);
    let mut operations = vec![directory(&beside, 0o700, None)];
    let mut lower = Vec::new();
    layers::place(&layers.0, &beside, planned, &mut lower, &mut operations)?;
    let empty = |name: &str| -> PathBuf { beside.join(name) };
    let mut distinct: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
    distinct.sort_unstable();
    distinct.dedup();
    // A read-only overlay needs at least two directories.
    let missing: Vec<PathBuf> = ["empty", "empty-too"].into_iter().skip(distinct.len()).map(empty).collect();
    operations.extend(missing.iter().map(|path| directory(path, 0o755, None)));
    let xino = operations.iter().any(|operation| matches!(operation, MountOperation::ImageMount { .. }));
    operations.push(MountOperation::OverlayShow(Overlay {
        source: format!("{}{id}", mount::SHOWN),
        lower: missing.into_iter().chain(lower).collect(),
        upper: None,
        work: None,
        boot: None,
        target,
        readonly: true,
        durable: false,
        userxattr: !userns::is_first()?,
        xino,
        owner: None,
        nosuid: true,
        newest: None,
    }));
    Ok(operations)
}

/// Whether an operation shows an image's files at `target`.
pub fn shows(operation: &MountOperation, target: &Path) -> bool {
    matches!(operation, MountOperation::OverlayShow(overlay) if overlay.target == target)
}

/// The container that the topmost mount at `target` belongs to, if that shows an image's files.
///
/// # Errors
/// When the mount table cannot be read.
pub fn shown_at(target: &Path) -> Result<Option<String>> {
    let entry = mount::table::at(target)?;
    Ok(entry.and_then(|entry| entry.source.strip_prefix(mount::SHOWN).map(str::to_owned)))
}
