//! Removes unused blobs and unpacked layers.
//!
//! # Does
//! Keeps every blob and unpacked layer that is used: by an image in the list, by a container's record, by the build cache or
//! by a mount. Keeps everything younger than `--grace`. Removes the rest, and the remains of killed builds. If something that
//! may name a blob or layer cannot be read, nothing is removed.
//! # Reads
//! No document; `$STAVE_RUN/*.json`, `$STAVE_ROOT/cache`, `/proc/self/mountinfo`.
//! # Adds
//! Nothing; prints `{"blobs": [{digest, size}], "layers": [DiffIDs], "builds": [directories], "networks": [ids],
//! "cache": [paths], "bytes", "dryRun"}`.
//! # Undoes
//! Nothing.
//! # Needs
//! Write access to `$STAVE_ROOT`; root, where root unpacked the layers.

mod waste;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use layer::store::Store;
use oci::{Layout, gc::Marks, summary::human_size};
use serde_json::{Value, json};
use toolkit::prelude::*;
use waste::{Layer, Waste, is_old, mark};

/// Remove unused blobs and unpacked layers
#[derive(Parser)]
#[command(name = "img-gc", version)]
struct Gc {
    /// Keep everything younger than this: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = operation::quantity::age)]
    grace: Duration,
    #[arg(help = "Also remove steps of the build cache, and cache mounts: those that no build has used for this time, such as 7d; without it, \
                  what --keep-since and --keep-size leave to remove, or else all", long, value_name = "TIME", num_args = 0..=1, value_parser = operation::quantity::age)]
    cache: Option<Option<Duration>>,
    /// The same as --cache TIME
    #[arg(long, value_name = "TIME", value_parser = operation::quantity::age)]
    keep_since: Option<Duration>,
    /// Also remove steps of the build cache, the longest unused first, until the layers of the others fit this size, such as 10G
    #[arg(long, value_name = "SIZE", value_parser = operation::quantity::size)]
    keep_size: Option<u64>,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl Report for Gc {
    const PLANS: bool = true;

    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let mut waste = self.plan(context, self.common.dry_run)?;
        if !self.common.dry_run {
            self.remove(context, &mut waste)?;
        }
        let Waste { store, layers, builds, networks, cache } = &waste;
        let blobs = store.as_ref().map(|(_, sweep)| &sweep.blobs[..]).unwrap_or_default();
        let bytes: u64 = blobs.iter().map(|blob| blob.size).sum();
        if !context.quiet {
            let words = if self.common.dry_run { "Would remove" } else { "Removed" };
            let (count, size) = (blobs.len(), human_size(bytes));
            let cached = (self.cache.is_some() || self.keep_since.is_some() || self.keep_size.is_some())
                .then(|| format!(", {} parts of the build cache", cache.len()));
            let cached = cached.unwrap_or_default();
            operation::tell!("{words}: {count} blobs ({size}), {} unpacked layers{cached}", layers.len());
        }
        let layers: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
        Ok(
            json!({"blobs": blobs, "layers": layers, "builds": builds, "networks": networks, "cache": cache, "bytes": bytes, "dryRun": self.common.dry_run}),
        )
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        Ok(self.plan(context, true)?.explain())
    }

    fn shown(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }
}

impl Gc {
    /// For how long a step of the cache must be unused to be removed; none where age is no reason.
    fn cache_age(&self) -> Result<Option<Duration>> {
        match (self.cache, self.keep_since) {
            (Some(Some(_)), Some(_)) => bail!("--cache TIME and --keep-since say the same: give one of them"),
            (Some(Some(age)), None) | (_, Some(age)) => Ok(Some(age)),
            (Some(None), None) if self.keep_size.is_none() => Ok(Some(Duration::ZERO)),
            (Some(None) | None, None) => Ok(None),
        }
    }

    /// The list: it is printed, or it is removed.
    fn plan(&self, context: &Context, is_plan: bool) -> Result<Waste> {
        let images = context.scope.root.join("images");
        let builds = killed_builds(context, true)?;
        let networks =
            builder::network::forsaken(&context.scope.run_dir).map_err(operation::Error::caused_by)?;
        // Before anything is marked: what a step of the cache mentions stays as long as the step.
        let mut cache = match self.cache_age()? {
            Some(age) => builder::cache::prune(&context.scope.root, age, is_plan).map_err(not_removed)?,
            None => Vec::new(),
        };
        if let Some(most) = self.keep_size {
            let more = builder::cache::shrink(&context.scope.root, most, is_plan).map_err(not_removed)?;
            cache.extend(more.into_iter().filter(|path| !cache.contains(path)).collect::<Vec<_>>());
        }
        let store = match Layout::open(&images) {
            Ok(layout) => {
                let layout = layout.with_sync(self.writing.is_synced()?);
                let sweep = layout
                    .garbage(|marks| mark(context, marks, &cache), self.grace, is_plan)
                    .map_err(hinted)?;
                (layout, sweep)
            }
            // Without a list of images, the layers that they use are unknown. A store that was killed while it was made
            // has no list yet: oci-layout is written last.
            Err(oci::layout::Error::NotALayout(_)) if !images.join("oci-layout").exists() => {
                return Ok(Waste { store: None, layers: Vec::new(), builds, networks, cache });
            }
            Err(error) => return Err(error.into()),
        };
        let layers = self.unused_layers(context, &store.1.marks)?;
        Ok(Waste { store: Some(store), layers, builds, networks, cache })
    }

    fn unused_layers(&self, context: &Context, marks: &Marks) -> Result<Vec<Layer>> {
        let directory = context.scope.root.join("layers");
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let store = Store::open(&context.scope.root)?;
        let mut unused = Vec::new();
        for diff_id in store.list()? {
            if !marks.contains(&diff_id) && is_old(&directory, &diff_id, self.grace)? {
                unused.push(Layer { paths: store.paths(&diff_id)?, diff_id });
            }
        }
        Ok(unused)
    }

    /// Removes what is listed. A layer that a container has taken since goes from the list.
    fn remove(&self, context: &Context, waste: &mut Waste) -> Result<()> {
        if let Some((layout, sweep)) = &mut waste.store {
            sweep.remove(layout)?;
        }
        if !waste.layers.is_empty() {
            let store = Store::open(&context.scope.root)?;
            let directory = context.scope.root.join("layers");
            let mut removed = Vec::new();
            for layer in waste.layers.drain(..) {
                let unused = || -> Result<bool> {
                    let mut again = Marks::default();
                    mark(context, &mut again, &[])?;
                    Ok(!again.contains(&layer.diff_id) && is_old(&directory, &layer.diff_id, self.grace)?)
                };
                if store.remove(&layer.diff_id, unused)? {
                    removed.push(layer);
                }
            }
            waste.layers = removed;
        }
        waste.builds = killed_builds(context, false)?;
        waste.networks = builder::network::collect(&context.scope.root, &context.scope.run_dir)
            .map_err(operation::Error::caused_by)?;
        Ok(())
    }
}

/// The remains of killed builds.
fn killed_builds(context: &Context, dry_run: bool) -> Result<Vec<PathBuf>> {
    builder::workspace::collect(&context.scope.root, dry_run).map_err(not_removed)
}

fn not_removed((path, error): (PathBuf, std::io::Error)) -> anyhow::Error {
    anyhow::Error::from(error).context(format!("remove {path:?}"))
}

fn hinted(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(oci::layout::Error::Restored(_)) => {
            hint(error, "look with `img-ls` whether all names are there, then run img-gc again")
        }
        _ => error,
    }
}

fn main() -> ExitCode {
    toolkit::report::<Gc>()
}
