//! Enters the root file system without pivot_root(2), which an initial ramdisk does not allow.

use std::{fs::read_link, os::fd::AsFd, path::Path};

use mount::{Detached, FileSystem, resolve, table};
use rustix::{
    io::Errno,
    mount::{MountAttrFlags, UnmountFlags, mount_move, unmount},
};

use crate::{Error, error::Result};

/// Moves the root over `/`. The host's mounts stay below, out of reach of a process that may not mount.
pub(super) fn enter(root: &Detached) -> Result<()> {
    hide(root)?;
    let cover = || {
        rustix::process::fchdir(root)?;
        mount_move(".", "/")?;
        rustix::process::chroot(".")?;
        rustix::process::chdir("/")
    };
    cover().map_err(Error::at::<Errno>("move", "the root file system over \"/\""))
}

/// Removes the host's procfs and sysfs from this mount namespace, or covers them. Where the kernel finds one without
/// anything mounted below, a process in a new user namespace may mount another one, without the masks of the
/// container (mount_too_revealing in the kernel's fs/namespace.c).
fn hide(root: &Detached) -> Result<()> {
    let own =
        read_link(resolve::proc_path(root.as_fd())).map_err(Error::at("find", "the root file system"))?;
    // The later ones may be below the earlier ones.
    for entry in table::read()?.into_iter().rev() {
        let is_whole = entry.root == Path::new("/") && ["proc", "sysfs"].contains(&entry.kind.as_str());
        if !is_whole || entry.target.starts_with(&own) {
            continue;
        }
        let hidden = match unmount(&entry.target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // A mount of a more privileged user namespace cannot be removed.
            Err(Errno::INVAL | Errno::PERM) => cover(&entry.target),
            Err(Errno::NOENT) => Ok(()),
            done => done.map_err(Error::at("unmount", format_args!("{:?}", entry.target))),
        };
        hidden?;
    }
    Ok(())
}

fn cover(path: &Path) -> Result<()> {
    let place = match resolve::place(path) {
        Err(Errno::NOENT) => return Ok(()),
        place => place.map_err(Error::at("cover", format_args!("{path:?}")))?,
    };
    let empty = FileSystem::open("tmpfs")?.mount(MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    empty.attach(place).map_err(Error::at("cover", format_args!("{path:?}")))
}
