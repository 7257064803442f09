//! Pulls an image from a registry into the store.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::Read,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use oci::{
    Digest, Image, Layout, Platform, Reference,
    digest::Mismatch,
    image::{MAX_NESTING, choose_child},
    layout::{self, MAX_JSON},
    media_type::{Kind, kind},
    spec::{Descriptor, ImageIndex, ImageManifest},
};

pub use crate::wanted::Wanted;
use crate::{
    Client, Error,
    download::{Downloads, Growing},
    manifest::Manifest,
    progress::{Event, Progress},
    sources::Sources,
};

/// An image being pulled. Its manifests and configurations are in the store; its layers may be missing.
pub struct Pull<'a> {
    layout: &'a Layout,
    sources: Sources<'a>,
    reference: &'a Reference,
    progress: &'a dyn Progress,
    jobs: usize,
    /// All manifests to pull: of the image, of images for other platforms, and of artifacts.
    manifests: Vec<ImageManifest>,
    /// The descriptor that the name refers to: of a manifest or an index.
    pub descriptor: Descriptor,
    /// Whether the store already had the complete image under this name.
    pub up_to_date: bool,
}

/// Asks the registry what a name refers to, and downloads everything except the layers. Also returns the image for the
/// first wanted platform.
///
/// # Errors
/// When the registry rejects a request or sends something unusable, or the name refers to no image.
pub fn resolve<'a>(
    client: &'a Client,
    layout: &'a Layout,
    reference: &'a Reference,
    wanted: &Wanted,
    progress: &'a dyn Progress,
) -> Result<(Pull<'a>, Image), Error> {
    let pull = begin(client, layout, reference, wanted, progress)?;
    let image = layout.image(&pull.descriptor, wanted.first())?;
    Ok((pull, image))
}

/// Like [`resolve`], for images and artifacts.
///
/// # Errors
/// Those of [`resolve`].
pub fn begin<'a>(
    client: &'a Client,
    layout: &'a Layout,
    reference: &'a Reference,
    wanted: &Wanted,
    progress: &'a dyn Progress,
) -> Result<Pull<'a>, Error> {
    let demands = client.options().policy.demands(reference)?;
    let sources = Sources::new(client, reference, progress)?;
    let local = layout.list()?.into_iter().rev().find(|entry| entry.reference.as_ref() == Some(reference));
    let local = local.map(|entry| entry.descriptor);
    let resolving = Resolving { layout, sources: &sources, progress };
    let descriptor = resolving.named(reference, local.as_ref())?;
    let Found { manifests, digests, .. } = resolving.fetch_wanted(&descriptor, wanted)?;
    client.satisfy(&demands, reference, &Digest::try_from(descriptor.digest())?, &digests)?;
    let known = local.is_some_and(|local| local.digest() == descriptor.digest());
    let up_to_date = known && missing(layout, &manifests)?.is_empty();
    let jobs = client.options().jobs.max(1);
    Ok(Pull { layout, sources, reference, progress, jobs, manifests, descriptor, up_to_date })
}

/// The manifests found below an index.
#[derive(Default)]
struct Found {
    manifests: Vec<ImageManifest>,
    digests: Vec<Digest>,
    seen: HashSet<Digest>,
}

/// Selects the wanted entries of an index.
type Choose<'a> = dyn Fn(&ImageIndex, &Descriptor) -> Result<Vec<Descriptor>, Error> + 'a;

struct Resolving<'a> {
    layout: &'a Layout,
    sources: &'a Sources<'a>,
    progress: &'a dyn Progress,
}

