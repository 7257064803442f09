//! WireGuard over generic netlink (linux/wireguard.h): the keys of a link, and its peers.
//!
//! A host's address in the tunnel is derived from its public key. It is a link-local address
//! (fe80::/64), so a VXLAN over the link receives only packets that came through the tunnel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkWireguard,
    packet_core::{NLM_F_ACK, NLM_F_DUMP},
    packet_route::RouteNetlinkMessage,
};
use sha2::{Digest, Sha256};

use crate::{
    Address, Connection, Error, Family, Link, NLM_F_CREATE, NLM_F_EXCL, PROTOCOL, Refusal, Request, Socket,
    attribute::{Attribute, find, read},
    mark, removal,
};

/// A Curve25519 key of 32 bytes.
pub type Key = [u8; 32];

// linux/genetlink.h
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// struct genlmsghdr.
const GENERIC: usize = 4;
// linux/wireguard.h
const NAME: &str = "wireguard";
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const DEVICE_NAME: u16 = 2;
const DEVICE_PRIVATE: u16 = 3;
const DEVICE_PUBLIC: u16 = 4;
const DEVICE_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;
const PEER_KEY: u16 = 1;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_ALLOWED: u16 = 9;
const REMOVE: u32 = 1;
const REPLACE_ALLOWED: u32 = 2;
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_LENGTH: u16 = 3;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// How often a silent peer sends something, in seconds, so that others learn where it moved to (wg(8), persistent-keepalive).
const KEEPALIVE: u16 = 25;

/// The tunnel address of the host with this public key.
pub fn address_of(public: &Key) -> Ipv6Addr {
    let hash: [u8; 32] = Sha256::digest(public).into();
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&[0xfe, 0x80]);
    bytes[8..].copy_from_slice(&hash[..8]);
    // Clear the universal bit: the address is not derived from a global hardware address (RFC 4291,
    // 2.5.1).
    bytes[8] &= !2;
    Ipv6Addr::from(bytes)
}

