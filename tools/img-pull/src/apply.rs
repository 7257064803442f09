//! Unpacks layers while they arrive.

use std::{path::Path, sync::Once};

use anyhow::Error;

use layer::{
    apply::{Limits, Options},
    store::{Format, Standing, Store, Wanted},
};
use oci::{Digest, Image};
use registry::{Event, Progress, pull::Layers};
use toolkit::prelude::*;

/// The flags of layer-apply: limits for layers, and how to unpack them.
#[derive(Debug, clap::Args)]
pub(crate) struct Unpacking {
    /// Make each layer a directory, or with erofs an image in one file
    #[arg(long, value_name = "FORM", default_value = "directory", requires = "apply")]
    format: Format,
    /// Refuse a layer whose archive is larger than this: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = operation::quantity::size, requires = "apply")]
    max_size: u64,
    /// Refuse a layer with more than N entries
    #[arg(long, value_name = "N", default_value_t = 10_000_000, requires = "apply")]
    max_entries: u64,
    /// Refuse a layer over 4 GiB whose archive is more than N times larger than its blob; over 64 MiB if N is below 1000
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "apply")]
    max_ratio: u64,
    /// Refuse a layer with device nodes
    #[arg(long, requires = "apply")]
    no_devices: bool,
    /// In a user namespace, unpack files of unmapped owners as the caller's, and device nodes as empty files
    #[arg(long, requires = "apply")]
    rootless: bool,
}

impl Unpacking {
    fn options(&self) -> Options {
        let limits = Limits { size: self.max_size, entries: self.max_entries, ratio: self.max_ratio };
        let (devices, rootless, format) = (!self.no_devices, self.rootless, self.format);
        Options { limits, devices, rootless, format, ..Options::default() }
    }
}

/// Adds a hint for an ordinary user, if a layer was refused.
pub(crate) fn hinted(error: Error) -> Error {
    let refused = error.chain().find_map(|cause| cause.downcast_ref::<layer::apply::Error>());
    match refused.and_then(layer::apply::Error::hint) {
        _ if refused.is_some_and(layer::apply::Error::is_of_ratio) => {
            hint(error, "if you trust the image, allow more with --max-ratio N")
        }
        Some(what) => hint(error, format!("{what}, or `--rootless`")),
        None => toolkit::of_place(error, operation::Place::Store),
    }
}

/// Unpacks the layers below `$STAVE_ROOT/layers`, as layer-apply does. If a mirror sends wrong bytes, the
/// unpacked part is thrown away, and the layer is unpacked again from the next source.
pub(crate) fn apply(
    layers: &Layers,
    image: &Image,
    root: &Path,
    unpacking: &Unpacking,
    progress: &dyn Progress,
) -> Result<()> {
    let store = Store::open(root)?;
    let options = unpacking.options();
    let image_layers = image.layers()?;
    let wanted = |(descriptor, diff_id): &(&oci::spec::Descriptor, Digest)| {
        Ok(Wanted { blob: Digest::try_from(descriptor.digest())?, diff_id: diff_id.clone() })
    };
    let wanted = image_layers.iter().map(wanted).collect::<Result<Vec<_>>>()?;
    let open = |index: usize| layers.open(image_layers[index].0);
    let told: Vec<_> = wanted.iter().map(|_| Once::new()).collect();
    let tell = |index: usize, _: &Standing| {
        told[index].call_once(|| progress.tell(&wanted[index].blob, Event::Done));
    };
    loop {
        match store.apply_all(&wanted, open, &options, tell) {
            // Complete layers are found again. Nothing is left of the others.
            Err(layer::apply::Error::Layer { digest, .. }) if layers.begun_again(&digest) => {}
            outcome => return outcome.map(drop).map_err(Error::from),
        }
    }
}
