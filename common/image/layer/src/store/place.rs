//! The place of a layer in the store, and its name.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use oci::Digest;
use serde::{Deserialize, Serialize};

/// The form of a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A directory, file by file.
    #[default]
    Directory,
    /// One file: an EROFS image.
    Erofs,
}

/// The place of a layer. In the document: `"directory": PATH` or `"erofs": PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The layer's directory.
    Directory(PathBuf),
    /// The layer's EROFS image.
    Erofs(PathBuf),
}

/// A string that is not a [`Format`].
#[derive(Debug, thiserror::Error)]
#[error("a layer becomes a directory or erofs")]
pub struct InvalidFormat;

impl FromStr for Format {
    type Err = InvalidFormat;

    fn from_str(text: &str) -> Result<Self, InvalidFormat> {
        match text {
            "directory" => Ok(Self::Directory),
            "erofs" => Ok(Self::Erofs),
            _ => Err(InvalidFormat),
        }
    }
}

impl Format {
    const SUFFIX: &'static str = ".erofs";

    /// The suffix of the names of layers with this format.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Directory => "",
            Self::Erofs => Self::SUFFIX,
        }
    }

    /// The format of the layer with this name.
    pub(super) fn of(name: &str) -> Self {
        if name.ends_with(Self::SUFFIX) { Self::Erofs } else { Self::Directory }
    }

    /// The name of a layer that does not depend on lower layers.
    pub(super) fn name(self, diff_id: &Digest) -> String {
        format!("{}{}", diff_id.hex(), self.suffix())
    }

    /// The place at `path` of a layer with this format.
    pub fn place(self, path: PathBuf) -> Place {
        match self {
            Self::Directory => Place::Directory(path),
            Self::Erofs => Place::Erofs(path),
        }
    }
}

impl Place {
    /// The path of the layer.
    pub fn path(&self) -> &Path {
        let (Self::Directory(path) | Self::Erofs(path)) = self;
        path
    }
}
