//! The tar format: POSIX ustar with PAX headers, and GNU's extensions, as archives of layers use them.

mod header;
mod name;
mod number;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use name::Shown;
pub use reader::{Content, Reader};
pub use writer::Writer;

/// The unit in which an archive is laid out, in bytes.
pub const BLOCK: usize = 512;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with its content.
    File,
    /// Another name of an earlier entry's file: [`Entry::link`].
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

/// A time in seconds since the epoch, and nanoseconds (0 to 999,999,999) past them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanoseconds: u32,
}

/// A run of data in a sparse file, both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it stands.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// One entry of an archive, with every header that speaks of it taken into account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, as the archive has it.
    pub path: Vec<u8>,
    /// The target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// Permissions with suid, sgid and sticky: the low twelve bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// When the content last changed.
    pub mtime: Time,
    /// When it was last read, where the archive says it.
    pub atime: Option<Time>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes: names and values (`SCHILY.xattr.*`).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Size of the file in bytes, holes included.
    pub size: u64,
    /// Bytes of data in the archive.
    pub stored: u64,
    /// For a sparse file: where the stored bytes belong, in order.
    pub sparse: Option<Vec<Segment>>,
}

impl Entry {
    /// An entry of `kind` called `path`: mode 0, owner 0, epoch, no data.
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
    /// The stream below it failed.
    #[error("read archive: {0}")]
    Read(#[from] std::io::Error),
    /// The stream ended inside an entry.
    #[error("archive ends in the middle of an entry")]
    Truncated,
    /// A header block that is not one.
    #[error("header at byte {at}: {reason}")]
    Header {
        /// Where in the archive the block begins.
        at: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A type of entry that changes nothing a layer can hold.
    #[error("entry {name}: type {kind:?} is not allowed in a layer")]
    Type {
        /// The entry.
        name: Shown,
        /// The type's letter.
        kind: char,
    },
    /// An extended header that cannot be read.
    #[error("extended header at byte {at}: {reason}")]
    Extended {
        /// Where in the archive the header begins.
        at: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A single block of zeros, where two end an archive, and something behind it.
    #[error("data after a single block of zeros at byte {at}")]
    Lone {
        /// Where the data is.
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
