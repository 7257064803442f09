//! Media types. Docker's image manifest version 2, schema 2, is read as an OCI manifest, which has the same
//! members.

use archive::Compression;
use oci_spec::image::{Descriptor, MediaType};

/// `application/vnd.docker.distribution.manifest.v2+json`
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// `application/vnd.docker.distribution.manifest.list.v2+json`
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// `application/vnd.docker.container.image.v1+json`
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// `application/vnd.docker.image.rootfs.diff.tar`
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// `application/vnd.docker.image.rootfs.diff.tar.gzip`
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// `application/vnd.docker.image.rootfs.diff.tar.zstd`
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// What a descriptor points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An image manifest.
    Manifest,
    /// An image index, or Docker's manifest list.
    Index,
    /// An image configuration.
    Configuration,
    /// A layer's tar.
    Layer,
    /// Something else. It is kept but never interpreted.
    Other,
}

/// The media type of a layer with this compression; None if the image-spec has none.
pub fn of_layer(compression: Compression) -> Option<MediaType> {
    match compression {
        Compression::None => Some(MediaType::ImageLayer),
        Compression::Gzip => Some(MediaType::ImageLayerGzip),
        Compression::Zstd => Some(MediaType::ImageLayerZstd),
        Compression::Xz | Compression::Bzip2 => None,
    }
}

/// The prefix of Docker's media types for layers that must not be distributed.
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/// Whether registries must not distribute this layer.
pub fn is_nondistributable(layer: &Descriptor) -> bool {
    match layer.media_type() {
        MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => true,
        MediaType::Other(name) => name.starts_with(DOCKER_FOREIGN),
        _ => false,
    }
}

/// What a descriptor points at.
pub fn kind(descriptor: &Descriptor) -> Kind {
    kind_of(descriptor.media_type())
}

/// What a media type stands for.
pub fn kind_of(media_type: &MediaType) -> Kind {
    match media_type {
        MediaType::ImageManifest => Kind::Manifest,
        MediaType::ImageIndex => Kind::Index,
        MediaType::ImageConfig => Kind::Configuration,
        MediaType::ImageLayer
        | MediaType::ImageLayerGzip
        | MediaType::ImageLayerZstd
        | MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => Kind::Layer,
        MediaType::Other(name) => match name.as_str() {
            DOCKER_MANIFEST => Kind::Manifest,
            DOCKER_MANIFEST_LIST => Kind::Index,
            DOCKER_CONFIG => Kind::Configuration,
            name if name.starts_with(DOCKER_LAYER) => Kind::Layer,
            name if name.starts_with(DOCKER_FOREIGN) => Kind::Layer,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}
