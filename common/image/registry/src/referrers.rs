//! Lists what refers to an image: signatures, SBOMs, attestations (OCI distribution-spec, "Listing
//! Referrers").

use std::collections::HashMap;

use oci::{
    Digest, Reference,
    layout::{self, MAX_JSON, REF_NAME},
    media_type::{Kind, kind},
    spec::{Descriptor, ImageIndex, MediaType},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Client, Error,
    progress::Progress,
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
        let manifest = match repository.manifest(&reference.target(), reference.digest(), &()) {
            // Referrers may be there before the image.
            Err(error) if reference.digest().is_some() && error.is_not_found() => None,
            manifest => Some(manifest?),
        };
        let subject = match (reference.digest(), &manifest) {
            (None, Some(manifest)) => Digest::try_from(manifest.descriptor.digest())?,
            (Some(digest), _) => digest.clone(),
            (None, None) => return Err(Error::GivenUp),
        };
        let mut found = match by_interface(&repository, &subject, artifact_type)? {
            Some(found) => found,
            None => by_tag(&repository, &subject)?,
        };
        found.extend(of_cosign(&repository, &subject)?);
        if let Some(manifest) = manifest.filter(|manifest| kind(&manifest.descriptor) == Kind::Index) {
            let index: ImageIndex = manifest.read()?;
            found.extend(index.manifests().iter().filter(|entry| is_attestation(entry)).cloned());
        }
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
    let manifest = match repository.manifest(&tag_of(subject), None, &()) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        manifest => manifest?,
    };
    let index: ImageIndex = manifest.read()?;
    Ok(index.manifests().clone())
}

/// The tag of the list of referrers: the algorithm, and at most 64 digits.
fn tag_of(subject: &Digest) -> String {
    let hex = subject.hex();
    format!("{}-{}", subject.algorithm().as_str(), &hex[..hex.len().min(64)])
}

/// What cosign keeps beside an image: a tag for each kind, and the type that its referrers have.
const COSIGN: [(&str, &str); 3] = [
    ("sig", "application/vnd.dev.cosign.artifact.sig.v1+json"),
    ("att", "application/vnd.dev.cosign.artifact.att.v1+json"),
    ("sbom", "application/vnd.dev.cosign.artifact.sbom.v1+json"),
];

/// The tag at which cosign keeps the signatures of an image.
pub(crate) fn cosign_tag(subject: &Digest, kind: &str) -> String {
    format!("{}.{kind}", subject.to_string().replace(':', "-"))
}

/// What cosign keeps of an image by its tags. Each descriptor is annotated with the tag.
fn of_cosign(repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
    let mut found = Vec::new();
    for (kind, artifact_type) in COSIGN {
        let tag = cosign_tag(subject, kind);
        let manifest = match repository.manifest(&tag, None, &()) {
            Err(error) if error.is_not_found() => continue,
            manifest => manifest?,
        };
        let mut descriptor = manifest.descriptor;
        descriptor.set_artifact_type(Some(MediaType::from(artifact_type)));
        descriptor.set_annotations(Some(HashMap::from([(REF_NAME.to_owned(), tag)])));
        found.push(descriptor);
    }
    Ok(found)
}

/// Whether an entry of an index is an attestation of BuildKit's about another entry.
fn is_attestation(entry: &Descriptor) -> bool {
    let annotations = entry.annotations().as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key("vnd.docker.reference.digest"))
}

/// The subject of a manifest, and the entry for the list of its referrers. None if the manifest has no subject.
pub(crate) fn referrer(descriptor: &Descriptor, content: &[u8]) -> Option<(Digest, Descriptor)> {
    let manifest = oci::json::document(content, kind(descriptor)).ok()?;
    let subject = manifest["subject"]["digest"].as_str()?.parse().ok()?;
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(MediaType::from);
    let mut entry =
        Descriptor::new(descriptor.media_type().clone(), descriptor.size(), descriptor.digest().clone());
    entry.set_artifact_type(text(&manifest["artifactType"]).or(text(&manifest["config"]["mediaType"])));
    entry.set_annotations(serde_json::from_value(manifest["annotations"].clone()).ok());
    Some((subject, entry))
}

/// Adds an entry to the list of referrers that clients keep under a tag.
pub(crate) fn list_under_tag(
    repository: &Repository,
    subject: &Digest,
    entry: Descriptor,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut listed = by_tag(repository, subject)?;
    if listed.iter().any(|other| other.digest() == entry.digest()) {
        return Ok(());
    }
    listed.push(entry);
    let index = json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": listed});
    let content = oci::json::to_vec(&index).map_err(layout::Error::Json)?;
    let descriptor = Descriptor::new(MediaType::ImageIndex, content.len() as u64, Digest::of(&content));
    repository.put_manifest(&tag_of(subject), &descriptor, &content, progress).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_lists() {
        let (short, long) = (Digest::of(b""), Digest::by(oci::digest::Algorithm::Sha512, b""));
        assert_eq!(tag_of(&short), short.to_string().replace(':', "-"));
        assert_eq!(tag_of(&long), format!("sha512-{}", &long.hex()[..64]));
    }
}
