//! The step cache. It finds the result of a step by a key, which covers everything that the step depends on.
//!
//! An entry is one JSON file, `$STAVE_ROOT/cache/<key>.json`. It is written under another name and renamed.
//! It names the step's layer, and is only used if the store has the layer's blob. The file's times tell when
//! the entry was last used.

mod list;
mod prune;

use std::{
    cell::RefCell,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use oci::{Digest, spec::Descriptor};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use serde::{Deserialize, Serialize};

pub use list::{Row, list};
pub use prune::{prune, shrink};

/// Where the cache has the digests of contexts' files.
pub(crate) const FILES: &str = "files";

/// The member of an image configuration that lists step results (`--cache-to type=inline`).
pub(crate) const MEMBER: &str = "stave.cache";

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// The layer's blob.
    pub descriptor: Descriptor,
    /// The digest of the uncompressed tar.
    #[serde(rename = "diffID")]
    pub diff_id: Digest,
}

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When the step ran (RFC 3339).
    pub created: String,
    /// The step's layer. `None` for a step that changed no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
}

/// A kind of step in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// RUN.
    Run,
    /// COPY and ADD.
    Copy,
    /// WORKDIR.
    Workdir,
    /// An instruction that changes no file.
    Configuration,
}

impl Step {
    /// The name of the step in keys, and a version. The version must be raised when the step makes a
    /// different result of the same input. Results of older versions of the tool are then not found.
    fn version(self) -> (&'static str, &'static str) {
        match self {
            Self::Run => ("run", "7"),
            Self::Copy => ("copy", "11"),
            Self::Workdir => ("workdir", "3"),
            Self::Configuration => ("configuration", "4"),
        }
    }
}

/// A key: everything that a step depends on.
#[derive(Debug, Clone, Default)]
pub struct Key(Vec<u8>);

impl Key {
    /// The beginning of a key for this kind of step. It changes with the form of the entries.
    pub fn new(step: Step) -> Self {
        let (name, version) = step.version();
        Self::default().with("stave-1").with(name).with(version)
    }

    /// Adds a field of any bytes.
    pub fn with(mut self, field: impl AsRef<[u8]>) -> Self {
        let field = field.as_ref();
        self.0.extend_from_slice(&(field.len() as u64).to_le_bytes());
        self.0.extend_from_slice(field);
        self
    }

    /// Adds a list of fields, of any length.
    pub fn with_all<T: AsRef<[u8]>>(self, fields: impl IntoIterator<Item = T>) -> Self {
        let list = fields.into_iter().fold(Self::default(), Self::with);
        self.with(list.0)
    }

    fn hex(&self) -> String {
        Digest::of(&self.0).hex().to_owned()
    }
}

/// The ChainID of the layers below a step, as text (OCI image-spec, config.md, "Layer ChainID").
pub fn chain_id(layers: &[Layer]) -> String {
    let mut chain = String::new();
    for layer in layers {
        chain = match chain.as_str() {
            "" => layer.diff_id.to_string(),
            below => Digest::of(format!("{below} {}", layer.diff_id).as_bytes()).to_string(),
        };
    }
    chain
}

/// An entry, in the form of its file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// The number of uses, in [`DIGITS`] digits. It comes first in the file, so that it can be overwritten in
    /// place.
    #[serde(default)]
    uses: String,
    /// The text of the step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    step: String,
    #[serde(flatten)]
    entry: Entry,
}

const DIGITS: usize = 10;
/// The bytes of the file before the number of uses.
const BEFORE_USES: &str = "{\"uses\":\"";

fn digits(uses: u64) -> String {
    format!("{uses:0DIGITS$}")
}

/// The cache on disk.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    read: bool,
    apart: Option<String>,
    /// The entries that were found or kept since the cache was opened.
    used: RefCell<Vec<Used>>,
}

/// An entry with its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// The key, as hexadecimal digits.
    pub key: String,
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
}

impl Cache {
    /// The entries that were found or kept so far, each once.
    pub fn used(&self) -> Vec<Used> {
        self.used.borrow().clone()
    }

    /// Records entries that another cache object found or kept.
    pub fn note(&self, used: Vec<Used>) {
        for one in used {
            let mut all = self.used.borrow_mut();
            all.retain(|own| own.key != one.key);
            all.push(one);
        }
    }

    /// Adds an entry from elsewhere, unless there is one for its key. The file is written in the directory
    /// `beside` and renamed.
    ///
    /// # Errors
    /// When the entry cannot be written: the path and the cause.
    pub fn take(&self, used: &Used, beside: &Path) -> Result<(), (PathBuf, io::Error)> {
        let is_key = used.key.len() == 64 && used.key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let path = self.directory.join(format!("{}.json", used.key));
        if !is_key || path.exists() {
            return Ok(());
        }
        write(&beside.join("entry.json"), &path, &used.entry, "").map_err(|error| (path, error))
    }

    /// The cache in `directory`. If `read` is false, no entry is found (`--no-cache`), but results are kept.
    pub fn new(directory: PathBuf, read: bool) -> Self {
        Self { directory, read, apart: None, used: RefCell::default() }
    }

