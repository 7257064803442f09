//! What is on its way into the store: all of it is checked before any of it has a name.

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead, Read},
};

use archive::{Compression, Entry, Kind, Reader, peek};
use oci_spec::image::{Descriptor, MediaType};
use rustix::process::{Resource, Rlimit};

use super::{Error, Form};
use crate::{
    digest::{Digest, Mismatch, Verifying},
    layout::{self, Layout, MAX_JSON, SealedBlob},
    platform::Platform,
    reference::Reference,
};

/// Members up to this size (JSON, `VERSION`) are kept in memory, in bytes; each of the others takes an open file.
const SMALL: u64 = 256 << 10;
/// How much memory all of them may take, in bytes.
const MAX_SMALL: u64 = 32 << 20;
const MAX_MEMBERS: usize = 100_000;

/// An image that was found in an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its names.
    pub references: Vec<Reference>,
    /// Its manifest or index.
    pub descriptor: Descriptor,
}

/// Images on their way into the store. Dropped, nothing of them is left.
pub struct Intake {
    pub(super) layout: Layout,
    pub(super) platform: Option<Platform>,
    /// Where blobs are copied from that are not held yet.
    pub(super) source: Option<Layout>,
    pub(super) images: Vec<Found>,
    pub(super) form: Form,
    held: HashMap<Digest, Held>,
    needed: HashSet<Digest>,
    memory: u64,
}

enum Held {
    Small(Vec<u8>),
    File(SealedBlob),
    /// It is in the store already.
    Present(u64),
}

/// Where the content of an archive's member is.
pub(super) enum Stored {
    Blob { digest: Digest, size: u64, compression: Compression },
    Link(String),
}

impl Intake {
    pub(super) fn new(layout: Layout, platform: Option<Platform>, form: Form) -> Self {
        let (held, needed) = (HashMap::new(), HashSet::new());
        Self { layout, platform, source: None, images: Vec::new(), form, held, needed, memory: 0 }
    }

    /// What the input was found to be once all of it was read.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The images found.
    pub fn images(&self) -> &[Found] {
        &self.images
    }

    /// Lets the images have no names in the store.
    pub fn forget_names(&mut self) {
        self.images.iter_mut().for_each(|image| image.references.clear());
    }

    /// Reads an archive to its end. The table is by name, without `./` before it.
    pub(super) fn collect(
        &mut self,
        name: &str,
        source: impl BufRead,
    ) -> Result<HashMap<String, Stored>, Error> {
        raise_file_limit();
        let read_error = |error: archive::Error| Error::Read(name.to_owned(), error.into());
        let mut reader = Reader::of_content(source);
        let mut table = HashMap::new();
        // It reads to the end of the stream: whoever writes into a pipe may finish, and the checksum at the end of a
        // compressed stream is seen.
        while let Some(member) = reader.next().map_err(read_error)? {
            if table.len() == MAX_MEMBERS {
                return Err(Error::TooMany(MAX_MEMBERS));
            }
            let path = normalise("", &text(&member.path));
            let stored = match member.kind {
                Kind::File => self.store(name, &member, &path, &mut reader.content(&member))?,
                Kind::HardLink => Stored::Link(normalise("", &text(&member.link))),
                Kind::Symlink => Stored::Link(normalise(&path, &text(&member.link))),
                _ => continue,
            };
            table.insert(path, stored);
        }
        Ok(table)
    }

    fn store(
        &mut self,
        name: &str,
        member: &Entry,
        path: &str,
        content: &mut impl Read,
    ) -> Result<Stored, Error> {
        let size = member.size;
        let promised =
            promised_digest(path).map(|digest| Descriptor::new(MediaType::ImageLayer, size, digest));
        let known = promised.as_ref().map(|blob| self.layout.has_sound_blob(blob)).transpose()? == Some(true);
        if size <= SMALL && self.memory + size <= MAX_SMALL {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(|error| Error::Read(name.to_owned(), error))?;
            self.memory += size;
            let digest = match promised {
                Some(blob) => {
                    let digest = Digest::try_from(blob.digest()).map_err(layout::Error::from)?;
                    Verifying::new(&bytes[..], digest.clone(), size).finish().map_err(io_error(name))?;
                    digest
                }
                None => Digest::of(&bytes),
            };
            let compression = Compression::detect(&bytes);
            self.held.entry(digest.clone()).or_insert(Held::Small(bytes));
            return Ok(Stored::Blob { digest, size, compression });
        }
        let read_error = |error| Error::Read(name.to_owned(), error);
        let (start, mut whole) = peek(content, Compression::LOOK).map_err(read_error)?;
        let compression = Compression::detect(&start);
        let digest = match promised {
            Some(blob) if known => {
                let digest = Digest::try_from(blob.digest()).map_err(layout::Error::from)?;
                Verifying::new(whole, digest.clone(), size).finish().map_err(io_error(name))?;
                self.held.entry(digest.clone()).or_insert(Held::Present(size));
                digest
            }
            promised => {
                let mut writer = match &promised {
                    Some(blob) => self.layout.writer_of(blob)?,
                    None => self.layout.writer()?,
                };
                writer.copy_from(&mut whole).map_err(io_error(name))?;
                let sealed = writer.seal()?;
                let digest = sealed.digest().clone();
                self.held.entry(digest.clone()).or_insert(Held::File(sealed));
                digest
            }
        };
        Ok(Stored::Blob { digest, size, compression })
    }

    /// Takes a small blob that was made here, and returns its descriptor.
    pub(super) fn add_small(&mut self, media_type: MediaType, content: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::new(media_type, content.len() as u64, Digest::of(&content));
        let digest = Digest::of(&content);
        self.held.entry(digest).or_insert(Held::Small(content));
        descriptor
    }

