//! An image: a manifest and its configuration, selected from an index by platform.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    digest::Digest,
    json,
    layout::{Error, Layout},
    media_type::{Kind, kind},
    platform::Platform,
    shape,
};

/// The maximum depth of nested indexes.
pub const MAX_NESTING: u32 = 4;

/// An image in the store, without the content of its layers.
#[derive(Debug, Clone)]
pub struct Image {
    /// The image manifest's descriptor.
    pub descriptor: Descriptor,
    /// The image manifest, in OCI's or Docker's (schema 2) form.
    pub manifest: ImageManifest,
    /// The image configuration.
    pub configuration: ImageConfiguration,
    /// The configuration as JSON, with the members that [`ImageConfiguration`] lacks: Docker's `Healthcheck`,
    /// `OnBuild`, `Shell`. Null is replaced, and missing members have their defaults.
    pub raw_configuration: Value,
}

impl Image {
    /// The image's id as Docker defines it: the digest of its configuration.
    ///
    /// # Errors
    /// When the digest's algorithm is unknown.
    pub fn id(&self) -> Result<Digest, Error> {
        Ok(Digest::try_from(self.manifest.config().digest())?)
    }

    /// The platform that the image was made for.
    pub fn platform(&self) -> Platform {
        Platform::from(&self.configuration)
    }

    /// The layers, lowest first, each with its DiffID.
    ///
    /// # Errors
    /// When one of the DiffIDs is not a digest.
    pub fn layers(&self) -> Result<Vec<(&Descriptor, Digest)>, Error> {
        let diff_ids = self.configuration.rootfs().diff_ids();
        let pair = |(descriptor, diff_id): (_, &String)| Ok((descriptor, diff_id.parse::<Digest>()?));
        self.manifest.layers().iter().zip(diff_ids).map(pair).collect()
    }
}

impl Layout {
    /// The image for a descriptor of a manifest or an index.
    ///
    /// From an index, the best entry for `platform` is used. The default platform is this machine's; if its
    /// image is not in the store, the first image in the store is used. A single manifest is used whatever
    /// its platform is, unless `platform` asks for another.
    ///
    /// # Errors
    /// When a part of the image is missing or malformed, or there is no image for the platform.
    pub fn image(&self, descriptor: &Descriptor, platform: Option<&Platform>) -> Result<Image, Error> {
        let (descriptor, manifest) = self.choose(descriptor, platform, 0)?;
        if matches!(kind(manifest.config()), Kind::Manifest | Kind::Index | Kind::Layer) {
            let digest = Digest::try_from(manifest.config().digest())?;
            return Err(Error::NotAConfiguration {
                digest,
                media_type: manifest.config().media_type().to_string(),
            });
        }
        let digest = Digest::try_from(descriptor.digest())?;
        let read = |content: &mut Value| {
            shape::configuration(content).map_err(malformed(manifest.config(), "an image configuration"))
        };
        let (raw_configuration, configuration) = match kind(manifest.config()) {
            // Docker 1.10 gave the configuration the media type `application/octet-stream`. Another unknown
            // media type with content that is no configuration belongs to an artifact.
            Kind::Other => {
                let found = self.read_value(manifest.config()).and_then(|mut raw| Ok((read(&mut raw)?, raw)));
                let (configuration, raw) = found.map_err(|error| match error {
                    Error::Malformed { .. } => {
                        let media_type = manifest.config().media_type().to_string();
                        Error::NotAnImage { digest: digest.clone(), media_type }
                    }
                    error => error,
                })?;
                (raw, configuration)
            }
            _ => {
                let mut raw = self.read_value(manifest.config())?;
                let configuration = read(&mut raw)?;
                (raw, configuration)
            }
        };
        let (layers, diff_ids) = (manifest.layers().len(), configuration.rootfs().diff_ids().len());
        if layers != diff_ids {
            return Err(Error::Layers { digest, layers, diff_ids });
        }
        let wrong = manifest.layers().iter().find(|layer| kind(layer) != Kind::Layer);
        if let Some(layer) = wrong {
            let (digest, media_type) = (Digest::try_from(layer.digest())?, layer.media_type().to_string());
            return Err(Error::NotALayer { digest, media_type });
        }
        let image = Image { descriptor, manifest, configuration, raw_configuration };
        match platform {
            Some(wanted) if wanted.rank(&image.platform()).is_none() => {
                let (wanted, offered) = (wanted.to_string(), image.platform().to_string());
                Err(Error::NoPlatform { digest, wanted, offered })
            }
            _ => Ok(image),
        }
    }

    /// A manifest, configuration or index as JSON, checked against its digest.
    fn read_value(&self, descriptor: &Descriptor) -> Result<Value, Error> {
        let content = self.read_blob(descriptor)?;
        let expected = kind(descriptor);
        json::document(&content, expected).map_err(malformed(descriptor, what(expected)))
    }

