use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use netlink::{
    Error, Refusal,
    attribute::find,
    netfilter::{INET, Kind, Netfilter},
    transaction::retry,
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::{
    encode,
    ruleset::{Element, Set, Type},
    table,
};

/// A protocol with ports. The value is its number (IANA, Protocol Numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    /// All protocols with ports.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];
}

/// A protocol without ports, or an unknown one.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not tcp, udp or sctp")]
pub struct InvalidProtocol(String);

impl FromStr for Protocol {
    type Err = InvalidProtocol;
    /// Upper case is the same, as with Docker.
    fn from_str(text: &str) -> Result<Self, InvalidProtocol> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(InvalidProtocol(text.to_owned())),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A published port or port range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mapping {
    /// The protocol.
    pub protocol: Protocol,
    /// The host address that the port is published on. None means all addresses of the container's
    /// IP version.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The port on the host. The first one of a range.
    pub host_port: u16,
    /// The container's address.
    #[serde(rename = "containerIP")]
    pub container_ip: IpAddr,
    /// The port in the container. The first one of a range.
    pub container_port: u16,
    /// The number of consecutive ports. If it is more than one, the container's ports have the same
    /// numbers.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u16,
}

fn one() -> u16 {
    1
}

fn is_one(count: &u16) -> bool {
    *count == 1
}

impl Mapping {
    /// The last host port.
    pub fn last(&self) -> u16 {
        self.host_port.saturating_add(self.count.saturating_sub(1))
    }

    /// One mapping for each port.
    pub fn each(&self) -> impl Iterator<Item = Self> + '_ {
        let one = |at| {
            let (host_port, container_port) =
                (self.host_port.saturating_add(at), self.container_port.saturating_add(at));
            Self { host_port, container_port, count: 1, ..self.clone() }
        };
        (0..self.count).map(one)
    }
}

/// A published port that is reachable on the container's own address, without translation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The container's address.
    #[serde(rename = "containerIP")]
    pub container_ip: IpAddr,
    /// The port in the container.
    pub container_port: u16,
}

/// The value of a map's element, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) data: Vec<u8>,
    pub(crate) comment: Option<String>,
    /// The end of the key if it is a range.
    end: Option<Vec<u8>>,
}

impl Standing {
    fn read(element: &[u8]) -> Self {
        let value = |kind| find(element, kind).and_then(|data| find(data, 1));
        Self {
            data: value(2).unwrap_or_default().to_vec(),
            comment: find(element, 6).and_then(netlink::expression::read_comment),
            end: value(10).map(<[u8]>::to_vec),
        }
    }

    /// Whether the kernel's element equals this one.
    pub(crate) fn is(&self, element: &Element) -> bool {
        self.data == encode::first(&element.data) && self.comment == element.comment
    }
}

/// The kernel's element with the same key. None if there is none.
pub(crate) fn look_up(socket: &Netfilter, element: &Element) -> Result<Option<Standing>, Refusal> {
    let answer = socket.get(Kind::GetElement, INET, &encode::element_to_find(element))?;
    Ok(answer.and_then(|answer| {
        let list = find(&answer, 3)?;
        find(list, 1).map(Standing::read)
    }))
}

/// The keys of all elements of a set.
pub(crate) fn keys(socket: &Netfilter, set: &str) -> Result<Vec<Vec<u8>>, Refusal> {
    Ok(elements(socket, set)?.into_iter().map(|(key, _)| key).collect())
}

/// The key of an element, and its comment.
pub(crate) type Keyed = (Vec<u8>, Option<String>);

/// All elements of a set.
pub(crate) fn elements(socket: &Netfilter, set: &str) -> Result<Vec<Keyed>, Refusal> {
    Ok(standing(socket, set)?.into_iter().map(|(key, standing)| (key, standing.comment)).collect())
}

/// All elements of a set by their keys. The key of a range is its start.
pub(crate) fn standing(socket: &Netfilter, set: &str) -> Result<Vec<(Vec<u8>, Standing)>, Refusal> {
    const INTERVAL_END: u32 = 1;
    let messages = socket.dump(Kind::GetElement, INET, &encode::named(set))?;
    let lists = messages.iter().filter_map(|message| find(message, 3));
    let members = lists.flat_map(|list| netlink::attribute::read(list).map(|(_, member)| member));
    let found = members.filter_map(|member| {
        let flags = find(member, 3).and_then(netlink::attribute::number).unwrap_or_default();
        let key = find(find(member, 1)?, 1)?.to_vec();
        (flags & INTERVAL_END == 0).then(|| (key, Standing::read(member)))
    });
    Ok(found.collect())
}

