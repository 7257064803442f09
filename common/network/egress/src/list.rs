//! The list of what a container may reach: the arguments of `egress-allow`.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
pub use nat::Protocol;
use serde::{Deserialize, Serialize};

/// One entry of the list: `github.com`, `*.debian.org:443`, `10.0.0.0/8`, `[2001:db8::]/32:53/udp`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Entry {
    /// The hosts that the entry allows.
    pub target: Target,
    /// The port. None means every TCP port except those of name servers (53 and 853), and ping.
    pub port: Option<Port>,
}

/// The hosts of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Hosts by their names.
    Name(Pattern),
    /// Hosts by their addresses.
    Addresses(IpNet),
}

/// A name, or all names below one. An empty name means all names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// Whether it matches the names below, at any depth, but not the name itself.
    pub below: bool,
    labels: Vec<String>,
}

/// A port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Port {
    /// The port number.
    pub number: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl Pattern {
    /// Whether the pattern matches the name with these labels, in lower case, from left to right.
    pub fn matches(&self, labels: &[Vec<u8>]) -> bool {
        let Some(more) = labels.len().checked_sub(self.labels.len()) else { return false };
        let same = labels[more..].iter().zip(&self.labels).all(|(one, other)| one == other.as_bytes());
        same && (more > 0) == self.below
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self { below: true, labels: Vec::new() });
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let labels: Vec<String> = name.split('.').map(str::to_owned).collect();
        if !name.is_ascii() {
            return Err(format!("{text:?} has letters that a name in DNS does not: write it with xn--"));
        }
        if name.contains('*') {
            return Err(format!(
                "{text:?} has a `*` that is not the whole first part: *.example.org means all names below"
            ));
        }
        if !names::is_name(&name) {
            return Err(format!("{text:?} is neither a name nor an address"));
        }
        Ok(Self { below, labels })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.labels.join(".");
        match (self.below, name.as_str()) {
            (true, "") => f.write_str("*"),
            (true, name) => write!(f, "*.{name}"),
            (false, name) => f.write_str(name),
        }
    }
}

/// Parses an address, with or without a prefix length. None if the text is not an address.
fn network(text: &str) -> Option<Result<IpNet, String>> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Ok(address.into()));
    }
    let net = text.parse::<IpNet>().ok()?;
    Some(match net.trunc() == net {
        true => Ok(net),
        false => Err(format!("{} is an address in {}", net.addr(), net.trunc())),
    })
}

/// Splits off `[address]` or `[address]/length`. Returns the network as text, and the rest.
fn bracketed(text: &str) -> Option<(String, &str)> {
    let (address, rest) = text.strip_prefix('[')?.split_once(']')?;
    match rest.strip_prefix('/') {
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            Some((format!("{address}/{}", &rest[..digits]), &rest[digits..]))
        }
        None => Some((address.to_owned(), rest)),
    }
}

/// Parses `:443` or `:53/udp`. None if the text is empty.
fn port(text: &str) -> Result<Option<Port>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (number, protocol) = match text.split_once('/') {
        Some((number, protocol)) => (number, protocol),
        None => (text, "tcp"),
    };
    let protocol: Protocol =
        protocol.parse().map_err(|_| format!("{text:?} does not end with /tcp, /udp or /sctp"))?;
    let digits = number.strip_prefix(':').ok_or_else(|| format!("{text:?} is not a port such as :443"))?;
    // Rust accepts "+80" as a number.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse::<u16>().ok().filter(|number| plain && *number > 0) {
        Some(number) => Ok(Some(Port { number, protocol })),
        None => Err(format!("{digits:?} is not a port: 1 to 65535")),
    }
}

impl FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err(format!("{text:?} is the address of a page: give only its host"));
        }
        if let Some(network) = network(text) {
            return Ok(Self { target: Target::Addresses(network?), port: None });
        }
        if let Some((address, rest)) = bracketed(text) {
            let network = network(&address).ok_or_else(|| format!("{address:?} is not an address"))?;
            return Ok(Self { target: Target::Addresses(network?), port: port(rest)? });
        }
        // A slash before the port starts a prefix length, after it a protocol.
        let (target, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
        if let (Some((_, protocol)), true) = (target.split_once('/'), rest.is_empty())
            && protocol.parse::<Protocol>().is_ok()
        {
            return Err(format!("{text:?} has a protocol and no port: write NAME:PORT/{protocol}"));
        }
        let port = port(rest)?;
        let target = match network(target) {
            Some(network) => Target::Addresses(network?),
            None => Target::Name(target.parse()?),
        };
        Ok(Self { target, port })
    }
}

