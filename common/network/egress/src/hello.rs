//! The name in a TLS hello (RFC 8446, 4.1.2; RFC 6066, 3).
//!
//! This reads the lengths and the one extension that matters, and nothing that a server could read
//! in another way: a second such extension, a second name, or bytes that are left over make the
//! hello malformed. An encrypted hello (RFC 9849) is told apart, because a server takes the name in
//! it, and not the one outside. Crates that parse TLS do not tell of that extension, or bring a dozen
//! others.

/// The most bytes of a hello. Hellos with keys against quantum computers have about 2 KiB.
pub(crate) const MOST: usize = 1 << 14;

/// The type of a record with handshake messages, and that of the first message.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// The length of a record's header, of a message's header, and the longest record.
const RECORD: usize = 5;
const MESSAGE: usize = 4;
const LONGEST: usize = 1 << 14;
/// Types of extensions. The last one is from the drafts before RFC 9849.
const SERVER_NAME: u16 = 0;
const ENCRYPTED: [u16; 2] = [0xfe0d, 0xffce];

/// What a connection begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hello {
    /// The beginning of a hello.
    Part,
    /// A hello with this name, in lower case.
    Name(String),
    /// Something without a name that can be compared. The name outside an encrypted hello.
    Without(Why, Option<String>),
}

/// Why there is no name that can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    NotTls,
    NoName,
    Encrypted,
    Malformed,
}

impl Why {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::NotTls => "no TLS hello",
            Self::NoName => "no name in the TLS hello",
            Self::Encrypted => "encrypted TLS hello",
            Self::Malformed => "malformed TLS hello",
        }
    }
}

/// Reads the first bytes of a connection.
pub(crate) fn read(bytes: &[u8]) -> Hello {
    let mut message = Vec::new();
    let mut rest = bytes;
    while let Some((kind, header)) = rest.split_first() {
        let is_tls = *kind == HANDSHAKE && header.first().is_none_or(|major| *major == 3);
        if !is_tls {
            let why = if message.is_empty() { Why::NotTls } else { Why::Malformed };
            return Hello::Without(why, None);
        }
        let Some(length) = rest.get(3..RECORD) else { return Hello::Part };
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length == 0 || length > LONGEST {
            return Hello::Without(Why::Malformed, None);
        }
        let there = &rest[RECORD..rest.len().min(RECORD + length)];
        message.extend_from_slice(there);
        if let Some(hello) = complete(&message) {
            return hello;
        }
        if there.len() < length {
            return Hello::Part;
        }
        rest = &rest[RECORD + length..];
    }
    Hello::Part
}

/// Reads the message if it is complete, or if it can be no hello.
fn complete(message: &[u8]) -> Option<Hello> {
    if *message.first()? != CLIENT_HELLO {
        return Some(Hello::Without(Why::Malformed, None));
    }
    let length = message.get(1..MESSAGE)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > MOST {
        return Some(Hello::Without(Why::Malformed, None));
    }
    let body = message.get(MESSAGE..MESSAGE + length)?;
    Some(of_body(body))
}

/// Reads a hello without its header.
pub(crate) fn of_body(body: &[u8]) -> Hello {
    client_hello(body).unwrap_or(Hello::Without(Why::Malformed, None))
}

/// The bytes of a message that are still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A part that is preceded by its length, which has this many bytes.
    fn part(&mut self, bytes: usize) -> Option<Rest<'a>> {
        let length = self.number(bytes)?;
        self.take(length).map(Rest)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Reads a hello. None if it is malformed.
fn client_hello(body: &[u8]) -> Option<Hello> {
    let mut rest = Rest(body);
    let (version, random) = (2, 32);
    rest.take(version + random)?;
    let (_session, _suites, _compressions) = (rest.part(1)?, rest.part(2)?, rest.part(1)?);
    let (mut name, mut encrypted) = (None, false);
    if !rest.0.is_empty() {
        let mut extensions = rest.part(2)?;
        rest.end()?;
        while !extensions.0.is_empty() {
            let kind = extensions.number(2)? as u16;
            let content = extensions.part(2)?;
            encrypted |= ENCRYPTED.contains(&kind);
            if kind == SERVER_NAME && name.replace(server_name(content)?).is_some() {
                return None;
            }
        }
    }
    Some(match name {
        name if encrypted => Hello::Without(Why::Encrypted, name),
        None => Hello::Without(Why::NoName, None),
        Some(name) => Hello::Name(name),
    })
}

