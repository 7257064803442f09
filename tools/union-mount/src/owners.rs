//! A root file system for a user namespace: each directory of the overlay a second time, with its owners mapped. overlayfs itself
//! cannot be mounted so.

use std::path::Path;

use mount::{MountOperation, Overlay};
use userns::Namespace;

use crate::directory;

/// Puts directories with mapped owners in the place of the overlay's.
pub(crate) fn map(
    userns: &Namespace,
    container: &Path,
    overlay: &mut Overlay,
    operations: &mut Vec<MountOperation>,
) {
    let mapped = container.join("mapped");
    operations.push(directory(&mapped, 0o700, None));
    let mut place = |source: &Path, name: String| {
        let target = mapped.join(name);
        operations.push(directory(&target, 0o700, None));
        operations.push(MountOperation::IdmapMount {
            source: source.to_owned(),
            target: target.clone(),
            userns: userns.clone(),
        });
        target
    };
    // An image may have a layer twice: for overlayfs that is one directory.
    let layers = std::mem::take(&mut overlay.lower);
    for (number, layer) in layers.iter().enumerate().filter(|(at, layer)| !layers[at + 1..].contains(layer)) {
        overlay.lower.push(place(layer, number.to_string()));
    }
    // Both in one mount, as overlayfs wants them.
    let around = overlay.upper.as_deref().and_then(Path::parent).map(Path::to_owned);
    if let Some(around) = around {
        let top = place(&around, "top".to_owned());
        let below = |path: &Path| path.strip_prefix(&around).map(|rest| top.join(rest)).ok();
        overlay.upper = overlay.upper.as_deref().and_then(below);
        overlay.work = overlay.work.as_deref().and_then(below);
    }
    overlay.owner = userns.root();
}
