//! The manifest of an image that was built here.

use oci::{
    Layout,
    spec::{Descriptor, ImageManifestBuilder, MediaType, SCHEMA_VERSION},
};

use crate::error::Cause;

/// Layers of a base may have Docker's media types; an OCI manifest uses OCI's.
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

/// Writes the manifest of a configuration and its layers, lowest first, with these annotations.
pub(crate) fn write(
    layout: &Layout,
    config: Descriptor,
    layers: &[Descriptor],
    annotations: &[(String, String)],
) -> Result<Descriptor, Cause> {
    let mut manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers.iter().map(as_oci).collect::<Vec<_>>())
        .build()
        .map_err(|error| Cause::Configuration(serde::ser::Error::custom(error)))?;
    if !annotations.is_empty() {
        manifest.set_annotations(Some(annotations.iter().cloned().collect()));
    }
    let mut value = serde_json::to_value(&manifest)?;
    // The order of a map is not always the same.
    if let Some(annotations) = value.get_mut("annotations") {
        annotations.sort_all_objects();
    }
    Ok(layout.write_json(MediaType::ImageManifest, &value)?)
}
