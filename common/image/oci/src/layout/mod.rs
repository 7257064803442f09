//! An OCI image layout on disk (OCI image-spec, image-layout.md): the image store.
//!
//! Other tools read and write the same directory while we do. The name of an image stands in full in the annotation
//! `org.opencontainers.image.ref.name` of its descriptor in `index.json`, `docker.io/library/debian:latest`: podman and
//! buildah write it so, and skopeo and umoci take it as it is (`skopeo inspect oci:DIR:docker.io/library/debian:latest`).
//! Names that others wrote in short are read as Docker would: an entry `debian` is `docker.io/library/debian:latest`.

mod blob;
mod edit;
mod index;
mod pushed;
mod recent;
mod resolve;
mod sync;
#[cfg(test)]
mod tests;
mod trust;
mod verify;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use oci_spec::image::{Descriptor, MediaType};
use operation::Place;
use serde::{Serialize, de::DeserializeOwned};

pub use blob::{BlobReader, BlobWriter, SealedBlob};
pub use edit::Edit;
pub(crate) use index::name_of;
pub use index::{Entry, Malformed};
pub use resolve::Found;
pub use verify::{DamagedBlob, Findings, LostName};

use crate::{
    digest::{Algorithm, Digest, InvalidDigest, Mismatch},
    json,
    reference::InvalidReference,
};

/// The annotation that names an image (OCI image-spec, annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation by which containerd and `docker save` name an image in full, where [`REF_NAME`] holds its tag only.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A larger manifest, index or configuration is refused, in bytes: as registries do it (OCI distribution-spec, "Pushing
/// Manifests").
pub const MAX_JSON: u64 = 4 << 20;
/// `index.json` names every image of the store and may grow larger.
const MAX_INDEX: u64 = 64 << 20;

