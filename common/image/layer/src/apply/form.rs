//! What a layer becomes, behind the calls by which the rules of layer.md act on it.

use archive::{Entry, Kind, Time};

use super::{Dependency, EntryError};

/// What an entry says of its file or directory besides its content.
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
    /// Where a symbolic link leads.
    pub(super) target: &'a [u8],
    /// Major and minor number of a device.
    pub(super) device: (u32, u32),
}

/// What stands under a name in the layer.
pub(super) enum Standing {
    Nothing,
    Directory,
    Symlink,
    Other,
}

/// What became of making something: none where something stands under its name already, which is left alone.
pub(super) type Made<T> = Result<Option<T>, EntryError>;

/// One of the forms of a layer. What is `name` in `parent` is named by both; each `parent` is the path of a directory that
/// was made, without symbolic links in it, empty for the root.
pub(super) trait Form {
    /// A regular file whose content is being written.
    type File;

    fn standing(&mut self, parent: &[u8], name: &[u8]) -> Result<Standing, EntryError>;

    /// Where the symbolic link leads that stands there.
    fn read_link(&mut self, parent: &[u8], name: &[u8]) -> Result<Vec<u8>, EntryError>;

    /// Makes a directory, which gets what is said of it by [`Form::finish_directory`].
    fn make_directory(&mut self, parent: &[u8], name: &[u8]) -> Made<()>;

    /// Begins a regular file of `size` bytes: zeros, where nothing is written.
    fn create(&mut self, parent: &[u8], name: &[u8], facts: &Facts, size: u64) -> Made<Self::File>;

    /// Writes all of `data` into it.
    fn write(&mut self, file: &mut Self::File, offset: u64, data: &[u8]) -> Result<(), EntryError>;

    /// Ends it, and gives it what `facts` say.
    fn close(&mut self, file: Self::File, facts: &Facts) -> Result<(), EntryError>;

    fn special(&mut self, parent: &[u8], name: &[u8], special: Special, facts: &Facts) -> Made<()>;

    /// Gives what stands as the first, which is no directory, the second name too.
    fn link(&mut self, from: (&[u8], &[u8]), to: (&[u8], &[u8])) -> Made<()>;

    /// Removes whatever stands there, with all that is below it.
    fn remove(&mut self, parent: &[u8], name: &[u8]) -> Result<(), EntryError>;

    /// Says that what the layers below have there is deleted. Nothing stands there.
    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<(), EntryError>;

    /// Gives the directory at `path`, in which nothing is made any more, what `facts` say. With `opaque`, it hides what the
    /// layers below have in it.
    fn finish_directory(&mut self, path: &[u8], facts: &Facts, opaque: bool) -> Result<(), EntryError>;

    /// About how many bytes of memory it takes that grow with the layer.
    fn kept(&self) -> usize;

    /// Ends the layer, which took this from those below. Returns how many of its entries are not as it says
    /// ([`super::Options::rootless`]).
    fn finish(self, taken: &[Dependency]) -> Result<u64, EntryError>;
}
