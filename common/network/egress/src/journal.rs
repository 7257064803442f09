//! The journal of what a container looked up and sent, and what was rejected. It is JSON, one
//! object a line.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    net::IpAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
    sync::Mutex,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::list::Protocol;

/// The size in bytes above which the first half of the file is dropped.
const MOST: u64 = 1 << 20;

/// The reason of a TLS hello with a name that is not listed, or whose answers did not have the address.
pub(crate) const ANOTHER: &str = "another name in the TLS hello";

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The time.
    pub time: String,
    /// The outcome.
    pub verdict: Outcome,
    /// The question or packet.
    #[serde(flatten)]
    pub what: What,
}

/// The outcome of a question or a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was answered.
    Allowed,
    /// It is on no list, and was rejected.
    Rejected,
    /// It is on no list, but passed (`--log`).
    Logged,
}

/// A question or a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum What {
    /// A question for a name.
    Name {
        /// The name.
        name: String,
        /// The addresses that the container was told.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        addresses: Vec<IpAddr>,
        /// Addresses that the server returned and that must not be opened by a name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        withheld: Vec<IpAddr>,
    },
    /// A packet.
    Packet {
        /// The destination address.
        address: IpAddr,
        /// The destination port, if the protocol has ports.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// The protocol: `tcp`, `udp`, `sctp`, `icmp`, or a number.
        protocol: String,
        /// The name in the TLS hello, where it was compared (`--sni`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sni: Option<String>,
        /// Why the TLS hello was not the one of a listed name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// Equal journal lines, combined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The outcome.
    pub verdict: Outcome,
    /// The name in the question. For a packet, the name in its TLS hello, or the names that had been
    /// answered with its address.
    pub names: Vec<String>,
    /// The destination address of a packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The destination port, if the protocol has ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Why the TLS hello was not the one of a listed name (`--sni`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The number of occurrences. Packets to one port within a minute count as one.
    pub count: usize,
    /// The time of the last occurrence.
    pub last: String,
}

impl Seen {
    /// The arguments of `egress-allow` that would let it pass. Empty for a name that no packet was
    /// sent to, because a packet's arguments include its names.
    pub fn words(&self) -> Vec<String> {
        let Some(address) = self.address else {
            // The container was never told the addresses, so it could not send anything there.
            return if self.verdict == Outcome::Rejected { self.names.clone() } else { Vec::new() };
        };
        let target = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        // What is not TLS, or has no name that can be compared, passes by its address only.
        let by_name = self.reason.as_deref().is_none_or(|reason| reason == ANOTHER);
        let targets = if self.names.is_empty() || !by_name { vec![target] } else { self.names.clone() };
        let port = match (self.port, self.protocol.as_deref()) {
            (Some(port), Some("tcp")) => format!(":{port}"),
            (Some(port), Some(protocol)) => format!(":{port}/{protocol}"),
            _ => String::new(),
        };
        targets.into_iter().map(|target| target + &port).collect()
    }
}

/// Combines the lines of a journal, in the order of their first occurrence. Truncated lines are
/// skipped.
pub fn together(text: &str) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    let mut places: HashMap<(Outcome, String), usize> = HashMap::new();
    let mut names: HashMap<IpAddr, Vec<String>> = HashMap::new();
    for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
        let (known, address, port, protocol, sni, reason) = match line.what {
            What::Name { name, addresses, .. } => {
                for address in addresses {
                    let known = names.entry(address).or_default();
                    if !known.contains(&name) {
                        known.push(name.clone());
                    }
                }
                (vec![name], None, None, None, None, None)
            }
            What::Packet { address, port, protocol, sni, reason } => {
                let known = match &sni {
                    Some(name) => vec![name.clone()],
                    None => names.get(&address).cloned().unwrap_or_default(),
                };
                (known, Some(address), port, Some(protocol), sni, reason)
            }
        };
        let key = match address {
            None => known.concat(),
            Some(address) => format!("{address} {port:?} {protocol:?} {sni:?} {reason:?}"),
        };
        let place = *places.entry((line.verdict, key)).or_insert(seen.len());
        match seen.get_mut(place) {
            Some(seen) => (seen.names, seen.count, seen.last) = (known, seen.count + 1, line.time),
            None => {
                let (verdict, last) = (line.verdict, line.time);
                seen.push(Seen { verdict, names: known, address, port, protocol, reason, count: 1, last });
            }
        }
    }
    seen
}

/// The journal file. The lock is for its threads.
#[derive(Debug)]
pub(crate) struct Journal(File, Mutex<()>);

impl Journal {
    /// Opens the file, or creates it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            operation::make_directories(directory, 0o777)?;
        }
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path)?;
        Ok(Self(file, Mutex::new(())))
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Appends a line. A line that cannot be written is lost, because nothing depends on it.
    pub(crate) fn note(&self, verdict: Outcome, what: What) {
        let line = Line { time: Timestamp::now().to_string(), verdict, what };
        let Ok(text) = serde_json::to_string(&line) else { return };
        let _alone = self.1.lock();
        let written = (&self.0).write_all(format!("{text}\n").as_bytes()).and_then(|()| self.shorten());
        drop(written);
    }

    /// Drops the first half of a file that is too long.
    fn shorten(&self) -> io::Result<()> {
        let length = self.0.metadata()?.len();
        if length <= MOST {
            return Ok(());
        }
        let mut rest = vec![0; (length / 2) as usize];
        self.0.read_exact_at(&mut rest, length - length / 2)?;
        let begin = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        self.0.set_len(0)?;
        (&self.0).write_all(&rest[begin..])
    }
}

