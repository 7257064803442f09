//! Writes a directory as a layer.
//!
//! # Does
//! With one directory: writes an upper directory of overlayfs (whiteouts 0:0, opaque directories) as an OCI layer. With two:
//! writes the changes that turn the first into the second. With none: writes what a container wrote, from the document,
//! without empty mount points. The same directory gives the same bytes.
//! # Reads
//! `rootfs`, if no directory is named; otherwise no document.
//! # Adds
//! Nothing; prints `{"descriptor", "diffID", "entries", "size"}`. The blob goes into the image store, or with `-o` to a
//! file. With `-o -` it goes to standard output, and nothing else is printed.
//! # Undoes
//! Nothing: the blob stays in the store until `img-gc` finds it unused.
//! # Needs
//! root, to read every file and overlayfs's own attributes.

mod list;
mod trees;

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use layer::{
    compression::Compression,
    diff::{self, Summary},
};
use oci::{
    Layout,
    digest::{Algorithm, Hashing},
    spec::Descriptor,
};
use serde_json::{Value, json};
use toolkit::prelude::*;
use trees::{Trees, open, written};

/// Write an upper directory, or the difference between two directories, as a layer
#[derive(Parser)]
#[command(name = "layer-diff", version, after_help = toolkit::EQUIVALENT_HELP)]
struct LayerDiff {
    /// UPPER, an upper directory of overlayfs; or LOWER and UPPER, two whole trees; by default the document's `rootfs`
    #[arg(value_name = "DIRECTORY", num_args = 0..=2)]
    directories: Vec<PathBuf>,
    /// Write the layer to this file, or to standard output for -; by default it goes into the image store
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write no layer: print what has changed, a line each, as docker diff does: A for added, C for changed, D for removed
    #[arg(long, conflicts_with = "output")]
    list: bool,
    /// Compress the layer: none, gzip or zstd, with an optional level (gzip:9)
    #[arg(long, value_name = "HOW", default_value = "gzip")]
    compression: Compression,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl Report for LayerDiff {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let trees = self.trees()?;
        if self.list {
            return list::lines(&trees, &trees.lower(&self.directories)).map(Value::String);
        }
        let (summary, descriptor) = match &self.output {
            Some(path) => self.write_output(&trees, path)?,
            None => {
                let layout = Layout::open_or_create_with(
                    context.scope.root.join("images"),
                    self.writing.is_synced()?,
                )?;
                let mut writer = layout.writer()?;
                let summary = trees.write(&mut writer, self.compression)?;
                let descriptor = writer.commit_as(summary.media_type.into())?;
                layout.sync_blobs()?;
                (summary, descriptor)
            }
        };
        Ok(json!({
            "descriptor": descriptor,
            "diffID": summary.diff_id,
            "entries": summary.entries,
            "size": summary.uncompressed,
        }))
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let (lower, upper) = match &self.directories[..] {
            [] => (None, written(&self.rootfs()?.0)?),
            [upper] => (None, upper.clone()),
            [lower, upper, ..] => (Some(lower), upper.clone()),
        };
        let place = match &self.output {
            Some(path) if toolkit::is_stdout(path) => "/dev/stdout".into(),
            Some(path) => path.clone(),
            None => context.scope.root.join("images/blobs/sha256/DIGEST"),
        };
        let how = match self.compression {
            Compression::None => String::new(),
            Compression::Gzip { level } => format!("gzip -{level}"),
            Compression::Zstd { level } => format!("zstd -{level}"),
        };
        let shown = |path: &Path| operation::quote(&path.to_string_lossy());
        let below = lower.map(|lower| format!(" # without what is the same in {}", shown(lower)));
        let tar = format!("tar --create --numeric-owner --xattrs --directory {} .", shown(&upper));
        let tar = [tar, how].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" | ");
        Ok(toolkit::equivalent([format!("{tar} > {}{}", shown(&place), below.unwrap_or_default())]))
    }

    /// With `-o -`, the layer goes to standard output.
    fn text(&self, report: &Value) -> Option<String> {
        if self.list {
            return report.as_str().map(str::to_owned);
        }
        self.output.as_deref().is_some_and(toolkit::is_stdout).then(String::new)
    }
}

impl LayerDiff {
    fn rootfs(&self) -> Result<(members::Rootfs, Document)> {
        let from = "name an upper directory, or run it after union-mount";
        let document = toolkit::report_document(self, from)?;
        Ok((document.require()?, document))
    }

    fn trees(&self) -> Result<Trees> {
        match &self.directories[..] {
            [] => {
                let (rootfs, document) = self.rootfs()?;
                let upper = open(&written(&rootfs)?)?;
                let without = diff::stubs(upper.as_fd(), &rootfs.lower, &document.mount_points()?)?;
                Ok(Trees::Upper { upper, lower: rootfs.lower, without })
            }
            [upper] => Ok(Trees::Upper { upper: open(upper)?, lower: Vec::new(), without: BTreeSet::new() }),
            [lower, upper, ..] => Ok(Trees::Both { lower: open(lower)?, upper: open(upper)? }),
        }
    }

    fn write_output(&self, trees: &Trees, path: &Path) -> Result<(Summary, Descriptor)> {
        toolkit::write_output(path, "layer", self.writing.is_synced()?, |target| {
            let mut out = Hashing::new(target, Algorithm::Sha256);
            let summary = trees.write(&mut out, self.compression)?;
            let (_, digest, _) = out.finish();
            let descriptor = Descriptor::new(summary.media_type.into(), summary.size, digest);
            Ok((summary, descriptor))
        })
    }
}

fn main() -> ExitCode {
    toolkit::report::<LayerDiff>()
}
