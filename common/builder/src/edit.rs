//! Makes a new image of an image in the store: with other settings, more layers, one layer, or another base.
//! Runs nothing.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use archive::{Compression, Decompressed, Limits, Reader, peek};
use oci::{
    Layout, Platform, Reference,
    digest::{Algorithm, Hashing},
    spec::{Descriptor, MediaType},
};
use rustix::fs::Mode;

use crate::{
    Built,
    cache::Layer,
    commit::change,
    config::{History, Image},
    error::Cause,
    executor::{Whole, layers_of},
    manifest,
};

/// The changes, in the order in which they are applied.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// `$STAVE_ROOT`, absolute.
    pub root: PathBuf,
    /// The platform to choose from an image for several platforms.
    pub platform: Option<Platform>,
    /// The old base of the image, and the new base.
    pub rebase: Option<(Descriptor, Descriptor)>,
    /// Archives to append as layers, in this order.
    pub append: Vec<PathBuf>,
    /// Whether to merge all layers into one.
    pub flatten: bool,
    /// Dockerfile instructions that change the configuration.
    pub changes: Vec<String>,
    /// Labels to set.
    pub labels: Vec<(String, String)>,
    /// Labels to remove.
    pub without_labels: Vec<String>,
    /// Annotations to set in the manifest.
    pub annotations: Vec<(String, String)>,
    /// The names of the new image.
    pub tags: Vec<Reference>,
    /// Whether not to wait until the image is on the disk.
    pub no_sync: bool,
}

/// Makes the new image. `image` is a manifest or an index in the store.
///
/// # Errors
/// [`Cause`]. The new image gets no name then.
pub fn edit(edit: &Edit, image: &Descriptor) -> Result<Built, Cause> {
    // As in a build: the caller's umask must not change the modes of unpacked layers.
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let layout = Layout::open(edit.root.join("images"))?.with_sync(!edit.no_sync);
    manifest::hold_platforms(&layout, image, edit.platform.as_ref(), &edit.tags)?;
    for kept in [image].into_iter().chain(edit.rebase.iter().map(|(_, new)| new)) {
        layout.keep_meanwhile(&[oci::Digest::try_from(kept.digest()).map_err(oci::layout::Error::from)?])?;
    }
    let found = layout.image(image, edit.platform.as_ref())?;
    let mut layers = layers_of(&found)?;
    let mut image: Image = serde_json::from_value(found.raw_configuration.clone())?;
    image.forget_making();
    image.fit_history();
    if let Some((old, new)) = &edit.rebase {
        rebase(&layout, edit, (old, new), &mut layers, &mut image)?;
    }
    for path in &edit.append {
        let layer = take(&layout, path)?;
        let created = image.created.clone();
        image.rootfs.diff_ids.push(layer.diff_id.to_string());
        image.history.push(History {
            created,
            created_by: Some(format!("img-edit --append {}", path.display())),
            ..History::default()
        });
        layers.push(layer);
    }
    if edit.flatten && layers.len() > 1 {
        let whole = Whole::of(&edit.root, layers, edit.no_sync)?;
        let layer = whole.flatten()?;
        image.rootfs.diff_ids = vec![layer.diff_id.to_string()];
        image.history.iter_mut().for_each(|entry| entry.empty_layer = true);
        image.history.push(History {
            created: image.created.clone(),
            created_by: Some("img-edit --flatten".to_owned()),
            ..History::default()
        });
        layers = vec![layer];
    }
    change(&mut image, &edit.changes)?;
    edit.without_labels.iter().for_each(|name| drop(image.config.labels.remove(name)));
    image.config.labels.extend(edit.labels.iter().cloned());
    let own = found.manifest.annotations().clone().unwrap_or_default();
    let own = own.into_iter().filter(|(name, _)| edit.annotations.iter().all(|(new, _)| new != name));
    let annotations: Vec<(String, String)> = own.chain(edit.annotations.iter().cloned()).collect();
    let config = layout.write_json(MediaType::ImageConfig, &image)?;
    let id = oci::Digest::try_from(config.digest()).map_err(oci::layout::Error::from)?;
    let blobs: Vec<Descriptor> = layers.into_iter().map(|layer| layer.descriptor).collect();
    let descriptor = manifest::write(&layout, config, &blobs, &annotations)?;
    layout.name(&descriptor, &edit.tags)?;
    let mut configuration = serde_json::to_value(&image)?;
    configuration.sort_all_objects();
    Ok(Built { descriptor, configuration, id, tree: None, read: Vec::new() })
}

