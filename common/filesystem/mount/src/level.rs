//! Levels of a container's root file system. A snapshot freezes the current level and adds a new one.
//!
//! The directories of a container are never moved. Level 0 is the upper directory that `union-mount` has
//! made. Level N belongs to snapshot N and lies in `levels/N` beside it. The overlay of level N has the upper
//! directories of all levels below it as lower directories. Its source is `stave:<id>@N`. Only one of these
//! overlays is mounted at a time, whatever the number of levels.

use std::path::{Path, PathBuf};

use operation::{Condition, Operation, Place, Scope, boot};
use rustix::{
    fs::{AtFlags, CWD, FileType, StatxFlags, fstat, statx},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    Detached, Error, MountOperation, Overlay, Result,
    detached::unmount_unused,
    error::{explained, on},
    merged,
    operation::mounted,
    resolve::{self, Leaf},
    table::{self, Entry},
    tree, users, volatile,
};

/// A writable level on top of frozen ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Level {
    /// The number of the level. The first snapshot has number 1.
    pub number: u32,
    /// The directory that contains `upper` and `work`.
    pub directory: PathBuf,
    /// The mount point of the container's overlay.
    pub target: PathBuf,
    /// The source of the overlay below all levels: `stave:<id>`.
    pub source: String,
    /// The boot of the machine in which the level was mounted, see [`operation::boot`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The overlay below all levels. It is filled in from the step of the record that mounted it, and not
    /// stored again.
    #[serde(default, skip_serializing)]
    pub base: Option<Box<Overlay>>,
    /// The volumes that the record lists as mounted in the overlay, parents before children. Not stored
    /// again.
    #[serde(default, skip_serializing)]
    pub volumes: Vec<MountOperation>,
    /// Whether the whole container is being undone. Then undo unmounts the level, and does not mount the one
    /// below.
    #[serde(default, skip_serializing)]
    pub ends: bool,
}

/// Returns the directory of level `number`. `around` is the directory that contains the upper directory of
/// level 0.
pub(crate) fn directory(around: &Path, number: u32) -> PathBuf {
    around.join("levels").join(number.to_string())
}

/// Returns the directory of level `number`, which is `around` itself for level 0.
pub fn place(around: &Path, number: u32) -> PathBuf {
    if number == 0 { around.to_owned() } else { directory(around, number) }
}

/// Removes the levels above level `newest`. `around` is the directory that contains the upper directory of
/// level 0.
pub(crate) fn remove_newer(around: &Path, newest: u32) -> Result<()> {
    for number in names(&around.join("levels"))?.into_iter().filter_map(|name| name.parse::<u32>().ok()) {
        if number > newest {
            tree::remove(&directory(around, number))?;
        }
    }
    Ok(())
}

/// Returns the directory of the claims on snapshot `number`: it holds one file for each fork of the snapshot.
/// `own` is the directory of the container that has the snapshot.
pub fn claims(own: &Path, number: u32) -> PathBuf {
    own.join("forks").join(number.to_string())
}

