//! A root file system for a user namespace. Each directory of the overlay is mounted a second time
//! with mapped owners, because overlayfs itself cannot be mounted so.

use std::path::Path;

use mount::{MountOperation, Overlay};
use userns::Namespace;

use crate::directory;

/// Replaces the overlay's directories by mounts with mapped owners.
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
    // An image may have the same layer twice. overlayfs refuses the same directory twice.
    // Merged levels keep the number of mounts low. They stay as long as a fork stands on their snapshots.
    let lower = std::mem::take(&mut overlay.lower);
    let layers = mount::substituted(&lower.iter().collect::<Vec<_>>());
    for (number, layer) in layers.iter().enumerate().filter(|(at, layer)| !layers[at + 1..].contains(layer)) {
        overlay.lower.push(place(layer, number.to_string()));
    }
    // Both are in one mount, as overlayfs requires.
    let around = overlay.upper.as_deref().and_then(Path::parent).map(Path::to_owned);
    if let Some(around) = around {
        let top = place(&around, "top".to_owned());
        let below = |path: &Path| path.strip_prefix(&around).map(|rest| top.join(rest)).ok();
        overlay.upper = overlay.upper.as_deref().and_then(below);
        overlay.work = overlay.work.as_deref().and_then(below);
    }
    overlay.owner = userns.root();
}
