//! Writes the files of an image as one archive.
//!
//! # Does
//! Unpacks the image's layers if necessary, mounts them where no other process sees them, and writes all
//! files as a tar. Files that upper layers remove are not in it. The same image gives the same bytes.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"file", "digest", "diffID", "entries", "size"}`, unless the archive goes to standard
//! output.
//! # Undoes
//! Nothing. The file is written under another name and renamed, so half an archive is never left.
//! # Needs
//! Root, for the mount; write access to `$STAVE_ROOT`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use builder::executor::Whole;
use clap::Parser;
use layer::compression::Compression;
use oci::{Image, Layout, Platform};
use serde_json::{Value, json};
use toolkit::prelude::*;

/// Write the files of an image as one archive
#[derive(Parser)]
#[command(name = "img-export", version, after_help = toolkit::EQUIVALENT_HELP)]
struct Export {
    /// The image: a name, an id, or the first digits of an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Take this platform of a multi-platform image: os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Compress the archive: none, gzip or zstd, with an optional level (gzip:9)
    #[arg(long, value_name = "HOW", default_value = "none")]
    compression: Compression,
    /// Write to this file; to standard output by default, or for -
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    output: PathBuf,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl Report for Export {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let layout = Layout::look(context.scope.root.join("images"))?;
        let (image, sync) = (self.found(&layout)?, self.writing.is_synced()?);
        layout.keep_while_reading(&image.descriptor);
        let whole = Whole::new(&context.scope.root, &image, !sync).map_err(operation::Error::from)?;
        let summary = toolkit::write_output(&self.output, "archive", sync, |target| {
            Ok(whole.write(target, self.compression).map_err(operation::Error::from)?)
        })?;
        Ok(json!({
            "file": self.file(),
            "digest": image.descriptor.digest(),
            "diffID": summary.diff_id,
            "entries": summary.entries,
            "size": summary.size,
        }))
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        self.found(&Layout::look(context.scope.root.join("images"))?)?;
        let output =
            operation::quote(&self.file().unwrap_or(Path::new("/dev/stdout")).to_string_lossy()).to_string();
        let image = operation::quote(&self.image).to_string();
        Ok(toolkit::equivalent([format!("docker export $(docker create {image}) > {output}")]))
    }

    /// If the archive goes to standard output, nothing else may be printed there.
    fn text(&self, _: &Value) -> Option<String> {
        self.file().is_none().then(String::new)
    }
}

impl Export {
    fn found(&self, layout: &Layout) -> Result<Image> {
        Ok(layout.image(&layout.find(&self.image)?, self.platform.as_ref())?)
    }

    /// The file to write, if it is not standard output.
    fn file(&self) -> Option<&Path> {
        (!toolkit::is_stdout(&self.output)).then_some(&self.output)
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Export>()
}
