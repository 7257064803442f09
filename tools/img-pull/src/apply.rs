//! Layers that are unpacked while they come.

use std::path::{Path, PathBuf};

use layer::{
    apply::{Below, Error, Options},
    store::Store,
};
use oci::{Digest, Image};
use registry::{Event, Progress, pull::Layers};
use toolkit::prelude::*;

/// Unpacks the layers below `$STAVE_ROOT/layers`, lowest first, as layer-apply does without flags.
pub(crate) fn apply(layers: &Layers, image: &Image, root: &Path, progress: &dyn Progress) -> Result<()> {
    let store = Store::open(root)?;
    let options = Options::default();
    let mut below: Vec<PathBuf> = Vec::new();
    for (descriptor, diff_id) in image.layers()? {
        let digest = Digest::try_from(descriptor.digest())?;
        let standing = Below::open(&below)
            .map_err(|source| Error::Store { verb: "open layers below", path: root.join("layers"), source })
            .and_then(|below| store.apply(&diff_id, || layers.open(descriptor), &below, &options))
            .map_err(|source| Error::Layer { digest: digest.clone(), source: Box::new(source) })?;
        below.push(standing.directory);
        progress.tell(&digest, Event::Done);
    }
    Ok(())
}
