//! Pulls an image from a registry into the image store.
//!
//! # Does
//! Speaks the OCI distribution-spec. Downloads several layers at once, continues where a connection broke,
//! and uses a layer only after checking its digest. Does not download what is in the store. The name keeps
//! the index of a multi-platform image; another `--platform` is added to the name. With `--apply`, unpacks
//! layers while they arrive.
//! # Reads
//! No document. Reads credentials of Docker, podman and skopeo: `$REGISTRY_AUTH_FILE`, containers'
//! `auth.json`, `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, and the credential helpers that
//! these name. Reads mirrors of podman and skopeo: containers-registries.conf(5).
//! # Adds
//! `image`.
//! # Undoes
//! Only the member. The image stays in the store until `img-rm` and `img-gc`.
//! # Needs
//! Write access to `$STAVE_ROOT/images`; with `--apply`, the same as `layer-apply`.

mod apply;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Error;
use clap::Parser;
use document::members::Image;
use oci::{Layout, Platform, Reference};
use registry::{
    Display,
    display::Job,
    pull::{self, Wanted},
};
use remote::{Admission, Transfer};
use toolkit::prelude::*;

/// Pull an image from a registry
#[derive(Parser)]
#[command(name = "img-pull", version, after_help = toolkit::EQUIVALENT_HELP)]
struct Pull {
    #[arg(help = "The image: [HOST[:PORT]/]NAME[:TAG][@DIGEST]", value_name = "NAME", value_parser = |name: &str| name.parse().map(Reference::pinned))]
    reference: Reference,
    /// Take this platform: os/architecture[/variant], or unknown/unknown for attestations; repeatable
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<Platform>,
    /// Take the whole index of a multi-platform image, with attestations, for `img-push` to send
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Unpack each layer while it arrives, like layer-apply
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    unpacking: apply::Unpacking,
    /// Ask this host first, before the mirrors of registries.conf and the registry; repeatable, in order
    #[arg(long, value_name = "HOST[:PORT][/PATH]")]
    mirror: Vec<String>,
    /// Pull the image only if it is signed with this public key, in cosign's format; repeatable: one of the
    /// keys is enough
    #[arg(long, value_name = "FILE")]
    verify: Vec<PathBuf>,
    /// Expect a signature for this name, such as that of the original if the image is a copy
    #[arg(long, value_name = "NAME", requires = "verify")]
    verify_as: Option<Reference>,
    #[command(flatten)]
    admission: Admission,
    #[command(flatten)]
    transfer: Transfer<60>,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl Source for Pull {
    type Member = Image;

    fn common(&self) -> &Common {
        &self.common
    }

    fn make(&self, context: &Context) -> Result<Image> {
        let layout =
            Layout::open_or_create_with(context.scope.root.join("images"), self.writing.is_synced()?)?;
        let client = self.transfer.client(&self.mirror, &self.admission);
        let display = Display::new(if self.apply { Job::PullAndApply } else { Job::Pull }, context.quiet);
        let reference = &self.reference;
        let keys = self.verify.iter().map(|path| remote::public_key(path)).collect::<Result<Vec<_>>>()?;
        let (pull, image) = pull::resolve(&client, &layout, reference, &self.wanted(), &display)
            .map_err(|e| self.hinted(e))?;
        if !keys.is_empty() {
            let digest = pull.descriptor.digest().to_string().parse()?;
            let name = self.verify_as.as_ref().unwrap_or(reference);
            client.verify(reference, &digest, &keys, name).map_err(|error| self.hinted(error))?;
        }
        let tag = reference.tag().map_or_else(|| reference.canonical(), str::to_owned);
        display.line(&format!("{tag}: Pulling from {}", reference.repository()));
        match self.apply {
            true => {
                let root = &context.scope.root;
                let apply =
                    |layers: &pull::Layers| apply::apply(layers, &image, root, &self.unpacking, &display);
                pull.fetch(apply).map_err(|error| match error.downcast() {
                    Ok(error) => self.hinted(error),
                    Err(error) => apply::hinted(error),
                })?;
            }
            false => pull.fetch(|_| Ok::<_, registry::Error>(())).map_err(|e| self.hinted(e))?,
        }
        display.line(&format!("Digest: {}", pull.descriptor.digest()));
        display.line(&match pull.up_to_date {
            true => format!("Status: Image is up to date for {reference}"),
            false => format!("Status: Downloaded newer image for {reference}"),
        });
        let (descriptor, configuration) = (image.descriptor, image.raw_configuration.try_into()?);
        Ok(Image { reference: Some(reference.to_string()), descriptor, configuration })
    }

    fn shown(&self, image: &Image) -> Option<String> {
        Some(image.reference.clone()? + "\n")
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        let name = self.reference.canonical();
        let store = operation::quote(&context.scope.root.join("images").to_string_lossy());
        let all = if self.all_platforms { "--all " } else { "" };
        Ok(toolkit::equivalent([format!("skopeo copy {all}docker://{name} oci:{store}:{name}")]))
    }
}

impl Pull {
    fn wanted(&self) -> Wanted {
        match self.platform.as_slice() {
            _ if self.all_platforms => Wanted::All,
            [] => Wanted::Host,
            platforms => Wanted::Platforms(platforms.to_vec()),
        }
    }

    fn hinted(&self, error: registry::Error) -> Error {
        remote::hinted(error, self.reference.registry())
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::source::<Pull>()
}
