//! Which blobs can be relied on without being read.
//!
//! A command that is cut off leaves blobs that nobody has named yet, and after a power cut one of them may have its size but not
//! its content: ext4 shows zeros where a block was allocated and not written. So a blob counts as it stands only where an
//! image has it that is listed (the list reaches the disk after its blobs), or this process has written it. Any other is
//! read once before it is used again.

use std::{
    collections::BTreeSet,
    sync::{MutexGuard, PoisonError},
};

use oci_spec::image::Descriptor;
use serde::Deserialize;

use super::{Error, Layout, index::entries};
use crate::digest::{Digest, Mismatch};

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Trust {
    blobs: BTreeSet<Digest>,
    /// The listed images that were not looked into yet, the newest last. None before the list was read.
    rest: Option<Vec<Descriptor>>,
}

impl Layout {
    /// Whether the blob is there, and is what its descriptor says. Its content is read only where it is not known to be right.
    ///
    /// # Errors
    /// When the system cannot tell, or the list of images cannot be read.
    pub fn has_sound_blob(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        Ok(self.has_blob(descriptor)? && self.unsound(&Digest::try_from(descriptor.digest())?)?.is_none())
    }

    /// What is wrong with the content of a blob that is there.
    pub(super) fn unsound(&self, digest: &Digest) -> Result<Option<Error>, Error> {
        if self.is_trusted(digest)? {
            return Ok(None);
        }
        match self.digest_of(digest)? {
            Some(found) if found == *digest => {
                self.trust(digest.clone());
                Ok(None)
            }
            Some(found) => Ok(Some(Mismatch::Digest { expected: digest.clone(), found }.in_store().into())),
            None => Ok(Some(Error::NoBlob(digest.clone()))),
        }
    }

    /// Notes that a blob is what its digest says.
    pub(super) fn trust(&self, digest: Digest) {
        self.known().blobs.insert(digest);
    }

    /// Whether nothing can have happened to a blob that is there.
    pub(super) fn is_trusted(&self, digest: &Digest) -> Result<bool, Error> {
        let mut known = self.known();
        let Trust { blobs, rest } = &mut *known;
        loop {
            if blobs.contains(digest) {
                return Ok(true);
            }
            let rest = match rest {
                Some(rest) => rest,
                None => rest.insert(self.listed()?),
            };
            let Some(image) = rest.pop() else { return Ok(false) };
            self.reach(&image, 0, blobs);
        }
    }

    /// What the list names as it stands; whoever changes it may ask.
    fn listed(&self) -> Result<Vec<Descriptor>, Error> {
        let index = self.open_index()?.index;
        Ok(entries(&index).iter().filter_map(|entry| Descriptor::deserialize(entry).ok()).collect())
    }

    fn known(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