/// Like [`standing`]. Empty if there is no such set: no table, or that of an earlier version.
pub(crate) fn standing_if_any(socket: &Netfilter, set: &str) -> Result<Vec<(Vec<u8>, Standing)>, Refusal> {
    match standing(socket, set) {
        Err(refusal) if refusal.errno == Errno::ENOENT => Ok(Vec::new()),
        found => found,
    }
}

/// All links: who has it, and the port to which it leads. Empty if there is no table.
pub(crate) fn links(socket: &Netfilter) -> Result<Vec<(IpAddr, OpenPort)>, Refusal> {
    let mut links = Vec::new();
    for set in [&table::LINKED, &table::LINKED6] {
        links.extend(standing_if_any(socket, set.name)?.iter().filter_map(|(key, _)| link(key)));
    }
    Ok(links)
}

/// Reads the key of a link.
fn link(key: &[u8]) -> Option<(IpAddr, OpenPort)> {
    let (addresses, protocol, container_port) = split(key)?;
    let (from, to) = addresses.split_at(addresses.len() / 2);
    Some((address(from)?, OpenPort { protocol, container_ip: address(to)?, container_port }))
}

/// The addresses of a key, and the protocol and port at its end. Each part of a key takes four bytes.
fn split(key: &[u8]) -> Option<(&[u8], Protocol, u16)> {
    let (addresses, rest) = key.split_at_checked(key.len().checked_sub(8)?)?;
    let protocol = Protocol::ALL.into_iter().find(|one| *one as u8 == rest[0])?;
    Some((addresses, protocol, u16::from_be_bytes([rest[4], rest[5]])))
}

/// The address of these bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    match *bytes {
        [a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d).into()),
        _ => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
    }
}

/// The elements of the links from and to this address.
pub(crate) fn links_of(socket: &Netfilter, address: IpAddr) -> Result<Vec<Element>, Refusal> {
    let of = |(from, port): &(IpAddr, OpenPort)| address == *from || address == port.container_ip;
    let element = |(from, port): (IpAddr, OpenPort)| table::linked_element(from, &port);
    Ok(links(socket)?.into_iter().filter(of).map(element).collect())
}

/// A published port or port range of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The protocol.
    pub protocol: Protocol,
    /// The host address. None means all IPv4 addresses, `::` all IPv6 addresses.
    pub host_ip: Option<IpAddr>,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// The id of the container that has the port.
    pub holder: Option<String>,
}

impl Published {
    /// Whether the mapping collides with this one: both have a port in common, and the addresses
    /// are the same or one of them means all addresses.
    pub(crate) fn collides(&self, mapping: &Mapping) -> bool {
        let v6 = self.host_ip.is_some_and(|ip| ip.is_ipv6());
        let is_on_all = self.host_ip.is_none_or(|ip| ip.is_unspecified());
        self.protocol == mapping.protocol
            && v6 == mapping.container_ip.is_ipv6()
            && (is_on_all || mapping.host_ip.is_none() || mapping.host_ip == self.host_ip)
            && self.first <= mapping.last()
            && mapping.host_port <= self.last
    }
}

/// The elements of these maps.
fn list(socket: &Netfilter, sets: [&Set; 4]) -> Result<Vec<Published>, Refusal> {
    let mut found = Vec::new();
    for set in sets {
        let all = set.key.len() < 3 && set.data.is_some_and(|data| data.contains(&Type::Ipv6Addr));
        let all = all.then(|| IpAddr::from(Ipv6Addr::UNSPECIFIED));
        let published = standing(socket, set.name)?.into_iter().filter_map(|(key, standing)| {
            let (protocol, host_ip, first) = port_of(&key)?;
            let last = standing.end.as_deref().and_then(port_of).map_or(first, |(_, _, last)| last);
            Some(Published { protocol, host_ip: host_ip.or(all), first, last, holder: standing.comment })
        });
        found.extend(published);
    }
    Ok(found)
}

