//! OCI layouts, in a directory or in an archive (OCI image-spec, image-layout.md).

use std::collections::HashMap;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Error, Found, Intake,
    docker::{ImageList, json_member},
    intake::Stored,
};
use crate::{
    digest::Digest,
    image::{MAX_NESTING, choose_child},
    json,
    layout::{self, Entry, Layout, name_of},
    media_type::{Kind, kind},
    platform::Platform,
    reference::Reference,
};

pub(super) fn from_layout(intake: &mut Intake, source: Layout) -> Result<(), Error> {
    let entries = source.list()?;
    intake.source = Some(source);
    add_entries(intake, entries, &HashMap::new())
}

pub(super) fn from_archive(intake: &mut Intake, members: &HashMap<String, Stored>) -> Result<(), Error> {
    let index: Value = json_member(intake, members, "index.json")?;
    json::hold(&index, Kind::Index)
        .map_err(|source| Error::Malformed { what: "index.json".to_owned(), source })?;
    let manifests = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let entries = manifests
        .iter()
        .map(|entry| {
            let descriptor = Descriptor::deserialize(entry)
                .map_err(|source| Error::Malformed { what: "index.json".to_owned(), source })?;
            let reference = name_of(&descriptor).and_then(|name| name.parse().ok());
            Ok(Entry { reference, descriptor })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    // `docker save` writes both lists, and its names in full in the other one.
    let names = match members.contains_key("manifest.json") {
        true => names_by_configuration(&json_member::<ImageList>(intake, members, "manifest.json")?)?,
        false => HashMap::new(),
    };
    add_entries(intake, entries, &names)
}

fn names_by_configuration(list: &ImageList) -> Result<HashMap<String, Vec<Reference>>, Error> {
    let mut names = HashMap::new();
    for image in list {
        let hex = image.config.rsplit('/').next().unwrap_or_default();
        let hex = hex.strip_suffix(".json").unwrap_or(hex);
        names.insert(hex.to_owned(), image.references()?);
    }
    Ok(names)
}

fn add_entries(
    intake: &mut Intake,
    entries: Vec<Entry>,
    names: &HashMap<String, Vec<Reference>>,
) -> Result<(), Error> {
    let mut other = None;
    for Entry { reference, mut descriptor } in entries {
        // Names belong to the entry of an index, not to the image.
        descriptor.set_annotations(None);
        if !matches!(kind(&descriptor), Kind::Manifest | Kind::Index) {
            continue;
        }
        let image = match walk(intake, &descriptor, 0) {
            // What refers to an image, a signature or a list of its parts, stands beside it.
            Err(error @ Error::Layout(layout::Error::NotAnImage { .. })) => {
                other.get_or_insert(error);
                continue;
            }
            image => image?,
        };
        let also = image.configurations.iter().find_map(|digest| names.get(digest.hex()));
        let references = match also {
            Some(names) if !names.is_empty() => names.clone(),
            _ => reference.into_iter().collect(),
        };
        intake.need(image.blobs);
        match intake.images.iter_mut().find(|found| found.descriptor.digest() == descriptor.digest()) {
            Some(found) => {
                let new = references.into_iter().filter(|name| !found.references.contains(name));
                found.references.extend(new.collect::<Vec<_>>());
            }
            None => intake.images.push(Found { references, descriptor }),
        }
    }
    other.filter(|_| intake.images.is_empty()).map_or(Ok(()), Err)
}

/// What an image consists of.
#[derive(Default)]
struct Parts {
    blobs: Vec<Digest>,
    configurations: Vec<Digest>,
}

fn walk(intake: &mut Intake, descriptor: &Descriptor, depth: u32) -> Result<Parts, Error> {
    match kind(descriptor) {
        Kind::Index if depth < MAX_NESTING => walk_index(intake, descriptor, depth),
        Kind::Manifest => walk_manifest(intake, descriptor, depth),
        _ => {
            let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
            let media_type = descriptor.media_type().to_string();
            Err(layout::Error::NotAnImage { digest, media_type }.into())
        }
    }
}

/// An index need not come with the images of all its platforms, only with the one that is wanted.
fn walk_index(intake: &mut Intake, descriptor: &Descriptor, depth: u32) -> Result<Parts, Error> {
    let index: ImageIndex = parse(intake, descriptor)?;
    let wanted = choose_child(&index, descriptor, intake.platform.as_ref())?.clone();
    let mut parts = Parts::default();
    parts.blobs.push(intake.require(descriptor)?);
    for child in index.manifests() {
        match walk(intake, child, depth + 1) {
            Ok(child) => {
                parts.blobs.extend(child.blobs);
                parts.configurations.extend(child.configurations);
            }
            Err(Error::NoBlob(_)) if *child != wanted => {}
            Err(Error::Layout(layout::Error::NoPlatform { .. } | layout::Error::NotAnImage { .. }))
                if *child != wanted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(parts)
}

fn walk_manifest(intake: &mut Intake, descriptor: &Descriptor, depth: u32) -> Result<Parts, Error> {
    let manifest: ImageManifest = parse(intake, descriptor)?;
    let mut parts = Parts::default();
    parts.blobs.push(intake.require(descriptor)?);
    parts.blobs.push(intake.require(manifest.config())?);
    if let Some(configuration) = configuration(intake, &manifest)? {
        let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
        let (layers, diff_ids) = (manifest.layers().len(), configuration.rootfs().diff_ids().len());
        if layers != diff_ids {
            return Err(layout::Error::Layers { digest, layers, diff_ids }.into());
        }
        let own = Platform::from(&configuration);
        if let Some(wanted) =
            intake.platform.as_ref().filter(|wanted| depth == 0 && wanted.rank(&own).is_none())
        {
            let (wanted, offered) = (wanted.to_string(), own.to_string());
            return Err(layout::Error::NoPlatform { digest, wanted, offered }.into());
        }
        parts.configurations.push(Digest::try_from(manifest.config().digest()).map_err(layout::Error::from)?);
    } else if depth == 0 {
        let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
        let media_type = manifest.config().media_type().to_string();
        return Err(layout::Error::NotAnImage { digest, media_type }.into());
    }
    for layer in manifest.layers() {
        parts.blobs.push(intake.require(layer)?);
    }
    Ok(parts)
}

/// The image's configuration; none where the manifest is not an image's. Docker 1.10 called it `application/octet-stream`,
/// so a type that says nothing is no reason to refuse what is a configuration.
fn configuration(intake: &mut Intake, manifest: &ImageManifest) -> Result<Option<ImageConfiguration>, Error> {
    match kind(manifest.config()) {
        Kind::Configuration => parse(intake, manifest.config()).map(Some),
        Kind::Other if manifest.config().size() <= layout::MAX_JSON => {
            let content = intake.content(manifest.config())?;
            let value = json::document(&content, Kind::Other).ok();
            Ok(value.and_then(|value| ImageConfiguration::deserialize(value).ok()))
        }
        _ => Ok(None),
    }
}

fn parse<T: DeserializeOwned>(intake: &mut Intake, descriptor: &Descriptor) -> Result<T, Error> {
    let content = intake.content(descriptor)?;
    let parse = || T::deserialize(json::document(&content, kind(descriptor))?);
    parse().map_err(|source| Error::Malformed { what: descriptor.digest().to_string(), source })
}
