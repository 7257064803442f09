//! Writes EROFS images in one pass (kernel, Documentation/filesystems/erofs.rst; fs/erofs/erofs_fs.h).
//!
//! The format has no inode table: an inode may be anywhere, and its number tells its place. So each file is
//! written as soon as it comes. Its content goes into its own blocks. Its inode, attributes and short tail go
//! into blocks that hold only those. Directories are written at the end, and last the first block with the
//! root and the superblock. Only names stay in memory: about thirty bytes plus the name for each file,
//! whatever its size.
//!
//! Nothing is compressed. A hole in a file becomes a hole in the image. The same calls always give the same
//! bytes.

mod checksum;
mod directory;
mod error;
mod format;
mod index;
mod root;
mod space;
mod tree;
mod writer;
mod xattr;

pub use error::Error;
pub use format::{Attributes, BLOCK, Kind, Time};
pub use root::root;
pub use tree::{Directory, Entry, File};
pub use writer::{Open, Summary, Writer};
