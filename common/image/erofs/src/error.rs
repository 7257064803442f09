use std::io;

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of the image could not be written.
    #[error("write image: {0}")]
    Write(#[from] io::Error),
    /// The image needs more blocks than there are block numbers: 16 TiB.
    #[error("image larger than EROFS can be")]
    TooLarge,
    /// A name is too long.
    #[error("name longer than 255 bytes")]
    NameTooLong,
    /// The format has no code for the name of an extended attribute.
    #[error("extended attribute of a kind that EROFS does not have")]
    AttributeKind,
    /// An inode's extended attributes are too large.
    #[error("extended attributes of {size} bytes: EROFS has room for {limit}")]
    Attributes {
        /// The size of the attributes, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A file has the maximum number of hard links already.
    #[error("too many hard links to one file")]
    Links,
    /// Data was written after the announced size of a file.
    #[error("data after the end of a file")]
    Size,
}

impl From<rustix::io::Errno> for Error {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Write(error.into())
    }
}
