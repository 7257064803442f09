//! Prints the digest that a name has in a registry now.
//!
//! # Does
//! Fetches and checks the manifest or index of the name. Stores nothing.
//! # Reads
//! No document. Reads credentials as `img-pull` does.
//! # Adds
//! Nothing; prints `{reference, digest, size, mediaType}`.
//! # Undoes
//! Nothing: it makes nothing.
//! # Needs
//! Access to the registry.

use std::process::ExitCode;

use clap::Parser;
use oci::{Platform, Reference};
use remote::Reach;
use serde_json::{Value, json};
use toolkit::{prelude::*, rows};

/// Print the digest of an image in a registry
#[derive(Parser)]
#[command(name = "img-digest", version)]
struct Digest {
    #[arg(help = "The image: [HOST[:PORT]/]NAME[:TAG][@DIGEST]", value_name = "NAME")]
    image: Reference,
    #[arg(
        help = "Print the digest for this platform of a multi-platform image, instead of the index's: os/architecture[/variant]",
        long,
        value_name = "PLATFORM"
    )]
    platform: Option<Platform>,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    common: Common,
}

impl Report for Digest {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, _: &Context) -> Result<Value> {
        let image = self.image.clone().pinned();
        let found = self.reach.client().named(&image, self.platform.as_ref());
        let found = found.map_err(|error| remote::hinted(error, image.registry()))?;
        Ok(json!({
            "reference": format!("{}@{}", image.name(), found.digest()),
            "digest": found.digest(),
            "size": found.size(),
            "mediaType": found.media_type(),
        }))
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(rows::word(&report["digest"]) + "\n")
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Digest>()
}
