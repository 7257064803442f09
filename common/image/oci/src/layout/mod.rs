//! The image store: an OCI image layout on disk (OCI image-spec, image-layout.md).
//!
//! Other tools may read and write the same directory at the same time. An image's full name, such as
//! `docker.io/library/debian:latest`, is in the annotation `org.opencontainers.image.ref.name` of its
//! descriptor in `index.json`. podman and buildah write it in the same way; skopeo and umoci accept it
//! (`skopeo inspect oci:DIR:docker.io/library/debian:latest`). Short names of other tools are read as Docker
//! reads them: an entry `debian` is `docker.io/library/debian:latest`.

mod blob;
mod displaced;
mod edit;
mod error;
mod index;
mod pushed;
mod recent;
mod resolve;
mod sync;
#[cfg(test)]
mod tests;
mod trust;
mod verify;
mod writing;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, atomic::AtomicBool},
};

use oci_spec::image::{Descriptor, MediaType};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use blob::open_regular;
pub use blob::{BlobReader, BlobWriter, SealedBlob};
pub use edit::Edit;
pub use error::Error;
pub(crate) use error::of_store;
pub use index::{Entry, Malformed};
pub(crate) use index::{may_have, sorted_entries};
pub use resolve::Found;
pub use verify::{DamagedBlob, Findings, LostName};

use crate::{
    digest::{Algorithm, Digest, Holder},
    json,
};

/// The annotation that names an image (OCI image-spec, annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation in which containerd and `docker save` write an image's full name. [`REF_NAME`] then holds
/// only the tag.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The maximum size of a manifest, an index or a configuration, in bytes. Registries have the same limit (OCI
/// distribution-spec, "Pushing Manifests").
pub const MAX_JSON: u64 = 4 << 20;
/// The maximum size of `index.json`, in bytes. It may be larger than `MAX_JSON`, because it names every image
/// of the store.
const MAX_INDEX: u64 = 64 << 20;

/// An OCI image layout.
#[derive(Debug, Clone)]
pub struct Layout {
    path: PathBuf,
    /// Whose layout this is, for errors.
    pub(crate) holder: Holder,
    sync: bool,
    /// Whether a blob was written that may not be on the disk yet.
    unsynced: Arc<AtomicBool>,
    /// The directory, opened before the first blob was written.
    watched: Arc<OnceLock<fs::File>>,
    trust: Arc<Mutex<trust::Trust>>,
    /// Tells `img-gc` that this process writes blobs.
    writing: Arc<Mutex<Option<writing::Note>>>,
}

/// The content of the file `oci-layout`.
enum Version {
    One,
    /// The file is empty or zeros: skopeo wrote it in place, and a power cut took the content.
    Torn,
    /// There is no such file, or it is for another version.
    None,
}

impl Layout {
    /// Opens the layout in the directory `path` (`$STAVE_ROOT/images`). Missing parts are created. Only its owner
    /// can enter a new one: images may have secrets in them.
    ///
    /// # Errors
    /// When the layout cannot be created, or the directory holds a layout of another version. [`Error::Lost`] if it
    /// holds blobs, and neither a list of images nor a copy of it.
    pub fn open_or_create(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::open_or_create_with(path, true)
    }

    /// Like [`Layout::open_or_create`], with [`Layout::with_sync`] set from the start.
    ///
    /// # Errors
    /// Those of [`Layout::open_or_create`].
    pub fn open_or_create_with(path: impl Into<PathBuf>, sync: bool) -> Result<Self, Error> {
        Self::open_or_make(path.into(), sync, true)
    }

    /// Like [`Layout::open_or_create_with`], for a layout that others may read. Where it has blobs and no list, it gets
    /// an empty one.
    ///
    /// # Errors
    /// Those of [`Layout::open_or_create`], without [`Error::Lost`].
    pub fn open_or_create_public(path: impl Into<PathBuf>, sync: bool) -> Result<Self, Error> {
        Self::open_or_make(path.into(), sync, false)
    }

    fn open_or_make(path: PathBuf, sync: bool, is_store: bool) -> Result<Self, Error> {
        let layout = Self::new(path).with_sync(sync);
        match layout.version()? {
            Version::One => {
                // Blobs that are found from now on stay. A user who cannot write the note cannot write a blob either.
                let _ = layout.note_writing();
                return Ok(layout);
            }
            Version::None if layout.path.join("oci-layout").exists() => {
                return Err(Error::NotALayout(layout.path));
            }
            Version::None | Version::Torn => {}
        }
        let make = |path: &Path, mode: u32| {
            operation::make_directories(path, mode).map_err(Error::io("create directory", path))
        };
        layout.path.parent().map_or(Ok(()), |parent| make(parent, 0o777))?;
        make(&layout.path, if is_store { 0o700 } else { 0o777 })?;
        make(&layout.path.join("blobs/sha256"), 0o777)?;
        layout.initialise(is_store)?;
        Ok(layout)
    }

