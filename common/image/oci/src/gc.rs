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
    path::Path,
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

    /// Scans all files of a directory whose names end in `.json`. One that is
    /// missing holds none.
    ///
    /// # Errors
    /// When something cannot be read: then nothing may be taken for unused.
    pub fn scan_directory(&mut self, path: &Path) -> Result<(), Error> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io("read directory", path)(error)),
        };
        for entry in entries {
            let file = entry.map_err(Error::io("read directory", path))?.path();
            if file.extension().is_some_and(|end| end == "json") {
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
    /// Removes the blobs that nothing refers to and that are older than `grace`; with `dry_run` only lists them. `roots`
    /// marks what is mentioned outside of this layout. Nobody can name an image meanwhile.
    ///
    /// Returns the blobs, and the marks, for whoever goes on to what hangs on DiffIDs.
    ///
    /// # Errors
    /// When something that may mention a blob cannot be read; then nothing is removed. When a blob cannot be removed.
    pub fn collect<E: From<Error>>(
        &self,
        roots: impl FnOnce(&mut Marks) -> Result<(), E>,
        grace: Duration,
        dry_run: bool,
    ) -> Result<(Vec<Garbage>, Marks), E> {
        let _lock = self.lock()?;
        let mut marks = Marks::default();
        marks.scan(self.read_index_locked()?.to_string().as_bytes());
        roots(&mut marks)?;
        marks.follow(self)?;
        let mut garbage = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            self.sweep(algorithm, &marks, grace, dry_run, &mut garbage)?;
        }
        if !dry_run {
            self.sweep_temporary(grace)?;
        }
        Ok((garbage, marks))
    }

    fn sweep(
        &self,
        algorithm: Algorithm,
        marks: &Marks,
        grace: Duration,
        dry_run: bool,
        garbage: &mut Vec<Garbage>,
    ) -> Result<(), Error> {
        let directory = self.path().join("blobs").join(algorithm.as_str());
        let mut names = names(&directory)?;
        names.sort();
        for name in names {
            // What is named otherwise is not ours.
            let Ok(digest) = format!("{}:{name}", algorithm.as_str()).parse::<Digest>() else { continue };
            let path = directory.join(&name);
            if marks.contains(&digest) {
                continue;
            }
            match is_older(&path, grace) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => return Err(Error::io("look at", path)(error)),
            }
            let size = self.blob_size(&digest)?.unwrap_or(0);
            if !dry_run {
                remove(&path)?;
            }
            garbage.push(Garbage { digest, size });
        }
        Ok(())
    }

    /// What somebody had half written who was killed: blobs, on file systems where these have names, and the layout's own
    /// lists beside their places.
    fn sweep_temporary(&self, grace: Duration) -> Result<(), Error> {
        for name in names(self.path())? {
            let path = self.path().join(&name);
            let half = name.starts_with(".new-") || (name.starts_with('.') && name.ends_with(".new"));
            if half && is_older(&path, grace).unwrap_or(false) {
                remove(&path)?;
            }
        }
        Ok(())
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
