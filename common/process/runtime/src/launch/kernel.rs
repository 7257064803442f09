//! The file systems in a container that show the kernel: what may be mounted over them, and where their masks
//! go.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use mount::{
    Detached,
    resolve::{self, Leaf},
};
use oci_spec::runtime::Mount;
use operation::Cause;
use rustix::{
    fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, openat2},
    io::Errno,
};

use super::root::kind_of;
use crate::{Error, error::Result};

const PROC: &str = "/proc";
const SYS: &str = "/sys";
const DEV: &str = "/dev";

/// Files of `/proc` that another file may cover, as in runc (`checkProcMount`): lxcfs shows a container's own
/// values there.
const REPLACEABLE: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// The inode of the root of every procfs (kernel, include/linux/proc_fs.h, `PROC_ROOT_INO`).
const PROC_ROOT: u64 = 1;

/// File systems of the kernel in the container, with their places. Masks are laid over their own files, even
/// if another container has moved the path there meanwhile (CVE-2019-19921, CVE-2023-27561).
#[derive(Default)]
pub(super) struct Mounted(Vec<(PathBuf, Detached)>);

impl Mounted {
    /// Adds a file system. It covers the earlier ones.
    pub(super) fn add(&mut self, added: Option<(PathBuf, Detached)>) {
        self.0.extend(added);
    }

    /// Opens a path that will be masked. None if it does not exist: then it needs no mask.
    pub(super) fn open(&self, root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>> {
        let below = |(target, mount)| Some((mount, path.strip_prefix(target).ok()?));
        let of_kernel = self.0.iter().rev().find_map(|(target, mount)| below((target, mount)));
        let opened = match of_kernel {
            Some((mount, rest)) => {
                let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                openat2(mount, rest, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
            }
            None => resolve::open_in(root, path, OFlags::PATH),
        };
        match opened {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            opened => opened.map(Some).map_err(Error::at("open", format_args!("{path:?}"))),
        }
    }
}

/// Whether the mount shows the kernel: procfs, sysfs, and anything on their usual places. `place` is where
/// the mount really is in the container.
pub(super) fn shows(mount: &Mount, place: &Path) -> bool {
    matches!(kind_of(mount), "proc" | "sysfs") || [PROC, SYS].map(Path::new).contains(&place)
}

/// The real path of a place in the container, without links: an absolute path below `root`.
pub(super) fn path_in(root: BorrowedFd<'_>, place: BorrowedFd<'_>) -> std::result::Result<PathBuf, Errno> {
    let path = resolve::path_of(place)?;
    let below = path.strip_prefix(resolve::path_of(root)?).map_err(|_| Errno::XDEV)?;
    Ok(Path::new("/").join(below))
}

/// Whether a mount of this type may be attached at `place`, a path of [`path_in`]. `source` is the mount, if
/// it exists already.
///
/// The rules are those of runc (`checkProcMount`). A mount over the kernel's files in `/proc` would show
/// somebody else's files as the kernel's, and remove their masks. Device nodes are made in `/dev`. It must be
/// the mount that the specification has there, not another directory of the host.
pub(super) fn allow(
    kind: &str,
    source: Option<BorrowedFd<'_>>,
    target: &Path,
    place: &Path,
) -> std::result::Result<(), Cause> {
    if place == Path::new(DEV) && target != place {
        return Err("it leads to \"/dev\" of the container".into());
    }
    match place.strip_prefix(PROC).ok() {
        None => Ok(()),
        Some(_) if kind == "proc" => Ok(()),
        Some(rest) if rest.as_os_str().is_empty() => match source.map_or(Ok(false), is_whole_procfs)? {
            true => Ok(()),
            false => Err("only a whole procfs can be mounted on \"/proc\"".into()),
        },
        Some(rest) if REPLACEABLE.map(Path::new).contains(&rest) => Ok(()),
        Some(_) => Err("it is inside of \"/proc\", where the kernel's own files stay".into()),
    }
}

fn is_whole_procfs(source: BorrowedFd<'_>) -> std::result::Result<bool, Errno> {
    Ok(fstatfs(source)?.f_type == PROC_SUPER_MAGIC && fstat(source)?.st_ino == PROC_ROOT)
}

/// Whether the image must have a plain directory at the mount's target: at `/proc`, `/sys` and `/dev`, it
/// must not lead elsewhere.
pub(super) fn is_fixed(mount: &Mount) -> bool {
    shows(mount, mount.destination()) || mount.destination() == Path::new(DEV)
}

/// Opens the directory of the image at the target of such a mount, reached without a link. Makes it if it is missing. What
/// is opened is mounted on: another container may exchange the directory and a link meanwhile (CVE-2019-19921,
/// CVE-2023-27561).
pub(super) fn fixed_place(root: BorrowedFd<'_>, target: &Path) -> std::result::Result<OwnedFd, Cause> {
    let relative = target.strip_prefix("/").unwrap_or(target);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let open = || {
        openat2(root, relative, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    let opened = match open() {
        Err(Errno::NOENT) => resolve::create_in(root, target, Leaf::Directory).and_then(|_| open()),
        opened => opened,
    };
    match opened {
        Ok(place) => Ok(place),
        // Callers of runc look for its wording.
        Err(Errno::LOOP | Errno::NOTDIR) => {
            Err("it must be mounted on ordinary directory, and the image has none there".into())
        }
        Err(errno) => Err(errno.into()),
    }
}
