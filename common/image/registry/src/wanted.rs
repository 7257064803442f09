//! Which images of an index are wanted.

use oci::Platform;

/// Which images of an index to pull. A name that refers to a single image always gets that image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The image for this machine.
    Host,
    /// The images for these platforms. `unknown/unknown` means all entries for no platform: attestations,
    /// signatures.
    Platforms(Vec<Platform>),
    /// Everything in the index.
    All,
}

impl Wanted {
    /// The platform of the image that goes into the document. None means this machine's platform, or else the
    /// first image.
    pub(crate) fn first(&self) -> Option<&Platform> {
        match self {
            Self::Platforms(platforms) => platforms.iter().find(|platform| !platform.is_unknown()),
            Self::Host | Self::All => None,
        }
    }
}
