use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{Access, AtFlags, fstat},
    io::Errno,
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
        let hierarchy = mount::cgroup::open()?;
        let copy = hierarchy.try_clone().map_err(at("open", "cgroup2"))?;
        *opened = identity(&hierarchy).map(|known| (hierarchy, known));
        Ok(Self(copy))
    }

    /// The hierarchy of version 1 with these controllers, all of them, in a mount that nobody else sees.
    ///
    /// # Errors
    /// As [`Hierarchy::open`]; EBUSY where the controllers are in several hierarchies.
    pub fn open_separate(controllers: &[String]) -> Result<Self> {
        mount::cgroup::open_separate(controllers).map(Self)
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