/// The name of the WireGuard link for the network of this bridge. The name is the link's mark.
pub fn link_name(bridge: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(format!("wireguard/{bridge}")).into();
    let digits: String = hash[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("g{digits}")
}

/// The state of a WireGuard link.
#[derive(Default)]
struct Device {
    /// The public key. None until a private key is set.
    public: Option<Key>,
    /// The public keys of its peers.
    peers: BTreeSet<Key>,
}

/// A connection to the kernel's generic netlink family for WireGuard.
pub struct Wireguard {
    socket: Socket,
    family: u16,
}

fn message(family: u16, command: u8, flags: u16, attributes: &[Attribute]) -> Request {
    let mut body = vec![command, 1, 0, 0];
    attributes.iter().for_each(|attribute| attribute.write(&mut body));
    Request { kind: family, flags, body }
}

impl Wireguard {
    /// Opens a connection in this thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no WireGuard.
    pub fn open() -> Result<Self, Error> {
        let failed = |refusal: Refusal| Error::new("look for", "WireGuard in the kernel", refusal);
        let socket = Socket::open(Family::Generic).map_err(|errno| failed(errno.into()))?;
        let asked = message(CONTROLLER, GET_FAMILY, 0, &[Attribute::string(FAMILY_NAME, NAME)]);
        let answer = socket.request(&asked).map_err(failed)?;
        let id =
            answer.first().and_then(|(_, payload)| find(payload.get(GENERIC..)?, FAMILY_ID)?.try_into().ok());
        let family = id.map(u16::from_ne_bytes).ok_or_else(|| failed(Errno::EPROTO.into()))?;
        Ok(Self { socket, family })
    }

    /// Sets the private key and the UDP port of a link.
    fn set(&self, link: &str, private: &Key, port: u16) -> Result<(), Error> {
        let port = Attribute::Bytes(DEVICE_PORT, port.to_ne_bytes().to_vec());
        let key = Attribute::Bytes(DEVICE_PRIVATE, private.to_vec());
        self.change(link, "set key and port of", vec![key, port])
    }

    /// Makes sure that a link with this name exists and is up, with this private key, this port,
    /// and the address that is derived from the key. Returns the public key.
    ///
    /// # Errors
    /// When the kernel has no WireGuard, or another program has the port.
    pub fn make(&self, name: &str, private: &Key, port: u16) -> Result<Key, Error> {
        let connection = Connection::open(None)?;
        let fail = |errno| Error::new("create link", format!("{name:?}"), errno);
        let link = match connection.link(name)? {
            Some(link) => link,
            None => {
                let message = LinkWireguard::new(name).build();
                let (what, flags) = (format!("{name:?}"), NLM_F_CREATE | NLM_F_EXCL);
                connection.change("create link", what, &RouteNetlinkMessage::NewLink(message), flags)?;
                connection.link(name)?.ok_or_else(|| fail(Errno::ENODEV))?
            }
        };
        // Setting the same key and port again changes nothing.
        self.set(name, private, port)?;
        let public = self.device(name)?.public.ok_or_else(|| fail(Errno::EPROTO))?;
        let address = IpNet::new_assert(address_of(&public).into(), 64);
        let standing = connection.addresses6(Some(link.index))?;
        if !standing.iter().any(|found| found.address == address) {
            let own = Address { link: link.index, address, protocol: Some(PROTOCOL) };
            let (message, flags) =
                (RouteNetlinkMessage::NewAddress(own.message()), NLM_F_CREATE | NLM_F_EXCL);
            connection.change("add address", format!("{address} on link {name:?}"), &message, flags)?;
        }
        let up = LinkMessageBuilder::<LinkUnspec>::new().index(link.index).alias(mark::shared()).up().build();
        connection.change("set up", format!("link {name:?}"), &RouteNetlinkMessage::SetLink(up), 0)?;
        Ok(public)
    }

    /// Removes a link that [`Wireguard::make`] made.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn remove(name: &str) -> Result<(), Error> {
        let connection = Connection::open(None)?;
        match connection.link(name)?.filter(Link::is_marked) {
            Some(link) => removal::remove(&connection, &link),
            None => Ok(()),
        }
    }

    fn change(&self, link: &str, verb: &'static str, attributes: Vec<Attribute>) -> Result<(), Error> {
        let all: Vec<_> = [Attribute::string(DEVICE_NAME, link)].into_iter().chain(attributes).collect();
        let changed = self.socket.request(&message(self.family, SET_DEVICE, NLM_F_ACK, &all));
        changed.map(drop).map_err(|refusal| Error::new(verb, format!("link {link:?}"), refusal))
    }

    /// Reads the state of a link.
    fn device(&self, link: &str) -> Result<Device, Error> {
        let asked = message(self.family, GET_DEVICE, NLM_F_DUMP, &[Attribute::string(DEVICE_NAME, link)]);
        let answer = self.socket.request(&asked);
        let answer = answer.map_err(|refusal| Error::new("look at", format!("link {link:?}"), refusal))?;
        let mut device = Device::default();
        // The kernel splits a long list of peers into several messages.
        for (_, payload) in &answer {
            for (kind, value) in read(payload.get(GENERIC..).unwrap_or_default()) {
                match kind {
                    DEVICE_PUBLIC => device.public = value.try_into().ok(),
                    DEVICE_PEERS => {
                        let key = |peer| Key::try_from(find(peer, PEER_KEY)?).ok();
                        device.peers.extend(read(value).filter_map(|(_, peer)| key(peer)));
                    }
                    _ => {}
                }
            }
        }
        Ok(device)
    }

    /// Makes sure that a link has exactly these peers. Each peer may send only from its own tunnel
    /// address. `before` is what was wanted when the link got its peers.
    ///
    /// # Errors
    /// When the kernel refuses a peer.
    pub fn set_peers(
        &self,
        link: &str,
        wanted: &BTreeMap<Key, SocketAddr>,
        before: &BTreeMap<Key, SocketAddr>,
    ) -> Result<(), Error> {
        let standing = self.device(link)?.peers;
        let gone = standing.iter().filter(|key| !wanted.contains_key(*key));
        let gone = gone.map(|key| vec![key_of(key), flags(REMOVE)]);
        let new = new_ends(&standing, wanted, before).map(|(key, endpoint)| {
            let allowed = Attribute::Nested(PEER_ALLOWED, vec![allowed(address_of(key))]);
            vec![
                key_of(key),
                flags(REPLACE_ALLOWED),
                Attribute::Bytes(PEER_ENDPOINT, written(*endpoint)),
                Attribute::Bytes(PEER_KEEPALIVE, KEEPALIVE.to_ne_bytes().to_vec()),
                allowed,
            ]
        });
        let peers: Vec<_> = gone.chain(new).map(|peer| Attribute::Nested(0, peer)).collect();
        // One message has room for hundreds of peers.
        for some in peers.chunks(100) {
            self.change(link, "set peers of", vec![Attribute::Nested(DEVICE_PEERS, some.to_vec())])?;
        }
        Ok(())
    }
}

