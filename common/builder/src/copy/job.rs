//! One COPY or ADD, its variables expanded: what is read, a digest of it, and the copy itself.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, OFlags, Timespec};
use sha2::{Digest as _, Sha256};

use super::{Chmod, CopyError, Item, Kind, Metadata, Owner, Place, Tree, archive, failed, place};
use crate::{
    glob::{self, DoubleStar, Glob},
    ignore::Ignore,
};

/// A here-document as a file.
#[derive(Debug, Clone)]
pub struct Inline {
    /// Its name.
    pub name: String,
    /// Its content, expanded.
    pub content: String,
}

/// COPY or ADD with its variables expanded.
#[derive(Debug, Clone)]
pub struct Job {
    /// `COPY` or `ADD`.
    pub instruction: &'static str,
    /// Paths and patterns.
    pub sources: Vec<String>,
    /// Files given in the Dockerfile.
    pub inline: Vec<Inline>,
    /// Where it goes, below the image's root.
    pub destination: PathBuf,
    /// Whether that is meant as a directory: it ends with a slash.
    pub into: bool,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Ignore,
    /// Whether archives are unpacked.
    pub unpack: bool,
}

/// What a job reads.
#[derive(Debug, Default)]
pub struct Listing {
    sources: Vec<Listed>,
}

#[derive(Debug)]
struct Listed {
    /// The path that the source was resolved to.
    path: PathBuf,
    directory: bool,
    /// With `target` below the destination.
    items: Vec<Item>,
}

impl Job {
    /// Looks up what the sources name.
    ///
    /// # Errors
    /// [`CopyError`]: a source that is missing, forbidden or cannot be read.
    pub fn list(&self, tree: &Tree) -> Result<Listing, CopyError> {
        let mut listing = Listing::default();
        for source in &self.sources {
            if self.parents {
                listing.sources.extend(self.with_parents(tree, source)?);
                continue;
            }
            for path in tree.resolve(source)? {
                // A link that was followed keeps the name that it was asked for by.
                let name = match glob::has_wildcards(source) {
                    true => path.file_name().map(PathBuf::from),
                    false => Path::new(&glob::unescape(source)).file_name().map(PathBuf::from),
                };
                let directory = tree.kind(&path)? == Kind::Directory;
                let target = if directory { PathBuf::new() } else { name.unwrap_or_default() };
                let items = tree.list(&path, &target, &self.exclude)?;
                listing.sources.push(Listed { path, directory, items });
            }
        }
        if listing.sources.is_empty() && self.inline.is_empty() && !self.parents {
            return Err(CopyError::Nothing);
        }
        Ok(listing)
    }

    /// `--parents`: directories above are kept, from `/./` on where the source has that.
    fn with_parents(&self, tree: &Tree, source: &str) -> Result<Option<Listed>, CopyError> {
        let (pivot, pattern) = source.split_once("/./").unwrap_or(("", source));
        let pattern = pattern.trim_matches('/').trim_start_matches("./");
        let base = tree.resolve(pivot)?.pop().unwrap_or_default();
        if !glob::has_wildcards(pattern) {
            tree.resolve(&format!("{pivot}/{pattern}"))?;
        }
        let glob = Glob::parse(pattern, DoubleStar::Deep)?;
        let fits = |item: &Item| {
            let text = item.target.to_string_lossy();
            !text.is_empty()
                && (glob.matches(&text) || text.match_indices('/').any(|(end, _)| glob.matches(&text[..end])))
        };
        let all = tree.list(&base, Path::new(""), &self.exclude)?;
        let kept: Vec<Item> = all.iter().filter(|item| fits(item)).cloned().collect();
        // Directories on the way are copied with what they are, not made anew.
        let above = |item: &&Item| {
            item.kind == Kind::Directory
                && !item.target.as_os_str().is_empty()
                && kept.iter().any(|kept| kept.target != item.target && kept.target.starts_with(&item.target))
        };
        let mut items: Vec<Item> = all.iter().filter(above).filter(|item| !fits(item)).cloned().collect();
        items.extend(kept);
        items.sort_by(|a, b| a.target.cmp(&b.target));
        Ok((!items.is_empty()).then_some(Listed { path: base, directory: true, items }))
    }

