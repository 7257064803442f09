//! Pushes an image from the store to a registry.

use std::collections::{HashMap, HashSet};

use oci::{
    Digest, Layout, Platform, Reference,
    image::MAX_NESTING,
    layout,
    media_type::{Kind, is_nondistributable, kind},
    spec::{Descriptor, ImageManifest},
};

use crate::{
    Client, Error,
    progress::Progress,
    referrers,
    repository::{Access, Repository},
    upload::{Uploaded, Uploads},
};

/// The result of a push.
#[derive(Debug)]
pub struct Pushed {
    /// What the name refers to in the registry now.
    pub descriptor: Descriptor,
    /// The digest by which the registry has it.
    pub digest: Digest,
    /// The number of blobs sent.
    pub sent: usize,
    /// The number of blobs that the registry already had.
    pub existing: usize,
    /// The number of blobs that the registry mounted from another of its repositories.
    pub mounted: usize,
}

/// Sends an image: first the blobs, then the manifests. The manifest that gets the name comes last.
///
/// An index is sent whole, or with `platform` only the image for that platform. Layers are sent as stored,
/// even if they are not compressed: compression would make another image.
///
/// # Errors
/// When the image in the store is not complete, or the registry rejects it.
pub fn push(
    client: &Client,
    layout: &Layout,
    source: &Descriptor,
    destination: &Reference,
    platform: Option<&Platform>,
    progress: &dyn Progress,
) -> Result<Pushed, Error> {
    let (root, whole) = match platform {
        Some(_) => {
            let image = layout.image(source, platform)?.descriptor;
            (image.clone(), vec![image])
        }
        None => {
            let mut parts = Parts::default();
            parts.collect(layout, source, 0)?;
            match parts.missing.is_empty() {
                true => (source.clone(), parts.whole),
                false => return Err(incomplete(destination, parts.missing)),
            }
        }
    };
    check_digest(destination, &root)?;
    let repository = client.repository(destination, Access::Push)?;
    let blobs = blobs(layout, &whole)?;
    let origins = origins(layout, destination)?;
    let uploads = Uploads { repository: &repository, source: layout, progress, origins: &origins };
    let counts = uploads.send_all(blobs, client.options().jobs.max(1))?;
    let read = |manifest: &Descriptor| Ok(layout.read_blob(manifest)?);
    let digest = put_manifests(&repository, &whole, &read, destination, progress)?;
    // The record only helps the next push, and the store may be read-only.
    let _ = layout.remember_push(destination, &root);
    Ok(Pushed::new(root, digest, &counts))
}

impl Pushed {
    pub(crate) fn new(descriptor: Descriptor, digest: Digest, counts: &[Uploaded]) -> Self {
        let count = |wanted| counts.iter().filter(|uploaded| **uploaded == wanted).count();
        let (sent, existing) = (count(Uploaded::Sent), count(Uploaded::Existed));
        Self { descriptor, digest, sent, existing, mounted: count(Uploaded::Mounted) }
    }
}

/// The platforms of an image that a layout lacks, or the digests of manifests that have no platform.
///
/// # Errors
/// When what there is cannot be read.
pub fn missing(layout: &Layout, image: &Descriptor) -> Result<Vec<String>, Error> {
    let mut parts = Parts::default();
    parts.collect(layout, image, 0)?;
    Ok(parts.missing)
}

/// Checks that a name with a digest is that of the image to send.
pub(crate) fn check_digest(destination: &Reference, root: &Descriptor) -> Result<(), Error> {
    let digest = Digest::try_from(root.digest())?;
    match destination.digest() {
        Some(wanted) if *wanted != digest => {
            let problem = format!("the image has digest {digest}");
            Err(Error::Destination { name: destination.to_string(), problem })
        }
        _ => Ok(()),
    }
}

/// The manifests of an image that are in the store, and what is missing.
#[derive(Default)]
struct Parts {
    /// All manifests and indexes. Each comes after those it names.
    whole: Vec<Descriptor>,
    /// The platforms of missing manifests, or the digest if the index gives no platform.
    missing: Vec<String>,
    seen: HashSet<Digest>,
}

impl Parts {
    fn collect(&mut self, layout: &Layout, descriptor: &Descriptor, depth: u32) -> Result<(), Error> {
        if !self.seen.insert(Digest::try_from(descriptor.digest())?) {
            return Ok(());
        }
        let is_here = match (layout.has_blob(descriptor)?, kind(descriptor)) {
            (false, _) => false,
            (true, Kind::Index) if depth < MAX_NESTING => {
                for child in layout.index(descriptor)?.manifests() {
                    self.collect(layout, child, depth + 1)?;
                }
                true
            }
            (true, Kind::Manifest) => {
                let manifest = layout.manifest(descriptor)?;
                let layers = manifest.layers().iter().filter(|layer| !is_foreign(layer));
                let blobs = layers.chain([manifest.config()]).map(|blob| layout.has_blob(blob));
                blobs.collect::<Result<Vec<_>, _>>()?.into_iter().all(|is_here| is_here)
            }
            _ => {
                let digest = Digest::try_from(descriptor.digest())?;
                let media_type = descriptor.media_type().to_string();
                return Err(layout::Error::NotAnImage { digest, media_type }.into());
            }
        };
        match is_here {
            true => self.whole.push(descriptor.clone()),
            false => {
                let platform = descriptor.platform().as_ref().map(Platform::from);
                let name = platform.map_or_else(|| descriptor.digest().to_string(), |it| it.to_string());
                self.missing.extend((!self.missing.contains(&name)).then_some(name));
            }
        }
        Ok(())
    }
}

