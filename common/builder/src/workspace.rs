//! The working directory of a build: `$STAVE_ROOT/build/<pid>-<time>/`. It is removed at the end. A killed
//! build leaves its directory. The next build, or img-gc, finds that its lock is free and removes it.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::{
    cell::Cell,
    ffi::OsString,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

/// The working directory of one build.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    /// The lock. It is held until the end.
    lock: File,
    next: Cell<u32>,
}

/// The directories of one step.
#[derive(Debug)]
pub struct StepDirectories {
    /// The changes of the step: overlayfs's upper directory.
    pub upper: PathBuf,
    /// overlayfs's work directory.
    pub work: PathBuf,
    /// The mount point.
    pub rootfs: PathBuf,
    /// An empty directory, for an image without layers.
    pub empty: PathBuf,
}

impl Workspace {
    /// Makes a working directory below `root` (`$STAVE_ROOT`). Removes those of killed builds.
    ///
    /// # Errors
    /// When the directory cannot be made: the path and the cause.
    pub fn new(root: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let all = root.join("build");
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| (path, error)
        };
        // A build and a cache mount may contain set-user-id programs and secrets. Nobody else may reach them
        // (CVE-2021-41091).
        for directory in [&all, &root.join("cache")] {
            operation::make_directories(directory, 0o777).map_err(at(directory))?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(at(directory))?;
        }
        let gate = gate(&all).map_err(at(&all))?;
        for name in left(&all) {
            // If it cannot be removed now, the next build tries again.
            let _ = layer::remove_tree(gate.as_fd(), name.as_bytes());
        }
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let path = all.join(format!("{}-{:x}", std::process::id(), time.as_nanos()));
        fs::create_dir(&path).map_err(at(&path))?;
        let own = File::open(&path).map_err(at(&path))?;
        lock(&own, FlockOperation::NonBlockingLockExclusive).map_err(at(&path))?;
        Ok(Self { path, lock: own, next: Cell::new(0) })
    }

    /// Makes a working directory in the directory `above`.
    ///
    /// # Errors
    /// When the directory cannot be made: the path and the cause.
    pub fn aside(above: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let path = above.join(format!("img-build-{}-{:x}", std::process::id(), time.as_nanos()));
        let at = |error| (path.clone(), error);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(at)?;
        let own = File::open(&path).map_err(at)?;
        Ok(Self { lock: own, next: Cell::new(0), path })
    }

    /// Makes the directories for a step.
    ///
    /// # Errors
    /// When a directory cannot be made: the path and the cause.
    pub fn step(&self) -> Result<StepDirectories, (PathBuf, io::Error)> {
        let number = self.next.replace(self.next.get() + 1);
        let step = self.path.join(number.to_string());
        let make = |path: PathBuf| match fs::create_dir(&path) {
            Ok(()) => Ok(path),
            Err(error) => Err((path, error)),
        };
        let step = make(step)?;
        Ok(StepDirectories {
            upper: make(step.join("upper"))?,
            work: make(step.join("work"))?,
            rootfs: make(step.join("rootfs"))?,
            empty: make(step.join("empty"))?,
        })
    }

    /// The path of the working directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn lock(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Opens and locks the directory of all builds. While it is held, other builds do not look for leftovers. So
/// a new directory can be made and locked.
fn gate(all: &Path) -> io::Result<File> {
    let gate = File::open(all)?;
    lock(&gate, FlockOperation::LockExclusive)?;
    Ok(gate)
}

/// The names of directories that killed builds left. Their locks are free.
fn left(all: &Path) -> Vec<OsString> {
    let is_left = |path: PathBuf| {
        File::open(path).is_ok_and(|left| lock(&left, FlockOperation::NonBlockingLockExclusive).is_ok())
    };
    let entries = fs::read_dir(all).into_iter().flatten().flatten();
    entries.filter(|entry| is_left(entry.path())).map(|entry| entry.file_name()).collect()
}

/// While this is held, no build runs and none starts.
#[derive(Debug)]
pub struct Pause {
    _gate: Option<File>,
}

/// Keeps new builds below `root` (`$STAVE_ROOT`) from starting while the result is held. Returns `None` if a
/// build is running. A tool that exports or flattens an image counts as a build. If there never was a build,
/// there is nothing to hold.
///
/// # Errors
/// When the directory cannot be locked or read: the path and the cause.
pub fn pause(root: &Path) -> Result<Option<Pause>, (PathBuf, io::Error)> {
    let all = root.join("build");
    let at = |error| (all.clone(), error);
    let gate = match gate(&all) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Pause { _gate: None })),
        gate => gate.map_err(at)?,
    };
    let builds = fs::read_dir(&all).map_err(at)?.count();
    Ok((builds == left(&all).len()).then_some(Pause { _gate: Some(gate) }))
}

/// Removes the directories of killed builds below `root` (`$STAVE_ROOT`). With `dry_run`, only lists them.
/// Returns the directories.
///
/// # Errors
/// When a directory cannot be removed: the path and the cause.
pub fn collect(root: &Path, dry_run: bool) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let all = root.join("build");
    let gate = match gate(&all) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(|error| (all.clone(), error))?,
    };
    let mut found = Vec::new();
    for name in left(&all) {
        let path = all.join(&name);
        if !dry_run {
            layer::remove_tree(gate.as_fd(), name.as_bytes())
                .map_err(|error| (path.clone(), error.into()))?;
        }
        found.push(path);
    }
    found.sort();
    Ok(found)
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let (Some(all), Some(name)) = (self.path.parent(), self.path.file_name()) else { return };
        if let Ok(all) = File::open(all) {
            let _ = layer::remove_tree(all.as_fd(), name.as_bytes());
        }
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_with_the_next_build_and_what_is_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("build/1-left/0/upper");
        fs::create_dir_all(&left).unwrap();
        let first = Workspace::new(dir.path()).unwrap();
        assert!(!left.exists());
        fs::create_dir_all(&left).unwrap();
        let of_nobody = vec![dir.path().join("build/1-left")];
        assert_eq!(collect(dir.path(), true).unwrap(), of_nobody);
        assert!(left.exists());
        assert_eq!(collect(dir.path(), false).unwrap(), of_nobody);
        assert!(!left.exists());
        assert_eq!(collect(Path::new("/nonexistent"), false).unwrap(), Vec::<PathBuf>::new());
        let step = first.step().unwrap();
        let second = Workspace::new(dir.path()).unwrap();
        assert!(step.upper.exists(), "a build that runs keeps its directory");
        drop(first);
        drop(second);
        assert_eq!(fs::read_dir(dir.path().join("build")).unwrap().count(), 0);
    }
}
