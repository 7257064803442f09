//! Docker archives. `manifest.json` lists the configuration, layers and names of each image (moby image-spec
//! v1.2, "Combined Image JSON + Filesystem Changeset Format"). The image gets an OCI manifest; its id stays
//! the same.

use std::collections::HashMap;

use archive::{Compression, Limits};
use oci_spec::image::{Descriptor, ImageConfiguration, MediaType};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Map, Value, json};

use super::{
    Error, Found, Intake,
    intake::{Stored, normalise},
};
use crate::{digest::Digest, json, layout, media_type, platform::Platform, reference::Reference, shape};

/// How many symbolic links are followed to find a layer.
const MAX_LINKS: usize = 8;

/// The content of `manifest.json`.
#[derive(Debug)]
pub(super) struct ImageList(pub(super) Vec<ListedImage>);

impl<'de> Deserialize<'de> for ImageList {
    /// Members may be spelled in any letters, as for decoders in Go.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let images: Vec<Map<String, Value>> = Deserialize::deserialize(deserializer)?;
        let image = |image: Map<String, Value>| {
            ListedImage::deserialize(Value::Object(json::spelled(image, &["Config", "RepoTags", "Layers"])))
        };
        images.into_iter().map(image).collect::<Result<_, _>>().map(Self).map_err(D::Error::custom)
    }
}

/// An entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedImage {
    pub(super) config: String,
    /// Go takes null for an empty name.
    repo_tags: Option<Vec<Option<String>>>,
    layers: Option<Vec<String>>,
}

impl ListedImage {
    pub(super) fn references(&self) -> Result<Vec<Reference>, Error> {
        let names = self.repo_tags.iter().flatten().flatten();
        let names = names.filter(|name| !matches!(name.as_str(), "" | "<none>:<none>"));
        Ok(names.map(|name| name.parse()).collect::<Result<_, _>>().map_err(layout::Error::from)?)
    }
}

/// Parses a member of the archive as JSON.
pub(super) fn json_member<T: DeserializeOwned>(
    intake: &mut Intake,
    members: &HashMap<String, Stored>,
    name: &str,
) -> Result<T, Error> {
    let (digest, size, _) = member(members, name)?;
    let content = intake.content(&Descriptor::new(MediaType::EmptyJSON, size, digest))?;
    json::from_slice(&content).map_err(|source| Error::Malformed { what: name.to_owned(), source })
}

/// The digest, size and compression of a member. Links are followed.
pub(super) fn member(
    members: &HashMap<String, Stored>,
    name: &str,
) -> Result<(Digest, u64, Compression), Error> {
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

/// Loads the images of the list in `members`. A layer that has to be decompressed is held to `limits`.
pub(super) fn from_archive(
    intake: &mut Intake,
    members: &HashMap<String, Stored>,
    limits: Limits,
) -> Result<(), Error> {
    for listed in json_member::<ImageList>(intake, members, "manifest.json")?.0 {
        let references = listed.references()?;
        let descriptor = add_image(intake, members, &listed, limits)?;
        intake.images.push(Found { references, descriptor });
    }
    Ok(())
}

fn add_image(
    intake: &mut Intake,
    members: &HashMap<String, Stored>,
    listed: &ListedImage,
    limits: Limits,
) -> Result<Descriptor, Error> {
    let mut value: Value = json_member(intake, members, &listed.config)?;
    let configuration = shape::configuration(&mut value)
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
        let diff_id = diff_id.parse().map_err(layout::Error::from)?;
        layers.push(layer(intake, members, (name, &diff_id), limits)?);
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

/// The descriptor of a layer. The digest of an uncompressed layer is its DiffID and is checked here. The
/// DiffID of a compressed layer is checked when the layer is unpacked. A layer in a compression without a media
/// type (bzip2, xz) is stored uncompressed.
fn layer(
    intake: &mut Intake,
    members: &HashMap<String, Stored>,
    (name, diff_id): (&str, &Digest),
    limits: Limits,
) -> Result<Descriptor, Error> {
    let (found, size, compression) = member(members, name)?;
    let (media_type, found, size) = match media_type::of_layer(compression) {
        Some(media_type) => (media_type, found, size),
        None => {
            let (found, size) = intake.decompress(name, &found, size, limits)?;
            (MediaType::ImageLayer, found, size)
        }
    };
    if media_type == MediaType::ImageLayer && found != *diff_id {
        return Err(Error::DiffId { name: name.to_owned(), expected: diff_id.clone(), found });
    }
    Ok(Descriptor::new(media_type, size, found))
}
