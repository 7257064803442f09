//! Reads the attributes of an image's root.

use std::io::{self, Read};

use crate::{
    Attributes, BLOCK, Time,
    format::{self, MAGIC, ROOT, SUPERBLOCK},
};

/// The attributes of the root of an image that [`crate::Writer`] made, without extended attributes.
///
/// # Errors
/// When the image cannot be read, or was not made by [`crate::Writer`].
pub fn root(mut image: impl Read) -> io::Result<Attributes> {
    let mut block = [0; BLOCK as usize];
    image.read_exact(&mut block)?;
    let u16_at = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let root = ROOT as usize;
    let is_ours = u32_at(SUPERBLOCK) == MAGIC
        && u64::from(u16_at(SUPERBLOCK + 14)) == format::number_at(ROOT)
        && u16_at(root) & 1 == 1;
    if !is_ours {
        return Err(io::Error::other("it is not an EROFS image of a layer"));
    }
    let mtime = Time { seconds: u64_at(root + 32) as i64, nanoseconds: u32_at(root + 40) };
    let (uid, gid) = (u32_at(root + 24), u32_at(root + 28));
    Ok(Attributes { mode: u32::from(u16_at(root + 4)) & 0o7777, uid, gid, mtime, xattrs: Vec::new() })
}
