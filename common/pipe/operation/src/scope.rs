use std::path::{Component, Path, PathBuf};

/// The directories of a tool. Undo removes and unmounts only below them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `--root`: images, layers, containers, cache. Survives a reboot.
    pub root: PathBuf,
    /// `--run-dir`: records, locks, leases, claims. Does not survive a reboot.
    pub run_dir: PathBuf,
}

/// A path in a document outside every directory that undo may touch.
#[derive(Debug, thiserror::Error)]
#[error("path {path:?} is outside {root:?}, {run_dir:?} and /run/netns")]
pub struct OutOfScope {
    path: PathBuf,
    root: PathBuf,
    run_dir: PathBuf,
}

impl Scope {
    /// Checks `path` (absolute, without `.` and `..`): it must be strictly below `root`, `run_dir` or `/run/netns`. The
    /// check is lexical only; opening the path must still refuse symbolic links below these directories.
    ///
    /// # Errors
    /// [`OutOfScope`] if it does not.
    pub fn contain<'a>(&self, path: &'a Path) -> Result<&'a Path, OutOfScope> {
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let below = |top: &Path| path.strip_prefix(top).is_ok_and(|rest| !rest.as_os_str().is_empty());
        if plain && (below(&self.root) || below(&self.run_dir) || below(Path::new("/run/netns"))) {
            return Ok(path);
        }
        Err(OutOfScope { path: path.into(), root: self.root.clone(), run_dir: self.run_dir.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
