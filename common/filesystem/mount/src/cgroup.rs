//! The cgroup file systems.

use std::{
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use operation::Place;
use rustix::{
    fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstat, fstatfs, fstatvfs, openat},
    mount::MountAttrFlags,
};

use crate::{
    Error, FileSystem, Result,
    table::{self, Entry},
};

/// Where hosts mount version 2: alone, or beside hierarchies of version 1.
const PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// linux/magic.h
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;
const CGROUP_SUPER_MAGIC: rustix::fs::FsWord = 0x0027_e0eb;

/// The inode of the machine's first cgroup namespace: `PROC_CGROUP_INIT_INO` of the kernel.
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFB;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the top directory of the version 2 hierarchy, as this process's cgroup namespace shows it. Uses the
/// host's mount if that shows the whole hierarchy and is writable. Otherwise makes a private mount, which
/// disappears with its last descriptor. Both show the same cgroups.
///
/// # Errors
/// EPERM for a user who may not mount; ENODEV if the kernel has no cgroups.
pub fn open() -> Result<OwnedFd> {
    match visible() {
        Some((_, hierarchy)) => Ok(hierarchy),
        None => mounted("cgroup2", &[]),
    }
}

/// Opens the version 1 hierarchy that has exactly these controllers, or the one name `name=NAME`, in a
/// private mount.
///
/// # Errors
/// As [`open`]; EBUSY if the controllers are in several hierarchies.
pub fn open_separate(controllers: &[String]) -> Result<OwnedFd> {
    mounted("cgroup", controllers)
}

/// As [`open_separate`], but uses the host's mount if that shows the whole hierarchy and is writable.
///
/// # Errors
/// As [`open_separate`].
pub fn open_separate_of_host(controllers: &[String]) -> Result<OwnedFd> {
    let is_whole = |entry: &Entry| {
        entry.kind == "cgroup"
            && entry.root == Path::new("/")
            && controllers.iter().all(|name| entry.options.split(',').any(|option| option == name))
    };
    for entry in table::read()?.iter().filter(|entry| is_whole(entry)) {
        let Ok(found) = openat(CWD, &entry.target, DIRECTORY, Mode::empty()) else { continue };
        // Another mount may cover it.
        let is_there = fstatfs(&found).is_ok_and(|found| found.f_type == CGROUP_SUPER_MAGIC)
            && fstatvfs(&found).is_ok_and(|found| !found.f_flag.contains(StatVfsMountFlags::RDONLY));
        if is_there {
            return Ok(found);
        }
    }
    open_separate(controllers)
}

/// Returns the path of the host's mount of version 2, if that shows the whole hierarchy and is writable.
pub fn visible_place() -> Option<PathBuf> {
    visible().map(|(place, _)| place.into())
}

/// Prefer an existing mount: mounting is cheap, but unmounting waits for all processors.
fn visible() -> Option<(&'static str, OwnedFd)> {
    if std::fs::metadata("/proc/self/ns/cgroup").ok()?.ino() != FIRST_NAMESPACE {
        return None;
    }
    PLACES.iter().find_map(|place| {
        let found = openat(CWD, *place, DIRECTORY, Mode::empty()).ok()?;
        let whole = fstatfs(&found).is_ok_and(|found| found.f_type == CGROUP2_SUPER_MAGIC)
            // The inode of the root cgroup.
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
        // A named hierarchy has no controllers.
        let none = controllers.first().filter(|name| name.starts_with("name=")).map(|_| "none");
        file_system.set_data(none.into_iter().chain(controllers.iter().map(String::as_str)))?;
        file_system.mount(attributes)
    });
    let mounted = mounted.map_err(|error| error.instead("mount", object()))?;
    openat(&mounted, ".", DIRECTORY, Mode::empty())
        .map_err(|errno| Error::new("open", object(), errno).of(Place::Namespace))
}
