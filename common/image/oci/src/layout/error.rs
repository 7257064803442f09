//! The errors of a layout.

use std::{io, path::PathBuf};

use operation::Place;

use super::MAX_JSON;
use crate::{
    digest::{Digest, InvalidDigest, Mismatch},
    reference::InvalidReference,
};

/// Why an operation on a layout failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{0}")]
    System(#[from] operation::Error),
    /// The directory is not a layout.
    #[error("{0:?} is not an OCI image layout: it has no oci-layout file of version 1")]
    NotALayout(PathBuf),
    /// `index.json` is malformed.
    #[error("read {path:?}: {source}")]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// `index.json` is lost, and so is its copy.
    #[error("read {path:?}: {problem}, and there is no copy of it")]
    Lost {
        /// The file.
        path: PathBuf,
        /// How it was lost.
        problem: String,
    },
    /// `index.json` is lost; there is a copy of it.
    #[error("read {0:?}: it was lost, and its copy is used: nothing is removed")]
    Restored(PathBuf),
    /// A manifest that `index.json` names is missing or damaged, so nobody knows which blobs the image has.
    #[error("look through {name}: {source}")]
    Unknown {
        /// The image's name, or its digest.
        name: String,
        /// What is wrong with the manifest.
        source: Box<Error>,
    },
    /// An entry of `index.json` is malformed.
    #[error("read {path:?}: the entry {name:?} is no descriptor: {problem}")]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The blob is not in the store.
    #[error("{0} is not in the image store")]
    NoBlob(Digest),
    /// The blob could not be read, or does not match its descriptor.
    #[error("read blob {digest}: {source}")]
    Read {
        /// The blob.
        digest: Digest,
        /// The reason. It may hold a [`Mismatch`].
        source: io::Error,
    },
    /// A blob does not match its descriptor.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The digest cannot be checked.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// The JSON is too large.
    #[error("{digest} is {size} bytes of JSON: more than {} MiB are refused", MAX_JSON >> 20)]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// The JSON is malformed.
    #[error("{digest} is not {what}: {source}")]
    Malformed {
        /// The blob.
        digest: Digest,
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The value cannot be written as JSON.
    #[error("write JSON: {0}")]
    Json(serde_json::Error),
    /// There is no image with this name or id.
    #[error("no image {0:?} in the image store")]
    NoImage(String),
    /// A name has the digest of another image.
    #[error("give the name {name} to {digest}: it has another digest")]
    OtherDigest {
        /// The name.
        name: String,
        /// The image.
        digest: String,
    },
    /// Several ids begin with these digits.
    #[error("{0:?} is the beginning of more than one image's id")]
    Ambiguous(String),
    /// The text is neither a name nor an id.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// The index has no manifest for the platform, or the image is for another platform.
    #[error("{digest} has no image for {wanted}: it has {}", operation::printable_word(offered))]
    NoPlatform {
        /// The index, or the image.
        digest: Digest,
        /// The platform asked for.
        wanted: String,
        /// The platforms that exist.
        offered: String,
    },
    /// The descriptor is not that of an image.
    #[error("{digest} is not an image: its media type is {media_type:?}")]
    NotAnImage {
        /// The blob.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// The media type of a layer is not that of a layer.
    #[error("layer {digest} is not a layer: its media type is {media_type:?}")]
    NotALayer {
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// The media type of a configuration is not that of a configuration.
    #[error("configuration {digest} is not a configuration: its media type is {media_type:?}")]
    NotAConfiguration {
        /// The configuration.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// The numbers of layers in the manifest and in the configuration differ.
    #[error("image {digest}: {layers} layers in the manifest, {diff_ids} in the configuration")]
    Layers {
        /// The manifest.
        digest: Digest,
        /// The number of layers in the manifest.
        layers: usize,
        /// The number of DiffIDs in the configuration.
        diff_ids: usize,
    },
}

impl Error {
    pub(crate) fn io(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| operation::Error::new(verb, format_args!("{path:?}"), source).of(Place::Store).into()
    }
}

/// Marks an error of writing to the store as such, for callers that take an [`io::Error`].
pub(crate) fn of_store(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => io::Error::new(error.kind(), operation::Error::new("", "", error).of(Place::Store)),
        None => error,
    }
}
