//! Removes unused blobs and unpacked layers.
//!
//! # Does
//! Keeps every blob and unpacked layer that is used: by an image in the list, by a container's records, by
//! the build cache or by a mount. Removes images from the list whose last name went to another image longer than
//! `--grace` ago. Keeps everything younger than `--grace`, and everything since the oldest
//! running tool began to write an image. Removes the rest, and the remains of killed builds. While a build runs, it keeps all unpacked layers and the build cache; no build starts
//! while it works. If something that may name a blob or layer cannot be read, it removes nothing.
//! # Reads
//! No document. Reads `$STAVE_RUN/*.json`, `$STAVE_ROOT/containers/*/record.json`, `$STAVE_ROOT/cache` and
//! `/proc/self/mountinfo`.
//! # Adds
//! Nothing; prints `{"images": [digests], "blobs": [{digest, size}], "layers": [DiffIDs], "builds": [directories], "networks":
//! [ids], "cache": [paths], "bytes", "dryRun"}`.
//! # Undoes
//! Nothing.
//! # Needs
//! Write access to `$STAVE_ROOT`; root, if root unpacked the layers.

mod plan;
mod waste;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use oci::summary::human_size;
use serde_json::{Value, json};
use toolkit::prelude::*;
use waste::Waste;

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
    /// Also remove steps of the build cache, the longest unused first, down to this size, such as 10G
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
        if waste.pause.is_none() && !context.quiet {
            operation::note("a build runs: unpacked layers and the build cache stay");
        } else if !context.quiet && waste.store.as_ref().is_some_and(|(_, sweep)| sweep.age.is_writing()) {
            operation::note("an image is being written: everything since that began stays");
        }
        if !self.common.dry_run {
            self.remove(context, &mut waste)?;
        }
        let Waste { store, layers, builds, networks, cache, .. } = &waste;
        let blobs = store.as_ref().map(|(_, sweep)| &sweep.blobs[..]).unwrap_or_default();
        let images = store.as_ref().map(|(_, sweep)| &sweep.images[..]).unwrap_or_default();
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
            json!({"images": images, "blobs": blobs, "layers": layers, "builds": builds, "networks": networks, "cache": cache, "bytes": bytes, "dryRun": self.common.dry_run}),
        )
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        Ok(self.plan(context, true)?.explain())
    }

    fn shown(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Gc>()
}