    /// A digest of all that the copy depends on in its sources: names, kinds, modes, owners, attributes and contents, but
    /// no times.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn digest(&self, tree: &Tree, listing: &Listing) -> Result<String, CopyError> {
        let mut hash = Fields(Sha256::new());
        for source in &listing.sources {
            hash.field(if source.directory { b"directory" } else { b"file" });
            for item in &source.items {
                digest_item(&mut hash, tree, item)?;
            }
        }
        for inline in &self.inline {
            hash.field(inline.name.as_bytes());
            hash.field(inline.content.as_bytes());
        }
        Ok(hash.finish())
    }

    /// Copies into an image's file system. `now` is the time of what the copy makes by itself.
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn run(
        &self,
        tree: &Tree,
        listing: &Listing,
        place: Place,
        owner: Option<Owner>,
        now: Option<Timespec>,
    ) -> Result<(), CopyError> {
        let many = listing.sources.len() + self.inline.len() > 1;
        let found = place.look(&self.destination)?;
        if many && !self.into && found != Some(Kind::Directory) {
            return Err(CopyError::NotADirectory(self.instruction));
        }
        let into = self.into || many || found == Some(Kind::Directory);
        let mut links = HashMap::new();
        for source in &listing.sources {
            if self.unpack && !source.directory && self.unpacked(tree, source, owner, &place)? {
                continue;
            }
            if source.directory {
                self.make_destination(found, &place)?;
            }
            for item in &source.items {
                let target = match into || source.directory {
                    true => self.destination.join(&item.target),
                    false => self.destination.clone(),
                };
                // Of a directory the contents are copied, not its own mode and owner (reference, "COPY").
                if source.directory && item.target.as_os_str().is_empty() {
                    continue;
                }
                self.copy_item(tree, item, &target, owner, &place, &mut links)?;
            }
        }
        for inline in &self.inline {
            let target = if into { self.destination.join(&inline.name) } else { self.destination.clone() };
            let mode = self.chmod.as_ref().map_or(0o644, |chmod| chmod.apply(0o644, false));
            let metadata =
                Metadata { mode, owner: owner.unwrap_or_default(), modified: now, xattrs: Vec::new() };
            place.file(&target, &metadata, &mut inline.content.as_bytes())?;
        }
        place.finish()
    }

    /// A directory's contents need a directory to go to.
    fn make_destination(&self, found: Option<Kind>, place: &Place) -> Result<(), CopyError> {
        match found {
            Some(Kind::Directory) | None => place.ensure(&self.destination).map(|_| ()),
            Some(_) => Err(CopyError::OverFile(Path::new("/").join(&self.destination))),
        }
    }

    /// Unpacks a source that is an archive. False for any other.
    fn unpacked(
        &self,
        tree: &Tree,
        source: &Listed,
        owner: Option<Owner>,
        place: &Place,
    ) -> Result<bool, CopyError> {
        let [item] = source.items.as_slice() else { return Ok(false) };
        if item.kind != Kind::File {
            return Ok(false);
        }
        let file = File::from(tree.open(&item.source, OFlags::RDONLY).map_err(failed("open", &item.source))?);
        if !archive::is_archive(&file) {
            return Ok(false);
        }
        archive::unpack(file, &source.path, &self.destination, owner, place)?;
        Ok(true)
    }

    fn copy_item(
        &self,
        tree: &Tree,
        item: &Item,
        target: &Path,
        owner: Option<Owner>,
        place: &Place,
        links: &mut HashMap<(u64, u64), PathBuf>,
    ) -> Result<(), CopyError> {
        let stat = &item.stat;
        // Who owns a file outside says nothing inside of an image.
        let own =
            if tree.is_context() { Owner::default() } else { Owner { uid: stat.st_uid, gid: stat.st_gid } };
        let mode = match &self.chmod {
            Some(chmod) => chmod.apply(stat.st_mode, item.kind == Kind::Directory),
            None => stat.st_mode,
        };
        let mut metadata = Metadata {
            mode,
            owner: owner.unwrap_or(own),
            modified: Some(Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 }),
            xattrs: Vec::new(),
        };
        let open = |flags| tree.open(&item.source, flags).map_err(failed("open", &item.source));
        match item.kind {
            Kind::Directory => {
                metadata.xattrs = place::xattrs(open(OFlags::RDONLY)?, &item.source)?;
                place.directory(target, &metadata)
            }
            Kind::File => {
                let inode = (stat.st_dev, stat.st_ino);
                if stat.st_nlink > 1
                    && let Some(first) = links.get(&inode)
                {
                    return place.hard_link(target, first);
                }
                let file = open(OFlags::RDONLY | OFlags::NONBLOCK)?;
                metadata.xattrs = place::xattrs(&file, &item.source)?;
                place.file(target, &metadata, &mut File::from(file))?;
                if stat.st_nlink > 1 {
                    links.insert(inode, target.to_owned());
                }
                Ok(())
            }
            Kind::Symlink => place.symlink(target, &metadata, OsStr::from_bytes(&link_text(tree, item)?)),
            Kind::Node => {
                let kind = FileType::from_raw_mode(stat.st_mode);
                // A socket is nothing without the process that made it: Docker leaves it out as well.
                if kind == FileType::Socket {
                    return Ok(());
                }
                place.node(target, &metadata, kind, stat.st_rdev)
            }
        }
    }
}

fn link_text(tree: &Tree, item: &Item) -> Result<Vec<u8>, CopyError> {
    let link = tree.open(&item.source, OFlags::PATH).map_err(failed("open", &item.source))?;
    let text = rustix::fs::readlinkat(link, "", []).map_err(failed("read link", &item.source))?;
    Ok(text.into_bytes())
}

fn digest_item(hash: &mut Fields, tree: &Tree, item: &Item) -> Result<(), CopyError> {
    let stat = &item.stat;
    hash.field(item.target.as_os_str().as_bytes());
    hash.field(&stat.st_mode.to_le_bytes());
    if !tree.is_context() {
        hash.field(&stat.st_uid.to_le_bytes());
        hash.field(&stat.st_gid.to_le_bytes());
    }
    let open = |flags| tree.open(&item.source, flags).map_err(failed("open", &item.source));
    let attributes = |hash: &mut Fields, file: &std::os::fd::OwnedFd| -> Result<(), CopyError> {
        for (name, value) in place::xattrs(file, &item.source)? {
            hash.field(name.as_bytes());
            hash.field(&value);
        }
        Ok(())
    };
    match item.kind {
        Kind::File => {
            let file = open(OFlags::RDONLY | OFlags::NONBLOCK)?;
            attributes(hash, &file)?;
            let content = sha256(File::from(file)).map_err(|error| {
                let errno = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
                failed("read", &item.source)(errno)
            })?;
            hash.field(&content);
        }
        Kind::Directory => attributes(hash, &open(OFlags::RDONLY)?)?,
        Kind::Symlink => hash.field(&link_text(tree, item)?),
        Kind::Node => hash.field(&stat.st_rdev.to_le_bytes()),
    }
    Ok(())
}

fn sha256(mut file: File) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(length) => hash.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A hash over fields, each with its length, so that none can be taken for a part of another.
struct Fields(Sha256);

impl Fields {
    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
