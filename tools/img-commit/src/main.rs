//! Makes an image from a container's changes.
//!
//! # Does
//! Writes the container's upper directory as one layer on top of the container's image, with an entry in the
//! history. The image gets the command, environment, directory and user with which the container ran.
//! `--change` changes the configuration with Dockerfile instructions. Volumes and empty mount points are left
//! out. The container keeps running and does not change.
//! # Reads
//! `image`, `rootfs`, `process` and `steps` (for the mount points), from standard input or, by id, from the
//! container's record.
//! # Adds
//! `image`: the new image, in the document that it prints. It pushes no step, and the record keeps the
//! container's own image.
//! # Undoes
//! Nothing. The image stays in the store until `img-rm` and `img-gc`.
//! # Needs
//! Root, to read every file and overlayfs's attributes; write access to `$STAVE_ROOT/images`.

use std::process::ExitCode;

use builder::commit::{Commit, commit};
use clap::Parser;
use document::{
    At, Id, Member,
    members::{Image, Process, Rootfs},
};
use layer::compression::Compression;
use oci::{Layout, Reference, layout};
use toolkit::{Export, prelude::*};

/// Make an image of a container's changes
#[derive(Parser)]
#[command(name = "img-commit", version, after_help = toolkit::EQUIVALENT_HELP)]
struct ImgCommit {
    /// The id of the container, with @N as it was at its snapshot N; without it, the document on standard input
    #[arg(value_name = "CONTAINER-ID[@N]")]
    container: Option<At>,
    #[arg(help = "Name the image NAME[:TAG]; repeatable", short, long = "tag", value_name = "NAME", value_parser = Reference::to_give)]
    tags: Vec<Reference>,
    /// Set the author: "Name <name@example.org>"
    #[arg(short, long)]
    author: Option<String>,
    /// Describe the change, for the history
    #[arg(short, long)]
    message: Option<String>,
    /// Change the configuration with a Dockerfile instruction: 'CMD ["sh"]', 'ENV A=b'; repeatable, in order
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Compress the layer: none, gzip or zstd, with an optional level (gzip:9)
    #[arg(long, value_name = "HOW", default_value = "gzip")]
    compression: Compression,
    /// Keep the times of files; by default all times are those of the container's image
    #[arg(long)]
    keep_mtime: bool,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl Export for ImgCommit {
    type Member = Image;
    const READS: &'static [&'static str] = &[Rootfs::NAME, Image::NAME, Process::NAME];

    fn common(&self) -> &Common {
        &self.common
    }

    fn container(&self) -> Option<&Id> {
        self.container.as_ref().map(|at| &at.id)
    }

    fn make(&self, context: &Context, document: &Document) -> Result<Image> {
        let (job, image) = self.job(context, document)?;
        let built = commit(&job, &image.descriptor)?;
        let image = (built.descriptor, built.configuration);
        Ok(toolkit::made_image(context, built.id, self.tags.first(), image)?)
    }

    fn explain(&self, context: &Context, document: &Document) -> Result<Vec<String>> {
        self.job(context, document)?;
        let mut words = vec!["docker", "commit"];
        let flags = self.author.iter().map(|author| ["--author", author]);
        let flags = flags.chain(self.message.iter().map(|message| ["--message", message]));
        words.extend(flags.chain(self.changes.iter().map(|change| ["--change", change])).flatten());
        words.push(&context.id);
        let names: Vec<String> = self.tags.iter().map(Reference::to_string).collect();
        words.extend(names.first().map(String::as_str));
        let quoted =
            |words: &[&str]| words.iter().map(|word| operation::quote(word)).collect::<Vec<_>>().join(" ");
        let mut lines = vec![quoted(&words)];
        lines.extend(names.windows(2).map(|pair| quoted(&["docker", "tag", &names[0], &pair[1]])));
        Ok(toolkit::equivalent(lines))
    }
}

impl ImgCommit {
    /// The changes to commit, and the image below them.
    fn job(&self, context: &Context, document: &Document) -> Result<(Commit, Image)> {
        let rootfs: Rootfs = document.require()?;
        if rootfs.upper.is_none() {
            bail!("`rootfs` is read-only: it has no upper directory to make a layer of");
        }
        let snapshot = self.container.as_ref().and_then(|at| at.snapshot);
        let uppers = union::tops(&rootfs, &context.id, snapshot)?;
        let image: Image = document.require()?;
        let layout = Layout::look(context.scope.root.join("images"))?;
        if !layout.has_blob(&image.descriptor)? {
            let name = image.reference.unwrap_or_else(|| image.descriptor.digest().to_string());
            return Err(layout::Error::NoImage(name).into());
        }
        let process: Option<Process> = document.get()?;
        let run_with = process.as_ref().and_then(|process| process.config.clone());
        let job = Commit {
            root: context.scope.root.clone(),
            uppers,
            lower: rootfs.lower,
            mounted: document.mount_points()?,
            tags: self.tags.clone(),
            author: self.author.clone(),
            message: self.message.clone(),
            run_with: run_with.map(serde_json::from_value).transpose().context("read `process.config`")?,
            changes: self.changes.clone(),
            created_by: process.as_ref().map(command).unwrap_or_default(),
            compression: self.compression,
            keep_times: self.keep_mtime,
            no_sync: !self.writing.is_synced()?,
        };
        Ok((job, image))
    }
}

/// The container's command, as text for the history.
fn command(process: &Process) -> String {
    let words = process.spec["args"].as_array().into_iter().flatten();
    words.filter_map(|word| word.as_str()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn main() -> ExitCode {
    toolkit::export::<ImgCommit>()
}