impl Resolving<'_> {
    /// The manifest or index that the name refers to now.
    fn named(&self, reference: &Reference, local: Option<&Descriptor>) -> Result<Descriptor, Error> {
        // Content with a given digest cannot change.
        if let (Some(digest), Some(local)) = (reference.digest(), local)
            && is(local, digest)
            && self.layout.has_sound_blob(local)?
        {
            return Ok(local.clone());
        }
        let digest = reference.digest();
        let target = reference.target();
        let manifest = self.sources.first(|source| {
            if let Some(local) = local
                // This request is cheap. Some registries limit how often manifests are fetched.
                && source.digest_of(&target).ok().flatten().is_some_and(|now| is(local, &now))
                && self.layout.has_sound_blob(local)?
            {
                return Ok(None);
            }
            source.manifest(&target, digest, self.progress).map(Some)
        })?;
        match (manifest, local) {
            (Some(manifest), _) => self.keep(manifest),
            (None, Some(local)) => {
                let digest = Digest::try_from(local.digest())?;
                self.layout.touch_blob(&digest);
                Ok(Descriptor::new(local.media_type().clone(), local.size(), digest))
            }
            (None, None) => Err(Error::GivenUp),
        }
    }

    fn keep(&self, manifest: Manifest) -> Result<Descriptor, Error> {
        let Manifest { descriptor, content } = manifest;
        if !self.layout.has_sound_blob(&descriptor)? {
            let mut writer = self.layout.writer_of(&descriptor)?;
            let digest = Digest::try_from(descriptor.digest())?;
            std::io::Write::write_all(&mut writer, &content)
                .map_err(crate::download::failed("write", &digest))?;
            writer.commit()?;
        }
        Ok(descriptor)
    }

    /// Fetches the wanted manifests, each with its configuration.
    fn fetch_wanted(&self, descriptor: &Descriptor, wanted: &Wanted) -> Result<Found, Error> {
        let mut found = Found::default();
        let mut below = |choose: &Choose<'_>| {
            // For another platform, the same indexes are followed again.
            found.seen.clear();
            self.fetch(descriptor, choose, 0, &mut found)
        };
        match wanted {
            Wanted::Host => below(&|index, from| choose(index, from, None))?,
            Wanted::All => below(&|index, _| Ok(index.manifests().clone()))?,
            Wanted::Platforms(platforms) => platforms
                .iter()
                .try_for_each(|platform| below(&|index, from| choose(index, from, Some(platform))))?,
        }
        Ok(found)
    }

    /// Follows indexes to the chosen manifests and fetches their configurations.
    fn fetch(
        &self,
        descriptor: &Descriptor,
        choose: &Choose<'_>,
        depth: u32,
        found: &mut Found,
    ) -> Result<(), Error> {
        // An index may name the same manifest several times, and so may nested indexes.
        if !found.seen.insert(Digest::try_from(descriptor.digest())?) {
            return Ok(());
        }
        match kind(descriptor) {
            Kind::Index if depth < MAX_NESTING => {
                for child in choose(&self.layout.index(descriptor)?, descriptor)? {
                    self.fetch_manifest(&child)?;
                    self.fetch(&child, choose, depth + 1, found)?;
                }
                Ok(())
            }
            Kind::Manifest => {
                let manifest: ImageManifest = self.layout.manifest(descriptor)?;
                self.fetch_configuration(manifest.config())?;
                for layer in manifest.layers().iter().filter(|layer| layer.data().is_some()) {
                    self.has(layer, &Digest::try_from(layer.digest())?)?;
                }
                found.manifests.push(manifest);
                found.digests.push(Digest::try_from(descriptor.digest())?);
                Ok(())
            }
            _ => Err(layout::Error::NotAnImage {
                digest: Digest::try_from(descriptor.digest())?,
                media_type: descriptor.media_type().to_string(),
            }
            .into()),
        }
    }

    /// Whether the store has the blob, or its descriptor has the content, which is then stored.
    fn has(&self, descriptor: &Descriptor, digest: &Digest) -> Result<bool, Error> {
        if self.layout.has_sound_blob(descriptor)? {
            self.layout.touch_blob(digest);
            return Ok(true);
        }
        let Some(content) = oci::embedded::content(descriptor) else { return Ok(false) };
        self.keep(Manifest { descriptor: descriptor.clone(), content })?;
        Ok(true)
    }

    fn fetch_manifest(&self, descriptor: &Descriptor) -> Result<(), Error> {
        let digest = check_json(descriptor)?;
        if self.has(descriptor, &digest)? {
            return Ok(());
        }
        let manifest = self
            .sources
            .first(|source| source.manifest(&digest.to_string(), Some(&digest), self.progress))?;
        let (found, expected) = (manifest.content.len() as u64, descriptor.size());
        if found != expected {
            return Err(Mismatch::Size { digest, expected, found, more: false }.into());
        }
        self.keep(manifest).map(drop)
    }

    fn fetch_configuration(&self, descriptor: &Descriptor) -> Result<(), Error> {
        if self.has(descriptor, &check_json(descriptor)?)? {
            return Ok(());
        }
        // Progress is shown only for layers.
        let (progress, given_up) = (&() as &dyn Progress, &AtomicBool::new(false));
        let downloads = Downloads { sources: self.sources, layout: self.layout, progress, given_up };
        downloads.fetch(descriptor, &Growing::default())
    }
}

