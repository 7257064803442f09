//! Sends small artifacts that belong to an image: files that refer to it, and signatures.

use std::{collections::HashMap, fs::File, io::Read, path::PathBuf};

use oci::{
    Digest, Reference,
    digest::{Hasher, Verifying},
    layout,
    spec::{Descriptor, MediaType},
};
use serde_json::{Value, json};

use crate::{
    Client, Error,
    progress::Progress,
    push::put,
    repository::{Access, Repository},
    upload::{Blobs, Uploads},
};

/// What an artifact without a configuration has in its place (image-spec, "Guidance for an Empty Descriptor").
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// The content of a blob.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file.
    File(PathBuf),
}

/// Blobs to send, by digest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parts {
    pub(crate) blobs: Vec<Descriptor>,
    contents: HashMap<String, Content>,
}

impl Parts {
    /// Adds a blob, and returns its descriptor.
    pub(crate) fn add(&mut self, media_type: &str, content: Content) -> Result<Descriptor, Error> {
        let (digest, size) = match &content {
            Content::Bytes(bytes) => (Digest::of(bytes), bytes.len() as u64),
            Content::File(path) => measured(path)?,
        };
        let descriptor = Descriptor::new(MediaType::from(media_type), size, digest);
        self.contents.insert(descriptor.digest().to_string(), content);
        self.blobs.push(descriptor.clone());
        Ok(descriptor)
    }

    pub(crate) fn send(&self, repository: &Repository, progress: &dyn Progress) -> Result<(), Error> {
        let uploads = Uploads { repository, source: self, progress, origins: &HashMap::new() };
        let blobs = self.blobs.iter().map(|blob| (blob.clone(), true)).collect();
        uploads.send_all(blobs, 1).map(drop)
    }
}

impl Blobs for Parts {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>, Error> {
        let digest = Digest::try_from(descriptor.digest())?;
        Ok(match self.contents.get(&digest.to_string()) {
            Some(Content::Bytes(bytes)) => Box::new(&bytes[..]),
            // It may have changed since its digest was taken.
            Some(Content::File(path)) => {
                let file = File::open(path).map_err(|error| unreadable(path, error))?;
                Box::new(Verifying::new(file, digest, descriptor.size()))
            }
            None => return Err(layout::Error::NoBlob(digest).into()),
        })
    }
}

fn unreadable(path: &PathBuf, error: std::io::Error) -> Error {
    layout::Error::from(operation::Error::new("read", format_args!("{path:?}"), error)).into()
}

/// The digest and size of a file.
fn measured(path: &PathBuf) -> Result<(Digest, u64), Error> {
    let failed = |error| unreadable(path, error);
    let mut file = File::open(path).map_err(failed)?;
    let (mut hasher, mut size, mut buffer) =
        (Hasher::new(oci::digest::Algorithm::Sha256), 0, vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok((hasher.finish(), size)),
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
}

/// An artifact that refers to an image.
#[derive(Debug, Clone, Default)]
pub struct Attachment {
    /// The artifact's type: `application/spdx+json`.
    pub artifact_type: String,
    /// The files, each with its media type and its name.
    pub files: Vec<(Content, String, String)>,
    /// Annotations of the artifact.
    pub annotations: Vec<(String, String)>,
}

/// What was attached.
#[derive(Debug)]
pub struct Attached {
    /// The digest of the image.
    pub subject: Digest,
    /// The artifact.
    pub descriptor: Descriptor,
}

impl Client {
    /// Attaches files to an image in a registry: an artifact whose subject is the image. If the registry keeps no lists
    /// of referrers, the list under a tag gets the artifact (distribution-spec, "Referrers Tag Schema").
    ///
    /// # Errors
    /// When the registry has no such image or rejects the artifact, or a file cannot be read.
    pub fn attach(
        &self,
        image: &Reference,
        attachment: &Attachment,
        progress: &dyn Progress,
    ) -> Result<Attached, Error> {
        let repository = self.repository(image, Access::Push)?;
        let subject = repository.manifest(&image.target(), image.digest(), progress)?.descriptor;
        let mut parts = Parts::default();
        let config = parts.add(EMPTY_TYPE, Content::Bytes(EMPTY.to_vec()))?;
        let mut layers = Vec::new();
        for (content, media_type, name) in &attachment.files {
            let mut layer = json!(parts.add(media_type, content.clone())?);
            layer["annotations"] = json!({"org.opencontainers.image.title": name});
            layers.push(layer);
        }
        if layers.is_empty() {
            layers.push(json!(config));
        }
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "artifactType": attachment.artifact_type,
            "config": config, "layers": layers, "subject": subject,
        });
        if !attachment.annotations.is_empty() {
            let annotations = attachment.annotations.iter();
            manifest["annotations"] = Value::Object(
                annotations.map(|(name, value)| (name.clone(), value.as_str().into())).collect(),
            );
        }
        let content = oci::json::to_vec(&manifest).map_err(layout::Error::Json)?;
        let digest = Digest::of(&content);
        let descriptor = Descriptor::new(MediaType::ImageManifest, content.len() as u64, digest.clone());
        parts.send(&repository, progress)?;
        put(&repository, &digest.to_string(), &descriptor, &content, progress)?;
        Ok(Attached { subject: Digest::try_from(subject.digest())?, descriptor })
    }
}
