//! Garbage collection: finds blobs that nothing refers to any more.
//!
//! Marking is conservative. A digest counts as mentioned if its digits are anywhere in `index.json`, in a
//! manifest or configuration that is mentioned itself, in a container's record, in the build cache, or in the
//! table of mounts. The format of these files does not matter. Young blobs are kept too, because something
//! may be about to mention them.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use oci_spec::image::Descriptor;
use serde::Serialize;

use crate::{
    digest::{Algorithm, Digest},
    image::MAX_NESTING,
    layout::{Error, Layout, MAX_JSON},
    media_type::{Kind, kind},
};

/// The digests mentioned somewhere, as hexadecimal digits.
#[derive(Debug, Default)]
pub struct Marks {
    marked: HashSet<String>,
    /// Digests whose blobs have not been scanned yet.
    fresh: Vec<String>,
}

impl Marks {
    /// Marks every run of 64 or 128 hexadecimal digits in a text.
    pub fn scan(&mut self, text: &[u8]) {
        for run in text.split(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            if run.len() != 64 && run.len() != 128 {
                continue;
            }
            let hex = String::from_utf8_lossy(run).into_owned();
            if self.marked.insert(hex.clone()) {
                self.fresh.push(hex);
            }
        }
    }

    /// Scans a file. A missing file mentions nothing.
    ///
    /// # Errors
    /// When the file cannot be read. Nothing may then be treated as unused.
    pub fn scan_file(&mut self, path: &Path) -> Result<(), Error> {
        match fs::read(path) {
            Ok(text) => {
                self.scan(&text);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Scans all `.json` files in a directory, except those in `without`. A missing directory has none.
    ///
    /// # Errors
    /// When something cannot be read. Nothing may then be treated as unused.
    pub fn scan_directory(&mut self, path: &Path, without: &[PathBuf]) -> Result<(), Error> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io("read directory", path)(error)),
        };
        for entry in entries {
            let file = entry.map_err(Error::io("read directory", path))?.path();
            if file.extension().is_some_and(|end| end == "json") && !without.contains(&file) {
                self.scan_file(&file)?;
            }
        }
        Ok(())
    }

    /// Whether the digest or DiffID is mentioned.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.marked.contains(digest.hex())
    }

    /// Scans the marked blobs that are JSON, and the blobs that these mention.
    fn follow(&mut self, layout: &Layout) -> Result<(), Error> {
        while let Some(hex) = self.fresh.pop() {
            let algorithm = if hex.len() == 128 { "sha512" } else { "sha256" };
            let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else { continue };
            if let Some(text) = json_text(&layout.blob_path(&digest))? {
                self.scan(&text);
            }
        }
        Ok(())
    }
}

/// The manifests of indexes that were looked at: the digest, whether it is said to be an index, and the depth.
type Seen = HashSet<(Digest, bool, u32)>;

/// The text of a blob that may be JSON; None if the blob is missing or something else.
fn json_text(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let read = || -> io::Result<Option<Vec<u8>>> {
        let file = fs::File::open(path)?;
        if file.metadata()?.len() > MAX_JSON {
            return Ok(None);
        }
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MAX_JSON), &mut text)?;
        Ok((text.trim_ascii_start().first() == Some(&b'{')).then_some(text))
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map_err(Error::io("read", path)),
    }
}

/// A blob that nothing refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Garbage {
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The path of the blob.
    #[serde(skip)]
    pub path: PathBuf,
}

/// What is to be removed from a layout. No image can be named until the `Sweep` is removed or dropped.
#[derive(Debug)]
pub struct Sweep {
    /// Blobs that nothing refers to.
    pub blobs: Vec<Garbage>,
    /// Files that a killed process left half-written: blobs, on file systems without unnamed files, and new
    /// lists beside their places.
    pub unfinished: Vec<PathBuf>,
    /// Images in the list that lost their last name longer than the grace ago, and that nothing uses.
    pub images: Vec<Digest>,
    /// Everything that is mentioned, for callers that collect what belongs to DiffIDs.
    pub marks: Marks,
    /// What is too young to be removed.
    pub age: Age,
    /// The marks of all but the list, by which [`Sweep::images`] were found.
    outside: Marks,
    lock: Option<fs::File>,
}

