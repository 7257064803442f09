//! Layers that are unpacked while they come.

use std::path::Path;

use layer::{
    apply::Options,
    store::{Format, Store, Wanted},
};
use oci::{Digest, Image};
use registry::{Event, Progress, pull::Layers};
use toolkit::prelude::*;

/// Unpacks the layers below `$STAVE_ROOT/layers`, as layer-apply does with no flag but `--format`.
pub(crate) fn apply(
    layers: &Layers,
    image: &Image,
    root: &Path,
    format: Format,
    progress: &dyn Progress,
) -> Result<()> {
    let store = Store::open(root)?;
    let options = Options { format, ..Options::default() };
    let image_layers = image.layers()?;
    let wanted = |(descriptor, diff_id): &(&oci::spec::Descriptor, Digest)| {
        Ok(Wanted { blob: Digest::try_from(descriptor.digest())?, diff_id: diff_id.clone() })
    };
    let wanted = image_layers.iter().map(wanted).collect::<Result<Vec<_>>>()?;
    let open = |index: usize| layers.open(image_layers[index].0);
    store.apply_all(&wanted, open, &options, |index, _| progress.tell(&wanted[index].blob, Event::Done))?;
    Ok(())
}
