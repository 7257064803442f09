//! Images as one file: OCI archives and docker archives. The same images give the same bytes.

mod docker;
mod oci;

use std::io::{self, Read, Write};

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
    Write(io::Error),
    /// A blob cannot be read.
    #[error("read blob {0}: {1}")]
    Read(Digest, io::Error),
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
    let mut archive = Archive(tar::Builder::new(io::BufWriter::with_capacity(256 << 10, target)));
    match format {
        Format::Oci => oci::save(layout, images, platform, &mut archive)?,
        Format::Docker => docker::save(layout, images, platform, &mut archive)?,
    }
    archive.0.into_inner().and_then(|mut target| target.flush()).map_err(Error::Write)
}

/// A tar in the making.
struct Archive<W: Write>(tar::Builder<W>);

impl<W: Write> Archive<W> {
    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    }

    fn directory(&mut self, name: &str) -> Result<(), Error> {
        let mut header = Self::header(tar::EntryType::Directory, 0o755, 0);
        self.0.append_data(&mut header, name, io::empty()).map_err(Error::Write)
    }

    fn text(&mut self, name: &str, content: &[u8]) -> Result<(), Error> {
        let mut header = Self::header(tar::EntryType::Regular, 0o644, content.len() as u64);
        self.0.append_data(&mut header, name, content).map_err(Error::Write)
    }

    /// A blob, checked while it is written.
    fn blob(&mut self, layout: &Layout, name: &str, descriptor: &Descriptor) -> Result<(), Error> {
        let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
        self.content(name, layout.blob_reader(descriptor)?, digest, descriptor.size())
    }

    /// Content of a known size. An error of its reader, which includes that it is not what it must be, is told apart
    /// from one of the archive's.
    fn content(&mut self, name: &str, reader: impl Read, digest: Digest, size: u64) -> Result<(), Error> {
        let mut header = Self::header(tar::EntryType::Regular, 0o644, size);
        let mut source = Remembering { reader, error: None };
        let written = self.0.append_data(&mut header, name, &mut source);
        match (source.error, written) {
            (Some(error), _) => Err(Error::Read(digest, error)),
            (None, written) => written.map_err(Error::Write),
        }
    }
}

/// Keeps the error that its reader gave.
struct Remembering<R> {
    reader: R,
    error: Option<io::Error>,
}

impl<R: Read> Read for Remembering<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            kind => {
                self.error = Some(error);
                kind.into()
            }
        })
    }
}
