//! EROFS images, written in one pass (kernel, Documentation/filesystems/erofs.rst; fs/erofs/erofs_fs.h).
//!
//! The format has no table of inodes: an inode may stand anywhere, and its number is its place. So each file goes to the
//! image as it comes, its content into blocks of its own and its inode, attributes and short tail into blocks that hold
//! these alone; behind them come the directories, and last, into the first block, the root and the superblock. Only names
//! stay in memory: some thirty bytes and the name for each file, whatever its size.
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
