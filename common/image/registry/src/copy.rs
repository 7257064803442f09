//! Copies an image from one registry to another. Blobs pass through memory and are not stored.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
};

use oci::{
    Digest, Platform, Reference,
    digest::Verifying,
    image::MAX_NESTING,
    layout,
    media_type::{Kind, kind},
    spec::{Descriptor, ImageIndex, ImageManifest},
};

use crate::{
    Client, Error,
    http::AnswerBody,
    manifest::Manifest,
    progress::Progress,
    push::{Pushed, blobs_of, check_digest, put_manifests},
    repository::{Access, Repository},
    upload::{Blobs, Uploads},
};

/// The maximum size of all manifests of an image together, in bytes. They are held in memory.
const MAX_MANIFESTS: usize = 32 << 20;

/// Copies an image: first the blobs, then the manifests. The manifest that gets the name comes last.
///
/// An index is copied whole, with its attestations, or with `platform` only the image for that platform.
/// Blobs that the destination has, or can mount from another of its repositories, are not sent.
///
/// # Errors
/// When the image at the source is not complete, or the destination rejects it.
pub fn copy(
    (from, source): (&Client, &Reference),
    (to, destination): (&Client, &Reference),
    platform: Option<&Platform>,
    progress: &dyn Progress,
) -> Result<Pushed, Error> {
    let demands = from.options().policy.demands(source)?;
    let jobs = to.options().jobs.max(1);
    let client = from;
    let from = client.repository(source, Access::Pull)?;
    let mut tree = Tree { repository: &from, progress, manifests: Vec::new(), seen: HashSet::new(), size: 0 };
    let named = from.named(source, platform, progress)?;
    let root = named.descriptor.clone();
    tree.add(named, 0)?;
    client.satisfy(&demands, source, &Digest::try_from(root.digest())?, &tree.digests()?)?;
    check_digest(destination, &root)?;
    let repository = to.repository(destination, Access::Push)?;
    let blobs = blobs_of(&tree.images()?);
    // A registry can mount a blob from one of its repositories into another.
    let origins: HashMap<String, String> = match source.registry() == destination.registry() {
        true => blobs
            .iter()
            .map(|(blob, _)| (blob.digest().to_string(), source.repository().to_owned()))
            .collect(),
        false => HashMap::new(),
    };
    let uploads = Uploads { repository: &repository, source: &from, progress, origins: &origins };
    let counts = uploads.send_all(blobs, jobs)?;
    let order: Vec<Descriptor> = tree.manifests.iter().map(|manifest| manifest.descriptor.clone()).collect();
    let content = |descriptor: &Descriptor| tree.content(descriptor);
    let digest = put_manifests(&repository, &order, &content, destination, progress)?;
    Ok(Pushed::new(root, digest, &counts))
}

/// The manifests and indexes of an image, as the registry sent them.
struct Tree<'a> {
    repository: &'a Repository,
    progress: &'a dyn Progress,
    /// Each comes after those it names.
    manifests: Vec<Manifest>,
    seen: HashSet<Digest>,
    /// The total size in bytes.
    size: usize,
}

impl Tree<'_> {
    fn add(&mut self, manifest: Manifest, depth: u32) -> Result<(), Error> {
        let digest = Digest::try_from(manifest.descriptor.digest())?;
        if !self.seen.insert(digest.clone()) {
            return Ok(());
        }
        self.size += manifest.content.len();
        if self.size > MAX_MANIFESTS {
            let problem = format!("its manifests have more than {} MiB", MAX_MANIFESTS >> 20);
            return Err(Error::Content { name: digest.to_string(), problem });
        }
        if kind(&manifest.descriptor) == Kind::Index {
            let index: ImageIndex = manifest.read()?;
            for child in index.manifests() {
                match kind(child) {
                    Kind::Index | Kind::Manifest if depth < MAX_NESTING => {
                        let below = self.repository.described(child, self.progress)?;
                        self.add(below, depth + 1)?;
                    }
                    _ => {
                        let digest = Digest::try_from(child.digest())?;
                        let media_type = child.media_type().to_string();
                        return Err(layout::Error::NotAnImage { digest, media_type }.into());
                    }
                }
            }
        }
        self.manifests.push(manifest);
        Ok(())
    }

    /// The image manifests, parsed.
    fn images(&self) -> Result<Vec<ImageManifest>, Error> {
        self.manifests
            .iter()
            .filter(|it| kind(&it.descriptor) == Kind::Manifest)
            .map(Manifest::read)
            .collect()
    }

    /// The digests of the image manifests.
    fn digests(&self) -> Result<Vec<Digest>, Error> {
        let own = self.manifests.iter().filter(|it| kind(&it.descriptor) == Kind::Manifest);
        Ok(own.map(|it| Digest::try_from(it.descriptor.digest())).collect::<Result<_, _>>()?)
    }

    fn content(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let own = |manifest: &&Manifest| manifest.descriptor.digest() == descriptor.digest();
        self.manifests.iter().find(own).map(|manifest| manifest.content.clone()).ok_or(Error::GivenUp)
    }
}

impl Blobs for Repository {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>, Error> {
        let digest = Digest::try_from(descriptor.digest())?;
        let url = self.url(&format!("blobs/{digest}"))?;
        let body = self.expect("GET", url, &[], None, &[200])?.into_body();
        Ok(Box::new(Verifying::new(Body(body), digest, descriptor.size())))
    }
}

/// The body of an answer. Its errors name the request.
struct Body(AnswerBody);

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(io::Error::other)
    }
}
