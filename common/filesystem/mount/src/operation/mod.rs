//! Operations on mounts and directories, as plain values.

pub(crate) mod directory;
mod mount_points;
pub(crate) mod mounted;
mod shown;

pub use shown::MARK as SHOWN;

use std::path::PathBuf;

use operation::{Condition, Error, Scope, words};
use serde::{Deserialize, Serialize};
use userns::Namespace;

use crate::{Disk, Level, Overlay};

/// A directory, a file or a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum MountOperation {
    /// Makes a new directory. Undo removes it with its content. Undo also removes the parent directory if
    /// that is empty and within the scope.
    DirectoryAdd {
        /// Absolute path.
        path: PathBuf,
        /// The mode, as a number.
        mode: u32,
        /// User and group; the caller's if missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<(u32, u32)>,
    },
    /// Makes a new file.
    FileAdd {
        /// Absolute path.
        path: PathBuf,
        /// The content.
        content: String,
        /// The mode, as a number.
        mode: u32,
    },
    /// Makes sure that the lowest layer of every container exists: a directory with `/dev`, `/proc`,
    /// `/etc/hosts` and other mount points. All containers share it, so undo leaves it.
    MountPointsAdd {
        /// Absolute path.
        path: PathBuf,
        /// The directory is made at this path, and then renamed to `path`.
        beside: PathBuf,
    },
    /// Fills the directory of a new volume with the content of a directory of the container, if that exists.
    /// Undoing the directory removes the content.
    TreeCopy {
        /// The container's root file system.
        within: PathBuf,
        /// The directory in the container. Its symbolic links cannot lead outside.
        source: PathBuf,
        /// Absolute path of the directory to fill.
        target: PathBuf,
    },
    /// Mounts an EROFS image, read-only.
    ImageMount {
        /// Absolute path of the image.
        image: PathBuf,
        /// Absolute path of the mount point.
        target: PathBuf,
    },
    /// Makes the file of a file system for the upper directory of an overlay.
    DiskAdd(Disk),
    /// Mounts that file system.
    DiskMount(Disk),
    /// Makes sure that the file system of another container is mounted. It belongs to that container, so undo
    /// leaves it.
    DiskShare(Disk),
    /// Mounts a directory a second time, with its files' owners mapped by a user namespace.
    IdmapMount {
        /// Absolute path of the directory.
        source: PathBuf,
        /// Absolute path of the mount point.
        target: PathBuf,
        /// The user namespace.
        userns: Namespace,
    },
    /// Mounts an overlay.
    OverlayMount(Overlay),
    /// Mounts an overlay at a place that the user named, which may be anywhere. Its source is its mark: undo
    /// unmounts nothing else there.
    OverlayShow(Overlay),
    /// Freezes the upper directory of an overlay, and mounts another overlay with an empty upper directory in
    /// its place.
    LevelMount(Level),
    /// Mounts a tmpfs that every user may write to, like `/dev/shm`.
    MemoryMount {
        /// The source in the mount table. It identifies the mount.
        source: String,
        /// Absolute path of the mount point.
        target: PathBuf,
        /// The size in bytes.
        size: u64,
    },
    /// Mounts a file or directory of the host in a container.
    BindMount {
        /// Absolute path on the host.
        source: PathBuf,
        /// The container's root file system.
        within: PathBuf,
        /// The path in the container. Created if it is missing.
        target: PathBuf,
        /// Whether the mount is read-only.
        #[serde(default)]
        readonly: bool,
        /// The container's own user namespace, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        userns: Option<Namespace>,
        /// Whether the owners of files are mapped by that namespace.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        idmap: bool,
    },
    /// Makes a mount read-only, but not the mounts below it.
    MountSeal {
        /// Absolute path.
        target: PathBuf,
    },
}

