//! Loads images from one input: an OCI archive, a docker archive, a plain root file system, an OCI layout
//! directory, or the directory of an unpacked archive or of skopeo's transport `dir`.
//!
//! An archive is read once, from start to end, and never unpacked. Its members go into unnamed files in the
//! store ([`SealedBlob`](crate::layout::SealedBlob)). The files get their names only after the whole archive
//! has been checked. Names in an archive are keys of a table and never become paths.

mod docker;
mod import;
mod intake;
mod lists;
mod oci;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

pub use archive::Limits;
use archive::{Compression, Decompressed, Kind, Reader, peek};
use operation::Meter;

use crate::{
    digest::{Digest, Mismatch},
    layout::{self, Layout},
    platform::Platform,
};

pub use intake::{Found, Intake};
use intake::{Stored, text};
use lists::Lists;

/// How many bytes of the input are examined to tell its form. This is so much because bzip2 yields nothing
/// before the end of its first block.
const PEEK: usize = 1 << 20;

/// What a terminal shows meanwhile.
const LOADING: &str = "loading";

/// The verb of an error message. Reading the input and storing its content are one pass; the error tells
/// which of the two failed.
fn verb(error: &io::Error) -> &'static str {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        FileTooLarge | QuotaExceeded | ReadOnlyFilesystem | StorageFull => "store the content of",
        _ => "read",
    }
}

