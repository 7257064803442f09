//! The unpacked layers, in `$STAVE_ROOT/layers`.
//!
//! * `<hex>`: the directory of the layer with DiffID `sha256:<hex>`. `<hex>.erofs`: its EROFS image.
//! * `<hex>.json`, `<hex>.erofs.json`: their [`Note`]s, written when the layer is complete. A layer without a
//!   note is not trusted.
//! * `<hex>.<16 hex digits>`, `<hex>.<16 hex digits>.erofs`: variants of the same layer. A layer differs on
//!   top of other layers, because it takes the attributes of parent directories that its archive does not list
//!   from the layers below. If these differ from the note, the layer is unpacked once more. A layer also
//!   differs in a user namespace, where other ids own the files and overlayfs's attributes have other names.
//!   Variants are never mixed up.
//! * `.<hex>.part`: a layer that the holder of its lock is unpacking. After a kill, the next holder of the
//!   lock removes it.
//! * `.lock`: never read or written. The lock of a layer is a lock on the byte whose offset is computed from
//!   the DiffID.
//!
//! Nothing is synced while a layer is unpacked. Instead the note holds the id of the boot. After a restart, a
//! layer that was never synced is unpacked again ([`Store::settle`]).

mod devices;
mod lock;
mod note;
mod place;
mod private;
mod removal;
mod side_by_side;

use std::{
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use oci::Digest;
use rustix::{
    fs::{
        CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags, fstat, mkdirat, openat, openat2,
        renameat_with,
    },
    io::Errno,
};
use userns::Namespace;

pub use note::Note;
pub use place::{Format, InvalidFormat, Place};
pub use side_by_side::Wanted;

use crate::{
    apply::{self, Below, Error, LeftOut, Options, Target, open_root, unpack},
    remove_tree,
};

/// The directory `$STAVE_ROOT/layers`.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    fd: OwnedFd,
    boot: String,
    /// The user namespace that layers are looked up and unpacked for.
    namespace: Option<Namespace>,
}

/// A complete layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The layer's place.
    pub place: Place,
    /// The layer's note.
    pub note: Note,
    /// Whether the layer was unpacked by this call.
    pub fresh: bool,
    /// What was left out ([`crate::apply::Unpacked::left_out`]); nothing unless `fresh`.
    pub left_out: LeftOut,
    /// The offset of data after the archive's end, if there was any; None unless `fresh`.
    pub trailing: Option<u64>,
}

impl Standing {
    fn name(&self) -> &str {
        self.place.path().file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// For `map_err`: an error while doing `verb` on `path`.
fn error<E: Into<io::Error>>(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Error {
    let path = path.into();
    move |source| Error::Store { verb, path, source: source.into() }
}

impl Store {
    /// Opens the store in `root` (`$STAVE_ROOT`). It is created if it is missing.
    ///
    /// # Errors
    /// When the store cannot be created or opened.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let path = root.join("layers");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match openat(CWD, &path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                operation::make_directories(&path, 0o777).map_err(error("create directory", &path))?;
                openat(CWD, &path, flags, Mode::empty())
            }
            other => other,
        };
        let fd = fd.map_err(error("open", &path))?;
        private::close_to_others(&fd).map_err(error("change mode of", &path))?;
        let boot = operation::boot().map_err(Error::System)?;
        let namespace = Namespace::current().map_err(Error::System)?;
        Ok(Self { path, fd, boot, namespace })
    }

    /// The usual place of a layer in `root` (`$STAVE_ROOT`). A variant for other lower layers has another
    /// place.
    pub fn place_of(root: &Path, diff_id: &Digest, format: Format) -> Place {
        format.place(root.join("layers").join(format.name(diff_id)))
    }