    /// Takes a blob that was written whole.
    pub(super) fn add_sealed(&mut self, blob: SealedBlob) {
        self.held.entry(blob.digest().clone()).or_insert(Held::File(blob));
    }

    /// Says that blobs belong to an image: the others are forgotten.
    pub(super) fn need(&mut self, digests: impl IntoIterator<Item = Digest>) {
        self.needed.extend(digests);
    }

    /// Makes sure that the blob of a descriptor is held, or in the store, in the right size.
    pub(super) fn require(&mut self, descriptor: &Descriptor) -> Result<Digest, Error> {
        let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
        let expected = descriptor.size();
        if !self.held.contains_key(&digest) {
            if self.layout.has_sound_blob(descriptor)? {
                self.held.insert(digest.clone(), Held::Present(expected));
            } else if let Some(source) = &self.source {
                let mut reader = match source.blob_reader(descriptor) {
                    Err(layout::Error::NoBlob(digest)) => return Err(Error::NoBlob(digest)),
                    reader => reader?,
                };
                let mut writer = self.layout.writer_of(descriptor)?;
                writer.copy_from(&mut reader).map_err(io_error(&digest.to_string()))?;
                self.held.insert(digest.clone(), Held::File(writer.seal()?));
            }
        }
        let found = match self.held.get(&digest) {
            None => return Err(Error::NoBlob(digest)),
            Some(Held::Small(content)) => content.len() as u64,
            Some(Held::File(blob)) => blob.size(),
            Some(Held::Present(size)) => *size,
        };
        match found == expected {
            true => Ok(digest),
            false => Err(Mismatch::Size { digest, expected, found, more: false }.into()),
        }
    }

    /// The content of a small blob.
    pub(super) fn content(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        if descriptor.size() > MAX_JSON {
            let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
            return Err(layout::Error::TooLarge { digest, size: descriptor.size() }.into());
        }
        let digest = self.require(descriptor)?;
        match self.held.get(&digest) {
            Some(Held::Small(content)) => Ok(content.clone()),
            Some(Held::File(blob)) => blob.read_start(MAX_JSON).map_err(io_error(&digest.to_string())),
            _ => Ok(self.layout.read_blob(descriptor)?),
        }
    }

    /// Puts everything into its place and gives the images their names.
    ///
    /// With a `name`, the image that has it is the one asked for; a single image gets it instead of its own names.
    /// Without, it is the first. Returns the images, the one asked for first.
    ///
    /// # Errors
    /// When no name fits; then nothing is left. When the store cannot be written.
    pub fn commit(mut self, name: Option<&Reference>) -> Result<Vec<Found>, Error> {
        self.name_images(name)?;
        let mut present = Vec::new();
        for (digest, held) in self.held {
            if !self.needed.contains(&digest) {
                continue;
            }
            match held {
                Held::Small(content) => {
                    let blob = Descriptor::new(MediaType::ImageLayer, content.len() as u64, digest);
                    let mut writer = self.layout.writer_of(&blob)?;
                    io::Write::write_all(&mut writer, &content).map_err(io_error("a small blob"))?;
                    writer.commit()?;
                }
                Held::File(blob) => blob.commit()?,
                Held::Present(_) => {
                    self.layout.touch_blob(&digest);
                    present.push(digest);
                }
            }
        }
        let mut edit = self.layout.edit()?;
        for image in &self.images {
            edit.name(&image.descriptor, &image.references)?;
        }
        edit.commit()?;
        // Nobody removes a blob of an image that has a name; somebody may have done so just before.
        match present.into_iter().find(|digest| !self.layout.blob_path(digest).exists()) {
            Some(digest) => Err(layout::Error::NoBlob(digest).into()),
            None => Ok(self.images),
        }
    }

    fn name_images(&mut self, name: Option<&Reference>) -> Result<(), Error> {
        let Some(name) = name else {
            // One with a name comes first.
            if let Some(at) = self.images.iter().position(|image| !image.references.is_empty()) {
                self.images.swap(0, at);
            }
            return Ok(());
        };
        if let Some(at) = self.images.iter().position(|image| image.references.contains(name)) {
            self.images.swap(0, at);
            return Ok(());
        }
        if let [only] = &mut self.images[..] {
            only.references = vec![name.clone()];
            return Ok(());
        }
        let names: Vec<_> =
            self.images.iter().flat_map(|image| &image.references).map(Reference::to_string).collect();
        let names = if names.is_empty() { "without names".to_owned() } else { names.join(", ") };
        Err(Error::Several { wanted: name.to_string(), names })
    }
}

/// A name as a key of the table, and for messages.
pub(super) fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// A mismatch that travelled inside an io error is told as itself.
pub(super) fn io_error(name: &str) -> impl Fn(io::Error) -> Error {
    let name = name.to_owned();
    move |error| match Mismatch::within(&error) {
        Some(mismatch) => mismatch.clone().into(),
        None => Error::Read(name.clone(), error),
    }
}

/// The digest that a member of an OCI archive is named by.
fn promised_digest(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// A name as a key of the table: `target` as seen from the directory of the member `from`, without `.` and `..`.
pub(super) fn normalise(from: &str, target: &str) -> String {
    let parent = from.rsplit_once('/').map_or("", |(parent, _)| parent);
    let parent = if target.starts_with('/') { "" } else { parent };
    let mut parts: Vec<&str> = Vec::new();
    for part in parent.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Every larger member is an open file until the whole archive was read.
fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
