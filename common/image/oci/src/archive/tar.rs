//! The members of a tar, one after the other, as far as an archive of images needs them: name, kind, size, content.
//! (POSIX pax interchange format; ustar and GNU headers.) Nothing is unpacked.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// The longest extended header that is read into memory, in bytes. Names are at most a few KiB.
const MAX_EXTENSION: u64 = 1 << 20;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// A hard or symbolic link; the target is beside it.
    Link,
    Directory,
    Other,
}

/// A member's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) hard: bool,
    pub(super) link: String,
    pub(super) size: u64,
    pub(super) mtime: i64,
}

/// What an extended header says of the member that follows.
#[derive(Default)]
struct Extension {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

/// Reads a tar. Between two calls of `next`, it is a reader of the member's content; what is left of it is skipped.
pub(super) struct Members<R> {
    source: R,
    left: u64,
    padding: u64,
    ended: bool,
}

fn invalid(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

impl<R: Read> Members<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0, ended: false }
    }

    /// What the tar is read from, after its end.
    pub(super) fn into_inner(self) -> R {
        self.source
    }

    /// The next member; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Member>> {
        let mut extension = Extension::default();
        loop {
            let Some(block) = self.header()? else { return Ok(None) };
            let size = number(&block[124..136])?;
            match block[156] {
                b'x' => pax(&self.extension(size)?, &mut extension)?,
                b'g' => self.skip_to(size)?,
                b'L' => extension.name = Some(until_nul(&self.extension(size)?)),
                b'K' => extension.link = Some(until_nul(&self.extension(size)?)),
                flag => return self.member(&block, flag, size, extension).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        block: &[u8; BLOCK],
        flag: u8,
        size: u64,
        extension: Extension,
    ) -> io::Result<Member> {
        let kind = match flag {
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' | b'2' => Kind::Link,
            b'5' => Kind::Directory,
            _ => Kind::Other,
        };
        let size = extension.size.unwrap_or(size);
        // Links, devices and FIFOs have no content, whatever their size says; directories neither (pax, "size").
        self.begin(if matches!(flag, b'1'..=b'6') { 0 } else { size })?;
        if flag == b'S' {
            self.sparse(block)?;
        }
        let mut name = until_nul(&block[..100]);
        let prefix = until_nul(&block[345..500]);
        if block[257..263] == *b"ustar\0" && !prefix.is_empty() {
            name = format!("{prefix}/{name}");
        }
        let name = extension.name.unwrap_or(name);
        let link = extension.link.unwrap_or_else(|| until_nul(&block[157..257]));
        let mtime = i64::try_from(number(&block[136..148]).unwrap_or(0)).unwrap_or(0);
        Ok(Member { name, kind, hard: flag == b'1', link, size: self.left, mtime })
    }

    /// The header's block; none at the tar's end, which is a block of zeros, or simply the end.
    fn header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        io::copy(self, &mut io::sink())?;
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        let count = read_full(&mut self.source, &mut block)?;
        if count == 0 || block == [0; BLOCK] {
            self.ended = true;
            return Ok(None);
        }
        if count < BLOCK {
            return Err(invalid("the tar ends within a header"));
        }
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u64::from(*b) })
            .sum();
        match number(&block[148..156]) {
            Ok(found) if found == sum => Ok(Some(block)),
            _ => Err(invalid("not a tar: the checksum of a header is wrong")),
        }
    }

    fn begin(&mut self, size: u64) -> io::Result<()> {
        if size > i64::MAX as u64 {
            return Err(invalid("a member of the tar is larger than any file"));
        }
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(())
    }

    fn skip_to(&mut self, size: u64) -> io::Result<()> {
        self.begin(size)
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(invalid(format!("an extended header of {size} bytes is refused")));
        }
        self.begin(size)?;
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Old GNU sparse files: more headers may stand before the content.
    fn sparse(&mut self, header: &[u8; BLOCK]) -> io::Result<()> {
        let mut more = header[482] != 0;
        while more {
            let mut block = [0; BLOCK];
            self.source.read_exact(&mut block)?;
            more = block[504] != 0;
        }
        Ok(())
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let mut padding = [0; BLOCK];
            let count = std::mem::take(&mut self.padding) as usize;
            return match read_full(&mut self.source, &mut padding[..count])? {
                found if found == count => Ok(0),
                _ => Err(invalid("the tar ends within a member")),
            };
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        match self.source.read(&mut buffer[..most])? {
            0 => Err(invalid("the tar ends within a member")),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match source.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// A number in octal, or in GNU's base 256 where it is large.
fn number(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0x80 != 0 {
        let (first, rest) = (u64::from(field[0] & 0x7f), &field[1..]);
        let append = |number: u64, byte: &u8| number.checked_mul(256).map(|n| n | u64::from(*byte));
        return rest
            .iter()
            .try_fold(first, append)
            .ok_or_else(|| invalid("a number in a header is too large"));
    }
    let text = until_nul(field);
    match text.trim() {
        "" => Ok(0),
        digits => u64::from_str_radix(digits, 8).map_err(|_| invalid("a number in a header is not octal")),
    }
}

fn until_nul(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// Records of the form `LENGTH KEY=VALUE\n`.
fn pax(mut content: &[u8], extension: &mut Extension) -> io::Result<()> {
    let wrong = || invalid("an extended header is malformed");
    while !content.is_empty() {
        let space = content.iter().take(20).position(|b| *b == b' ').ok_or_else(wrong)?;
        let length: usize = std::str::from_utf8(&content[..space])
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(wrong)?;
        if length <= space + 1 || length > content.len() || content[length - 1] != b'\n' {
            return Err(wrong());
        }
        let record = &content[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
        let value = || String::from_utf8_lossy(&record[equals + 1..]).into_owned();
        match &record[..equals] {
            b"path" => extension.name = Some(value()),
            b"linkpath" => extension.link = Some(value()),
            b"size" => extension.size = Some(value().parse().map_err(|_| wrong())?),
            _ => {}
        }
        content = &content[length..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(tar: &[u8]) -> io::Result<Vec<(String, Kind, u64)>> {
        let mut members = Members::new(tar);
        let mut list = Vec::new();
        while let Some(member) = members.next()? {
            list.push((member.name, member.kind, member.size));
        }
        Ok(list)
    }

    fn built(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        fill(&mut builder);
        builder.into_inner().unwrap()
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    }

    #[test]
    fn names_sizes_and_extensions() {
        let long = "d/".repeat(150) + "file";
        let tar = built(|builder| {
            add(builder, "a", b"x");
            add(builder, &long, &[7; 513]);
            builder.append_pax_extensions([("path", &b"pax/name"[..]), ("size", b"3")]).unwrap();
            add(builder, "short", b"abc");
        });
        let expected = [("a".to_owned(), 1), (long, 513), ("pax/name".to_owned(), 3)];
        assert_eq!(list(&tar).unwrap(), expected.map(|(name, size)| (name, Kind::File, size)));
    }

    #[test]
    fn damage_is_seen() {
        let tar = built(|builder| add(builder, "a", &[1; 1000]));
        for (damaged, problem) in [
            (&tar[..700], "the tar ends within a member"),
            (&tar[..1520], "the tar ends within a member"),
            (&tar[..300], "the tar ends within a header"),
            (
                &b"no tar at all, but a text that is longer than one block".repeat(20)[..],
                "not a tar: the checksum of a header is wrong",
            ),
        ] {
            assert_eq!(list(damaged).unwrap_err().to_string(), problem);
        }
        assert_eq!(list(&tar[..1536]).unwrap().len(), 1, "the zeros at the end may be missing");
        let huge = built(|builder| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::XHeader);
            header.set_size(1 << 40);
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
        });
        assert_eq!(
            list(&huge).unwrap_err().to_string(),
            "an extended header of 1099511627776 bytes is refused"
        );
        for wrong in [&b"5 a\n"[..], b"99 a=b\n", b"6 a=b", b"x a=b\n", b"7 path\n"] {
            assert!(pax(wrong, &mut Extension::default()).is_err());
        }
    }
}
