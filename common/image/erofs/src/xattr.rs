//! Extended attributes, encoded as they follow an inode.

use std::collections::BTreeMap;

use crate::Error;

/// The size of the header: a filter of names (zero means no filter), and the number of shared attributes.
const HEAD: usize = 12;
/// The maximum size of the attributes. An inode gives their size in 16 bits, in units of 4 bytes after the
/// header.
const LIMIT: usize = HEAD + (u16::MAX as usize - 1) * 4;

/// Prefixes of names, and their codes.
const PREFIXES: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
/// Names that have a code of their own.
const NAMES: [(&[u8], u8); 2] = [(b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3)];

/// The encoded attributes, with padding; empty if there are none.
pub(crate) fn encode(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u8>, Error> {
    if xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let sorted: BTreeMap<&[u8], &[u8]> = xattrs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let mut out = vec![0; HEAD];
    for (name, value) in sorted {
        let (index, rest) = split(name)?;
        let length = u8::try_from(rest.len()).map_err(|_| Error::NameTooLong)?;
        let size = u16::try_from(value.len())
            .map_err(|_| Error::Attributes { size: value.len(), limit: u16::MAX.into() })?;
        out.extend([length, index]);
        out.extend(size.to_le_bytes());
        out.extend(rest);
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    match out.len() {
        size if size > LIMIT => Err(Error::Attributes { size, limit: LIMIT }),
        _ => Ok(out),
    }
}

/// The size of the encoded attributes, as an inode gives it.
pub(crate) fn count(encoded: &[u8]) -> u16 {
    match encoded.len() {
        0 => 0,
        length => ((length - HEAD) / 4 + 1) as u16,
    }
}

fn split(name: &[u8]) -> Result<(u8, &[u8]), Error> {
    if let Some((_, index)) = NAMES.iter().find(|(whole, _)| *whole == name) {
        return Ok((*index, b""));
    }
    let split =
        PREFIXES.iter().find_map(|(prefix, index)| name.strip_prefix(*prefix).map(|rest| (*index, rest)));
    split.filter(|(_, rest)| !rest.is_empty()).ok_or(Error::AttributeKind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_as_the_kernel_reads_them() {
        let pairs = [("user.b", "12345"), ("security.capability", "x"), ("user.b", "1")];
        let pairs = pairs.map(|(name, value)| (name.into(), value.into()));
        let encoded = encode(&pairs).unwrap();
        assert_eq!(&encoded[12..], b"\x0a\x06\x01\0capabilityx\0\x01\x01\x01\0b1\0\0");
        assert_eq!(count(&encoded), 1 + 24 / 4);
        assert_eq!(count(&encode(&[]).unwrap()), 0);
        let acl = encode(&[(b"system.posix_acl_default".to_vec(), vec![2])]).unwrap();
        assert_eq!(&acl[12..], b"\0\x03\x01\0\x02\0\0\0");
    }

    #[test]
    fn what_has_no_place() {
        let one = |name: &str, size| encode(&[(name.into(), vec![0; size])]);
        assert!(matches!(one("btrfs.x", 1), Err(Error::AttributeKind)));
        assert!(matches!(one("user.", 1), Err(Error::AttributeKind)));
        assert!(matches!(one(&format!("user.{}", "n".repeat(256)), 1), Err(Error::NameTooLong)));
        assert!(matches!(one("user.x", 65536), Err(Error::Attributes { .. })));
        let many = (0..5).map(|at| (format!("user.{at}").into_bytes(), vec![0; 65535])).collect::<Vec<_>>();
        assert!(matches!(encode(&many), Err(Error::Attributes { .. })));
        assert!(encode(&many[..3]).is_ok());
    }
}
