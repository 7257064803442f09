//! Layers that are unpacked while they come.

use std::{path::Path, sync::Once};

use anyhow::Error;

use layer::{
    apply::Options,
    store::{Standing, Store, Wanted},
};
use oci::{Digest, Image};
use registry::{Event, Progress, pull::Layers};
use toolkit::prelude::*;

/// Unpacks the layers below `$STAVE_ROOT/layers`, as layer-apply does without flags. What came from a mirror that sent
/// wrong bytes is thrown away, and unpacked again from those that come instead.
pub(crate) fn apply(layers: &Layers, image: &Image, root: &Path, progress: &dyn Progress) -> Result<()> {
    let store = Store::open(root)?;
    let options = Options::default();
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
            // The layers that stand are found. Of the others, nothing is left.
            Err(layer::apply::Error::Layer { digest, .. }) if layers.begun_again(&digest) => {}
            outcome => return outcome.map(drop).map_err(Error::from),
        }
    }
}
