//! Volumes with names: directories below `$STAVE_ROOT/volumes` that containers share and that outlive them.
//!
//! ```text
//! volumes/NAME/volume.json   when it was made, and its labels
//! volumes/NAME/data/         what containers see
//! volumes/NAME/users/ID      one empty file for each container that uses it
//! volumes/NAME/filled/       the image's files, until they are moved to data/
//! ```
//! [`VolumeUse`] is the operation of a container that uses a volume. A claim in `users` counts as long as the
//! container's directory exists, so that a lost container does not keep a volume for ever.

mod fill;
mod request;
mod usage;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use operation::{Cause, Error, Place, Scope, remove_if_empty, unless_gone};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use serde::{Deserialize, Serialize};

pub use request::{InvalidRequest, NamedVolume, VolumeRequest, parse_name};
pub use usage::VolumeUse;

/// The labels of a volume.
pub type Labels = BTreeMap<String, String>;

/// What is known of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Information {
    /// Its name.
    pub name: String,
    /// Its directory, as containers see it.
    pub path: PathBuf,
    /// When it was made (RFC 3339). None if its `volume.json` is missing or damaged.
    pub created: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// The ids of the containers that use it, sorted.
    pub containers: Vec<String>,
}

impl Information {
    /// Refuses to remove a volume that a container uses.
    ///
    /// # Errors
    /// When a container uses it.
    pub fn refuse_removal(&self) -> Result<(), Error> {
        let Some(id) = self.containers.first() else { return Ok(()) };
        let error = failed("remove", &self.name)(format!("container {id:?} uses it"));
        Err(error.with_hint(format!("unwind {id}")))
    }
}

/// The content of `volume.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Description {
    created: Option<String>,
    #[serde(default)]
    labels: Labels,
}

/// A volume, locked until the value is dropped.
struct Locked<'a> {
    name: &'a str,
    path: PathBuf,
    directory: File,
}

/// The directory of all volumes.
fn directory(scope: &Scope) -> PathBuf {
    scope.root.join("volumes")
}

/// The path of a volume's files. The name must be valid.
pub fn data(scope: &Scope, name: &str) -> PathBuf {
    directory(scope).join(name).join("data")
}

/// The name of the volume whose files are at `path`.
pub fn name_of(scope: &Scope, path: &Path) -> Option<String> {
    let name = path.strip_prefix(directory(scope)).ok()?.parent()?.to_str()?;
    (path == data(scope, name)).then(|| name.to_owned())
}

fn failed<C: Into<Cause>>(verb: &'static str, name: &str) -> impl FnOnce(C) -> Error {
    move |cause| Error::new(verb, format_args!("volume {name:?}"), cause).of(Place::Store)
}

/// Takes the lock of the directory of all volumes, and makes it if it is missing.
fn lock_all(all: &Path) -> io::Result<File> {
    loop {
        // Other users must not reach set-user-ID programs in a volume.
        operation::make_directories(all, 0o700)?;
        if let Some(directory) = lock(all)? {
            return Ok(directory);
        }
    }
}

/// Removes the directory of all volumes if there is none in it. Under its lock, as somebody may be about to make one.
fn remove_empty(all: &Path) -> io::Result<()> {
    let Some(_held) = lock(all)? else { return Ok(()) };
    remove_if_empty(all)
}

/// Opens a directory and waits for its lock, which is held until the file is closed. None if there is no such
/// directory.
fn lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let Some(directory) = unless_gone(open_directory(path))? else { return Ok(None) };
        rustix::io::retry_on_intr(|| flock(&directory, FlockOperation::LockExclusive))?;
        // Meanwhile it may have been removed, and made again.
        let (held, found) = (directory.metadata()?, unless_gone(path.symlink_metadata())?);
        if found.is_some_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino())) {
            return Ok(Some(directory));
        }
    }
}

/// Makes a volume. Returns false if it exists already; it stays as it is then.
///
/// # Errors
/// When the volume cannot be made. Then nothing of it is left.
pub fn create(scope: &Scope, name: &str, labels: &Labels, is_synced: bool) -> Result<bool, Error> {
    let all = directory(scope);
    let (path, beside) = (all.join(name), all.join(format!(".{name}.new")));
    let create = || -> Result<bool, Error> {
        let lock = lock_all(&all).map_err(failed("create", name))?;
        if path.symlink_metadata().is_ok() {
            return Ok(false);
        }
        // Somebody may have been killed here.
        mount::tree::remove(&beside)?;
        let make = || -> io::Result<()> {
            let (mut private, mut public) = (fs::DirBuilder::new(), fs::DirBuilder::new());
            private.mode(0o700).create(&beside)?;
            private.create(beside.join("users"))?;
            public.mode(0o755).create(beside.join("data"))?;
            let created = Some(jiff::Timestamp::now().to_string());
            let text = serde_json::to_vec(&Description { created, labels: labels.clone() })?;
            let mut file = File::create_new(beside.join("volume.json"))?;
            file.write_all(&text)?;
            if is_synced {
                file.sync_all()?;
                File::open(&beside)?.sync_all()?;
            }
            fs::rename(&beside, &path)?;
            if is_synced { lock.sync_all() } else { Ok(()) }
        };
        // Still under the lock: another process may make the same volume.
        make()
            .inspect_err(|_| drop(mount::tree::remove(&beside)))
            .map(|()| true)
            .map_err(failed("create", name))
    };
    create().inspect_err(|_| drop(remove_empty(&all)))
}

