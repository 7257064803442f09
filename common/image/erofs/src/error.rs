use std::io;

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file that it is written to.
    #[error("write image: {0}")]
    Write(#[from] io::Error),
    /// More blocks than have numbers: 16 TiB.
    #[error("image larger than EROFS can be")]
    TooLarge,
    /// A name that no file can have.
    #[error("name longer than 255 bytes")]
    NameTooLong,
    /// An extended attribute with a name that has no place in the format.
    #[error("extended attribute of a kind that EROFS has not")]
    AttributeKind,
    /// Extended attributes that take more bytes than an inode can tell of.
    #[error("extended attributes of {size} bytes, where EROFS has room for {limit}")]
    Attributes {
        /// What they take, in bytes.
        size: usize,
        /// What they may take.
        limit: usize,
    },
    /// A hard link to a file that has as many as can be counted.
    #[error("too many hard links to one file")]
    Links,
    /// Data behind the size that was told.
    #[error("data behind the end of a file")]
    Size,
}

impl From<rustix::io::Errno> for Error {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Write(error.into())
    }
}
