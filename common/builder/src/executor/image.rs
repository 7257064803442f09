//! The final image of a build.

use oci::{Digest, spec::MediaType};

use super::{Builder, Built, stage::State};
use crate::{config::Image, error::Cause, manifest};

/// The id of the image with this configuration: its digest.
pub(super) fn id(image: &Image) -> Result<Digest, Cause> {
    Ok(Digest::of(&oci::json::to_vec(image)?))
}

impl Builder<'_> {
    /// Writes the image, and tags it.
    pub(super) fn finish(&self, mut state: State) -> Result<Built, Cause> {
        let labels = self.options.labels.iter().cloned();
        state.image.config.labels.extend(labels);
        if state.image.created.is_none() {
            state.image.created = Some(self.created());
        }
        let layout = &self.store.images.layout;
        let config = layout.write_json(MediaType::ImageConfig, &state.image)?;
        let id = Digest::try_from(config.digest()).map_err(oci::layout::Error::from)?;
        let layers: Vec<_> = state.layers.iter().map(|layer| layer.descriptor.clone()).collect();
        let descriptor = manifest::write(layout, config, &layers, &self.options.annotations)?;
        self.progress.line(&format!("Successfully built {}", id.short()));
        layout.name(&descriptor, &self.options.tags)?;
        for tag in &self.options.tags {
            self.progress.line(&format!("Successfully tagged {tag}"));
        }
        let mut configuration = serde_json::to_value(&state.image)?;
        configuration.sort_all_objects();
        Ok(Built { descriptor, configuration, id, tree: None })
    }
}
