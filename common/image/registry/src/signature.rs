//! Signatures beside an image, as cosign keeps them: an image under the tag `sha256-DIGEST.sig`, each of whose layers is a
//! signed text, with the signature in an annotation.

use base64::{Engine, prelude::BASE64_STANDARD};
use oci::{
    Digest, Reference, layout,
    media_type::{Kind, kind},
    spec::{Descriptor, ImageManifest, MediaType},
};
use serde_json::{Value, json};
use signing::{PAYLOAD, Payload, PrivateKey, PublicKey, SIGNATURE};

use crate::{
    Client, Error,
    artifact::{Content, Parts},
    progress::Progress,
    push::put,
    referrers::cosign_tag,
    repository::{Access, Repository},
    upload::Blobs,
};

/// The maximum size of a signed text, in bytes.
const MAX_PAYLOAD: u64 = 256 << 10;
/// The maximum number of signatures that are looked at.
const MAX_SIGNATURES: usize = 256;

/// A signature that was made.
#[derive(Debug)]
pub struct Signed {
    /// The digest of the image.
    pub digest: Digest,
    /// The tag with the image's signatures.
    pub tag: String,
    /// How many signatures the image has now.
    pub count: usize,
}

/// Why an image does not count as signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unproven {
    /// There are no signatures.
    None,
    /// No signature is by one of the keys.
    Key,
    /// The signatures by the keys are for other images.
    Digest,
    /// The signatures by the keys are for this repository.
    Repository(String),
}

impl std::fmt::Display for Unproven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("it has no signatures"),
            Self::Key => f.write_str("none of its signatures is by the key"),
            Self::Digest => f.write_str("the signature by the key is for another image"),
            Self::Repository(name) => write!(f, "the signature by the key is for {name:?}"),
        }
    }
}

impl Client {
    /// Signs what a name refers to in a registry now: a manifest, or an index with all that it names. Signatures that are
    /// there stay.
    ///
    /// # Errors
    /// When the registry has no such image, or rejects the signature.
    pub fn sign(
        &self,
        image: &Reference,
        key: &PrivateKey,
        progress: &dyn Progress,
    ) -> Result<Signed, Error> {
        let repository = self.repository(image, Access::Push)?;
        let named = repository.manifest(&image.target(), image.digest(), progress)?;
        let digest = Digest::try_from(named.descriptor.digest())?;
        let payload = Payload { repository: image.name(), digest: digest.clone() }.text();
        let tag = cosign_tag(&digest, "sig");
        let signature = BASE64_STANDARD.encode(key.sign(&payload));
        let mut parts = Parts::default();
        let mut layer = json!(parts.add(PAYLOAD, Content::Bytes(payload))?);
        layer["annotations"] = json!({ SIGNATURE: signature });
        let earlier = existing(&repository, &tag, progress)?;
        let mut layers = Vec::new();
        let mut annotations = Value::Null;
        if let Some(value) = earlier {
            layers.extend(value["layers"].as_array().into_iter().flatten().cloned());
            annotations = value["annotations"].clone();
        }
        // The same key gives the same signature of the same text.
        let is_same = |other: &Value| {
            other["digest"] == layer["digest"]
                && other["annotations"][SIGNATURE] == layer["annotations"][SIGNATURE]
        };
        let count = layers.len();
        if layers.iter().any(is_same) {
            return Ok(Signed { digest, tag, count });
        }
        layers.push(layer);
        let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let configuration = json!({
            "architecture": "", "os": "", "config": {}, "created": "0001-01-01T00:00:00Z",
            "history": vec![json!({"created": "0001-01-01T00:00:00Z"}); layers.len()],
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let configuration = oci::json::to_vec(&configuration).map_err(layout::Error::Json)?;
        let config = parts.add(MediaType::ImageConfig.as_ref(), Content::Bytes(configuration))?;
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": layers,
        });
        if !annotations.is_null() {
            manifest["annotations"] = annotations;
        }
        let content = oci::json::to_vec(&manifest).map_err(layout::Error::Json)?;
        let descriptor =
            Descriptor::new(MediaType::ImageManifest, content.len() as u64, Digest::of(&content));
        parts.send(&repository, progress)?;
        put(&repository, &tag, &descriptor, &content, progress)?;
        Ok(Signed { digest, tag, count: count + 1 })
    }

