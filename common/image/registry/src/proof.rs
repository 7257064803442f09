//! Looks whether an image is signed as it has to be, by the signatures that `signature` makes.

use std::path::PathBuf;

use base64::{Engine, prelude::BASE64_STANDARD};
use oci::{
    Digest, Reference,
    media_type::{Kind, kind},
    spec::{Descriptor, ImageManifest},
};
use signing::{Payload, PublicKey, SIGNATURE};

use crate::{
    Client, Error, identity::Identity, policy::Demand, referrers::cosign_tag, repository::Repository,
    sources::Sources, upload::Blobs,
};

/// The maximum size of a signed text, in bytes.
const MAX_PAYLOAD: u64 = 256 << 10;
/// The maximum number of signatures that are looked at.
const MAX_SIGNATURES: usize = 256;

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
        let identity = Identity::repository_of(repository_of);
        let sources = Sources::new(self, image, &())?;
        prove(&sources, image, digest, &Proof { keys, identity: &identity, by: None })
    }

    /// Makes sure that an image has the signatures that the policy demands: its own digest or, if that is an index, all
    /// the images of it that are taken.
    pub(crate) fn satisfy(
        &self,
        demands: &[Demand],
        image: &Reference,
        digest: &Digest,
        taken: &[Digest],
    ) -> Result<(), Error> {
        if demands.is_empty() {
            return Ok(());
        }
        let sources = Sources::new(self, image, &())?;
        demands.iter().try_for_each(|Demand { keys, identity, path }| {
            let proof = Proof { keys, identity, by: Some(path) };
            match prove(&sources, image, digest, &proof) {
                Err(Error::Unproven { .. }) if taken.iter().any(|taken| taken != digest) => {
                    taken.iter().try_for_each(|taken| prove(&sources, image, taken, &proof))
                }
                outcome => outcome,
            }
        })
    }
}

/// Looks for a proof at all places of the image. A mirror need not be trusted for that: it cannot make signatures.
fn prove(sources: &Sources<'_>, image: &Reference, digest: &Digest, proof: &Proof<'_>) -> Result<(), Error> {
    let mut failure = Error::GivenUp;
    for index in sources.remaining() {
        match sources.get(index).and_then(|repository| proof.find(repository, image, digest)) {
            Ok(()) => return Ok(()),
            // The registry itself comes last. If it cannot be asked, a mirror may have had another reason.
            Err(error) => match (&failure, &error) {
                (Error::Unproven { why, .. }, other)
                    if *why != Unproven::None && !matches!(other, Error::Unproven { .. }) => {}
                _ => failure = error,
            },
        }
    }
    Err(failure)
}

/// What proves that an image is as its signer had it.
struct Proof<'a> {
    keys: &'a [PublicKey],
    identity: &'a Identity,
    /// The file that asks for it. None for the user.
    by: Option<&'a PathBuf>,
}

impl Proof<'_> {
    /// Finds a signature of the digest in the repository.
    fn find(&self, repository: &Repository, image: &Reference, digest: &Digest) -> Result<(), Error> {
        let unproven =
            |why| Error::Unproven { name: format!("{}@{digest}", image.name()), why, by: self.by.cloned() };
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
            let text = text(repository, layer)?;
            if !self.keys.iter().any(|key| key.verifies(&text, &signature)) {
                continue;
            }
            match Payload::read(&text) {
                Some(payload) if payload.digest != *digest => best = Unproven::Digest,
                Some(payload) if !self.identity.accepts(image, &payload.repository) => {
                    best = Unproven::Repository(payload.repository);
                }
                Some(_) => return Ok(()),
                None => {}
            }
        }
        Err(unproven(best))
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
