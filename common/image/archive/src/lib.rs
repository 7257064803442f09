//! Reads and writes archives: compressed streams, limits on their size, and tar.
//!
//! * [`Compression`] is detected from a stream's first bytes. [`Decompressed`] reads the content of a stream,
//!   within [`Limits`].
//! * [`Reader`] and [`Writer`]: the tar format, read strictly and written reproducibly.
//! * [`Target`]: what an entry means in a layer, and which names no layer may have.
//!
//! Unpacking layers, loading archives of images, and adding archives from a Dockerfile all use this code, so
//! they all accept the same archives.

mod compression;
pub mod decompress;
mod limits;
mod tar;

pub use compression::{Compression, peek};
pub use decompress::{Decompressed, read_buffered};
pub use limits::{Exceeded, Limits};
pub use tar::{
    BLOCK, Content, Entry, Error, Kind, LINKED, NameError, OPAQUE, Reader, Segment, Shown, Target, Time,
    WHITEOUT, Writer, inside,
};
