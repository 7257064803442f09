//! Mounts the layers of an image as one root file system with a writable top.
//!
//! # Does
//! Makes `$STAVE_ROOT/containers/<id>/` with `upper`, `work` and `rootfs`, and mounts an overlay of the layers on `rootfs`.
//! EROFS images are mounted below `layers` first. The lowest layer is `$STAVE_ROOT/mount-points`, with places for `/proc`,
//! `/etc/hosts` and the like, which an image may lack. Volumes of `--volume` and of the image are mounted inside. With `--size`,
//! `upper` and `work` lie in an ext4 file system in the sparse file `top.ext4`, mounted on `top`.
//! # Reads
//! `layers`, `image` (for its volumes).
//! # Adds
//! `rootfs`.
//! # Undoes
//! Unmounts everything, and removes the container's directory with all that was written there. Layers stay.
//! # Needs
//! Root, or root in a user namespace (docs/rootless.md), but not for `--size`; overlayfs, with at most 500 layers; Linux 5.12.

mod layers;
mod owners;
mod volumes;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use document::{
    Id, Member,
    members::{Image, Layers, Rootfs},
};
use mount::{Disk, MountOperation, Overlay, Volume};
use operation::{Claim, Scope};
use toolkit::prelude::*;
use userns::Wanted;

/// Mount the layers of an image as one root file system with a writable top
#[derive(Debug, Parser)]
#[command(name = "union-mount", version, mut_arg("verbose", |verbose| verbose.short(None)))]
struct UnionMount {
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Mount a directory or file of the host in the container; idmap: its files have the same owners inside; repeatable
    #[arg(short = 'v', long = "volume", value_name = "SRC:DST[:ro,idmap]")]
    volumes: Vec<Volume>,
    /// Make it for a user namespace of the container's own, in which ns-exec then runs; files on the disk keep their owners. auto: ids
    /// that no other container has
    #[arg(long, value_name = "host|auto[:size=N]|CONTAINER:HOST:SIZE,…")]
    userns: Option<Wanted>,
    /// Let fsync write to the disk; unmounting is slower. Without it, a crash of the machine can leave the writable top half
    /// written
    #[arg(long)]
    durable: bool,
    /// Limit what can be written to the root file system; units: b, k, m, g, t. Volumes are not part of it
    #[arg(long, value_name = "SIZE", value_parser = room, conflicts_with = "read_only")]
    size: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// Less is no room for a handful of files.
const LEAST: u64 = 1 << 20;

fn room(text: &str) -> Result<u64, String> {
    match operation::quantity::size(text)? {
        size @ LEAST..=Disk::LARGEST => Ok(size),
        _ => Err("it is at least 1m and at most 8t".to_owned()),
    }
}

operation::any_of! {
    /// What this tool does.
    enum Op {
        Mount(MountOperation),
        /// Of the ids of a user namespace.
        Claim(Claim),
    }
}

impl Filter for UnionMount {
    type Adds = Rootfs;
    type Operation = Op;
    const READS: &'static [&'static str] = &[Layers::NAME, Image::NAME];

