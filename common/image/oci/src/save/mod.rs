//! Images as one file: OCI archives and docker archives. The same images give the same bytes.

mod docker;
mod oci;

use std::io::{self, Read, Write};

use archive::{Entry, Kind, Writer};
use oci_spec::image::Descriptor;

use crate::{
    digest::Digest,
    layout::{self, Layout},
    platform::Platform,
    reference::Reference,
};

/// What went wrong while an archive was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive cannot be written.
    #[error("write the archive: {0}")]
    Write(#[source] io::Error),
    /// A blob cannot be read.
    #[error("read blob {0}: {1}")]
    Read(Digest, #[source] io::Error),
    /// A layer's content is not what the configuration says.
    #[error("layer {digest} has DiffID {found}, the configuration says {expected}")]
    DiffId {
        /// The layer's blob.
        digest: Digest,
        /// What the configuration says.
        expected: Digest,
        /// What it has.
        found: Digest,
    },
    /// The store.
    #[error(transparent)]
    Layout(#[from] layout::Error),
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OCI image-spec, image-layout.md, in a tar. Blobs as they are; of an index, all platforms.
    Oci,
    /// As `docker save` wrote it before version 25, which every `docker load` reads.
    Docker,
}

/// An image to be saved, with the names that it has in the archive.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its names.
    pub references: Vec<Reference>,
    /// Its manifest or index.
    pub descriptor: Descriptor,
}

/// Writes an archive of images. Of indexes only the image for `platform` is taken, if one is given.
///
/// # Errors
/// When an image is not whole, or the archive cannot be written.
pub fn save(
    layout: &Layout,
    images: &[Named],
    format: Format,
    platform: Option<&Platform>,
    target: impl Write,
) -> Result<(), Error> {
    let mut archive = Archive(Writer::new(io::BufWriter::with_capacity(256 << 10, target)));
    match format {
        Format::Oci => oci::save(layout, images, platform, &mut archive)?,
        Format::Docker => docker::save(layout, images, platform, &mut archive)?,
    }
    archive.0.finish().and_then(|mut target| target.flush()).map_err(Error::Write)
}

/// Copies an image into another layout, where it gets no name; of an index, the images that the layout has.
///
/// # Errors
/// When the image is not whole, or the other layout cannot be written.
pub fn copy(layout: &Layout, image: &Descriptor, target: &Layout) -> Result<(), Error> {
    for (digest, descriptor) in oci::blobs(layout, image)? {
        if target.has_sound_blob(&descriptor)? {
            target.touch_blob(&digest);
            continue;
        }
        let mut writer = target.writer_of(&descriptor)?;
        let copied = writer.copy_from(&mut layout.blob_reader(&descriptor)?);
        copied.map_err(|error| Error::Read(digest, error))?;
        writer.commit()?;
    }
    Ok(())
}

/// A tar in the making.
struct Archive<W: Write>(Writer<W>);

impl<W: Write> Archive<W> {
    fn directory(&mut self, name: &str) -> Result<(), Error> {
        let entry = Entry { mode: 0o755, ..Entry::new(Kind::Directory, name) };
        self.0.entry(&entry).map_err(Error::Write)
    }

    fn text(&mut self, name: &str, content: &[u8]) -> Result<(), Error> {
        self.0.entry(&file(name, content.len() as u64)).map_err(Error::Write)?;
        self.0.data(content).map_err(Error::Write)
    }

    /// A blob, checked while it is written.
    fn blob(&mut self, layout: &Layout, name: &str, descriptor: &Descriptor) -> Result<(), Error> {
        let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
        self.content(name, layout.blob_reader(descriptor)?, digest, descriptor.size())
    }

    /// Content of a known size, read to its end: a reader that checks it does so there.
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
