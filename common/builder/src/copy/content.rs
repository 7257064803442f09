//! The content that a copy depends on, as a digest. Files of a context are hashed while they are copied, because the
//! context may change meanwhile, and a cache must never hold one content under the digest of another.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek, Write},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

use super::{CopyError, Item, Kind, Tree, failed, place};

/// The content of an item: the SHA-256 of a file, the text of a link, nothing for other kinds.
pub(super) type Content = Vec<u8>;

/// A hash over fields, each with its length, so that fields cannot be confused.
#[derive(Default)]
pub(super) struct Fields(Sha256);

impl Fields {
    pub(super) fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Reads the content of an item.
pub(super) fn read(tree: &Tree, item: &Item) -> Result<Content, CopyError> {
    match item.kind {
        Kind::File => {
            let file = tree.open(&item.source, OFlags::RDONLY | OFlags::NONBLOCK);
            let file = File::from(file.map_err(failed("open", &item.source))?);
            let mut hashing = Hashing::new(file);
            hashing.copy_to(&mut io::sink()).map_err(error("read", &item.source))?;
            Ok(hashing.finish())
        }
        Kind::Symlink => link_text(tree, item),
        Kind::Directory | Kind::Node => Ok(Content::new()),
    }
}

/// Adds an item and its content to a digest.
pub(super) fn describe(hash: &mut Fields, tree: &Tree, item: &Item, content: &[u8]) -> Result<(), CopyError> {
    let stat = &item.stat;
    hash.field(item.target.as_os_str().as_bytes());
    hash.field(&stat.st_mode.to_le_bytes());
    if !tree.is_context() {
        hash.field(&stat.st_uid.to_le_bytes());
        hash.field(&stat.st_gid.to_le_bytes());
    }
    match item.kind {
        Kind::File | Kind::Directory => {
            if !tree.is_context() {
                let file = tree.open(&item.source, OFlags::RDONLY | OFlags::NONBLOCK);
                for (name, value) in place::xattrs(file.map_err(failed("open", &item.source))?, &item.source)?
                {
                    hash.field(name.as_bytes());
                    hash.field(&value);
                }
            }
            if item.kind == Kind::File {
                hash.field(content);
            }
        }
        Kind::Symlink => hash.field(content),
        Kind::Node => hash.field(&stat.st_rdev.to_le_bytes()),
    }
    Ok(())
}

/// The extended attributes that reach an image: those of a context do not, like its owners.
pub(super) fn attributes(
    tree: &Tree,
    file: impl AsFd,
    item: &Item,
) -> Result<Vec<(OsString, Vec<u8>)>, CopyError> {
    if tree.is_context() { Ok(Vec::new()) } else { place::xattrs(file, &item.source) }
}

pub(super) fn link_text(tree: &Tree, item: &Item) -> Result<Content, CopyError> {
    let link = tree.open(&item.source, OFlags::PATH).map_err(failed("open", &item.source))?;
    let text = rustix::fs::readlinkat(link, "", []).map_err(failed("read link", &item.source))?;
    Ok(text.into_bytes())
}

/// A file without a name, in the directory `scratch`.
pub(super) fn aside(scratch: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = scratch.join("aside");
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::unlink(&path)?;
    Ok(File::from(file))
}

/// For `map_err`: names the object of a call that failed.
pub(super) fn error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CopyError {
    let failed = failed(verb, path);
    move |error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// A file that is hashed while it is read.
pub(super) struct Hashing {
    file: File,
    hash: Sha256,
}

impl Hashing {
    pub(super) fn new(file: File) -> Self {
        Self { file, hash: Sha256::new() }
    }

    fn copy_to(&mut self, to: &mut dyn Write) -> io::Result<()> {
        let mut buffer = vec![0; 128 << 10];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    self.hash.update(&buffer[..length]);
                    to.write_all(&buffer[..length])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The hash of what was read.
    pub(super) fn finish(self) -> Content {
        self.hash.finalize().to_vec()
    }
}

impl place::Source for Hashing {
    fn write_to(&mut self, file: &mut File) -> io::Result<()> {
        // If the file system shares the blocks, the shared content counts.
        if rustix::fs::ioctl_ficlone(&*file, &self.file).is_ok() {
            self.file = file.try_clone()?;
            self.file.rewind()?;
            return self.copy_to(&mut io::sink());
        }
        self.copy_to(file)
    }
}
