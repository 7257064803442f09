//! Downloads and uploads manifests and indexes.

use oci::{
    Digest,
    digest::Mismatch,
    layout::MAX_JSON,
    media_type::{DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, Kind, kind, kind_of},
    spec::{Descriptor, MediaType},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::header;

use crate::{Error, http::Answer, progress::Progress, repository::Repository};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DIGEST: &str = "docker-content-digest";

/// A manifest or an index, as the exact bytes that its digest covers.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) descriptor: Descriptor,
    pub(crate) content: Vec<u8>,
}

impl Manifest {
    /// Parses the content as JSON.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let value = oci::json::document(&self.content, kind(&self.descriptor));
        value.and_then(T::deserialize).map_err(|error| Error::Content {
            name: self.descriptor.digest().to_string(),
            problem: error.to_string(),
        })
    }
}

impl Repository {
    /// The manifest or index for a tag or digest. If `expected` is given, the content must match it.
    pub(crate) fn manifest(
        &self,
        target: &str,
        expected: Option<&Digest>,
        progress: &dyn Progress,
    ) -> Result<Manifest, Error> {
        let tell = |error: &Error, pause: std::time::Duration| {
            progress.note(&format!("{error}: trying again in {} s", pause.as_secs_f64()));
        };
        self.patiently(&tell, || {
            let url = self.url(&format!("manifests/{target}"))?;
            let answer = self.expect("GET", url, &accept(), None, &[200])?;
            read(answer, expected)
        })
    }

    /// The digest that a tag refers to, if the registry tells it. The digest is not checked.
    pub(crate) fn digest_of(&self, tag: &str) -> Result<Option<Digest>, Error> {
        let answer = self.expect("HEAD", self.url(&format!("manifests/{tag}"))?, &accept(), None, &[200])?;
        Ok(answer.header(DIGEST).and_then(|digest| digest.parse().ok()))
    }

    /// Stores a manifest under a tag or its digest. For a tag, the registry may compute the digest by another
    /// algorithm than the descriptor's.
    pub(crate) fn put_manifest(
        &self,
        target: &str,
        descriptor: &Descriptor,
        content: &[u8],
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let tell = |error: &Error, pause: std::time::Duration| {
            progress.note(&format!("{error}: trying again in {} s", pause.as_secs_f64()));
        };
        let headers = [(header::CONTENT_TYPE.as_str(), descriptor.media_type().to_string())];
        self.patiently(&tell, || {
            let mut body = || Ok((Box::new(content) as Box<dyn std::io::Read>, content.len() as u64));
            let url = self.url(&format!("manifests/{target}"))?;
            let answer = self.expect("PUT", url, &headers, Some(&mut body), &[201, 200, 202, 204])?;
            match answer.header(DIGEST).and_then(|digest| digest.parse::<Digest>().ok()) {
                Some(stored) => {
                    let own = Digest::try_from(descriptor.digest())?;
                    let expected = match target == own.to_string() {
                        true => own,
                        false => Digest::by(stored.algorithm(), content),
                    };
                    match stored == expected {
                        true => Ok(()),
                        false => Err(answer.wrong(format!("stored as {stored} instead of {expected}"))),
                    }
                }
                None => Ok(()),
            }
        })
    }
}

fn accept() -> [(&'static str, String); 1] {
    let types = [OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST];
    [(header::ACCEPT.as_str(), types.join(", "))]
}

fn read(answer: Answer, expected: Option<&Digest>) -> Result<Manifest, Error> {
    let content_type = answer.header(header::CONTENT_TYPE).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let promised = answer.header(DIGEST).and_then(|digest| digest.parse::<Digest>().ok());
    let request = answer.request.clone();
    let content = answer.read(MAX_JSON)?;
    for promised in [expected, promised.as_ref()].into_iter().flatten() {
        let found = Digest::by(promised.algorithm(), &content);
        if found != *promised {
            return Err(Mismatch::Digest { expected: promised.clone(), found }.into());
        }
    }
    let media_type =
        media_type(&content, &content_type).map_err(|problem| Error::Answer { request, problem })?;
    let digest = expected.cloned().unwrap_or_else(|| Digest::of(&content));
    Ok(Manifest { descriptor: Descriptor::new(media_type, content.len() as u64, digest), content })
}

/// The media type of a document from the registry. A document that can be read in two ways is rejected
/// (CVE-2021-41190).
fn media_type(content: &[u8], content_type: &str) -> Result<MediaType, String> {
    let value: Value = oci::json::from_slice(content).map_err(|error| format!("not a manifest: {error}"))?;
    let own = value["mediaType"].as_str();
    let has = |name: &str| value.get(name).is_some_and(|member| !member.is_null());
    let (is_index, is_manifest) = (has("manifests"), has("layers") || has("config"));
    if is_index && is_manifest {
        return Err("not a manifest: it is an index too".to_owned());
    }
    let of = |name: &str| {
        let media_type = MediaType::from(name);
        match kind_of(&media_type) {
            Kind::Manifest if is_manifest => Some(media_type),
            Kind::Index if is_index => Some(media_type),
            _ => None,
        }
    };
    let shape = if is_index { OCI_INDEX } else { OCI_MANIFEST };
    match (own, of(content_type)) {
        (Some(own), None) => of(own).ok_or_else(|| format!("not a manifest but {own:?}")),
        (Some(own), Some(_)) if own != content_type => {
            Err(format!("not a manifest: it says that it is {own:?}, the registry says {content_type:?}"))
        }
        (_, Some(media_type)) => Ok(media_type),
        (None, None) => of(shape).ok_or_else(|| format!("not a manifest but {content_type:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_document_is() {
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        let manifest = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let docker = format!(r#"{{"mediaType":"{DOCKER_MANIFEST}","config":{{}},"layers":[]}}"#);
        let deep = "[".repeat(100_000);
        for (content, content_type, expected) in [
            (index, OCI_INDEX, Ok(OCI_INDEX)),
            (index, "application/json", Ok(OCI_INDEX)),
            (manifest, OCI_MANIFEST, Ok(OCI_MANIFEST)),
            (manifest, "", Ok(OCI_MANIFEST)),
            (&docker, DOCKER_MANIFEST, Ok(DOCKER_MANIFEST)),
            (&docker, "text/plain", Ok(DOCKER_MANIFEST)),
            (
                &docker,
                OCI_MANIFEST,
                Err(
                    "not a manifest: it says that it is \"application/vnd.docker.distribution.manifest.v2+json\", \
                     the registry says \"application/vnd.oci.image.manifest.v1+json\"",
                ),
            ),
            (r#"{"manifests":[],"layers":[]}"#, OCI_INDEX, Err("not a manifest: it is an index too")),
            (
                r#"{"schemaVersion":1,"fsLayers":[]}"#,
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                Err("not a manifest but \"application/vnd.docker.distribution.manifest.v1+prettyjws\""),
            ),
            ("<html>", "text/html", Err("not a manifest: expected value at line 1 column 1")),
            (&deep, OCI_INDEX, Err("not a manifest: recursion limit exceeded at line 1 column 128")),
        ] {
            let found = media_type(content.as_bytes(), content_type);
            assert_eq!(
                found.map(|found| found.to_string()),
                expected.map(str::to_owned).map_err(str::to_owned)
            );
        }
    }
}
