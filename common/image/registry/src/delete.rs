//! Taking images out of a registry (OCI distribution-spec, "Content Management").

use oci::{Digest, Reference};

use crate::{Client, Error, repository::Access};

/// What was taken out of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// The name alone.
    Tag(String),
    /// The manifest, and so all names that it had.
    Manifest(Digest),
}

impl Client {
    /// Takes out a name; where the registry can only take out whole manifests, fails and says so. A name with a digest takes out
    /// the manifest with all its names.
    ///
    /// # Errors
    /// When the registry has no such image, or does not let us.
    pub fn delete(&self, reference: &Reference) -> Result<Deleted, Error> {
        let repository = self.repository(reference, Access::Delete)?;
        let url = repository.url(&format!("manifests/{}", reference.target()))?;
        let answer = repository
            .patiently(&|_, _| {}, || repository.expect("DELETE", url.clone(), &[], None, &[200, 202, 204]));
        match (answer, reference.digest()) {
            (Ok(_), Some(digest)) => Ok(Deleted::Manifest(digest.clone())),
            (Ok(_), None) => Ok(Deleted::Tag(reference.to_string())),
            // "The request was not supported": distribution 2.x knows manifests by digest alone here.
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
