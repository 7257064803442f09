//! Writes the manifest of an image that was built.

use oci::{
    Layout, Platform, Reference,
    media_type::{
        DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD, DOCKER_MANIFEST, Kind, kind,
    },
    spec::{Descriptor, ImageManifestBuilder, MediaType, SCHEMA_VERSION},
};

use crate::error::Cause;

/// The form of a manifest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// OCI image-spec, manifest.md.
    #[default]
    Oci,
    /// Docker's image manifest version 2, schema 2. It has no annotations, and no layers with zstd.
    Docker,
}

impl Format {
    /// The manifest's media type.
    pub(crate) fn manifest(self) -> MediaType {
        match self {
            Self::Oci => MediaType::ImageManifest,
            Self::Docker => MediaType::from(DOCKER_MANIFEST),
        }
    }

    fn config(self) -> MediaType {
        match self {
            Self::Oci => MediaType::ImageConfig,
            Self::Docker => MediaType::from(DOCKER_CONFIG),
        }
    }

    /// The layer with the media type of this form. A layer of another kind stays as it is.
    fn layer(self, layer: &Descriptor) -> Descriptor {
        const PAIRS: [(MediaType, &str); 3] = [
            (MediaType::ImageLayer, DOCKER_LAYER),
            (MediaType::ImageLayerGzip, DOCKER_LAYER_GZIP),
            (MediaType::ImageLayerZstd, DOCKER_LAYER_ZSTD),
        ];
        let own = layer.media_type().to_string();
        let mut layer = layer.clone();
        if let Some((oci, docker)) =
            PAIRS.iter().find(|(oci, docker)| own == *docker || own == oci.to_string())
        {
            layer.set_media_type(match self {
                Self::Oci => oci.clone(),
                Self::Docker => MediaType::from(*docker),
            });
        }
        layer
    }
}

/// Makes sure that no name of a new image leads to several platforms so far: `image`, of which only one is taken. With
/// `platform` the caller has chosen that one.
pub(crate) fn hold_platforms(
    layout: &Layout,
    image: &Descriptor,
    platform: Option<&Platform>,
    names: &[Reference],
) -> Result<(), Cause> {
    if platform.is_some() || kind(image) != Kind::Index {
        return Ok(());
    }
    let index = layout.index(image)?;
    // Attestations are for no platform.
    let is_real =
        |entry: &&Descriptor| !entry.platform().as_ref().is_some_and(|own| Platform::from(own).is_unknown());
    let count = index.manifests().iter().filter(is_real).count();
    for name in names.iter().filter(|_| count > 1) {
        if layout.resolve(&name.canonical())?.is_some_and(|found| found.digest() == image.digest()) {
            return Err(Cause::LosesPlatforms(name.to_string(), count));
        }
    }
    Ok(())
}

/// Writes an OCI manifest. `layers` are lowest first.
pub(crate) fn write(
    layout: &Layout,
    config: Descriptor,
    layers: &[Descriptor],
    annotations: &[(String, String)],
) -> Result<Descriptor, Cause> {
    write_as(Format::Oci, layout, config, layers, annotations)
}

/// Writes a manifest. `layers` are lowest first. Docker's form has no annotations: `annotations` is empty then.
pub(crate) fn write_as(
    format: Format,
    layout: &Layout,
    mut config: Descriptor,
    layers: &[Descriptor],
    annotations: &[(String, String)],
) -> Result<Descriptor, Cause> {
    config.set_media_type(format.config());
    let mut manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(format.manifest())
        .config(config)
        .layers(layers.iter().map(|layer| format.layer(layer)).collect::<Vec<_>>())
        .build()
        .map_err(|error| Cause::Configuration(serde::ser::Error::custom(error)))?;
    if !annotations.is_empty() {
        manifest.set_annotations(Some(annotations.iter().cloned().collect()));
    }
    let mut value = serde_json::to_value(&manifest)?;
    // The annotations are in a hash map, whose order is random.
    if let Some(annotations) = value.get_mut("annotations") {
        annotations.sort_all_objects();
    }
    Ok(layout.write_json(format.manifest(), &value)?)
}