    fn common(&self) -> &Common {
        &self.common
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        let Layers(layers) = document.require()?;
        let container = context.scope.container(&context.id);
        if container.symlink_metadata().is_ok() {
            let error = anyhow!("container {:?} exists: {container:?}", context.id);
            return Err(hint(error, format!("run `unwind {}`, or choose another `--id`", context.id)));
        }
        let points = context.scope.root.join("mount-points");
        let mut lower = vec![points.clone()];
        let beside = container.join("mount-points");
        let mut operations =
            vec![directory(&container, 0o700, None), MountOperation::MountPointsAdd { path: points, beside }];
        let top = layers::place(&layers, &container, context.planned, &mut lower, &mut operations)?;
        // Volumes need mount points. These are made in the writable top, before it becomes read-only.
        let wanted = self.userns.as_ref().unwrap_or(&Wanted::Host);
        let (userns, claim) = wanted.find(&context.scope, &context.id)?;
        if let Some(volume) = self.volumes.iter().find(|volume| volume.idmap && userns.is_none()) {
            bail!(
                "map owners of volume {:?}: the container has no user namespace of its own: --userns",
                volume.source
            );
        }
        let declared = volumes::declared(document)?;
        let volumes = !self.volumes.is_empty() || !declared.is_empty();
        // A read-only overlay needs two directories.
        if self.read_only && !volumes && lower.len() < 2 {
            let empty = container.join("empty");
            operations.push(directory(&empty, 0o755, None));
            lower.push(empty);
        }
        let path = container.join("rootfs");
        let writable = !self.read_only || volumes;
        let (upper, work) = writable.then(|| self.top(&container, top, &mut operations)).transpose()?.unzip();
        operations.push(directory(&path, 0o700, None));
        let durable = self.durable && upper.is_some();
        let member = Rootfs { path, lower, upper, work, readonly: self.read_only, durable, userns };
        let images =
            operations.iter().any(|operation| matches!(operation, MountOperation::ImageMount { .. }));
        let mut overlay = self.overlay(context, &member, images)?;
        if let Some(userns) = &member.userns {
            owners::map(userns, &container, &mut overlay, &mut operations);
        }
        operations.push(MountOperation::OverlayMount(overlay));
        operations.extend(volumes::plan(&self.volumes, declared, &container, &member)?);
        if self.read_only && volumes {
            operations.push(MountOperation::MountSeal { target: member.path.clone() });
        }
        let operations =
            claim.map(Op::from).into_iter().chain(operations.into_iter().map(Op::from)).collect();
        Ok(Plan { adds: member, operations })
    }

    fn undo_unrecorded(scope: &Scope, id: &Id) -> Result<()> {
        Ok(mount::remains::remove(scope, &scope.container(id.as_str()))?)
    }
}

impl UnionMount {
    /// The directories that are written to. The overlay's root has the attributes of the topmost one.
    fn top(
        &self,
        container: &Path,
        (mode, user, group): (u32, u32, u32),
        operations: &mut Vec<MountOperation>,
    ) -> Result<(PathBuf, PathBuf)> {
        let Some(size) = self.size else {
            let (upper, work) = (container.join("upper"), container.join("work"));
            operations.push(directory(&upper, mode, Some((user, group))));
            operations.push(directory(&work, 0o700, None));
            return Ok((upper, work));
        };
        if !userns::is_first()? {
            let error = anyhow!(
                "limit the root file system to {size} bytes: it is a file system of its own, which only root of \
                 the machine can mount"
            );
            return Err(hint(error, "leave out `--size`; a quota of the user limits all of his containers"));
        }
        let image = container.join("top.ext4");
        let target = container.join("top");
        let disk = Disk { image, target, size, durable: self.durable, mode, owner: (user, group) };
        operations.push(MountOperation::DiskAdd(disk.clone()));
        operations.push(directory(&disk.target, 0o700, None));
        operations.push(MountOperation::DiskMount(disk.clone()));
        Ok((disk.upper(), disk.work()))
    }

    fn overlay(&self, context: &Context, rootfs: &Rootfs, images: bool) -> Result<Overlay> {
        let volatile = rootfs.upper.is_some() && !self.durable;
        Ok(Overlay {
            source: format!("stave:{}", context.id),
            lower: rootfs.lower.clone(),
            upper: rootfs.upper.clone(),
            work: rootfs.work.clone(),
            boot: volatile.then(operation::boot).transpose()?,
            target: rootfs.path.clone(),
            readonly: rootfs.readonly && rootfs.upper.is_none(),
            durable: self.durable,
            userxattr: !userns::is_first()?,
            xino: images,
            owner: None,
        })
    }
}

fn directory(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> MountOperation {
    MountOperation::DirectoryAdd { path: path.to_owned(), mode, owner }
}

fn main() -> ExitCode {
    toolkit::filter::<UnionMount>()
}
