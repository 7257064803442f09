//! Volumes of the root file system.

use std::path::{Path, PathBuf};

use document::{
    Document,
    members::{Image, Rootfs},
};
use mount::{MountOperation, Volume};
use operation::Error;
use userns::Namespace;

use crate::{Result, directory, said, unread};

/// Plans the mounts of the requested volumes and of the image's volumes. Parents come before
/// children.
pub(crate) fn plan(
    asked: &[Volume],
    declared: Vec<PathBuf>,
    container: &Path,
    rootfs: &Rootfs,
) -> Result<Vec<MountOperation>> {
    let mut volumes = asked.to_vec();
    for volume in &mut volumes {
        let found = volume.source.canonicalize();
        volume.source = found.map_err(Error::on("find", format_args!("volume {:?}", volume.source)))?;
    }
    let mut operations = Vec::new();
    for (number, target) in declared.into_iter().enumerate() {
        if volumes.iter().any(|volume| volume.target == target) {
            continue;
        }
        if operations.is_empty() {
            operations.push(directory(&container.join("volumes"), 0o700, None));
        }
        let source = container.join("volumes").join(number.to_string());
        operations.push(directory(&source, 0o755, rootfs.userns.as_ref().and_then(Namespace::root)));
        operations.push(MountOperation::TreeCopy {
            within: rootfs.path.clone(),
            source: target.clone(),
            target: source.clone(),
        });
        // On the disk, its files have the same owners as in the mount.
        volumes.push(Volume { source, target, readonly: false, idmap: false });
    }
    volumes.sort_by_key(|volume| volume.target.components().count());
    operations.extend(volumes.into_iter().map(|Volume { source, target, readonly, idmap }| {
        let (within, userns) = (rootfs.path.clone(), rootfs.userns.clone());
        MountOperation::BindMount { source, within, target, readonly, userns, idmap }
    }));
    Ok(operations)
}

/// The volumes that the image declares (OCI image-spec, config.md, "Volumes").
pub(crate) fn declared(document: &Document) -> Result<Vec<PathBuf>> {
    let image: Option<Image> = document.get().map_err(unread)?;
    let config = image.as_ref().and_then(|image| image.configuration.config().as_ref());
    let mut targets = Vec::new();
    for volume in config.and_then(|config| config.volumes().as_ref()).into_iter().flatten() {
        let target = mount::plain(Path::new(volume)).ok_or_else(|| {
            said(format!("the image declares volume {volume:?}, which is not an absolute path below /"))
        })?;
        targets.push(target);
    }
    targets.sort();
    targets.dedup();
    Ok(targets)
}
