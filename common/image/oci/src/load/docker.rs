//! Docker's archives: `manifest.json` lists each image's configuration, layers and names (moby image-spec v1.2,
//! "Combined Image JSON + Filesystem Changeset Format"). The image gets an OCI manifest; its id stays.

use std::collections::HashMap;

use archive::Compression;
use oci_spec::image::{Descriptor, ImageConfiguration, MediaType};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Error, Found, Intake,
    intake::{Stored, normalise},
};
use crate::{
    digest::Digest,
    json::{self, null_as_empty},
    layout, media_type,
    platform::Platform,
    reference::Reference,
};

/// How many symbolic links may stand on the way to a layer.
const MAX_LINKS: usize = 8;

pub(super) type ImageList = Vec<ListedImage>;

/// An entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedImage {
    pub(super) config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl ListedImage {
    pub(super) fn references(&self) -> Result<Vec<Reference>, Error> {
        let names = self.repo_tags.iter().flatten().filter(|name| *name != "<none>:<none>");
        Ok(names.map(|name| name.parse()).collect::<Result<_, _>>().map_err(layout::Error::from)?)
    }
}

/// A member of the archive as JSON.
pub(super) fn json_member<T: DeserializeOwned>(
    intake: &mut Intake,
    members: &HashMap<String, Stored>,
    name: &str,
) -> Result<T, Error> {
    let (digest, size, _) = member(members, name)?;
    let content = intake.content(&Descriptor::new(MediaType::EmptyJSON, size, digest))?;
    json::from_slice(&content).map_err(|source| Error::Malformed { what: name.to_owned(), source })
}

/// The content of a member, or of the one that it is a link to.
fn member(members: &HashMap<String, Stored>, name: &str) -> Result<(Digest, u64, Compression), Error> {
    let mut path = normalise("", name);
    for _ in 0..MAX_LINKS {
        match members.get(&path) {
            Some(Stored::Blob { digest, size, compression }) => {
                return Ok((digest.clone(), *size, *compression));
            }
            Some(Stored::Link(target)) => path.clone_from(target),
            None => break,
        }
    }
    Err(Error::NoMember(name.to_owned()))
}

pub(super) fn from_archive(intake: &mut Intake, members: &HashMap<String, Stored>) -> Result<(), Error> {
    for listed in json_member::<ImageList>(intake, members, "manifest.json")? {
        let references = listed.references()?;
        let descriptor = add_image(intake, members, &listed)?;
        intake.images.push(Found { references, descriptor });
    }
    Ok(())
}

fn add_image(
    intake: &mut Intake,
    members: &HashMap<String, Stored>,
    listed: &ListedImage,
) -> Result<Descriptor, Error> {
    let mut value: Value = json_member(intake, members, &listed.config)?;
    null_as_empty(&mut value, "/rootfs/diff_ids");
    let configuration = ImageConfiguration::deserialize(value)
        .map_err(|source| Error::Malformed { what: listed.config.clone(), source })?;
    let names = listed.layers.as_deref().unwrap_or_default();
    let diff_ids = configuration.rootfs().diff_ids();
    if names.len() != diff_ids.len() {
        let (layers, diff_ids) = (names.len(), diff_ids.len());
        return Err(Error::Layers { name: listed.config.clone(), layers, diff_ids });
    }
    let (digest, size, _) = member(members, &listed.config)?;
    check_platform(intake, &configuration, &digest)?;
    let config = Descriptor::new(MediaType::ImageConfig, size, digest);
    let mut layers = Vec::new();
    for (name, diff_id) in names.iter().zip(diff_ids) {
        layers.push(layer(members, name, &diff_id.parse().map_err(layout::Error::from)?)?);
    }
    let mut blobs = vec![intake.require(&config)?];
    for layer in &layers {
        blobs.push(intake.require(layer)?);
    }
    let manifest = json!({"schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": layers});
    let manifest = json::to_vec(&manifest).map_err(layout::Error::Json)?;
    let descriptor = intake.add_small(MediaType::ImageManifest, manifest);
    blobs.push(intake.require(&descriptor)?);
    intake.need(blobs);
    Ok(descriptor)
}

fn check_platform(intake: &Intake, configuration: &ImageConfiguration, digest: &Digest) -> Result<(), Error> {
    let own = Platform::from(configuration);
    match &intake.platform {
        Some(wanted) if wanted.rank(&own).is_none() => Err(layout::Error::NoPlatform {
            digest: digest.clone(),
            wanted: wanted.to_string(),
            offered: own.to_string(),
        }
        .into()),
        _ => Ok(()),
    }
}

/// A plain layer's digest is its DiffID and is checked here; that of a compressed one is checked when it is unpacked.
fn layer(members: &HashMap<String, Stored>, name: &str, diff_id: &Digest) -> Result<Descriptor, Error> {
    let (found, size, compression) = member(members, name)?;
    if compression == Compression::None && found != *diff_id {
        return Err(Error::DiffId { name: name.to_owned(), expected: diff_id.clone(), found });
    }
    let media_type = media_type::of_layer(compression).ok_or_else(|| Error::Compression(name.to_owned()))?;
    Ok(Descriptor::new(media_type, size, found))
}
