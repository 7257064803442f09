//! The digest of the content that a copy depends on. Files of a context are hashed while they are copied,
//! because the context may change meanwhile. The cache must never have one content under the digest of
//! another.

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

use super::{CopyError, Item, Kind, Tree, failed, place, stat_cache};

/// The content of an item: the SHA-256 of a file, the target of a symbolic link, nothing for other kinds.
pub(super) type Content = Vec<u8>;

/// A hash over fields. The length of each field is hashed too, so that different fields never give the same
/// input.
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
            let known = tree.read_before.as_ref().and_then(|cache| cache.borrow().get(&item.stat));
            known.map_or_else(|| read_file(tree, item), |sum| Ok(sum.to_vec()))
        }
        Kind::Symlink => link_text(tree, item),
        Kind::Directory | Kind::Node => Ok(Content::new()),
    }
}

fn read_file(tree: &Tree, item: &Item) -> Result<Content, CopyError> {
    let file = tree.open(&item.source, OFlags::RDONLY | OFlags::NONBLOCK);
    let mut hashing = Hashing::new(File::from(file.map_err(failed("open", &item.source))?));
    let began = stat_cache::now();
    hashing.copy_to(&mut io::sink()).map_err(error("read", &item.source))?;
    let Some(cache) = &tree.read_before else { return Ok(hashing.finish()) };
    let after = rustix::fs::fstat(&hashing.file).map_err(failed("stat", &item.source))?;
    let content = hashing.finish();
    if let Ok(sum) = content.as_slice().try_into() {
        cache.borrow_mut().put(&item.stat, &after, began, sum);
    }
    Ok(content)
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

/// The extended attributes that an image gets. Those of a context are ignored, as are its owners.
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

/// A temporary file without a name, on the file system of the directory `scratch`.
pub(super) fn aside(scratch: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = scratch.join("aside");
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::unlink(&path)?;
    Ok(File::from(file))
}

/// For `map_err`: makes the error of `verb` on the file at `path`.
pub(super) fn error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CopyError {
    let failed = failed(verb, path);
    move |error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// A file whose content is hashed while it is read.
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

    /// The hash of the content that was read.
    pub(super) fn finish(self) -> Content {
        self.hash.finalize().to_vec()
    }
}

impl place::Source for Hashing {
    fn write_to(&mut self, file: &mut File) -> io::Result<()> {
        // If the file system shares the blocks, the source may change meanwhile. So the shared content is
        // hashed.
        if rustix::fs::ioctl_ficlone(&*file, &self.file).is_ok() {
            self.file = file.try_clone()?;
            self.file.rewind()?;
            return self.copy_to(&mut io::sink());
        }
        self.copy_to(file)
    }
}
