//! The step cache: the results of steps, by a key of everything that they depend on.
//!
//! An entry is one JSON file, `$STAVE_ROOT/cache/<key>.json`, written under another name and renamed. It names the
//! step's layer. An entry is not used if the layer's blob is not in the store. Its time of access is that of its last use.

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

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Its blob.
    pub descriptor: Descriptor,
    /// The digest of its uncompressed tar.
    #[serde(rename = "diffID")]
    pub diff_id: Digest,
}

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When, RFC 3339.
    pub created: String,
    /// Its layer; none for a step that changed no file.
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
    /// Its name in keys, and a version. The version goes up when such a step makes something else of the same input.
    /// The results of older versions of the tool are then not found.
    fn version(self) -> (&'static str, &'static str) {
        match self {
            Self::Run => ("run", "3"),
            Self::Copy => ("copy", "4"),
            Self::Workdir => ("workdir", "3"),
            Self::Configuration => ("configuration", "3"),
        }
    }
}

/// Everything that a step depends on.
#[derive(Debug, Clone, Default)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key of steps of a kind. Changes with the form of the entries.
    pub fn new(step: Step) -> Self {
        let (name, version) = step.version();
        Self::default().with("stave-1").with(name).with(version)
    }

    /// With one more field, of any bytes.
    pub fn with(mut self, field: impl AsRef<[u8]>) -> Self {
        let field = field.as_ref();
        self.0.extend_from_slice(&(field.len() as u64).to_le_bytes());
        self.0.extend_from_slice(field);
        self
    }

    /// With a list, of any length.
    pub fn with_all<T: AsRef<[u8]>>(self, fields: impl IntoIterator<Item = T>) -> Self {
        let list = fields.into_iter().fold(Self::default(), Self::with);
        self.with(list.0)
    }

    fn hex(&self) -> String {
        Digest::of(&self.0).hex().to_owned()
    }
}

/// The chain of layers below a step, as one digest (OCI image-spec, config.md, "Layer ChainID").
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

/// A result as it is in its file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// How often it was used, in [`DIGITS`] digits: it comes first, and is overwritten in place.
    #[serde(default)]
    uses: String,
    /// The step's text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    step: String,
    #[serde(flatten)]
    entry: Entry,
}

const DIGITS: usize = 10;
/// What stands before the number.
const BEFORE_USES: &str = "{\"uses\":\"";

fn digits(uses: u64) -> String {
    format!("{uses:0DIGITS$}")
}

/// The cache on disk.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    read: bool,
    apart: Option<&'static str>,
    /// What was found or kept since it was opened.
    used: RefCell<Vec<Used>>,
}

/// A result, with the file that it is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// The key, as hexadecimal digits.
    pub key: String,
    /// The result.
    #[serde(flatten)]
    pub entry: Entry,
}

impl Cache {
    /// The results that were found or kept so far, each once.
    pub fn used(&self) -> Vec<Used> {
        self.used.borrow().clone()
    }

    /// Notes results that were found or kept elsewhere.
    pub fn note(&self, used: Vec<Used>) {
        for one in used {
            let mut all = self.used.borrow_mut();
            all.retain(|own| own.key != one.key);
            all.push(one);
        }
    }

    /// Takes a result from elsewhere, unless there is one for its key.
    ///
    /// # Errors
    /// When it cannot be written: the path, and the cause.
    pub fn take(&self, used: &Used, beside: &Path) -> Result<(), (PathBuf, io::Error)> {
        let is_key = used.key.len() == 64 && used.key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let path = self.directory.join(format!("{}.json", used.key));
        if !is_key || path.exists() {
            return Ok(());
        }
        write(&beside.join("entry.json"), &path, &used.entry, "").map_err(|error| (path, error))
    }

    /// The cache in `directory`. If `read` is false, nothing is found in it (`--no-cache`), but results are kept.
    pub fn new(directory: PathBuf, read: bool) -> Self {
        Self { directory, read, apart: None, used: RefCell::default() }
    }

    /// The same cache with separate keys: for steps that see something else in the same layers.
    pub fn apart(self, name: &'static str) -> Self {
        Self { apart: Some(name), ..self }
    }

    /// The directory of caches for `RUN --mount=type=cache`.
    pub fn mounts(&self) -> PathBuf {
        self.directory.join("mounts")
    }

    /// A key as hexadecimal digits: the name of its file.
    pub fn name(&self, key: &Key) -> String {
        match self.apart {
            Some(name) => key.clone().with(name).hex(),
            None => key.hex(),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{}.json", self.name(key)))
    }

    /// The result for this key. An unreadable entry counts as none.
    pub fn get(&self, key: &Key) -> Option<Entry> {
        if !self.read {
            return None;
        }
        let entry: Entry = serde_json::from_slice(&fs::read(self.path(key)).ok()?).ok()?;
        self.note(vec![Used { key: self.name(key), entry: entry.clone() }]);
        Some(entry)
    }

    /// Notes that the entry for this key was used.
    pub fn touch(&self, key: &Key) {
        let path = self.path(key);
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        set_times(&path, &Timestamps { last_access: now, last_modification: now });
        // A use that is not counted does no harm.
        let _ = count(&path);
    }

    /// Keeps the result of a step with this text. The file is written in the directory `beside`, on the same file system, and renamed.
    ///
    /// # Errors
    /// When it cannot be written: the path, and the cause.
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

/// Notes that a cache of a mount was used, and leaves the time that a command sees.
pub(crate) fn touch(path: &Path) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    set_times(path, &times);
}

/// What does not know that it was used is removed sooner, and made again.
fn set_times(path: &Path, times: &Timestamps) {
    let _ = utimensat(CWD, path, times, AtFlags::empty());
}

/// Counts a use of the entry in this file, in place: a build that is killed leaves it whole.
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
        // One of an older version has no number.
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
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
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