    /// The same cache with separate keys, for steps that see other files in the same layers.
    pub fn apart(self, name: impl Into<String>) -> Self {
        Self { apart: Some(name.into()), ..self }
    }

    /// The directory of cache mounts (`RUN --mount=type=cache`).
    pub fn mounts(&self) -> PathBuf {
        self.directory.join("mounts")
    }

    /// A key as hexadecimal digits. They are the name of the entry's file.
    pub fn name(&self, key: &Key) -> String {
        match &self.apart {
            Some(name) => key.clone().with(name).hex(),
            None => key.hex(),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{}.json", self.name(key)))
    }

    /// The entry for this key. An unreadable entry counts as missing.
    pub fn get(&self, key: &Key) -> Option<Entry> {
        if !self.read {
            return None;
        }
        let entry: Entry = serde_json::from_slice(&fs::read(self.path(key)).ok()?).ok()?;
        self.note(vec![Used { key: self.name(key), entry: entry.clone() }]);
        Some(entry)
    }

    /// Records a use of the entry for this key.
    pub fn touch(&self, key: &Key) {
        let path = self.path(key);
        touch_all(&path);
        // If a use is not counted, that does no harm.
        let _ = count(&path);
    }

    /// Keeps the result of a step. `step` is the step's text. The file is written in the directory `beside`,
    /// which must be on the same file system, and renamed.
    ///
    /// # Errors
    /// When the entry cannot be written: the path and the cause.
    pub fn put(
        &self,
        key: &Key,
        entry: &Entry,
        step: &str,
        beside: &Path,
    ) -> Result<(), (PathBuf, io::Error)> {
        let path = self.path(key);
        self.note(vec![Used { key: self.name(key), entry: entry.clone() }]);
        write(&beside.join("entry.json"), &path, entry, step).map_err(|error| (path, error))
    }
}

/// The present time, for utimensat(2).
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };

/// Records a use of a file of the cache, in all its times.
pub(crate) fn touch_all(path: &Path) {
    set_times(path, &Timestamps { last_access: NOW, last_modification: NOW });
}

/// Records a use of a cache mount. Does not change the modification time, which commands can see.
pub(crate) fn touch(path: &Path) {
    let kept = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    set_times(path, &Timestamps { last_access: NOW, last_modification: kept });
}

/// Sets times, and ignores errors: an entry whose use is not recorded is only removed sooner, and made again.
fn set_times(path: &Path, times: &Timestamps) {
    let _ = utimensat(CWD, path, times, AtFlags::empty());
}

/// Counts a use of the entry in this file, in place. A build that is killed meanwhile leaves the file
/// complete.
fn count(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut start = [0; BEFORE_USES.len() + DIGITS];
    file.read_exact_at(&mut start, 0)?;
    let number =
        start.strip_prefix(BEFORE_USES.as_bytes()).and_then(|digits| std::str::from_utf8(digits).ok());
    match number.and_then(|digits| digits.parse::<u64>().ok()) {
        Some(uses) if uses < 10_u64.pow(DIGITS as u32) - 1 => {
            file.write_all_at(digits(uses + 1).as_bytes(), BEFORE_USES.len() as u64)
        }
        // An entry of an older version has no number.
        _ => Ok(()),
    }
}

fn write(beside: &Path, path: &Path, entry: &Entry, step: &str) -> io::Result<()> {
    let kept = Kept { uses: digits(0), step: step.to_owned(), entry: entry.clone() };
    let mut text = serde_json::to_vec(&kept)?;
    text.push(b'\n');
    fs::write(beside, text)?;
    match fs::rename(beside, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), |above| operation::make_directories(above, 0o777))?;
            fs::rename(beside, path)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_their_key() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"), true);
        let key = Key::new(Step::Run).with("a").with_all(["b", "c"]);
        assert_eq!(cache.get(&key), None);
        let entry = Entry { created: "2026-01-01T00:00:00Z".into(), layer: None };
        cache.put(&key, &entry, "RUN a", dir.path()).unwrap();
        assert_eq!(cache.get(&key), Some(entry.clone()));
        cache.touch(&key);
        cache.touch(&key);
        assert_eq!(cache.get(&key), Some(entry));
        let rows = list(dir.path()).unwrap();
        assert_eq!((rows.len(), &*rows[0].step, rows[0].uses, rows[0].size), (1, "RUN a", 2, 0));
        assert_eq!(cache.get(&Key::new(Step::Run).with("a").with_all(["bc"])), None);
        assert_eq!(cache.get(&Key::new(Step::Run).with("a").with("b").with("c")), None);
        assert_eq!(Cache::new(dir.path().join("cache"), false).get(&key), None);
        assert_eq!(Cache::new(dir.path().join("cache"), true).apart("rootless").get(&key), None);
        fs::write(cache.path(&key), "{").unwrap();
        assert_eq!(cache.get(&key), None);
        assert_eq!(fs::read_dir(dir.path().join("cache")).unwrap().count(), 1, "nothing is left beside it");
    }
}
