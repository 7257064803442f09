//! Finds damage in the image store.
//!
//! # Does
//! Reads every blob of the store, or of the given images, and follows every name. With `--remove` it removes
//! blobs that do not match their digests, and names of incomplete images. The next pull, load or build then
//! stores them again.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"blobs", "bytes", "damaged": [{digest, size, problem}], "lost": [{reference, digest,
//! problem}], "removed"}`. Exits with 1 if damage was found and not removed.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to `$STAVE_ROOT/images`; with `--remove` write access.

use std::process::ExitCode;

use clap::Parser;
use oci::{Layout, layout::Findings};
use serde_json::{Value, json};
use toolkit::prelude::*;

/// Find damaged blobs, and names of incomplete images
#[derive(Parser)]
#[command(name = "img-verify", version, after_help = toolkit::EQUIVALENT_HELP)]
struct Verify {
    /// Images: names, ids, or the first digits of ids; by default, the whole store
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove damaged blobs, and names of incomplete images
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl Report for Verify {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let layout = self.layout(context)?;
        let findings = layout.verify(&self.images)?;
        if self.remove {
            layout.remove_findings(&findings)?;
        }
        let mut report = serde_json::to_value(&findings)?;
        report["removed"] = json!(self.remove);
        Ok(report)
    }

    fn verdict(&self, report: &Value) -> Result<()> {
        let count = |member: &str| report[member].as_array().map_or(0, Vec::len);
        let (damaged, lost) = (count("damaged"), count("lost"));
        if self.remove || damaged + lost == 0 {
            return Ok(());
        }
        let found = anyhow!("{} damaged, {} incomplete image", several(damaged, "blob", "is", "are"), {
            several(lost, "name", "leads to an", "lead to an")
        });
        Err(hint(found, "`img-verify --remove` removes them; then pull, load or build the images again"))
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let layout = self.layout(context)?;
        if !self.remove {
            let blobs = operation::quote(&layout.path().join("blobs/sha256").to_string_lossy());
            return Ok(toolkit::equivalent([format!(
                "cd {blobs} && for blob in *; do echo \"$blob  $blob\"; done | sha256sum --check --quiet"
            )]));
        }
        let Findings { damaged, lost, .. } = layout.verify(&self.images)?;
        let blobs = damaged
            .iter()
            .map(|blob| operation::words(["rm", &layout.blob_path(&blob.digest).to_string_lossy()]));
        let names = lost.iter().map(|lost| {
            let name = lost.reference.as_ref().map_or(lost.digest.clone(), ToString::to_string);
            operation::words(["docker", "rmi", "--no-prune", &name])
        });
        Ok(toolkit::equivalent(blobs.chain(names)))
    }
}

impl Verify {
    fn layout(&self, context: &Context) -> Result<Layout> {
        Ok(Layout::look(context.scope.root.join("images"))?.with_sync(self.writing.is_synced()?))
    }
}

/// `1 blob is`, or `2 blobs are`.
fn several(count: usize, what: &str, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {what} {one}"),
        _ => format!("{count} {what}s {many}"),
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Verify>()
}
