//! An overlay at a place that the user named, outside of Stave's directories.

use crate::{Error, Overlay, Result, table};

/// What the source of such a mount ([`MountOperation::OverlayShow`](crate::MountOperation::OverlayShow)) begins with; the
/// container's id follows. Nothing else is unmounted outside of Stave's directories, whatever a record says.
pub const MARK: &str = "stave-image:";

/// Whether `entry` is this overlay, and no other one of the same container.
pub(super) fn is(overlay: &Overlay, entry: &table::Entry) -> bool {
    entry.kind == "overlay" && entry.source == overlay.source && overlay.source.starts_with(MARK)
}

/// Unmounts the overlay. What else is mounted at its place stays: if it covers the overlay, that cannot be unmounted.
pub(super) fn undo(overlay: &Overlay) -> Result<()> {
    let target = &overlay.target;
    if !table::read()?.iter().any(|entry| entry.target == *target && is(overlay, entry)) {
        return Ok(());
    }
    match table::at(target)? {
        Some(entry) if is(overlay, &entry) => crate::unmount(target),
        _ => Err(Error::new("unmount", format_args!("{target:?}"), "something else is mounted over it")
            .with_hint("unmount that first, and then undo again")),
    }
}
