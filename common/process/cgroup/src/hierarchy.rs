use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use mount::FileSystem;
use rustix::{
    fs::{Access, AtFlags, Mode, OFlags, openat},
    io::Errno,
    mount::MountAttrFlags,
};

use crate::error::{Result, at};

/// The cgroup file system of version 2, as this process's cgroup namespace shows it: a directory that is open.
#[derive(Debug)]
pub struct Hierarchy(OwnedFd);

impl Hierarchy {
    /// Mounts the hierarchy where nobody else sees it. The mount goes with its last descriptor.
    ///
    /// # Errors
    /// EPERM for a user who may not mount; ENODEV where the kernel has no cgroups.
    pub fn open() -> Result<Self> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mounted = FileSystem::open("cgroup2").and_then(|file_system| file_system.mount(attributes));
        let mounted = mounted.map_err(|error| error.instead("mount", "cgroup2"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&mounted, ".", flags, Mode::empty()).map(Self).map_err(at("open", "cgroup2"))
    }
}

/// Whether the caller may make cgroups below `path`.
///
/// # Errors
/// Why not.
pub fn may_make(path: &Path) -> Result<()> {
    let hierarchy = Hierarchy::open()?;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let access = |place: &Path| {
        rustix::fs::accessat(&hierarchy, place, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
    };
    match access(relative) {
        Err(Errno::NOENT) => access(Path::new(".")),
        result => result,
    }
    .map_err(at("create", format_args!("cgroup {path:?}")))
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
