//! Makes the same image with another compression, or with a manifest in another form.
//!
//! # Does
//! Writes the layers with another compression (`--compression`), and the manifest in the OCI's or Docker's form
//! (`--format`). The files, the configuration and the image's id stay as they are. The original stays in the store.
//! # Reads
//! No document.
//! # Adds
//! `image`: the new image, under the first of its names.
//! # Undoes
//! Only the member. The image stays in the store until `img-rm` and `img-gc`.
//! # Needs
//! Write access to `$STAVE_ROOT`.

use std::process::ExitCode;

use builder::{
    Format,
    convert::{Convert, convert},
};
use clap::{ArgGroup, Parser, ValueEnum};
use document::members::Image;
use layer::compression::Compression;
use oci::{Layout, Platform, Reference, spec::Descriptor};
use toolkit::prelude::*;

/// Change the compression of an image's layers, or the form of its manifest
#[derive(Parser)]
#[command(name = "img-convert", version, after_help = toolkit::EQUIVALENT_HELP, group = ArgGroup::new("what").args(["compression", "format"]).required(true).multiple(true))]
struct ImgConvert {
    /// The image: a name, an id, or the first digits of an id
    #[arg(value_name = "IMAGE")]
    image: String,
    #[arg(help = "Name the new image NAME[:TAG]; repeatable", short, long = "tag", value_name = "NAME", value_parser = Reference::to_give)]
    tags: Vec<Reference>,
    /// Compress all layers with none, gzip[:1-12] or zstd[:1-19]
    #[arg(long, value_name = "COMPRESSION")]
    compression: Option<Compression>,
    /// Write the manifest in this form
    #[arg(long, value_name = "FORMAT")]
    format: Option<Form>,
    /// Take this platform of a multi-platform image: os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

/// The form of a manifest.
#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// OCI image-spec
    Oci,
    /// Docker's image manifest version 2, schema 2
    Docker,
}

impl Source for ImgConvert {
    type Member = Image;

    fn common(&self) -> &Common {
        &self.common
    }

    fn make(&self, context: &Context) -> Result<Image> {
        let (job, image) = self.job(context)?;
        let built = convert(&job, &image).map_err(operation::Error::from)?;
        let image = (built.descriptor, built.configuration);
        Ok(toolkit::made_image(context, built.id, self.tags.first(), image)?)
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let (job, _) = self.job(context)?;
        let mut copy = vec!["skopeo".to_owned(), "copy".to_owned()];
        if let Some(form) = self.format {
            let name = match form {
                Form::Oci => "oci",
                Form::Docker => "v2s2",
            };
            copy.extend(["--format".to_owned(), name.to_owned()]);
        }
        match self.compression {
            None => {}
            Some(Compression::None) => copy.push("--dest-decompress".to_owned()),
            Some(Compression::Gzip { level }) => copy.extend(compress("gzip", level)),
            Some(Compression::Zstd { level }) => copy.extend(compress("zstd", level)),
        }
        let store = |name: &str| format!("oci:{}:{name}", job.root.join("images").display());
        let names = job.tags.iter().map(Reference::to_string);
        let names: Vec<String> = if job.tags.is_empty() { vec![String::new()] } else { names.collect() };
        let line =
            |name: &String| operation::words(copy.iter().cloned().chain([store(&self.image), store(name)]));
        Ok(toolkit::equivalent(names.iter().map(line)))
    }
}

fn compress(name: &str, level: impl ToString) -> [String; 4] {
    ["--dest-compress-format", name, "--dest-compress-level", &level.to_string()].map(str::to_owned)
}

impl ImgConvert {
    /// The conversion, and the image that it is of.
    fn job(&self, context: &Context) -> Result<(Convert, Descriptor)> {
        let layout = Layout::look(context.scope.root.join("images"))?;
        let image = layout.find(&self.image)?;
        let job = Convert {
            root: context.scope.root.clone(),
            platform: self.platform.clone(),
            compression: self.compression,
            format: self.format.map(|form| match form {
                Form::Oci => Format::Oci,
                Form::Docker => Format::Docker,
            }),
            tags: self.tags.clone(),
            no_sync: !self.writing.is_synced()?,
        };
        Ok((job, image))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::source::<ImgConvert>()
}
