//! What the tools do to mounts and directories, as plain values.

mod directory;
mod mount_points;
mod mounted;

use std::path::PathBuf;

use operation::{Condition, Error, Scope, words};
use serde::{Deserialize, Serialize};

use crate::Overlay;

/// A directory, a file or a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum MountOperation {
    /// Makes a directory that is not there yet. Undone with everything in it; a directory above that is empty then
    /// goes too, if it lies within the scope.
    DirectoryAdd {
        /// Absolute path.
        path: PathBuf,
        /// Permissions, as a number.
        mode: u32,
        /// User and group; the caller's where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<(u32, u32)>,
    },
    /// Makes a file that is not there yet.
    FileAdd {
        /// Absolute path.
        path: PathBuf,
        /// What is in it.
        content: String,
        /// Permissions, as a number.
        mode: u32,
    },
    /// Makes sure that the directory stands which is the lowest layer of every container: `/dev`, `/proc`, `/etc/hosts`
    /// and what else is mounted on. It is shared, so undoing leaves it.
    MountPointsAdd {
        /// Absolute path.
        path: PathBuf,
        /// Where it is made first, to be renamed to `path`.
        beside: PathBuf,
    },
    /// Fills a directory with what a directory of a container holds, if that is there: for a new volume. Goes with the
    /// directory.
    TreeCopy {
        /// The container's root file system.
        within: PathBuf,
        /// The directory in it; its symbolic links lead nowhere outside.
        source: PathBuf,
        /// Absolute path of the directory that is filled.
        target: PathBuf,
    },
    /// Mounts an EROFS image, read-only.
    ImageMount {
        /// Absolute path of the image.
        image: PathBuf,
        /// Absolute path of the directory that it is mounted on.
        target: PathBuf,
    },
    /// Mounts an overlay.
    OverlayMount(Overlay),
    /// Mounts a file or a directory of the host in a container.
    BindMount {
        /// Absolute path on the host.
        source: PathBuf,
        /// The container's root file system.
        within: PathBuf,
        /// The path in it, made if it is missing.
        target: PathBuf,
        /// Refuse writing.
        #[serde(default)]
        readonly: bool,
    },
    /// Refuses writing to what is mounted, but not to what is mounted in it.
    MountSeal {
        /// Absolute path.
        target: PathBuf,
    },
    /// Mounts a file system.
    Mount {
        /// Its type: `tmpfs`, `erofs`.
        fstype: String,
        /// What is mounted.
        source: String,
        /// Absolute path of the directory that it is mounted on.
        target: PathBuf,
        /// As `mount -o` takes them.
        #[serde(default)]
        options: Vec<String>,
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
            Self::OverlayMount(overlay) => vec![overlay.explain()],
            Self::BindMount { source, within, target, readonly } => {
                let target = inside(within, target);
                let options = if *readonly { "rbind,nodev,ro=recursive" } else { "rbind,nodev" };
                let [source, target] = [source, &target].map(|path| path.to_string_lossy());
                vec![words(["mount", "--mkdir", "-o", options, &source, &target])]
            }
            Self::MountSeal { target } => {
                vec![words(["mount", "-o", "remount,bind,nodev,ro", &target.to_string_lossy()])]
            }
            Self::Mount { fstype, source, target, options } => {
                let mut line = vec!["mount", "-t", fstype];
                let options = options.join(",");
                if !options.is_empty() {
                    line.extend(["-o", &options]);
                }
                let target = target.to_string_lossy();
                line.extend([source.as_str(), &target]);
                vec![words(line)]
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
            Self::OverlayMount(overlay) => overlay.mount()?,
            Self::BindMount { source, within, target, readonly } => {
                mounted::bind(source, within, target, *readonly)?;
            }
            Self::MountSeal { target } => mounted::seal(target)?,
            Self::Mount { fstype, source, target, options } => {
                mounted::mount(fstype, source, target, options)?
            }
        }
        Ok(())
    }

    fn undo(&self, scope: &Scope) -> Result<(), Error> {
        match self {
            Self::DirectoryAdd { path, .. } | Self::FileAdd { path, .. } => {
                crate::tree::remove(scope.contain(path)?)?;
                if let Some(parent) = path.parent()
                    && scope.contain(parent).is_ok()
                {
                    // Made for the first of its kind. That it is not empty, or gone, is fine.
                    let _ = std::fs::remove_dir(parent);
                }
            }
            Self::MountPointsAdd { beside, .. } => crate::tree::remove(scope.contain(beside)?)?,
            // They go with the directory, and with the mount.
            Self::TreeCopy { .. } | Self::MountSeal { .. } => {}
            Self::ImageMount { target, .. } => {
                mounted::undo(scope.contain(target)?, |entry| entry.kind == crate::image::KIND)?;
            }
            Self::OverlayMount(overlay) => {
                mounted::undo(scope.contain(&overlay.target)?, |entry| {
                    entry.kind == "overlay" && entry.source == overlay.source
                })?;
            }
            Self::BindMount { within, target, .. } => {
                if let Some(target) = mounted::find(scope.contain(within)?, target)? {
                    mounted::undo(&target, |_| true)?;
                }
            }
            Self::Mount { fstype, target, .. } => {
                mounted::undo(scope.contain(target)?, |entry| entry.kind == *fstype)?;
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
            Self::TreeCopy { .. } => Condition::Present,
            Self::ImageMount { target, .. } => {
                mounted::check(target, |entry| entry.kind == crate::image::KIND)?
            }
            Self::OverlayMount(overlay) => mounted::check(&overlay.target, |entry| {
                entry.kind == "overlay" && entry.source == overlay.source
            })?,
            Self::BindMount { within, target, .. } => match mounted::find(within, target)? {
                Some(path) => mounted::check(&path, |_| true)?,
                None => Condition::Missing(format!("mount {:?}", inside(within, target))),
            },
            Self::MountSeal { target } => match mounted::is_sealed(target)? {
                true => Condition::Present,
                false => Condition::Missing(format!("read-only {target:?}")),
            },
            Self::Mount { fstype, target, .. } => mounted::check(target, |entry| entry.kind == *fstype)?,
        })
    }
}

/// A path of a container, as the host writes it.
fn inside(within: &std::path::Path, target: &std::path::Path) -> PathBuf {
    within.join(target.strip_prefix("/").unwrap_or(target))
}

#[cfg(test)]
mod tests;
