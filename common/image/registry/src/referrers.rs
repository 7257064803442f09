//! Lists what refers to an image: signatures, SBOMs, attestations (OCI distribution-spec, "Listing
//! Referrers").

use oci::{
    Digest, Reference,
    layout::MAX_JSON,
    media_type::Kind,
    spec::{Descriptor, ImageIndex},
};

use serde::Deserialize;

use crate::{
    Client, Error,
    repository::{Access, Repository},
    tags::following,
    url::Url,
};

/// The maximum number of pages. Each has at most 4 MiB.
const MAX_PAGES: u32 = 32;

/// The images and artifacts whose `subject` is an image.
#[derive(Debug)]
pub struct Referrers {
    /// The digest of the image's manifest or index.
    pub subject: Digest,
    /// The descriptors that refer to the image.
    pub descriptors: Vec<Descriptor>,
}

impl Client {
    /// Lists what refers to an image. With `artifact_type`, only artifacts of that type are listed.
    ///
    /// # Errors
    /// When the registry has no such image, or sends something unusable.
    pub fn referrers(&self, reference: &Reference, artifact_type: Option<&str>) -> Result<Referrers, Error> {
        let repository = self.repository(reference, Access::Pull)?;
        let subject = match reference.digest() {
            Some(digest) => digest.clone(),
            None => {
                Digest::try_from(repository.manifest(&reference.target(), None, &())?.descriptor.digest())?
            }
        };
        let found = match by_interface(&repository, &subject, artifact_type)? {
            Some(found) => found,
            None => by_tag(&repository, &subject)?,
        };
        // The registry may have ignored the filter.
        let is_wanted = |descriptor: &Descriptor| {
            artifact_type.is_none_or(|wanted| {
                descriptor.artifact_type().as_ref().is_some_and(|own| own.to_string() == wanted)
            })
        };
        Ok(Referrers { subject, descriptors: found.into_iter().filter(is_wanted).collect() })
    }
}

/// Asks the registry for its list; None if the registry keeps none.
fn by_interface(
    repository: &Repository,
    subject: &Digest,
    artifact_type: Option<&str>,
) -> Result<Option<Vec<Descriptor>>, Error> {
    let url = repository.url(&format!("referrers/{subject}"))?;
    let mut next = Some(artifact_type.into_iter().fold(url, |url, wanted| url.with("artifactType", wanted)));
    let mut found = Vec::new();
    for _ in 0..MAX_PAGES {
        let Some(url) = next else { break };
        match page(repository, &url) {
            Ok((descriptors, following)) => {
                next = following.filter(|next| !descriptors.is_empty() && *next != url);
                found.extend(descriptors);
            }
            // distribution 2.x does not know this endpoint.
            Err(error) if found.is_empty() && (error.is_not_found() || error.is_unsupported()) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Some(found))
}

fn page(repository: &Repository, url: &Url) -> Result<(Vec<Descriptor>, Option<Url>), Error> {
    repository.patiently(&|_, _| {}, || {
        let answer = repository.expect("GET", url.clone(), &[], None, &[200])?;
        let (request, next) = (answer.request.clone(), following(&answer)?);
        let content = answer.read(MAX_JSON)?;
        let index = oci::json::document(&content, Kind::Index).and_then(ImageIndex::deserialize);
        let index =
            index.map_err(|error| Error::Answer { request, problem: format!("not an index: {error}") })?;
        Ok((index.manifests().clone(), next))
    })
}

/// Reads the index that clients maintain under a tag if the registry keeps no list ("Referrers Tag Schema").
fn by_tag(repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
    let manifest = match repository.manifest(&subject.to_string().replace(':', "-"), None, &()) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        manifest => manifest?,
    };
    let index: ImageIndex = manifest.read()?;
    Ok(index.manifests().clone())
}
