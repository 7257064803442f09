use std::{
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use mount::FileSystem;
use rustix::{
    fs::{Access, AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, fstat, fstatfs, fstatvfs, openat},
    io::Errno,
    mount::MountAttrFlags,
};

use crate::{
    error::{Result, at},
    group::relative,
};

/// The cgroup file system of version 2, as this process's cgroup namespace shows it: a directory that is open.
#[derive(Debug)]
pub struct Hierarchy(OwnedFd);

/// What this process has opened, with the device and the inode number that it had. A process that closes all descriptors but
/// those it knows, as a supervisor does, closes this one too, and another file may have its number then.
static OPENED: Mutex<Option<(OwnedFd, (u64, u64))>> = Mutex::new(None);

/// Where hosts mount it: alone, or beside hierarchies of version 1.
const PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// linux/magic.h
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// The inode of the machine's first cgroup namespace: `PROC_CGROUP_INIT_INO` of the kernel.
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFB;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Hierarchy {
    /// The host's mount of the whole hierarchy, if it has one that can be written to; else one that nobody else sees, and
    /// that goes with its last descriptor. Both show the same.
    ///
    /// # Errors
    /// EPERM for a user who may not mount; ENODEV where the kernel has no cgroups.
    pub fn open() -> Result<Self> {
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((hierarchy, known)) = opened.take() {
            if identity(&hierarchy) == Some(known) {
                let copy = hierarchy.try_clone().map_err(at("open", "cgroup2"))?;
                *opened = Some((hierarchy, known));
                return Ok(Self(copy));
            }
            // Not ours any more, so not ours to close.
            std::mem::forget(hierarchy);
        }
        let hierarchy = match visible() {
            Some((_, hierarchy)) => hierarchy,
            None => mounted("cgroup2", &[])?,
        };
        let copy = hierarchy.try_clone().map_err(at("open", "cgroup2"))?;
        *opened = identity(&hierarchy).map(|known| (hierarchy, known));
        Ok(Self(copy))
    }

    /// The hierarchy of version 1 with these controllers, all of them, in a mount that nobody else sees.
    ///
    /// # Errors
    /// As [`Hierarchy::open`]; EBUSY where the controllers are in several hierarchies.
    pub fn open_separate(controllers: &[String]) -> Result<Self> {
        mounted("cgroup", controllers).map(Self)
    }

    /// Whether the caller may make cgroups below `path`.
    pub(crate) fn admits(&self, path: &Path) -> Result<()> {
        let access = |place: &Path| {
            rustix::fs::accessat(self, place, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        };
        match access(relative(path)) {
            Err(Errno::NOENT) => access(Path::new(".")),
            result => result,
        }
        .map_err(at("create", format_args!("cgroup {path:?}")))
    }
}

/// Device and inode number.
fn identity(file: &OwnedFd) -> Option<(u64, u64)> {
    fstat(file).ok().map(|found| (found.st_dev, found.st_ino))
}

/// Where the host has a mount of the whole hierarchy that can be written to.
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
    openat(&mounted, ".", DIRECTORY, Mode::empty()).map_err(at("open", object()))
}

/// Whether the caller may make cgroups below `path`, in the hierarchy of version 2.
///
/// # Errors
/// Why not.
pub fn may_make(path: &Path) -> Result<()> {
    Hierarchy::open()?.admits(path)
}

/// Whether the error says that the caller may not make cgroups, or that the kernel has none. A container runs in its
/// caller's cgroup then.
pub fn is_refusal(error: &operation::Error) -> bool {
    use nix::errno::Errno::{EACCES, EBUSY, ENODEV, EPERM, EROFS};
    matches!(error.errno(), Some(EACCES | EBUSY | ENODEV | EPERM | EROFS))
}

impl AsFd for Hierarchy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
