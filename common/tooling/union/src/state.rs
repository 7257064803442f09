//! The content of containers' root file systems, at a snapshot or now.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use document::{At, members::Rootfs, record};
use layer::diff::{State, states, stubs};
use operation::{Cause, Error, Scope};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::{Result, said, unread};

/// The directories of a state, lowest first.
struct Paths {
    lower: Vec<PathBuf>,
    tops: Vec<PathBuf>,
    mounted: Vec<PathBuf>,
    /// Identify the lower directories. Images are mounted in each container's own directory, so the
    /// paths differ.
    keys: Vec<PathBuf>,
}

impl Paths {
    fn of(scope: &Scope, at: &At) -> Result<Self> {
        let document = record::read_existing(&scope.run_dir, &at.id)?;
        let rootfs: Rootfs = document.require().map_err(unread)?;
        let tops = tops(&rootfs, at.id.as_str(), at.snapshot)?;
        let own = scope.container(at.id.as_str());
        let key = |path: &PathBuf| path.strip_prefix(&own).map_or_else(|_| path.clone(), Path::to_owned);
        let keys = rootfs.lower.iter().map(key).chain(tops.iter().cloned()).collect();
        Ok(Self { lower: rootfs.lower, tops, mounted: document.mount_points().map_err(unread)?, keys })
    }

    fn open(&self) -> Result<State> {
        let paths = self.lower.iter().chain(&self.tops);
        let directories = paths.map(|path| open(path)).collect::<Result<Vec<_>>>()?;
        let tops: Vec<BorrowedFd> = directories[self.lower.len()..].iter().map(AsFd::as_fd).collect();
        let without = stubs(&tops, &self.lower, &self.mounted).map_err(uncompared)?;
        Ok(State { directories, without })
    }
}

/// Opens a directory.
pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(Error::on("open", format_args!("{path:?}")))
}

/// The tops with what the container `id` had written up to a snapshot, lowest first. None means up
/// to now.
///
/// # Errors
/// When there is no such snapshot.
pub fn tops(rootfs: &Rootfs, id: &str, snapshot: Option<u32>) -> Result<Vec<PathBuf>> {
    rootfs.tops(snapshot).ok_or_else(|| {
        let error = said(format!("container \"{id}\" has no snapshot {}", snapshot.unwrap_or_default()));
        match rootfs.snapshots() {
            0 => error.with_hint("union-snapshot takes one"),
            newest => error.with_hint(format!("the newest one is {id}@{newest}")),
        }
    })
}

fn uncompared(error: layer::diff::Error) -> Error {
    Error::new("compare", "the files", Cause::Source(Box::new(error)))
}

/// The paths at which two states differ.
///
/// # Errors
/// As [`pair`].
pub fn paths(scope: &Scope, old: &At, new: &At) -> Result<BTreeSet<Vec<u8>>> {
    let (old, new, shared) = pair(scope, old, new)?;
    let mut paths = BTreeSet::new();
    let found = states(&old, &new, shared, |change| {
        paths.insert(change.path);
        Ok::<_, layer::diff::Error>(())
    });
    found.map_err(uncompared)?;
    Ok(paths)
}

/// Both states, and the number of lowest directories that they share.
///
/// # Errors
/// When there is no such container or snapshot, or it cannot be read.
pub fn pair(scope: &Scope, old: &At, new: &At) -> Result<(State, State, usize)> {
    let (old, new) = (Paths::of(scope, old)?, Paths::of(scope, new)?);
    let shared = old.keys.iter().zip(&new.keys).take_while(|(one, other)| one == other).count();
    Ok((old.open()?, new.open()?, shared))
}
