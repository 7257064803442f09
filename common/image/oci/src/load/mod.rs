//! Images that come as one file: OCI archives, docker archives, plain root file systems; and OCI layout directories.
//!
//! An archive is read once, from its start to its end, and never unpacked: what stands in it goes into nameless files in
//! the store ([`SealedBlob`](crate::layout::SealedBlob)), which get their names when all of it was found to be right.
//! Names in an archive are keys of a table; no path is ever made of them.

mod docker;
mod import;
mod intake;
mod lists;
mod oci;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

pub use archive::Limits;
use archive::{Compression, Decompressed, Kind, Reader, peek};

use crate::{
    digest::{Digest, Mismatch},
    layout::{self, Layout},
    platform::Platform,
};

use intake::text;
pub use intake::{Found, Intake};
use lists::Lists;

/// How much of the input is looked at to tell what it is: bzip2 gives nothing before the end of its first block.
const PEEK: usize = 1 << 20;

/// Reading an input and storing what is in it is one pass: the error tells which of the two failed.
fn verb(error: &io::Error) -> &'static str {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        FileTooLarge | QuotaExceeded | ReadOnlyFilesystem | StorageFull => "store the content of",
        _ => "read",
    }
}

/// What went wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input could not be read, or what is in it not be written to the store while it was.
    #[error("{verb} {0}: {1}", verb = verb(.1))]
    Read(String, #[source] io::Error),
    /// The input is no tar.
    #[error("{0} is neither an archive of images nor a tar of a root file system")]
    Unknown(String),
    /// A directory that is no layout.
    #[error("{0:?} is a directory, but no OCI image layout")]
    Directory(PathBuf),
    /// Members of an archive, but no list of images.
    #[error("the archive lists no images: it has neither manifest.json nor oci-layout and index.json")]
    NoList,
    /// An empty list.
    #[error("the archive holds no image")]
    Empty,
    /// A list that names a file which does not exist.
    #[error("manifest.json names {0:?}, which is not in the archive")]
    NoMember(String),
    /// A descriptor of a blob which does not exist.
    #[error("the archive names {0}, which is not in it")]
    NoBlob(Digest),
    /// A member whose form is wrong.
    #[error("{what} in the archive: {source}")]
    Malformed {
        /// The member, or the digest.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Content that is not what it is said to be.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// A layer that is not the one of the configuration.
    #[error("layer {name:?} in the archive has DiffID {found}, the configuration says {expected}")]
    DiffId {
        /// The layer's name in the archive.
        name: String,
        /// What the configuration says.
        expected: Digest,
        /// What it has.
        found: Digest,
    },
    /// A configuration for another number of layers.
    #[error("image {name:?} in the archive: {layers} layers, {diff_ids} DiffIDs in the configuration")]
    Layers {
        /// The configuration's name in the archive.
        name: String,
        /// How many layers are listed.
        layers: usize,
        /// How many DiffIDs.
        diff_ids: usize,
    },
    /// A layer that the image-spec has no media type for.
    #[error("layer {0:?} in the archive is compressed in a way that layers cannot be")]
    Compression(String),
    /// More members than any archive has.
    #[error("the archive has more than {0} members")]
    TooMany(usize),
    /// Several images, and a name that none of them has.
    #[error("the archive has no image {wanted}, but several others: {names}")]
    Several {
        /// The name asked for.
        wanted: String,
        /// Those in the archive.
        names: String,
    },
    /// The store.
    #[error(transparent)]
    Layout(#[from] layout::Error),
}

/// What an input was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI or docker archive.
    Archive,
    /// A tar of a root file system.
    RootFs,
    /// An OCI layout directory.
    Directory,
}

/// An input whose form is known, of which nothing is lost yet.
pub struct Input {
    name: String,
    form: Form,
    content: Content,
    limits: Limits,
}

enum Content {
    Stream(Compression, Box<dyn Read>),
    Layout(Layout),
}

impl Input {
    /// Opens a file or a directory, or standard input for `-`, and tells what it is by its content.
    ///
    /// # Errors
    /// When it cannot be read or is nothing that holds images.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path == Path::new("-") {
            return Self::stream("standard input".to_owned(), io::stdin());
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Error::Read(name.clone(), error))?;
        let metadata = file.metadata().map_err(|error| Error::Read(name.clone(), error))?;
        if !metadata.is_dir() {
            return Self::stream(name, file);
        }
        match Layout::open(path) {
            Ok(layout) => Ok(Self {
                name,
                form: Form::Directory,
                content: Content::Layout(layout),
                limits: Limits::default(),
            }),
            Err(layout::Error::NotALayout(path)) => Err(Error::Directory(path)),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells what a stream is; `name` is what errors call it.
    ///
    /// # Errors
    /// When it cannot be read or is nothing that holds images.
    pub fn stream(name: String, source: impl Read + 'static) -> Result<Self, Error> {
        let (start, source) = peek(source, PEEK).map_err(|error| Error::Read(name.clone(), error))?;
        let compression = Compression::detect(&start);
        let Some(form) = form(&start) else { return Err(Error::Unknown(name)) };
        let content = Content::Stream(compression, Box::new(source));
        Ok(Self { name, form, content, limits: Limits::default() })
    }

    /// The same, of which no more may come out.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// What it is.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Reads all of it into files of the store that have no names yet. Of images for several platforms the one for
    /// `platform` (by default this machine's) must be there; a root file system becomes an image for it.
    ///
    /// # Errors
    /// Whatever is wrong with it; then nothing is left in the store.
    pub fn read(self, layout: &Layout, platform: Option<&Platform>) -> Result<Intake, Error> {
        let mut intake = Intake::new(layout.clone(), platform.cloned(), self.form);
        let (name, limits) = (&self.name, self.limits);
        match self.content {
            Content::Layout(source) => oci::from_layout(&mut intake, source)?,
            Content::Stream(compression, source) if self.form == Form::RootFs => {
                // Its lists stood further back than was looked.
                if let Some(archive) = import::rootfs(&mut intake, name, (compression, limits), source)? {
                    intake.form = Form::Archive;
                    let source = archive.reader().map_err(|error| Error::Read(name.clone(), error))?;
                    from_archive(&mut intake, name, limits, source)?;
                }
            }
            Content::Stream(_, source) => from_archive(&mut intake, name, limits, source)?,
        }
        if intake.images.is_empty() { Err(Error::Empty) } else { Ok(intake) }
    }
}

fn from_archive(intake: &mut Intake, name: &str, limits: Limits, source: impl Read) -> Result<(), Error> {
    let read_error = |error| Error::Read(name.to_owned(), error);
    let source = Decompressed::new(source, limits).map_err(read_error)?;
    let members = intake.collect(name, source)?;
    let is_docker = members.contains_key("manifest.json");
    match members.contains_key("oci-layout") && members.contains_key("index.json") {
        true => oci::from_archive(intake, &members)?,
        false if !is_docker => return Err(Error::NoList),
        false => {}
    }
    // Docker 25.0 wrote an index without images, and its own list, for what was saved by its id.
    if intake.images.is_empty() && is_docker {
        docker::from_archive(intake, &members)?;
    }
    Ok(())
}

/// By the lists of images, as far as is looked, and by the name of the first member. None where the input is no tar.
fn form(start: &[u8]) -> Option<Form> {
    let mut members = Reader::of_content(Decompressed::new(start, Limits::default()).ok()?);
    let (mut root, mut any, mut lists) = (false, false, Lists::default());
    loop {
        let is_first = !any;
        match members.next() {
            // "./" stands first in what `tar -C DIR -c .` writes.
            Ok(Some(member)) if is_root(&text(&member.path)) => root = true,
            Ok(Some(member)) => {
                lists.see(&member, &mut members);
                if lists.are_there() || (is_first && is_of_archive(&text(&member.path), member.kind)) {
                    return Some(Form::Archive);
                }
                any = true;
            }
            // An empty root file system is one; an empty file is no tar.
            Ok(None) => return (any || root || start.len() >= 1024).then_some(Form::RootFs),
            // What is looked at may end anywhere.
            Err(_) => return any.then_some(Form::RootFs),
        }
    }
}

fn is_root(name: &str) -> bool {
    name.split('/').all(|part| matches!(part, "" | "."))
}

/// Whether an archive of images has such a member, and no root file system at its top.
fn is_of_archive(name: &str, kind: Kind) -> bool {
    let name = name.trim_start_matches("./").trim_end_matches('/');
    let top = name.split('/').next().unwrap_or_default();
    let is_id = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let stem = top.strip_prefix("sha256:").unwrap_or(top);
    match name == top && kind != Kind::Directory {
        true => {
            matches!(name, "oci-layout" | "repositories")
                || [".json", ".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end))
                || is_id(stem)
        }
        false => top == "blobs" || is_id(top),
    }
}
