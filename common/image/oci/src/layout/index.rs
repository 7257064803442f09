//! `index.json`: the list of images and their names.
//!
//! The file is changed under a lock and replaced by rename. Unknown parts of it are kept. Other tools take no
//! lock, and write back in place a list that they read earlier: see [`super::recent`] and [`super::edit`].

use std::{
    fs::{self, File},
    io::{self, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use oci_spec::image::Descriptor;
use operation::unless_gone;
use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use super::{
    CONTAINERD_NAME, Error, Layout, MAX_INDEX, REF_NAME, blob::open_regular, read_to_limit, recent::Recent,
};
use crate::{json, media_type::Kind, reference::Reference, shape};

/// The lock file for changes of `index.json`.
const LOCK: &str = ".lock";

/// How often a half-written `index.json` is read again. skopeo writes it in place.
pub(super) const ATTEMPTS: u32 = 20;
/// The pause before each new attempt.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// An entry of `index.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The image's name; None if it has no name, one that Docker's rules do not allow, or one with the digest of another image.
    pub reference: Option<Reference>,
    /// The image manifest or index, with its annotations.
    pub descriptor: Descriptor,
}

impl Entry {
    pub(crate) fn new(descriptor: Descriptor) -> Self {
        let name = name_of(&descriptor).and_then(|name| name.parse().ok());
        Self { reference: name.filter(|name| may_have(&descriptor, name)), descriptor }
    }
}

/// Whether an image may have a name. A name with the digest of another image would stand for that one.
pub(crate) fn may_have(descriptor: &Descriptor, name: &Reference) -> bool {
    name.digest().is_none_or(|digest| crate::Digest::try_from(descriptor.digest()).as_ref() == Ok(digest))
}

/// The name in a descriptor's annotations, spelled as its writer spelled it.
fn name_of(descriptor: &Descriptor) -> Option<&str> {
    let annotations = descriptor.annotations().as_ref()?;
    let (short, full) = (annotations.get(REF_NAME), annotations.get(CONTAINERD_NAME));
    match (short, full) {
        // umoci copies the annotations of a tagged image and sets only the short name. So the short name
        // decides, unless it is just the tag of the full one.
        (Some(short), Some(full)) if full.ends_with(&format!(":{short}")) => Some(full),
        (Some(short), _) => Some(short),
        (None, full) => full.map(String::as_str),
    }
}

/// An entry of `index.json` that is not a descriptor. It stays in the file, and img-gc keeps the blobs it
/// names. If it has no digest, img-gc removes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Malformed {
    /// The entry's name, if it can be read.
    pub reference: Option<Reference>,
    /// The entry's digest, as written in the file.
    pub digest: String,
    /// What is wrong with the entry.
    pub problem: String,
}

impl Malformed {
    fn new(entry: &Value, problem: String) -> Self {
        let name = entry["annotations"][REF_NAME].as_str();
        let digest = entry["digest"].as_str().unwrap_or_default().to_owned();
        Self { reference: name.and_then(|name| name.parse().ok()), digest, problem }
    }
}

/// The entries of an index that are descriptors, and those that are not, each in the order of the index.
pub(crate) fn sorted_entries(index: &Value) -> (Vec<Entry>, Vec<Malformed>) {
    let (mut sound, mut malformed) = (Vec::new(), Vec::new());
    for entry in entries(index) {
        match shape::descriptor(entry) {
            Ok(descriptor) => sound.push(Entry::new(descriptor)),
            Err(error) => malformed.push(Malformed::new(entry, error.to_string())),
        }
    }
    (sound, malformed)
}

