//! What a name refers to in a registry.

use oci::{
    Digest, Platform, Reference,
    image::choose_child,
    media_type::{Kind, kind},
    spec::{Descriptor, ImageIndex},
};

use crate::{
    Client, Error,
    manifest::Manifest,
    repository::{Access, Repository},
};

/// How deep indexes may lie in each other.
const MAX_NESTING: u32 = oci::image::MAX_NESTING;

impl Client {
    /// The manifest or index that a name refers to now; with `platform`, the image of an index for it. Mirrors are not asked.
    ///
    /// # Errors
    /// When the registry has no such image, or sends something else.
    pub fn named(&self, reference: &Reference, platform: Option<&Platform>) -> Result<Descriptor, Error> {
        let repository = self.source(reference, Access::Pull)?;
        let mut manifest = fetch(&repository, &target(reference), reference.digest())?;
        for _ in 0..MAX_NESTING {
            let (Some(_), Kind::Index) = (platform, kind(&manifest.descriptor)) else { break };
            let index: ImageIndex = oci::json::from_slice(&manifest.content).map_err(|error| {
                Error::Content { name: reference.to_string(), problem: error.to_string() }
            })?;
            let digest = Digest::try_from(choose_child(&index, &manifest.descriptor, platform)?.digest())?;
            manifest = fetch(&repository, &digest.to_string(), Some(&digest))?;
        }
        Ok(manifest.descriptor)
    }

    /// The repository of a name at the registry itself, or at the place that registries.conf gives for it.
    pub(crate) fn source(&self, reference: &Reference, access: Access) -> Result<Repository, Error> {
        match (access, self.places(reference)?.pop()) {
            (Access::Pull, Some(place)) => self.open(&place, access),
            _ => self.open(&crate::places::to_push(reference)?, access),
        }
    }
}

/// The digest of a name, or else its tag.
pub(crate) fn target(reference: &Reference) -> String {
    let digest = reference.digest().map(Digest::to_string);
    digest.or(reference.tag().map(str::to_owned)).unwrap_or_default()
}

fn fetch(repository: &Repository, target: &str, digest: Option<&Digest>) -> Result<Manifest, Error> {
    repository.manifest(target, digest, &())
}
