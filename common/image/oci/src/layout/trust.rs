//! Which blobs can be used without reading them.
//!
//! A command that is cut off leaves blobs that no image names yet. After a power cut such a blob may have the
//! right size but not its content: ext4 shows zeros where a block was allocated and not written. So a blob is
//! trusted only if a listed image has it (the list reaches the disk after its blobs), or if this process
//! wrote it. Any other blob is read once before it is used again.

use std::{
    collections::BTreeSet,
    sync::{MutexGuard, PoisonError},
};

use oci_spec::image::Descriptor;

use super::{Error, Layout, index::entries};
use crate::{
    digest::{Digest, Mismatch},
    shape,
};

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Trust {
    blobs: BTreeSet<Digest>,
    /// The listed images that have not been examined yet, newest last. None before the list was read.
    rest: Option<Vec<Descriptor>>,
}

impl Layout {
    /// Whether the blob exists and matches its descriptor. Its content is read only if it is not trusted yet.
    ///
    /// # Errors
    /// When the system cannot tell, or the list of images cannot be read.
    pub fn has_sound_blob(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        Ok(self.has_blob(descriptor)? && self.unsound(&Digest::try_from(descriptor.digest())?)?.is_none())
    }

    /// What is wrong with the content of an existing blob; None if it is sound.
    pub(super) fn unsound(&self, digest: &Digest) -> Result<Option<Error>, Error> {
        if self.is_trusted(digest)? {
            return Ok(None);
        }
        match self.digest_of(digest)? {
            Some(found) if found == *digest => {
                self.trust(digest.clone());
                Ok(None)
            }
            Some(found) => {
                Ok(Some(Mismatch::Digest { expected: digest.clone(), found }.held_by(&self.holder).into()))
            }
            None => Ok(Some(Error::NoBlob(digest.clone()))),
        }
    }

    /// Notes that a blob matches its digest.
    pub(super) fn trust(&self, digest: Digest) {
        self.known().blobs.insert(digest);
    }

    /// Whether an existing blob can be used without reading it.
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

    /// The images that `index.json` lists. Takes no lock, so it also works during an [`super::Edit`].
    fn listed(&self) -> Result<Vec<Descriptor>, Error> {
        let index = self.open_index()?.index;
        Ok(entries(&index).iter().filter_map(|entry| shape::descriptor(entry).ok()).collect())
    }

    fn known(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