/// The only name in the extension. None if it is malformed.
fn server_name(mut content: Rest<'_>) -> Option<String> {
    let mut list = content.part(2)?;
    content.end()?;
    let host_name = 0;
    if list.number(1)? != host_name {
        return None;
    }
    let name = list.part(2)?;
    list.end()?;
    let name = std::str::from_utf8(name.0).ok()?;
    names::is_name(name).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The bytes, preceded by their length.
    fn part(bytes: usize, content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32).to_be_bytes()[4 - bytes..], content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &part(2, content)].concat()
    }

    pub(crate) fn names(names: &[&str]) -> Vec<u8> {
        let entries: Vec<u8> =
            names.iter().flat_map(|name| [vec![0], part(2, name.as_bytes())].concat()).collect();
        extension(0, &part(2, &entries))
    }

    /// A hello message with these extensions.
    pub(crate) fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let extensions = part(2, &extensions.concat());
        let body =
            [&[3, 3][..], &[7; 32], &part(1, &[9; 32]), &part(2, &[0x13, 1]), &part(1, &[0]), &extensions];
        [vec![1], part(3, &body.concat())].concat()
    }

    /// The message in records of at most this many bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|chunk| [&[22, 3, 1][..], &part(2, chunk)].concat()).collect()
    }

    fn without(why: Why) -> Hello {
        Hello::Without(why, None)
    }

    #[test]
    fn a_name_is_found_in_any_pieces() {
        let hello =
            message(&[extension(10, &[0, 2, 0, 29]), names(&["Git.Example"]), extension(43, &[2, 3, 4])]);
        for size in [1, 2, 3, 4, 5, 50, 16_384] {
            let bytes = records(&hello, size);
            assert_eq!(read(&bytes), Hello::Name("git.example".to_owned()), "records of {size}");
            for length in 0..bytes.len() {
                assert_eq!(read(&bytes[..length]), Hello::Part, "{length} bytes of records of {size}");
            }
            // What follows the hello does not matter.
            assert_eq!(read(&[&bytes[..], b"more"].concat()), Hello::Name("git.example".to_owned()));
        }
    }

    #[test]
    fn what_has_no_name_to_compare() {
        let hello = |extensions: &[Vec<u8>]| read(&records(&message(extensions), 1000));
        let outer = || names(&["front.example"]);
        let encrypted = Hello::Without(Why::Encrypted, Some("front.example".to_owned()));
        for (extensions, told) in [
            (vec![], without(Why::NoName)),
            (vec![extension(10, &[])], without(Why::NoName)),
            (vec![outer(), extension(0xfe0d, &[0])], encrypted.clone()),
            (vec![extension(0xffce, &[0]), outer()], encrypted),
            (vec![outer(), outer()], without(Why::Malformed)),
            (vec![names(&["a.example", "b.example"])], without(Why::Malformed)),
            (vec![names(&[])], without(Why::Malformed)),
            (vec![names(&["192.0.2.1"])], without(Why::Malformed)),
            (vec![names(&["a.example."])], without(Why::Malformed)),
            (vec![names(&["a\0.example"])], without(Why::Malformed)),
            (vec![extension(0, &[0, 3, 1, 0, 0])], without(Why::Malformed)),
            (vec![extension(0, &[0, 1, 0, 0])], without(Why::Malformed)),
        ] {
            assert_eq!(hello(&extensions), told, "{extensions:?}");
        }
        for (bytes, told) in [
            (&b"GET / HTTP/1.1\r\n"[..], without(Why::NotTls)),
            (b"S", without(Why::NotTls)),
            (&[22, 2], without(Why::NotTls)),
            // Another record before the hello is complete, an empty record, a record that is too
            // long, and another message.
            (&[22, 3, 1, 0, 1, 1, 23], without(Why::Malformed)),
            (&[22, 3, 1, 0, 0], without(Why::Malformed)),
            (&[22, 3, 1, 0x40, 1], without(Why::Malformed)),
            (&[22, 3, 1, 0, 1, 2], without(Why::Malformed)),
            (&[22, 3, 1, 0, 4, 1, 1, 0, 0], without(Why::Malformed)),
        ] {
            assert_eq!(read(bytes), told, "{bytes:?}");
        }
        // A hello that lies about a length, and one with bytes after its extensions.
        let good = message(&[outer()]);
        for at in 4 + 34..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x80;
            let found = read(&records(&bad, 1000));
            assert_ne!(found, Hello::Part, "at {at}");
        }
        let mut long = message(&[outer()]);
        long.push(0);
        long[3] += 1;
        assert_eq!(read(&records(&long, 1000)), without(Why::Malformed));
    }
}
