//! Signatures beside an image, as cosign keeps them: an image under the tag `sha256-DIGEST.sig`, each of whose layers is a
//! signed text, with the signature in an annotation. This makes them; `proof` looks for them.

use std::{thread::sleep, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use oci::{
    Digest, Reference, layout,
    media_type::{Kind, kind},
    spec::{Descriptor, MediaType},
};
use serde_json::{Value, json};
use signing::{PAYLOAD, Payload, PrivateKey, SIGNATURE};

use crate::{
    Client, Error,
    artifact::{Content, Parts},
    manifest::Manifest,
    progress::Progress,
    push::put,
    referrers::cosign_tag,
    repository::{Access, Repository},
};

/// How often the list of signatures is written when others write it at the same time.
const ATTEMPTS: u32 = 8;
/// How long to wait before looking whether others have overwritten the list, for a first time. A registry replaces a tag
/// whoever has written it meanwhile.
const SETTLED: Duration = Duration::from_millis(300);

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

impl Client {
    /// Signs what a name refers to in a registry now: a manifest, or an index with all that it names. Signatures that are
    /// there stay, also those that others add at the same time.
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
        let signature = BASE64_STANDARD.encode(key.sign(&payload));
        let mut parts = Parts::default();
        let mut layer = json!(parts.add(PAYLOAD, Content::Bytes(payload))?);
        layer["annotations"] = json!({ SIGNATURE: signature });
        let list = List { repository: &repository, tag: cosign_tag(&digest, "sig"), progress };
        for attempt in 1..=ATTEMPTS {
            let earlier = list.read()?;
            let mut layers = earlier.as_ref().map_or_else(Vec::new, List::layers);
            // The same key gives the same signature of the same text.
            let is_there = layers.iter().any(|other| is_same(other, &layer));
            if is_there {
                return Ok(Signed { digest, tag: list.tag, count: layers.len() });
            }
            if attempt == ATTEMPTS {
                break;
            }
            layers.push(layer.clone());
            list.write(parts.clone(), layers, earlier)?;
            sleep(SETTLED * attempt);
        }
        let problem = "others overwrite its signatures again and again".to_owned();
        Err(Error::Content { name: list.tag, problem })
    }
}

/// Whether two layers have the same signature of the same text.
fn is_same(one: &Value, other: &Value) -> bool {
    one["digest"] == other["digest"] && one["annotations"][SIGNATURE] == other["annotations"][SIGNATURE]
}

/// The list of an image's signatures in a registry.
struct List<'a> {
    repository: &'a Repository,
    tag: String,
    progress: &'a dyn Progress,
}

impl List<'_> {
    /// The manifest with the signatures that are there.
    fn read(&self) -> Result<Option<Value>, Error> {
        let manifest: Manifest = match self.repository.manifest(&self.tag, None, self.progress) {
            Err(error) if error.is_not_found() => return Ok(None),
            manifest => manifest?,
        };
        match kind(&manifest.descriptor) {
            Kind::Manifest => manifest.read().map(Some),
            _ => Err(Error::Content {
                name: self.tag.clone(),
                problem: "it is an index, and not a list of signatures".to_owned(),
            }),
        }
    }

    fn layers(manifest: &Value) -> Vec<Value> {
        manifest["layers"].as_array().cloned().unwrap_or_default()
    }

    /// Writes a list with these signatures, in the place of `earlier`.
    fn write(&self, mut parts: Parts, layers: Vec<Value>, earlier: Option<Value>) -> Result<(), Error> {
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
        if let Some(annotations) = earlier.map(|earlier| earlier["annotations"].clone())
            && !annotations.is_null()
        {
            manifest["annotations"] = annotations;
        }
        let content = oci::json::to_vec(&manifest).map_err(layout::Error::Json)?;
        let descriptor =
            Descriptor::new(MediaType::ImageManifest, content.len() as u64, Digest::of(&content));
        parts.send(self.repository, self.progress)?;
        put(self.repository, &self.tag, &descriptor, &content, self.progress)?;
        Ok(())
    }
}
