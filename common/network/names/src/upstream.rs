//! The name servers for forwarded questions.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use nix::net::if_::if_nametoindex;

const PORT: u16 = 53;
/// The number of servers that the C library uses (resolv.conf(5), MAXNS).
const MOST: usize = 3;

/// The name servers: given ones, or those of a file, which is read again when it changes.
#[derive(Debug, Clone)]
pub struct Upstreams {
    given: Vec<SocketAddr>,
    file: PathBuf,
    /// The servers in the file, and the state of the file when it was read.
    read: Option<(Stamp, Vec<SocketAddr>)>,
}

/// Changes whenever the file changes.
type Stamp = (u64, i64, i64);

impl Upstreams {
    /// Uses these servers, or if there are none, the host's servers in `/etc/resolv.conf`.
    pub fn new(given: &[IpAddr]) -> Self {
        let given = given.iter().map(|server| SocketAddr::new(*server, PORT)).collect();
        Self { given, file: "/etc/resolv.conf".into(), read: None }
    }

    /// The current servers, in the order in which to ask them. Empty if there are none.
    pub fn servers(&mut self) -> Vec<SocketAddr> {
        if !self.given.is_empty() {
            return self.given.clone();
        }
        let Ok(file) = fs::metadata(&self.file) else { return Vec::new() };
        let stamp = (file.ino(), file.ctime(), file.ctime_nsec());
        match &self.read {
            Some((known, servers)) if *known == stamp => servers.clone(),
            _ => {
                let servers = listed(&fs::read_to_string(&self.file).unwrap_or_default());
                self.read = Some((stamp, servers.clone()));
                servers
            }
        }
    }
}

/// The servers in the text of a resolv.conf(5).
fn listed(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    words.filter_map(address).take(MOST).collect()
}

/// Parses an address, which may have a zone: `fe80::1%eth0`.
fn address(text: &str) -> Option<SocketAddr> {
    let Some((address, link)) = text.split_once('%') else {
        return text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT));
    };
    let scope = link.parse().ok().or_else(|| if_nametoindex(link).ok())?;
    Some(SocketAddrV6::new(address.parse::<Ipv6Addr>().ok()?, PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_a_file() {
        let text = "# nameserver 1.1.1.1\nsearch a\nnameserver 10.0.0.1\n nameserver\t127.0.0.53 x\nnameserver no\n\
                    nameserver fe80::1%1\nnameserver 10.0.0.4\n";
        let servers: Vec<_> = listed(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "127.0.0.53:53", "[fe80::1%1]:53"]);
        assert_eq!(listed("nameserver"), []);
    }

    #[test]
    fn given_servers_come_first() {
        let mut upstreams = Upstreams::new(&["192.0.2.2".parse().unwrap()]);
        assert_eq!(upstreams.servers(), ["192.0.2.2:53".parse().unwrap()]);
    }
}
