//! `index.json`: which images there are, and by what names.
//!
//! It is changed under a lock and replaced by rename; what we do not know in it stays as it is. Other tools take no lock,
//! and write in place what they made of a list that they read before: see [`super::recent`], and
//! [`Layout::replace_index`].

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use oci_spec::image::Descriptor;
use rustix::{
    fs::{CWD, FlockOperation, RenameFlags, renameat_with},
    io::Errno,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CONTAINERD_NAME, Error, Layout, MAX_INDEX, REF_NAME,
    blob::open_regular,
    read_to_limit,
    recent::{self, Recent, excludes},
};
use crate::{digest::Digest, json, media_type::Kind, reference::Reference};

/// Whoever changes `index.json` holds the lock on it.
const LOCK: &str = ".lock";

/// How often a half-written `index.json` is read again: skopeo writes it in place.
pub(super) const ATTEMPTS: u32 = 20;
/// How long to wait for the rest of it.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// An entry of `index.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name; none where it has none, or one that Docker's rules do not allow.
    pub reference: Option<Reference>,
    /// The image manifest or index, with its annotations.
    pub descriptor: Descriptor,
}

impl Entry {
    fn new(descriptor: Descriptor) -> Self {
        Self { reference: name_of(&descriptor).and_then(|name| name.parse().ok()), descriptor }
    }
}

/// The name in a descriptor's annotations, as whoever wrote it spelled it.
pub(crate) fn name_of(descriptor: &Descriptor) -> Option<&str> {
    let annotations = descriptor.annotations().as_ref()?;
    let (short, full) = (annotations.get(REF_NAME), annotations.get(CONTAINERD_NAME));
    match (short, full) {
        // umoci copies the annotations of a tagged image and sets the first one only: it decides, unless it is just the
        // tag of the other.
        (Some(short), Some(full)) if full.ends_with(&format!(":{short}")) => Some(full),
        (Some(short), _) => Some(short),
        (None, full) => full.map(String::as_str),
    }
}

/// An entry of `index.json` that is no descriptor. It is left where it is, and what it speaks of is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Malformed {
    /// Its name, as far as that can be told.
    pub reference: Option<Reference>,
    /// Its digest, as it stands there.
    pub digest: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Malformed {
    fn new(entry: &Value) -> Option<Self> {
        let problem = Descriptor::deserialize(entry).err()?.to_string();
        let name = entry["annotations"][REF_NAME].as_str();
        let digest = entry["digest"].as_str().unwrap_or_default().to_owned();
        Some(Self { reference: name.and_then(|name| name.parse().ok()), digest, problem })
    }
}

