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

/// A cgroup hierarchy, as this process's cgroup namespace shows it: its open directory.
#[derive(Debug)]
pub struct Hierarchy(OwnedFd);

/// The hierarchy that this process has opened, with its device and inode number. A process that closes all
/// descriptors but those it knows, as a supervisor does, closes this one too. Another file may then have its
/// number.
static OPENED: Mutex<Option<(OwnedFd, (u64, u64))>> = Mutex::new(None);

impl Hierarchy {
    /// Opens the hierarchy of version 2: through the host's mount of the whole hierarchy if that is writable,
    /// or else through a private mount that ends with its last descriptor. Both show the same.
    ///
    /// # Errors
    /// EPERM if the user may not mount; ENODEV if the kernel has no cgroups.
    pub fn open() -> Result<Self> {
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((hierarchy, known)) = opened.take() {
            if identity(&hierarchy) == Some(known) {
                let copy = hierarchy.try_clone().map_err(at("open", "cgroup2"))?;
                *opened = Some((hierarchy, known));
                return Ok(Self(copy));
            }
            // The descriptor is not ours any more, so do not close it.
            std::mem::forget(hierarchy);
        }
        let hierarchy = mount::cgroup::open()?;
        let copy = hierarchy.try_clone().map_err(at("open", "cgroup2"))?;
        *opened = identity(&hierarchy).map(|known| (hierarchy, known));
        Ok(Self(copy))
    }

    /// Opens the hierarchy of version 1 with all of these controllers, in a private mount.
    ///
    /// # Errors
    /// As [`Hierarchy::open`]; EBUSY if the controllers are in several hierarchies.
    pub fn open_separate(controllers: &[String]) -> Result<Self> {
        mount::cgroup::open_separate(controllers).map(Self)
    }

    /// As [`Hierarchy::open_separate`], but through the host's own mount if that is writable.
    ///
    /// # Errors
    /// As [`Hierarchy::open_separate`].
    pub(crate) fn open_separate_of_host(controllers: &[String]) -> Result<Self> {
        mount::cgroup::open_separate_of_host(controllers).map(Self)
    }

    /// Checks that the caller may create cgroups below `path`.
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

/// Checks that the caller may create cgroups below `path`, in the hierarchy of version 2.
///
/// # Errors
/// When the caller may not, with the reason.
pub fn may_make(path: &Path) -> Result<()> {
    Hierarchy::open()?.admits(path)
}

/// Whether the error says that the caller may not create cgroups, or that the kernel has none. A container
/// then runs in its caller's cgroup.
pub fn is_refusal(error: &operation::Error) -> bool {
    use nix::errno::Errno::{EACCES, EBUSY, ENODEV, EPERM, EROFS};
    matches!(error.errno(), Some(EACCES | EBUSY | ENODEV | EPERM | EROFS))
}

impl AsFd for Hierarchy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
