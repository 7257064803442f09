//! git's packets (gitprotocol-common, "pkt-line Format"): a length of four hexadecimal digits, followed by
//! the content.

use std::io::{self, Read};

/// A packet of git's protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// The flush packet, `0000`.
    Flush,
    /// A line or data.
    Data(Vec<u8>),
}

/// The maximum length of a packet, in bytes.
const MOST: usize = 65_520;

/// Reads the next packet.
pub(crate) fn read(from: &mut dyn Read) -> io::Result<Packet> {
    let mut digits = [0; 4];
    from.read_exact(&mut digits)?;
    let length = std::str::from_utf8(&digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
    match length {
        Some(0) => Ok(Packet::Flush),
        Some(length @ 4..=MOST) => {
            let mut data = vec![0; length - 4];
            from.read_exact(&mut data)?;
            Ok(Packet::Data(data))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a packet of git")),
    }
}

/// Adds a line as a packet.
pub(crate) fn write(to: &mut Vec<u8>, line: &str) {
    to.extend_from_slice(format!("{:04x}{line}", line.len() + 4).as_bytes());
}

/// Adds a flush packet.
pub(crate) fn flush(to: &mut Vec<u8>) {
    to.extend_from_slice(b"0000");
}

/// Reads the data in band 1 of a multiplexed answer (gitprotocol-pack, "Packfile Data").
pub(crate) struct Band<'a> {
    from: &'a mut dyn Read,
    rest: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<'a> Band<'a> {
    pub(crate) fn new(from: &'a mut dyn Read) -> Self {
        Self { from, rest: Vec::new(), at: 0, ended: false }
    }
}

impl Read for Band<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.rest.len() && !self.ended {
            match read(self.from)? {
                Packet::Flush => self.ended = true,
                Packet::Data(data) => match data.split_first() {
                    Some((1, _)) => (self.rest, self.at) = (data, 1),
                    // Progress messages of the server.
                    Some((2, _)) => {}
                    Some((3, text)) => {
                        let text = String::from_utf8_lossy(text).trim().to_owned();
                        return Err(io::Error::other(format!("the server says: {text}")));
                    }
                    _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown band")),
                },
            }
        }
        let count = buffer.len().min(self.rest.len() - self.at);
        buffer[..count].copy_from_slice(&self.rest[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_and_bands() {
        let mut text = Vec::new();
        write(&mut text, "want x\n");
        flush(&mut text);
        assert_eq!(text, b"000bwant x\n0000");
        let mut from = &text[..];
        assert_eq!(read(&mut from).unwrap(), Packet::Data(b"want x\n".to_vec()));
        assert_eq!(read(&mut from).unwrap(), Packet::Flush);
        for wrong in [&b"0003"[..], b"zzzz", b"00", b"0009ab", b"ffff"] {
            assert!(read(&mut &wrong[..]).is_err(), "{wrong:?}");
        }
        let mut all = String::new();
        let mut from = &b"0007\x01ab0007\x02no0006\x01c0000"[..];
        Band::new(&mut from).read_to_string(&mut all).unwrap();
        assert_eq!(all, "abc");
        let error = Band::new(&mut &b"0008\x03why"[..]).read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.to_string(), "the server says: why");
    }
}
