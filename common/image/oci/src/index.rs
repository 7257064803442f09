//! Joins images into one image for several platforms (OCI image-spec, image-index.md).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    Layout, Platform,
    layout::Error,
    spec::{Descriptor, MediaType, SCHEMA_VERSION},
};

/// The index entry of an image, with its platform and without the store's annotations.
///
/// # Errors
/// When the image cannot be read.
pub fn entry(layout: &Layout, image: &Descriptor) -> Result<Value, Error> {
    let found = layout.image(image, None)?;
    let Platform { os, architecture, variant } = found.platform();
    let mut platform = json!({"architecture": architecture, "os": os});
    if let Some(variant) = variant {
        platform["variant"] = variant.into();
    }
    for member in ["os.version", "os.features"] {
        if let Some(value) = found.raw_configuration.get(member) {
            platform[member] = value.clone();
        }
    }
    Ok(json!({
        "mediaType": image.media_type(),
        "digest": image.digest(),
        "size": image.size(),
        "platform": platform,
    }))
}

/// Writes an index of these entries, in their order, with these annotations.
///
/// # Errors
/// When the index cannot be written.
pub fn write(
    layout: &Layout,
    entries: &[Value],
    annotations: &[(String, String)],
) -> Result<Descriptor, Error> {
    let mut index = json!({
        "schemaVersion": SCHEMA_VERSION,
        "mediaType": MediaType::ImageIndex,
        "manifests": entries,
    });
    if !annotations.is_empty() {
        index["annotations"] = annotations.iter().cloned().collect::<BTreeMap<_, _>>().into_iter().collect();
    }
    layout.write_json(MediaType::ImageIndex, &index)
}