/// Returns the containers that are forks of snapshot `from` or of a later snapshot of container `id`. A fork
/// that has neither record nor directory does not count: it was lost when the machine restarted.
///
/// # Errors
/// When the claims cannot be read, or it is not known whether a fork has a record or a directory.
pub fn forks(scope: &Scope, id: &str, from: u32) -> Result<Vec<String>> {
    let claims = scope.container(id).join("forks");
    let mut found = Vec::new();
    for (name, snapshot) in
        names(&claims)?.into_iter().filter_map(|name| Some((name.parse::<u32>().ok()?, name)))
    {
        if name < from {
            continue;
        }
        for fork in names(&claims.join(snapshot))? {
            let traces = [scope.run_dir.join(format!("{fork}.json")), scope.container(&fork)];
            for trace in traces {
                if trace.try_exists().map_err(on("look for", &trace))? {
                    found.push(fork);
                    break;
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The directory in which a new top for the level in `directory` is made, from its own and others.
pub fn merged(directory: &Path) -> PathBuf {
    directory.join("merged")
}

/// The top that a merged one has replaced, in the directory of its level.
pub fn before(directory: &Path) -> PathBuf {
    directory.join("before")
}

/// Takes back a merge into the level in `directory`, which may be half done. The level must not be mounted. Returns whether its top
/// was replaced.
///
/// # Errors
/// When a directory cannot be renamed or removed.
pub fn unmerge(directory: &Path) -> Result<bool> {
    let (upper, before) = (directory.join("upper"), before(directory));
    let found = operation::unless_gone(before.symlink_metadata()).map_err(on("look at", &before))?;
    if found.is_some() {
        tree::discard(&upper, directory)?;
        std::fs::rename(&before, &upper).map_err(on("rename", &before))?;
    }
    tree::discard(&merged(directory), directory)?;
    Ok(found.is_some())
}

pub(crate) fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = operation::unless_gone(std::fs::read_dir(directory)).map_err(on("list", directory))?;
    let mut names = Vec::new();
    for entry in entries.into_iter().flatten() {
        names.extend(entry.map_err(on("list", directory))?.file_name().into_string());
    }
    Ok(names)
}

/// Returns the number of the mounted level. None if `entry` is neither the overlay with this source nor one
/// of its levels.
pub(crate) fn number_of(source: &str, entry: &Entry) -> Option<u32> {
    let rest = entry.source.strip_prefix(source).filter(|_| entry.kind == "overlay")?;
    match rest.strip_prefix('@') {
        None if rest.is_empty() => Some(0),
        number => number?.parse().ok(),
    }
}

impl Level {
    /// The upper directory.
    pub fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }

    /// The work directory of overlayfs.
    pub fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// Returns the overlay that has level `number` as its upper directory.
    fn overlay(&self, number: u32) -> Result<Overlay> {
        let unknown = || {
            Error::new(
                "find",
                format_args!("what is mounted below {:?}", self.directory),
                "the record does not say",
            )
        };
        let base = self.base.as_deref().ok_or_else(unknown)?;
        // If owners are mapped, the overlay uses other paths for the directories.
        let around = base.upper.as_deref().and_then(Path::parent).ok_or_else(unknown)?;
        let mut lower = base.lower.clone();
        lower.extend((0..number).map(|below| place(around, below).join("upper")));
        let source = if number == 0 { base.source.clone() } else { format!("{}@{number}", base.source) };
        let boot = if base.durable { None } else { self.boot.clone() };
        let place = place(around, number);
        let (upper, work) = (Some(place.join("upper")), Some(place.join("work")));
        Ok(Overlay { source, lower, upper, work, boot, ..base.clone() })
    }

    /// Mounts the level in place of a lower level.
    ///
    /// # Errors
    /// When a process uses the mounted level; when something else is mounted there; when the new level cannot
    /// be mounted. The lower level is then mounted again.
    pub(crate) fn mount(&mut self) -> Result<()> {
        let now = table::at(&self.target)?;
        let before = now.as_ref().map(|entry| self.number_at(entry)).transpose()?;
        let level = self.overlay(self.number)?;
        if self.work().join("work").symlink_metadata().is_err() {
            let below = place(self.around(), self.number - 1);
            tree::copy_attributes(&below.join("upper"), &self.upper())?;
        }
        self.replace(before, &level, Overlay::mount)?;
        self.boot = Some(boot()?);
        // Levels that are not merged work too, and the next snapshot tries again.
        let _ = merged::start(self.around(), self.number, level.userxattr, level.durable);
        Ok(())
    }

    /// The directory around all levels. This is not level 0.
    fn around(&self) -> &Path {
        self.directory.ancestors().nth(2).unwrap_or(&self.directory)
    }

    /// Returns the lower directories of this level's overlay, lowest first.
    ///
    /// # Errors
    /// When the overlay below all levels is unknown.
    pub fn lower(&self) -> Result<Vec<PathBuf>> {
        Ok(self.overlay(self.number)?.lower)
    }

    /// Whether overlayfs's attributes in the level are those of `userxattr`.
    pub fn is_userxattr(&self) -> bool {
        self.base.as_ref().is_some_and(|base| base.userxattr)
    }

    /// Whether fsync(2) in the container writes to the disk.
    pub fn is_durable(&self) -> bool {
        self.base.as_ref().is_some_and(|base| base.durable)
    }

    /// Whether this level is mounted, and no other mount covers it.
    ///
    /// # Errors
    /// When the mounts cannot be read.
    pub fn is_mounted(&self) -> Result<bool> {
        let entry = table::at(&self.target)?;
        Ok(entry.and_then(|entry| number_of(&self.source, &entry)) == Some(self.number))
    }

    /// Unmounts the level, runs `work`, and mounts the level again.
    ///
    /// # Errors
    /// When a process uses the level, or another level is mounted; the errors of `work`.
    pub fn without(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let now = table::at(&self.target)?;
        let before = now.as_ref().map(|entry| self.number_at(entry)).transpose()?;
        if before.is_some_and(|before| before != self.number) {
            let object = format_args!("level {} of {:?}", self.number, self.target);
            return Err(Error::new("take off", object, "another one is mounted"));
        }
        self.replace(before, &self.overlay(self.number)?, |overlay| {
            work()?;
            self.again(overlay, volatile::forget)
        })
    }

    /// Mounts the volumes of the record that are missing. That happens if a tool was killed while it moved
    /// them to another level. Does nothing if no level of the container is mounted.
    ///
    /// # Errors
    /// When a volume cannot be mounted.
    pub fn mount_missing(&self, scope: &Scope) -> Result<()> {
        if table::at(&self.target)?.is_none_or(|entry| number_of(&self.source, &entry).is_none()) {
            return Ok(());
        }
        for volume in &self.volumes {
            if let Condition::Missing(_) = volume.check(scope)? {
                volume.clone().apply(scope)?;
            }
        }
        Ok(())
    }

    /// Returns the number of the mounted level. It is an error if the mount is not a level of this container.
    fn number_at(&self, entry: &Entry) -> Result<u32> {
        number_of(&self.source, entry).ok_or_else(|| {
            let cause = format!(
                "it is {} of {:?}, and not the container's root file system",
                entry.kind, entry.source
            );
            Error::new("replace mount", format_args!("{:?}", self.target), cause)
        })
    }

    /// Mounts an overlay in place of the mounted level, if there is one. Mounts inside the old level move to
    /// the new one.
    fn replace(
        &self,
        before: Option<u32>,
        overlay: &Overlay,
        mount: impl FnOnce(&Overlay) -> Result<()>,
    ) -> Result<()> {
        let Some(before) = before else { return mount(overlay) };
        if let Some(user) = users::elsewhere(&self.target)? {
            return Err(self.used(Some(&user)));
        }
        let carried = Carried::take(&self.target)?;
        if let Err(errno) = unmount_unused(&self.target) {
            let error = match errno {
                Errno::BUSY => self.used(users::here(&self.target)?.as_ref()),
                errno => on("unmount", &self.target)(errno),
            };
            // The first error is reported.
            let _ = carried.put(&self.target);
            return Err(error);
        }
        let mounted = mount(overlay).and_then(|()| carried.put(&self.target));
        mounted.inspect_err(|_| {
            if table::at(&self.target).is_ok_and(|entry| entry.is_some()) {
                let _ = crate::unmount(&self.target);
            }
            let _ = self
                .overlay(before)
                .and_then(|overlay| self.again(&overlay, volatile::forget))
                .and_then(|()| carried.put(&self.target));
        })
    }

    fn used(&self, user: Option<&users::User>) -> Error {
        let who = user.map_or_else(|| "a process".to_owned(), ToString::to_string);
        let cause = explained(Errno::BUSY, format!("{who} uses it"));
        Error::new("take off", format_args!("the root file system {:?}", self.target), cause)
            .with_hint("end it first: it would keep using the old mount")
    }

    /// Mounts a level again that was mounted earlier in this boot of the machine, and that no process uses
    /// any more. `forget` removes the mark of a volatile upper directory.
    fn again(&self, overlay: &Overlay, forget: impl FnOnce(&Overlay) -> Result<()>) -> Result<()> {
        if !overlay.durable && self.boot == Some(boot()?) {
            forget(overlay)?;
        }
        overlay.mount()
    }

    /// Mounts the level below again, and removes this level's directory with everything written there.
    pub(crate) fn undo(&self, scope: &Scope) -> std::result::Result<(), Error> {
        scope.contain(&self.target)?;
        scope.contain(&self.directory)?;
        let now = table::at(&self.target)?;
        let number = now.as_ref().and_then(|entry| number_of(&self.source, entry));
        let is_on = number.is_some_and(|number| number >= self.number);
        if self.ends {
            merged::stop(self.around(), 0)?;
            return if is_on { crate::unmount(&self.target) } else { Ok(()) };
        }
        if number.is_some_and(|number| number > self.number) {
            let object = format_args!("snapshot {} of {:?}", self.number, self.target);
            return Err(Error::new("take back", object, "there is a newer one"));
        }
        // Nothing is mounted in the same boot: a tool was killed between unmounting and mounting. After a
        // restart nothing is mounted, and nothing has to be replaced.
        let is_cut_off = now.is_none() && self.boot == Some(boot()?);
        // The level below will be written to.
        let forget = || merged::forget(self.around(), self.number - 1);
        if is_on || is_cut_off {
            let below = self.overlay(self.number - 1)?;
            self.replace(number, &below, |overlay| {
                forget()?;
                self.again(overlay, |overlay| volatile::set_aside(overlay, &self.directory))
            })?;
        } else {
            forget()?;
        }
        self.mount_missing(scope)?;
        // Do not move the tree into `levels`: that directory is removed with the last level.
        tree::discard(&self.directory, self.around())
    }

    pub(crate) fn check(&self) -> std::result::Result<Condition, Error> {
        let missing = || Condition::Missing(format!("snapshot {} on {:?}", self.number, self.target));
        Ok(match table::at(&self.target)? {
            Some(entry) if number_of(&self.source, &entry).is_some_and(|number| number < self.number) => {
                missing()
            }
            Some(_) => mounted::check(&self.target, |entry| number_of(&self.source, entry).is_some())?,
            None => missing(),
        })
    }

    pub(crate) fn explain(&self) -> Vec<String> {
        let mount = self.overlay(self.number).map(|overlay| overlay.explain());
        std::iter::once(self.unmounted()).chain(mount).collect()
    }

    /// [`Level::without`] as commands, with those of its work.
    pub fn explain_without(&self, work: Vec<String>) -> Vec<String> {
        let mut lines = vec![self.unmounted()];
        lines.extend(work);
        if let Ok(overlay) = self.overlay(self.number) {
            lines.extend(volatile::explain(&overlay));
            lines.push(overlay.explain());
        }
        lines
    }

    fn unmounted(&self) -> String {
        operation::words(["umount", &self.target.to_string_lossy()])
    }
}

/// The mounts inside a file system that is about to be unmounted: volumes.
struct Carried(Vec<(PathBuf, Detached)>);

impl Carried {
    /// Unmounts them and keeps copies.
    fn take(target: &Path) -> Result<Self> {
        let mut places: Vec<PathBuf> = Vec::new();
        for entry in table::read()? {
            let is_below = entry.target.starts_with(target) && entry.target != target;
            if is_below && !places.iter().any(|place| entry.target.starts_with(place)) {
                places.push(entry.target);
            }
        }
        let mut carried = Self(Vec::new());
        for place in places {
            let copy = resolve::place(&place).and_then(|open| Detached::copy_of(open, true));
            let taken = copy.map_err(on("copy mount of", &place)).and_then(|copy| {
                crate::unmount(&place)?;
                Ok((place.strip_prefix(target).unwrap_or(&place).to_owned(), copy))
            });
            match taken {
                Ok(taken) => carried.0.push(taken),
                Err(error) => {
                    let _ = carried.put(target);
                    return Err(error);
                }
            }
        }
        Ok(carried)
    }

    /// Mounts them again.
    fn put(&self, target: &Path) -> Result<()> {
        for (path, mount) in &self.0 {
            let put = || {
                let root = resolve::place(target)?;
                let is_directory = FileType::from_raw_mode(fstat(mount)?.st_mode) == FileType::Directory;
                let leaf = if is_directory { Leaf::Directory } else { Leaf::File };
                // An attached mount cannot be attached again, so attach a copy.
                Detached::copy_of(mount, true)?.attach(resolve::create_in(root, path, leaf)?)
            };
            put().map_err(|errno: Errno| {
                Error::new("mount", format_args!("{path:?} in {target:?}"), errno).of(Place::Namespace)
            })?;
        }
        Ok(())
    }
}

/// Returns mode, user and group of a directory.
///
/// # Errors
/// When the directory is missing.
pub fn owner_and_mode(path: &Path) -> Result<(u32, u32, u32)> {
    let found =
        statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).map_err(on("look at", path))?;
    Ok((u32::from(found.stx_mode) & 0o7777, found.stx_uid, found.stx_gid))
}
