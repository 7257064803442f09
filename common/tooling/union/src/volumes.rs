//! Volumes of the root file system.

use std::path::{Path, PathBuf};

use document::{
    Document,
    members::{Image, Rootfs},
};
use mount::{MountOperation, Volume};
use operation::Error;
use userns::Namespace;
use volume::{NamedVolume, VolumeRequest, VolumeUse};

use crate::{Container, Result, UnionOperation, directory, said, unread};

/// Plans the mounts of the requested volumes and of the image's volumes. Parents come before
/// children.
pub(crate) fn plan(
    container: Container<'_>,
    asked: &[VolumeRequest],
    mut own: Vec<PathBuf>,
    rootfs: &Rootfs,
) -> Result<Vec<UnionOperation>> {
    let directory_of = container.scope.container(container.id);
    let owner = rootfs.userns.as_ref().and_then(Namespace::root);
    let (mut operations, mut volumes) = (Vec::new(), Vec::new());
    for request in asked {
        match request {
            VolumeRequest::Host(volume) => {
                let found = volume.source.canonicalize();
                let source = found.map_err(Error::on("find", format_args!("volume {:?}", volume.source)))?;
                volumes.push(Volume { source, ..volume.clone() });
            }
            VolumeRequest::Named(named) => {
                let NamedVolume { name, target, options } = named;
                let usage = VolumeUse {
                    volume: name.clone(),
                    holder: container.id.to_owned(),
                    within: rootfs.path.clone(),
                    // With idmap, the files on the disk have other owners than in the container.
                    source: (!options.nocopy && !options.idmap).then(|| target.clone()),
                    owner: owner.filter(|_| !options.idmap),
                    durable: rootfs.durable,
                };
                operations.push(UnionOperation::from(usage));
                let (source, target) = (volume::data(container.scope, name), target.clone());
                volumes.push(Volume { source, target, readonly: options.readonly, idmap: options.idmap });
            }
            VolumeRequest::Own(target) => own.push(target.clone()),
        }
    }
    own.retain(|target| !volumes.iter().any(|volume| volume.target == *target));
    own.sort();
    own.dedup();
    for (number, target) in own.into_iter().enumerate() {
        if number == 0 {
            operations.push(directory(&directory_of.join("volumes"), 0o700, None).into());
        }
        let source = directory_of.join("volumes").join(number.to_string());
        operations.push(directory(&source, 0o755, owner).into());
        let (within, from) = (rootfs.path.clone(), target.clone());
        operations.push(MountOperation::TreeCopy { within, source: from, target: source.clone() }.into());
        // On the disk, its files have the same owners as in the mount.
        volumes.push(Volume { source, target, readonly: false, idmap: false });
    }
    volumes.sort_by_key(|volume| volume.target.components().count());
    operations.extend(volumes.into_iter().map(|Volume { source, target, readonly, idmap }| {
        let (within, userns) = (rootfs.path.clone(), rootfs.userns.clone());
        MountOperation::BindMount { source, within, target, readonly, userns, idmap }.into()
    }));
    Ok(operations)
}

/// The source of a volume whose owners are to be mapped.
pub(crate) fn mapped(request: &VolumeRequest) -> Option<&Path> {
    match request {
        VolumeRequest::Host(volume) => volume.idmap.then_some(&volume.source),
        VolumeRequest::Named(volume) => volume.options.idmap.then_some(Path::new(&volume.name)),
        VolumeRequest::Own(_) => None,
    }
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
    Ok(targets)
}
