//! A second hello on a connection.
//!
//! A server may answer a hello with a request for another one (HelloRetryRequest, RFC 8446, 4.1.4).
//! The second hello comes in the clear too, and must have the name of the first one (4.1.2). Not every
//! server compares them: some serve the name of the second hello. So this reads what the client
//! sends, until the server has answered with something else than such a request.

use crate::hello::{self, Hello, Why};

/// The types of records that a client may send before the server's answer: signs for old
/// middleboxes, alerts, handshake messages, and early data.
const KINDS: std::ops::RangeInclusive<u8> = 20..=23;
const SIGN: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// The types of messages.
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// The length of a record's header, and of a message's.
const RECORD: usize = 5;
const MESSAGE: usize = 4;
/// The longest record, with what encryption adds (RFC 8446, 5.2; RFC 5246, 6.2.3).
const LONGEST: usize = (1 << 14) + 2048;
/// Where the random bytes begin in a hello of the server, and which ones make it a request for another
/// hello (RFC 8446, 4.1.3).
const RANDOM: usize = MESSAGE + 2;
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Why the client may not go on, and the name that it gave instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) Option<Why>, pub(crate) Option<String>);

/// Watches a connection whose first hello has been read.
#[derive(Debug)]
pub(crate) struct Watch {
    name: String,
    client: Records,
    server: Records,
    hellos: usize,
    /// Whether the server asked for another hello.
    asked: bool,
}

impl Watch {
    /// Watches a connection for this name.
    pub(crate) fn new(name: String) -> Self {
        Self { name, client: Records::default(), server: Records::default(), hellos: 0, asked: false }
    }

    /// Reads what the client sends, from its first byte on.
    ///
    /// # Errors
    /// When it is a hello with another name, or no beginning of TLS.
    pub(crate) fn client(&mut self, mut bytes: &[u8]) -> Result<(), Refused> {
        let malformed = || Refused(Some(Why::Malformed), None);
        while let Some(kind) = self.client.read(&mut bytes).map_err(|Malformed| malformed())? {
            if !KINDS.contains(&kind) || (kind != HANDSHAKE && !self.client.message.is_empty()) {
                return Err(malformed());
            }
            while let Some(message) = self.client.message(hello::MOST).map_err(|Malformed| malformed())? {
                let (header, body) = message.split_at(MESSAGE);
                if header[0] != CLIENT_HELLO {
                    return Err(malformed());
                }
                match hello::of_body(body) {
                    Hello::Name(name) if name == self.name => self.hellos += 1,
                    Hello::Name(name) => return Err(Refused(None, Some(name))),
                    Hello::Without(why, name) => return Err(Refused(Some(why), name)),
                    Hello::Part => return Err(malformed()),
                }
            }
        }
        Ok(())
    }

    /// Reads what the server sends, from its first byte on. What is no TLS is an answer too. An alert and a
    /// sign for middleboxes are none: after a warning, a server may still ask for another hello.
    pub(crate) fn server(&mut self, mut bytes: &[u8]) {
        while !self.asked {
            let beginning = match self.server.read(&mut bytes) {
                Ok(None) => return,
                Ok(Some(SIGN | ALERT)) => continue,
                Ok(Some(HANDSHAKE)) => self.server.message.get(..RANDOM + RETRY.len()),
                Ok(Some(_)) | Err(Malformed) => return self.end(),
            };
            match beginning {
                Some(beginning) if beginning[0] == SERVER_HELLO && beginning[RANDOM..] == RETRY => {
                    self.asked = true;
                }
                Some(_) => return self.end(),
                None => {}
            }
        }
    }

    /// Whether no further hello can count. Behind a second hello, there is no third one.
    pub(crate) fn is_over(&self) -> bool {
        self.asked && self.hellos >= 2
    }

    /// The server has answered.
    fn end(&mut self) {
        (self.asked, self.hellos) = (true, 2);
    }
}

#[derive(Debug)]
struct Malformed;

/// The records of one direction, and the handshake messages in them.
#[derive(Debug, Default)]
struct Records {
    header: Vec<u8>,
    /// The bytes of the record that are still to come.
    left: usize,
    /// Handshake bytes that are not yet taken.
    message: Vec<u8>,
}

impl Records {
    /// Reads to the end of the bytes or of a record's part in them. Returns the record's type, and None
    /// when there are no more bytes.
    fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<u8>, Malformed> {
        while self.left == 0 {
            if self.header.len() == RECORD {
                self.header.clear();
            }
            let taken = take(bytes, RECORD - self.header.len());
            if taken.is_empty() {
                return Ok(None);
            }
            self.header.extend_from_slice(taken);
            if self.header.len() == RECORD {
                self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                if self.left > LONGEST {
                    return Err(Malformed);
                }
            }
        }
        let taken = take(bytes, self.left);
        if taken.is_empty() {
            return Ok(None);
        }
        self.left -= taken.len();
        if self.header[0] == HANDSHAKE {
            self.message.extend_from_slice(taken);
        }
        Ok(Some(self.header[0]))
    }

