//! A header block (POSIX pax, "ustar Interchange Format"; GNU tar, "Basic Tar Format").

use super::{BLOCK, number};

pub(super) struct Header<'a>(pub(super) &'a [u8; BLOCK]);

impl Header<'_> {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    /// The checksum is the sum of all bytes, with its own field taken as spaces. Some old writers summed
    /// signed bytes.
    pub(super) fn checksum_holds(&self) -> bool {
        let Some(stored) = number::parse(&self.0[148..156]) else { return false };
        let byte = |at: usize| if (148..156).contains(&at) { b' ' } else { self.0[at] };
        let unsigned: i64 = (0..BLOCK).map(|at| i64::from(byte(at))).sum();
        let signed = || (0..BLOCK).map(|at| i64::from(byte(at) as i8)).sum::<i64>();
        stored == unsigned || stored == signed()
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Whether the magic is POSIX's, "ustar" and NUL. Only then does the field `prefix` hold a part of the
    /// name.
    pub(super) fn is_ustar(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    pub(super) fn is_gnu(&self) -> bool {
        &self.0[257..265] == b"ustar  \0"
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if self.is_ustar() { text(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Option<i64> {
        number::parse(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Option<i64> {
        number::parse(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Option<i64> {
        number::parse(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Option<u64> {
        number::parse(&self.0[124..136]).and_then(|size| u64::try_from(size).ok())
    }

    pub(super) fn mtime(&self) -> Option<i64> {
        number::parse(&self.0[136..148])
    }

    /// The major and minor number, if they fit into Linux's 12 and 20 bits. Larger numbers would be truncated
    /// when the node is made, e.g. 4096:0 to 0:0, a whiteout. Archives without ustar's magic lack these
    /// fields.
    pub(super) fn device(&self) -> Option<(u32, u32)> {
        if !self.is_ustar() && !self.is_gnu() {
            return Some((0, 0));
        }
        let field = |bytes| number::parse(bytes).and_then(|value| u32::try_from(value).ok());
        let (major, minor) = (field(&self.0[329..337])?, field(&self.0[337..345])?);
        (major < 1 << 12 && minor < 1 << 20).then_some((major, minor))
    }
}

/// The content of a text field: up to the first NUL, or all of it.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&byte| byte == 0).unwrap_or(field.len())]
}
