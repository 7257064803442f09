//! Saves images as one file: an OCI archive or a docker archive. The same images always give the same bytes.

mod docker;
mod oci;

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

use archive::{Entry, Kind, Writer};
use oci_spec::image::Descriptor;
use operation::{Meter, Status};

use crate::{
    digest::Digest,
    layout::{self, Layout},
    platform::Platform,
    reference::Reference,
};

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive cannot be written.
    #[error("write the archive: {0}")]
    Write(#[source] io::Error),
    /// A blob cannot be read.
    #[error("read blob {0}: {1}")]
    Read(Digest, #[source] io::Error),
    /// A layer's content does not match the configuration.
    #[error("layer {digest} has DiffID {found}, the configuration says {expected}")]
    DiffId {
        /// The layer's blob.
        digest: Digest,
        /// The DiffID in the configuration.
        expected: Digest,
        /// The layer's DiffID.
        found: Digest,
    },
    /// The image store failed.
    #[error(transparent)]
    Layout(#[from] layout::Error),
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An OCI image layout (image-spec, image-layout.md) in a tar. Blobs are unchanged; an index keeps all
    /// its platforms.
    Oci,
    /// The format of `docker save` before version 25, which every `docker load` reads.
    Docker,
}

/// An image to save, and its names in the archive.
#[derive(Debug, Clone)]
pub struct Named {
    /// The names.
    pub references: Vec<Reference>,
    /// The descriptor of the image's manifest or index.
    pub descriptor: Descriptor,
}

/// Writes an archive of images. With `platform`, only the image for it is taken from an index.
///
/// # Errors
/// When an image is not complete, or the archive cannot be written.
pub fn save(
    layout: &Layout,
    images: &[Named],
    format: Format,
    platform: Option<&Platform>,
    target: impl Write,
) -> Result<(), Error> {
    let mut archive =
        Archive(Writer::new(io::BufWriter::with_capacity(256 << 10, target)), Status::new("saving"));
    match format {
        Format::Oci => oci::save(layout, images, platform, &mut archive)?,
        Format::Docker => docker::save(layout, images, platform, &mut archive)?,
    }
    archive.0.finish().and_then(|mut target| target.flush()).map_err(Error::Write)
}

/// Copies an image into another layout without giving it a name there. Of an index, the images in `layout`
/// are copied.
///
/// # Errors
/// When the image is not complete, or `target` cannot be written.
pub fn copy(layout: &Layout, image: &Descriptor, target: &Layout) -> Result<(), Error> {
    let blobs = oci::blobs(layout, image)?;
    let meter = Meter::new("copying", total(&blobs));
    for (digest, descriptor) in blobs {
        if target.has_sound_blob(&descriptor)? {
            target.touch_blob(&digest);
            meter.add(descriptor.size());
            continue;
        }
        let mut writer = target.writer_of(&descriptor)?;
        let mut reader = Noted { inner: meter.watch(layout.blob_reader(&descriptor)?), failed: false };
        let copied = writer.copy_from(&mut reader);
        copied.map_err(|error| match reader.failed {
            true => Error::Read(digest.clone(), error),
            false => Error::Layout(layout::Error::io("write", target.blob_path(&digest))(unmarked(error))),
        })?;
        writer.commit()?;
    }
    Ok(())
}

/// The size of all blobs, in bytes.
fn total(blobs: &BTreeMap<Digest, Descriptor>) -> u64 {
    blobs.values().fold(0, |sum: u64, blob| sum.saturating_add(blob.size()))
}

/// The system's error alone. Its text then is that of other system calls.
fn unmarked(error: io::Error) -> io::Error {
    operation::errno_of(&error).map_or(error, io::Error::from)
}

/// A reader that remembers whether it failed: the other errors of a copy are of writing.
struct Noted<R> {
    inner: R,
    failed: bool,
}

impl<R: Read> Read for Noted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        self.failed |= read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        read
    }
}

/// A tar being written, and how far it is.
struct Archive<W: Write>(Writer<W>, Status);

impl<W: Write> Archive<W> {
    fn directory(&mut self, name: &str) -> Result<(), Error> {
        let entry = Entry { mode: 0o755, ..Entry::new(Kind::Directory, name) };
        self.0.entry(&entry).map_err(Error::Write)
    }

    fn text(&mut self, name: &str, content: &[u8]) -> Result<(), Error> {
        self.0.entry(&file(name, content.len() as u64)).map_err(Error::Write)?;
        self.0.data(content).map_err(Error::Write)
    }

    /// Writes a blob and checks it at the same time.
    fn blob(&mut self, layout: &Layout, name: &str, descriptor: &Descriptor) -> Result<(), Error> {
        let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
        self.content(name, layout.blob_reader(descriptor)?, digest, descriptor.size())
    }

    /// Writes content of a known size. The reader is read to its end, where it may check the content.
    fn content(&mut self, name: &str, mut reader: impl Read, digest: Digest, size: u64) -> Result<(), Error> {
        self.0.entry(&file(name, size)).map_err(Error::Write)?;
        let (mut buffer, mut left) = (vec![0; 256 << 10], size);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) if left == 0 => return Ok(()),
                Ok(0) => return Err(Error::Read(digest, io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    let rest = left.checked_sub(count as u64);
                    left =
                        rest.ok_or_else(|| Error::Read(digest.clone(), io::ErrorKind::InvalidData.into()))?;
                    self.0.data(&buffer[..count]).map_err(Error::Write)?;
                    self.1.add(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(digest, error)),
            }
        }
    }
}

fn file(name: &str, size: u64) -> Entry {
    Entry { mode: 0o644, size, stored: size, ..Entry::new(Kind::File, name) }
}
