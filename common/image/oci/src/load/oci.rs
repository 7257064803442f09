//! OCI layouts, in a directory or in an archive (OCI image-spec, image-layout.md).

use std::collections::HashMap;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Error, Found, Intake,
    docker::{ImageList, json_member, member},
    intake::Stored,
};
use crate::{
    digest::Digest,
    image::{MAX_NESTING, choose_child, is_image},
    json,
    layout::{self, Entry, Layout},
    media_type::{Kind, kind, kind_of},
    platform::Platform,
    reference::Reference,
    shape,
};

pub(super) fn from_layout(intake: &mut Intake, source: Layout) -> Result<(), Error> {
    let (entries, malformed) = source.list_all()?;
    let path = source.index_path().display().to_string();
    intake.source = Some(source);
    add_entries(intake, entries, &HashMap::new())?;
    // Other images of the layout can be loaded all the same.
    match malformed.into_iter().next() {
        Some(entry) if intake.images.is_empty() => Err(Error::Entry { list: path, problem: entry.problem }),
        _ => Ok(()),
    }
}

pub(super) fn from_archive(intake: &mut Intake, members: &HashMap<String, Stored>) -> Result<(), Error> {
    let index: Value = json_member(intake, members, "index.json")?;
    json::hold(&index, Kind::Index)
        .map_err(|source| Error::Malformed { what: "index.json".to_owned(), source })?;
    let (entries, malformed) = layout::sorted_entries(&index);
    // `docker save` writes both lists. Only manifest.json has the full names.
    let names = match members.contains_key("manifest.json") {
        true => names_by_configuration(&json_member::<ImageList>(intake, members, "manifest.json")?)?,
        false => HashMap::new(),
    };
    add_entries(intake, entries, &names)?;
    match malformed.into_iter().next() {
        Some(entry) if intake.images.is_empty() && names.is_empty() => {
            Err(Error::Entry { list: "index.json in the archive".to_owned(), problem: entry.problem })
        }
        _ => Ok(()),
    }
}

/// The manifest or index in `manifest.json`, if that is none of Docker's lists: skopeo's transport `dir` has the blobs
/// beside it (containers-transports(5)).
pub(super) fn transported(
    intake: &mut Intake,
    members: &HashMap<String, Stored>,
) -> Result<Option<Descriptor>, Error> {
    let value: Value = json_member(intake, members, "manifest.json")?;
    let has = |name: &str| value.get(name).is_some_and(|member| !member.is_null());
    let shape = match (has("manifests"), has("config") || has("layers")) {
        (true, false) => MediaType::ImageIndex,
        (false, true) => MediaType::ImageManifest,
        // It is read as Docker's list.
        _ => return Ok(None),
    };
    let own = value["mediaType"].as_str().map(MediaType::from).filter(|own| kind_of(own) != Kind::Other);
    let (digest, size, _) = member(members, "manifest.json")?;
    Ok(Some(Descriptor::new(own.unwrap_or(shape), size, digest)))
}

/// Loads the image of skopeo's transport `dir`. Its blobs are found by their digests, whatever their names are.
pub(super) fn from_directory(intake: &mut Intake, descriptor: Descriptor) -> Result<(), Error> {
    add_entries(intake, vec![Entry { reference: None, descriptor }], &HashMap::new())
}

fn names_by_configuration(list: &ImageList) -> Result<HashMap<String, Vec<Reference>>, Error> {
    let mut names = HashMap::new();
    for image in &list.0 {
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
        // Names are annotations of the index's entry, not of the image.
        descriptor.set_annotations(None);
        if !matches!(kind(&descriptor), Kind::Manifest | Kind::Index) {
            continue;
        }
        if let Err(error @ Error::NoBlob(_)) = intake.require(&descriptor) {
            let name = reference.map_or_else(|| descriptor.digest().to_string(), |name| name.to_string());
            intake.passed_over.push(name);
            other.get_or_insert(error);
            continue;
        }
        let image = match walk(intake, &descriptor, 0) {
            // Skip signatures and other artifacts that refer to an image: they are listed beside it.
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

/// The blobs of an image.
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

/// An index need not come with the images of all platforms, only with the wanted one.
fn walk_index(intake: &mut Intake, descriptor: &Descriptor, depth: u32) -> Result<Parts, Error> {
    let index: ImageIndex = parse(intake, descriptor)?;
    let not_an_image = || -> Result<Parts, Error> {
        let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
        Err(layout::Error::NotAnImage { digest, media_type: descriptor.media_type().to_string() }.into())
    };
    // Referrers are listed in an index too (distribution-spec, "Referrers Tag Schema").
    if !index.manifests().is_empty() && !index.manifests().iter().any(is_image) {
        return not_an_image();
    }
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
    if depth == 0 && parts.configurations.is_empty() {
        return not_an_image();
    }
    Ok(parts)
}

fn walk_manifest(intake: &mut Intake, descriptor: &Descriptor, depth: u32) -> Result<Parts, Error> {
    let manifest: ImageManifest = parse(intake, descriptor)?;
    let mut parts = Parts::default();
    parts.blobs.push(intake.require(descriptor)?);
    parts.blobs.push(intake.require(manifest.config())?);
    // A signature by cosign has the configuration of an image, too.
    let has_layers =
        manifest.layers().is_empty() || manifest.layers().iter().any(|layer| kind(layer) == Kind::Layer);
    let configuration = if has_layers { configuration(intake, &manifest)? } else { None };
    if let Some(configuration) = configuration {
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
        let type_of = |part: &Descriptor| part.media_type().to_string();
        let media_type = match manifest.layers().first() {
            Some(layer) if !has_layers => type_of(layer),
            _ => type_of(manifest.config()),
        };
        return Err(layout::Error::NotAnImage { digest, media_type }.into());
    }
    for layer in manifest.layers() {
        parts.blobs.push(intake.require(layer)?);
    }
    Ok(parts)
}

/// The image's configuration; None if the manifest is not an image's. Docker 1.10 gave the configuration the
/// media type `application/octet-stream`, so an unknown media type does not rule out a configuration.
fn configuration(intake: &mut Intake, manifest: &ImageManifest) -> Result<Option<ImageConfiguration>, Error> {
    match kind(manifest.config()) {
        Kind::Configuration => {
            let mut value: Value = parse(intake, manifest.config())?;
            let malformed =
                |source| Error::Malformed { what: manifest.config().digest().to_string(), source };
            shape::configuration(&mut value).map(Some).map_err(malformed)
        }
        Kind::Other if manifest.config().size() <= layout::MAX_JSON => {
            let content = intake.content(manifest.config())?;
            let value = json::document(&content, Kind::Other).ok();
            Ok(value.and_then(|mut value| shape::configuration(&mut value).ok()))
        }
        _ => Ok(None),
    }
}

fn parse<T: DeserializeOwned>(intake: &mut Intake, descriptor: &Descriptor) -> Result<T, Error> {
    let content = intake.content(descriptor)?;
    let parse = || T::deserialize(json::document(&content, kind(descriptor))?);
    parse().map_err(|source| Error::Malformed { what: descriptor.digest().to_string(), source })
}
