use std::io;

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of the image could not be written.
    #[error("write image: {0}")]
    Write(#[from] io::Error),
    /// More blocks than there are numbers: 16 TiB.
    #[error("image larger than EROFS can be")]
    TooLarge,
    /// A name that is too long for any file.
    #[error("name longer than 255 bytes")]
    NameTooLong,
    /// An extended attribute whose name has no code in the format.
    #[error("extended attribute of a kind that EROFS does not have")]
    AttributeKind,
    /// Extended attributes that are too large for an inode.
    #[error("extended attributes of {size} bytes: EROFS has room for {limit}")]
    Attributes {
        /// Their size, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A hard link to a file that has the largest number of links.
    #[error("too many hard links to one file")]
    Links,
    /// Data after the announced size.
    #[error("data after the end of a file")]
    Size,
}

impl From<rustix::io::Errno> for Error {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Write(error.into())
    }
}
