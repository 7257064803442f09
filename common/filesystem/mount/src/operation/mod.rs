//! Operations on mounts and directories, as plain values.

pub(crate) mod directory;
mod mount_points;
pub(crate) mod mounted;

use std::path::PathBuf;

use operation::{Condition, Error, Scope, words};
use serde::{Deserialize, Serialize};
use userns::Namespace;

use crate::{Disk, Overlay};

/// A directory, a file or a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum MountOperation {
    /// Makes a new directory. Undo removes it with everything in it, and also its parent if that is empty and lies
    /// within the scope.
    DirectoryAdd {
        /// Absolute path.
        path: PathBuf,
        /// Permissions, as a number.
        mode: u32,
        /// User and group; by default the caller's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<(u32, u32)>,
    },
    /// Makes a new file.
    FileAdd {
        /// Absolute path.
        path: PathBuf,
        /// Its content.
        content: String,
        /// Permissions, as a number.
        mode: u32,
    },
    /// Makes sure that the lowest layer of every container exists: a directory with `/dev`, `/proc`, `/etc/hosts` and
    /// other mount points. It is shared, so undo leaves it.
    MountPointsAdd {
        /// Absolute path.
        path: PathBuf,
        /// Where it is made first; then it is renamed to `path`.
        beside: PathBuf,
    },
    /// Fills a directory for a new volume with the content of a container's directory, if that exists. It is removed
    /// with the directory.
    TreeCopy {
        /// The container's root file system.
        within: PathBuf,
        /// The directory in it. Its symbolic links cannot lead outside.
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
    /// Makes the file of a file system for the top of an overlay.
    DiskAdd(Disk),
    /// Mounts it.
    DiskMount(Disk),
    /// Mounts a directory a second time, where its files show their owners by the mappings of a user namespace.
    IdmapMount {
        /// Absolute path of the directory.
        source: PathBuf,
        /// Absolute path of the mount point.
        target: PathBuf,
        /// The mappings.
        userns: Namespace,
    },
    /// Mounts an overlay.
    OverlayMount(Overlay),
    /// Mounts a file system in memory that every user may write to, as `/dev/shm` is.
    MemoryMount {
        /// Its name in the list of mounts, by which it is recognised.
        source: String,
        /// Absolute path of the mount point.
        target: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// Mounts a file or a directory of the host in a container.
    BindMount {
        /// Absolute path on the host.
        source: PathBuf,
        /// The container's root file system.
        within: PathBuf,
        /// The path in it, made if it is missing.
        target: PathBuf,
        /// Make it read-only.
        #[serde(default)]
        readonly: bool,
        /// The user namespace of the container, if it has one of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        userns: Option<Namespace>,
        /// Whether its files show their owners by that namespace.
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
            Self::OverlayMount(overlay) => vec![overlay.explain()],
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
            Self::TreeCopy { within, source, target } => directory::fill(within, source, target)?,
            Self::ImageMount { image, target } => mounted::image(image, target)?,
            Self::DiskAdd(disk) => disk.create()?,
            Self::DiskMount(disk) => disk.mount()?,
            Self::OverlayMount(overlay) => overlay.mount()?,
            Self::MemoryMount { source, target, size } => mounted::in_memory(source, target, *size)?,
            Self::IdmapMount { source, target, userns } => mounted::idmapped(source, target, userns)?,
            Self::BindMount { source, within, target, readonly, userns, idmap } => {
                let bind =
                    || mounted::bind(source, within, target, *readonly, userns.as_ref().filter(|_| *idmap));
                match userns.as_ref().and_then(Namespace::root) {
                    // A mount point that is missing is made.
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
            // They are removed with the directory, and with the mount.
            Self::TreeCopy { .. } | Self::MountSeal { .. } => {}
            Self::ImageMount { target, .. } => {
                mounted::undo(scope.contain(target)?, |entry| entry.kind == crate::image::KIND)?;
            }
            Self::OverlayMount(overlay) => {
                mounted::undo(scope.contain(&overlay.target)?, |entry| {
                    entry.kind == "overlay" && entry.source == overlay.source
                })?;
            }
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
            Self::DiskMount(disk) => disk.check()?,
            Self::TreeCopy { .. } => Condition::Present,
            Self::ImageMount { target, .. } => {
                mounted::check(target, |entry| entry.kind == crate::image::KIND)?
            }
            Self::OverlayMount(overlay) => mounted::check(&overlay.target, |entry| {
                entry.kind == "overlay" && entry.source == overlay.source
            })?,
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

/// A path in a container, as a path of the host.
fn inside(within: &std::path::Path, target: &std::path::Path) -> PathBuf {
    within.join(target.strip_prefix("/").unwrap_or(target))
}

#[cfg(test)]
mod tests;
