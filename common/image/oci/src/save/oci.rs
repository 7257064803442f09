//! Writes OCI archives. Each image has its name in two annotations (in full for podman, and in containerd's
//! form), and in Docker's own list next to the index.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use super::{Archive, Error, Named};
use crate::{
    digest::Digest,
    json,
    layout::{self, CONTAINERD_NAME, Layout, REF_NAME},
    media_type::{Kind, kind},
    platform::Platform,
    reference::Reference,
};

pub(super) fn save<W: Write>(
    layout: &Layout,
    images: &[Named],
    platform: Option<&Platform>,
    archive: &mut Archive<W>,
) -> Result<(), Error> {
    let mut blobs = BTreeMap::new();
    let (mut entries, mut for_docker) = (Vec::new(), Vec::new());
    for image in images {
        let mut descriptor = image.descriptor.clone();
        if platform.is_some() {
            descriptor = layout.image(&descriptor, platform)?.descriptor;
        } else if kind(&descriptor) == Kind::Index
            && let Ok(image) = layout.image(&descriptor, None)
            && Platform::host().rank(&image.platform()).is_none()
            && lists_host(layout, &descriptor)?
        {
            // A reader of the index would look for this machine's image, which is not in the store.
            descriptor = image.descriptor;
        }
        collect(layout, &descriptor, &mut blobs)?;
        for_docker.extend(entry_for_docker(layout, &descriptor, &image.references));
        let names: Vec<Option<String>> = match image.references.is_empty() {
            true => vec![None],
            false => image.references.iter().map(|reference| Some(reference.canonical())).collect(),
        };
        for name in names {
            let mut entry = descriptor.clone();
            entry.set_annotations(name.map(|name| {
                HashMap::from(
                    [(REF_NAME, name.clone()), (CONTAINERD_NAME, name)]
                        .map(|(key, name)| (key.to_owned(), name)),
                )
            }));
            entries.push(entry);
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
    archive.1.expect(super::total(&blobs));
    // These files come first: they tell a reader of a stream what the archive is.
    archive.text("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.text("index.json", &json::to_vec(&index).map_err(layout::Error::Json)?)?;
    archive.text("manifest.json", &json::to_vec(&for_docker).map_err(layout::Error::Json)?)?;
    archive.directory("blobs/")?;
    let mut directory = String::new();
    for (digest, descriptor) in &blobs {
        let here = format!("blobs/{}/", digest.algorithm().as_str());
        if here != directory {
            archive.directory(&here)?;
        }
        archive.blob(layout, &format!("{here}{}", digest.hex()), descriptor)?;
        directory = here;
    }
    Ok(())
}

/// Whether an index has an image for this machine, be it in the store or not.
fn lists_host(layout: &Layout, index: &Descriptor) -> Result<bool, Error> {
    let index = layout.index(index)?;
    let platforms = index.manifests().iter().filter_map(|entry| entry.platform().as_ref());
    let mut platforms = platforms.map(Platform::from);
    Ok(platforms.any(|platform| Platform::host().rank(&platform).is_some()))
}

/// An entry of Docker's list of images, `manifest.json`. Its paths are blobs of the layout: `docker save`
/// writes both lists since Docker 25. None if the descriptor is not that of an image.
fn entry_for_docker(layout: &Layout, descriptor: &Descriptor, references: &[Reference]) -> Option<Value> {
    let image = layout.image(descriptor, None).ok()?;
    let path = |descriptor: &Descriptor| {
        let digest = descriptor.digest();
        format!("blobs/{}/{}", digest.algorithm(), digest.digest())
    };
    let tagged = references.iter().filter(|name| name.tag().is_some());
    let names: Vec<String> = tagged.map(Reference::canonical).collect();
    let layers: Vec<String> = image.manifest.layers().iter().map(path).collect();
    let names = if names.is_empty() { Value::Null } else { json!(names) };
    Some(json!({"Config": path(image.manifest.config()), "RepoTags": names, "Layers": layers}))
}

/// The blobs of an image, or of the images of an index that are in the store.
pub(super) fn blobs(layout: &Layout, descriptor: &Descriptor) -> Result<BTreeMap<Digest, Descriptor>, Error> {
    let mut blobs = BTreeMap::new();
    collect(layout, descriptor, &mut blobs)?;
    Ok(blobs)
}

fn collect(
    layout: &Layout,
    descriptor: &Descriptor,
    blobs: &mut BTreeMap<Digest, Descriptor>,
) -> Result<(), Error> {
    let mut add = |descriptor: &Descriptor| -> Result<(), Error> {
        let digest = Digest::try_from(descriptor.digest()).map_err(layout::Error::from)?;
        if !layout.has_blob(descriptor)? {
            // Returns the error: the blob is missing or has another size.
            layout.blob_reader(descriptor)?;
        }
        blobs.insert(digest, descriptor.clone());
        Ok(())
    };
    if kind(descriptor) == Kind::Index {
        add(descriptor)?;
    }
    let manifests = layout.manifests(descriptor)?;
    if manifests.is_empty() {
        return Err(layout.image(descriptor, None).map(|_| ()).err().map_or_else(
            || Error::Layout(layout::Error::NoImage(descriptor.digest().to_string())),
            Error::Layout,
        ));
    }
    for (child, manifest) in manifests {
        add(&child)?;
        add(manifest.config())?;
        manifest.layers().iter().try_for_each(&mut add)?;
    }
    Ok(())
}
