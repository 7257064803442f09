//! An image in the store → a name in a registry.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use oci::{
    Digest, Layout, Platform, Reference,
    media_type::{Kind, is_nondistributable, kind},
    spec::{Descriptor, ImageManifest},
};

use crate::{
    Client, Error,
    progress::Progress,
    repository::Repository,
    upload::{Uploaded, Uploads},
};

/// The result of a push.
#[derive(Debug)]
pub struct Pushed {
    /// What the name refers to in the registry now.
    pub descriptor: Descriptor,
    /// How many blobs were sent.
    pub sent: usize,
    /// How many the registry had.
    pub existing: usize,
    /// How many it took from another of its repositories.
    pub mounted: usize,
}

/// Sends an image: first blobs, then manifests, last the one that gets the name.
///
/// An index is sent whole if the images of all its platforms are in the store; otherwise only the image for `platform`
/// is sent. Layers are sent as they are in the store, even uncompressed ones, because compression would make another
/// image.
///
/// # Errors
/// When the store does not have it, or the registry refuses it.
pub fn push(
    client: &Client,
    layout: &Layout,
    source: &Descriptor,
    destination: &Reference,
    platform: Option<&Platform>,
    progress: &dyn Progress,
) -> Result<Pushed, Error> {
    let mut whole = Vec::new();
    let root = match platform.is_none() && collect(layout, source, &mut whole)? {
        true => source.clone(),
        false => {
            let image = layout.image(source, platform)?;
            whole = vec![image.descriptor.clone()];
            if image.descriptor.digest() != source.digest() {
                progress.note(&format!("only the image for {} is pushed", image.platform()));
            }
            image.descriptor
        }
    };
    check_digest(destination, &root)?;
    let repository = client.destination(destination)?;
    let blobs = blobs(layout, &whole)?;
    let origins = origins(layout, destination)?;
    let uploads = Uploads { repository: &repository, layout, progress, origins: &origins };
    let counts = send_all(&uploads, blobs, client.options().jobs.max(1))?;
    put_manifests(&repository, layout, &whole, destination, progress)?;
    // It only helps the next push, and the store may be read-only.
    let _ = layout.remember_push(destination, &root);
    let count = |wanted| counts.iter().filter(|uploaded| **uploaded == wanted).count();
    Ok(Pushed {
        descriptor: root,
        sent: count(Uploaded::Sent),
        existing: count(Uploaded::Existed),
        mounted: count(Uploaded::Mounted),
    })
}

/// A name with a digest belongs to one image: no other is sent to it.
fn check_digest(destination: &Reference, root: &Descriptor) -> Result<(), Error> {
    let digest = Digest::try_from(root.digest())?;
    match destination.digest() {
        Some(wanted) if *wanted != digest => {
            let problem = format!("the image has digest {digest}");
            Err(Error::Destination { name: destination.to_string(), problem })
        }
        _ => Ok(()),
    }
}

/// All manifests and indexes below a descriptor, each after those that it names; and whether all of them are in the
/// store.
fn collect(layout: &Layout, descriptor: &Descriptor, found: &mut Vec<Descriptor>) -> Result<bool, Error> {
    if !layout.has_blob(descriptor)? || found.len() > 1000 {
        return Ok(false);
    }
    if kind(descriptor) == Kind::Index {
        for child in layout.index(descriptor)?.manifests() {
            if !collect(layout, child, found)? {
                return Ok(false);
            }
        }
    } else {
        for layer in layout.manifest(descriptor)?.layers() {
            if !is_foreign(layer) && !layout.has_blob(layer)? {
                return Ok(false);
            }
        }
    }
    if !found.iter().any(|other| other.digest() == descriptor.digest()) {
        found.push(descriptor.clone());
    }
    Ok(true)
}

/// The configurations and layers of these manifests, each once; layers first, as users expect.
fn blobs(layout: &Layout, manifests: &[Descriptor]) -> Result<Vec<(Descriptor, bool)>, Error> {
    let mut blobs: Vec<(Descriptor, bool)> = Vec::new();
    for descriptor in manifests.iter().filter(|descriptor| kind(descriptor) == Kind::Manifest) {
        let manifest: ImageManifest = layout.manifest(descriptor)?;
        let layers = manifest.layers().iter().filter(|layer| !is_foreign(layer));
        let layers = layers.map(|layer| (layer.clone(), true));
        for (blob, is_layer) in layers.chain([(manifest.config().clone(), false)]) {
            if !blobs.iter().any(|(other, _)| other.digest() == blob.digest()) {
                blobs.push((blob, is_layer));
            }
        }
    }
    Ok(blobs)
}

/// Whether a layer is not to be distributed (image-spec, layer.md), and has a URL of its own.
fn is_foreign(layer: &Descriptor) -> bool {
    is_nondistributable(layer) && layer.urls().as_ref().is_some_and(|urls| !urls.is_empty())
}

/// For each layer of an image that was pushed to the same registry, or has a name there: the repository that the
/// registry can take it from.
fn origins(layout: &Layout, destination: &Reference) -> Result<HashMap<String, String>, Error> {
    let mut origins = HashMap::new();
    let named = layout.list()?.into_iter().filter_map(|entry| Some((entry.reference?, entry.descriptor)));
    // The registry has had what was pushed, most likely the last one. Those come last, and override.
    for (reference, descriptor) in named.chain(layout.pushed().into_iter().rev()) {
        if reference.registry() != destination.registry()
            || reference.repository() == destination.repository()
        {
            continue;
        }
        // An image that cannot be read offers no layers.
        for (_, manifest) in layout.manifests(&descriptor).unwrap_or_default() {
            for layer in manifest.layers() {
                origins.insert(layer.digest().to_string(), reference.repository().to_owned());
            }
        }
    }
    Ok(origins)
}

fn send_all(uploads: &Uploads, blobs: Vec<(Descriptor, bool)>, jobs: usize) -> Result<Vec<Uploaded>, Error> {
    uploads.announce(&blobs)?;
    let jobs = jobs.min(blobs.len());
    let queue = Mutex::new(VecDeque::from(blobs));
    let (given_up, done) = (AtomicBool::new(false), Mutex::new(Ok(Vec::new())));
    let work = || {
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        while let Some((blob, is_layer)) = next() {
            if given_up.load(Ordering::Relaxed) {
                return;
            }
            let outcome = uploads.send(&blob, is_layer);
            given_up.fetch_or(outcome.is_err(), Ordering::Relaxed);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match (outcome, done.as_mut()) {
                (Ok(uploaded), Ok(counts)) => counts.push(uploaded),
                (Err(error), Ok(_)) => *done = Err(error),
                (_, Err(_)) => {}
            }
        }
    };
    thread::scope(|scope| {
        // Where no thread can be had, this one does the work alone.
        for _ in 1..jobs {
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The manifests. The last one gets the name.
fn put_manifests(
    repository: &Repository,
    layout: &Layout,
    manifests: &[Descriptor],
    destination: &Reference,
    progress: &dyn Progress,
) -> Result<(), Error> {
    for (at, descriptor) in manifests.iter().enumerate() {
        let digest = Digest::try_from(descriptor.digest())?;
        let content = layout.read_blob(descriptor)?;
        let target = match (destination.digest(), destination.tag()) {
            _ if at + 1 < manifests.len() => digest.to_string(),
            (None, Some(tag)) => tag.to_owned(),
            _ => digest.to_string(),
        };
        repository.put_manifest(&target, descriptor, &content, progress)?;
    }
    Ok(())
}
