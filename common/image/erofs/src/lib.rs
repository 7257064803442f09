//! EROFS images, written in one pass (kernel, Documentation/filesystems/erofs.rst; fs/erofs/erofs_fs.h).
//!
//! The format has no table of inodes: an inode may be anywhere, and its number is its place. So each file is written
//! when it comes. Its content goes into blocks of its own; its inode, attributes and short tail go into blocks that
//! hold only these. The directories follow. The first block, with the root and the superblock, is written last. Only
//! names stay in memory: about thirty bytes and the name for each file, whatever its size.
//!
//! Nothing is compressed. A hole in a file is a hole in the image. The same calls give the same bytes.

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
