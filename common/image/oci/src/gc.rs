//! What nothing refers to any more.
//!
//! Marking errs to one side only: whatever is mentioned stays. A digest counts as mentioned wherever its digits stand, in
//! `index.json`, in a manifest or configuration that is mentioned itself, in a container's record, in the build cache, in
//! the table of mounts; no form of these files is relied on. And whatever is young stays, since somebody may be about
//! to mention it.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::{
    digest::{Algorithm, Digest},
    layout::{Error, Layout, MAX_JSON},
};

/// Digests that are mentioned somewhere, by their hexadecimal digits.
#[derive(Debug, Default)]
pub struct Marks {
    marked: HashSet<String>,
    /// Those whose blobs were not looked into yet.
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

    /// Scans a file. One that is missing mentions nothing.
    ///
    /// # Errors
    /// When it cannot be read: then nothing may be taken for unused.
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

    /// Scans all files of a directory with names that end in `.json`, but for some. A directory that is missing holds none.
    ///
    /// # Errors
    /// When something cannot be read: then nothing may be taken for unused.
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

    /// Whether the digest, or a DiffID, is mentioned.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.marked.contains(digest.hex())
    }

    /// Looks into the marked blobs that are JSON, for what they mention.
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

/// The text of a blob that may be JSON; none where it is missing or something else.
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
    /// Where it stands.
    #[serde(skip)]
    pub path: PathBuf,
}

/// What is to be removed of a layout. Nobody can name an image until it is removed, or dropped.
#[derive(Debug)]
pub struct Sweep {
    /// Blobs that nothing refers to.
    pub blobs: Vec<Garbage>,
    /// What somebody had half written who was killed: blobs, on file systems where these have names, and the layout's own
    /// lists beside their places.
    pub unfinished: Vec<PathBuf>,
    /// What is mentioned, for whoever goes on to what hangs on DiffIDs.
    pub marks: Marks,
    grace: Duration,
    lock: Option<fs::File>,
}

impl Sweep {
    /// The files, in the order in which they are removed.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let blobs = self.blobs.iter().map(|blob| &blob.path);
        blobs.chain(&self.unfinished).map(PathBuf::as_path)
    }

    /// Removes them from the layout that they were found in.
    ///
    /// # Errors
    /// When one cannot be removed; those behind it stay.
    pub fn remove(&mut self, layout: &Layout) -> Result<(), Error> {
        let lock = self.lock.take();
        if !self.blobs.is_empty() {
            // That nobody refers to it must be on the disk first: others write the list too, and do not sync it.
            layout.sync_everything()?;
            // That takes a while, in which somebody may have taken one up again.
            let grace = self.grace;
            self.blobs.retain(|blob| is_older(&blob.path, grace).unwrap_or(false));
        }
        let removed = self.files().try_for_each(remove);
        drop(lock);
        removed
    }
}

/// Whether a file was neither made, renamed nor touched during the last `grace`.
///
/// # Errors
/// When the system cannot tell.
pub fn is_older(path: &Path, grace: Duration) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    let latest = metadata.mtime().max(metadata.ctime());
    let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(latest).unwrap_or(0));
    // A time to come is no age at all.
    Ok(SystemTime::now().duration_since(latest).is_ok_and(|age| age >= grace))
}

impl Layout {
    /// The blobs that nothing refers to and that are older than `grace`, and what was left half written. `roots` marks what is
    /// mentioned outside of this layout. Nothing is removed yet.
    ///
    /// # Errors
    /// When something that may mention a blob cannot be read, or `index.json` was lost, which is put back then where there is
    /// a copy (not with `dry_run`): nothing may be removed.
    pub fn garbage<E: From<Error>>(
        &self,
        roots: impl FnOnce(&mut Marks) -> Result<(), E>,
        grace: Duration,
        dry_run: bool,
    ) -> Result<Sweep, E> {
        let edit = self.edit()?;
        if edit.is_restored() {
            // What somebody else listed since the copy was made is not in it.
            if !dry_run {
                edit.commit()?;
            }
            return Err(Error::Restored(self.index_path()).into());
        }
        let mut marks = Marks::default();
        marks.scan(edit.text().as_bytes());
        roots(&mut marks)?;
        marks.follow(self)?;
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            blobs.extend(self.unmentioned(algorithm, &marks, grace)?);
        }
        let lock = Some(edit.into_lock());
        Ok(Sweep { blobs, unfinished: self.unfinished(grace)?, marks, grace, lock })
    }

    fn unmentioned(
        &self,
        algorithm: Algorithm,
        marks: &Marks,
        grace: Duration,
    ) -> Result<Vec<Garbage>, Error> {
        let mut names = names(&self.path().join("blobs").join(algorithm.as_str()))?;
        names.sort();
        let mut found = Vec::new();
        for name in names {
            // What is named otherwise is not ours.
            let Ok(digest) = format!("{}:{name}", algorithm.as_str()).parse::<Digest>() else { continue };
            let path = self.blob_path(&digest);
            if marks.contains(&digest) || !is_older(&path, grace).map_err(Error::io("look at", &path))? {
                continue;
            }
            let size = self.blob_size(&digest)?.unwrap_or(0);
            found.push(Garbage { digest, size, path });
        }
        Ok(found)
    }

    fn unfinished(&self, grace: Duration) -> Result<Vec<PathBuf>, Error> {
        let mut names = names(self.path())?;
        names.retain(|name| name.starts_with(".new-") || (name.starts_with('.') && name.ends_with(".new")));
        names.sort();
        let paths = names.into_iter().map(|name| self.path().join(name));
        Ok(paths.filter(|path| is_older(path, grace).unwrap_or(false)).collect())
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
