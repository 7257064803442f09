//! Loads images from an archive into the image store.
//!
//! # Does
//! Reads an OCI archive, a Docker archive (`docker save`), an OCI layout directory, or the tar of a root file
//! system. It detects the form by its content. Each may be compressed with gzip, zstd, xz or bzip2. A root
//! file system becomes an image of one layer, as with `docker import`.
//! # Reads
//! No document. Reads the given file, or standard input for `-`.
//! # Adds
//! `image`: the first image of the archive. All other images are stored as well.
//! # Undoes
//! Only the member. The image stays in the store until `img-rm` and `img-gc`.
//! # Needs
//! Write access to `$STAVE_ROOT/images`.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use document::members::Image;
use oci::{
    Layout, Platform, Reference,
    load::{Form, Found, Input, Limits},
};
use toolkit::prelude::*;

/// Load images from an archive or a root file system
#[derive(Parser)]
#[command(name = "img-load", version, after_help = toolkit::EQUIVALENT_HELP)]
struct Load {
    /// Name the image; by default the names in the archive are kept
    #[arg(short, long, value_name = "NAME")]
    tag: Option<Reference>,
    /// Take this platform of a multi-platform image, or set it for a root file system: os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Refuse an archive that is larger than this when decompressed: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = operation::quantity::size)]
    max_size: u64,
    /// Refuse an archive over 4 GiB that is more than N times larger than its compressed form; over 64 MiB if N is below 1000
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_ratio: u64,
    /// An archive, the directory of an OCI image layout, or - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl Source for Load {
    type Member = Image;

    fn common(&self) -> &Common {
        &self.common
    }

    fn make(&self, context: &Context) -> Result<Image> {
        let input = self.input()?;
        let layout =
            Layout::open_or_create_with(context.scope.root.join("images"), self.writing.is_synced()?)?;
        let intake = input.read(&layout, self.platform.as_ref())?;
        self.hold_name(intake.form())?;
        for name in intake.passed_over() {
            operation::note(&format!("{name} is in the list of images, but not in the input: left out"));
        }
        let images = intake.commit(self.tag.as_ref())?;
        if !context.quiet {
            images.iter().for_each(|image| report(&layout, image));
        }
        let Some(Found { references, descriptor }) = images.first() else { bail!("no image was loaded") };
        let reference = self.tag.as_ref().or(references.first()).map(Reference::to_string);
        let image = layout.image(descriptor, self.platform.as_ref())?;
        Ok(Image {
            reference,
            descriptor: image.descriptor,
            configuration: image.raw_configuration.try_into()?,
        })
    }

    /// The images were printed while they were loaded.
    fn shown(&self, _: &Image) -> Option<String> {
        Some(String::new())
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let file = operation::quote(&self.file.to_string_lossy());
        let tag = self.tag.as_ref().map(Reference::canonical);
        let to = tag.as_deref().map(|name| format!(":{name}")).unwrap_or_default();
        let store =
            format!("oci:{}{to}", operation::quote(&context.scope.root.join("images").to_string_lossy()));
        let form = self.input()?.form();
        self.hold_name(form)?;
        // What an archive holds is known only after it has been read.
        let copy = if self.platform.is_some() { "skopeo copy" } else { "skopeo copy --all" };
        Ok(toolkit::equivalent(match form {
            Form::RootFs => {
                let name = tag.unwrap_or_default();
                vec![
                    format!("docker import {file} {name}"),
                    format!("skopeo copy docker-daemon:{name} {store}"),
                ]
            }
            Form::Archive => vec![format!("{copy} oci-archive:{file} {store}")],
            Form::Directory => vec![format!("{copy} oci:{file} {store}")],
        }))
    }
}

impl Load {
    /// Opens the input.
    fn input(&self) -> Result<Input> {
        if self.file == Path::new("-") && io::stdin().is_terminal() {
            return Err(hint(
                anyhow!("an archive cannot be read from a terminal"),
                "name a FILE, or use a pipe",
            ));
        }
        let limits = Limits { size: self.max_size, ratio: self.max_ratio, ..Limits::default() };
        Ok(Input::open(&self.file)?.within(limits))
    }

    /// Rejects a root file system without `--tag`, because it has no name of its own.
    fn hold_name(&self, form: Form) -> Result<()> {
        match form {
            Form::RootFs if self.tag.is_none() => Err(hint(
                anyhow!("{} is a root file system and has no name of its own", self.file.display()),
                "name it with -t NAME",
            )),
            _ => Ok(()),
        }
    }
}

/// Reports an image in the words of `docker load`.
fn report(layout: &Layout, image: &Found) {
    for reference in &image.references {
        operation::tell!("Loaded image: {reference}");
    }
    if image.references.is_empty() {
        let id = layout.image(&image.descriptor, None).and_then(|image| image.id());
        operation::tell!(
            "Loaded image ID: {}",
            id.map_or(image.descriptor.digest().to_string(), |id| id.to_string())
        );
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::source::<Load>()
}
