//! Pushes an image from the image store to a registry.
//!
//! # Does
//! Speaks the OCI distribution-spec. Blobs that the registry has are not sent, layers that are known to be in another of its
//! repositories are mounted (of images that were pushed there lately, or have a name there in the store), the rest goes side
//! by side; then the manifest gets its name. Layers are sent in the bytes that they have in the store, also those which
//! img-load stored uncompressed: compressed ones would make it another image.
//! # Reads
//! No document. Credentials as `img-pull` does.
//! # Adds
//! Nothing; prints `{reference, digest, size, mediaType, sent, existing, mounted}`.
//! # Undoes
//! Nothing: what a registry has, others may have seen.
//! # Needs
//! Read access to the store; where it may write there too, it remembers what was pushed where.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use oci::{Layout, Platform, Reference};
use registry::{Client, Display, Options, Pace, display::Job, push};
use serde_json::{Value, json};
use toolkit::prelude::*;

/// Push an image to a registry
#[derive(Parser)]
#[command(name = "img-push", version)]
struct Push {
    /// The image in the store: a name, an id, or the beginning of an id
    #[arg(value_name = "NAME")]
    image: String,
    /// The name in the registry; without it, the same
    #[arg(value_name = "DESTINATION")]
    destination: Option<Reference>,
    /// Push the image for this platform alone: os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Allow plain HTTP, and certificates that nobody vouches for
    #[arg(long)]
    insecure: bool,
    /// Trust these certificates (PEM) beside the system's
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Take credentials from this file
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// How often to try again
    #[arg(long, value_name = "N", default_value_t = 6)]
    retries: u32,
    /// How long a server may say nothing, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
    /// Give up a connection on which less passes than so many bytes a second, and try again; 0 never does
    #[arg(long, value_name = "BYTES", default_value_t = Pace::default().limit)]
    speed_limit: u64,
    /// Over how long a time less must pass, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Pace::default().time.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86400))]
    speed_time: u64,
    /// How many layers to send at once
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    #[command(flatten)]
    common: Common,
}

impl Report for Push {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let layout = Layout::open(context.scope.root.join("images"))?;
        let source = layout.find(&self.image)?;
        let destination = self.destination()?;
        let client = Client::new(self.options());
        let display = Display::new(Job::Push, context.quiet);
        display.line(&format!("The push refers to repository [{}]", destination.name()));
        let pushed = push::push(&client, &layout, &source, &destination, self.platform.as_ref(), &display)
            .map_err(|error| match error.hint(destination.registry()) {
                Some(what) => hint(error, what),
                None => error.into(),
            })?;
        let (digest, size) = (pushed.descriptor.digest(), pushed.descriptor.size());
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
        let digest = Layout::open(&images)?.find(&self.image)?.digest().to_string();
        let (from, to) = (format!("oci:{}@{digest}", images.display()), self.destination()?.canonical());
        Ok(vec![operation::words(["skopeo", "copy", &from, &format!("docker://{to}")])])
    }
}

impl Push {
    fn destination(&self) -> Result<Reference> {
        match &self.destination {
            Some(destination) => Ok(destination.clone()),
            None => Ok(self.image.parse()?),
        }
    }

    fn options(&self) -> Options {
        Options {
            insecure: self.insecure,
            cacert: self.cacert.clone(),
            authfile: self.authfile.clone(),
            retries: self.retries,
            timeout: Duration::from_secs(self.timeout),
            pace: Pace { limit: self.speed_limit, time: Duration::from_secs(self.speed_time) },
            jobs: self.jobs.into(),
            ..Options::default()
        }
    }
}

fn main() -> ExitCode {
    toolkit::report::<Push>()
}