impl Layout {
    /// Creates `oci-layout` and `index.json` if they are missing. Each is on the disk before it gets its
    /// name, so a power cut never leaves an unreadable store. In a store, a missing list beside blobs is not an
    /// empty one, because img-gc would remove them.
    pub(super) fn initialise(&self, is_store: bool) -> Result<(), Error> {
        let _lock = self.lock()?;
        let put = |name: &str, text: &str| {
            self.write_and_rename(name, text.as_bytes(), |file| self.sync_file(file))
        };
        let path = self.index_path();
        if !path.try_exists().map_err(Error::io("look for", &path))? {
            let index = match self.open_index() {
                Err(Error::Lost { .. }) if !is_store => empty_index(),
                listed => listed?.index,
            };
            put("index.json", &index.to_string())?;
        }
        // This file comes last, because it is what makes the directory a layout.
        put("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.path.join("index.json")
    }

    /// Takes the lock for changes of `index.json`. The lock file is never removed.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        let path = self.path.join(LOCK);
        // Do not wait at a FIFO: the directory may be somebody else's.
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut options = File::options();
        options.create(true).truncate(false).write(true).custom_flags(nonblock);
        let file = options.open(&path);
        let file = file.map_err(Error::io("open lock", &path))?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io("lock", path)(error.into())),
                Ok(()) => return Ok(file),
            }
        }
    }

    /// All entries, in the order of `index.json`. Entries that are not descriptors are skipped.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, Error> {
        Ok(self.list_all()?.0)
    }

    /// The image named `name`, exactly as `index.json` spells it.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn named(&self, name: &str) -> Result<Option<Descriptor>, Error> {
        let entries = self.list()?.into_iter().rev();
        Ok(entries.map(|entry| entry.descriptor).find(|descriptor| name_of(descriptor) == Some(name)))
    }

    /// The entries of [`Layout::list`], and those that it skips.
    pub(crate) fn list_all(&self) -> Result<(Vec<Entry>, Vec<Malformed>), Error> {
        Ok(sorted_entries(&self.read_index()?))
    }

    /// The list in `index.json`, with the entries that another tool overwrote put back.
    pub(crate) fn read_index(&self) -> Result<Value, Error> {
        let (recent, listed) = (Recent::read(self)?.unwrap_or_default(), self.open_index()?);
        if !recent.misses_some(entries(&listed.index)) {
            return Ok(listed.index);
        }
        // The two files match only while nobody writes them. Without a lock file, nobody can.
        let lock = File::open(self.path.join(LOCK));
        if let Ok(lock) = &lock {
            let locked = rustix::io::retry_on_intr(|| rustix::fs::flock(lock, FlockOperation::LockShared));
            locked.map_err(|error| Error::io("lock", self.path.join(LOCK))(error.into()))?;
        }
        let (recent, mut listed) = (Recent::read(self)?.unwrap_or_default(), self.open_index()?);
        recent.restore(entries_mut(&mut listed.index));
        Ok(listed.index)
    }

    /// The list in the file. If the file is missing, cut short by a power cut (skopeo writes it in place), or
    /// something else than a list, the kept list is used. A missing list is not an empty list.
    pub(super) fn open_index(&self) -> Result<Listed, Error> {
        let path = self.index_path();
        let problem = match open_regular(&path) {
            Ok(file) => match self.parse_index(&file) {
                Ok(index) if has_list(&index) => {
                    return Ok(Listed { file: Some(file), index, restored: false });
                }
                Ok(_) => "it has no list of manifests".to_owned(),
                Err(Error::Index { source, .. }) if source.is_eof() || ends_in_zeros(&file) => {
                    format!("it was cut short ({source})")
                }
                Err(error) => return Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it is missing".to_owned(),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        match Recent::read(self)? {
            Some(kept) => Ok(Listed { file: None, index: kept.into_index(), restored: true }),
            // Nothing was ever named in this store.
            None if !self.holds_blobs()? => Ok(Listed { file: None, index: empty_index(), restored: false }),
            None => Err(Error::Lost { path, problem }),
        }
    }

    fn holds_blobs(&self) -> Result<bool, Error> {
        for algorithm in ["sha256", "sha512"] {
            let path = self.path.join("blobs").join(algorithm);
            let entries = unless_gone(fs::read_dir(&path)).map_err(Error::io("read directory", path))?;
            if entries.is_some_and(|mut entries| entries.next().is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads and parses an open `index.json`. Tries again while another program is writing it.
    pub(super) fn parse_index(&self, mut file: &File) -> Result<Value, Error> {
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

    /// Writes a file beside its place and renames it into place. The caller holds the lock. The file is not
    /// synced: after a power cut it may have its old content, or be empty.
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        self.write_and_rename(name, content, |_| Ok(()))
    }

    fn write_and_rename(
        &self,
        name: &str,
        content: &[u8],
        before: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), Error> {
        let (place, beside) = (self.path.join(name), self.path.join(format!(".{name}.new")));
        let written = write(&beside, content).and_then(|file| before(&file));
        written.and_then(|()| fs::rename(&beside, &place)).map_err(|error| {
            let _ = fs::remove_file(&beside);
            Error::io("write", place)(error)
        })
    }
}

/// The list of images in `index.json`.
#[derive(Debug)]
pub(super) struct Listed {
    /// The open file; None if there is no readable file.
    pub(super) file: Option<File>,
    pub(super) index: Value,
    /// Whether `index.json` was lost, and this list comes from its copy.
    pub(super) restored: bool,
}

/// Whether a file ends in zeros. Some file systems leave this of a file that was not synced.
fn ends_in_zeros(mut file: &File) -> bool {
    let mut text = Vec::new();
    let read = file.rewind().and_then(|()| read_to_limit(file, MAX_INDEX, &mut text));
    read.is_ok() && text.last().is_none_or(|byte| *byte == 0)
}

pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = File::options().create(true).truncate(true).read(true).write(true).open(path)?;
    file.write_all(content)?;
    Ok(file)
}

/// Whether an index has a list of manifests. Go writes an empty one as null.
fn has_list(index: &Value) -> bool {
    index.get("manifests").is_some_and(|manifests| manifests.is_array() || manifests.is_null())
}

pub(super) fn entries(index: &Value) -> &[Value] {
    index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The list in an index. It is added if it is missing.
pub(super) fn entries_mut(index: &mut Value) -> &mut Vec<Value> {
    if !index["manifests"].is_array() {
        index["manifests"] = json!([]);
    }
    match &mut index["manifests"] {
        Value::Array(manifests) => manifests,
        _ => unreachable!("it was just set"),
    }
}

pub(super) fn empty_index() -> Value {
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []})
}

pub(super) fn is_named(entry: &Value, reference: &Reference) -> bool {
    let descriptor = shape::descriptor(entry).ok();
    descriptor.is_some_and(|descriptor| Entry::new(descriptor).reference.as_ref() == Some(reference))
}

pub(super) fn is_nameless(entry: &Value, digest: &str) -> bool {
    let named = |key: &str| entry["annotations"].get(key).is_some();
    entry["digest"] == digest && !named(REF_NAME) && !named(CONTAINERD_NAME)
}
