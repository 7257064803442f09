//! Directories → layers.


use crate::{Digest, compression::Compression};

/// How a layer is written.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How the blob is compressed.
    pub compression: Compression,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Digest of the uncompressed archive (OCI image-spec, config.md, "Layer DiffID").
    pub diff_id: Digest,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Size of the uncompressed archive in bytes.
    pub uncompressed: u64,
    /// How many entries it has: 0 for a layer that changes nothing.
    pub entries: u64,
    /// The blob's media type.
    pub media_type: &'static str,
}
