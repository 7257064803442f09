//! The image that a build ends with.

use oci::{
    Digest,
    spec::{Descriptor, ImageConfiguration, ImageManifestBuilder, MediaType, SCHEMA_VERSION},
};

use super::{Builder, Built, stage::State};
use crate::{config::Image, error::Cause};

/// The id of the image that this configuration makes: its digest.
pub(super) fn id(image: &Image) -> Result<Digest, Cause> {
    Ok(Digest::of(&oci::json::to_vec(image)?))
}

/// Layers of a base may be Docker's; in an OCI manifest they go by the OCI's names.
fn as_oci(descriptor: &Descriptor) -> Descriptor {
    let mut descriptor = descriptor.clone();
    let media_type = match descriptor.media_type().to_string().as_str() {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => MediaType::ImageLayerGzip,
        "application/vnd.docker.image.rootfs.diff.tar" => MediaType::ImageLayer,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => MediaType::ImageLayerZstd,
        _ => return descriptor,
    };
    descriptor.set_media_type(media_type);
    descriptor
}

impl Builder<'_> {
    /// Writes the image, and gives it its names.
    pub(super) fn finish(&self, mut state: State) -> Result<Built, Cause> {
        let labels = self.options.labels.iter().cloned();
        state.image.config.labels.extend(labels);
        if state.image.created.is_none() {
            state.image.created = Some(self.created());
        }
        let layout = &self.store.layout;
        let config = layout.write_json(MediaType::ImageConfig, &state.image)?;
        let id = Digest::try_from(config.digest()).map_err(oci::layout::Error::from)?;
        let layers: Vec<_> = state.layers.iter().map(|layer| as_oci(&layer.descriptor)).collect();
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(layers)
            .build()
            .map_err(|error| Cause::Configuration(serde::ser::Error::custom(error)))?;
        let descriptor = layout.write_json(MediaType::ImageManifest, &manifest)?;
        self.progress.line(&format!("Successfully built {}", id.short()));
        for tag in &self.options.tags {
            layout.tag(tag, &descriptor)?;
            self.progress.line(&format!("Successfully tagged {tag}"));
        }
        if self.options.tags.is_empty() {
            layout.add(&descriptor)?;
        }
        let configuration: ImageConfiguration = serde_json::from_value(serde_json::to_value(&state.image)?)?;
        Ok(Built { descriptor, configuration, id })
    }
}