    /// Takes the next message, if it is complete.
    fn message(&mut self, most: usize) -> Result<Option<Vec<u8>>, Malformed> {
        let Some(header) = self.message.get(..MESSAGE) else { return Ok(None) };
        let length = header[1..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length > most {
            return Err(Malformed);
        }
        match self.message.len() >= MESSAGE + length {
            true => Ok(Some(self.message.drain(..MESSAGE + length).collect())),
            false => Ok(None),
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(most.min(bytes.len()));
    *bytes = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        [&[kind, 3, 3][..], &(content.len() as u16).to_be_bytes(), content].concat()
    }

    fn server_hello(random: [u8; 32]) -> Vec<u8> {
        let body = [&[3, 3][..], &random, &[0, 0x13, 1, 0, 0, 0]].concat();
        [&[SERVER_HELLO, 0, 0, body.len() as u8][..], &body].concat()
    }

    fn client_hello(name: &str) -> Vec<u8> {
        hello::tests::message(&[hello::tests::names(&[name])])
    }

    /// Says what becomes of a connection: C and S are what client and server send.
    fn told(sent: &[(char, Vec<u8>)], size: usize) -> Result<bool, Refused> {
        let mut watch = Watch::new("good.example".to_owned());
        for (by, bytes) in sent {
            for part in bytes.chunks(size) {
                match by {
                    'C' if watch.is_over() => {}
                    'C' => watch.client(part)?,
                    _ => watch.server(part),
                }
            }
        }
        Ok(watch.is_over())
    }

    #[test]
    fn a_second_hello_is_compared() {
        let (good, bad) = (client_hello("Good.example"), client_hello("bad.example"));
        let (good, bad) = (|| record(22, &good), || record(22, &bad));
        let retry = || record(22, &server_hello(RETRY));
        let answer = || record(22, &server_hello([7; 32]));
        let another = Err(Refused(None, Some("bad.example".to_owned())));
        let malformed = Err(Refused(Some(Why::Malformed), None));
        let key_exchange = record(22, &[16, 0, 0, 1, 0]);
        let (sign, data) = (record(20, &[1]), record(23, &[9; 300]));
        for (sent, outcome) in [
            (vec![('C', good())], Ok(false)),
            (vec![('C', good()), ('S', answer()), ('C', key_exchange.clone())], Ok(true)),
            (vec![('C', good()), ('S', retry()), ('C', good())], Ok(true)),
            (vec![('C', good()), ('S', retry()), ('C', bad())], another.clone()),
            // Between them come early data, and a sign for middleboxes.
            (vec![('C', [good(), sign, data].concat()), ('S', retry()), ('C', bad())], another.clone()),
            // It need not wait for the request.
            (vec![('C', [good(), bad()].concat())], another.clone()),
            (
                vec![('C', good()), ('S', retry()), ('C', record(22, &client_hello("good.example")[..9]))],
                Ok(false),
            ),
            (vec![('C', good()), ('C', key_exchange.clone())], malformed.clone()),
            (vec![('C', good()), ('C', vec![22, 3, 3, 0xff, 0xff])], malformed.clone()),
            (vec![('C', good()), ('C', record(99, &[1]))], malformed.clone()),
            (vec![('C', good()), ('C', [record(22, &[1]), record(23, &[1])].concat())], malformed),
            // An alert answers nothing.
            (
                vec![('C', good()), ('S', [record(21, &[1, 112]), retry()].concat()), ('C', bad())],
                another.clone(),
            ),
            (vec![('C', good()), ('S', record(21, &[1, 112])), ('C', bad())], another.clone()),
            (
                vec![('C', good()), ('S', [record(21, &[1, 112]), answer()].concat()), ('C', key_exchange)],
                Ok(true),
            ),
            (vec![('C', good()), ('S', record(21, &[2, 40])), ('C', record(21, &[1, 0]))], Ok(false)),
            (vec![('C', good()), ('S', b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())], Ok(true)),
        ] {
            for size in [1, 2, 5, 6, 100, 100_000] {
                assert_eq!(told(&sent, size), outcome, "{sent:?} in parts of {size}");
            }
        }
        // Two hellos in one record.
        let both = record(22, &[client_hello("good.example"), client_hello("bad.example")].concat());
        assert_eq!(told(&[('C', both)], 100_000), another);
    }
}