/// The entry of an index for the platform (default: this machine's). For `unknown/unknown`, all entries with
/// that platform.
fn choose(
    index: &ImageIndex,
    descriptor: &Descriptor,
    platform: Option<&Platform>,
) -> Result<Vec<Descriptor>, Error> {
    match platform.filter(|platform| platform.is_unknown()) {
        None => Ok(vec![choose_child(index, descriptor, platform)?.clone()]),
        Some(_) => {
            let has_none = |entry: &&Descriptor| {
                let platform = entry.platform().as_ref().map(Platform::from);
                platform.is_some_and(|platform| platform.is_unknown())
            };
            Ok(index.manifests().iter().filter(has_none).cloned().collect())
        }
    }
}

fn is(descriptor: &Descriptor, digest: &Digest) -> bool {
    descriptor.digest().as_ref() == digest.to_string()
}

/// The digest of a blob that is read whole. The blob must not be larger than [`MAX_JSON`].
fn check_json(descriptor: &Descriptor) -> Result<Digest, Error> {
    let digest = Digest::try_from(descriptor.digest())?;
    match descriptor.size() > MAX_JSON {
        true => Err(layout::Error::TooLarge { digest, size: descriptor.size() }.into()),
        false => Ok(digest),
    }
}

/// The layers that are not in the store, without duplicates.
fn missing(layout: &Layout, manifests: &[ImageManifest]) -> Result<Vec<Descriptor>, Error> {
    let mut missing: Vec<Descriptor> = Vec::new();
    for layer in manifests.iter().flat_map(ImageManifest::layers) {
        if !layout.has_sound_blob(layer)? && !missing.iter().any(|other| other.digest() == layer.digest()) {
            missing.push(layer.clone());
        }
    }
    Ok(missing)
}

/// The layers of an image while they are downloaded.
pub struct Layers<'a> {
    layout: &'a Layout,
    coming: HashMap<Digest, Arc<Growing>>,
}

impl Layers<'_> {
    /// Reads a layer's blob from the start and waits for bytes that have not arrived. The reader reaches the
    /// end only if the content matches the descriptor; otherwise see [`Layers::begun_again`].
    ///
    /// # Errors
    /// When the layer is neither in the store nor being downloaded.
    pub fn open(&self, descriptor: &Descriptor) -> std::io::Result<Box<dyn Read + Send>> {
        let digest = Digest::try_from(descriptor.digest()).map_err(std::io::Error::other)?;
        match self.coming.get(&digest) {
            Some(blob) => Ok(Box::new(blob.follow())),
            None => self
                .layout
                .blob_reader(descriptor)
                .map(|reader| Box::new(reader) as _)
                .map_err(std::io::Error::other),
        }
    }

    /// Whether a layer whose content turned out to be wrong can be opened again, with bytes from another
    /// place. Waits while the bytes from a mirror have not been checked.
    pub fn begun_again(&self, digest: &Digest) -> bool {
        self.coming.get(digest).is_some_and(|blob| blob.begun_again())
    }
}