/// Why an input could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input could not be read, or its content could not be written to the store.
    #[error("{verb} {0}: {1}", verb = verb(.1))]
    Read(String, #[source] io::Error),
    /// The input is neither an archive of images nor a tar of a root file system.
    #[error("{0} is neither an archive of images nor a tar of a root file system")]
    Unknown(String),
    /// The input is a directory, but no layout.
    #[error("{0:?} is a directory, but not an OCI image layout, and it has no manifest.json")]
    Directory(PathBuf),
    /// The archive has members, but no list of images.
    #[error("the archive lists no images: it has neither manifest.json nor oci-layout and index.json")]
    NoList,
    /// The list of images is empty.
    #[error("the archive holds no image")]
    Empty,
    /// The list of images names a member that does not exist.
    #[error("manifest.json names {0:?}, which is not in the archive")]
    NoMember(String),
    /// A descriptor names a blob that does not exist.
    #[error("the archive names {0}, which is not in it")]
    NoBlob(Digest),
    /// A member is not the expected JSON.
    #[error("{what} in the archive: {source}")]
    Malformed {
        /// The member's name or digest.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The only entries of a list of images are no descriptors.
    #[error("{list}: an entry is not a descriptor: {problem}")]
    Entry {
        /// The list.
        list: String,
        /// What is wrong with the first entry.
        problem: String,
    },
    /// Content does not match its descriptor.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// A layer does not match the configuration.
    #[error("layer {name:?} in the archive has DiffID {found}, the configuration says {expected}")]
    DiffId {
        /// The layer's name in the archive.
        name: String,
        /// The DiffID in the configuration.
        expected: Digest,
        /// The layer's DiffID.
        found: Digest,
    },
    /// The configuration has another number of layers.
    #[error("image {name:?} in the archive: {layers} layers, {diff_ids} DiffIDs in the configuration")]
    Layers {
        /// The configuration's name in the archive.
        name: String,
        /// The number of layers listed.
        layers: usize,
        /// The number of DiffIDs in the configuration.
        diff_ids: usize,
    },
    /// The archive has too many members.
    #[error("the archive has more than {0} members")]
    TooMany(usize),
    /// The archive has several images, and none has the name asked for.
    #[error("the archive has no image {wanted}, but several others: {names}")]
    Several {
        /// The name asked for.
        wanted: String,
        /// The names in the archive.
        names: String,
    },
    /// The image store.
    #[error(transparent)]
    Layout(#[from] layout::Error),
}

/// The form of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI or docker archive.
    Archive,
    /// A tar of a root file system.
    RootFs,
    /// An OCI layout directory.
    Directory,
}

/// An input whose form is known. No byte of it is lost yet.
pub struct Input {
    name: String,
    form: Form,
    content: Content,
    limits: Limits,
}

enum Content {
    Stream(Compression, Box<dyn Read>),
    Layout(Layout),
    Directory(PathBuf),
}

impl Input {
    /// Opens a file or a directory, or standard input for `-`. The form is recognised by the content.
    ///
    /// # Errors
    /// When the input cannot be read or cannot hold images.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path == Path::new("-") {
            return Self::stream("standard input".to_owned(), Meter::new(LOADING, 0).watch(io::stdin()));
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Error::Read(name.clone(), error))?;
        let metadata = file.metadata().map_err(|error| Error::Read(name.clone(), error))?;
        if !metadata.is_dir() {
            return Self::stream(name, Meter::new(LOADING, metadata.len()).watch(file));
        }
        let content = match Layout::open_foreign(path) {
            Ok(layout) => Content::Layout(layout),
            Err(layout::Error::NotALayout(path)) => {
                let has = |name: &str| path.join(name).exists();
                match has("manifest.json") || (has("index.json") && has("blobs")) {
                    true => Content::Directory(path),
                    false => return Err(Error::Directory(path)),
                }
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self { name, form: Form::Directory, content, limits: Limits::default() })
    }

    /// Recognises the form of a stream. `name` is its name in error messages.
    ///
    /// # Errors
    /// When the stream cannot be read or cannot hold images.
    pub fn stream(name: String, source: impl Read + 'static) -> Result<Self, Error> {
        let (start, source) = peek(source, PEEK).map_err(|error| Error::Read(name.clone(), error))?;
        let compression = Compression::detect(&start);
        let Some(form) = form(&start) else { return Err(Error::Unknown(name)) };
        let content = Content::Stream(compression, Box::new(source));
        Ok(Self { name, form, content, limits: Limits::default() })
    }

    /// Limits how much may come out of the compressed input.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The form of the input.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Reads the whole input into unnamed files in the store. An image for several platforms must include one
    /// for `platform` (default: this machine's). A root file system becomes an image for that platform.
    ///
    /// # Errors
    /// When anything is wrong with the input; nothing is then left in the store.
    pub fn read(self, layout: &Layout, platform: Option<&Platform>) -> Result<Intake, Error> {
        let mut intake = Intake::new(layout.clone(), platform.cloned(), self.form);
        let (name, limits) = (&self.name, self.limits);
        match self.content {
            Content::Layout(source) => oci::from_layout(&mut intake, source)?,
            Content::Directory(path) => {
                let members = intake.collect_directory(&path)?;
                from_members(&mut intake, members, limits)?;
            }
            Content::Stream(compression, source) if self.form == Form::RootFs => {
                // The lists of images came later than the first `PEEK` bytes.
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
    from_members(intake, members, limits)
}

fn from_members(intake: &mut Intake, members: HashMap<String, Stored>, limits: Limits) -> Result<(), Error> {
    let members = below_the_top(members);
    let is_docker = members.contains_key("manifest.json");
    if is_docker && let Some(manifest) = oci::transported(intake, &members)? {
        return oci::from_directory(intake, manifest);
    }
    // Some writers leave out the file that only has the layout's version.
    let is_layout =
        members.contains_key("oci-layout") || members.keys().any(|name| name.starts_with("blobs/sha"));
    match is_layout && members.contains_key("index.json") {
        true => oci::from_archive(intake, &members)?,
        false if !is_docker => return Err(Error::NoList),
        false => {}
    }
    // Docker 25.0 wrote an index without images, next to its own list, when an image was saved by its id.
    if intake.images.is_empty() && is_docker {
        docker::from_archive(intake, &members, limits)?;
    }
    Ok(())
}

/// The members of the only directory at the top, if the lists of images are there and not at the top.
fn below_the_top(members: HashMap<String, Stored>) -> HashMap<String, Stored> {
    let root_of = |name: &str| name.split_once('/').map_or(String::new(), |(root, _)| root.to_owned());
    let mut roots = members.keys().map(|name| root_of(name)).collect::<HashSet<_>>().into_iter();
    let (Some(root), None) = (roots.next(), roots.next()) else { return members };
    let below = |name: &str| name.strip_prefix(&root)?.strip_prefix('/').map(str::to_owned);
    let is_list = |name: String| matches!(name.as_str(), "manifest.json" | "index.json");
    if root.is_empty() || !members.keys().any(|name| below(name).is_some_and(is_list)) {
        return members;
    }
    let member = |(name, stored): (String, Stored)| {
        let stored = match stored {
            // A link to something outside leads nowhere.
            Stored::Link(target) => Stored::Link(below(&target).unwrap_or_default()),
            blob => blob,
        };
        below(&name).map(|name| (name, stored))
    };
    members.into_iter().filter_map(member).collect()
}

/// Recognises the form by the lists of images, if they come early enough, or by the name of the first member.
/// None if the input is no tar.
fn form(start: &[u8]) -> Option<Form> {
    let mut members = Reader::of_content(Decompressed::new(start, Limits::default()).ok()?);
    let (mut root, mut any, mut lists) = (false, false, Lists::default());
    loop {
        let is_first = !any;
        match members.next() {
            // `tar -C DIR -c .` writes "./" first.
            Ok(Some(member)) if is_root(&text(&member.path)) => root = true,
            Ok(Some(member)) => {
                lists.see(&member, &mut members);
                if lists.are_there(false) || (is_first && is_of_archive(&text(&member.path), member.kind)) {
                    return Some(Form::Archive);
                }
                any = true;
            }
            // An empty tar is a root file system, but an empty file is no tar.
            Ok(None) if lists.are_there(true) => return Some(Form::Archive),
            Ok(None) => return (any || root || start.len() >= 1024).then_some(Form::RootFs),
            // The peeked bytes may end anywhere.
            Err(_) => return any.then_some(Form::RootFs),
        }
    }
}

fn is_root(name: &str) -> bool {
    name.split('/').all(|part| matches!(part, "" | "."))
}

/// Whether an archive of images has such a member, and a root file system has none at its top.
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
