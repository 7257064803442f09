//! Removes unused blobs and unpacked layers.
//!
//! # Does
//! Keeps every blob and unpacked layer that is used: by an image in the list, by a container's record, by the build cache or
//! by a mount. Keeps everything younger than `--grace`. Removes the rest, and the remains of killed builds. If something that
//! may name a blob or layer cannot be read, nothing is removed.
//! # Reads
//! No document; `$STAVE_RUN/*.json`, `$STAVE_ROOT/cache`, `/proc/self/mountinfo`.
//! # Adds
//! Nothing; prints `{"blobs": [{digest, size}], "layers": [DiffIDs], "builds": [directories], "bytes", "dryRun"}`.
//! # Undoes
//! Nothing.
//! # Needs
//! Write access to `$STAVE_ROOT`; root, where root unpacked the layers.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use layer::store::Store;
use oci::{
    Digest, Layout,
    gc::{Garbage, Marks, is_older},
    summary::human_size,
};
use serde_json::{Value, json};
use toolkit::prelude::*;

/// Remove unused blobs and unpacked layers
#[derive(Parser)]
#[command(name = "img-gc", version)]
struct Gc {
    /// Keep everything younger than this: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = operation::quantity::age)]
    grace: Duration,
    #[command(flatten)]
    common: Common,
}

impl Report for Gc {
    const PLANS: bool = true;

    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let (blobs, layers) = self.collect(context, self.common.dry_run)?;
        let builds = killed_builds(context, self.common.dry_run)?;
        if !context.quiet {
            let bytes = human_size(blobs.iter().map(|blob| blob.size).sum());
            let words = if self.common.dry_run { "Would remove" } else { "Removed" };
            eprintln!("{words}: {} blobs ({bytes}), {} unpacked layers", blobs.len(), layers.len());
        }
        let bytes: u64 = blobs.iter().map(|blob| blob.size).sum();
        Ok(
            json!({"blobs": blobs, "layers": layers, "builds": builds, "bytes": bytes, "dryRun": self.common.dry_run}),
        )
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let (blobs, layers) = self.collect(context, true)?;
        let root = context.scope.root.to_string_lossy();
        let blobs = blobs.iter().map(|blob| {
            operation::words(["rm", &format!("{root}/images/blobs/sha256/{}", blob.digest.hex())])
        });
        let mut lines: Vec<String> = blobs.collect();
        for diff_id in layers {
            let paths = Store::open(&context.scope.root)?.paths(&diff_id)?;
            let paths = paths.iter().map(|path| path.to_string_lossy());
            lines.push(operation::words(["rm".into(), "-r".into()].into_iter().chain(paths)));
        }
        let builds = killed_builds(context, true)?;
        lines.extend(
            builds.iter().map(|directory| operation::words(["rm", "-r", &directory.to_string_lossy()])),
        );
        Ok(lines)
    }
}

impl Gc {
    /// What was removed, or would be.
    fn collect(&self, context: &Context, dry_run: bool) -> Result<(Vec<Garbage>, Vec<Digest>)> {
        let images = context.scope.root.join("images");
        let roots = |marks: &mut Marks| mark(context, marks);
        let (blobs, marks) = match Layout::open(&images) {
            Ok(layout) => layout.collect(roots, self.grace, dry_run)?,
            // Without a list of images, the layers that they use are unknown. A store that was killed while it was made
            // has no list yet: oci-layout is written last.
            Err(oci::layout::Error::NotALayout(_)) if !images.join("oci-layout").exists() => {
                return Ok((Vec::new(), Vec::new()));
            }
            Err(error) => return Err(error.into()),
        };
        let layers = self.sweep_layers(context, &marks, dry_run)?;
        Ok((blobs, layers))
    }

    fn sweep_layers(&self, context: &Context, marks: &Marks, dry_run: bool) -> Result<Vec<Digest>> {
        let directory = context.scope.root.join("layers");
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let store = Store::open(&context.scope.root)?;
        let mut removed = Vec::new();
        for diff_id in store.list()? {
            if marks.contains(&diff_id) || !self.is_old(&directory, &diff_id)? {
                continue;
            }
            // A container may have been started since.
            let unused = || -> Result<bool> {
                let mut again = Marks::default();
                mark(context, &mut again)?;
                Ok(!again.contains(&diff_id) && self.is_old(&directory, &diff_id)?)
            };
            if dry_run || store.remove(&diff_id, unused)? {
                removed.push(diff_id);
            }
        }
        Ok(removed)
    }

    /// Whether every file of a layer is older than the grace period.
    fn is_old(&self, directory: &Path, diff_id: &Digest) -> Result<bool> {
        for entry in std::fs::read_dir(directory).with_context(|| format!("read {directory:?}"))? {
            let path = entry.with_context(|| format!("read {directory:?}"))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.trim_start_matches('.').starts_with(diff_id.hex()) {
                continue;
            }
            match is_older(&path, self.grace) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                // Another process has removed it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("look at {path:?}")),
            }
        }
        Ok(true)
    }
}

/// The remains of killed builds.
fn killed_builds(context: &Context, dry_run: bool) -> Result<Vec<PathBuf>> {
    let left = builder::workspace::collect(&context.scope.root, dry_run);
    left.map_err(|(path, error)| anyhow::Error::from(error).context(format!("remove {path:?}")))
}

/// Marks what containers, the build cache and mounts refer to.
fn mark(context: &Context, marks: &mut Marks) -> Result<()> {
    marks.scan_directory(&context.scope.run_dir)?;
    marks.scan_directory(&context.scope.root.join("cache"))?;
    marks.scan_file(Path::new("/proc/self/mountinfo"))?;
    Ok(())
}

fn main() -> ExitCode {
    toolkit::report::<Gc>()
}