    /// Finds a layer in the given form. It must be complete and trusted, match the layers below, and be made
    /// for the caller's user namespace. With `rootless`, it may also be an approximation.
    ///
    /// # Errors
    /// When this cannot be determined.
    pub fn find(
        &self,
        diff_id: &Digest,
        below: &Below,
        format: Format,
        rootless: bool,
    ) -> Result<Option<Standing>, Error> {
        let fits = |note: &Note| note.namespace == self.namespace && (rootless || !note.approximated);
        let name = format.name(diff_id);
        let place = self.note(&name, diff_id)?;
        if place.is_none() && self.namespace.is_none() {
            return Ok(None);
        }
        if let Some(note) = place.filter(fits)
            && holds(&note, below)?
        {
            return Ok(Some(self.standing(&name, note)));
        }
        let variants = self.variants(diff_id)?;
        for name in variants.into_iter().filter(|name| Format::of(name) == format) {
            if let Some(note) = self.note(&name, diff_id)?.filter(fits)
                && holds(&note, below)?
            {
                return Ok(Some(self.standing(&name, note)));
            }
        }
        Ok(None)
    }

    /// Finds a layer or unpacks it. `open` opens the layer's blob, whose archive must match `diff_id`. A
    /// second caller waits for the first one and then finds the layer.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn apply<R: Read + Send>(
        &self,
        diff_id: &Digest,
        open: impl FnOnce() -> io::Result<R>,
        below: &Below,
        options: &Options,
    ) -> Result<Standing, Error> {
        if let Some(standing) = self.find_allowed(diff_id, below, options)? {
            return Ok(standing);
        }
        let lock = self.lock(diff_id)?;
        self.apply_locked(&lock, diff_id, open, below, options)
    }

    fn apply_locked<R: Read + Send>(
        &self,
        _: &lock::Lock,
        diff_id: &Digest,
        open: impl FnOnce() -> io::Result<R>,
        below: &Below,
        options: &Options,
    ) -> Result<Standing, Error> {
        // The previous holder of the lock may have unpacked the layer.
        if let Some(standing) = self.find_allowed(diff_id, below, options)? {
            return Ok(standing);
        }
        let part = part(diff_id);
        self.remove_name(&part)?;
        let outcome = self.unpack(&part, diff_id, open, below, options);
        if outcome.is_err() {
            // If it cannot be removed now, the next holder of the lock removes it.
            let _ = remove_tree(&self.fd, part.as_bytes());
        }
        outcome
    }

    /// Like [`Store::find`], but a layer from an earlier run must also be within the limits of this run.
    fn find_allowed(
        &self,
        diff_id: &Digest,
        below: &Below,
        options: &Options,
    ) -> Result<Option<Standing>, Error> {
        if options.format == Format::Erofs && self.namespace.is_some() {
            return Err(Error::Namespace);
        }
        let found = self.find(diff_id, below, options.format, options.rootless)?;
        let Some(standing) = found else { return Ok(None) };
        let look = || -> io::Result<bool> {
            let root = open_root(standing.place.path())?;
            Ok(devices::holds_devices(root.as_fd())?)
        };
        match options.devices || !look().map_err(error("look through", standing.place.path()))? {
            true => Ok(Some(standing)),
            false => Err(Error::Devices),
        }
    }

    fn unpack<R: Read + Send>(
        &self,
        part: &str,
        diff_id: &Digest,
        open: impl FnOnce() -> io::Result<R>,
        below: &Below,
        options: &Options,
    ) -> Result<Standing, Error> {
        let path = || self.path.join(part);
        let blob = open().map_err(|source| Error::Blob(crate::pipeline::Error::Read(source)))?;
        let (target, made) = self.make_part(part, diff_id, options.format)?;
        let options =
            Options { algorithm: diff_id.algorithm(), namespace: self.namespace.clone(), ..options.clone() };
        let unpacked = unpack(blob, target, below, &options)?;
        if unpacked.diff_id != *diff_id {
            return Err(Error::DiffId { expected: diff_id.clone(), found: unpacked.diff_id });
        }
        let note = Note {
            size: unpacked.uncompressed,
            namespace: self.namespace.clone(),
            approximated: unpacked.approximated > 0,
            dependencies: unpacked.dependencies,
            ..Note::new(diff_id, &self.boot)
        };
        let mut standing = self.place(part, diff_id, options.format, note)?;
        (standing.fresh, standing.left_out, standing.trailing) = (true, unpacked.left_out, unpacked.trailing);
        // `place` moved only a name. Check that it is the name of what was unpacked.
        let stands =
            self.open_layer(standing.name()).and_then(fstat).map_err(error("open", standing.place.path()))?;
        if (stands.st_dev, stands.st_ino) != made {
            return Err(error("move", path())(io::Error::other("it was replaced in the meantime")));
        }
        Ok(standing)
    }

    /// Creates the file or directory to unpack to, next to the final place. Also returns its device and
    /// inode.
    fn make_part(&self, part: &str, diff_id: &Digest, format: Format) -> Result<(Target, Inode), Error> {
        let path = || self.path.join(part);
        let fd = match format {
            Format::Directory => {
                mkdirat(&self.fd, part, Mode::RWXU).map_err(error("create directory", path()))?;
                self.open_layer(part).map_err(error("open", path()))?
            }
            Format::Erofs => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                // Only the modes in the layer protect its content, so nobody else may open the image.
                openat(&self.fd, part, flags, Mode::RUSR | Mode::WUSR).map_err(error("create", path()))?
            }
        };
        let made = fstat(&fd).map_err(error("look at", path()))?;
        let target = match format {
            Format::Directory => Target::Directory(fd),
            Format::Erofs => Target::Image(fd, diff_id.clone()),
        };
        Ok((target, (made.st_dev, made.st_ino)))
    }

    /// Takes over a directory that already has the content of layer `diff_id`: the upper directory of a build
    /// step, which was written as that layer and is no longer mounted. The directory is renamed. If the layer
    /// exists already, `upper` is left alone.
    ///
    /// # Errors
    /// When the directory cannot be renamed: `EXDEV` if it is on another file system.
    pub fn adopt(&self, upper: &Path, diff_id: &Digest) -> Result<Standing, Error> {
        let _lock = self.lock(diff_id)?;
        let note = Note { namespace: self.namespace.clone(), ..Note::new(diff_id, &self.boot) };
        let name = match &self.namespace {
            None => diff_id.hex().to_owned(),
            Some(_) => format!("{}.{}", diff_id.hex(), note.variant()),
        };
        if let Some(note) = self.note(&name, diff_id)? {
            return Ok(self.standing(&name, note));
        }
        let part = part(diff_id);
        self.remove_name(&part)?;
        renameat_with(CWD, upper, &self.fd, &part, RenameFlags::NOREPLACE).map_err(error("move", upper))?;
        let mut standing = self.place(&part, diff_id, Format::Directory, note)?;
        standing.fresh = true;
        Ok(standing)
    }

    /// Moves the finished `part` into place and writes its note. The caller holds the layer's lock.
    fn place(&self, part: &str, diff_id: &Digest, format: Format, note: Note) -> Result<Standing, Error> {
        let name = self.name_of(&note, diff_id, format)?;
        // An existing layer with this name was not trusted.
        self.remove_name(&format!("{name}.json"))?;
        self.remove_name(&name)?;
        renameat_with(&self.fd, part, &self.fd, &name, RenameFlags::NOREPLACE)
            .map_err(error("move", self.path.join(part)))?;
        note.write(&self.fd, &name).map_err(error("write", self.path.join(format!("{name}.json"))))?;
        Ok(self.standing(&name, note))
    }

    /// The name of the layer with this note.
    fn name_of(&self, note: &Note, diff_id: &Digest, format: Format) -> Result<String, Error> {
        let name = format.name(diff_id);
        Ok(match (&note.namespace, self.note(&name, diff_id)?) {
            (None, None) => name,
            _ => format!("{}.{}{}", diff_id.hex(), note.variant(), format.suffix()),
        })
    }

    /// The paths of all files and directories of a layer, including notes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn paths(&self, diff_id: &Digest) -> Result<Vec<PathBuf>, Error> {
        Ok(self.names_of(diff_id)?.into_iter().map(|name| self.path.join(name)).collect())
    }

    fn names_of(&self, diff_id: &Digest) -> Result<Vec<String>, Error> {
        let is_of = |name: &String| {
            let name = name.trim_start_matches('.');
            name.strip_prefix(diff_id.hex()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let mut names = self.names()?;
        names.retain(is_of);
        names.sort();
        Ok(names)
    }

    /// The DiffIDs of all layers, also of incomplete ones, sorted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>, Error> {
        let mut found = Vec::new();
        for name in self.names()? {
            let name = name.trim_start_matches('.');
            let hex = name.split('.').next().unwrap_or(name);
            let algorithm = if hex.len() == 128 { "sha512" } else { "sha256" };
            found.extend(format!("{algorithm}:{hex}").parse::<Digest>());
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Syncs layers that were unpacked at least `age` ago, so that a power cut cannot damage them. The kernel
    /// has written most of their data by then, and one sync of the file system covers all of them. Returns
    /// their number.
    ///
    /// # Errors
    /// When the file system cannot be synced, or a note cannot be written.
    pub fn settle(&self, age: Duration) -> Result<usize, Error> {
        let mut waiting = Vec::new();
        for name in self.names()? {
            let Some(name) = name.strip_suffix(".json").filter(|name| !name.starts_with('.')) else {
                continue;
            };
            let Some((note, written)) =
                Note::read(&self.fd, name).map_err(error("read", self.path.join(name)))?
            else {
                continue;
            };
            if !note.synced && note.boot_id == self.boot && written.elapsed().is_ok_and(|since| since >= age)
            {
                waiting.push((name.to_owned(), note, written));
            }
        }
        if waiting.is_empty() {
            return Ok(0);
        }
        rustix::fs::syncfs(&self.fd).map_err(error("sync", &self.path))?;
        let count = waiting.len();
        for (name, note, written) in waiting {
            let Ok(diff_id) = note.diff_id.parse::<Digest>() else { continue };
            let _lock = self.lock(&diff_id)?;
            // The layer may have been removed or made again meanwhile. The note of a new one has the same
            // content but another time.
            let now = Note::read(&self.fd, &name).map_err(error("read", self.path.join(&name)))?;
            if now == Some((note.clone(), written)) && self.open_layer(&name).is_ok() {
                let note = Note { synced: true, ..note };
                note.write(&self.fd, &name).map_err(error("write", self.path.join(&name)))?;
            }
        }
        Ok(count)
    }

    /// The note of the layer with this name, if it is trusted.
    fn note(&self, name: &str, diff_id: &Digest) -> Result<Option<Note>, Error> {
        let path = || self.path.join(format!("{name}.json"));
        let Some((note, _)) = Note::read(&self.fd, name).map_err(error("read", path()))? else {
            return Ok(None);
        };
        let trusted = note.diff_id == diff_id.to_string() && (note.synced || note.boot_id == self.boot);
        Ok((trusted && self.open_layer(name).is_ok()).then_some(note))
    }

    fn standing(&self, name: &str, note: Note) -> Standing {
        let place = Format::of(name).place(self.path.join(name));
        Standing { place, note, fresh: false, left_out: LeftOut::default(), trailing: None }
    }

    fn variants(&self, diff_id: &Digest) -> Result<Vec<String>, Error> {
        let prefix = format!("{}.", diff_id.hex());
        let mut names = self.names()?;
        names.retain(|name| name.starts_with(&prefix) && !name.ends_with(".json"));
        Ok(names)
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let names = || -> rustix::io::Result<Vec<String>> {
            let entries = rustix::fs::Dir::read_from(&self.fd)?;
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        names().map_err(error("read", &self.path))
    }

    /// Opens the directory or image with this name.
    fn open_layer(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (flags, kind) = match Format::of(name) {
            Format::Directory => (flags | OFlags::DIRECTORY, FileType::Directory),
            Format::Erofs => (flags, FileType::RegularFile),
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let fd = openat2(&self.fd, name, flags, Mode::empty(), resolve)?;
        match FileType::from_raw_mode(fstat(&fd)?.st_mode) == kind {
            true => Ok(fd),
            false => Err(Errno::INVAL),
        }
    }

    fn lock(&self, diff_id: &Digest) -> Result<lock::Lock, Error> {
        lock::Lock::take(self.fd.as_fd(), diff_id).map_err(error("lock", self.path.join(".lock")))
    }
}

/// Identifies a file by its device and inode.
type Inode = (u64, u64);

fn part(diff_id: &Digest) -> String {
    format!(".{}.part", diff_id.hex())
}

fn holds(note: &Note, below: &Below) -> Result<bool, Error> {
    for dependency in &note.dependencies {
        if !dependency.holds(below).map_err(apply::Error::from_below)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