/// What went wrong in a layout.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something.
    #[error("{0}")]
    System(#[from] operation::Error),
    /// The directory holds no layout.
    #[error("{0:?} is not an OCI image layout: it has no oci-layout file of version 1")]
    NotALayout(PathBuf),
    /// `index.json` is not what it must be.
    #[error("read {path:?}: {source}")]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// `index.json` is gone, and what was kept of it too.
    #[error("read {path:?}: {problem}, and there is no copy of it")]
    Lost {
        /// The file.
        path: PathBuf,
        /// What became of it.
        problem: String,
    },
    /// `index.json` is gone; there is a copy of it.
    #[error("read {0:?}: it was lost, and its copy is used: nothing is removed")]
    Restored(PathBuf),
    /// An entry of `index.json` is not what it must be.
    #[error("read {path:?}: the entry {name:?} is no descriptor: {problem}")]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A blob that is not there.
    #[error("{0} is not in the image store")]
    NoBlob(Digest),
    /// A blob that could not be read, or is not what its descriptor says.
    #[error("read blob {digest}: {source}")]
    Read {
        /// The blob.
        digest: Digest,
        /// Why: a [`Mismatch`] may be inside.
        source: io::Error,
    },
    /// A blob that is not what its descriptor says.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// A digest that cannot be checked.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// More JSON than anybody needs.
    #[error("{digest} is {size} bytes of JSON: more than {} MiB are refused", MAX_JSON >> 20)]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// JSON of another form.
    #[error("{digest} is not {what}: {source}")]
    Malformed {
        /// The blob.
        digest: Digest,
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A value that cannot be written as JSON.
    #[error("write JSON: {0}")]
    Json(serde_json::Error),
    /// No image of this name or id.
    #[error("no image {0:?} in the image store")]
    NoImage(String),
    /// A prefix of several ids.
    #[error("{0:?} is the beginning of more than one image's id")]
    Ambiguous(String),
    /// A string that is neither a name nor an id.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// An index without a manifest for the platform.
    #[error("{digest} has no image for {wanted}: it has {offered}")]
    NoPlatform {
        /// The index, or the image.
        digest: Digest,
        /// What was asked for.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// A descriptor of something that is not an image.
    #[error("{digest} is no image but {media_type:?}")]
    NotAnImage {
        /// What it is about.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A layer of an image that is not one.
    #[error("layer {digest} is no layer but {media_type:?}")]
    NotALayer {
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A configuration of an image that is not one.
    #[error("configuration {digest} is no configuration but {media_type:?}")]
    NotAConfiguration {
        /// The configuration.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A manifest and a configuration that do not fit together.
    #[error("image {digest}: {layers} layers in the manifest, {diff_ids} in the configuration")]
    Layers {
        /// The manifest.
        digest: Digest,
        /// How many layers it lists.
        layers: usize,
        /// How many DiffIDs its configuration lists.
        diff_ids: usize,
    },
}

impl Error {
    pub(crate) fn io(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| operation::Error::new(verb, format_args!("{path:?}"), source).of(Place::Store).into()
    }
}

/// An error of writing to the store, for whoever takes an [`io::Error`]: it says in which place it arose.
pub(crate) fn of_store(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => io::Error::new(error.kind(), operation::Error::new("", "", error).of(Place::Store)),
        None => error,
    }
}

/// An OCI image layout.
#[derive(Debug, Clone)]
pub struct Layout {
    path: PathBuf,
    sync: bool,
    /// Whether a blob was written that may not be on the disk yet.
    unsynced: Arc<AtomicBool>,
    trust: Arc<Mutex<trust::Trust>>,
}

/// What the file `oci-layout` says.
enum Version {
    One,
    /// Nothing any more: a power cut has taken what skopeo wrote there in place.
    Torn,
    /// There is no such file, or it is of something else.
    None,
}

impl Layout {
    /// Opens the layout in the directory `path` (`$STAVE_ROOT/images`) and makes what is missing of it.
    ///
    /// # Errors
    /// When it cannot be made, or the directory holds a layout of another version.
    pub fn open_or_create(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::open_or_create_with(path, true)
    }

    /// The same, with [`Layout::with_sync`] from the start.
    ///
    /// # Errors
    /// As [`Layout::open_or_create`].
    pub fn open_or_create_with(path: impl Into<PathBuf>, sync: bool) -> Result<Self, Error> {
        let layout = Self::new(path.into()).with_sync(sync);
        match layout.version()? {
            Version::One => return Ok(layout),
            Version::None if layout.path.join("oci-layout").exists() => {
                return Err(Error::NotALayout(layout.path));
            }
            Version::None | Version::Torn => {}
        }
        let blobs = layout.path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(Error::io("create directory", &blobs))?;
        layout.initialise()?;
        Ok(layout)
    }

    /// Opens a layout that is there already; nothing is written.
    ///
    /// # Errors
    /// [`Error::NotALayout`], or when it cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let layout = Self::new(path.into());
        match layout.version()? {
            Version::One => Ok(layout),
            Version::Torn if layout.index_path().exists() => Ok(layout),
            Version::None | Version::Torn => Err(Error::NotALayout(layout.path)),
        }
    }

    /// A layout to look at: nothing is written, and one that is not there has no images.
    ///
    /// # Errors
    /// [`Error::NotALayout`], or when it cannot be read.
    pub fn look(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let layout = Self::new(path.into());
        match layout.version()? {
            Version::None if layout.path.join("oci-layout").exists() => Err(Error::NotALayout(layout.path)),
            _ => Ok(layout),
        }
    }

    fn new(path: PathBuf) -> Self {
        Self { path, sync: true, unsynced: Arc::default(), trust: Arc::default() }
    }

    fn version(&self) -> Result<Version, Error> {
        let file = self.path.join("oci-layout");
        // skopeo writes it in place, each time that it writes an image.
        for attempt in 1.. {
            let text = match read_limited(&file, MAX_JSON) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(Error::io("read", file)(error)),
            };
            match json::from_slice::<serde_json::Value>(&text) {
                Err(error) if error.is_eof() && attempt < index::ATTEMPTS => std::thread::sleep(index::PAUSE),
                Err(error) if error.is_eof() || text.iter().all(|byte| *byte == 0) => {
                    return Ok(Version::Torn);
                }
                Ok(value) if is_version_1(&value) => return Ok(Version::One),
                _ => break,
            }
        }
        Ok(Version::None)
    }

    /// The layout's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the blob of this digest stands, or would stand.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// The size of a blob in bytes; none where it is missing. Its content is not looked at.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look for", path)(error)),
        }
    }

    /// Whether the blob is there in the size that its descriptor says. Who relies on its content without reading it asks for
    /// [`Layout::has_sound_blob`].
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        Ok(self.blob_size(&Digest::try_from(descriptor.digest())?)? == Some(descriptor.size()))
    }

    /// A reader of a blob. It fails at the end where the content is not what the descriptor says: who stops before the
    /// end calls [`finish`](crate::digest::Verifying::finish).
    ///
    /// # Errors
    /// When the blob is missing, cannot be opened, or has another size.
    pub fn blob_reader(&self, descriptor: &Descriptor) -> Result<BlobReader, Error> {
        blob::open(self, descriptor)
    }

    /// The file of a blob, for who checks what comes out of it by another digest: a layer's archive has its DiffID.
    ///
    /// # Errors
    /// As [`Layout::blob_reader`].
    pub fn blob_unchecked(&self, descriptor: &Descriptor) -> Result<fs::File, Error> {
        blob::open_unchecked(self, descriptor)
    }

    /// The whole content of a small blob, checked.
    ///
    /// # Errors
    /// As [`Layout::blob_reader`]; [`Error::TooLarge`] above [`MAX_JSON`].
    pub fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let digest = Digest::try_from(descriptor.digest())?;
        if descriptor.size() > MAX_JSON {
            return Err(Error::TooLarge { digest, size: descriptor.size() });
        }
        let mut content = Vec::new();
        let mut reader = self.blob_reader(descriptor)?;
        io::Read::read_to_end(&mut reader, &mut content).map_err(|source| Error::Read { digest, source })?;
        Ok(content)
    }

    /// A blob of JSON, checked and parsed.
    ///
    /// # Errors
    /// As [`Layout::read_blob`], and when it is not a `T`.
    pub fn read_json<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, Error> {
        let content = self.read_blob(descriptor)?;
        json::from_slice(&content).map_err(|source| Error::Malformed {
            digest: Digest::of(&content),
            what: "the JSON that its media type says",
            source,
        })
    }

    /// A writer of a new blob, by SHA-256.
    ///
    /// # Errors
    /// When no file can be made.
    pub fn writer(&self) -> Result<BlobWriter, Error> {
        BlobWriter::new(self, Algorithm::Sha256, None)
    }

    /// A writer of the blob that a descriptor names: anything else is refused, at the latest by its `commit`.
    ///
    /// # Errors
    /// When no file can be made.
    pub fn writer_of(&self, descriptor: &Descriptor) -> Result<BlobWriter, Error> {
        let digest = Digest::try_from(descriptor.digest())?;
        BlobWriter::new(self, digest.algorithm(), Some((digest, descriptor.size())))
    }

    /// Writes a small blob as it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_blob(&self, media_type: MediaType, content: &[u8]) -> Result<Descriptor, Error> {
        let digest = Digest::of(content);
        let size = content.len() as u64;
        let same = |found: Vec<u8>| found == content;
        if self.blob_size(&digest)? == Some(size)
            && read_limited(&self.blob_path(&digest), size).is_ok_and(same)
        {
            self.touch_blob(&digest);
            self.trust(digest.clone());
        } else {
            let mut writer = self.writer()?;
            io::Write::write_all(&mut writer, content)
                .map_err(Error::io("write blob in", self.path.clone()))?;
            writer.seal()?.put()?;
        }
        Ok(Descriptor::new(media_type, size, digest))
    }

    /// Writes a manifest, an index or a configuration, in bytes that are the same each time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_json<T: Serialize>(&self, media_type: MediaType, value: &T) -> Result<Descriptor, Error> {
        self.write_blob(media_type, &json::to_vec(value).map_err(Error::Json)?)
    }
}

fn is_version_1(layout: &serde_json::Value) -> bool {
    let version = layout["imageLayoutVersion"].as_str();
    version.is_some_and(|version| version == "1" || version.starts_with("1."))
}

/// A file of at most `limit` bytes.
fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    read_to_limit(&blob::open_regular(path)?, limit, &mut content)?;
    Ok(content)
}

fn read_to_limit(file: &fs::File, limit: u64, content: &mut Vec<u8>) -> io::Result<()> {
    io::Read::read_to_end(&mut io::Read::take(file, limit + 1), content)?;
    match content.len() as u64 > limit {
        true => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("more than {} MiB of JSON are refused", limit >> 20),
        )),
        false => Ok(()),
    }
}
