//! The compression of a layer's blob.

/// How to compress a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip, at a level from 1 (fast) to 12 (small).
    Gzip {
        /// The level.
        level: u32,
    },
    /// zstd, at a level from 1 to 19.
    Zstd {
        /// The level.
        level: i32,
    },
}

impl Compression {
    /// gzip at the best level for builds: libdeflate's level 1 gives smaller blobs than zlib's level 2, in
    /// half the time.
    pub const GZIP: Self = Self::Gzip { level: 1 };
    /// zstd at its default level.
    pub const ZSTD: Self = Self::Zstd { level: 3 };

    /// The OCI media type of a layer with this compression (image-spec, layer.md).
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip { .. } => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd { .. } => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A string that is not a compression.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is none of none, gzip[:1-12] and zstd[:1-19]")]
pub struct InvalidCompression(String);

impl std::str::FromStr for Compression {
    type Err = InvalidCompression;

    fn from_str(text: &str) -> Result<Self, InvalidCompression> {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        let level = level.map(str::parse::<u32>).transpose();
        match (name, level) {
            ("none", Ok(None)) => Ok(Self::None),
            ("gzip", Ok(None)) => Ok(Self::GZIP),
            ("gzip", Ok(Some(level @ 1..=12))) => Ok(Self::Gzip { level }),
            ("zstd", Ok(None)) => Ok(Self::ZSTD),
            ("zstd", Ok(Some(level @ 1..=19))) => Ok(Self::Zstd { level: level as i32 }),
            _ => Err(InvalidCompression(text.to_owned())),
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self::GZIP
    }
}