/// What [`create`] does, as commands. Nothing for a volume that exists.
///
/// # Errors
/// When the labels cannot be written as JSON.
pub fn explain(scope: &Scope, name: &str, labels: &Labels) -> Result<Vec<String>, Error> {
    let all = directory(scope);
    let (path, beside) = (all.join(name), all.join(format!(".{name}.new")));
    if path.symlink_metadata().is_ok() {
        return Ok(Vec::new());
    }
    let shown = |path: PathBuf| operation::quote(&path.to_string_lossy());
    let labels = serde_json::to_string(labels).map_err(|error| failed("create", name)(error.to_string()))?;
    let (all, users, data) = (shown(all), shown(beside.join("users")), shown(beside.join("data")));
    let (description, path, beside) = (shown(beside.join("volume.json")), shown(path), shown(beside));
    Ok(vec![
        format!("install -d -m 0700 {all} {beside} {users}"),
        format!("install -d -m 0755 {data}"),
        format!(
            "printf '{{\"created\":\"%s\",\"labels\":%s}}' \"$(date -u +%FT%TZ)\" {} > {description}",
            operation::quote(&labels)
        ),
        format!("mv {beside} {path}"),
    ])
}

/// The names of all volumes, sorted.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(scope: &Scope) -> Result<Vec<String>, Error> {
    let all = directory(scope);
    let names = names(&all).map_err(Error::on("list", format_args!("volumes in {all:?}")))?;
    Ok(names.into_iter().filter(|name| parse_name(name).is_ok()).collect())
}

/// The names in a directory, sorted. A missing one has none.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = unless_gone(fs::read_dir(directory))?;
    let names = entries.into_iter().flatten().map(|entry| Ok(entry?.file_name().into_string().ok()));
    let mut names: Vec<String> = names.filter_map(io::Result::transpose).collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Describes a volume. None if there is none with this name.
///
/// # Errors
/// When it cannot be read.
pub fn find(scope: &Scope, name: &str) -> Result<Option<Information>, Error> {
    let path = directory(scope).join(name);
    let read = || -> io::Result<Option<Information>> {
        if unless_gone(path.symlink_metadata())?.is_none_or(|found| !found.is_dir()) {
            return Ok(None);
        }
        let text = unless_gone(fs::read(path.join("volume.json")))?;
        let Description { created, labels } =
            text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let containers = users(scope, &path)?;
        Ok(Some(Information { name: name.to_owned(), path: path.join("data"), created, labels, containers }))
    };
    read().map_err(failed("read", name))
}

/// Counts the bytes of a volume's files. A file with several names counts once.
///
/// # Errors
/// When a directory cannot be read.
pub fn size(volume: &Information) -> Result<u64, Error> {
    let measure = || -> io::Result<u64> {
        let directory = unless_gone(open_directory(&volume.path))?;
        Ok(directory.map(mount::tree::size).transpose()?.unwrap_or(0))
    };
    measure().map_err(failed("measure", &volume.name))
}

/// The ids of the containers that use a volume. A claim of a container whose directory is gone does not count.
fn users(scope: &Scope, volume: &Path) -> io::Result<Vec<String>> {
    let mut living = Vec::new();
    for id in names(&volume.join("users"))? {
        if unless_gone(scope.container(&id).symlink_metadata())?.is_some() {
            living.push(id);
        }
    }
    Ok(living)
}

/// Removes a volume with its files, and the directory of all volumes with the last one. Returns false if there is
/// none.
///
/// # Errors
/// When a container uses it; when its files cannot be removed. Then the volume is gone from the list all the
/// same, and the next removal of a volume with this name tries again.
pub fn remove(scope: &Scope, name: &str, is_synced: bool) -> Result<bool, Error> {
    let all = directory(scope);
    let aside = all.join(format!(".{name}.removed"));
    let Some(volume) = Locked::open(scope, name)? else {
        mount::tree::remove(&aside)?;
        remove_empty(&all).map_err(failed("remove", name))?;
        return Ok(false);
    };
    find(scope, name)?.map_or(Ok(()), |found| found.refuse_removal())?;
    mount::tree::remove(&aside)?;
    let take = || -> io::Result<()> {
        fs::rename(&volume.path, &aside)?;
        if is_synced { File::open(&all)?.sync_all() } else { Ok(()) }
    };
    take().map_err(failed("remove", name))?;
    drop(volume);
    mount::tree::remove(&aside)?;
    remove_empty(&all).map_err(failed("remove", name))?;
    Ok(true)
}

/// Whether a removal of this volume has failed half way, so that [`remove`] has something left to do.
///
/// # Errors
/// When it is not known.
pub fn is_half_removed(scope: &Scope, name: &str) -> Result<bool, Error> {
    let aside = directory(scope).join(format!(".{name}.removed"));
    Ok(unless_gone(aside.symlink_metadata()).map_err(failed("read", name))?.is_some())
}

impl<'a> Locked<'a> {
    /// Waits for the lock of a volume. None if there is no such volume.
    fn open(scope: &Scope, name: &'a str) -> Result<Option<Self>, Error> {
        let path = directory(scope).join(name);
        let directory = lock(&path).map_err(failed("open", name))?;
        Ok(directory.map(|directory| Self { name, path, directory }))
    }
}

/// Opens a directory, through no link.
fn open_directory(path: &Path) -> io::Result<File> {
    let place = mount::resolve::place(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(place, c".", flags, Mode::empty())?.into())
}