/// The peers to set: new ones, and those for which another endpoint is wanted than before. Where the same one is wanted, the kernel may
/// know a newer one, from the packets of a peer that moved.
fn new_ends<'a>(
    standing: &BTreeSet<Key>,
    wanted: &'a BTreeMap<Key, SocketAddr>,
    before: &BTreeMap<Key, SocketAddr>,
) -> impl Iterator<Item = (&'a Key, &'a SocketAddr)> {
    wanted.iter().filter(|(key, end)| !standing.contains(*key) || before.get(*key) != Some(*end))
}

fn key_of(key: &Key) -> Attribute {
    Attribute::Bytes(PEER_KEY, key.to_vec())
}

fn flags(flags: u32) -> Attribute {
    Attribute::Bytes(PEER_FLAGS, flags.to_ne_bytes().to_vec())
}

fn allowed(address: Ipv6Addr) -> Attribute {
    Attribute::Nested(
        0,
        vec![
            Attribute::Bytes(ALLOWED_FAMILY, AF_INET6.to_ne_bytes().to_vec()),
            Attribute::Bytes(ALLOWED_ADDRESS, address.octets().to_vec()),
            Attribute::Bytes(ALLOWED_LENGTH, vec![128]),
        ],
    )
}

/// The bytes of a struct sockaddr_in or struct sockaddr_in6.
fn written(endpoint: SocketAddr) -> Vec<u8> {
    let port = endpoint.port().to_be_bytes();
    match endpoint {
        SocketAddr::V4(v4) => [&AF_INET.to_ne_bytes()[..], &port, &v4.ip().octets(), &[0; 8]].concat(),
        SocketAddr::V6(v6) => {
            let scope = v6.scope_id().to_ne_bytes();
            [&AF_INET6.to_ne_bytes()[..], &port, &[0; 4], &v6.ip().octets(), &scope].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_keys() {
        let (one, other) = (address_of(&[1; 32]), address_of(&[2; 32]));
        assert_ne!(one, other);
        for address in [one, other] {
            assert_eq!(address.segments()[..4], [0xfe80, 0, 0, 0]);
            assert_eq!(address.octets()[8] & 2, 0);
        }
    }

    #[test]
    fn a_peer_is_set_where_it_is_told_to_have_moved() {
        let at = |last| SocketAddr::from(([192, 0, 2, last], 51820));
        let key = |number| [number; 32];
        // The kernel has 1 and 2; 2 is told to be elsewhere since; 3 is new; 4 was lost.
        let standing = BTreeSet::from([key(1), key(2)]);
        let before = BTreeMap::from([(key(1), at(1)), (key(2), at(2)), (key(4), at(4))]);
        let wanted = BTreeMap::from([(key(1), at(1)), (key(2), at(22)), (key(3), at(3)), (key(4), at(4))]);
        let set: Vec<_> = new_ends(&standing, &wanted, &before).map(|(key, end)| (key[0], *end)).collect();
        assert_eq!(set, [(2, at(22)), (3, at(3)), (4, at(4))]);
        // What was wanted before this process is not known.
        assert_eq!(new_ends(&standing, &wanted, &BTreeMap::new()).count(), 4);
    }

    #[test]
    fn endpoints_are_written_as_the_kernel_reads_them() {
        let written = |text: &str| written(text.parse().unwrap());
        // sin_family in the order of this machine, sin_port in that of the network, sin_addr, sin_zero.
        let v4 = [&AF_INET.to_ne_bytes()[..], &[0xca, 0x6c, 192, 0, 2, 1], &[0; 8]].concat();
        assert_eq!(written("192.0.2.1:51820"), v4);
        assert_eq!(v4.len(), 16);
        // sin6_family, sin6_port, sin6_flowinfo, sin6_addr, sin6_scope_id.
        let address = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let v6 = [&AF_INET6.to_ne_bytes()[..], &[0xca, 0x6c], &[0; 4], &address, &[0; 4]].concat();
        assert_eq!(written("[2001:db8::1]:51820"), v6);
    }
}
