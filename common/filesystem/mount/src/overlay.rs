//! overlayfs: shows several directories as one (kernel, Documentation/filesystems/overlayfs.rst).

use std::{
    collections::HashSet,
    ffi::CString,
    fmt::Write as _,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::statfs,
    mount::{MountAttrFlags, MountFlags},
};
use serde::{Deserialize, Serialize};

use nix::errno::Errno;
use operation::Cause;

use crate::{
    Error, FileSystem, Result,
    detached::{LONGEST_STRING, mount_by_string},
    error::{mounting, on},
    level, merged, resolve, table, volatile,
};

/// An overlay mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overlay {
    /// The source in `/proc/mounts`. `stave:<id>` marks the mount of a container.
    pub source: String,
    /// The lower directories, lowest first, like the layers of an image.
    pub lower: Vec<PathBuf>,
    /// The writable directory. A read-only mount has none, and needs two lower directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<PathBuf>,
    /// The work directory of overlayfs, on the same file system as `upper`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<PathBuf>,
    /// The boot of the machine in which the overlay was mounted, see [`operation::boot`]. During the same
    /// boot nothing in `upper` is lost, and the overlay can be mounted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The mount point.
    pub target: PathBuf,
    /// Whether the mount is read-only, even with an upper directory.
    #[serde(default)]
    pub readonly: bool,
    /// Whether fsync(2) in the overlay writes to the disk, and unmounting waits for that. If false, a crash
    /// of the machine may leave the upper directory half written. That is fine for a container that does not
    /// outlive its mount.
    #[serde(default)]
    pub durable: bool,
    /// Whether whiteouts are marked with `user.overlay.*` instead of `trusted.overlay.*`. A user namespace
    /// needs this.
    #[serde(default)]
    pub userxattr: bool,
    /// Whether the directories are on several file systems, as with images. Everything in the overlay then
    /// appears on one file system, and an inode number does not change when a file is copied up. (Inode
    /// numbers then have more than 32 bits.)
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub xino: bool,
    /// The owner of files that overlayfs creates itself: the root of the user namespace that maps the
    /// directories' owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    /// Whether set-user-ID bits count for nothing: programs of an image must give nobody rights on the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nosuid: bool,
    /// The container's newest level; `None` if unknown. It is computed from the steps of the record, and not
    /// stored again.
    #[serde(default, skip_serializing)]
    pub newest: Option<Newest>,
}

/// The newest level of a container, as its record lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    /// The number of the newest snapshot; 0 if there is none.
    pub number: u32,
    /// Whether a fork was merged into the level.
    pub merged: bool,
}

