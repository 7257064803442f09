//! Pushes an image from the image store to a registry.
//!
//! # Does
//! Speaks the OCI distribution-spec. Does not send blobs that the registry has. Mounts layers that are known
//! to be in another repository of the registry: those of recent pushes, and of images in the store with a
//! name in that registry. Sends the others, several at once, and the manifest last. Sends layers as they are
//! in the store, even uncompressed ones from `img-load`: compression would change the image's digest.
//! # Reads
//! No document. Reads credentials as `img-pull` does.
//! # Adds
//! Nothing; prints `{reference, digest, size, mediaType, sent, existing, mounted}`.
//! # Undoes
//! Nothing: others may already have seen the image.
//! # Needs
//! Read access to the store. With write access, it also remembers which layers were pushed where.

use std::process::ExitCode;

use clap::Parser;
use oci::{
    Layout, Platform, Reference,
    media_type::{Kind, kind},
};
use registry::{Display, display::Job, push};
use remote::{Admission, Transfer};
use serde_json::{Value, json};
use toolkit::prelude::*;

/// Push an image to a registry
#[derive(Parser)]
#[command(name = "img-push", version, after_help = toolkit::EQUIVALENT_HELP)]
struct Push {
    /// The image: a name, an id, or the first digits of an id
    #[arg(value_name = "NAME")]
    image: String,
    /// The name in the registry; by default the name in the store
    #[arg(value_name = "DESTINATION")]
    destination: Option<Reference>,
    /// Push only this platform of a multi-platform image: os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    transfer: Transfer<300>,
    #[command(flatten)]
    common: Common,
}

impl Report for Push {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let layout = Layout::look(context.scope.root.join("images"))?;
        let source = layout.find(&self.image)?;
        layout.keep_while_reading(&source);
        let destination = self.destination()?;
        let client = self.transfer.client(&[], &Admission::default());
        let display = Display::new(Job::Push, context.quiet);
        display.line(&format!("The push refers to repository [{}]", destination.name()));
        let pushed = push::push(&client, &layout, &source, &destination, self.platform.as_ref(), &display)
            .map_err(|error| remote::hinted(error, destination.registry()))?;
        let (digest, size) = (&pushed.digest, pushed.descriptor.size());
        let tag = destination.tag().map_or_else(|| destination.canonical(), str::to_owned);
        display.line(&format!("{tag}: digest: {digest} size: {size}"));
        Ok(json!({
            "reference": destination,
            "digest": digest,
            "size": size,
            "mediaType": pushed.descriptor.media_type(),
            "sent": pushed.sent,
            "existing": pushed.existing,
            "mounted": pushed.mounted,
        }))
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let images = context.scope.root.join("images");
        let source = Layout::look(&images)?.find(&self.image)?;
        let is_whole = kind(&source) == Kind::Index && self.platform.is_none();
        let digest = source.digest().to_string();
        let (from, to) = (format!("oci:{}@{digest}", images.display()), self.destination()?.canonical());
        let all = is_whole.then_some("--all");
        let to = format!("docker://{to}");
        let copy = operation::words(["skopeo", "copy"].into_iter().chain(all).chain([from.as_str(), &to]));
        Ok(toolkit::equivalent([copy]))
    }

    fn shown(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }
}

impl Push {
    fn destination(&self) -> Result<Reference> {
        match &self.destination {
            Some(destination) => Ok(destination.clone()),
            None => Ok(self.image.parse()?),
        }
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Push>()
}