impl Sweep {
    /// The files, in the order of their removal.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let blobs = self.blobs.iter().map(|blob| &blob.path);
        blobs.chain(&self.unfinished).map(PathBuf::as_path)
    }

    /// Removes the files from the layout that they were found in.
    ///
    /// # Errors
    /// When a file cannot be removed; the files after it stay.
    pub fn remove(&mut self, layout: &Layout) -> Result<(), Error> {
        let mut lock = self.lock.take();
        if let Some(held) = lock.take_if(|_| !self.images.is_empty()) {
            let mut edit = layout.edit_under(held)?;
            let forsaken = edit.forsake(self.age.grace, &self.outside);
            self.images.retain(|image| forsaken.contains(image));
            lock = Some(edit.commit_and_hold()?);
        }
        if !self.blobs.is_empty() {
            // The list without references to these blobs must be on the disk first: other programs write the
            // list too, without a sync.
            layout.sync_everything()?;
            // The sync takes a while. Another process may have reused a blob meanwhile.
            let age = self.age;
            self.blobs.retain(|blob| age.is_over(&blob.path).unwrap_or(false));
        }
        let removed = self.files().try_for_each(remove);
        drop(lock);
        removed
    }
}

/// The age from which on something unused may be removed.
#[derive(Debug, Clone, Copy)]
pub struct Age {
    grace: Duration,
    /// When the oldest running process began to write to the store.
    writing_since: Option<SystemTime>,
}

impl Age {
    /// Whether a process is writing to the store.
    pub fn is_writing(&self) -> bool {
        self.writing_since.is_some()
    }

    /// Whether a file is old enough: no running process has written it.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn is_over(&self, path: &Path) -> io::Result<bool> {
        let latest = latest_change(path)?;
        Ok(has_passed(self.grace, latest) && self.writing_since.is_none_or(|since| latest < since))
    }
}

/// Whether a file has not been created, renamed or touched during the last `grace`.
///
/// # Errors
/// When the system cannot tell.
pub fn is_older(path: &Path, grace: Duration) -> io::Result<bool> {
    Ok(has_passed(grace, latest_change(path)?))
}

fn latest_change(path: &Path) -> io::Result<SystemTime> {
    let metadata = fs::symlink_metadata(path)?;
    let latest = metadata.mtime().max(metadata.ctime());
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(latest).unwrap_or(0)))
}

/// A file dated in the future has no age.
fn has_passed(grace: Duration, since: SystemTime) -> bool {
    SystemTime::now().duration_since(since).is_ok_and(|age| age >= grace)
}

impl Layout {
    /// The age from which on something unused may be removed now: `grace`, and the time since which a process has been
    /// writing.
    ///
    /// # Errors
    /// When the system cannot tell who is writing.
    pub fn age(&self, grace: Duration) -> Result<Age, Error> {
        // A note is made and locked under this lock.
        let _lock = self.lock()?;
        let writing_since = self.writers(true)?.iter().map(|writer| writer.since).min();
        Ok(Age { grace, writing_since })
    }

