//! The cgroup file systems.

use std::{
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::PathBuf,
};

use operation::Place;
use rustix::{
    fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstat, fstatfs, fstatvfs, openat},
    mount::MountAttrFlags,
};

use crate::{Error, FileSystem, Result};

/// Where hosts mount version 2: alone, or beside hierarchies of version 1.
const PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// linux/magic.h
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// The inode of the machine's first cgroup namespace: `PROC_CGROUP_INIT_INO` of the kernel.
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFB;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The hierarchy of version 2, as this process's cgroup namespace shows it: its top, a directory. That is the host's mount of
/// the whole hierarchy, if it has one that can be written to; else one that nobody else sees, and that goes with its last
/// descriptor. Both show the same.
///
/// # Errors
/// EPERM for a user who may not mount; ENODEV where the kernel has no cgroups.
pub fn open() -> Result<OwnedFd> {
    match visible() {
        Some((_, hierarchy)) => Ok(hierarchy),
        None => mounted("cgroup2", &[]),
    }
}

/// The hierarchy of version 1 with these controllers, all of them, in a mount that nobody else sees.
///
/// # Errors
/// As [`open`]; EBUSY where the controllers are in several hierarchies.
pub fn open_separate(controllers: &[String]) -> Result<OwnedFd> {
    mounted("cgroup", controllers)
}

/// Where the host has a mount of the whole hierarchy of version 2 that can be written to.
pub fn visible_place() -> Option<PathBuf> {
    visible().map(|(place, _)| place.into())
}

/// To mount it is not dear, but to end a mount is: the kernel waits for all processors.
fn visible() -> Option<(&'static str, OwnedFd)> {
    if std::fs::metadata("/proc/self/ns/cgroup").ok()?.ino() != FIRST_NAMESPACE {
        return None;
    }
    PLACES.iter().find_map(|place| {
        let found = openat(CWD, *place, DIRECTORY, Mode::empty()).ok()?;
        let whole = fstatfs(&found).is_ok_and(|found| found.f_type == CGROUP2_SUPER_MAGIC)
            // The directory of the first cgroup.
            && fstat(&found).is_ok_and(|found| found.st_ino == 1)
            && fstatvfs(&found).is_ok_and(|found| !found.f_flag.contains(StatVfsMountFlags::RDONLY));
        whole.then_some((*place, found))
    })
}

fn mounted(kind: &str, controllers: &[String]) -> Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let object =
        || [kind].into_iter().chain(controllers.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    let mounted = FileSystem::open(kind).and_then(|file_system| {
        file_system.set_data(controllers.iter().map(String::as_str))?;
        file_system.mount(attributes)
    });
    let mounted = mounted.map_err(|error| error.instead("mount", object()))?;
    openat(&mounted, ".", DIRECTORY, Mode::empty())
        .map_err(|errno| Error::new("open", object(), errno).of(Place::Namespace))
}
