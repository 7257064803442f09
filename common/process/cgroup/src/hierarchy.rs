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
        Self::mount("cgroup2", &[])
    }

    /// The same for the hierarchy of version 1 with these controllers, all of them.
    ///
    /// # Errors
    /// As [`Hierarchy::open`]; EBUSY where the controllers are in several hierarchies.
    pub fn open_separate(controllers: &[String]) -> Result<Self> {
        Self::mount("cgroup", controllers)
    }

    fn mount(kind: &str, controllers: &[String]) -> Result<Self> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mounted = FileSystem::open(kind).and_then(|file_system| {
            file_system.set_data(controllers.iter().map(String::as_str))?;
            file_system.mount(attributes)
        });
        let object = || [kind.to_owned()].iter().chain(controllers).cloned().collect::<Vec<_>>().join(" ");
        let mounted = mounted.map_err(|error| error.instead("mount", object()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&mounted, ".", flags, Mode::empty()).map(Self).map_err(at("open", object()))
    }

    /// The text of a file at the top.
    pub(crate) fn root_file(&self, name: &str) -> Result<String> {
        let read = || -> std::result::Result<String, Errno> {
            let file = openat(&self.0, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            std::io::read_to_string(std::fs::File::from(file))
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        read().map_err(at("read", format_args!("{name} of the cgroup hierarchy")))
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