/// Moves what the image has above its old base to a new base. The image's settings stay.
fn rebase(
    layout: &Layout,
    edit: &Edit,
    (old, new): (&Descriptor, &Descriptor),
    layers: &mut Vec<Layer>,
    image: &mut Image,
) -> Result<(), Cause> {
    let read = |descriptor| -> Result<(Vec<Layer>, Image), Cause> {
        let found = layout.image(descriptor, edit.platform.as_ref())?;
        let layers = layers_of(&found)?;
        let mut image: Image = serde_json::from_value(found.raw_configuration)?;
        image.fit_history();
        Ok((layers, image))
    };
    let ((old, old_image), (new, new_image)) = (read(old)?, read(new)?);
    let is_below = |(own, old): (&Layer, &Layer)| own.diff_id == old.diff_id;
    if old.len() > layers.len() || !layers.iter().zip(&old).all(is_below) {
        return Err(Cause::NoBase);
    }
    let own_platform = (&image.os, &image.architecture);
    if own_platform != (&new_image.os, &new_image.architecture) {
        return Err(Cause::OtherPlatform(format!("{}/{}", new_image.os, new_image.architecture)));
    }
    layers.splice(..old.len(), new);
    image.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let own = of_base(&image.history, &old_image.history, old.len());
    image.history.splice(..own, new_image.history);
    Ok(())
}

/// How many of the first entries of `history` belong to the image's base. `base` is the base's own history,
/// and `layers` the number of its layers.
fn of_base(history: &[History], base: &[History], layers: usize) -> usize {
    let with_layer = |entries: &[History]| entries.iter().filter(|entry| !entry.empty_layer).count();
    if history.starts_with(base) && with_layer(base) == layers {
        return base.len();
    }
    // A builder has rewritten the base's history, or left it out. Count layers instead.
    (0..=history.len()).find(|end| with_layer(&history[..*end]) == layers).unwrap_or(history.len())
}

/// Stores an archive as a layer, unchanged. Reads it to its end, because a file that is not an archive is not
/// a layer.
fn take(layout: &Layout, path: &Path) -> Result<Layer, Cause> {
    let failed = |source: io::Error| Cause::system("append layer", path)(source);
    let (start, mut file) = peek(File::open(path).map_err(failed)?, Compression::LOOK).map_err(failed)?;
    let media_type = match Compression::detect(&start) {
        Compression::None => MediaType::ImageLayer,
        Compression::Gzip => MediaType::ImageLayerGzip,
        Compression::Zstd => MediaType::ImageLayerZstd,
        Compression::Xz | Compression::Bzip2 => {
            return Err(failed(io::Error::other("a layer is plain, or compressed with gzip or zstd")));
        }
    };
    let mut writer = layout.writer()?;
    io::copy(&mut file, &mut writer).map_err(failed)?;
    let descriptor = writer.commit_as(media_type)?;
    let content = || -> Result<_, Cause> {
        Decompressed::new(layout.blob_reader(&descriptor)?, Limits::default()).map_err(failed)
    };
    let mut reader = Reader::new(content()?);
    while reader.next().map_err(|error| failed(error.into()))?.is_some() {}
    let mut hashing = Hashing::new(io::sink(), Algorithm::Sha256);
    io::copy(&mut content()?, &mut hashing).map_err(failed)?;
    let (_, diff_id, _) = hashing.finish();
    Ok(Layer { descriptor, diff_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_tell_where_a_history_has_its_base() {
        let entry = |text: &str, empty_layer| History {
            created_by: Some(text.to_owned()),
            empty_layer,
            ..History::default()
        };
        let own = [entry("a", false), entry("b", true), entry("c", false), entry("d", true)];
        // The base's history is unchanged, and has entries without a layer after the last layer.
        assert_eq!(of_base(&own, &own[..2], 1), 2);
        // The base's history was rewritten, or left out.
        assert_eq!(of_base(&own, &[entry("x", false), entry("y", false)], 2), 3);
        assert_eq!(of_base(&own, &[], 1), 1);
        assert_eq!(of_base(&own, &[], 0), 0);
        assert_eq!(of_base(&[], &own[..2], 1), 0);
    }
}
