//! Writes the final image of a build.

use oci::{Digest, spec::MediaType};

use super::{
    Builder, Built,
    cache_transfer::{self, CacheTo, Results},
    stage::State,
};
use crate::{cache::MEMBER, config::Image, error::Cause, manifest};

/// The id of the image: the digest of its configuration.
pub(super) fn id(image: &Image) -> Result<Digest, Cause> {
    Ok(Digest::of(&oci::json::to_vec(image)?))
}

impl Builder<'_> {
    /// Merges all layers above the base into one.
    fn squash(&self, state: &mut State) -> Result<(), Cause> {
        let (layers, history) = state.below;
        if state.layers.len() < layers + 2 {
            return Ok(());
        }
        let layer = self.store.difference(&state.layers, layers, state.moment)?;
        for entry in state.image.history.iter_mut().skip(history) {
            entry.empty_layer = true;
        }
        state.image.rootfs.diff_ids.truncate(layers);
        state.image.rootfs.diff_ids.push(layer.diff_id.to_string());
        state.layers.truncate(layers);
        state.layers.push(layer);
        state.image.add_history(&state.moment.text(), "squash".to_owned(), false);
        Ok(())
    }

    /// Writes the image and gives it its names. Returns the step results for `--cache-to`, which a part of a larger build
    /// does not export itself.
    pub(super) fn finish(&self, mut state: State) -> Result<(Built, Results), Cause> {
        if self.options.squash {
            self.squash(&mut state)?;
        }
        if self.options.cache_to.contains(&CacheTo::Inline) {
            let cached = cache_transfer::entries(&self.cache, &state.layers)?;
            state.image.other.insert(MEMBER.to_owned(), cached);
        }
        let labels = self.options.labels.iter().cloned();
        state.image.config.labels.extend(labels);
        if state.image.created.is_none() {
            state.image.created = Some(state.moment.text());
        }
        if oci::json::to_vec(&state.image)?.len() as u64 > oci::layout::MAX_JSON {
            return Err(Cause::LargeConfiguration);
        }
        let layout = &self.store.images.layout;
        let config = layout.write_json(MediaType::ImageConfig, &state.image)?;
        let id = Digest::try_from(config.digest()).map_err(oci::layout::Error::from)?;
        let layers: Vec<_> = state.layers.iter().map(|layer| layer.descriptor.clone()).collect();
        let descriptor = manifest::write(layout, config, &layers, &self.options.annotations)?;
        self.progress.result(&format!("Successfully built {}", id.short()));
        if !self.options.is_part {
            layout.name(&descriptor, &self.options.tags)?;
        }
        for tag in &self.options.tags {
            self.progress.result(&format!("Successfully tagged {tag}"));
        }
        let results = Results::of(self.options, &self.cache, &state.layers);
        if !self.options.is_part {
            results.export(self.options, layout)?;
        }
        let mut configuration = serde_json::to_value(&state.image)?;
        configuration.sort_all_objects();
        Ok((Built { descriptor, configuration, id, tree: None, read: Vec::new() }, results))
    }
}
