//! POSIX ACLs in extended attributes (linux/posix_acl_xattr.h). Setting one may also change the file's mode.

use rustix::io::Errno;

/// `struct posix_acl_xattr_header`.
const VERSION: [u8; 4] = 2_u32.to_le_bytes();

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The effect of setting an ACL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acl {
    /// The file's permission bits afterwards.
    pub(super) mode: u32,
    /// Whether the ACL says no more than these bits.
    pub(super) is_mode: bool,
}

/// Parses an ACL, with the kernel's checks; None if it is empty, which removes an ACL.
pub(super) fn read(value: &[u8]) -> Result<Option<Acl>, Errno> {
    let (version, entries) = value.split_first_chunk::<4>().ok_or(Errno::INVAL)?;
    if *version != VERSION {
        return Err(Errno::OPNOTSUPP);
    }
    let (entries, rest) = entries.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(Errno::INVAL);
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let mut acl = Acl { mode: 0, is_mode: true };
    let mut last = 0;
    for [tag @ .., p0, p1, i0, i1, i2, i3] in entries {
        let (tag, permissions) = (u16::from_le_bytes(*tag), u32::from(u16::from_le_bytes([*p0, *p1])));
        let nobody = u32::from_le_bytes([*i0, *i1, *i2, *i3]) == u32::MAX;
        // The entries must be sorted. USER and GROUP may appear several times, and must name a user or group.
        let follows = match (last, tag) {
            (0, USER_OBJ) | (USER_OBJ | USER, GROUP_OBJ) => true,
            (USER_OBJ | USER, USER) | (GROUP_OBJ | GROUP, GROUP) => !nobody,
            (GROUP_OBJ | GROUP, MASK) => true,
            // If a user or group is named, there must be a mask.
            (GROUP_OBJ, OTHER) => acl.is_mode,
            (MASK, OTHER) => true,
            _ => false,
        };
        if !follows || permissions > 7 {
            return Err(Errno::INVAL);
        }
        match tag {
            USER_OBJ => acl.mode |= permissions << 6,
            GROUP_OBJ => acl.mode |= permissions << 3,
            MASK => acl = Acl { mode: acl.mode & !0o070 | permissions << 3, is_mode: false },
            OTHER => acl.mode |= permissions,
            _ => acl.is_mode = false,
        }
        last = tag;
    }
    if last == OTHER { Ok(Some(acl)) } else { Err(Errno::INVAL) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: &[(u16, u16, u32)]) -> Result<Option<Acl>, Errno> {
        let mut value = VERSION.to_vec();
        for (tag, permissions, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        read(&value)
    }

    #[test]
    fn what_it_comes_to() {
        const NONE: u32 = u32::MAX;
        let (user, group, other) = ((USER_OBJ, 6, NONE), (GROUP_OBJ, 5, NONE), (OTHER, 4, NONE));
        assert_eq!(of(&[user, group, other]), Ok(Some(Acl { mode: 0o654, is_mode: true })));
        let named = of(&[user, (USER, 7, 1000), group, (MASK, 1, NONE), other]);
        assert_eq!(named, Ok(Some(Acl { mode: 0o614, is_mode: false })));
        assert_eq!(of(&[]), Ok(None));
        for refused in [
            &[user, group][..],
            &[group, user, other],
            &[user, (USER, 7, 1000), group, other],
            &[user, group, (GROUP, 7, NONE), (MASK, 1, NONE), other],
            &[user, group, (OTHER, 8, NONE)],
            &[user, group, other, other],
        ] {
            assert_eq!(of(refused), Err(Errno::INVAL), "{refused:?}");
        }
    }
}
