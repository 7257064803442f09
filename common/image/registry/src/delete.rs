//! Removes images from a registry (OCI distribution-spec, "Content Management").

use oci::{Digest, Reference};

use crate::{Client, Error, repository::Access};

/// What was removed from a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// Only the name.
    Tag(String),
    /// The manifest, and with it all its names.
    Manifest(Digest),
}

impl Client {
    /// Removes a name from the registry. If the name has a digest, the manifest is removed with all its
    /// names.
    ///
    /// # Errors
    /// When the registry has no such image, or does not allow the removal. [`Error::NoUntag`] when it can
    /// only remove whole manifests.
    pub fn delete(&self, reference: &Reference) -> Result<Deleted, Error> {
        let repository = self.repository(reference, Access::Delete)?;
        let url = repository.url(&format!("manifests/{}", reference.target()))?;
        let answer = repository
            .patiently(&|_, _| {}, || repository.expect("DELETE", url.clone(), &[], None, &[200, 202, 204]));
        match (answer, reference.digest()) {
            (Ok(_), Some(digest)) => Ok(Deleted::Manifest(digest.clone())),
            (Ok(_), None) => Ok(Deleted::Tag(reference.to_string())),
            // "The request was not supported": distribution 2.x can only delete a manifest by its digest.
            (Err(error), None) if error.is_unsupported() => {
                let digest = repository.digest_of(&reference.target())?;
                let name = reference.to_string();
                let digest = digest.map(|digest| format!("{}@{digest}", reference.name()));
                Err(Error::NoUntag { name, digest })
            }
            (Err(error), _) => Err(error),
        }
    }
}