const SINGLE: [&Set; 4] =
    [&table::PUBLISHED, &table::PUBLISHED_AT, &table::PUBLISHED6, &table::PUBLISHED_AT6];
const RUNS: [&Set; 4] = [&table::RANGES, &table::RANGES_AT, &table::RANGES6, &table::RANGES_AT6];

/// The published port ranges, as input for [`taken`].
///
/// # Errors
/// When the kernel does not answer.
pub fn runs() -> Result<Vec<Published>, Error> {
    let look = || list(&*Netfilter::of_this_thread()?, RUNS);
    retry(look).map_err(|source| Error::new("list", "published ports", source))
}

/// The first mapping whose host port is published already, with the container that has it, if
/// known. Ranges are looked for in `runs`, single ports in the kernel.
///
/// # Errors
/// When the kernel does not answer.
pub fn taken<'a>(
    mappings: &'a [Mapping],
    runs: &[Published],
) -> Result<Option<(&'a Mapping, Option<String>)>, Error> {
    taken_but_by(None, mappings, runs)
}

/// Like [`taken`], but ignores ports that this container has.
pub(crate) fn taken_but_by<'a>(
    own: Option<&str>,
    mappings: &'a [Mapping],
    runs: &[Published],
) -> Result<Option<(&'a Mapping, Option<String>)>, Error> {
    let counts = |holder: &Option<String>| own.is_none() || holder.as_deref() != own;
    let failed = |source| Error::new("look for", "published ports", source);
    let socket = Netfilter::of_this_thread().map_err(failed)?;
    let mut listed = runs.to_vec();
    // For a range, one list is faster than a lookup of each port.
    if mappings.iter().any(|mapping| mapping.count > 1) {
        listed.extend(retry(|| list(&socket, SINGLE)).map_err(failed)?);
    }
    for mapping in mappings {
        if let Some(found) = listed.iter().find(|found| counts(&found.holder) && found.collides(mapping)) {
            return Ok(Some((mapping, found.holder.clone())));
        }
    }
    let has = |mapping: &Mapping| {
        let standing = look_up(&socket, &table::mapping_element(mapping, ""))?;
        Ok(standing.filter(|standing| counts(&standing.comment)))
    };
    let all = mappings.iter().any(|mapping| mapping.host_ip.is_none());
    let mut at_one = Vec::new();
    for set in [&table::PUBLISHED_AT, &table::PUBLISHED_AT6].iter().filter(|_| all) {
        at_one.extend(retry(|| elements(&socket, set.name)).map_err(failed)?);
    }
    for mapping in mappings.iter().filter(|mapping| mapping.count == 1) {
        if let Some(standing) = has(mapping).map_err(failed)? {
            return Ok(Some((mapping, standing.comment)));
        }
        match mapping.host_ip {
            Some(_) => {
                let anywhere = Mapping { host_ip: None, ..mapping.clone() };
                if let Some(standing) = has(&anywhere).map_err(failed)? {
                    return Ok(Some((mapping, standing.comment)));
                }
            }
            None => {
                // The key of the other map is an address followed by this key.
                let key = encode::first(&table::mapping_element(mapping, "").key);
                let length = netlink::expression::octets(mapping.container_ip).len();
                if at_one.iter().any(|(found, holder)| counts(holder) && found.get(length..) == Some(&key)) {
                    return Ok(Some((mapping, None)));
                }
            }
        }
    }
    Ok(None)
}

/// All published ports and port ranges.
///
/// # Errors
/// When the kernel does not answer.
pub fn published() -> Result<Vec<Published>, Error> {
    let look = || all(&*Netfilter::of_this_thread()?);
    retry(look).map_err(|source| Error::new("list", "published ports", source))
}

/// Like [`published`], with a single dump.
pub(crate) fn all(socket: &Netfilter) -> Result<Vec<Published>, Refusal> {
    Ok([list(socket, SINGLE)?, list(socket, RUNS)?].concat())
}

/// Parses the key of one of the maps.
fn port_of(key: &[u8]) -> Option<(Protocol, Option<IpAddr>, u16)> {
    let (host, protocol, port) = split(key)?;
    let host_ip = match host {
        [] => None,
        host => Some(address(host)?),
    };
    Some((protocol, host_ip, port))
}
