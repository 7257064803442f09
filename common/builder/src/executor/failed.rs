//! What a failed RUN leaves with `--keep-failed`: an image without a name, with the command's files,
//! environment and command line, and those of its mounts that outlive the build.

use oci::spec::{Descriptor, MediaType};
use serde::{Deserialize, Serialize};

use super::{Builder, process::Bind, stage::State, store::Mounted, stubs::Stubs};
use crate::{cache::Entry, error::Cause, manifest};

/// What a failed RUN left.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Left {
    /// The manifest of the image.
    pub descriptor: Descriptor,
    /// The configuration of the image.
    pub configuration: serde_json::Value,
    /// The mounts, in the form of `union-mount --volume`.
    pub volumes: Vec<String>,
    /// The mount points of mounts that ended with the build.
    pub without: Vec<String>,
    /// Whether the build used `--rootless`.
    pub rootless: bool,
}

impl Builder<'_> {
    /// Makes an image of what a command left. It contains no secrets.
    pub(super) fn leave(
        &self,
        state: &State,
        words: &[String],
        binds: &[Bind],
        mounted: Mounted,
        stubs: &Stubs,
    ) -> Result<Left, Cause> {
        let layer = self.store.commit_without(mounted, stubs, state.moment)?;
        let mut state = state.clone();
        let entry = Entry { created: state.moment.text(), layer: Some(layer) };
        state.take(entry, format!("RUN {}", words.join(" ")));
        for (name, value) in state.arguments.environment() {
            state.image.config.set_variable(&name, &value);
        }
        state.image.config.entrypoint = None;
        state.image.config.cmd = Some(words.to_vec());
        let layout = &self.store.images.layout;
        let config = layout.write_json(MediaType::ImageConfig, &state.image)?;
        let layers: Vec<_> = state.layers.iter().map(|layer| layer.descriptor.clone()).collect();
        let descriptor = manifest::write(layout, config, &layers, &[])?;
        let (mut volumes, mut without) = (Vec::new(), Vec::new());
        for bind in binds.iter().filter(|bind| bind.source.is_some()) {
            match volume(bind) {
                Some(volume) => volumes.push(volume),
                None => without.push(format!("/{}", bind.target.display())),
            }
        }
        let mut configuration = serde_json::to_value(&state.image)?;
        configuration.sort_all_objects();
        Ok(Left { descriptor, configuration, volumes, without, rootless: self.options.rootless })
    }
}

/// A mount in the form of `union-mount --volume`. It is only writable if the build itself keeps what is
/// written: a shared cache mount.
fn volume(bind: &Bind) -> Option<String> {
    let lasting = bind.lasting.as_ref()?;
    let (source, target) = (lasting.path.to_str()?, bind.target.to_str()?);
    if source.contains(':') || target.contains(':') {
        return None;
    }
    Some(format!("{source}:/{target}{}", if lasting.readonly { ":ro" } else { "" }))
}
