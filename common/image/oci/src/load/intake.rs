//! Images on their way into the store. Everything is checked before anything gets a name.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, BufRead, Read},
    path::Path,
};

use archive::{Compression, Decompressed, Kind, Limits, Reader, peek};
use oci_spec::image::{Descriptor, MediaType};
use operation::Meter;
use rustix::process::{Resource, Rlimit};

use super::{Error, Form};
use crate::{
    digest::{Digest, Mismatch, Verifying},
    embedded,
    layout::{self, Layout, MAX_JSON, SealedBlob},
    platform::Platform,
    reference::Reference,
};

/// Members up to this size in bytes (JSON, `VERSION`) are kept in memory. Each larger one takes an open file.
const SMALL: u64 = 256 << 10;
/// How much memory all small members together may take, in bytes.
const MAX_SMALL: u64 = 32 << 20;
const MAX_MEMBERS: usize = 100_000;

/// An image found in an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The image's names.
    pub references: Vec<Reference>,
    /// The descriptor of the image's manifest or index.
    pub descriptor: Descriptor,
}

/// Images on their way into the store. Dropping an `Intake` leaves nothing of them behind.
pub struct Intake {
    pub(super) layout: Layout,
    pub(super) platform: Option<Platform>,
    /// The layout that missing blobs are copied from.
    pub(super) source: Option<Layout>,
    pub(super) images: Vec<Found>,
    pub(super) form: Form,
    /// Entries of a list of images whose manifests are elsewhere, by their names or digests.
    pub(super) passed_over: Vec<String>,
    held: HashMap<Digest, Held>,
    needed: HashSet<Digest>,
    memory: u64,
}

enum Held {
    Small(Vec<u8>),
    File(SealedBlob),
    /// The blob is in the store already; its size in bytes.
    Present(u64),
}

/// The content of an archive's member.
pub(super) enum Stored {
    Blob { digest: Digest, size: u64, compression: Compression },
    Link(String),
}

impl Intake {
    pub(super) fn new(layout: Layout, platform: Option<Platform>, form: Form) -> Self {
        let (held, needed) = (HashMap::new(), HashSet::new());
        let (images, passed_over) = (Vec::new(), Vec::new());
        Self { layout, platform, source: None, images, form, passed_over, held, needed, memory: 0 }
    }

    /// The form of the input. It is only certain once all input has been read.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The images found.
    pub fn images(&self) -> &[Found] {
        &self.images
    }

    /// The entries of the list of images whose manifests are not in the input: their names, or their digests. A layout
    /// may share its list with others, or may have lost what nobody used.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// Drops the images' names, so that they get none in the store.
    pub fn forget_names(&mut self) {
        self.images.iter_mut().for_each(|image| image.references.clear());
    }

    /// Reads an archive to its end. Returns its members by name, without a leading `./`.
    pub(super) fn collect(
        &mut self,
        name: &str,
        source: impl BufRead,
    ) -> Result<HashMap<String, Stored>, Error> {
        raise_file_limit();
        let read_error = |error: archive::Error| Error::Read(name.to_owned(), error.into());
        let mut reader = Reader::of_content(source);
        let mut table = HashMap::new();
        // Read to the end of the stream: the writer of a pipe can then finish, and the checksum at the end of
        // a compressed stream is checked.
        while let Some(member) = reader.next().map_err(read_error)? {
            if table.len() == MAX_MEMBERS {
                return Err(Error::TooMany(MAX_MEMBERS));
            }
            let path = normalise("", &text(&member.path));
            let stored = match member.kind {
                Kind::File => self.store(name, member.size, &path, &mut reader.content(&member))?,
                Kind::HardLink => Stored::Link(normalise("", &text(&member.link))),
                Kind::Symlink => Stored::Link(normalise(&path, &text(&member.link))),
                _ => continue,
            };
            table.insert(path, stored);
        }
        Ok(table)
    }

    /// Reads the files of a directory as the members of an archive. Symbolic links are followed inside it only.
    pub(super) fn collect_directory(&mut self, directory: &Path) -> Result<HashMap<String, Stored>, Error> {
        raise_file_limit();
        let (mut table, mut waiting) = (HashMap::new(), vec![String::new()]);
        while let Some(below) = waiting.pop() {
            let place = directory.join(&below);
            let shown = place.display().to_string();
            let read_error = |error| Error::Read(shown.clone(), error);
            for entry in fs::read_dir(&place).map_err(&read_error)? {
                let entry = entry.map_err(&read_error)?;
                if table.len() + waiting.len() == MAX_MEMBERS {
                    return Err(Error::TooMany(MAX_MEMBERS));
                }
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = if below.is_empty() { name } else { format!("{below}/{name}") };
                let kind = entry.file_type().map_err(&read_error)?;
                let shown = entry.path().display().to_string();
                let failed = |error| Error::Read(shown.clone(), error);
                let stored = if kind.is_dir() {
                    waiting.push(path);
                    continue;
                } else if kind.is_symlink() {
                    let target = fs::read_link(entry.path()).map_err(failed)?;
                    Stored::Link(normalise(&path, &target.to_string_lossy()))
                } else if kind.is_file() {
                    let mut file = layout::open_regular(&entry.path()).map_err(failed)?;
                    let size = file.metadata().map_err(failed)?.len();
                    self.store(&shown, size, &path, &mut file)?
                } else {
                    continue;
                };
                table.insert(path, stored);
            }
        }
        Ok(table)
    }