impl Overlay {
    /// Options without a value. After a rename or a change of mode, files of lower layers are copied up
    /// whole. So an upper directory is complete without the layers below, and can become a layer.
    fn options(&self) -> Vec<&'static str> {
        // With `userxattr`, overlayfs neither makes nor follows redirects and metacopies. Kernels disagree
        // about which of these options conflict with it.
        let mut options = if self.userxattr {
            vec!["userxattr", "index=off"]
        } else {
            vec!["redirect_dir=off", "index=off", "metacopy=off"]
        };
        if self.xino {
            options.push("xino=on");
        }
        if self.upper.is_some() && !self.durable {
            options.push("volatile");
        }
        options
    }

    /// Returns the lower directories without duplicates. The kernel rejects a directory that appears twice
    /// (ELOOP), as in an image with two equal layers. The upper one of the two is kept: it hides the same
    /// files. Merged levels stand for those that they were made of.
    fn distinct(&self) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        let mut distinct: Vec<_> = self.lower.iter().rev().filter(|path| seen.insert(*path)).collect();
        distinct.reverse();
        merged::substituted(&distinct)
    }

    fn attributes(&self) -> MountAttrFlags {
        // A device node in an image must not open a disk of the host.
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.readonly);
        attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, self.nosuid);
        attributes
    }

    /// Whether `entry` is this overlay, or the overlay of one of its levels ([`crate::Level`]).
    pub(crate) fn is_at(&self, entry: &table::Entry) -> bool {
        level::number_of(&self.source, entry).is_some()
    }

    /// Mounts the overlay as the base of its levels. If there is a snapshot, the upper directory is frozen:
    /// the overlay is mounted read-only until the level is mounted too. Levels newer than the newest snapshot
    /// are removed. They exist if the power was cut before the snapshot was recorded, and contain no data
    /// yet. A merge that was not recorded is taken back for the same reason.
    ///
    /// # Errors
    /// As [`Overlay::mount`]; when a newer level cannot be removed.
    pub(crate) fn mount_below(&self) -> Result<()> {
        let Some(Newest { number: newest, merged }) = self.newest else { return self.mount() };
        if let Some(around) = self.upper.as_deref().and_then(Path::parent) {
            level::remove_newer(around, newest)?;
            merged::forget(around, newest)?;
            if !merged {
                level::unmerge(&level::place(around, newest))?;
            }
        }
        match newest > 0 && !self.readonly {
            true => Self { readonly: true, ..self.clone() }.mount(),
            false => self.mount(),
        }
    }

    /// Mounts the overlay.
    ///
    /// # Errors
    /// When a directory is missing, or the kernel rejects the combination; the message has the kernel's
    /// reason. [`Errno::EUCLEAN`] if a crash may have lost a part of `upper`, [`Errno::EBUSY`] if a process
    /// has the overlay mounted, [`Errno::EOPNOTSUPP`] if the file system of `upper` is unsuitable.
    pub fn mount(&self) -> Result<()> {
        match self.owner {
            Some(owner) => crate::files_of(owner, || self.mount_as_caller()),
            None => self.mount_as_caller(),
        }
    }

    fn mount_as_caller(&self) -> Result<()> {
        volatile::release(self)?;
        let mounted = match self.mount_by_api() {
            // Linux before 6.7 has no `lowerdir+`, which adds one directory with any path.
            Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::ENOSYS)) => self
                .mount_by_string()
                .map_err(|late| if late.errno() == Some(Errno::EINVAL) { error } else { late }),
            result => result,
        };
        mounted.map_err(|error| self.unfit().unwrap_or(error))
    }

    /// Returns an error if the file system of the upper directory is unsuitable: it does not support
    /// whiteouts, or does not report the type of directory entries.
    fn unfit(&self) -> Option<Error> {
        // linux/magic.h
        const OVERLAYFS: u64 = 0x794c_7630;
        const NFS: u64 = 0x6969;
        let upper = self.upper.as_ref()?;
        let on = match u64::try_from(statfs(upper).ok()?.f_type).ok()? {
            OVERLAYFS => "an overlay",
            NFS => "NFS",
            _ => return None,
        };
        let cause = format!("{upper:?} is on {on}, which cannot hold the upper directory of an overlay");
        let error: Error =
            mounting("mount overlay on", &self.target)(Cause::Explained(Errno::EOPNOTSUPP, cause));
        Some(error.with_hint(
            "choose a place on another file system, such as a volume or a tmpfs: --root DIR (STAVE_ROOT)",
        ))
    }

    fn mount_by_api(&self) -> Result<()> {
        let target = resolve::place(&self.target).map_err(on("open", &self.target))?;
        let file_system = FileSystem::open("overlay")?;
        file_system.set("source", self.source.as_str())?;
        // Open until the file system is made. A path that is too long or has a backslash is replaced with the
        // path of its descriptor.
        let mut open = Vec::new();
        let distinct = self.distinct();
        let lower = distinct.iter().rev().map(|path| ("lowerdir+", path));
        let upper = self.upper.iter().map(|path| ("upperdir", path));
        let work = self.work.iter().map(|path| ("workdir", path));
        for (key, path) in lower.chain(upper).chain(work) {
            // overlayfs takes a backslash in some of these for the start of an escaped character.
            let is_plain = !path.as_os_str().as_bytes().contains(&b'\\');
            if path.as_os_str().len() <= LONGEST_STRING && is_plain {
                file_system.set(key, path.as_path())?;
            } else {
                let place = resolve::place(path).map_err(on("open", path))?;
                file_system.set(key, resolve::proc_path(place.as_fd()).as_path())?;
                open.push(place);
            }
        }
        file_system.set_data(self.options())?;
        let mount = file_system.mount(self.attributes())?;
        mount.attach(&target).map_err(mounting("mount overlay on", &self.target))
    }

    /// Mounts with mount(2). All options must fit in one page. Two hundred directories fit as descriptor
    /// numbers, relative to `/proc/self/fd`.
    pub(crate) fn mount_by_string(&self) -> Result<()> {
        let open = |path: &Path| resolve::place(path).map_err(on("open", path));
        let target = open(&self.target)?;
        let lower = self.distinct().iter().rev().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
        let number = |fd: &OwnedFd| fd.as_raw_fd().to_string();
        let mut data = format!("lowerdir={}", lower.iter().map(number).collect::<Vec<_>>().join(":"));
        let mut above = Vec::new();
        for (key, path) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            let Some(path) = path else { continue };
            let place = open(path)?;
            // Writing to a string cannot fail.
            let _ = write!(data, ",{key}={}", number(&place));
            above.push(place);
        }
        for option in self.options() {
            data.push(',');
            data.push_str(option);
        }
        let error = mounting("mount overlay on", &self.target);
        let Ok(data) = CString::new(data) else { return Err(error(rustix::io::Errno::INVAL)) };
        let mut flags = MountFlags::NODEV;
        flags.set(MountFlags::RDONLY, self.readonly);
        flags.set(MountFlags::NOSUID, self.nosuid);
        let mount = || {
            let back = rustix::fs::open(".", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
            rustix::process::chdir("/proc/self/fd")?;
            let mounted = mount_by_string("overlay", &self.source, target.as_fd(), flags, &data);
            rustix::process::fchdir(back)?;
            mounted
        };
        mount().map_err(error)
    }

    /// The mount as a command.
    pub(crate) fn explain(&self) -> String {
        let paths = |paths: Vec<PathBuf>| -> String {
            paths
                .iter()
                .map(|path| String::from_utf8_lossy(path.as_os_str().as_bytes()))
                .collect::<Vec<_>>()
                .join(":")
        };
        let mut options = format!("lowerdir={}", paths(self.distinct().into_iter().rev().collect()));
        for (key, path) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            if let Some(path) = path {
                let _ = write!(options, ",{key}={}", path.display());
            }
        }
        for option in self.options() {
            options.push(',');
            options.push_str(option);
        }
        for (is_set, word) in [(self.nosuid, ",nosuid"), (true, ",nodev"), (self.readonly, ",ro")] {
            options.push_str(if is_set { word } else { "" });
        }
        let target = self.target.to_string_lossy();
        operation::words(["mount", "-t", "overlay", &self.source, "-o", &options, &target])
    }
}

