//! How much a container has written, and how much its root file system holds.

use std::{fs::File, path::Path};

use document::{Document, members::Rootfs};
use toolkit::prelude::*;

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sizes {
    /// What the container has written.
    pub(crate) written: u64,
    /// That, and the layers of the image below. What a file of the container hides counts as well, as with Docker.
    pub(crate) whole: u64,
}

impl Sizes {
    /// The sizes of the container with this record; 0 for one without a root file system.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub(crate) fn of(record: &Document) -> Result<Self> {
        let Some(rootfs) = record.get::<Rootfs>()? else { return Ok(Self::default()) };
        let mut sizes = Self::default();
        for directory in rootfs.upper.iter().chain(&rootfs.levels) {
            sizes.written += size(directory)?;
        }
        sizes.whole = sizes.written;
        for directory in &rootfs.lower {
            sizes.whole += size(directory)?;
        }
        Ok(sizes)
    }

    /// In Docker's form: `12kB (virtual 4.2MB)`.
    pub(crate) fn text(written: u64, whole: u64) -> String {
        format!("{} (virtual {})", oci::summary::human_size(written), oci::summary::human_size(whole))
    }
}

fn size(directory: &Path) -> Result<u64> {
    let failed = || format!("count {directory:?}");
    let opened = File::open(directory).with_context(failed)?;
    mount::tree::size(&opened).with_context(failed)
}
