use std::{
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat2, unlinkat},
    io::Errno,
};

use crate::{shared_directory::stays, unless_gone};

/// The directories of a tool. Undo removes and unmounts only below them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `--root`: images, layers, containers, cache. Survives a reboot.
    pub root: PathBuf,
    /// `--run-dir`: records, locks, leases, claims. Does not survive a reboot.
    pub run_dir: PathBuf,
}

/// A path in a document that lies outside every directory that undo may touch.
#[derive(Debug, thiserror::Error)]
#[error("path {path:?} is outside {root:?}, {run_dir:?} and /run/netns")]
pub struct OutOfScope {
    path: PathBuf,
    root: PathBuf,
    run_dir: PathBuf,
}

impl Scope {
    /// Checks that `path` is absolute, has no `.` and `..`, and is strictly below `root`, `run_dir` or
    /// `/run/netns`. The check is lexical only: code that opens the path must still refuse symbolic links
    /// below these directories.
    ///
    /// # Errors
    /// [`OutOfScope`] if the path is anywhere else.
    pub fn contain<'a>(&self, path: &'a Path) -> Result<&'a Path, OutOfScope> {
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let below = |top: &Path| path.strip_prefix(top).is_ok_and(|rest| !rest.as_os_str().is_empty());
        if plain && (below(&self.root) || below(&self.run_dir) || below(Path::new("/run/netns"))) {
            return Ok(path);
        }
        Err(OutOfScope { path: path.into(), root: self.root.clone(), run_dir: self.run_dir.clone() })
    }

    /// The directory of a container's files: `$STAVE_ROOT/containers/<id>`.
    pub fn container(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// The directory with the claims on the shared thing `name`: `$STAVE_RUN/shared/<name>`.
    pub fn claims(&self, name: &str) -> PathBuf {
        self.run_dir.join("shared").join(name)
    }

    /// Removes a file below `run_dir`, and then the directories above it, up to and including those directly
    /// in `run_dir`, that are empty. Follows no symbolic link in the path. A file that is gone already is no
    /// error.
    ///
    /// # Errors
    /// When the file cannot be removed; [`Errno::XDEV`] if the file is not below `run_dir`.
    pub fn remove_file(&self, path: &Path) -> Result<(), Errno> {
        let below = path.strip_prefix(&self.run_dir).map_err(|_| Errno::XDEV)?;
        let names: Vec<_> = below.iter().collect();
        let Some((file, directories)) = names.split_last() else { return Err(Errno::XDEV) };
        if below.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(Errno::XDEV);
        }
        let open = |at: usize| -> Result<Option<OwnedFd>, Errno> {
            let directory: PathBuf = directories[..at].iter().collect();
            unless_gone(self.open_below(&directory))
        };
        if let Some(directory) = open(directories.len())? {
            unless_gone(unlinkat(directory, *file, AtFlags::empty()))?;
        }
        for (at, name) in directories.iter().enumerate().rev() {
            // A tool that was killed while it made the directories has made only the upper ones.
            let Some(above) = open(at)? else { continue };
            match unlinkat(&above, *name, AtFlags::REMOVEDIR) {
                Err(Errno::NOENT) => {}
                Err(errno) if stays(errno.raw_os_error()) => break,
                removed => removed?,
            }
        }
        Ok(())
    }

    fn open_below(&self, directory: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = openat2(CWD, &self.run_dir, flags, Mode::empty(), ResolveFlags::empty())?;
        if directory.as_os_str().is_empty() {
            return Ok(top);
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(top, directory, flags, Mode::empty(), resolve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_removed_by_no_link_and_with_their_empty_directories() {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope { root: dir.path().join("root"), run_dir: dir.path().join("run") };
        let shared = scope.run_dir.join("shared");
        std::fs::create_dir_all(shared.join("a")).unwrap();
        std::fs::create_dir_all(dir.path().join("victim")).unwrap();
        for file in [shared.join("a/web"), shared.join("a/db"), dir.path().join("victim/web")] {
            std::fs::write(file, "").unwrap();
        }
        std::os::unix::fs::symlink(dir.path().join("victim"), shared.join("link")).unwrap();
        assert_eq!(scope.remove_file(&shared.join("link/web")), Err(Errno::LOOP));
        assert_eq!(scope.remove_file(&dir.path().join("victim/web")), Err(Errno::XDEV));
        assert_eq!(scope.remove_file(&scope.run_dir.join("../victim/web")), Err(Errno::XDEV));
        assert!(dir.path().join("victim/web").exists());
        scope.remove_file(&shared.join("a/web")).unwrap();
        assert!(shared.join("a/db").exists());
        scope.remove_file(&shared.join("a/db")).unwrap();
        scope.remove_file(&shared.join("a/db")).unwrap();
        assert!(!shared.join("a").exists() && shared.exists());
        std::fs::remove_file(shared.join("link")).unwrap();
        scope.remove_file(&shared.join("b/web")).unwrap();
        assert!(!shared.exists(), "also where its own directory was never made");
    }

    #[test]
    fn contains_only_what_lies_strictly_below() {
        let scope = Scope { root: "/var/lib/stave".into(), run_dir: "/run/stave".into() };
        for (path, inside) in [
            ("/var/lib/stave/containers/web", true),
            ("/run/stave/web.json", true),
            ("/run/netns/web", true),
            ("/run/netns", false),
            ("/var/lib/stave", false),
            ("/var/lib/stave/../x", false),
            ("/var/lib/stavex/y", false),
            ("var/lib/stave/x", false),
            ("/", false),
            ("/etc", false),
        ] {
            assert_eq!(scope.contain(Path::new(path)).is_ok(), inside, "{path}");
        }
    }
}