#[cfg(test)]
impl Overlay {
    /// A plain overlay in `around`: `upper` and `work` there, shown at `rootfs`.
    pub(crate) fn around(around: &Path, source: &str, lower: Vec<PathBuf>) -> Self {
        Self {
            source: source.into(),
            lower,
            upper: Some(around.join("upper")),
            work: Some(around.join("work")),
            boot: None,
            target: around.join("rootfs"),
            readonly: false,
            durable: false,
            userxattr: false,
            xino: false,
            owner: None,
            nosuid: false,
            newest: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn fixture(layers: usize) -> (tempfile::TempDir, Overlay) {
        let dir = tempfile::tempdir().unwrap();
        let lower: Vec<PathBuf> = (0..layers).map(|n| dir.path().join(format!("{n:064x}"))).collect();
        for (n, path) in lower.iter().enumerate() {
            fs::create_dir(path).unwrap();
            fs::write(path.join("which"), n.to_string()).unwrap();
            fs::write(path.join(format!("f{n}")), "").unwrap();
        }
        for name in ["upper", "work", "rootfs"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let overlay = Overlay::around(dir.path(), "stave:test", lower);
        (dir, overlay)
    }

    type Mount = fn(&Overlay) -> Result<()>;

    #[test]
    fn two_hundred_layers_by_both_ways_and_the_last_is_on_top() {
        crate::apart(|| {
            for mount in [Overlay::mount_by_api as Mount, Overlay::mount_by_string] {
                let (_dir, overlay) = fixture(200);
                mount(&overlay).unwrap();
                let entry = table::at(&overlay.target).unwrap().unwrap();
                let top = fs::read_to_string(overlay.target.join("which")).unwrap();
                let written = fs::write(overlay.target.join("new"), "");
                let count = fs::read_dir(&overlay.target).unwrap().count();
                crate::unmount(&overlay.target).unwrap();
                assert_eq!((entry.kind.as_str(), entry.source.as_str()), ("overlay", "stave:test"));
                assert_eq!(top, "199");
                assert_eq!(count, 202);
                written.unwrap();
                assert!(overlay.upper.unwrap().join("new").exists());
            }
        });
    }

    #[test]
    fn a_layer_that_comes_twice_is_mounted_once() {
        crate::apart(|| {
            for mount in [Overlay::mount_by_api as Mount, Overlay::mount_by_string] {
                let (_dir, mut overlay) = fixture(2);
                overlay.lower = [0, 1, 0].map(|at| overlay.lower[at].clone()).to_vec();
                mount(&overlay).unwrap();
                let top = fs::read_to_string(overlay.target.join("which")).unwrap();
                crate::unmount(&overlay.target).unwrap();
                assert_eq!(top, "0");
            }
        });
    }

    #[test]
    fn read_only_without_an_upper_directory() {
        crate::apart(|| {
            for mount in [Overlay::mount_by_api as Mount, Overlay::mount_by_string] {
                let (_dir, mut overlay) = fixture(2);
                (overlay.upper, overlay.work, overlay.readonly) = (None, None, true);
                mount(&overlay).unwrap();
                let written = fs::write(overlay.target.join("new"), "");
                crate::unmount(&overlay.target).unwrap();
                assert_eq!(written.unwrap_err().raw_os_error(), Some(30));
            }
        });
    }

    #[test]
    fn a_missing_layer_is_named() {
        crate::apart(|| {
            let (dir, mut overlay) = fixture(1);
            let missing = dir.path().join("missing");
            overlay.lower.push(missing.clone());
            let message = overlay.mount().unwrap_err().to_string();
            assert!(message.contains(missing.to_str().unwrap()), "{message}");
            assert!(message.contains("No such file or directory"), "{message}");
        });
    }

    #[test]
    fn an_overlay_is_no_place_for_the_top_of_another() {
        crate::apart(|| {
            let (dir, below) = fixture(2);
            below.mount().unwrap();
            let (_other, mut overlay) = fixture(1);
            let (upper, work) = (below.target.join("upper"), below.target.join("work"));
            fs::create_dir(&upper).unwrap();
            fs::create_dir(&work).unwrap();
            (overlay.upper, overlay.work) = (Some(upper.clone()), Some(work));
            let error = overlay.mount().unwrap_err();
            crate::unmount(&below.target).unwrap();
            drop(dir);
            assert_eq!(error.errno(), Some(Errno::EOPNOTSUPP));
            assert_eq!(
                error.to_string(),
                format!(
                    "mount overlay on {:?}: {upper:?} is on an overlay, which cannot hold the upper directory of an overlay",
                    overlay.target
                )
            );
            assert!(error.hint().is_some());
        });
    }

    #[test]
    fn explained_as_a_person_would_type_it() {
        let lower = vec!["/l/a".into(), "/l/b".into()];
        let overlay = Overlay { durable: true, ..Overlay::around(Path::new("/c"), "stave:web", lower) };
        assert_eq!(
            overlay.explain(),
            "mount -t overlay stave:web -o lowerdir=/l/b:/l/a,upperdir=/c/upper,workdir=/c/work,\
             redirect_dir=off,index=off,metacopy=off,nodev /c/rootfs"
        );
    }
}
