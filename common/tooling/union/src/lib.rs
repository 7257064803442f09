//! Shared by the tools of a root file system: turns a document into operations, and reads them from
//! the record.
//!
//! [`plan`] mounts the layers of an image, and above them the levels of a snapshot of another
//! container ([`Ground`]). [`base`] finds the overlay below a container's snapshots.

pub mod base;
mod fork;
mod layers;
mod merge;
mod owners;
mod state;
mod top;
mod view;
mod volumes;

use std::path::Path;

use document::{
    Document,
    members::{Layers, Rootfs},
};
use mount::{MountOperation, Overlay};
use operation::{Cause, Claim, Error, Scope};
use userns::Wanted;
use volume::{VolumeRequest, VolumeUse};

pub use fork::{Ground, ground};
pub use layers::unpacked;
pub use merge::{MERGE, Merge, merge};
pub use state::{pair, paths, tops};
pub use top::room;
pub use view::{shown_at, shows, view};

/// The name of the lock of the tools that use snapshots or undo them.
pub const LOCK: &str = "levels";

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

operation::any_of! {
    /// An operation that makes a root file system.
    pub enum UnionOperation {
        /// A directory, a file, a mount.
        Mount(MountOperation),
        /// A claim on the ids of a user namespace.
        Claim(Claim),
        /// The use of a volume with a name.
        Volume(VolumeUse),
    }
}

/// The requested properties of a root file system.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Whether to make the root file system read-only.
    pub read_only: bool,
    /// The volumes to mount in it.
    pub volumes: Vec<VolumeRequest>,
    /// The user namespace that it is for. None means the caller's.
    pub userns: Option<Wanted>,
    /// Whether fsync writes to the disk.
    pub durable: bool,
    /// How many bytes can be written to it.
    pub size: Option<u64>,
}

/// The container of the root file system.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    /// `--root` and `--run-dir`.
    pub scope: &'a Scope,
    /// Its id.
    pub id: &'a str,
    /// Whether this is only a plan.
    pub planned: bool,
}

/// Plans the mounts of the layers of the document's image, with the levels of `ground` above them.
/// Returns the members for the document too.
///
/// # Errors
/// When a member of the document is missing, or a mount is not possible.
pub fn plan(
    request: &Request,
    container: Container<'_>,
    document: &Document,
    ground: Option<Ground>,
) -> Result<(Rootfs, Vec<UnionOperation>)> {
    let Container { scope, id, planned } = container;
    let Layers(layers) = document.require().map_err(unread)?;
    let directory_of = scope.container(id);
    refuse_existing(id, &directory_of)?;
    let points = scope.root.join("mount-points");
    let mut lower = vec![points.clone()];
    let beside = directory_of.join("mount-points");
    let (mut operations, levels, fork, above) = match ground {
        Some(Ground { operations, levels, fork, top }) => (operations, levels, Some(fork), top),
        None => (Vec::new(), Vec::new(), None, None),
    };
    operations.push(directory(&directory_of, 0o700, None));
    operations.push(MountOperation::MountPointsAdd { path: points, beside });
    let top = layers::place(&layers, &directory_of, planned, &mut lower, &mut operations)?;
    // Volumes need mount points. They are made in the writable top before it becomes read-only.
    let wanted = request.userns.as_ref().unwrap_or(&Wanted::Host);
    let (userns, claim) = wanted.find(scope, id)?;
    if let (Some(volume), None) = (request.volumes.iter().find_map(volumes::mapped), &userns) {
        return Err(said(format!(
            "map owners of volume {volume:?}: the container has no user namespace of its own: --userns"
        )));
    }
    let declared = volumes::declared(document)?;
    let volumes = !request.volumes.is_empty() || !declared.is_empty();
    // A read-only overlay needs at least two directories.
    if request.read_only && !volumes && lower.len() < 2 {
        let empty = directory_of.join("empty");
        operations.push(directory(&empty, 0o755, None));
        lower.push(empty);
    }
    let path = directory_of.join("rootfs");
    let writable = !request.read_only || volumes;
    let made = writable.then(|| top::make(request, &directory_of, above.unwrap_or(top), &mut operations));
    let (upper, work) = made.transpose()?.unzip();
    operations.push(directory(&path, 0o700, None));
    let durable = request.durable && upper.is_some();
    let member =
        Rootfs { path, lower, levels, upper, work, readonly: request.read_only, durable, fork, userns };
    let images = operations.iter().any(|operation| matches!(operation, MountOperation::ImageMount { .. }));
    let mut overlay = overlay(request, id, &member, images)?;
    if let Some(userns) = &member.userns {
        owners::map(userns, &directory_of, &mut overlay, &mut operations);
    }
    operations.push(MountOperation::OverlayMount(overlay));
    let mounts = operations.into_iter().map(UnionOperation::from);
    let mut operations: Vec<_> = claim.map(UnionOperation::from).into_iter().chain(mounts).collect();
    operations.extend(volumes::plan(container, &request.volumes, declared, &member)?);
    if request.read_only && volumes {
        operations.push(MountOperation::MountSeal { target: member.path.clone() }.into());
    }
    Ok((member, operations))
}

fn refuse_existing(id: &str, directory: &Path) -> Result<()> {
    match directory.symlink_metadata() {
        Ok(_) => Err(said(format!("container {id:?} exists: {directory:?}"))
            .with_hint(format!("run `unwind {id}`, or choose another `--id`"))),
        Err(_) => Ok(()),
    }
}

fn overlay(request: &Request, id: &str, rootfs: &Rootfs, images: bool) -> Result<Overlay> {
    let volatile = rootfs.upper.is_some() && !request.durable;
    Ok(Overlay {
        source: format!("stave:{id}"),
        lower: rootfs.lower.iter().chain(&rootfs.levels).cloned().collect(),
        upper: rootfs.upper.clone(),
        work: rootfs.work.clone(),
        boot: volatile.then(operation::boot).transpose()?,
        target: rootfs.path.clone(),
        readonly: rootfs.readonly && rootfs.upper.is_none(),
        durable: request.durable,
        userxattr: !userns::is_first()?,
        xino: images,
        owner: None,
        nosuid: false,
        newest: None,
    })
}

fn directory(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> MountOperation {
    MountOperation::DirectoryAdd { path: path.to_owned(), mode, owner }
}

/// An error with this text.
fn said(words: impl Into<String>) -> Error {
    Error::new("", "", words.into())
}

/// The error for a document that cannot be parsed.
fn unread(error: document::Error) -> Error {
    Error::new("", "", Cause::Source(Box::new(error)))
}
