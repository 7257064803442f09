//! The content of a directory: blocks of sorted entries, each followed by the names of its entries.

use crate::{
    BLOCK,
    format::{ENTRY, Kind},
};

/// An entry of a directory.
pub(crate) struct Named<'a> {
    pub(crate) name: &'a [u8],
    /// The number of the entry's inode.
    pub(crate) number: u64,
    pub(crate) kind: Kind,
}

/// The content of a directory as blocks. All blocks but the last are full.
pub(crate) fn blocks<'a>(entries: impl Iterator<Item = Named<'a>>) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let (mut block, mut size) = (Vec::new(), 0);
    for entry in entries {
        let needed = ENTRY + entry.name.len();
        if size + needed > BLOCK as usize {
            let mut whole = encode(&block);
            whole.resize(BLOCK as usize, 0);
            blocks.push(whole);
            block.clear();
            size = 0;
        }
        size += needed;
        block.push(entry);
    }
    blocks.push(encode(&block));
    blocks
}

/// The size in bytes of the content of a directory with these names.
pub(crate) fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut whole, mut filled) = (0, 0);
    for name in names {
        let needed = (ENTRY + name.len()) as u64;
        if filled + needed > BLOCK {
            whole += BLOCK;
            filled = 0;
        }
        filled += needed;
    }
    whole + filled
}

fn encode(entries: &[Named]) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK as usize);
    let mut name_at = entries.len() * ENTRY;
    for entry in entries {
        out.extend(entry.number.to_le_bytes());
        out.extend((name_at as u16).to_le_bytes());
        out.extend([entry.kind.code(), 0]);
        name_at += entry.name.len();
    }
    entries.iter().for_each(|entry| out.extend(entry.name));
    out
}