    /// Reads the manifest of a descriptor.
    ///
    /// # Errors
    /// When the manifest is missing, does not match the descriptor, or is not a manifest.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<ImageManifest, Error> {
        let value = self.read_value(descriptor)?;
        ImageManifest::deserialize(value).map_err(malformed(descriptor, "an image manifest"))
    }

    /// Reads the index of a descriptor.
    ///
    /// # Errors
    /// When the index is missing, does not match the descriptor, or is not an index.
    pub fn index(&self, descriptor: &Descriptor) -> Result<ImageIndex, Error> {
        let value = self.read_value(descriptor)?;
        ImageIndex::deserialize(value).map_err(malformed(descriptor, "an image index"))
    }

    /// All manifests of a descriptor: the manifest itself, or the manifests of an index that are in the
    /// store.
    ///
    /// # Errors
    /// When a manifest is malformed, or the only one is missing.
    pub fn manifests(&self, descriptor: &Descriptor) -> Result<Vec<(Descriptor, ImageManifest)>, Error> {
        let mut found = Vec::new();
        self.collect_manifests(descriptor, 0, &mut found)?;
        Ok(found)
    }

    fn collect_manifests(
        &self,
        descriptor: &Descriptor,
        depth: u32,
        found: &mut Vec<(Descriptor, ImageManifest)>,
    ) -> Result<(), Error> {
        match kind(descriptor) {
            Kind::Manifest => found.push((descriptor.clone(), self.manifest(descriptor)?)),
            Kind::Index if depth < MAX_NESTING => {
                for child in self.index(descriptor)?.manifests() {
                    // The store need not have an image for every platform.
                    match self.collect_manifests(child, depth + 1, found) {
                        Err(Error::NoBlob(_)) => {}
                        result => result?,
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The chosen entry of an index if it is in the store, or else the first image that is.
    fn present_child<'a>(
        &self,
        index: &'a ImageIndex,
        chosen: Result<&'a Descriptor, Error>,
    ) -> Result<&'a Descriptor, Error> {
        if matches!(chosen, Ok(chosen) if self.has_blob(chosen)?) {
            return chosen;
        }
        for child in index.manifests().iter().filter(|child| is_image(child)) {
            if self.has_blob(child)? {
                return Ok(child);
            }
        }
        chosen
    }

    fn choose(
        &self,
        descriptor: &Descriptor,
        platform: Option<&Platform>,
        depth: u32,
    ) -> Result<(Descriptor, ImageManifest), Error> {
        let not_an_image = || -> Result<_, Error> {
            let digest = Digest::try_from(descriptor.digest())?;
            Err(Error::NotAnImage { digest, media_type: descriptor.media_type().to_string() })
        };
        match kind(descriptor) {
            Kind::Manifest => Ok((descriptor.clone(), self.manifest(descriptor)?)),
            Kind::Index if depth < MAX_NESTING => {
                let index = self.index(descriptor)?;
                let chosen = choose_child(&index, descriptor, platform);
                let chosen = match platform {
                    Some(_) => chosen?,
                    None => self.present_child(&index, chosen)?,
                };
                self.choose(chosen, platform, depth + 1)
            }
            _ => not_an_image(),
        }
    }
}

/// The best entry of an index for the platform. An entry without a platform may be for any platform; it is
/// the last choice.
pub fn choose_child<'a>(
    index: &'a ImageIndex,
    descriptor: &Descriptor,
    platform: Option<&Platform>,
) -> Result<&'a Descriptor, Error> {
    let host;
    let wanted = match platform {
        Some(platform) => platform,
        None => {
            host = Platform::host();
            &host
        }
    };
    let rank = |entry: &&Descriptor| match entry.platform() {
        Some(offered) => wanted.rank(&Platform::from(offered)),
        None => Some(u32::MAX),
    };
    let images = || index.manifests().iter().filter(|e| matches!(kind(e), Kind::Manifest | Kind::Index));
    let best =
        images().filter_map(|entry| rank(&entry).map(|rank| (rank, entry))).min_by_key(|(rank, _)| *rank);
    match best {
        Some((_, entry)) => Ok(entry),
        None => {
            let digest = Digest::try_from(descriptor.digest())?;
            let offered: Vec<String> = images()
                .filter(|entry| is_image(entry))
                .filter_map(|entry| entry.platform().as_ref())
                .map(|offered| Platform::from(offered).to_string())
                .collect();
            let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
            Err(Error::NoPlatform { digest, wanted: wanted.to_string(), offered })
        }
    }
}

/// Whether an entry of an index is an image for a platform. The platform of signatures and similar artifacts
/// is unknown.
pub(crate) fn is_image(entry: &Descriptor) -> bool {
    let known = |platform: &_| !Platform::from(platform).is_unknown();
    matches!(kind(entry), Kind::Manifest | Kind::Index) && entry.platform().as_ref().is_none_or(known)
}

fn what(kind: Kind) -> &'static str {
    match kind {
        Kind::Manifest => "an image manifest",
        Kind::Index => "an image index",
        _ => "an image configuration",
    }
}

fn malformed(descriptor: &Descriptor, what: &'static str) -> impl FnOnce(serde_json::Error) -> Error + use<> {
    let digest = Digest::try_from(descriptor.digest());
    move |source| match digest {
        Ok(digest) => Error::Malformed { digest, what, source },
        Err(error) => error.into(),
    }
}
