//! Archives, for everything that reads or writes one: how a stream is compressed, how much may come out of it, and what the
//! tar in it says.
//!
//! * [`Compression`] is told by a stream's first bytes; [`Decompressed`] reads what is in the stream, within [`Limits`].
//! * [`Reader`] and [`Writer`]: the tar format, read strictly and written deterministically.
//!
//! A layer that is unpacked, an archive of images that is loaded and an archive that a Dockerfile adds go through the same
//! code: what one of them accepts, the others accept too.

mod compression;
pub mod decompress;
mod limits;
mod tar;

pub use compression::{Compression, peek};
pub use decompress::{Decompressed, read_buffered};
pub use limits::{Exceeded, Limits};
pub use tar::{BLOCK, Content, Entry, Error, Kind, Reader, Segment, Shown, Time, Writer};
