//! A layer's blob → a directory, or an EROFS image, in overlayfs's own form (OCI image-spec, layer.md, "Applying
//! Changesets"). What the entries mean is said once, in terms of a [`form::Form`].
//!
//! Names in a layer are hostile input. Every call works on an open directory and one name in it; a longer path is opened
//! below the layer's root only, by `openat2`, with symbolic links refused. While a layer is unpacked, all its directories
//! belong to us and admit nobody else; they get their owners, modes, attributes and times at the end.
//!
//! A symbolic link among the *parents* of an entry is followed as in the file system that the layer lands on, inside it:
//! `lib/x` goes to `usr/lib/x` where a layer below has `lib -> usr/lib`, as when the layers are unpacked one over the other.

mod acl;
mod below;
mod dependency;
mod directory;
mod entries;
mod error;
mod finish;
mod form;
mod image;
mod links;
mod name;
mod tree;

use std::{io::Read, os::fd::OwnedFd};

pub use archive::Limits;
use archive::{Kind, Reader};
use oci::digest::{Algorithm, Digest};
use userns::Namespace;

pub use below::Below;
pub(crate) use below::{Root, open_root};
pub use dependency::Dependency;
pub use error::{EntryError, Error};

use crate::{pipeline, store::Format};

/// How a layer is unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What it may ask: the directories that its entries imply count as entries, and what is copied from the layers below
    /// as size.
    pub limits: Limits,
    /// Whether it may hold device nodes.
    pub devices: bool,
    /// The user namespace that it is unpacked in and for; none for the machine's first one. overlayfs reads attributes
    /// `user.overlay.*` in any other.
    pub namespace: Option<Namespace>,
    /// In a user namespace that cannot hold what the layer says: come as near as can be, instead of refusing it. Owners
    /// without a mapping become the caller, device nodes empty files; set-id bits of such owners go, and so do extended
    /// attributes that the kernel refuses.
    pub rootless: bool,
    /// What the store makes of it.
    pub format: Format,
    /// The hash of the layer's DiffID.
    pub algorithm: Algorithm,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            devices: true,
            namespace: None,
            rootless: false,
            format: Format::Directory,
            algorithm: Algorithm::Sha256,
        }
    }
}

/// Entries between two looks for a signal.
const BETWEEN: u64 = 256;

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Size of the uncompressed archive in bytes.
    pub uncompressed: u64,
    /// Number of entries.
    pub entries: u64,
    /// Extended attributes that were left out, because they would speak to overlayfs or to this machine's policy, or are
    /// another system's.
    pub left_out: u64,
    /// Where in the archive data stands behind its end.
    pub trailing: Option<u64>,
    /// How many entries are not as the layer says ([`Options::rootless`]).
    pub approximated: u64,
    /// What was taken from the layers below: with others below, the directory would be another.
    pub dependencies: Vec<Dependency>,
}

/// What a layer is unpacked to.
#[derive(Debug)]
pub enum Target {
    /// An empty directory.
    Directory(OwnedFd),
    /// An empty file, open for writing, which becomes an EROFS image; and the layer's DiffID, which gives that its UUID.
    Image(OwnedFd, Digest),
}

/// Unpacks `blob` to `target`.
///
/// `blob` is read to its end; a reader that verifies its digest says so there. Nothing is synced to disk.
///
/// # Errors
/// [`Error`]; what was unpacked so far is left in `target`.
pub fn unpack(
    blob: impl Read + Send,
    target: Target,
    below: &Below,
    options: &Options,
) -> Result<Unpacked, Error> {
    match target {
        Target::Directory(root) => {
            let form = directory::Directory::new(root, options).map_err(Error::entry(b"."))?;
            unpack_to(blob, form, below, options)
        }
        Target::Image(file, diff_id) => unpack_to(blob, image::Image::new(file, diff_id), below, options),
    }
}

fn unpack_to(
    blob: impl Read + Send,
    form: impl form::Form,
    below: &Below,
    options: &Options,
) -> Result<Unpacked, Error> {
    let outcome = pipeline::run(blob, options.algorithm, options.limits, |archive| {
        let mut reader = Reader::new(archive);
        let mut unpacking = entries::Unpacking::new(form, below, options);
        let (mut count, mut size) = (0, 0_u64);
        while let Some(entry) = reader.next()? {
            count += 1;
            if count % BETWEEN == 0 {
                operation::interrupt::checked().map_err(Error::Interrupted)?;
            }
            size = size.saturating_add(entry.size);
            options.limits.hold_entries(count, size).map_err(pipeline::Error::Exceeded)?;
            if !options.devices && matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
                return Err(Error::entry(&entry.path)(EntryError::Device));
            }
            unpacking.entry(&entry, &mut reader)?;
            unpacking.within(&options.limits, count, size)?;
        }
        Ok((count, reader.trailing(), unpacking.finish()?))
    })?;
    let ((entries, trailing, finish::Finished { left_out, approximated, dependencies }), totals) = outcome;
    Ok(Unpacked {
        diff_id: totals.diff_id,
        size: totals.size,
        uncompressed: totals.uncompressed,
        entries,
        left_out,
        trailing,
        approximated,
        dependencies,
    })
}
