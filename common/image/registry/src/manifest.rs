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
/// In the answer of a registry that keeps lists of referrers (distribution-spec, "Pushing Manifests with Subject").
const SUBJECT: &str = "oci-subject";

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

    /// What a tag or digest refers to, as the registry tells it without sending it: some registries count only
    /// what is sent. None if it does not tell the digest, the size and the media type.
    pub(crate) fn look_up(&self, target: &str) -> Result<Option<Descriptor>, Error> {
        let answer = self.patiently(&|_, _| {}, || {
            self.expect("HEAD", self.url(&format!("manifests/{target}"))?, &accept(), None, &[200])
        })?;
        let digest = answer.header(DIGEST).and_then(|digest| digest.parse::<Digest>().ok());
        let media_type = MediaType::from(content_type(&answer).as_str());
        let is_known = matches!(kind_of(&media_type), Kind::Manifest | Kind::Index);
        Ok(match (digest, answer.length().filter(|size| *size > 0)) {
            (Some(digest), Some(size)) if is_known => Some(Descriptor::new(media_type, size, digest)),
            _ => None,
        })
    }

    /// Stores a manifest under a tag or its digest. Returns the digest by which the registry has it: for a tag, it may
    /// compute it by another algorithm than the descriptor's. Also returns whether the registry keeps the list of
    /// referrers of the manifest's subject.
    pub(crate) fn put_manifest(
        &self,
        target: &str,
        descriptor: &Descriptor,
        content: &[u8],
        progress: &dyn Progress,
    ) -> Result<(Digest, bool), Error> {
        let tell = |error: &Error, pause: std::time::Duration| {
            progress.note(&format!("{error}: trying again in {} s", pause.as_secs_f64()));
        };
        let headers = [(header::CONTENT_TYPE.as_str(), descriptor.media_type().to_string())];
        self.patiently(&tell, || {
            let mut body = || Ok((Box::new(content) as Box<dyn std::io::Read>, content.len() as u64));
            let url = self.url(&format!("manifests/{target}"))?;
            let answer = self.expect("PUT", url, &headers, Some(&mut body), &[201, 200, 202, 204])?;
            let lists = answer.header(SUBJECT).is_some();
            let own = Digest::try_from(descriptor.digest())?;
            match answer.header(DIGEST).and_then(|digest| digest.parse::<Digest>().ok()) {
                Some(stored) => {
                    let expected = match target == own.to_string() {
                        true => own,
                        false => Digest::by(stored.algorithm(), content),
                    };
                    match stored == expected {
                        true => Ok((stored, lists)),
                        false => Err(answer.wrong(format!("stored as {stored} instead of {expected}"))),
                    }
                }
                None => Ok((own, lists)),
            }
        })
    }
}

fn accept() -> [(&'static str, String); 1] {
    let types = [OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST];
    [(header::ACCEPT.as_str(), types.join(", "))]
}

/// The media type that an answer says it has; empty if it does not say.
fn content_type(answer: &Answer) -> String {
    let content_type = answer.header(header::CONTENT_TYPE).unwrap_or_default();
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn read(answer: Answer, expected: Option<&Digest>) -> Result<Manifest, Error> {
    let content_type = content_type(&answer);
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
        (Some(own), None) => of(own).ok_or_else(|| what_it_is(&value, own)),
        (Some(own), Some(_)) if own != content_type => {
            Err(format!("not a manifest: it says that it is {own:?}, the registry says {content_type:?}"))
        }
        (_, Some(media_type)) => Ok(media_type),
        (None, None) => of(shape).ok_or_else(|| what_it_is(&value, content_type)),
    }
}

/// Why a document with this media type is no manifest.
fn what_it_is(value: &Value, media_type: &str) -> String {
    if value["schemaVersion"] == 1 {
        return "a manifest of Docker's schema 1, which is no longer supported: push the image again with a newer tool"
            .to_owned();
    }
    match kind_of(&MediaType::from(media_type)) {
        Kind::Manifest => "not a manifest: it has neither config nor layers".to_owned(),
        Kind::Index => "not an index: it has no manifests".to_owned(),
        _ => format!("not a manifest but {media_type:?}"),
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
                Err(
                    "a manifest of Docker's schema 1, which is no longer supported: push the image again with a newer tool",
                ),
            ),
            (r#"{"schemaVersion":2}"#, OCI_MANIFEST, Err("not a manifest: it has neither config nor layers")),
            (r#"{"schemaVersion":2}"#, OCI_INDEX, Err("not an index: it has no manifests")),
            (r#"{"schemaVersion":2}"#, "text/plain", Err("not a manifest but \"text/plain\"")),
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
