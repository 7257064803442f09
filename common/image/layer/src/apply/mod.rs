//! A layer's blob → a directory, or an EROFS image, in overlayfs's form (OCI image-spec, layer.md, "Applying
//! Changesets"). The meaning of the entries is defined once, in terms of a `form::Form`.
//!
//! Names in a layer are hostile input. Every call works on an open directory and one name in it. A longer path is only
//! opened below the layer's root, with `openat2`, which refuses symbolic links. While a layer is unpacked, all its
//! directories belong to us and nobody else can enter. They get their owners, modes, attributes and times at the end.
//!
//! A symbolic link among the *parents* of an entry is resolved as in the file system of this layer and those below,
//! inside it: `lib/x` goes to `usr/lib/x` if a lower layer has `lib -> usr/lib`, as when the layers are unpacked on top
//! of each other.

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
    /// The limits. Directories that entries imply count as entries, and copies from lower layers count as size.
    pub limits: Limits,
    /// Whether it may contain device nodes.
    pub devices: bool,
    /// The user namespace that it is unpacked in and for; none for the machine's first one. In any other, overlayfs
    /// reads attributes `user.overlay.*`.
    pub namespace: Option<Namespace>,
    /// In a user namespace that cannot represent the layer: come as close as possible, instead of refusing it. Files of
    /// owners without a mapping get the caller's, and device nodes become empty files. Set-id bits of such owners are
    /// removed, and so are extended attributes that the kernel refuses.
    pub rootless: bool,
    /// The form in the store.
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

/// The result of unpacking.
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
    /// Extended attributes that were left out because they belong to overlayfs, to this machine's policy, or to another
    /// system.
    pub left_out: u64,
    /// The position of data after the archive's end.
    pub trailing: Option<u64>,
    /// How many entries differ from the layer ([`Options::rootless`]).
    pub approximated: u64,
    /// What was taken from lower layers. With other ones below, the directory would differ.
    pub dependencies: Vec<Dependency>,
}

/// The target of unpacking.
#[derive(Debug)]
pub enum Target {
    /// An empty directory.
    Directory(OwnedFd),
    /// An empty file, open for writing, which becomes an EROFS image; and the layer's DiffID, from which its UUID is
    /// made.
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