    fn store(&mut self, name: &str, size: u64, path: &str, content: &mut impl Read) -> Result<Stored, Error> {
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

    /// Stores the content of a compressed blob as another blob. Returns its digest and its size in bytes. `name`
    /// is that of the member, for errors.
    pub(super) fn decompress(
        &mut self,
        name: &str,
        digest: &Digest,
        size: u64,
        limits: Limits,
    ) -> Result<(Digest, u64), Error> {
        let read_error = io_error(name);
        let source: Box<dyn Read + '_> = match self.held.get(digest) {
            Some(Held::Small(content)) => Box::new(&content[..]),
            Some(Held::File(blob)) => Box::new(blob.reader().map_err(&read_error)?),
            _ => {
                let blob = Descriptor::new(MediaType::ImageLayer, size, digest.clone());
                Box::new(self.layout.blob_reader(&blob)?)
            }
        };
        let mut plain = Decompressed::new(source, limits).map_err(&read_error)?;
        let mut writer = self.layout.writer()?;
        writer.copy_from(&mut plain).map_err(&read_error)?;
        drop(plain);
        let sealed = writer.seal()?;
        let stored = (sealed.digest().clone(), sealed.size());
        self.add_sealed(sealed);
        Ok(stored)
    }

    /// Takes a small blob that was made here and returns its descriptor.
    pub(super) fn add_small(&mut self, media_type: MediaType, content: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::new(media_type, content.len() as u64, Digest::of(&content));
        let digest = Digest::of(&content);
        self.held.entry(digest).or_insert(Held::Small(content));
        descriptor
    }

    /// Takes a completely written blob.
    pub(super) fn add_sealed(&mut self, blob: SealedBlob) {
        self.held.entry(blob.digest().clone()).or_insert(Held::File(blob));
    }

    /// Marks blobs as part of an image. Blobs without this mark are dropped at [`Intake::commit`].
    pub(super) fn need(&mut self, digests: impl IntoIterator<Item = Digest>) {
        self.needed.extend(digests);
    }

    /// Makes sure that the blob of a descriptor is held or in the store, with the right size.
    pub(super) fn require(&mut self, descriptor: &Descriptor) -> Result<Digest, Error> {
        let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
        let expected = descriptor.size();
        if !self.held.contains_key(&digest) {
            if self.layout.has_sound_blob(descriptor)? {
                // An old blob that nothing refers to must last until the image is complete.
                self.layout.touch_blob(&digest);
                self.held.insert(digest.clone(), Held::Present(expected));
            } else if let Some(source) = &self.source
                && let Some(reader) = match source.blob_reader(descriptor) {
                    Err(layout::Error::NoBlob(_)) => None,
                    reader => Some(reader?),
                }
            {
                let mut reader = Meter::new("copying", expected).watch(reader);
                let mut writer = self.layout.writer_of(descriptor)?;
                writer.copy_from(&mut reader).map_err(|error| match Mismatch::within(&error) {
                    Some(mismatch) => layout::Error::from(mismatch.clone().held_by(&source.holder)).into(),
                    None => Error::Read(digest.to_string(), error),
                })?;
                self.held.insert(digest.clone(), Held::File(writer.seal()?));
            }
        }
        // A descriptor may have the content itself, and nothing else have it (image-spec, descriptor.md).
        if !self.held.contains_key(&digest)
            && let Some(content) = embedded::content(descriptor)
        {
            self.held.insert(digest.clone(), Held::Small(content));
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

    /// Moves all needed blobs into place and gives the images their names.
    ///
    /// With a `name`, the wanted image is the one with that name. If there is only one image, it gets `name`
    /// instead of its own names. Without a `name`, the first named image is the wanted one. Returns the
    /// images, the wanted one first.
    ///
    /// # Errors
    /// When no image has the name; nothing is then left in the store. When the store cannot be written.
    pub fn commit(mut self, name: Option<&Reference>) -> Result<Vec<Found>, Error> {
        // As in Docker, an archive cannot give an image a name that is for another one.
        for Found { references, descriptor } in &mut self.images {
            references.retain(|name| layout::may_have(descriptor, name));
        }
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
        // Blobs of a named image are never removed. But a blob may have been removed just before the name was
        // given.
        match present.into_iter().find(|digest| !self.layout.blob_path(digest).exists()) {
            Some(digest) => Err(layout::Error::NoBlob(digest).into()),
            None => Ok(self.images),
        }
    }

    fn name_images(&mut self, name: Option<&Reference>) -> Result<(), Error> {
        let Some(name) = name else {
            // A named image goes first.
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

/// A member's name as a key of the table, and for messages.
pub(super) fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Returns the mismatch inside an I/O error as itself, and any other I/O error as a read error.
pub(super) fn io_error(name: &str) -> impl Fn(io::Error) -> Error {
    let name = name.to_owned();
    move |error| match Mismatch::within(&error) {
        Some(mismatch) => mismatch.clone().into(),
        None => Error::Read(name.clone(), error),
    }
}

/// The digest that a member of an OCI archive has as its name.
fn promised_digest(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// A name as a key of the table: `target` relative to the directory of the member `from`, without `.` and
/// `..`.
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

/// Raises the limit of open files: each large member stays open until the whole archive has been read.
fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
