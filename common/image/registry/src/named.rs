//! Finds out what a name refers to in a registry.

use oci::{
    Digest, Platform, Reference,
    image::{MAX_NESTING, choose_child},
    media_type::{Kind, kind},
    spec::Descriptor,
};

use crate::{
    Client, Error,
    manifest::Manifest,
    places,
    progress::Progress,
    repository::{Access, Repository},
};

impl Client {
    /// The manifest or index that a name refers to now. With `platform`, the image for it is selected from an
    /// index. Mirrors are not used. Without `platform`, the registry is believed if it tells the digest without sending
    /// the manifest.
    ///
    /// # Errors
    /// When the registry has no such image, or sends something unusable.
    pub fn named(&self, reference: &Reference, platform: Option<&Platform>) -> Result<Descriptor, Error> {
        let repository = self.repository(reference, Access::Pull)?;
        // Docker's registry counts a manifest that it sends as a pull. If this fails, the full request tells why.
        if platform.is_none()
            && let Ok(Some(found)) = repository.look_up(&reference.target())
            && reference.digest().is_none_or(|digest| found.digest().as_ref() == digest.to_string())
        {
            return Ok(found);
        }
        Ok(repository.named(reference, platform, &())?.descriptor)
    }

    /// The repository of a name at its registry. For a pull, registries.conf may redirect it.
    pub(crate) fn repository(&self, reference: &Reference, access: Access) -> Result<Repository, Error> {
        match (access, self.places(reference)?.pop()) {
            (Access::Pull, Some(place)) => self.open(&place, access),
            _ => self.open(&places::to_push(reference)?, access),
        }
    }
}

impl Repository {
    /// What a name refers to, or with `platform` the image for that platform.
    pub(crate) fn named(
        &self,
        name: &Reference,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<Manifest, Error> {
        let mut manifest = self.manifest(&name.target(), name.digest(), progress)?;
        for _ in 0..MAX_NESTING {
            let (Some(_), Kind::Index) = (platform, kind(&manifest.descriptor)) else { break };
            let child = choose_child(&manifest.read()?, &manifest.descriptor, platform)?.clone();
            manifest = self.described(&child, progress)?;
        }
        Ok(manifest)
    }

    /// Downloads the manifest or index of a descriptor.
    pub(crate) fn described(
        &self,
        descriptor: &Descriptor,
        progress: &dyn Progress,
    ) -> Result<Manifest, Error> {
        let digest = Digest::try_from(descriptor.digest())?;
        self.manifest(&digest.to_string(), Some(&digest), progress)
    }
}