/// The destination of a packet, parsed from its first bytes. None if they cannot be parsed.
pub(crate) fn packet(bytes: &[u8]) -> Option<What> {
    let (address, protocol, rest) = match bytes.first()? >> 4 {
        4 => {
            let length = usize::from(bytes[0] & 15) * 4;
            let octets: [u8; 4] = bytes.get(16..20)?.try_into().ok()?;
            (IpAddr::from(octets), *bytes.get(9)?, bytes.get(length..)?)
        }
        6 => {
            let octets: [u8; 16] = bytes.get(24..40)?.try_into().ok()?;
            (IpAddr::from(octets), *bytes.get(6)?, bytes.get(40..)?)
        }
        _ => return None,
    };
    let known = Protocol::ALL.into_iter().find(|known| *known as u8 == protocol);
    let port = known.and_then(|_| Some(u16::from_be_bytes(*rest.get(2..)?.first_chunk()?)));
    let protocol = match known {
        Some(known) => known.to_string(),
        None if [1, 58].contains(&protocol) => "icmp".to_owned(),
        None => protocol.to_string(),
    };
    Some(What::Packet { address, port, protocol, sni: None, reason: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let line = |what| Line { time: "t".into(), verdict: Outcome::Rejected, what };
        let name =
            What::Name { name: "a.example".into(), addresses: vec![], withheld: vec![[127, 0, 0, 1].into()] };
        let packet = |sni: Option<&str>| What::Packet {
            address: [1, 1, 1, 1].into(),
            port: Some(853),
            protocol: "tcp".into(),
            sni: sni.map(str::to_owned),
            reason: None,
        };
        for (line, text) in [
            (line(name), r#"{"time":"t","verdict":"rejected","name":"a.example","withheld":["127.0.0.1"]}"#),
            (
                line(packet(None)),
                r#"{"time":"t","verdict":"rejected","address":"1.1.1.1","port":853,"protocol":"tcp"}"#,
            ),
            (
                line(packet(Some("b.example"))),
                r#"{"time":"t","verdict":"rejected","address":"1.1.1.1","port":853,"protocol":"tcp","sni":"b.example"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&line).unwrap(), text);
            assert_eq!(serde_json::from_str::<Line>(text).unwrap(), line);
        }
    }

    #[test]
    fn what_came_together_is_a_list_to_allow() {
        let log = r#"{"time":"1","verdict":"logged","name":"a.example","addresses":["10.0.0.1"]}
{"time":"2","verdict":"logged","address":"10.0.0.1","port":443,"protocol":"tcp"}
{"time":"3","verdict":"logged","address":"10.0.0.1","port":443,"protocol":"tcp"}
{"time":"3","verdict":"logged","address":"10.0.0.2","port":123,"protocol":"udp"}
{"time":"4","verdict":"rejected","name":"b.example"}
{"time":"5","verdict":"logged","address":"10.0.0.3","protocol":"icmp"}
{"time":"6","verdict":"logged","address":"10.0.0.1","port":443,"protocol":"tcp","sni":"c.example"}
{"time":"7","verdict":"rejected","address":"10.0.0.1","port":443,"protocol":"tcp","sni":"d.example","reason":"another name in the TLS hello"}
{"time":"8","verdict":"rejected","address":"10.0.0.1","port":443,"protocol":"tcp","reason":"no TLS hello"}
{"time":"5","verd"#;
        let seen = together(log);
        let words: Vec<_> = seen.iter().flat_map(Seen::words).collect();
        assert_eq!(
            words,
            [
                "a.example:443",
                "10.0.0.2:123/udp",
                "b.example",
                "10.0.0.3",
                "c.example:443",
                "d.example:443",
                "10.0.0.1:443"
            ]
        );
        assert_eq!((seen.len(), seen[1].count, seen[1].last.as_str()), (8, 2, "3"));
        let all: Vec<crate::list::Entry> = words.iter().map(|word| word.parse().unwrap()).collect();
        assert_eq!(all.len(), words.len());
    }

    #[test]
    fn where_a_packet_goes() {
        let mut udp = vec![0x45; 28];
        udp[9] = 17;
        udp[16..20].copy_from_slice(&[8, 8, 8, 8]);
        udp[22..24].copy_from_slice(&[0, 53]);
        let shown = |bytes: &[u8]| packet(bytes).map(|what| serde_json::to_string(&what).unwrap());
        assert_eq!(shown(&udp).unwrap(), r#"{"address":"8.8.8.8","port":53,"protocol":"udp"}"#);
        udp[9] = 1;
        assert_eq!(shown(&udp).unwrap(), r#"{"address":"8.8.8.8","protocol":"icmp"}"#);
        for short in 0..20 {
            assert_eq!(shown(&udp[..short]), None);
        }
        assert_eq!(shown(&[0x60; 39]), None);
    }

    #[test]
    fn a_long_file_loses_its_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/web.log");
        let journal = Journal::open(&path).unwrap();
        let note = |name: String| What::Name { name, addresses: vec![], withheld: vec![] };
        let lines = 14_000;
        (0..lines).for_each(|number| journal.note(Outcome::Allowed, note(format!("{number:0100}"))));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.len() as u64 <= MOST && text.len() as u64 > MOST / 3);
        let read: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read.last().unwrap().what, note(format!("{:0100}", lines - 1)));
    }
}