impl Layout {
    /// Makes `oci-layout` and `index.json` where they are missing.
    pub(super) fn initialise(&self) -> Result<(), Error> {
        let _lock = self.lock()?;
        if !self.index_path().exists() {
            self.replace("index.json", empty_index().to_string().as_bytes())?;
        }
        // The last one, since it is what makes the directory a layout.
        self.replace("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).map(drop)
    }

    fn index_path(&self) -> PathBuf {
        self.path.join("index.json")
    }

    /// Whoever changes `index.json` holds this lock. Taken on a file that is never removed.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        let path = self.path.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(Error::io("open lock", &path))?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io("lock", path)(error.into())),
                Ok(()) => return Ok(file),
            }
        }
    }

    /// All entries, in the order of `index.json`. Those that are no descriptors are passed over.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, Error> {
        let index = self.read_index()?;
        Ok(entries(&index)
            .iter()
            .filter_map(|entry| Descriptor::deserialize(entry).ok())
            .map(Entry::new)
            .collect())
    }

    /// The entries that [`Layout::list`] passes over.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn malformed(&self) -> Result<Vec<Malformed>, Error> {
        Ok(entries(&self.read_index()?).iter().filter_map(Malformed::new).collect())
    }

    /// Gives an image a name, and takes the name from the image that had it, which stays in the store.
    ///
    /// # Errors
    /// [`Error::NoBlob`] where part of the image is gone: `img-gc` may have been faster. When `index.json` cannot be
    /// changed; it is then as it was.
    pub fn tag(&self, reference: &Reference, descriptor: &Descriptor) -> Result<(), Error> {
        let mut named = descriptor.clone();
        let mut annotations: HashMap<_, _> = descriptor.annotations().clone().unwrap_or_default();
        annotations.remove(CONTAINERD_NAME);
        annotations.insert(REF_NAME.to_owned(), reference.canonical());
        named.set_annotations(Some(annotations));
        let mut named = serde_json::to_value(&named).map_err(Error::Json)?;
        named.sort_all_objects();
        self.change(|manifests| {
            self.hold_blobs(descriptor)?;
            let digest = descriptor.digest().as_ref();
            manifests.retain(|entry| !is_named(entry, reference) && !is_nameless(entry, digest));
            manifests.push(named);
            Ok(())
        })?
    }

    /// Asks for what makes up an image; of an index, for the index alone.
    fn hold_blobs(&self, descriptor: &Descriptor) -> Result<(), Error> {
        let hold = |descriptor: &Descriptor| -> Result<(), Error> {
            let digest = Digest::try_from(descriptor.digest())?;
            match self.blob_size(&digest)? {
                Some(_) => Ok(()),
                None => Err(Error::NoBlob(digest)),
            }
        };
        hold(descriptor)?;
        // What is no image may have a name too.
        let Ok(manifest) = self.manifest(descriptor) else { return Ok(()) };
        let is_here = |layer: &&Descriptor| layer.urls().as_ref().is_none_or(Vec::is_empty);
        hold(manifest.config())?;
        manifest.layers().iter().filter(is_here).try_for_each(hold)
    }

    /// Adds an image without a name, where it is not there under any.
    ///
    /// # Errors
    /// As [`Layout::tag`]. When `index.json` cannot be changed; it is then as it was.
    pub fn add(&self, descriptor: &Descriptor) -> Result<(), Error> {
        let mut nameless = descriptor.clone();
        nameless.set_annotations(descriptor.annotations().clone().and_then(|mut annotations| {
            annotations.retain(|key, _| key != REF_NAME && key != CONTAINERD_NAME);
            (!annotations.is_empty()).then_some(annotations)
        }));
        let mut nameless = serde_json::to_value(&nameless).map_err(Error::Json)?;
        nameless.sort_all_objects();
        self.change(|manifests| {
            self.hold_blobs(descriptor)?;
            let digest = descriptor.digest().as_ref();
            if !manifests.iter().any(|entry| entry["digest"] == digest) {
                manifests.push(nameless);
            }
            Ok(())
        })?
    }

    /// Takes a name away; the image's blobs stay. Returns whether there was such a name.
    ///
    /// # Errors
    /// When `index.json` cannot be changed; it is then as it was.
    pub fn untag(&self, reference: &Reference) -> Result<bool, Error> {
        self.remove_entries(|entry| is_named(entry, reference))
    }

    /// Takes all entries of an image out, named or not; its blobs stay. With `known`, only where it has no other names than
    /// these. Returns the names that it has besides.
    ///
    /// # Errors
    /// When `index.json` cannot be changed; it is then as it was.
    pub fn remove(&self, digest: &Digest, known: Option<&[Reference]>) -> Result<Vec<Reference>, Error> {
        let digest = digest.to_string();
        self.change(|manifests| {
            let names = manifests.iter().filter(|entry| entry["digest"] == digest).filter_map(|entry| {
                let descriptor = Descriptor::deserialize(entry).ok()?;
                Entry::new(descriptor).reference
            });
            let others: Vec<_> =
                names.filter(|name| known.is_some_and(|known| !known.contains(name))).collect();
            if others.is_empty() {
                manifests.retain(|entry| entry["digest"] != digest);
            }
            others
        })
    }

    fn remove_entries(&self, matches: impl Fn(&Value) -> bool) -> Result<bool, Error> {
        self.change(|manifests| {
            let before = manifests.len();
            manifests.retain(|entry| !matches(entry));
            manifests.len() < before
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Value>) -> T) -> Result<T, Error> {
        let _lock = self.lock()?;
        let (file, mut index) = self.open_index()?;
        let before = entries(&index).to_vec();
        let recent = Recent::read(self);
        let manifests = entries_mut(&mut index);
        recent.restore(manifests);
        let result = change(manifests);
        if *manifests != before {
            self.replace_index(index, file, recent, before)?;
        }
        Ok(result)
    }

    /// Writes the list by rename. Somebody who has opened the old file meanwhile, to write his own list into it in place
    /// (skopeo), has done so by then; somebody else has put a file of his own in its place (umoci): what they have added is
    /// put into ours.
    fn replace_index(
        &self,
        mut index: Value,
        mut old: Option<File>,
        mut recent: Recent,
        mut before: Vec<Value>,
    ) -> Result<(), Error> {
        loop {
            recent = recent.next(&before, entries(&index));
            // This one first: whoever reads in between finds nothing missing.
            let kept = serde_json::to_vec(&recent).map_err(Error::Json)?;
            if let Err(error) = self.replace(recent::FILE, &kept) {
                // It is only a help. On a full disk its place is what a name can be taken away in.
                if !is_no_space(&error) || fs::remove_file(self.path.join(recent::FILE)).is_err() {
                    return Err(error);
                }
            }
            let (file, replaced) = self.exchange("index.json", index.to_string().as_bytes())?;
            let mut new: Vec<Value> = Vec::new();
            let same = |one: &File, other: &File| inode(one) == inode(other);
            let replaced = replaced.filter(|replaced| old.as_ref().is_none_or(|old| !same(old, replaced)));
            for theirs in [old.replace(file), replaced].into_iter().flatten() {
                let theirs = self.parse_index(&theirs)?;
                let unknown = |entry: &&Value| !before.contains(entry) && !new.contains(entry);
                new.extend(entries(&theirs).iter().filter(unknown).cloned().collect::<Vec<_>>());
            }
            if new.is_empty() {
                return Ok(());
            }
            before = entries(&index).to_vec();
            let manifests = entries_mut(&mut index);
            manifests.retain(|entry| !new.iter().any(|new| excludes(entry, new)));
            manifests.extend(new);
        }
    }

    /// The list as it stands, with what somebody else overwrote.
    pub(crate) fn read_index(&self) -> Result<Value, Error> {
        let (recent, (_, index)) = (Recent::read(self), self.open_index()?);
        if !recent.misses_some(entries(&index)) {
            return Ok(index);
        }
        // The two belong together only while nobody is about to write them. Where there is no lock, nobody can.
        let lock = File::open(self.path.join(LOCK));
        if let Ok(lock) = &lock {
            let locked = rustix::io::retry_on_intr(|| rustix::fs::flock(lock, FlockOperation::LockShared));
            locked.map_err(|error| Error::io("lock", self.path.join(LOCK))(error.into()))?;
        }
        self.read_index_locked()
    }

    /// The same, for whoever holds the lock.
    pub(crate) fn read_index_locked(&self) -> Result<Value, Error> {
        let (recent, (_, mut index)) = (Recent::read(self), self.open_index()?);
        recent.restore(entries_mut(&mut index));
        Ok(index)
    }

    fn open_index(&self) -> Result<(Option<File>, Value), Error> {
        let path = self.index_path();
        match open_regular(&path) {
            Ok(file) => self.parse_index(&file).map(|index| (Some(file), index)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((None, empty_index())),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Reads an open `index.json`, again where somebody is writing it.
    fn parse_index(&self, mut file: &File) -> Result<Value, Error> {
        let path = self.index_path();
        let mut attempt = 0;
        loop {
            let mut text = Vec::new();
            file.rewind()
                .and_then(|()| read_to_limit(file, MAX_INDEX, &mut text))
                .map_err(Error::io("read", &path))?;
            let index = json::from_slice::<serde_json::Map<_, _>>(&text).map(Value::Object);
            match index.and_then(|index| json::hold(&index, Kind::Index).map(|()| index)) {
                Ok(index) => return Ok(index),
                Err(source) if !source.is_eof() || attempt == ATTEMPTS => {
                    return Err(Error::Index { path, source });
                }
                Err(_) => attempt += 1,
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// As [`Layout::replace`]; returns as well the file that stood there at that moment, whoever put it there. None where
    /// there was none, or the file system cannot exchange two files.
    fn exchange(&self, name: &str, content: &[u8]) -> Result<(File, Option<File>), Error> {
        let (place, beside) = (self.path.join(name), self.path.join(format!(".{name}.new")));
        let exchange = || -> io::Result<(File, Option<File>)> {
            let file = write(&beside, content)?;
            match renameat_with(CWD, &beside, CWD, &place, RenameFlags::EXCHANGE) {
                Ok(()) => {
                    let replaced = open_regular(&beside).ok();
                    fs::remove_file(&beside)?;
                    Ok((file, replaced))
                }
                Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => {
                    fs::rename(&beside, &place)?;
                    Ok((file, None))
                }
                Err(error) => Err(error.into()),
            }
        };
        exchange().map_err(|error| {
            let _ = fs::remove_file(&beside);
            Error::io("write", place)(error)
        })
    }

    /// Writes a file beside its place and renames it into it; by whoever holds the lock.
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> Result<File, Error> {
        let (place, beside) = (self.path.join(name), self.path.join(format!(".{name}.new")));
        write_and_rename(&beside, &place, content).map_err(|error| {
            let _ = fs::remove_file(&beside);
            Error::io("write", place)(error)
        })
    }
}

fn is_no_space(error: &Error) -> bool {
    let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| errno.raw_os_error());
    operation::errno_of(error).is_some_and(|errno| full.contains(&(errno as i32)))
}

fn write_and_rename(beside: &Path, place: &Path, content: &[u8]) -> io::Result<File> {
    let file = write(beside, content)?;
    fs::rename(beside, place)?;
    Ok(file)
}

fn write(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = File::options().create(true).truncate(true).read(true).write(true).open(path)?;
    file.write_all(content)?;
    Ok(file)
}

/// What tells a file from one that was put in its place.
fn inode(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn entries(index: &Value) -> &[Value] {
    index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The list in an object, which gets one where it has none.
fn entries_mut(index: &mut Value) -> &mut Vec<Value> {
    if !index["manifests"].is_array() {
        index["manifests"] = json!([]);
    }
    match &mut index["manifests"] {
        Value::Array(manifests) => manifests,
        _ => unreachable!("it was just set"),
    }
}

fn empty_index() -> Value {
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []})
}

fn is_named(entry: &Value, reference: &Reference) -> bool {
    let descriptor = Descriptor::deserialize(entry).ok();
    descriptor.is_some_and(|descriptor| Entry::new(descriptor).reference.as_ref() == Some(reference))
}

fn is_nameless(entry: &Value, digest: &str) -> bool {
    let named = |key: &str| entry["annotations"].get(key).is_some();
    entry["digest"] == digest && !named(REF_NAME) && !named(CONTAINERD_NAME)
}
