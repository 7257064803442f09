//! Mounts the layers of an image as one root file system with a writable top.
//!
//! # Does
//! Makes `$STAVE_ROOT/containers/<id>/` with `upper`, `work` and `rootfs`, and mounts an overlay of the
//! layers on `rootfs`. EROFS images are first mounted below `layers`. The lowest layer is
//! `$STAVE_ROOT/mount-points`, with mount points such as `/proc` and `/etc/hosts`, which an image may lack.
//! Volumes of `--volume` and of the image are mounted inside. With `--size`, `upper` and `work` are in an
//! ext4 file system in the sparse file `top.ext4`, mounted on `top`.
//! # Reads
//! `layers`, `image` (for its volumes).
//! # Adds
//! `rootfs`.
//! # Undoes
//! Unmounts everything, and removes the container's directory with everything that was written there.
//! Layers stay.
//! # Needs
//! Root, or except for `--size`, root in a user namespace (docs/rootless.md); overlayfs, with at most 500
//! layers; Linux 5.12.

use std::process::ExitCode;

use clap::Parser;
use document::{
    Id, Member, Step,
    members::{Image, Layers, Rootfs},
};
use operation::Scope;
use serde_json::Value;
use toolkit::prelude::*;
use union::{Container, Request, UnionOperation, base};
use userns::Wanted;
use volume::VolumeRequest;

/// Mount the layers of an image as one root file system with a writable top
#[derive(Debug, Parser)]
#[command(name = "union-mount", version, mut_arg("verbose", |verbose| verbose.short(None)))]
struct UnionMount {
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Mount a directory or file of the host, or a volume by name; without SRC, a volume of the container's own.
    /// Options: ro, nocopy, and idmap, which keeps owners inside; repeatable
    #[arg(short = 'v', long = "volume", value_name = "[SRC:]DST[:OPTIONS]")]
    volumes: Vec<VolumeRequest>,
    /// Make it for a user namespace that ns-exec uses; files on the disk keep their owners. auto: ids of
    /// its own
    #[arg(long, value_name = "host|auto[:size=N]|CONTAINER:HOST:SIZE,…")]
    userns: Option<Wanted>,
    /// Let fsync write to the disk; slower to unmount. Without it, a crash can leave files half written
    #[arg(long)]
    durable: bool,
    /// Limit what can be written, without volumes; units: b, k, m, g, t
    #[arg(long, value_name = "SIZE", value_parser = union::room, conflicts_with = "read_only")]
    size: Option<u64>,
    #[command(flatten)]
    common: Common,
}

impl Filter for UnionMount {
    type Adds = Rootfs;
    type Operation = UnionOperation;
    const READS: &'static [&'static str] = &[Layers::NAME, Image::NAME];

    fn common(&self) -> &Common {
        &self.common
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        let request = Request {
            read_only: self.read_only,
            volumes: self.volumes.clone(),
            userns: self.userns.clone(),
            durable: self.durable,
            size: self.size,
        };
        let container = Container { scope: &context.scope, id: &context.id, planned: context.planned };
        let (adds, operations) = union::plan(&request, container, document, None)?;
        Ok(Plan { adds, operations })
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
    toolkit::filter::<UnionMount>()
}