    /// Makes sure that an image of a registry is signed with one of the keys, for this repository.
    ///
    /// # Errors
    /// [`Error::Unproven`]; when the registry rejects a request or sends something unusable.
    pub fn verify(
        &self,
        image: &Reference,
        digest: &Digest,
        keys: &[PublicKey],
        repository_of: &Reference,
    ) -> Result<(), Error> {
        let unproven = |why| Error::Unproven { name: format!("{}@{digest}", image.name()), why };
        let repository = self.repository(image, Access::Pull)?;
        let manifest = match repository.manifest(&cosign_tag(digest, "sig"), None, &()) {
            Err(error) if error.is_not_found() => return Err(unproven(Unproven::None)),
            manifest => manifest?,
        };
        if kind(&manifest.descriptor) != Kind::Manifest {
            return Err(unproven(Unproven::None));
        }
        let manifest: ImageManifest = manifest.read()?;
        let mut best = if manifest.layers().is_empty() { Unproven::None } else { Unproven::Key };
        for layer in manifest.layers().iter().take(MAX_SIGNATURES) {
            let signature = layer.annotations().as_ref().and_then(|annotations| annotations.get(SIGNATURE));
            let signature = signature.and_then(|text| BASE64_STANDARD.decode(text.trim()).ok());
            let (Some(signature), true) = (signature, layer.size() <= MAX_PAYLOAD) else { continue };
            let text = text(&repository, layer)?;
            if !keys.iter().any(|key| key.verifies(&text, &signature)) {
                continue;
            }
            match Payload::read(&text) {
                Some(payload) if payload.digest != *digest => best = Unproven::Digest,
                Some(payload) if !is_name(&payload.repository, repository_of) => {
                    best = Unproven::Repository(payload.repository);
                }
                Some(_) => return Ok(()),
                None => {}
            }
        }
        Err(unproven(best))
    }
}

/// Whether a name in a signature is that of the repository. cosign calls Docker's registry by its old name, and may add a
/// tag.
fn is_name(text: &str, repository: &Reference) -> bool {
    let text = text
        .strip_prefix("index.docker.io/")
        .map_or_else(|| text.to_owned(), |rest| format!("docker.io/{rest}"));
    text.parse::<Reference>().is_ok_and(|own| own.name() == repository.name())
}

/// The manifest with the signatures that are there already.
fn existing(repository: &Repository, tag: &str, progress: &dyn Progress) -> Result<Option<Value>, Error> {
    match repository.manifest(tag, None, progress) {
        Err(error) if error.is_not_found() => Ok(None),
        manifest => {
            let manifest = manifest?;
            match kind(&manifest.descriptor) {
                Kind::Manifest => manifest.read().map(Some),
                _ => Err(Error::Content {
                    name: tag.to_owned(),
                    problem: "it is an index, and not a list of signatures".to_owned(),
                }),
            }
        }
    }
}

fn text(repository: &Repository, layer: &Descriptor) -> Result<Vec<u8>, Error> {
    repository.patiently(&|_, _| {}, || {
        let mut text = Vec::new();
        let mut reader = repository.open(layer)?;
        let digest = layer.digest().to_string();
        let read = std::io::Read::read_to_end(&mut reader, &mut text);
        read.map_err(|source| Error::Blob { verb: "read", digest, source })?;
        Ok(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_signatures() {
        for (text, name, same) in [
            ("h:5000/a", "h:5000/a:1", true),
            ("h:5000/a:2", "h:5000/a:1", true),
            ("index.docker.io/library/debian", "debian", true),
            ("docker.io/library/debian", "debian:12", true),
            ("h:5000/b", "h:5000/a", false),
            ("", "h:5000/a", false),
        ] {
            assert_eq!(is_name(text, &name.parse().unwrap()), same, "{text}");
        }
    }
}