impl Pull<'_> {
    /// Downloads the layers, several at once. `meanwhile` can read them while they arrive. Then the image
    /// gets its name.
    ///
    /// # Errors
    /// When a layer cannot be downloaded or `meanwhile` fails. The error of a layer takes precedence.
    pub fn fetch<T, E: From<Error>>(&self, meanwhile: impl FnOnce(&Layers) -> Result<T, E>) -> Result<T, E> {
        let value = self.fetch_unnamed(meanwhile)?;
        self.layout.tag(self.reference, &self.descriptor).map_err(Error::from)?;
        Ok(value)
    }

    /// Like [`Pull::fetch`], but gives the image no name.
    ///
    /// # Errors
    /// Those of [`Pull::fetch`].
    pub fn fetch_unnamed<T, E: From<Error>>(
        &self,
        meanwhile: impl FnOnce(&Layers) -> Result<T, E>,
    ) -> Result<T, E> {
        let missing = missing(self.layout, &self.manifests)?;
        self.announce(&missing)?;
        let mut coming = HashMap::new();
        let mut queue = VecDeque::new();
        for descriptor in missing {
            let blob = Arc::new(Growing::default());
            coming.insert(Digest::try_from(descriptor.digest()).map_err(Error::from)?, blob.clone());
            queue.push_back((descriptor, blob));
        }
        let layers = Layers { layout: self.layout, coming };
        let (jobs, queue) = (self.jobs.min(queue.len()), Mutex::new(queue));
        let (given_up, failure) = (AtomicBool::new(false), Mutex::new(None));
        let downloads = Downloads {
            sources: &self.sources,
            layout: self.layout,
            progress: self.progress,
            given_up: &given_up,
        };
        let outcome = thread::scope(|scope| {
            let download = || work(downloads, &queue, &failure);
            let start = |_: &usize| thread::Builder::new().spawn_scoped(scope, download).is_ok();
            if (0..jobs).take_while(start).count() == 0 {
                // No thread can be started: download first, then call `meanwhile`.
                download();
            }
            let outcome = meanwhile(&layers);
            if outcome.is_err() {
                given_up.store(true, Ordering::Relaxed);
            }
            outcome
        });
        let failure: Option<Error> = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (failure, outcome) {
            (Some(error), _) if !matches!(error, Error::GivenUp) => Err(error.into()),
            (_, Err(error)) => Err(error),
            (Some(error), Ok(_)) => Err(error.into()),
            (None, Ok(value)) => {
                // The first blobs may be old by now. img-gc removes old blobs that no image names.
                let blobs = self.manifests.iter().flat_map(|one| one.layers().iter().chain([one.config()]));
                for blob in blobs {
                    self.layout.touch_blob(&Digest::try_from(blob.digest()).map_err(Error::from)?);
                }
                Ok(value)
            }
        }
    }

    fn announce(&self, missing: &[Descriptor]) -> Result<(), Error> {
        let mut told = HashSet::new();
        for layer in self.manifests.iter().flat_map(ImageManifest::layers) {
            let digest = Digest::try_from(layer.digest())?;
            if !told.insert(digest.clone()) {
                continue;
            }
            match missing.iter().any(|other| other.digest() == layer.digest()) {
                true => self.progress.tell(&digest, Event::Planned(layer.size())),
                false => {
                    self.layout.touch_blob(&digest);
                    // If the image is up to date, Docker prints nothing else.
                    if !self.up_to_date {
                        self.progress.tell(&digest, Event::Exists);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Downloads blobs from the queue until it is empty or a download fails.
fn work(
    downloads: Downloads,
    queue: &Mutex<VecDeque<(Descriptor, Arc<Growing>)>>,
    failure: &Mutex<Option<Error>>,
) {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some((descriptor, blob)) = next() {
        let outcome = match downloads.given_up.load(Ordering::Relaxed) {
            true => Err(Error::GivenUp),
            false => downloads.fetch(&descriptor, &blob),
        };
        if let Err(error) = outcome {
            downloads.given_up.store(true, Ordering::Relaxed);
            let mut first = failure.lock().unwrap_or_else(PoisonError::into_inner);
            if first.as_ref().is_none_or(|first| matches!(first, Error::GivenUp)) {
                *first = Some(error);
            }
            blob.fail();
        }
    }
}