    /// Finds the blobs that nothing refers to and that are older than `grace`, and half-written files. Everything
    /// since a running process began to write is kept. Nothing is removed yet.
    ///
    /// `roots` marks what is mentioned outside this layout. With `dry_run`, a lost `index.json` is not put
    /// back.
    ///
    /// # Errors
    /// When something that may mention a blob cannot be read. When `index.json` was lost; it is then restored
    /// from its copy, if there is one. Nothing may be removed in these cases.
    pub fn garbage<E: From<Error>>(
        &self,
        roots: impl FnOnce(&mut Marks) -> Result<(), E>,
        grace: Duration,
        dry_run: bool,
    ) -> Result<Sweep, E> {
        let mut edit = self.edit()?;
        if edit.is_restored() {
            // The copy lacks entries that other programs made later.
            if !dry_run {
                edit.commit()?;
            }
            return Err(Error::Restored(self.index_path()).into());
        }
        let mut marks = Marks::default();
        let writers = self.writers(dry_run)?;
        writers.iter().try_for_each(|writer| marks.scan_file(&writer.path))?;
        let age = Age { grace, writing_since: writers.iter().map(|writer| writer.since).min() };
        roots(&mut marks)?;
        let outside = Marks { marked: marks.marked.clone(), fresh: Vec::new() };
        let images = edit.forsake(grace, &outside);
        marks.scan(edit.text().as_bytes());
        let (entries, malformed) = edit.sorted();
        // It may have named any blob.
        if let Some(unnamed) = malformed.into_iter().find(|entry| entry.digest.is_empty()) {
            let (path, name) = (self.index_path(), unnamed.reference.map(|name| name.to_string()));
            let (name, problem) = (name.unwrap_or_default(), unnamed.problem);
            return Err(Error::Entry { path, name, problem }.into());
        }
        let mut seen = Seen::new();
        for entry in entries {
            self.require_manifest(&entry.descriptor, 0, &mut seen).map_err(|source| {
                let name = entry.reference.as_ref().map(ToString::to_string);
                let name = name.unwrap_or_else(|| entry.descriptor.digest().to_string());
                Error::Unknown { name, source: Box::new(source) }
            })?;
        }
        marks.follow(self)?;
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            blobs.extend(self.unmentioned(algorithm, &marks, age)?);
        }
        let lock = Some(edit.into_lock());
        Ok(Sweep { blobs, unfinished: self.unfinished(age)?, images, marks, age, outside, lock })
    }

    /// Makes sure that a manifest or index is as its digest says. Otherwise what it mentions would count as unused.
    /// A manifest of an index that is not in this store mentions nothing. One that has another size than the index
    /// says, or another form, hides nothing: [`Marks::follow`] scans the file, whatever the index says. So nobody can
    /// publish an index that stops the collection.
    ///
    /// An index may name the same manifest many times, and so may nested indexes. Each is read once at its depth.
    fn require_manifest(&self, descriptor: &Descriptor, depth: u32, seen: &mut Seen) -> Result<(), Error> {
        match kind(descriptor) {
            Kind::Index if depth < MAX_NESTING => {
                let index = self.index(descriptor)?;
                for child in index.manifests() {
                    let Ok(digest) = Digest::try_from(child.digest()) else { continue };
                    if !seen.insert((digest.clone(), matches!(kind(child), Kind::Index), depth)) {
                        continue;
                    }
                    let Some(size) = self.blob_size(&digest)? else { continue };
                    let mut child = child.clone();
                    child.set_size(size);
                    match self.require_manifest(&child, depth + 1, seen) {
                        Err(Error::NoBlob(_) | Error::TooLarge { .. } | Error::Malformed { .. }) => {}
                        result => result?,
                    }
                }
            }
            Kind::Index | Kind::Manifest => drop(self.read_blob(descriptor)?),
            _ => {}
        }
        Ok(())
    }

    fn unmentioned(&self, algorithm: Algorithm, marks: &Marks, age: Age) -> Result<Vec<Garbage>, Error> {
        let mut names = names(&self.path().join("blobs").join(algorithm.as_str()))?;
        names.sort();
        let mut found = Vec::new();
        for name in names {
            // A file with another name is not a blob of ours.
            let Ok(digest) = format!("{}:{name}", algorithm.as_str()).parse::<Digest>() else { continue };
            let path = self.blob_path(&digest);
            if marks.contains(&digest) || !age.is_over(&path).map_err(Error::io("look at", &path))? {
                continue;
            }
            let size = self.blob_size(&digest)?.unwrap_or(0);
            found.push(Garbage { digest, size, path });
        }
        Ok(found)
    }

    fn unfinished(&self, age: Age) -> Result<Vec<PathBuf>, Error> {
        let mut names = names(self.path())?;
        names.retain(|name| name.starts_with(".new-") || (name.starts_with('.') && name.ends_with(".new")));
        names.sort();
        let paths = names.into_iter().map(|name| self.path().join(name));
        Ok(paths.filter(|path| age.is_over(path).unwrap_or(false)).collect())
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read directory", directory)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(Error::io("read directory", directory))?.file_name().into_string());
    }
    Ok(names)
}
