//! Layers as lower directories of the overlay. EROFS images are mounted first.

use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use document::members::{Layer, Layers, Place};
use mount::MountOperation;
use operation::{Error, is_gone};

use crate::{Result, directory, said};

/// The member for layers that are unpacked, or will be.
pub fn unpacked(apply: &layer::Apply) -> Layers {
    let member = |layer: &layer::Layer| Layer {
        descriptor: layer.descriptor.clone(),
        diff_id: layer.diff_id.to_string(),
        place: match &layer.place {
            layer::store::Place::Directory(path) => Place::Directory(path.clone()),
            layer::store::Place::Erofs(path) => Place::Erofs(path.clone()),
        },
    };
    Layers(apply.layers.iter().map(member).collect())
}

/// Adds each layer's directory to `lower`, and the operations that it needs to `operations`.
/// Returns mode, user and group of the topmost layer's root, which the overlay's root gets.
pub(crate) fn place(
    layers: &[Layer],
    container: &Path,
    planned: bool,
    lower: &mut Vec<PathBuf>,
    operations: &mut Vec<MountOperation>,
) -> Result<(u32, u32, u32)> {
    let mut top = (0o755, 0, 0);
    for layer in layers {
        let missing = |error: Error| match is_gone(&error) {
            true => error.with_hint("run layer-apply again: it unpacks what is missing"),
            false => error,
        };
        top = match look(&layer.place) {
            // The layer is not unpacked yet. Most layers have a root like this.
            Err(error) if planned && is_gone(&error) => (0o755, 0, 0),
            found => found.map_err(missing)?,
        };
        lower.push(match &layer.place {
            Place::Directory(path) => path.clone(),
            Place::Erofs(image) => image_mount(image, container, operations)?,
        });
    }
    Ok(top)
}

/// Mode, user and group of a layer's root.
fn look(place: &Place) -> Result<(u32, u32, u32)> {
    let at = |path: &Path| {
        let object = format!("layer {path:?}");
        move |error| Error::new("look at", object, error).of(operation::Place::Namespace)
    };
    match place {
        Place::Directory(path) => {
            let found = path.metadata().map_err(at(path))?;
            Ok((found.mode() & 0o7777, found.uid(), found.gid()))
        }
        Place::Erofs(path) => {
            let root = File::open(path).and_then(erofs::root);
            let root = root.map_err(at(path))?;
            Ok((root.mode, root.uid, root.gid))
        }
    }
}

/// Mounts an image below the container's directory, once, and returns the mount point.
fn image_mount(image: &Path, container: &Path, operations: &mut Vec<MountOperation>) -> Result<PathBuf> {
    let layers = container.join("layers");
    let name = image.file_stem().ok_or_else(|| said(format!("layer {image:?} is not an image")))?;
    let target = layers.join(name);
    let is_there =
        |path: &Path| operations.iter().any(|operation| *operation == directory(path, 0o700, None));
    let new = [&layers, &target].map(|path| (!is_there(path)).then(|| directory(path, 0o700, None)));
    if new[1].is_some() {
        operations.extend(new.into_iter().flatten());
        operations.push(MountOperation::ImageMount { image: image.to_owned(), target: target.clone() });
    }
    Ok(target)
}
