//! The calls that unpacking makes on the result, whether that is a directory or an image.

use archive::{Entry, Kind, Time};

use super::{Dependency, EntryError};

/// The attributes of an entry's file or directory.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl From<&Entry> for Facts {
    fn from(entry: &Entry) -> Self {
        let Entry { mode, uid, gid, mtime, atime, ref xattrs, .. } = *entry;
        Self { mode, uid, gid, mtime, atime, xattrs: xattrs.clone() }
    }
}

/// A symbolic link, a device or a named pipe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Special<'a> {
    pub(super) kind: Kind,
    /// The target of a symbolic link.
    pub(super) target: &'a [u8],
    /// Major and minor number of a device.
    pub(super) device: (u32, u32),
}

/// What the layer has under a name.
pub(super) enum Standing {
    Nothing,
    Directory,
    Symlink,
    Other,
}

/// The result of making something. None if the name is in use already; nothing changes then.
pub(super) type Made<T> = Result<Option<T>, EntryError>;

/// A form of a layer. A file is identified by `name` in `parent`. Each `parent` is the path of an existing
/// directory, without symbolic links; it is empty for the root.
pub(super) trait Form {
    /// A regular file whose content is being written.
    type File;

    fn standing(&mut self, parent: &[u8], name: &[u8]) -> Result<Standing, EntryError>;

    /// The target of the symbolic link `name`.
    fn read_link(&mut self, parent: &[u8], name: &[u8]) -> Result<Vec<u8>, EntryError>;

    /// Makes a directory. [`Form::finish_directory`] sets its attributes.
    fn make_directory(&mut self, parent: &[u8], name: &[u8]) -> Made<()>;

    /// Begins a regular file of `size` bytes. Parts that are never written are zeros.
    fn create(&mut self, parent: &[u8], name: &[u8], facts: &Facts, size: u64) -> Made<Self::File>;

    /// Writes all of `data` into the file, at `offset`.
    fn write(&mut self, file: &mut Self::File, offset: u64, data: &[u8]) -> Result<(), EntryError>;

    /// Ends the file and sets the attributes in `facts`.
    fn close(&mut self, file: Self::File, facts: &Facts) -> Result<(), EntryError>;

    fn special(&mut self, parent: &[u8], name: &[u8], special: Special, facts: &Facts) -> Made<()>;

    /// Adds the hard link `to` for the file `from`, which is not a directory.
    fn link(&mut self, from: (&[u8], &[u8]), to: (&[u8], &[u8])) -> Made<()>;

    /// Removes `name` with everything below it.
    fn remove(&mut self, parent: &[u8], name: &[u8]) -> Result<(), EntryError>;

    /// Marks `name` in lower layers as deleted. This layer has nothing there.
    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<(), EntryError>;

    /// Sets the attributes of the directory at `path`. Nothing more is made in it. If it is `opaque`, it
    /// hides the content of lower layers.
    fn finish_directory(&mut self, path: &[u8], facts: &Facts, opaque: bool) -> Result<(), EntryError>;

    /// The approximate memory that grows with the layer, in bytes.
    fn kept(&self) -> usize;

    /// Ends the layer. `taken` is what it took from lower layers. Returns how many of its entries differ from
    /// the layer ([`super::Options::rootless`]).
    fn finish(self, taken: &[Dependency]) -> Result<u64, EntryError>;
}
