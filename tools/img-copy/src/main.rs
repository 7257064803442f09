//! Copies an image from one place to another.
//!
//! # Does
//! Copies between registries, the store, OCI layouts and archives, without changing the digest. Between two
//! registries, layers pass through memory. Layers that the destination has, or can mount from another of its
//! repositories, are not sent. An index is copied whole, or with `--platform` only one of its images.
//! # Reads
//! No document. Reads credentials as `img-pull` does.
//! # Adds
//! Nothing; prints `{source, destination, digest, size, mediaType}`, and for a registry `sent`, `existing`
//! and `mounted`.
//! # Undoes
//! Nothing: others may already have seen the image.
//! # Needs
//! Room for the image in `$TMPDIR`, if the source is an archive, or if the source is a registry and the
//! destination an archive.

mod place;
mod transfer;

use std::process::ExitCode;

use clap::Parser;
use oci::Platform;
use registry::Login;
use remote::{Admission, Transfer};
use serde_json::Value;
use toolkit::prelude::*;

use place::Place;

/// Copy an image between registries, the store, OCI layouts and archives
#[derive(Parser)]
#[command(name = "img-copy", version, after_help = toolkit::EQUIVALENT_HELP)]
struct Copy {
    #[arg(
        help = "The image: [docker://]NAME, store:IMAGE, oci:DIRECTORY[:NAME], oci-archive:FILE[:NAME] or docker-archive:FILE[:NAME]",
        value_name = "SOURCE"
    )]
    source: Place,
    /// The destination, in the same form
    #[arg(value_name = "DESTINATION")]
    destination: Place,
    #[arg(
        help = "Copy only this platform of a multi-platform image: os/architecture[/variant]",
        long,
        value_name = "PLATFORM"
    )]
    platform: Option<Platform>,
    /// Use this name and password for the source only
    #[arg(long, value_name = "NAME:PASSWORD", value_parser = remote::login)]
    src_creds: Option<Login>,
    /// Use this name and password for the destination only
    #[arg(long, value_name = "NAME:PASSWORD", value_parser = remote::login)]
    dest_creds: Option<Login>,
    /// Like --tls-verify, for the source only
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    src_tls_verify: Option<bool>,
    /// Like --tls-verify, for the destination only
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    dest_tls_verify: Option<bool>,
    #[command(flatten)]
    admission: Admission,
    #[command(flatten)]
    transfer: Transfer<300>,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl Report for Copy {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        transfer::run(self, context)
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let images = context.scope.root.join("images");
        let shown = |place: &Place| match place {
            Place::Store(image) => format!("oci:{}:{image}", images.display()),
            place => place.to_string(),
        };
        let all = self.platform.is_none().then_some("--all");
        let (from, to) = (shown(&self.source), shown(&self.destination));
        let words = ["skopeo", "copy"].into_iter().chain(all).chain([from.as_str(), &to]);
        Ok(toolkit::equivalent([operation::words(words)]))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Copy>()
}
