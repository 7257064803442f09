//! Lists what will be removed, and removes it.

use std::{path::PathBuf, time::Duration};

use builder::workspace::Pause;
use layer::store::Store;
use oci::{
    Layout,
    gc::{Marks, Sweep},
};
use toolkit::prelude::*;

use super::{
    Gc,
    waste::{Layer, Waste, is_old, mark, mark_containers},
};

impl Gc {
    /// How long a step of the cache must be unused to be removed. None if age does not matter.
    fn cache_age(&self) -> Result<Option<Duration>> {
        match (self.cache, self.keep_since) {
            (Some(Some(_)), Some(_)) => bail!("--cache TIME and --keep-since say the same: give one of them"),
            (Some(Some(age)), None) | (_, Some(age)) => Ok(Some(age)),
            (Some(None), None) if self.keep_size.is_none() => Ok(Some(Duration::ZERO)),
            (Some(None) | None, None) => Ok(None),
        }
    }

    /// Makes the list, which is then printed or removed.
    pub(crate) fn plan(&self, context: &Context, is_plan: bool) -> Result<Waste> {
        let images = context.scope.root.join("images");
        let builds = killed_builds(context, true)?;
        let networks =
            builder::network::forsaken(&context.scope.run_dir).map_err(operation::Error::caused_by)?;
        let age = self.cache_age()?;
        let pause = builder::workspace::pause(&context.scope.root).map_err(not_locked)?;
        // First the cache, because blobs that a step of the cache mentions stay as long as the step.
        let cache = match &pause {
            Some(pause) => self.unused_cache(context, age, is_plan, pause)?,
            None => Vec::new(),
        };
        let store = match Layout::open(&images) {
            Ok(layout) => {
                let layout = layout.with_sync(self.writing.is_synced()?);
                let sweep = layout
                    .garbage(|marks| mark(context, marks, &cache), self.grace, is_plan)
                    .map_err(hinted)?;
                (layout, sweep)
            }
            // Without a list of images, it is unknown which layers they use. If a process was killed while it
            // made the store, there is no list yet: oci-layout is written last.
            Err(oci::layout::Error::NotALayout(_)) if !images.join("oci-layout").exists() => {
                return Ok(Waste { store: None, layers: Vec::new(), builds, networks, cache, pause });
            }
            Err(error) => return Err(error.into()),
        };
        let layers = match &pause {
            Some(_) => self.unused_layers(context, &store.1)?,
            // A running build mounts layers where no other process sees them.
            None => Vec::new(),
        };
        Ok(Waste { store: Some(store), layers, builds, networks, cache, pause })
    }

    /// Removes unused parts of the build cache, or with `is_plan` only lists them.
    fn unused_cache(
        &self,
        context: &Context,
        age: Option<Duration>,
        is_plan: bool,
        pause: &Pause,
    ) -> Result<Vec<PathBuf>> {
        let root = &context.scope.root;
        let mut cache = Vec::new();
        if let Some(age) = age {
            let mut used = Marks::default();
            mark_containers(context, &mut used)?;
            cache = builder::cache::prune(root, age, &used, is_plan, pause).map_err(not_removed)?;
        }
        if let Some(most) = self.keep_size {
            let more = builder::cache::shrink(root, most, is_plan, pause).map_err(not_removed)?;
            cache.extend(more.into_iter().filter(|path| !cache.contains(path)).collect::<Vec<_>>());
        }
        Ok(cache)
    }

    fn unused_layers(&self, context: &Context, sweep: &Sweep) -> Result<Vec<Layer>> {
        let directory = context.scope.root.join("layers");
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let store = Store::open(&context.scope.root)?;
        let mut unused = Vec::new();
        for diff_id in store.list()? {
            if !sweep.marks.contains(&diff_id) && is_old(&directory, &diff_id, sweep.age)? {
                unused.push(Layer { paths: store.paths(&diff_id)?, diff_id });
            }
        }
        Ok(unused)
    }

    /// Removes what is listed. A layer that a container has taken in the meantime is removed from the list.
    pub(crate) fn remove(&self, context: &Context, waste: &mut Waste) -> Result<()> {
        if let Some((layout, sweep)) = &mut waste.store {
            sweep.remove(layout)?;
        }
        if !waste.layers.is_empty() {
            let store = Store::open(&context.scope.root)?;
            let directory = context.scope.root.join("layers");
            let mut removed = Vec::new();
            let images = Layout::open(context.scope.root.join("images"))?;
            for layer in waste.layers.drain(..) {
                let unused = || -> Result<bool> {
                    let mut again = Marks::default();
                    mark(context, &mut again, &[])?;
                    // A pull may have begun since.
                    let age = images.age(self.grace)?;
                    Ok(!again.contains(&layer.diff_id) && is_old(&directory, &layer.diff_id, age)?)
                };
                if store.remove(&layer.diff_id, unused)? {
                    removed.push(layer);
                }
            }
            waste.layers = removed;
        }
        // `killed_builds` takes the same lock.
        drop(waste.pause.take());
        waste.builds = killed_builds(context, false)?;
        waste.networks = builder::network::collect(&context.scope.root, &context.scope.run_dir)
            .map_err(operation::Error::caused_by)?;
        Ok(())
    }
}

/// Removes the remains of killed builds, or with `dry_run` only lists them.
fn killed_builds(context: &Context, dry_run: bool) -> Result<Vec<PathBuf>> {
    builder::workspace::collect(&context.scope.root, dry_run).map_err(not_removed)
}

fn not_removed((path, error): (PathBuf, std::io::Error)) -> anyhow::Error {
    anyhow::Error::from(error).context(format!("remove {path:?}"))
}

fn not_locked((path, error): (PathBuf, std::io::Error)) -> anyhow::Error {
    anyhow::Error::from(error).context(format!("lock {path:?}"))
}

fn hinted(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(oci::layout::Error::Restored(_)) => {
            hint(error, "check with `img-ls` that all names are there, then run img-gc again")
        }
        Some(oci::layout::Error::Unknown { name, .. }) => {
            let words = format!(
                "nothing was removed: pull or load {name} again, or remove the name with `img-rm {name}`"
            );
            hint(error, words)
        }
        _ => error,
    }
}