impl TryFrom<String> for Entry {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Entry> for String {
    fn from(entry: Entry) -> Self {
        entry.to_string()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Name(name) => name.fmt(f)?,
            Target::Addresses(net) => {
                let whole = net.prefix_len() == net.max_prefix_len();
                match (net, whole) {
                    (IpNet::V4(net), true) => net.addr().fmt(f)?,
                    (IpNet::V4(net), false) => net.fmt(f)?,
                    (IpNet::V6(net), true) => write!(f, "[{}]", net.addr())?,
                    (IpNet::V6(net), false) => write!(f, "[{}]/{}", net.addr(), net.prefix_len())?,
                }
            }
        }
        match self.port {
            None => Ok(()),
            Some(Port { number, protocol: Protocol::Tcp }) => write!(f, ":{number}"),
            Some(Port { number, protocol }) => write!(f, ":{number}/{protocol}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_as_people_write_them() {
        for (text, shown) in [
            ("github.com", "github.com"),
            ("GitHub.com.", "github.com"),
            ("*.debian.org:443", "*.debian.org:443"),
            ("*", "*"),
            ("*:443", "*:443"),
            ("time.example.org:123/udp", "time.example.org:123/udp"),
            ("example.org:443/tcp", "example.org:443"),
            ("_dmarc.example.org", "_dmarc.example.org"),
            ("db", "db"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3:53/udp", "10.1.2.3:53/udp"),
            ("10.0.0.0/8:443", "10.0.0.0/8:443"),
            ("10.0.0.0/8:5/sctp", "10.0.0.0/8:5/sctp"),
            ("[2001:db8::]/32", "[2001:db8::]/32"),
            ("2001:db8::/32", "[2001:db8::]/32"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("[2001:db8::]/32:53/udp", "[2001:db8::]/32:53/udp"),
            ("", "\"\" is neither a name nor an address"),
            ("10.0.0.256", "\"10.0.0.256\" is neither a name nor an address"),
            ("10.0.0.1/8", "10.0.0.1 is an address in 10.0.0.0/8"),
            ("10.0.0.0/33", "\"10.0.0.0/33\" is neither a name nor an address"),
            ("[example.org]:80", "\"example.org\" is not an address"),
            ("a..b", "\"a..b\" is neither a name nor an address"),
            ("a b", "\"a b\" is neither a name nor an address"),
            ("https://example.org", "\"https://example.org\" is the address of a page: give only its host"),
            ("example.org:0", "\"0\" is not a port: 1 to 65535"),
            ("example.org:+80", "\"+80\" is not a port: 1 to 65535"),
            ("example.org:80-90", "\"80-90\" is not a port: 1 to 65535"),
            ("example.org:https", "\"https\" is not a port: 1 to 65535"),
            ("example.org/udp", "\"example.org/udp\" has a protocol and no port: write NAME:PORT/udp"),
            ("[::1]80", "\"80\" is not a port such as :443"),
            (
                "*x.org",
                "\"*x.org\" has a `*` that is not the whole first part: *.example.org means all names below",
            ),
            (
                "bücher.example",
                "\"bücher.example\" has letters that a name in DNS does not: write it with xn--",
            ),
        ] {
            let parsed = text.parse::<Entry>();
            assert_eq!(parsed.as_ref().map_or_else(Clone::clone, ToString::to_string), shown, "{text}");
            if let Ok(entry) = parsed {
                assert_eq!(entry.to_string().parse(), Ok(entry), "{text}");
            }
        }
    }

    #[test]
    fn a_wildcard_is_what_is_below() {
        let labels = |name: &str| name.split('.').map(|label| label.as_bytes().to_vec()).collect::<Vec<_>>();
        for (pattern, name, matches) in [
            ("debian.org", "debian.org", true),
            ("debian.org", "deb.debian.org", false),
            ("*.debian.org", "deb.debian.org", true),
            ("*.debian.org", "ftp.de.debian.org", true),
            ("*.debian.org", "debian.org", false),
            ("*.debian.org", "evildebian.org", false),
            ("*", "anything.example", true),
            ("org", "debian.org", false),
        ] {
            assert_eq!(
                pattern.parse::<Pattern>().unwrap().matches(&labels(name)),
                matches,
                "{pattern} {name}"
            );
        }
        // A label with a dot in it is still one label.
        let odd = [b"evil.debian".to_vec(), b"org".to_vec()];
        assert!(!"*.debian.org".parse::<Pattern>().unwrap().matches(&odd));
    }
}
