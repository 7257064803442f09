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
use serde::{Deserialize, Serialize};

use crate::{encode, ruleset::Element, table};

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
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];
}

/// A protocol without ports, or an unknown one.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not tcp, udp or sctp")]
pub struct InvalidProtocol(String);

impl FromStr for Protocol {
    type Err = InvalidProtocol;
    fn from_str(text: &str) -> Result<Self, InvalidProtocol> {
        match text {
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

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mapping {
    /// The protocol.
    pub protocol: Protocol,
    /// The host address that it is published on; none for all of the container's version of IP.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The port on the host.
    pub host_port: u16,
    /// The container's address.
    #[serde(rename = "containerIP")]
    pub container_ip: IpAddr,
    /// The port in the container.
    pub container_port: u16,
}

/// A published port that is open on the container's own address, which is not translated.
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

/// The value in a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) data: Vec<u8>,
    pub(crate) comment: Option<String>,
}

impl Standing {
    fn read(element: &[u8]) -> Self {
        let value = |kind| find(element, kind).and_then(|data| find(data, 1));
        Self {
            data: value(2).unwrap_or_default().to_vec(),
            comment: find(element, 6).and_then(netlink::expression::read_comment),
        }
    }

    /// Whether it is what this element would make.
    pub(crate) fn is(&self, element: &Element) -> bool {
        self.data == encode::first(&element.data) && self.comment == element.comment
    }
}

/// The existing element with this one's key.
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

/// An element of a set: its key, and its comment.
pub(crate) type Keyed = (Vec<u8>, Option<String>);

/// All elements of a set.
pub(crate) fn elements(socket: &Netfilter, set: &str) -> Result<Vec<Keyed>, Refusal> {
    Ok(standing(socket, set)?.into_iter().map(|(key, standing)| (key, standing.comment)).collect())
}

/// All elements of a set by their keys, a range by its start.
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

/// The first mapping whose host port is published already, with the container that has it, if known. Ports collide on
/// the same address, or if one of them is on all addresses.
///
/// # Errors
/// When the kernel does not answer.
pub fn taken(mappings: &[Mapping]) -> Result<Option<(&Mapping, Option<String>)>, Error> {
    let failed = |source| Error::new("look for", "published ports", source);
    let socket = Netfilter::of_this_thread().map_err(failed)?;
    let has = |mapping: &Mapping| look_up(&socket, &table::mapping_element(mapping, ""));
    let all = mappings.iter().any(|mapping| mapping.host_ip.is_none());
    let mut at_one = Vec::new();
    for set in [&table::PUBLISHED_AT, &table::PUBLISHED_AT6].iter().filter(|_| all) {
        at_one.extend(keys(&socket, set.name).map_err(failed)?);
    }
    for mapping in mappings {
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
                // The key of the other map is this one's key after an address.
                let key = encode::first(&table::mapping_element(mapping, "").key);
                let length = netlink::expression::octets(mapping.container_ip).len();
                if at_one.iter().any(|found| found.get(length..) == Some(&key)) {
                    return Ok(Some((mapping, None)));
                }
            }
        }
    }
    Ok(None)
}

/// All published ports: protocol, address of the host (none for all of them, `::` for all of IPv6), port.
///
/// # Errors
/// When the kernel does not answer.
pub fn published() -> Result<Vec<(Protocol, Option<IpAddr>, u16)>, Error> {
    let list = || {
        let socket = Netfilter::of_this_thread()?;
        let sets = [table::PUBLISHED, table::PUBLISHED_AT, table::PUBLISHED6, table::PUBLISHED_AT6];
        let mut found = Vec::new();
        for set in sets {
            let all = (set == table::PUBLISHED6).then(|| IpAddr::from(Ipv6Addr::UNSPECIFIED));
            let ports = keys(&socket, set.name)?.into_iter().filter_map(|key| port_of(&key));
            found.extend(ports.map(|(protocol, host_ip, port)| (protocol, host_ip.or(all), port)));
        }
        Ok(found)
    };
    retry(list).map_err(|source| Error::new("list", "published ports", source))
}

/// The port in a key of one of the maps. Each part of a key has four bytes.
fn port_of(key: &[u8]) -> Option<(Protocol, Option<IpAddr>, u16)> {
    let (address, rest) = key.split_at_checked(key.len().checked_sub(8)?)?;
    let protocol = Protocol::ALL.into_iter().find(|one| *one as u8 == rest[0])?;
    let host_ip = match *address {
        [] => None,
        [a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d).into()),
        _ => Some(Ipv6Addr::from(*address.first_chunk::<16>()?).into()),
    };
    Some((protocol, host_ip, u16::from_be_bytes([rest[4], rest[5]])))
}
