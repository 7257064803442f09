//! Starts a document from an image that is in the store.
//!
//! # Does
//! Finds an image by its name, its id, or the first digits of its id. Changes nothing.
//! # Reads
//! No document; the store.
//! # Adds
//! `image`.
//! # Undoes
//! Nothing: the image stays in the store.
//! # Needs
//! Read access to the store.

use std::process::ExitCode;

use clap::Parser;
use document::members::Image;
use oci::{Layout, Platform};
use toolkit::prelude::*;

/// Find an image in the store, and start a document from it: `img-inspect debian | layer-apply | …`
#[derive(Parser)]
#[command(name = "img-inspect", version)]
struct ImgInspect {
    /// The image: a name, an id, or the first digits of an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Take this platform of a multi-platform image: os/architecture[/variant]; this machine's by default
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    common: Common,
}

impl Source for ImgInspect {
    type Member = Image;

    fn common(&self) -> &Common {
        &self.common
    }

    fn make(&self, context: &toolkit::Context) -> Result<Image> {
        let hinted = |error: oci::layout::Error| {
            hint(error, "img-ls lists the images; img-pull fetches one from a registry")
        };
        let layout = Layout::look(context.scope.root.join("images"))?;
        let found = layout.find_listed(&self.image).map_err(hinted)?;
        let name = layout.list()?.into_iter().find(|entry| found.entries.contains(&entry.descriptor));
        let image = layout.image(&found.image, self.platform.as_ref())?;
        let (host, own) = (Platform::host(), image.platform());
        if self.platform.is_none() && host.rank(&own).is_none() && !context.quiet {
            operation::tell!("img-inspect: {:?} is for {own}, this machine is {host}", self.image);
        }
        Ok(Image {
            reference: name.and_then(|entry| entry.reference).map(|reference| reference.to_string()),
            descriptor: image.descriptor,
            configuration: image.raw_configuration.try_into()?,
        })
    }

    fn explain(&self, _: &toolkit::Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

fn main() -> ExitCode {
    toolkit::source::<ImgInspect>()
}
