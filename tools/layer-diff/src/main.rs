//! Writes a directory as a layer.
//!
//! # Does
//! With one directory: writes an overlayfs upper directory (whiteouts 0:0, opaque directories) as an OCI
//! layer. With two: writes the changes that turn the first into the second. With none: writes a container's
//! changes, from the document, without empty mount points. The same directory gives the same bytes.
//! # Reads
//! `rootfs`, if no directory is given; otherwise no document.
//! # Adds
//! Nothing; prints `{"descriptor", "diffID", "entries", "size"}`. The blob goes into the image store, or with `-o` to a
//! file. With `-o -` it goes to standard output, and nothing else is printed.
//! # Undoes
//! Nothing: the blob stays in the store until `img-gc` finds it unused.
//! # Needs
//! Root, to read every file and overlayfs's attributes.

mod list;
mod trees;

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use document::{At, record};
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
use trees::{Trees, open};

/// Write an upper directory, or the difference between two directories, as a layer
#[derive(Parser)]
#[command(name = "layer-diff", version, after_help = toolkit::EQUIVALENT_HELP)]
struct LayerDiff {
    /// UPPER, an overlayfs upper directory; or LOWER and UPPER, two whole trees; by default the document's
    /// `rootfs`
    #[arg(value_name = "DIRECTORY", num_args = 0..=2)]
    directories: Vec<PathBuf>,
    /// Write what this container wrote, with @N up to its snapshot N; needs no document
    #[arg(long, value_name = "ID[@N]", conflicts_with = "directories")]
    container: Option<At>,
    /// Write only what was written since the previous snapshot
    #[arg(long, conflicts_with = "directories")]
    alone: bool,
    /// Write the layer to this file, or to standard output for -; by default it goes into the image store
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only list changes, one a line, as docker diff does: A for added, C for changed, D for removed
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
        let (lower, uppers) = match &self.directories[..] {
            [] => (None, self.written()?.uppers),
            [upper] => (None, vec![upper.clone()]),
            [lower, upper, ..] => (Some(lower), vec![upper.clone()]),
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
        let uppers: Vec<String> =
            uppers.iter().map(|upper| format!(" --directory {} .", shown(upper))).collect();
        let tar = format!("tar --create --numeric-owner --xattrs{}", uppers.concat());
        let tar = [tar, how].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" | ");
        Ok(toolkit::equivalent([format!("{tar} > {}{}", shown(&place), below.unwrap_or_default())]))
    }

    /// If the layer goes to standard output, nothing else may be printed there.
    fn text(&self, report: &Value) -> Option<String> {
        if self.list {
            return report.as_str().map(str::to_owned);
        }
        self.output.as_deref().is_some_and(toolkit::is_stdout).then(String::new)
    }
}

/// What a container wrote: upper directories on others, both lowest first.
struct Written {
    uppers: Vec<PathBuf>,
    lower: Vec<PathBuf>,
    mounted: Vec<PathBuf>,
}

impl LayerDiff {
    fn document(&self) -> Result<Document> {
        match &self.container {
            Some(at) => Ok(record::read_existing(&self.common.scope()?.run_dir, &at.id)?),
            None => toolkit::report_document(self, "name an upper directory, or run it after union-mount"),
        }
    }

    fn written(&self) -> Result<Written> {
        let document = self.document()?;
        let rootfs: members::Rootfs = document.require()?;
        if rootfs.upper.is_none() {
            bail!("`rootfs` is read-only: it has no upper directory");
        }
        let id = document.id()?.map(|id| id.to_string()).unwrap_or_default();
        let snapshot = self.container.as_ref().and_then(|at| at.snapshot);
        let mut uppers = union::tops(&rootfs, &id, snapshot)?;
        let mut lower = rootfs.lower;
        if self.alone {
            lower.extend(uppers.drain(..uppers.len().saturating_sub(1)));
        }
        Ok(Written { uppers, lower, mounted: document.mount_points()? })
    }

    fn trees(&self) -> Result<Trees> {
        match &self.directories[..] {
            [] => {
                let Written { uppers, lower, mounted } = self.written()?;
                let uppers = uppers.iter().map(|upper| open(upper)).collect::<Result<Vec<_>>>()?;
                let borrowed: Vec<_> = uppers.iter().map(AsFd::as_fd).collect();
                let without = diff::stubs(&borrowed, &lower, &mounted)?;
                Ok(Trees::Uppers { uppers, lower, without })
            }
            [upper] => {
                Ok(Trees::Uppers { uppers: vec![open(upper)?], lower: Vec::new(), without: BTreeSet::new() })
            }
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

pub(crate) fn main() -> ExitCode {
    toolkit::report::<LayerDiff>()
}
