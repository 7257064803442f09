//! Directories → layers (OCI image-spec, layer.md, "Change Types" and "Representing Changes").
//!
//! The same tree gives the same bytes. Entries are sorted by name: a directory before its content, and its files before
//! its directories. Owners are numbers, and the compressed blob does not depend on the number of cores.

mod blob;
mod entries;
mod stubs;
mod trees;
mod upper;

use std::{
    collections::BTreeSet,
    io::{self, Write},
    os::fd::BorrowedFd,
    path::PathBuf,
};

use archive::Shown;
use oci::Digest;

use crate::compression::Compression;

pub use stubs::stubs;

/// How a layer is written.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How the blob is compressed.
    pub compression: Compression,
    /// The root directory of the file system below. If it is given and the upper's root differs in owner, mode or
    /// extended attributes, the layer has an entry `./` for that.
    pub below: Option<PathBuf>,
    /// Paths in an upper directory that are left out, as [`stubs`] finds them.
    pub without: BTreeSet<Vec<u8>>,
    /// Newer files get this time, in seconds since 1970 (reproducible-builds.org, "SOURCE_DATE_EPOCH").
    pub newest: Option<i64>,
    /// Everything gets this time instead of its own, in seconds since 1970.
    pub all: Option<i64>,
}

/// The result of writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Digest of the uncompressed archive (OCI image-spec, config.md, "Layer DiffID").
    pub diff_id: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Size of the uncompressed archive in bytes.
    pub uncompressed: u64,
    /// How many entries it has: 0 for a layer that changes nothing.
    pub entries: u64,
    /// The blob's media type.
    pub media_type: &'static str,
}

/// Why a layer could not be made of a directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of the kernel on something in the tree.
    #[error("{verb} {name}: {source}")]
    Tree {
        /// What was tried.
        verb: &'static str,
        /// Its path in the tree.
        name: Shown,
        /// Why it went wrong.
        source: io::Error,
    },
    /// Something in the tree that no layer can say, or not truly.
    #[error("{name}: {reason}")]
    Refused {
        /// Its path in the tree.
        name: Shown,
        /// What is in the way.
        reason: &'static str,
    },
    /// The blob could not be written.
    #[error("write layer: {0}")]
    Write(#[source] io::Error),
}

/// Writes an upper directory of overlayfs as a layer: character devices 0:0 as whiteouts, opaque directories with an
/// opaque whiteout.
///
/// # Errors
/// [`Error`]: among others where overlayfs left a redirect or a file without its data in the upper directory, which only
/// the layers below could explain, and for names that are whiteouts in a layer.
pub fn upper(upper: BorrowedFd, out: impl Write, options: &Options) -> Result<Summary, Error> {
    let mut entries = entries::Entries::new(blob::Blob::new(out, options.compression), options);
    upper::walk(upper, &mut entries, options)?;
    entries.finish().map_err(Error::Write)
}

/// Writes what must change in `lower` to make it `upper`: two plain directories, each a whole file system.
///
/// Files that agree in everything that `stat` tells, and are not one file, are compared byte by byte.
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
