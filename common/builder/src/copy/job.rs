//! One COPY or ADD: its sources, their digest, and the copy itself.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::Seek,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use rustix::fs::{FileType, OFlags, Timespec};

use super::{
    Chmod, CopyError, Found, Item, Kind, Metadata, Owner, Place, Tree, archive,
    content::{self, Content},
    failed,
    place::Source,
};
use crate::{glob, ignore::Ignore};

/// A here-document, which becomes a file.
#[derive(Debug, Clone)]
pub struct Inline {
    /// The name of the file.
    pub name: String,
    /// The content, with variables expanded.
    pub content: String,
}

/// A downloaded file.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The name of the file.
    pub name: String,
    /// The content of the file.
    pub file: Rc<File>,
    /// The digest of the content.
    pub digest: String,
    /// The modification time, in seconds since 1970.
    pub modified: i64,
}

/// A COPY or ADD whose variables are expanded.
#[derive(Debug, Clone)]
pub struct Job {
    /// `COPY` or `ADD`.
    pub instruction: &'static str,
    /// The sources: paths and patterns.
    pub sources: Vec<String>,
    /// Sources that were downloaded.
    pub fetched: Vec<Fetched>,
    /// Whether archives among the downloaded files are unpacked.
    pub unpack_fetched: bool,
    /// Sources that are here-documents.
    pub inline: Vec<Inline>,
    /// The destination, relative to the image's root.
    pub destination: PathBuf,
    /// Whether the destination ends with a slash, and so must be a directory.
    pub into: bool,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Ignore,
    /// Whether archives among `sources` are unpacked.
    pub unpack: bool,
    /// Whether files keep their times. If so, the times count in the digest.
    pub keep_times: bool,
}

/// The largest number of files that are described one by one. Each description takes memory.
const DESCRIBED: usize = 100_000;

/// The description of a file: its path, its mode, and the digest of its content or the target of a link.
pub type Described = (String, u32, String);

/// The files that a job copies.
#[derive(Debug, Default)]
pub struct Listing {
    sources: Vec<Listed>,
}

#[derive(Debug)]
pub(super) struct Listed {
    /// The resolved path of the source.
    pub(super) path: PathBuf,
    pub(super) directory: bool,
    /// Whether the source is the name of a file, and no pattern.
    pub(super) named: bool,
    /// The files. Their `target` is relative to the destination.
    pub(super) items: Vec<Item>,
}

impl Listed {
    /// Whether an item is the source itself, and a directory. Its content is copied, and nothing of its own.
    fn is_top(&self, item: &Item) -> bool {
        self.directory && item.target.as_os_str().is_empty()
    }
}

impl Listing {
    /// The paths of all files and directories in the listing.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.items().map(|(_, item)| item.source.as_path())
    }

    /// The paths of files that a source names, without a pattern. The copy fails without them.
    pub fn named(&self) -> impl Iterator<Item = &Path> {
        let files = self.sources.iter().filter(|source| source.named);
        files.flat_map(|source| &source.items).map(|item| item.source.as_path())
    }

    /// All items, each with its source.
    fn items(&self) -> impl Iterator<Item = (&Listed, &Item)> {
        self.sources.iter().flat_map(|source| source.items.iter().map(move |item| (source, item)))
    }
}

impl Job {
    /// Looks up the sources.
    ///
    /// # Errors
    /// [`CopyError`]: a source is missing, forbidden or unreadable.
    pub fn list(&self, tree: &Tree) -> Result<Listing, CopyError> {
        let mut listing = Listing::default();
        for source in &self.sources {
            if self.parents {
                listing.sources.extend(self.with_parents(tree, source)?);
                continue;
            }
            for Found { path, name } in tree.resolve(source)? {
                let directory = tree.kind(&path)? == Kind::Directory;
                let target = if directory { PathBuf::new() } else { PathBuf::from(name) };
                let items = tree.list(&path, &target, &self.exclude)?;
                let named = !directory && !glob::has_wildcards(source);
                listing.sources.push(Listed { path, directory, named, items });
            }
        }
        Ok(listing)
    }

