//! The files of an image in the store, with all its layers merged.

use std::{io::Write, os::fd::AsFd, path::Path};

use layer::{compression::Compression, diff::Summary};

use super::{
    Options,
    store::{Store, open_readable},
};
use crate::{cache::Layer, error::Cause, moment::Moment};

/// The layers of an image in the store below `root` (`$STAVE_ROOT`).
#[derive(Debug)]
pub struct Whole {
    store: Store,
    layers: Vec<Layer>,
}

impl Whole {
    /// Takes the layers of an image. The calling process moves to its own mount namespace when they are read,
    /// and must have only one thread then.
    ///
    /// # Errors
    /// When there is no store, or the store does not have a layer.
    pub fn new(root: &Path, image: &oci::Image, no_sync: bool) -> Result<Self, Cause> {
        Self::of(root, layers_of(image)?, no_sync)
    }

    pub(crate) fn of(root: &Path, layers: Vec<Layer>, no_sync: bool) -> Result<Self, Cause> {
        let store = Store::open(&Options { root: root.to_owned(), no_sync, ..Options::default() })?;
        Ok(Self { store, layers })
    }

    /// Writes all files as one archive. It contains no whiteouts.
    ///
    /// # Errors
    /// When a layer cannot be unpacked, or the archive cannot be written.
    pub fn write(&self, out: &mut dyn Write, compression: Compression) -> Result<Summary, Cause> {
        write(&self.store, &self.layers, out, compression)
    }

    /// Merges all layers into one. Files keep their times.
    pub(crate) fn flatten(&self) -> Result<Layer, Cause> {
        self.store.difference(&self.layers, 0, Moment::untouched())
    }
}

/// Writes all files of the layers as one archive.
pub(super) fn write(
    store: &Store,
    layers: &[Layer],
    out: &mut dyn Write,
    compression: Compression,
) -> Result<Summary, Cause> {
    let mounted = store.readable(layers)?;
    let root = open_readable(&mounted.rootfs)?;
    let options = layer::diff::Options { compression, ..layer::diff::Options::default() };
    layer::diff::upper(root.as_fd(), out, &options).map_err(Cause::Tree)
}

/// The layers of an image, lowest first.
pub(crate) fn layers_of(image: &oci::Image) -> Result<Vec<Layer>, Cause> {
    let layers = image.layers()?.into_iter();
    Ok(layers.map(|(descriptor, diff_id)| Layer { descriptor: descriptor.clone(), diff_id }).collect())
}