impl operation::Operation for MountOperation {
    fn explain(&self) -> Vec<String> {
        match self {
            Self::DirectoryAdd { path, mode, owner } => {
                let mode = format!("{mode:04o}");
                let mut line = vec!["install".to_owned(), "-d".into(), "-m".into(), mode];
                if let Some((user, group)) = owner.filter(|owner| *owner != (0, 0)) {
                    line.extend(["-o".into(), user.to_string(), "-g".into(), group.to_string()]);
                }
                line.push(path.to_string_lossy().into_owned());
                vec![words(line)]
            }
            Self::FileAdd { path, content, mode } => {
                let path = operation::quote(&path.to_string_lossy());
                vec![format!(
                    "printf %s {} | install -m {mode:04o} /dev/stdin {path}",
                    operation::quote(content)
                )]
            }
            Self::MountPointsAdd { path, .. } => mount_points::explain(path),
            Self::TreeCopy { within, source, target } => {
                let source = format!("{}/.", inside(within, source).display());
                vec![words(["cp", "--archive", "--one-file-system", &source, &target.to_string_lossy()])]
            }
            Self::ImageMount { image, target } => {
                let [image, target] = [image, target].map(|path| path.to_string_lossy());
                vec![words(["mount", "-t", "erofs", "-o", "ro,nodev", &image, &target])]
            }
            Self::DiskAdd(disk) => vec![disk.explain_create()],
            Self::DiskMount(disk) => disk.explain_mount(),
            Self::DiskShare(disk) => vec![disk.explain_share()],
            Self::OverlayMount(overlay) | Self::OverlayShow(overlay) => vec![overlay.explain()],
            Self::LevelMount(level) => level.explain(),
            Self::MemoryMount { source, target, size } => {
                let options = format!("nosuid,nodev,noexec,{}", mounted::memory(*size).join(","));
                vec![words(["mount", "-t", "tmpfs", "-o", &options, source, &target.to_string_lossy()])]
            }
            Self::IdmapMount { source, target, userns } => {
                let options = format!("bind,nodev,{}", mounted::idmap(userns));
                let [source, target] = [source, target].map(|path| path.to_string_lossy());
                vec![words(["mount", "-o", &options, &source, &target])]
            }
            Self::BindMount { source, within, target, readonly, userns, idmap } => {
                let target = inside(within, target);
                let mut options =
                    if *readonly { "rbind,nodev,ro=recursive" } else { "rbind,nodev" }.to_owned();
                if let Some(userns) = userns.as_ref().filter(|_| *idmap) {
                    options = format!("{options},{}", mounted::idmap(userns));
                }
                let [source, target] = [source, &target].map(|path| path.to_string_lossy());
                vec![words(["mount", "--mkdir", "-o", &options, &source, &target])]
            }
            Self::MountSeal { target } => {
                vec![words(["mount", "-o", "remount,bind,nodev,ro", &target.to_string_lossy()])]
            }
        }
    }

    fn apply(&mut self, _: &Scope) -> Result<(), Error> {
        match self {
            Self::DirectoryAdd { path, mode, owner } => directory::add(path, *mode, *owner)?,
            Self::FileAdd { path, content, mode } => directory::add_file(path, content, *mode)?,
            Self::MountPointsAdd { path, beside } => mount_points::add(path, beside)?,
            Self::TreeCopy { within, source, target } => {
                crate::tree::fill(within, source, target)?;
            }
            Self::ImageMount { image, target } => mounted::image(image, target)?,
            Self::DiskAdd(disk) => disk.create()?,
            Self::DiskMount(disk) => disk.mount()?,
            Self::DiskShare(disk) => disk.share()?,
            Self::OverlayMount(overlay) => overlay.mount_below()?,
            Self::OverlayShow(overlay) => overlay.mount()?,
            Self::LevelMount(level) => level.mount()?,
            Self::MemoryMount { source, target, size } => mounted::in_memory(source, target, *size)?,
            Self::IdmapMount { source, target, userns } => mounted::idmapped(source, target, userns)?,
            Self::BindMount { source, within, target, readonly, userns, idmap } => {
                let bind =
                    || mounted::bind(source, within, target, *readonly, userns.as_ref().filter(|_| *idmap));
                match userns.as_ref().and_then(Namespace::root) {
                    // A missing mount point is created for the container's root.
                    Some(root) => crate::files_of(root, bind)?,
                    None => bind()?,
                }
            }
            Self::MountSeal { target } => mounted::seal(target)?,
        }
        Ok(())
    }