    /// The digest of everything in the sources that the copy depends on: names, kinds, modes, owners,
    /// attributes and contents, and times if the job keeps them.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn digest(&self, tree: &Tree, listing: &Listing) -> Result<String, CopyError> {
        Ok(self.described(tree, listing)?.0)
    }

    /// As [`Job::digest`], and with a description of each file. The descriptions are left out if there are
    /// more than 100,000 files.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn described(&self, tree: &Tree, listing: &Listing) -> Result<(String, Vec<Described>), CopyError> {
        let items: Vec<(&Listed, &Item)> = listing.items().collect();
        let contents =
            items.iter().map(|(_, item)| content::read(tree, item)).collect::<Result<Vec<_>, _>>()?;
        if let Some(cache) = &tree.read_before {
            // Without it, the next build reads these files once more.
            let _ = cache.borrow_mut().save();
        }
        let digest = self.digest_of(tree, listing, &contents)?;
        if items.len() > DESCRIBED {
            return Ok((digest, Vec::new()));
        }
        let hex = |content: &Content| content.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let facts = |(item, content): (&Item, &Content)| {
            let shown = match item.kind {
                Kind::Symlink => String::from_utf8_lossy(content).into_owned(),
                _ => hex(content),
            };
            (item.source.to_string_lossy().into_owned(), item.stat.st_mode & 0o7777, shown)
        };
        let all = items.iter().zip(&contents).filter(|((source, item), _)| !source.is_top(item));
        Ok((digest, all.map(|((_, item), content)| facts((item, content))).collect()))
    }

    /// The digest, with these contents: one for each item.
    fn digest_of(&self, tree: &Tree, listing: &Listing, contents: &[Content]) -> Result<String, CopyError> {
        let mut hash = content::Fields::default();
        let mut contents = contents.iter();
        let mut count = 0_u64;
        for source in &listing.sources {
            let mut first = HashMap::new();
            hash.field(if source.directory { b"directory" } else { b"file" });
            for item in &source.items {
                let content = contents.next().map_or(&[][..], Vec::as_slice);
                if source.is_top(item) {
                    continue;
                }
                content::describe(&mut hash, tree, item, content)?;
                if self.keep_times {
                    hash.field(&item.stat.st_mtime.to_le_bytes());
                    hash.field(&item.stat.st_mtime_nsec.to_le_bytes());
                }
                count += 1;
                // Two names of one file in a source differ from two files with the same content.
                if item.kind == Kind::File && item.stat.st_nlink > 1 {
                    let inode = (item.stat.st_dev, item.stat.st_ino);
                    let first = *first.entry(inode).or_insert(count);
                    if first != count {
                        hash.field(&first.to_le_bytes());
                    }
                }
            }
        }
        for fetched in &self.fetched {
            hash.field(fetched.name.as_bytes());
            hash.field(fetched.digest.as_bytes());
            hash.field(&fetched.modified.to_le_bytes());
        }
        for inline in &self.inline {
            hash.field(inline.name.as_bytes());
            hash.field(inline.content.as_bytes());
        }
        Ok(hash.finish())
    }

    /// Copies the files into an image's file system. `now` is the time for directories that the copy makes by
    /// itself. `scratch` is a directory for a temporary file.
    ///
    /// Returns the digest ([`Job::digest`]) of what was copied, because a context may have changed since it
    /// was listed. Returns `None` if the tree cannot change: the digest of the listing holds then.
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn run(
        &self,
        tree: &Tree,
        listing: &Listing,
        mut place: Place,
        owner: Option<Owner>,
        now: Option<Timespec>,
        scratch: &Path,
    ) -> Result<Option<String>, CopyError> {
        // A file that `--exclude` leaves out is no source. A directory that is empty then still is one.
        let listed = listing.sources.iter().filter(|source| source.directory || !source.items.is_empty());
        let sources = listed.count() + self.fetched.len() + self.inline.len();
        let many = sources > 1;
        if sources == 0 {
            // No pattern had a match.
            return Ok(None);
        }
        if let Some(Chmod::Octal(mode)) = &self.chmod {
            place.set_mode(*mode);
        }
        let destination = place.resolve(&self.destination)?;
        let found = place.look(&destination)?;
        if many && !self.into && found != Some(Kind::Directory) && self.needs_directory(tree, listing)? {
            return Err(CopyError::NotADirectory(self.instruction));
        }
        let into = self.into || many || found == Some(Kind::Directory);
        let mut copy =
            Copying { job: self, tree, place, owner, scratch, destination, links: Links::default() };
        let mut contents = Vec::new();
        for source in &listing.sources {
            copy.source(source, into, found, &mut contents)?;
        }
        for fetched in &self.fetched {
            copy.fetched(fetched, into)?;
        }
        for inline in &self.inline {
            copy.inline(inline, into, now)?;
        }
        copy.place.finish()?;
        match tree.is_context() {
            true => self.digest_of(tree, listing, &contents).map(Some),
            false => Ok(None),
        }
    }

    /// Whether several sources can only go to an existing directory, or to a name that ends with a slash. They can make
    /// the directory if none of them would take its name: if each is a directory, or an archive to unpack. Their
    /// contents are merged.
    fn needs_directory(&self, tree: &Tree, listing: &Listing) -> Result<bool, CopyError> {
        let fetched = |fetched: &Fetched| !(self.unpack_fetched && archive::is_archive(&fetched.file));
        if !self.inline.is_empty() || self.fetched.iter().any(fetched) {
            return Ok(true);
        }
        let files = listing.sources.iter().filter(|source| !source.directory);
        for item in files.flat_map(|source| &source.items) {
            let unpacked = self.unpack && item.kind == Kind::File && {
                let open = tree.open(&item.source, OFlags::RDONLY | OFlags::NONBLOCK);
                archive::is_archive(&File::from(open.map_err(failed("open", &item.source))?))
            };
            if !unpacked {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A job that is running.
struct Copying<'a> {
    job: &'a Job,
    tree: &'a Tree,
    place: Place,
    owner: Option<Owner>,
    scratch: &'a Path,
    /// The destination, with links followed.
    destination: PathBuf,
    links: Links,
}

/// The device and inode number of a file in the tree.
type Inode = (u64, u64);

/// The files with several names, and the first name of each in the image. The others become hard links to it.
#[derive(Default)]
struct Links {
    /// The first name and the content of each file.
    first: HashMap<Inode, (PathBuf, Content)>,
    names: HashMap<PathBuf, Inode>,
}

impl Links {
    fn add(&mut self, inode: Inode, name: &Path, content: &Content) {
        self.first.insert(inode, (name.to_owned(), content.clone()));
        self.names.insert(name.to_owned(), inode);
    }

    /// Another file takes this name, so later names must not become links to it.
    fn forget(&mut self, name: &Path) {
        if let Some(inode) = self.names.remove(name) {
            self.first.remove(&inode);
        }
    }
}

impl Copying<'_> {
    /// Copies one source, and adds the contents of its items to `contents`.
    fn source(
        &mut self,
        source: &Listed,
        into: bool,
        found: Option<Kind>,
        contents: &mut Vec<Content>,
    ) -> Result<(), CopyError> {
        // Each source is copied by itself, as in BuildKit: what two of them have in common becomes two files.
        self.links = Links::default();
        if source.directory {
            self.make_destination(found)?;
        }
        for item in &source.items {
            let target = match into || source.directory {
                true => self.destination.join(&item.target),
                false => self.destination.clone(),
            };
            // The content of a directory is copied, not its own mode and owner (reference, "COPY").
            if source.is_top(item) {
                contents.push(Content::new());
                continue;
            }
            if self.job.unpack && !source.directory && item.kind == Kind::File {
                contents.push(self.unpack_or_copy(source, item, &target)?);
            } else {
                contents.push(self.item(item, &target, None)?);
            }
        }
        Ok(())
    }

    /// Places a downloaded file. Its mode lets only the owner use it, as in Docker.
    fn fetched(&mut self, fetched: &Fetched, into: bool) -> Result<(), CopyError> {
        let path = Path::new(&fetched.name);
        let mut file = fetched.file.try_clone().map_err(content::error("read", path))?;
        file.rewind().map_err(content::error("read", path))?;
        if self.job.unpack_fetched && archive::is_archive(&file) {
            return archive::unpack(file, path, &self.destination, self.owner, &mut self.place);
        }
        file.rewind().map_err(content::error("read", path))?;
        let target = if into { self.destination.join(path) } else { self.destination.clone() };
        let mode = self.job.chmod.as_ref().map_or(0o600, |chmod| chmod.apply(0o600, false));
        let modified = Some(Timespec { tv_sec: fetched.modified, tv_nsec: 0 });
        let owner = self.owner.unwrap_or_default();
        self.place.file(&target, &Metadata { mode, owner, modified, xattrs: Vec::new() }, &mut file)
    }

    fn inline(&self, inline: &Inline, into: bool, now: Option<Timespec>) -> Result<(), CopyError> {
        let target = if into { self.destination.join(&inline.name) } else { self.destination.clone() };
        let mode = self.job.chmod.as_ref().map_or(0o644, |chmod| chmod.apply(0o644, false));
        let owner = self.owner.unwrap_or_default();
        let metadata = Metadata { mode, owner, modified: now, xattrs: Vec::new() };
        self.place.file(&target, &metadata, &mut inline.content.as_bytes())
    }

    /// Makes the destination directory that the content of a directory needs.
    fn make_destination(&self, found: Option<Kind>) -> Result<(), CopyError> {
        match found {
            Some(Kind::Directory) | None => self.place.ensure(&self.destination).map(|_| ()),
            Some(_) => Err(CopyError::OverFile(Path::new("/").join(&self.destination))),
        }
    }

    /// Unpacks a file if it is an archive, and copies it otherwise. A file of the context is copied to a
    /// temporary file first, so that the content that is checked, hashed and unpacked is the same.
    fn unpack_or_copy(&mut self, source: &Listed, item: &Item, target: &Path) -> Result<Content, CopyError> {
        let open = self.tree.open(&item.source, OFlags::RDONLY | OFlags::NONBLOCK);
        let mut file = File::from(open.map_err(failed("open", &item.source))?);
        let mut content = Content::new();
        if self.tree.is_context() {
            let aside = content::aside(self.scratch).map_err(failed("create", self.scratch))?;
            let mut reader = content::Hashing::new(file);
            file = aside;
            reader.write_to(&mut file).map_err(content::error("read", &item.source))?;
            content = reader.finish();
        }
        if !archive::is_archive(&file) {
            file.rewind().map_err(content::error("read", &item.source))?;
            return self.item(item, target, Some(file));
        }
        // The archive's entries may take any name.
        self.links = Links::default();
        archive::unpack(file, &source.path, &self.destination, self.owner, &mut self.place)?;
        Ok(content)
    }

    /// Copies one item. `instead`, if given, has the content. Returns the content.
    fn item(&mut self, item: &Item, target: &Path, instead: Option<File>) -> Result<Content, CopyError> {
        self.links.forget(target);
        let (tree, place) = (self.tree, &self.place);
        let mut metadata = self.metadata(item);
        let open = |flags| tree.open(&item.source, flags).map_err(failed("open", &item.source));
        match item.kind {
            Kind::Directory => {
                metadata.xattrs = content::attributes(tree, open(OFlags::RDONLY)?, item)?;
                place.directory(target, &metadata)?;
                Ok(Content::new())
            }
            Kind::File => {
                let inode = (item.stat.st_dev, item.stat.st_ino);
                let linked = item.stat.st_nlink > 1;
                if linked && let Some((first, content)) = self.links.first.get(&inode) {
                    place.hard_link(target, first)?;
                    return Ok(content.clone());
                }
                let mut file = match instead {
                    Some(file) => file,
                    None => File::from(open(OFlags::RDONLY | OFlags::NONBLOCK)?),
                };
                metadata.xattrs = content::attributes(tree, &file, item)?;
                // A tree that cannot change was hashed already.
                let content = if tree.is_context() {
                    let mut source = content::Hashing::new(file);
                    place.file(target, &metadata, &mut source)?;
                    source.finish()
                } else {
                    place.file(target, &metadata, &mut file)?;
                    Content::new()
                };
                if linked {
                    self.links.add(inode, target, &content);
                }
                Ok(content)
            }
            Kind::Symlink => {
                let text = content::link_text(tree, item)?;
                place.symlink(target, &metadata, OsStr::from_bytes(&text))?;
                Ok(text)
            }
            Kind::Node => {
                match FileType::from_raw_mode(item.stat.st_mode) {
                    // No layer can have a socket. As in BuildKit, its name stays, with an empty file.
                    FileType::Socket => place.file(target, &metadata, &mut &[][..])?,
                    kind => place.node(target, &metadata, kind, item.stat.st_rdev)?,
                }
                Ok(Content::new())
            }
        }
    }

    fn metadata(&self, item: &Item) -> Metadata {
        let stat = &item.stat;
        // The owner of a file outside has no meaning inside an image.
        let own = match self.tree.is_context() {
            true => Owner::default(),
            false => Owner { uid: stat.st_uid, gid: stat.st_gid },
        };
        let mode = match &self.job.chmod {
            Some(chmod) => chmod.apply(stat.st_mode, item.kind == Kind::Directory),
            None => stat.st_mode,
        };
        Metadata {
            mode,
            owner: self.owner.unwrap_or(own),
            modified: Some(Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 }),
            xattrs: Vec::new(),
        }
    }
}
