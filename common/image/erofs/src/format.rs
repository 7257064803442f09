//! The on-disk structures, all little-endian (fs/erofs/erofs_fs.h).

use crate::checksum::crc32c;

/// The block size, in bytes.
pub const BLOCK: u64 = 4096;

/// The superblock's offset in the first block.
pub(crate) const SUPERBLOCK: usize = 1024;
/// The offset of the root's inode: directly after the superblock. Its number must fit into 16 bits.
pub(crate) const ROOT: u64 = SUPERBLOCK as u64 + 128;
/// The size of the larger kind of inode. Only this kind has a modification time.
pub(crate) const INODE: u64 = 64;
/// Inodes begin at multiples of this, and inode numbers count in units of it.
pub(crate) const SLOT: u64 = 32;
/// The size of a directory entry, without its name.
pub(crate) const ENTRY: usize = 12;
/// The offset of the link count in an inode.
pub(crate) const LINKS: u64 = 0x2c;

pub(crate) const MAGIC: u32 = 0xe0f5_e1e2;
/// The superblock has a checksum.
const CHECKSUM: u32 = 1;
/// Inodes have the time of the last modification, not of the last change.
const MTIME: u32 = 2;
/// The block number of an inode without blocks of its own.
const NO_BLOCKS: u32 = u32::MAX;

/// The kind of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::File,
        Self::Directory,
        Self::CharDevice,
        Self::BlockDevice,
        Self::Fifo,
        Self::Socket,
        Self::Symlink,
    ];

    /// The kernel's code in a directory entry: `FT_*`.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::CharDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }

    /// The type bits in a mode: `S_IF*`.
    fn mode(self) -> u16 {
        match self {
            Self::File => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
        }
    }
}

/// A time: seconds since 1970, and nanoseconds (0 to 999,999,999) after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanoseconds: u32,
}

/// The attributes of an inode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permissions with setuid, setgid and sticky bit: the low twelve bits of the mode.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// When the content last changed.
    pub mtime: Time,
    /// Extended attributes: full names, and values. If a name occurs twice, the last value counts.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The place of an inode's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// No content.
    None,
    /// In blocks, starting with this block.
    Plain(u32),
    /// In blocks, starting with this block, with the tail directly after the inode.
    Inline(Option<u32>),
    /// No content, but a device number.
    Device(u32),
}

/// An inode.
#[derive(Debug)]
pub(crate) struct Inode<'a> {
    pub(crate) kind: Kind,
    pub(crate) attributes: &'a Attributes,
    /// The encoded extended attributes, which follow the inode.
    pub(crate) xattrs: &'a [u8],
    pub(crate) size: u64,
    pub(crate) links: u32,
    pub(crate) content: Content,
    /// The inode's own number.
    pub(crate) number: u64,
}

impl Inode<'_> {
    /// `struct erofs_inode_extended`, followed by the extended attributes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Attributes { mode, uid, gid, mtime, .. } = self.attributes;
        // Bit 0: the larger kind of inode; bits 1 to 3: the layout of the content.
        let (format, block): (u16, u32) = match self.content {
            Content::None => (1, NO_BLOCKS),
            Content::Plain(block) => (1, block),
            Content::Inline(block) => (1 | 2 << 1, block.unwrap_or(NO_BLOCKS)),
            Content::Device(number) => (1, number),
        };
        let mut out = Vec::with_capacity(INODE as usize + self.xattrs.len());
        out.extend(format.to_le_bytes());
        out.extend(crate::xattr::count(self.xattrs).to_le_bytes());
        out.extend((self.kind.mode() | (*mode & 0o7777) as u16).to_le_bytes());
        out.extend([0; 2]);
        out.extend(self.size.to_le_bytes());
        out.extend(block.to_le_bytes());
        // The inode number for 32-bit programs.
        out.extend((self.number as u32).to_le_bytes());
        out.extend(uid.to_le_bytes());
        out.extend(gid.to_le_bytes());
        out.extend(mtime.seconds.to_le_bytes());
        out.extend(mtime.nanoseconds.to_le_bytes());
        out.extend(self.links.to_le_bytes());
        out.extend([0; 16]);
        out.extend(self.xattrs);
        out
    }
}

/// A device number as the kernel stores it (`new_encode_dev`).
pub(crate) fn device(major: u32, minor: u32) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12
}

/// The number of the inode at `offset`.
pub(crate) fn number_at(offset: u64) -> u64 {
    offset / SLOT
}

/// The first block: the superblock, followed by `root`, the encoded inode of the root.
pub(crate) fn first_block(root: &[u8], inodes: u64, blocks: u32, uuid: &[u8; 16]) -> Vec<u8> {
    let mut out = vec![0; SUPERBLOCK];
    out.extend(MAGIC.to_le_bytes());
    out.extend([0; 4]); // the checksum, filled in below
    out.extend((CHECKSUM | MTIME).to_le_bytes());
    out.extend([BLOCK.trailing_zeros() as u8, 0]);
    out.extend((number_at(ROOT) as u16).to_le_bytes());
    out.extend(inodes.to_le_bytes());
    out.extend([0; 12]); // the time of its making
    out.extend(blocks.to_le_bytes());
    out.extend([0; 8]); // inodes and shared attributes are counted from the start
    out.extend(uuid);
    out.resize(ROOT as usize, 0); // no name, and no feature that a kernel must know
    out.extend(root);
    out.resize(BLOCK as usize, 0);
    let checksum = crc32c(&out[SUPERBLOCK..]).to_le_bytes();
    out[SUPERBLOCK + 4..SUPERBLOCK + 8].copy_from_slice(&checksum);
    out
}
