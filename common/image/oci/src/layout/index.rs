//! `index.json`: which images there are, and by what names.
//!
//! It is changed under a lock and replaced by rename; what we do not know in it stays as it is. Other tools take no lock,
//! and write in place what they made of a list that they read before: see [`super::recent`], and
//! [`super::edit`].

use std::{
    fs::{self, File},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use oci_spec::image::Descriptor;
use rustix::fs::FlockOperation;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CONTAINERD_NAME, Error, Layout, MAX_INDEX, REF_NAME, blob::open_regular, read_to_limit, recent::Recent,
};
use crate::{json, media_type::Kind, reference::Reference};

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
    pub(super) fn new(descriptor: Descriptor) -> Self {
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
    /// Makes `oci-layout` and `index.json` where they are missing. They have their names once they are on the disk, so that
    /// a power cut leaves no store that nobody can read.
    pub(super) fn initialise(&self) -> Result<(), Error> {
        let _lock = self.lock()?;
        let put = |name: &str, text: &str| {
            self.write_and_rename(name, text.as_bytes(), |file| self.sync_file(file))
        };
        if !self.index_path().exists() {
            let index = Recent::read(self).map_or_else(empty_index, Recent::into_index);
            put("index.json", &index.to_string())?;
        }
        // The last one, since it is what makes the directory a layout.
        put("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    pub(crate) fn index_path(&self) -> PathBuf {
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

    /// The image with this name, as it stands in `index.json`.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn named(&self, name: &str) -> Result<Option<Descriptor>, Error> {
        let entries = self.list()?.into_iter().rev();
        Ok(entries.map(|entry| entry.descriptor).find(|descriptor| name_of(descriptor) == Some(name)))
    }

    /// The entries that [`Layout::list`] passes over.
    ///
    /// # Errors
    /// When `index.json` cannot be read.
    pub fn malformed(&self) -> Result<Vec<Malformed>, Error> {
        Ok(entries(&self.read_index()?).iter().filter_map(Malformed::new).collect())
    }

    /// The list as it stands, with what somebody else overwrote.
    pub(crate) fn read_index(&self) -> Result<Value, Error> {
        let (recent, listed) = (Recent::read(self).unwrap_or_default(), self.open_index()?);
        if !recent.misses_some(entries(&listed.index)) {
            return Ok(listed.index);
        }
        // The two belong together only while nobody is about to write them. Where there is no lock, nobody can.
        let lock = File::open(self.path.join(LOCK));
        if let Ok(lock) = &lock {
            let locked = rustix::io::retry_on_intr(|| rustix::fs::flock(lock, FlockOperation::LockShared));
            locked.map_err(|error| Error::io("lock", self.path.join(LOCK))(error.into()))?;
        }
        let (recent, mut listed) = (Recent::read(self).unwrap_or_default(), self.open_index()?);
        recent.restore(entries_mut(&mut listed.index));
        Ok(listed.index)
    }

    /// The list in the file. Where that is gone, or was cut short by a power cut (skopeo writes it in place), the one that
    /// was kept: no list is not an empty list.
    pub(super) fn open_index(&self) -> Result<Listed, Error> {
        let path = self.index_path();
        let problem = match open_regular(&path) {
            Ok(file) => match self.parse_index(&file) {
                Ok(index) => return Ok(Listed { file: Some(file), index, restored: false }),
                Err(Error::Index { source, .. }) if source.is_eof() || ends_in_zeros(&file) => {
                    format!("it was cut short ({source})")
                }
                Err(error) => return Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it is missing".to_owned(),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        match Recent::read(self) {
            Some(kept) => Ok(Listed { file: None, index: kept.into_index(), restored: true }),
            // Nobody has ever named anything here.
            None if !self.holds_blobs()? => Ok(Listed { file: None, index: empty_index(), restored: false }),
            None => Err(Error::Lost { path, problem }),
        }
    }

    fn holds_blobs(&self) -> Result<bool, Error> {
        let path = self.path.join("blobs/sha256");
        match fs::read_dir(&path) {
            Ok(mut entries) => Ok(entries.next().is_some()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("read directory", path)(error)),
        }
    }

    /// Reads an open `index.json`, again where somebody is writing it.
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

    /// Writes a file beside its place and renames it into it; by whoever holds the lock. Not synced: after a power cut it
    /// may be the one of before, or empty.
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

/// What `index.json` lists.
#[derive(Debug)]
pub(super) struct Listed {
    /// The file; none where there is none that can be read.
    pub(super) file: Option<File>,
    pub(super) index: Value,
    /// Whether it was lost, and this is what was kept of it.
    pub(super) restored: bool,
}

/// Whether a file ends in zeros: what some file systems make of one that was not synced.
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

pub(super) fn entries(index: &Value) -> &[Value] {
    index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The list in an object, which gets one where it has none.
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
    let descriptor = Descriptor::deserialize(entry).ok();
    descriptor.is_some_and(|descriptor| Entry::new(descriptor).reference.as_ref() == Some(reference))
}

pub(super) fn is_nameless(entry: &Value, digest: &str) -> bool {
    let named = |key: &str| entry["annotations"].get(key).is_some();
    entry["digest"] == digest && !named(REF_NAME) && !named(CONTAINERD_NAME)
}
