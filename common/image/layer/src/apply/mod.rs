//! Unpacks a layer's blob into a directory or an EROFS image, in overlayfs's form (OCI image-spec, layer.md,
//! "Applying Changesets"). The meaning of the entries is implemented once, on top of the trait `form::Form`.
//!
//! Names in a layer are untrusted. Every call works on an open directory and one name in it. A longer path is
//! only opened below the layer's root, with `openat2`, which rejects symbolic links. While a layer is
//! unpacked, all its directories belong to us and nobody else can enter them. They get their owners, modes,
//! attributes and times at the end.
//!
//! A symbolic link among the *parents* of an entry is resolved inside the file system of this layer and those
//! below. `lib/x` goes to `usr/lib/x` if a lower layer has `lib -> usr/lib`, just as if the layers were
//! unpacked on top of each other.

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

/// How to unpack a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The limits. Implied directories count as entries, and copies from lower layers count as size.
    pub limits: Limits,
    /// Whether the layer may contain device nodes.
    pub devices: bool,
    /// The user namespace to unpack in and for; None for the machine's first one. In any other, overlayfs
    /// uses attributes `user.overlay.*`.
    pub namespace: Option<Namespace>,
    /// Whether to approximate a layer that the user namespace cannot represent, instead of rejecting it.
    /// Files whose owner has no mapping get the caller as owner and lose their set-id bits. Device nodes
    /// become empty files. Extended attributes that the kernel rejects are left out.
    pub rootless: bool,
    /// The form in the store.
    pub format: Format,
    /// The hash algorithm of the layer's DiffID.
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

/// How many entries are unpacked between two checks for signals.
const BETWEEN: u64 = 256;

/// Facts about an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The size of the uncompressed archive in bytes.
    pub uncompressed: u64,
    /// The number of entries.
    pub entries: u64,
    /// What was left out.
    pub left_out: LeftOut,
    /// The offset of data after the archive's end; None if there is none.
    pub trailing: Option<u64>,
    /// The number of entries that differ from the layer ([`Options::rootless`]).
    pub approximated: u64,
    /// What was taken from lower layers. On top of other layers, the result would differ.
    pub dependencies: Vec<Dependency>,
}

/// What a layer has that its unpacked form does not show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The number of extended attributes that belong to overlayfs, to the policy or the file system of a
    /// machine, or to another operating system.
    pub attributes: u64,
    /// The number of whiteouts that are not empty files. They delete what they name all the same.
    pub whiteouts: u64,
    /// The number of entries below the name of a whiteout. An unpacked layer cannot have such a name.
    pub entries: u64,
}

/// Where to unpack a layer.
#[derive(Debug)]
pub enum Target {
    /// An empty directory.
    Directory(OwnedFd),
    /// An empty file, open for writing, that becomes an EROFS image; and the layer's DiffID, from which the
    /// image's UUID is computed.
    Image(OwnedFd, Digest),
}

/// Unpacks `blob` to `target`.
///
/// `blob` is read to its end, so a reader that verifies the digest can report a mismatch there. Nothing is
/// synced to the disk.
///
/// # Errors
/// [`Error`]; the part unpacked so far stays in `target`.
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
