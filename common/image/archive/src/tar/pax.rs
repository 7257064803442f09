//! Extended headers (POSIX pax, "pax Extended Header"): records of `LENGTH KEY=VALUE\n`.

use super::Time;

/// The merged records of one or more extended headers. None means that no record sets the value.
#[derive(Debug, Clone, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// The records `GNU.sparse.*` (GNU tar, "Storing Sparse Files"), of any version.
#[derive(Debug, Clone, Default)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// The file's size with holes: `realsize` in version 1.0, `size` before.
    pub(super) size: Option<u64>,
    /// Alternating offsets and lengths. Version 0.0 has a record for each, version 0.1 one record `map`.
    pub(super) map: Vec<u64>,
}

impl Sparse {
    pub(super) fn is_there(&self) -> bool {
        self.major.is_some() || self.size.is_some() || !self.map.is_empty()
    }
}

/// The maximum length of a sparse file's map, in numbers.
const MAP: usize = 1 << 19;

/// The maximum number of extended attributes of an entry. (The kernel lists a file's attributes only if all
/// names fit in 64 KiB.)
const XATTRS: usize = 1024;

impl Pax {
    /// Merges the records in `text`. Later records override earlier ones. An empty value removes a key.
    pub(super) fn read(&mut self, mut text: &[u8]) -> Result<(), &'static str> {
        while !text.is_empty() {
            // Some writers fill the rest of the block with zeros.
            if text.iter().all(|&byte| byte == 0) {
                break;
            }
            let space =
                text.iter().take(20).position(|&byte| byte == b' ').ok_or("record without a length")?;
            let length = decimal(&text[..space]).ok_or("record without a length")?;
            let length =
                usize::try_from(length).ok().filter(|&length| length > space + 1 && length <= text.len());
            let (record, rest) = text.split_at(length.ok_or("record with a wrong length")?);
            let Some((b'\n', record)) = record[space + 1..].split_last() else {
                return Err("record that does not end with its line");
            };
            let equals = record.iter().position(|&byte| byte == b'=').ok_or("record without \"=\"")?;
            self.set(&record[..equals], &record[equals + 1..])?;
            text = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let given = !value.is_empty();
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" => self.size = given.then(|| decimal(value).ok_or("invalid size")).transpose()?,
            b"uid" => self.uid = given.then(|| owner(value)).transpose()?,
            b"gid" => self.gid = given.then(|| owner(value)).transpose()?,
            b"mtime" => self.mtime = given.then(|| time(value).ok_or("invalid mtime")).transpose()?,
            b"atime" => self.atime = given.then(|| time(value).ok_or("invalid atime")).transpose()?,
            _ => {
                if let Some(key) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.set_xattr(key, value)?;
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.set_sparse(key, value)?;
                }
                // comment, ctime, uname, gname, charset and vendors' keys: a layer does not keep them.
            }
        }
        Ok(())
    }

    fn set_xattr(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if key.is_empty() || key.contains(&0) {
            return Err("extended attribute without a name");
        }
        self.xattrs.retain(|(at, _)| at != key);
        if self.xattrs.len() == XATTRS {
            return Err("more extended attributes than any file has");
        }
        self.xattrs.push((key.to_vec(), value.to_vec()));
        Ok(())
    }

    fn set_sparse(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const REASON: &str = "sparse file with a number that is none";
        let number = || decimal(value).ok_or(REASON);
        match key {
            b"major" => self.sparse.major = Some(number()?),
            b"minor" => self.sparse.minor = Some(number()?),
            b"name" => self.sparse.name = name(value)?,
            b"size" | b"realsize" => self.sparse.size = Some(number()?),
            // Version 0.0: a pair of records for each run.
            b"offset" if self.sparse.map.len().is_multiple_of(2) => self.sparse.map.push(number()?),
            b"numbytes" if !self.sparse.map.len().is_multiple_of(2) => self.sparse.map.push(number()?),
            b"offset" | b"numbytes" => return Err("sparse file with a map out of order"),
            b"map" => {
                let numbers = value.split(|&byte| byte == b',').map(decimal).take(MAP + 1);
                self.sparse.map = if value.is_empty() {
                    Vec::new()
                } else {
                    numbers.collect::<Option<_>>().ok_or(REASON)?
                };
            }
            _ => {}
        }
        if self.sparse.map.len() > MAP {
            return Err("sparse file in too many pieces");
        }
        Ok(())
    }
}