    fn undo(&self, scope: &Scope) -> Result<(), Error> {
        match self {
            Self::DirectoryAdd { path, .. } | Self::FileAdd { path, .. } => {
                directory::remove(scope, path)?;
            }
            Self::DiskAdd(disk) => directory::remove(scope, &disk.image)?,
            Self::DiskMount(disk) => disk.undo(scope.contain(&disk.target)?)?,
            Self::MountPointsAdd { beside, .. } => crate::tree::remove(scope.contain(beside)?)?,
            // Removed with the directory; removed with the mount; owned by another container.
            Self::TreeCopy { .. } | Self::MountSeal { .. } | Self::DiskShare(_) => {}
            Self::ImageMount { target, .. } => {
                mounted::undo(scope.contain(target)?, |entry| entry.kind == crate::image::KIND)?;
            }
            Self::OverlayMount(overlay) => {
                mounted::undo(scope.contain(&overlay.target)?, |entry| overlay.is_at(entry))?;
            }
            Self::OverlayShow(overlay) => shown::undo(overlay)?,
            Self::LevelMount(level) => level.undo(scope)?,
            Self::IdmapMount { target, .. } => mounted::undo(scope.contain(target)?, |_| true)?,
            Self::MemoryMount { source, target, .. } => {
                mounted::undo(scope.contain(target)?, |entry| mounted::is_memory(entry, source))?;
            }
            Self::BindMount { within, target, .. } => {
                if let Some(target) = mounted::find(scope.contain(within)?, target)? {
                    mounted::undo(&target, |_| true)?;
                }
            }
        }
        Ok(())
    }

    fn check(&self, _: &Scope) -> Result<Condition, Error> {
        Ok(match self {
            Self::DirectoryAdd { path, .. } | Self::MountPointsAdd { path, .. } => {
                directory::check(path, true)?
            }
            Self::FileAdd { path, .. } => directory::check(path, false)?,
            Self::DiskAdd(disk) => directory::check(&disk.image, false)?,
            Self::DiskMount(disk) | Self::DiskShare(disk) => disk.check()?,
            Self::TreeCopy { .. } => Condition::Present,
            Self::ImageMount { target, .. } => {
                mounted::check(target, |entry| entry.kind == crate::image::KIND)?
            }
            Self::OverlayMount(overlay) => mounted::check(&overlay.target, |entry| overlay.is_at(entry))?,
            Self::OverlayShow(overlay) => mounted::check(&overlay.target, |entry| shown::is(overlay, entry))?,
            Self::LevelMount(level) => level.check()?,
            Self::IdmapMount { target, .. } => mounted::check(target, |_| true)?,
            Self::MemoryMount { source, target, .. } => {
                mounted::check(target, |entry| mounted::is_memory(entry, source))?
            }
            Self::BindMount { within, target, .. } => match mounted::find(within, target)? {
                Some(path) => mounted::check(&path, |_| true)?,
                None => Condition::Missing(format!("mount {:?}", inside(within, target))),
            },
            Self::MountSeal { target } => match mounted::is_sealed(target)? {
                true => Condition::Present,
                false => Condition::Missing(format!("read-only {target:?}")),
            },
        })
    }
}

/// The host's path of a path in a container.
fn inside(within: &std::path::Path, target: &std::path::Path) -> PathBuf {
    within.join(target.strip_prefix("/").unwrap_or(target))
}

#[cfg(test)]
mod tests;
