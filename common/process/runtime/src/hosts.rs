//! The text of a container's `/etc/hosts`, as Docker writes it.

use std::{
    fmt::{Display, Write as _},
    fs,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

/// A name for an address, as `--add-host` takes it: `NAME:ADDRESS`, `NAME=ADDRESS` or `NAME:host-gateway`. An
/// IPv6 address may have brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// The address; none for the host's address, as the container reaches it.
    pub address: Option<IpAddr>,
}

impl Entry {
    /// The address and the name, where `gateway` is the host's address. Without a gateway the container is in
    /// the host's network, and reaches the host by its loopback interface.
    pub fn with(&self, gateway: Option<IpAddr>) -> (IpAddr, String) {
        let host = gateway.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        (self.address.unwrap_or(host), self.name.clone())
    }
}

impl FromStr for Entry {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').or_else(|| text.split_once(':'));
        let is_name =
            |name: &str| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
        let (name, address) = parts.filter(|(name, _)| is_name(name)).ok_or("it is NAME:ADDRESS")?;
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address = match bare {
            "host-gateway" => None,
            _ => Some(bare.parse().map_err(|_| format!("{address:?} is not an address"))?),
        };
        Ok(Self { name: name.to_owned(), address })
    }
}

const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
                         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// The file for a network of its own: the names of its loopback interface, and the entries.
pub fn of_own<A: Display, N: Display>(entries: impl IntoIterator<Item = (A, N)>) -> String {
    with(LOCALHOST.to_owned(), entries)
}

/// The file for the host's network: the host's own file, and the entries.
pub fn of_host<A: Display, N: Display>(entries: impl IntoIterator<Item = (A, N)>) -> String {
    with(fs::read_to_string("/etc/hosts").unwrap_or_else(|_| LOCALHOST.to_owned()), entries)
}

fn with<A: Display, N: Display>(mut hosts: String, entries: impl IntoIterator<Item = (A, N)>) -> String {
    if !hosts.ends_with('\n') {
        hosts.push('\n');
    }
    for (address, names) in entries {
        // Writing to a string cannot fail.
        let _ = writeln!(hosts, "{address}\t{names}");
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_docker_takes_them() {
        for (text, expected) in [
            ("a:10.0.0.1", Some("10.0.0.1")),
            ("a=10.0.0.1", Some("10.0.0.1")),
            ("a:::1", Some("::1")),
            ("a:[fe80::1]", Some("fe80::1")),
            ("a:host-gateway", Some("172.17.0.1")),
            ("a", None),
            (":10.0.0.1", None),
            ("a b:10.0.0.1", None),
            ("a\nb:10.0.0.1", None),
            ("a:b", None),
        ] {
            let entry = text.parse::<Entry>().ok();
            let found = entry.map(|entry| entry.with(Some([172, 17, 0, 1].into())).0.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn each_entry_is_a_line_of_its_own() {
        assert_eq!(with("1.2.3.4 a".to_owned(), [("5.6.7.8", "b c")]), "1.2.3.4 a\n5.6.7.8\tb c\n");
        assert_eq!(of_own([("5.6.7.8", "b")]), format!("{LOCALHOST}5.6.7.8\tb\n"));
    }
}
