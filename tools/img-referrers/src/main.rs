//! Lists the referrers of an image in a registry: signatures, SBOMs, attestations.
//!
//! # Does
//! Asks the registry for the images and artifacts whose `subject` is the image (OCI distribution-spec,
//! "Listing Referrers"). If the registry has no such list, reads the one that clients keep under a tag. Adds what cosign
//! keeps at its tags, and the attestations in the image's index.
//! # Reads
//! No document. Reads credentials as `img-pull` does.
//! # Adds
//! Nothing; prints `{subject, referrers: [descriptors]}`.
//! # Undoes
//! Nothing: it makes nothing.
//! # Needs
//! Access to the registry.

use std::process::ExitCode;

use clap::Parser;
use oci::Reference;
use remote::Reach;
use serde_json::{Value, json};
use toolkit::prelude::*;

/// List the signatures, SBOMs and attestations of an image in a registry
#[derive(Parser)]
#[command(name = "img-referrers", version)]
struct Referrers {
    #[arg(help = "The image: [HOST[:PORT]/]NAME[:TAG][@DIGEST]", value_name = "NAME")]
    image: Reference,
    /// List only artifacts of this type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    common: Common,
}

impl Report for Referrers {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, _: &Context) -> Result<Value> {
        let image = self.image.clone().pinned();
        let found = self.reach.client().referrers(&image, self.artifact_type.as_deref());
        let found = found.map_err(|error| remote::hinted(error, image.registry()))?;
        Ok(json!({"subject": format!("{}@{}", image.name(), found.subject), "referrers": found.descriptors}))
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Referrers>()
}