    /// Opens an existing layout. Nothing is written.
    ///
    /// # Errors
    /// [`Error::NotALayout`], or when the layout cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let layout = Self::new(path.into());
        match layout.version()? {
            Version::One => Ok(layout),
            Version::Torn if layout.index_path().exists() => Ok(layout),
            Version::None | Version::Torn => Err(Error::NotALayout(layout.path)),
        }
    }

    /// Like [`Layout::open`], for a layout that is not the image store. Errors about its content name it.
    ///
    /// # Errors
    /// Those of [`Layout::open`].
    pub fn open_foreign(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let layout = Self::open(path)?;
        let holder = Holder::Layout(layout.path.clone());
        Ok(Self { holder, ..layout })
    }

    /// Opens a layout for reading only. Nothing is written. A missing layout has no images.
    ///
    /// # Errors
    /// [`Error::NotALayout`], or when the layout cannot be read.
    pub fn look(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let layout = Self::new(path.into());
        match layout.version()? {
            Version::None if layout.path.join("oci-layout").exists() => Err(Error::NotALayout(layout.path)),
            _ => Ok(layout),
        }
    }

    fn new(path: PathBuf) -> Self {
        Self {
            path,
            holder: Holder::Store,
            sync: true,
            unsynced: Arc::default(),
            watched: Arc::default(),
            trust: Arc::default(),
            writing: Arc::default(),
        }
    }

    fn version(&self) -> Result<Version, Error> {
        let file = self.path.join("oci-layout");
        // skopeo rewrites the file in place whenever it writes an image.
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

    /// The path of the blob with this digest, whether it exists or not.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// The size of a blob in bytes; None if it is missing. The content is not checked.
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

    /// Whether the blob exists with the size in its descriptor. Use [`Layout::has_sound_blob`] before you
    /// rely on the content without reading it.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        Ok(self.blob_size(&Digest::try_from(descriptor.digest())?)? == Some(descriptor.size()))
    }

    /// Opens a blob for reading. The reader fails at the end if the content does not match the descriptor. A
    /// caller that stops before the end calls [`finish`](crate::digest::Verifying::finish).
    ///
    /// # Errors
    /// When the blob is missing, cannot be opened, or has another size.
    pub fn blob_reader(&self, descriptor: &Descriptor) -> Result<BlobReader, Error> {
        blob::open(self, descriptor)
    }

    /// Opens a blob without checking its content, for callers that check the result by another digest, such
    /// as a layer's DiffID.
    ///
    /// # Errors
    /// Those of [`Layout::blob_reader`].
    pub fn blob_unchecked(&self, descriptor: &Descriptor) -> Result<fs::File, Error> {
        blob::open_unchecked(self, descriptor)
    }

    /// Reads and checks the whole content of a small blob.
    ///
    /// # Errors
    /// Those of [`Layout::blob_reader`], and [`Error::TooLarge`] above [`MAX_JSON`].
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

    /// Reads, checks and parses a blob of JSON.
    ///
    /// # Errors
    /// Those of [`Layout::read_blob`], and when the JSON is not a `T`.
    pub fn read_json<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, Error> {
        let content = self.read_blob(descriptor)?;
        json::from_slice(&content).map_err(|source| Error::Malformed {
            digest: Digest::of(&content),
            what: "the JSON that its media type says",
            source,
        })
    }

    /// Creates a writer for a new blob. Its digest is SHA-256.
    ///
    /// # Errors
    /// When no file can be created.
    pub fn writer(&self) -> Result<BlobWriter, Error> {
        BlobWriter::new(self, Algorithm::Sha256, None)
    }

    /// Creates a writer for the blob of a descriptor. Other content is rejected, at the latest by
    /// [`BlobWriter::commit`].
    ///
    /// # Errors
    /// When no file can be created.
    pub fn writer_of(&self, descriptor: &Descriptor) -> Result<BlobWriter, Error> {
        let digest = Digest::try_from(descriptor.digest())?;
        BlobWriter::new(self, digest.algorithm(), Some((digest, descriptor.size())))
    }

    /// Writes a small blob.
    ///
    /// # Errors
    /// When the blob cannot be written.
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

    /// Writes a manifest, an index or a configuration as JSON. The same value always gives the same bytes.
    ///
    /// # Errors
    /// When the blob cannot be written.
    pub fn write_json<T: Serialize>(&self, media_type: MediaType, value: &T) -> Result<Descriptor, Error> {
        self.write_blob(media_type, &json::to_vec(value).map_err(Error::Json)?)
    }
}

fn is_version_1(layout: &serde_json::Value) -> bool {
    let version = layout["imageLayoutVersion"].as_str();
    version.is_some_and(|version| version == "1" || version.starts_with("1."))
}

/// Reads a file of at most `limit` bytes.
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
