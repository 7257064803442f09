//! Removes what no build has used for a while.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    time::Duration,
};

use oci::gc::is_older;
use operation::unless_gone;

use crate::workspace;

type Result<T> = std::result::Result<T, (PathBuf, io::Error)>;

/// Removes results of steps, and caches of `RUN --mount=type=cache`, that no build has used for `age`, below `root`
/// (`$STAVE_ROOT`); with `dry_run` only lists them. Caches of mounts stay while a build runs. Returns their paths.
///
/// # Errors
/// When one cannot be looked at or removed: the path, and why.
pub fn prune(root: &Path, age: Duration, dry_run: bool) -> Result<Vec<PathBuf>> {
    let cache = root.join("cache");
    let mut pruned = Vec::new();
    for path in old(&cache, age)?.into_iter().filter(|path| path.extension() == Some(OsStr::new("json"))) {
        if !dry_run {
            unless_gone(fs::remove_file(&path)).map_err(|error| (path.clone(), error))?;
        }
        pruned.push(path);
    }
    // What steps depended on, for those who ask why the cache has them not.
    for path in old(&cache.join("steps"), age)? {
        if !dry_run {
            unless_gone(fs::remove_file(&path)).map_err(|error| (path.clone(), error))?;
        }
    }
    let mounts = cache.join("mounts");
    let unused = old(&mounts, age)?;
    let Some(_pause) = (if unused.is_empty() { None } else { workspace::pause(root)? }) else {
        return Ok(pruned);
    };
    // A lock belongs to its cache, and is removed with it.
    for path in unused.into_iter().filter(|path| path.is_dir()) {
        if !dry_run {
            remove(&mounts, &path).map_err(|error| (path.clone(), error))?;
        }
        pruned.push(path);
    }
    Ok(pruned)
}

/// What stands in a directory and was not used for `age`, sorted. One that is missing has nothing.
fn old(directory: &Path, age: Duration) -> Result<Vec<PathBuf>> {
    let at = |error| (directory.to_owned(), error);
    let Some(entries) = unless_gone(fs::read_dir(directory)).map_err(at)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(at)?.path();
        // Somebody else may have removed it.
        let is_old = unless_gone(is_older(&path, age)).map_err(|error| (path.clone(), error))?;
        found.extend(is_old.unwrap_or_default().then_some(path));
    }
    found.sort();
    Ok(found)
}

fn remove(mounts: &Path, path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name() else { return Ok(()) };
    layer::remove_tree(File::open(mounts)?.as_fd(), name.as_bytes())?;
    let mut lock = name.to_owned();
    lock.push(".lock");
    unless_gone(fs::remove_file(mounts.join(lock))).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn what_is_not_used_goes_and_what_a_build_may_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join("cache").join(name);
        assert!(prune(dir.path(), Duration::ZERO, false).unwrap().is_empty());
        fs::create_dir_all(at("mounts/a/b")).unwrap();
        for file in ["1.json", "mounts/a.lock", "mounts/a/b/c"] {
            fs::write(at(file), "{}").unwrap();
        }
        let hour = Duration::from_secs(3600);
        assert!(prune(dir.path(), hour, false).unwrap().is_empty());
        let all = [at("1.json"), at("mounts/a")];
        assert_eq!(prune(dir.path(), Duration::ZERO, true).unwrap(), all);
        assert!(all.iter().all(|path| path.exists()));
        let build = Workspace::new(dir.path()).unwrap();
        assert_eq!(prune(dir.path(), Duration::ZERO, false).unwrap(), all[..1]);
        assert!(at("mounts/a").exists(), "a build runs");
        drop(build);
        assert_eq!(prune(dir.path(), Duration::ZERO, false).unwrap(), all[1..]);
        assert_eq!(fs::read_dir(at("mounts")).unwrap().count(), 0);
    }
}