fn incomplete(destination: &Reference, mut missing: Vec<String>) -> Error {
    let more = missing.len().saturating_sub(SHOWN);
    missing.truncate(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let missing = missing.join(", ") + &more;
    Error::Incomplete { name: destination.to_string(), missing }
}

/// How many missing platforms an error lists.
const SHOWN: usize = 12;

/// The configurations and layers of the manifests, without duplicates. Layers come first, as users expect.
fn blobs(layout: &Layout, manifests: &[Descriptor]) -> Result<Vec<(Descriptor, bool)>, Error> {
    let manifests = manifests.iter().filter(|descriptor| kind(descriptor) == Kind::Manifest);
    let manifests = manifests.map(|descriptor| layout.manifest(descriptor)).collect::<Result<Vec<_>, _>>()?;
    Ok(blobs_of(&manifests))
}

/// Like [`blobs`], for manifests that have been read. Each blob comes with whether it is a layer.
pub(crate) fn blobs_of(manifests: &[ImageManifest]) -> Vec<(Descriptor, bool)> {
    let mut blobs: Vec<(Descriptor, bool)> = Vec::new();
    for manifest in manifests {
        let layers = manifest.layers().iter().filter(|layer| !is_foreign(layer));
        let layers = layers.map(|layer| (layer.clone(), true));
        for (blob, is_layer) in layers.chain([(manifest.config().clone(), false)]) {
            if !blobs.iter().any(|(other, _)| other.digest() == blob.digest()) {
                blobs.push((blob, is_layer));
            }
        }
    }
    blobs
}

/// Whether a layer must not be distributed (image-spec, layer.md) and has a URL of its own.
fn is_foreign(layer: &Descriptor) -> bool {
    is_nondistributable(layer) && layer.urls().as_ref().is_some_and(|urls| !urls.is_empty())
}

/// Repositories to mount layers from: for each layer of an image that was pushed to the same registry or has
/// a name there, a repository of that registry. Keyed by digest.
fn origins(layout: &Layout, destination: &Reference) -> Result<HashMap<String, String>, Error> {
    let mut origins = HashMap::new();
    let named = layout.list()?.into_iter().filter_map(|entry| Some((entry.reference?, entry.descriptor)));
    // A registry certainly had what was pushed, most likely in the last push. Pushed images come last and
    // override.
    for (reference, descriptor) in named.chain(layout.pushed().into_iter().rev()) {
        if reference.registry() != destination.registry()
            || reference.repository() == destination.repository()
        {
            continue;
        }
        // An image that cannot be read provides no layers.
        for (_, manifest) in layout.manifests(&descriptor).unwrap_or_default() {
            for layer in manifest.layers() {
                origins.insert(layer.digest().to_string(), reference.repository().to_owned());
            }
        }
    }
    Ok(origins)
}

/// Sends the manifests. The last one gets the name. Returns the digest by which the registry has it. If the registry
/// keeps no lists of referrers, manifests with a subject are added to the lists under tags.
pub(crate) fn put_manifests(
    repository: &Repository,
    manifests: &[Descriptor],
    read: &dyn Fn(&Descriptor) -> Result<Vec<u8>, Error>,
    destination: &Reference,
    progress: &dyn Progress,
) -> Result<Digest, Error> {
    let mut last = Err(Error::GivenUp);
    for (at, descriptor) in manifests.iter().enumerate() {
        let digest = Digest::try_from(descriptor.digest())?;
        let content = read(descriptor)?;
        let target = match (destination.digest(), destination.tag()) {
            _ if at + 1 < manifests.len() => digest.to_string(),
            (None, Some(tag)) => tag.to_owned(),
            _ => digest.to_string(),
        };
        last = Ok(put(repository, &target, descriptor, &content, progress)?);
    }
    last
}

/// Sends one manifest: see [`put_manifests`].
pub(crate) fn put(
    repository: &Repository,
    target: &str,
    descriptor: &Descriptor,
    content: &[u8],
    progress: &dyn Progress,
) -> Result<Digest, Error> {
    let (stored, lists) = repository.put_manifest(target, descriptor, content, progress)?;
    if let (false, Some((subject, referrer))) = (lists, referrers::referrer(descriptor, content)) {
        referrers::list_under_tag(repository, &subject, referrer, progress)?;
    }
    Ok(stored)
}
