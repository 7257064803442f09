use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mount::FileSystem;
use rustix::{
    fs::{Mode, OFlags, openat},
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

impl AsFd for Hierarchy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
