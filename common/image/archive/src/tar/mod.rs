//! The tar format: POSIX ustar with PAX headers and GNU's extensions, as used for layers.

mod header;
mod name;
mod number;
mod pax;
mod reader;
mod sparse;
mod target;
mod writer;

pub use name::Shown;
pub use reader::{Content, Reader};
pub use target::{LINKED, NameError, OPAQUE, Target, WHITEOUT, inside};
pub use writer::Writer;

/// The block size of an archive, in bytes.
pub const BLOCK: usize = 512;

/// The kind of file that an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with its content.
    File,
    /// A hard link to the file of an earlier entry, [`Entry::link`].
    HardLink,
    /// A symbolic link to [`Entry::link`].
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A time: seconds since 1970, and nanoseconds (0 to 999,999,999) after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanoseconds: u32,
}

/// A run of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The offset in the file, in bytes.
    pub offset: u64,
    /// The length in bytes.
    pub length: u64,
}

/// An entry of an archive. All its extended headers are taken into account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, unchanged.
    pub path: Vec<u8>,
    /// The target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// The kind of file.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky bit: the low twelve bits of the mode.
    pub mode: u32,
    /// Numeric user id of the owner.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
    /// When the content last changed.
    pub mtime: Time,
    /// When the content was last read, if the archive says.
    pub atime: Option<Time>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes: names and values (`SCHILY.xattr.*`).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The size of the file in bytes, holes included.
    pub size: u64,
    /// The number of bytes of data in the archive.
    pub stored: u64,
    /// For a sparse file: the places of the stored bytes, in order.
    pub sparse: Option<Vec<Segment>>,
}

impl Entry {
    /// An entry of `kind` with the name `path`, mode 0, owner 0, time 0, and no data.
    pub fn new(kind: Kind, path: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            link: Vec::new(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            atime: None,
            device: (0, 0),
            xattrs: Vec::new(),
            size: 0,
            stored: 0,
            sparse: None,
        }
    }
}

/// Why an archive could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The underlying stream failed.
    #[error("read archive: {0}")]
    Read(#[from] std::io::Error),
    /// The stream ended inside an entry.
    #[error("archive ends in the middle of an entry")]
    Truncated,
    /// A header block is not valid.
    #[error("header at byte {at}: {reason}")]
    Header {
        /// The offset of the block in the archive.
        at: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry has a type that a layer cannot contain.
    #[error("entry {name}: type {kind:?} is not allowed in a layer")]
    Type {
        /// The entry.
        name: Shown,
        /// The type's letter.
        kind: char,
    },
    /// An extended header is not valid.
    #[error("extended header at byte {at}: {reason}")]
    Extended {
        /// The offset of the header in the archive.
        at: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An archive ends with two blocks of zeros; this one has a single block of zeros, with data after it.
    #[error("data after a single block of zeros at byte {at}")]
    Lone {
        /// The offset of the data.
        at: u64,
    },
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Read(error) => error,
            Error::Truncated => Self::new(std::io::ErrorKind::UnexpectedEof, error),
            error => Self::new(std::io::ErrorKind::InvalidData, error),
        }
    }
}
