//! Removes what no build has used for a while from the cache.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    time::Duration,
};

use oci::{
    Digest,
    gc::{Marks, is_older},
};
use operation::unless_gone;

use crate::{
    cache::{Entry, FILES},
    workspace::Pause,
};

type Result<T> = std::result::Result<T, (PathBuf, io::Error)>;

/// Removes entries of the step cache and cache mounts (`RUN --mount=type=cache`) below `root` (`$STAVE_ROOT`)
/// that no build has used for `age`. With `dry_run`, only lists them. Cache mounts that `used` mentions stay,
/// because containers of failed steps use them. Returns the paths.
///
/// # Errors
/// When a file cannot be examined or removed: the path and the cause.
pub fn prune(
    root: &Path,
    age: Duration,
    used: &Marks,
    dry_run: bool,
    _pause: &Pause,
) -> Result<Vec<PathBuf>> {
    let cache = root.join("cache");
    let mut pruned = Vec::new();
    for path in old(&cache, age)?.into_iter().filter(|path| path.extension() == Some(OsStr::new("json"))) {
        if !dry_run {
            unless_gone(fs::remove_file(&path)).map_err(|error| (path.clone(), error))?;
        }
        pruned.push(path);
    }
    // What steps depended on, which `--explain-cache` reads, and digests of files of contexts.
    for directory in ["steps", FILES] {
        for path in old(&cache.join(directory), age)? {
            if !dry_run {
                unless_gone(fs::remove_file(&path)).map_err(|error| (path.clone(), error))?;
            }
        }
    }
    let mounts = cache.join("mounts");
    // A lock belongs to its cache mount, and is removed with it.
    for path in old(&mounts, age)?.into_iter().filter(|path| path.is_dir() && !is_mentioned(path, used)) {
        if !dry_run {
            remove(&mounts, &path).map_err(|error| (path.clone(), error))?;
        }
        pruned.push(path);
    }
    Ok(pruned)
}

/// Removes entries of the step cache below `root` (`$STAVE_ROOT`), least recently used first, until the
/// layers of the others have at most `most` bytes. With `dry_run`, only lists them. Returns the paths.
///
/// # Errors
/// When a file cannot be examined or removed: the path and the cause.
pub fn shrink(root: &Path, most: u64, dry_run: bool, _pause: &Pause) -> Result<Vec<PathBuf>> {
    let cache = root.join("cache");
    let mut steps = Vec::new();
    for path in
        old(&cache, Duration::ZERO)?.into_iter().filter(|path| path.extension() == Some(OsStr::new("json")))
    {
        let at = |error| (path.clone(), error);
        let Some(metadata) = unless_gone(fs::metadata(&path)).map_err(at)? else { continue };
        // Not the access time: listing the cache reads the files.
        let used = metadata.modified().map_err(at)?;
        let Some(text) = unless_gone(fs::read(&path)).map_err(at)? else { continue };
        // A build cannot use an unreadable entry either.
        let layer = serde_json::from_slice::<Entry>(&text).ok().and_then(|entry| entry.layer);
        steps.push((used, path, layer.map(|layer| layer.descriptor)));
    }
    steps.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let (mut counted, mut size, mut removed) = (HashSet::new(), 0_u64, Vec::new());
    for (_, path, layer) in steps {
        // Several steps may have made the same layer. It counts once.
        let own =
            layer.filter(|layer| counted.insert(layer.digest().to_string())).map_or(0, |layer| layer.size());
        size = size.saturating_add(own);
        if size > most {
            if !dry_run {
                unless_gone(fs::remove_file(&path)).map_err(|error| (path.clone(), error))?;
            }
            removed.push(path);
        }
    }
    Ok(removed)
}

/// The files in a directory that were not used for `age`, sorted. A missing directory is empty.
fn old(directory: &Path, age: Duration) -> Result<Vec<PathBuf>> {
    let at = |error| (directory.to_owned(), error);
    let Some(entries) = unless_gone(fs::read_dir(directory)).map_err(at)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(at)?.path();
        // Another process may have removed the file.
        let is_old = unless_gone(is_older(&path, age)).map_err(|error| (path.clone(), error))?;
        found.extend(is_old.unwrap_or_default().then_some(path));
    }
    found.sort();
    Ok(found)
}

/// Whether `used` mentions the directory of a cache mount. Its name is a hash. A private one has a number
/// behind the hash for each further user.
fn is_mentioned(path: &Path, used: &Marks) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hash = name.split('-').next().unwrap_or_default();
    format!("sha256:{hash}").parse::<Digest>().is_ok_and(|digest| used.contains(&digest))
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
    use crate::workspace::{Workspace, pause};

    #[test]
    fn the_longest_unused_goes_until_the_rest_fits() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        fs::create_dir(&cache).unwrap();
        let step = |name: &str, size: u64, used: u64| {
            let digest = oci::Digest::of(name.as_bytes());
            let descriptor =
                oci::spec::Descriptor::new(oci::spec::MediaType::ImageLayerGzip, size, digest.clone());
            let layer = crate::cache::Layer { descriptor, diff_id: digest };
            let entry = Entry { created: String::new(), layer: Some(layer) };
            let path = cache.join(format!("{name}.json"));
            fs::write(&path, serde_json::to_vec(&entry).unwrap()).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(used);
            let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
            File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
            path
        };
        let (old, new) = (step("old", 60, 1000), step("new", 50, 3000));
        let between = step("between", 40, 2000);
        let pause = pause(dir.path()).unwrap().unwrap();
        assert!(shrink(dir.path(), 150, false, &pause).unwrap().is_empty());
        assert_eq!(shrink(dir.path(), 100, true, &pause).unwrap(), std::slice::from_ref(&old));
        assert_eq!(shrink(dir.path(), 60, false, &pause).unwrap(), [between, old]);
        assert!(new.exists());
    }

    #[test]
    fn what_is_not_used_goes_and_what_a_container_has_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join("cache").join(name);
        let build = Workspace::new(dir.path()).unwrap();
        assert!(pause(dir.path()).unwrap().is_none(), "a build runs");
        drop(build);
        let pause = pause(dir.path()).unwrap().unwrap();
        let prune = |age, used: &Marks, dry_run| prune(dir.path(), age, used, dry_run, &pause).unwrap();
        let nothing = Marks::default();
        assert!(prune(Duration::ZERO, &nothing, false).is_empty());
        fs::create_dir_all(at("mounts/a/b")).unwrap();
        for file in ["1.json", "mounts/a.lock", "mounts/a/b/c"] {
            fs::write(at(file), "{}").unwrap();
        }
        let hour = Duration::from_secs(3600);
        assert!(prune(hour, &nothing, false).is_empty());
        let all = [at("1.json"), at("mounts/a")];
        assert_eq!(prune(Duration::ZERO, &nothing, true), all);
        assert!(all.iter().all(|path| path.exists()));
        assert_eq!(prune(Duration::ZERO, &nothing, false), all);
        let hash = Digest::of(b"cache");
        let second = at("mounts").join(format!("{}-1", hash.hex()));
        fs::create_dir(&second).unwrap();
        let mut used = Marks::default();
        used.scan(second.to_string_lossy().as_bytes());
        // The name of a private cache mount has a number behind the hash.
        assert!(prune(Duration::ZERO, &used, false).is_empty());
        assert_eq!(prune(Duration::ZERO, &nothing, false), [second]);
        assert_eq!(fs::read_dir(at("mounts")).unwrap().count(), 0);
    }
}
