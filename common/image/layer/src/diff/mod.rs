//! Writes directories as layers (OCI image-spec, layer.md, "Change Types" and "Representing Changes").
//!
//! The same tree always gives the same bytes. Entries are sorted by name. A directory comes before its
//! content, and its files before its subdirectories. Owners are numbers. The compressed blob does not depend
//! on the number of cores.

mod below;
mod blob;
mod entries;
mod states;
mod stubs;
mod trees;
mod upper;

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    os::fd::BorrowedFd,
    path::PathBuf,
};

use archive::Shown;
use oci::Digest;

use crate::compression::Compression;

pub use below::has;
pub use states::{Change, Side, State, states};
pub use stubs::stubs;

/// How to write a layer.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The compression of the blob.
    pub compression: Compression,
    /// The directories below, lowest first. If the upper's root differs from that of the highest in owner, mode or extended
    /// attributes, the layer has an entry `./` for that. Of several upper directories, what they have deleted is told only if it is
    /// here.
    pub lower: Vec<PathBuf>,
    /// Paths in an upper directory that are left out, as [`stubs`] finds them.
    pub without: BTreeSet<Vec<u8>>,
    /// The latest time of an entry, in seconds since 1970. Later times are replaced with it
    /// (reproducible-builds.org, "SOURCE_DATE_EPOCH").
    pub newest: Option<i64>,
    /// The time of all entries, in seconds since 1970, instead of their own times.
    pub all: Option<i64>,
}

/// Facts about a written layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The digest of the uncompressed archive (OCI image-spec, config.md, "Layer DiffID").
    pub diff_id: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The size of the uncompressed archive in bytes.
    pub uncompressed: u64,
    /// The number of entries; 0 for a layer that changes nothing.
    pub entries: u64,
    /// The blob's media type.
    pub media_type: &'static str,
}

/// Why a directory could not be written as a layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed on something in the tree.
    #[error("{verb} {name}: {source}")]
    Tree {
        /// What was attempted.
        verb: &'static str,
        /// The path in the tree.
        name: Shown,
        /// The cause.
        source: io::Error,
    },
    /// A layer cannot represent something in the tree.
    #[error("{name}: {reason}")]
    Refused {
        /// The path in the tree.
        name: Shown,
        /// The reason.
        reason: &'static str,
    },
    /// The blob could not be written.
    #[error("write layer: {0}")]
    Write(#[source] io::Error),
}

/// Writes an upper directory of overlayfs as a layer. Character devices 0:0 become whiteouts. Opaque
/// directories get an opaque whiteout.
///
/// # Errors
/// [`Error`]. Also when the upper directory has a redirect or a file without its data, which make sense only
/// with the layers below, or a name that would be a whiteout in a layer.
pub fn upper(upper: BorrowedFd, out: impl Write, options: &Options) -> Result<Summary, Error> {
    uppers(&[upper], out, options)
}

/// Writes upper directories that lie upon each other, lowest first, as one layer: as if everything had been written to one.
///
/// # Errors
/// As [`upper`].
pub fn uppers(uppers: &[BorrowedFd], out: impl Write, options: &Options) -> Result<Summary, Error> {
    let mut entries = entries::Entries::new(blob::Blob::new(out, options.compression), options);
    upper::walk(uppers, &mut entries, options)?;
    entries.finish().map_err(Error::Write)
}

/// Writes the changes that turn `lower` into `upper`. Both are plain directories, each with a whole file
/// system.
///
/// Two different files with equal `stat` results are compared byte by byte.
///
/// # Errors
/// [`Error`].
pub fn trees(
    lower: BorrowedFd,
    upper: BorrowedFd,
    out: impl Write,
    options: &Options,
) -> Result<Summary, Error> {
    let mut entries = entries::Entries::new(blob::Blob::new(out, options.compression), options);
    trees::walk(lower, upper, &mut entries)?;
    entries.finish().map_err(Error::Write)
}

/// Writes an archive as a layer, compressed. The archive itself stays as it is, and so does its DiffID.
/// `entries` of the result is 0: they are not counted.
///
/// # Errors
/// [`Error::Write`], also when the archive cannot be read.
pub fn archive(archive: &mut impl Read, out: impl Write, compression: Compression) -> Result<Summary, Error> {
    let mut blob = blob::Blob::new(out, compression);
    io::copy(archive, &mut blob).map_err(Error::Write)?;
    let finished = blob.finish().map_err(Error::Write)?;
    Ok(Summary {
        diff_id: finished.diff_id,
        size: finished.size,
        uncompressed: finished.uncompressed,
        entries: 0,
        media_type: finished.media_type,
    })
}