fn name(value: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err("name with a NUL");
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn owner(value: &[u8]) -> Result<u32, &'static str> {
    let number = match value.strip_prefix(b"-") {
        Some(digits) => decimal(digits).and_then(|number| i64::try_from(number).ok()).map(|number| -number),
        None => decimal(value).and_then(|number| i64::try_from(number).ok()),
    };
    number.and_then(id).ok_or("owner out of range")
}

/// A user or group id of 32 bits. A negative one is that of a system whose ids have a sign: -2 is nobody on macOS and
/// for NFS. The highest number, also written as -1, is rejected: for chown(2) it means "no change", so the file would
/// keep root as owner.
pub(super) fn id(number: i64) -> Option<u32> {
    let id = u32::try_from(number).ok().or_else(|| i32::try_from(number).ok().map(i32::cast_unsigned));
    id.filter(|id| *id != u32::MAX)
}

/// Parses a number of decimal digits only.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Parses seconds with an optional sign and fraction. Nine digits of the fraction count.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = text.iter().position(|&byte| byte == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..point])?).ok()?;
    let fraction = text.get(point + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds = 0;
    for at in 0..9 {
        nanoseconds = nanoseconds * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0'));
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        // -1.25 s is 0.75 s after -2 s.
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let mut pax = Pax::default();
        let value = [b'\n', b'=', 0, 255];
        let mut text =
            b"9 path=a\n9 path=b\n12 path=c/d\n13 uid=12345\n27 mtime=-1.25000000099999\n".to_vec();
        text.extend(b"28 SCHILY.xattr.user.x=");
        text.extend(value.iter().chain(b"\n"));
        pax.read(&text).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"c/d"[..]));
        assert_eq!(pax.uid, Some(12345));
        assert_eq!(pax.mtime, Some(Time { seconds: -2, nanoseconds: 750_000_000 }));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), value.to_vec())]);
        pax.read(b"8 path=\n").unwrap();
        assert_eq!(pax.path, None);
    }

    #[test]
    fn ids_of_other_systems() {
        for (number, found) in [
            (0, Some(0)),
            (-2, Some(u32::MAX - 1)),
            (-1, None),
            (i64::from(u32::MAX), None),
            (i64::from(i32::MIN) - 1, None),
            (i64::from(u32::MAX) + 1, None),
        ] {
            assert_eq!(id(number), found, "{number}");
        }
        assert_eq!(owner(b"-2"), Ok(u32::MAX - 1));
    }

    #[test]
    fn bad_records() {
        for (text, reason) in [
            (&b"path=a\n"[..], "record without a length"),
            (b"99 path=a\n", "record with a wrong length"),
            (b"2 path=a\n", "record with a wrong length"),
            (b"99999999999999999999999 path=a\n", "record without a length"),
            (b"8 path=a\n", "record that does not end with its line"),
            (b"8 pathxa\n", "record that does not end with its line"),
            (b"10 pathxx\n", "record without \"=\""),
            (b"12 path=a\0b\n", "name with a NUL"),
            (b"10 uid=-1\n", "owner out of range"),
            (b"18 uid=4294967296\n", "owner out of range"),
            (b"18 gid=4294967295\n", "owner out of range"),
            (b"11 mtime=x\n", "invalid mtime"),
            (b"26 GNU.sparse.numbytes=12\n", "sparse file with a map out of order"),
        ] {
            assert_eq!(Pax::default().read(text).unwrap_err(), reason, "{}", text.escape_ascii());
        }
    }
}
