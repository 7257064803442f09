//! Netlink attributes: builds them as a tree, writes them, and finds them in the kernel's messages.

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 4;

/// One attribute. Numbers in nfnetlink are big-endian. Values of packet fields have the byte order
/// of packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// The type and the value.
    Bytes(u16, Vec<u8>),
    /// The type and the nested attributes.
    Nested(u16, Vec<Attribute>),
}

impl Attribute {
    /// A string. A zero byte is appended.
    pub fn string(kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        Self::Bytes(kind, bytes)
    }

    /// A 32-bit number, written big-endian.
    pub fn number(kind: u16, value: u32) -> Self {
        Self::Bytes(kind, value.to_be_bytes().to_vec())
    }

    /// The type of the attribute.
    pub fn kind(&self) -> u16 {
        match self {
            Self::Bytes(kind, _) | Self::Nested(kind, _) => *kind,
        }
    }

    /// Appends the attribute to a message, padded to four bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0; HEADER]);
        let kind = match self {
            Self::Bytes(kind, bytes) => {
                out.extend(bytes);
                *kind
            }
            Self::Nested(kind, attributes) => {
                attributes.iter().for_each(|attribute| attribute.write(out));
                kind | NESTED
            }
        };
        // No attribute of ours comes near the limit of 64 KiB.
        let length = (out.len() - start) as u16;
        out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        out[start + 2..start + HEADER].copy_from_slice(&kind.to_ne_bytes());
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

/// The attributes in a message of the kernel: each one's type, without flags, and its payload.
pub fn read(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..HEADER)?.try_into().ok()?) & TYPE_MASK;
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The payload of the first attribute of this type.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    read(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Reads a big-endian 32-bit number. None if the payload has another length.
pub fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Reads a string, without the zero byte at its end.
pub fn string(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Whether the kernel's `bytes` contain all of `ours`. The kernel may add attributes of its own
/// (handles, counters, defaults), but a list must have the same number of members.
pub fn covers(bytes: &[u8], ours: &[Attribute]) -> bool {
    const LIST_MEMBER: u16 = 1;
    let is_list = ours.len() > 1 && ours.iter().all(|attribute| attribute.kind() == LIST_MEMBER);
    if is_list && read(bytes).count() != ours.len() {
        return false;
    }
    ours.iter().enumerate().all(|(at, attribute)| {
        // Compare the n-th attribute of a type with the n-th of the same type.
        let before = ours[..at].iter().filter(|other| other.kind() == attribute.kind()).count();
        let found = read(bytes).filter(|(kind, _)| *kind == attribute.kind()).nth(before);
        match (attribute, found) {
            (Attribute::Bytes(_, value), Some((_, found))) => found == value,
            (Attribute::Nested(_, attributes), Some((_, found))) => covers(found, attributes),
            (_, None) => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(attributes: &[Attribute]) -> Vec<u8> {
        let mut out = Vec::new();
        attributes.iter().for_each(|attribute| attribute.write(&mut out));
        out
    }

    #[test]
    fn written_as_the_kernel_reads_it() {
        let written =
            bytes(&[Attribute::Nested(4, vec![Attribute::number(1, 2), Attribute::string(3, "lo")])]);
        #[rustfmt::skip]
        assert_eq!(written, [20, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 0, 2, 7, 0, 3, 0, b'l', b'o', 0, 0]);
        let inner = find(&written, 4).unwrap();
        assert_eq!(find(inner, 1).and_then(number), Some(2));
        assert_eq!(find(inner, 3).map(string).as_deref(), Some("lo"));
        assert_eq!(find(inner, 9), None);
        assert_eq!(read(&[1, 2, 3]).count(), 0);
        assert_eq!(read(&[200, 0, 1, 0, 5]).count(), 0, "a length that lies");
    }

    #[test]
    fn covered_by_what_has_more() {
        let list = |values: &[u32]| {
            vec![Attribute::Nested(4, values.iter().map(|value| Attribute::number(1, *value)).collect())]
        };
        let mut dumped = list(&[5, 6]);
        dumped.push(Attribute::number(9, 1));
        let dumped = bytes(&dumped);
        for (ours, covered) in [
            (list(&[5, 6]), true),
            (list(&[6, 5]), false),
            (list(&[5, 6, 7]), false),
            (vec![Attribute::number(9, 1)], true),
            (vec![Attribute::number(8, 1)], false),
            (vec![], true),
        ] {
            assert_eq!(covers(&dumped, &ours), covered, "{ours:?}");
        }
        assert!(!covers(&bytes(&list(&[5, 6, 7])), &list(&[5, 6])), "a list that is longer");
    }
}
