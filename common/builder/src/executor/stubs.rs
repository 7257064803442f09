//! The mount points of a running command (`/proc`, `/etc/resolv.conf`) are made if the image does not have
//! them. They are not changes of the command, so they are removed before its layer is made.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

use crate::copy::links;

/// The paths that were missing in an image before a command ran.
#[derive(Debug, Default)]
pub(super) struct Stubs {
    /// The missing paths. Parents come before children.
    missing: Vec<PathBuf>,
    /// Existing directories in which something was missing, with their metadata.
    touched: Vec<(PathBuf, Stat)>,
}

fn open(root: &OwnedFd, path: &Path, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

impl Stubs {
    /// Finds which of `targets` (paths relative to the root) are missing in the file system `root`.
    pub(super) fn find<'a>(root: &OwnedFd, targets: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut stubs = Self::default();
        for target in targets {
            // The path that a mount on it leads to: `/etc/resolv.conf` may be a link to a file in `/run`, and
            // `/var/run` one to `/run`.
            let real = links::resolve(root.as_fd(), target, &mut |_| {});
            let target = real.as_deref().unwrap_or(target);
            let mut above: Option<PathBuf> = None;
            let mut path = PathBuf::new();
            for part in target.components() {
                path.push(part);
                if stubs.missing.contains(&path) {
                    above = None;
                } else if open(root, &path, ResolveFlags::IN_ROOT).is_err() {
                    if let Some(above) = above.take()
                        && let Ok(stat) =
                            open(root, &above, ResolveFlags::IN_ROOT).and_then(rustix::fs::fstat)
                    {
                        stubs.touched.push((above, stat));
                    }
                    stubs.missing.push(path.clone());
                } else {
                    above = Some(path.clone());
                }
            }
        }
        stubs
    }

    /// Removes mount points from `upper`: empty files and directories that did not exist before. Also removes
    /// their parents if nothing else changed in them.
    pub(super) fn remove(&self, upper: &OwnedFd) {
        for path in self.missing.iter().rev() {
            remove_if_empty(upper, path, |stat| match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => true,
                FileType::RegularFile => stat.st_size == 0,
                _ => false,
            });
        }
        for (path, before) in self.touched.iter().rev() {
            remove_if_empty(upper, path, |stat| {
                (stat.st_mode, stat.st_uid, stat.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
                    && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            });
        }
    }
}

/// Removes the file or empty directory at `path` if `condition` is true for it. A leftover does no harm.
fn remove_if_empty(upper: &OwnedFd, path: &Path, condition: impl Fn(&Stat) -> bool) {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let above = path.parent().unwrap_or(Path::new(""));
    let Ok(above) = open(upper, above, resolve) else { return };
    let name = path.file_name().unwrap_or(OsStr::new("."));
    let Ok(stat) = rustix::fs::statat(&above, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
    if !condition(&stat) {
        return;
    }
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if directory && is_opaque(above.as_fd(), name) {
        return;
    }
    let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    let _ = rustix::fs::unlinkat(&above, name, flags);
}

/// Whether a directory is opaque. If so, the command made it.
fn is_opaque(above: std::os::fd::BorrowedFd, name: &OsStr) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut value = [0_u8; 8];
    rustix::fs::openat(above, name, flags, Mode::empty()).is_ok_and(|directory| {
        rustix::fs::fgetxattr(directory, "trusted.overlay.opaque", &mut value[..]).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_what_was_made_for_mounts_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (root, upper) = (dir.path().join("root"), dir.path().join("upper"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("opt")).unwrap();
        let open = |path: &Path| rustix::fs::open(path, OFlags::PATH, Mode::empty()).unwrap();
        std::os::unix::fs::symlink("../run/x/resolv", root.join("etc/link")).unwrap();
        fs::create_dir_all(root.join("var")).unwrap();
        std::os::unix::fs::symlink("/run", root.join("var/run")).unwrap();
        let targets = [
            "proc",
            "etc/link",
            "etc/resolv.conf",
            "etc/hosts",
            "dev/shm",
            "opt/a/b",
            "sys",
            "var/run/secrets/s",
        ];
        let stubs = Stubs::find(&open(&root), targets.iter().map(Path::new));
        for path in ["proc", "run/x", "run/secrets", "dev/shm", "opt/a/b", "sys", "etc"] {
            fs::create_dir_all(upper.join(path)).unwrap();
        }
        fs::write(upper.join("etc/resolv.conf"), "").unwrap();
        fs::write(upper.join("run/x/resolv"), "").unwrap();
        fs::write(upper.join("run/secrets/s"), "").unwrap();
        fs::write(upper.join("etc/hosts"), "written").unwrap();
        fs::write(upper.join("sys/file"), "").unwrap();
        stubs.remove(&open(&upper));
        let mut left: Vec<_> = fs::read_dir(&upper).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["etc", "sys"]);
        assert!(upper.join("etc/hosts").exists() && !upper.join("etc/resolv.conf").exists());
    }
}
