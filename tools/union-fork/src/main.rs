//! Makes a container from a snapshot of another one.
//!
//! # Does
//! Starts a document with the image and the layers of the other container. Mounts an overlay of these
//! layers and of what that container had written at its snapshot, with a writable top of its own. Nothing
//! is copied. Volumes of the other container are not included; those of `--volume` and of the image are
//! mounted. The snapshot cannot be removed while a container is based on it.
//! # Reads
//! No document: the record of the other container.
//! # Adds
//! `image`, `layers`, `rootfs`.
//! # Undoes
//! Unmounts everything, and removes the container's directory with everything that was written there.
//! # Needs
//! The same as union-mount.

use std::process::ExitCode;

use clap::Parser;
use document::{
    At, Contribution, Id, Instance, Member, Step,
    members::{Image, Layers, Rootfs},
    record,
};
use operation::Scope;
use serde_json::{Map, Value, json};
use toolkit::prelude::*;
use union::{Container, Request, UnionOperation, base};
use userns::Wanted;
use volume::VolumeRequest;

/// Make a container from a snapshot of another one
#[derive(Debug, Parser)]
#[command(name = "union-fork", version, mut_arg("verbose", |verbose| verbose.short(None)))]
struct UnionFork {
    /// The other container, and the number of its snapshot; default: the newest. @0 is before the first
    /// write
    #[arg(value_name = "ID[@N]")]
    of: At,
    /// Mount a directory or file of the host, or a volume by name; without SRC, a volume of the container's own.
    /// Options: ro, nocopy, and idmap, which keeps owners inside; repeatable
    #[arg(short = 'v', long = "volume", value_name = "[SRC:]DST[:OPTIONS]")]
    volumes: Vec<VolumeRequest>,
    /// Make it for a user namespace; by default, with ids of its own if the other container has one
    #[arg(long, value_name = "host|auto[:size=N]|CONTAINER:HOST:SIZE,…")]
    userns: Option<Wanted>,
    /// Let fsync write to the disk; needs a durable container
    #[arg(long)]
    durable: bool,
    /// Limit what can be written; units: b, k, m, g, t. The snapshot does not count
    #[arg(long, value_name = "SIZE", value_parser = union::room)]
    size: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// What the step adds to the document.
struct Forked {
    image: Option<Image>,
    layers: Layers,
    rootfs: Rootfs,
}

impl Contribution for Forked {
    const MEMBERS: &'static [&'static str] = &[Image::NAME, Layers::NAME, Rootfs::NAME];

    fn parts(&self) -> serde_json::Result<Map<String, Value>> {
        let mut parts = Map::new();
        if let Some(image) = &self.image {
            parts.insert(Image::NAME.to_owned(), json!(image));
        }
        parts.insert(Layers::NAME.to_owned(), serde_json::to_value(&self.layers)?);
        parts.insert(Rootfs::NAME.to_owned(), serde_json::to_value(&self.rootfs)?);
        Ok(parts)
    }
}

impl Filter for UnionFork {
    type Adds = Forked;
    type Operation = UnionOperation;
    const LOCK: Option<&'static str> = Some(union::LOCK);
    const STARTS: bool = true;

    fn common(&self) -> &Common {
        &self.common
    }

    fn plan(&self, context: &Context, _: &Document) -> Result<Plan<Self>> {
        let other = record::read_existing(&context.scope.run_dir, &self.of.id)?;
        let rootfs: Rootfs = other.require()?;
        let container = Container { scope: &context.scope, id: &context.id, planned: context.planned };
        let ground = union::ground(container, &self.of.id, &other, self.of.snapshot, self.durable)?;
        let of_its_own = rootfs.userns.is_some().then(|| "auto".parse::<Wanted>().ok()).flatten();
        let request = Request {
            read_only: false,
            volumes: self.volumes.clone(),
            userns: self.userns.clone().or(of_its_own),
            durable: self.durable,
            size: self.size,
        };
        let (rootfs, operations) = union::plan(&request, container, &other, Some(ground))?;
        let adds = Forked { image: other.get()?, layers: other.require()?, rootfs };
        Ok(Plan { adds, operations })
    }

    /// The claim was made without the lock of the other container's record. If that container is being
    /// unwound, `unwind` marks its record first and looks at the claims afterwards.
    fn finish(&self, _: &Document, adds: Forked, _: &[UnionOperation]) -> Result<Forked> {
        let other = record::read(&self.common.scope()?.run_dir, &self.of.id)?;
        let instance = other.as_ref().map(|other| other.get::<Instance>()).transpose()?.flatten();
        let is_same = adds.rootfs.fork.as_ref().map(|fork| &fork.instance) == instance.as_ref();
        match other.is_some_and(|other| is_same && !other.has_failed()) {
            true => Ok(adds),
            false => bail!("container \"{}\" is being unwound", self.of.id),
        }
    }

    fn complete(document: &Document, operations: &mut [Value]) -> Result<()> {
        base::complete_mount(document, operations);
        Ok(())
    }

    fn refuse_undo(scope: &Scope, recorded: &Document, _: &Step) -> Result<()> {
        Ok(base::refuse_undo(scope, recorded)?)
    }

    fn undo_unrecorded(scope: &Scope, id: &Id) -> Result<()> {
        Ok(mount::remains::remove(scope, &scope.container(id.as_str()))?)
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::filter::<UnionFork>()
}
