use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nat::{Mapping, Protocol};
use serde::{Deserialize, Serialize};

/// A range of ports of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ports {
    /// The protocol.
    pub protocol: Protocol,
    /// The address of the host. None means all IPv4 addresses, `::` all IPv6 addresses.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

/// A port of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// The address of the host. None means all IPv4 addresses, `::` all IPv6 addresses.
    pub host_ip: Option<IpAddr>,
    /// The protocol number.
    number: u8,
    /// The port.
    pub port: u16,
}

impl Ports {
    /// The host's side of these mappings.
    pub fn of(mappings: &[Mapping]) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        let is_on_all = |mapping: &&Mapping| mapping.host_ip.is_none() && mapping.container_ip.is_ipv4();
        let on_all: HashSet<_> =
            mappings.iter().filter(is_on_all).map(|mapping| (mapping.protocol, mapping.host_port)).collect();
        for mapping in mappings {
            let Mapping { protocol, host_port, .. } = *mapping;
            let host_ip = match (mapping.host_ip, mapping.container_ip) {
                // If both are on all addresses, the IPv6 port is held together with the IPv4 port:
                // holding all IPv4 addresses also refuses `::`.
                (None, IpAddr::V6(_)) if on_all.contains(&(protocol, host_port)) => continue,
                (None, IpAddr::V6(_)) => Some(Ipv6Addr::UNSPECIFIED.into()),
                (one, _) => one,
            };
            match found.last_mut() {
                Some(ports)
                    if (ports.protocol, ports.host_ip) == (protocol, host_ip)
                        && ports.last.checked_add(1) == Some(host_port) =>
                {
                    ports.last = mapping.last();
                }
                _ => found.push(Self { protocol, host_ip, first: host_port, last: mapping.last() }),
            }
        }
        found
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = Port> + use<> {
        let Self { protocol, host_ip, first, last } = *self;
        (first..=last).map(move |port| Port::new(protocol, host_ip, port))
    }
}

impl Port {
    /// A port on one address of the host, or on all addresses.
    pub fn new(protocol: Protocol, host_ip: Option<IpAddr>, port: u16) -> Self {
        Self { host_ip, number: protocol as u8, port }
    }

    /// The IPv4 address, `0.0.0.0` for all addresses. None for an IPv6 port.
    pub(crate) fn v4(self) -> Option<Ipv4Addr> {
        match self.host_ip {
            None => Some(Ipv4Addr::UNSPECIFIED),
            Some(IpAddr::V4(address)) => Some(address),
            Some(IpAddr::V6(_)) => None,
        }
    }

    pub(crate) fn protocol(self) -> Protocol {
        [Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|protocol| *protocol as u8 == self.number)
            .unwrap_or(Protocol::Tcp)
    }
}

/// Includes the address if there is one: `127.0.0.1:80/tcp`, `[::1]:80/tcp`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            None => {}
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
        }
        write!(f, "{}/{}", self.port, self.protocol())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        let mapping = |ip: Option<[u8; 4]>, host_port, protocol| Mapping {
            protocol,
            host_ip: ip.map(IpAddr::from),
            host_port,
            container_ip: [172, 17, 0, 2].into(),
            container_port: 80,
            count: 1,
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let local = Some([127, 0, 0, 1]);
        let mappings = [
            mapping(None, 80, tcp),
            mapping(None, 81, tcp),
            mapping(None, 82, udp),
            mapping(local, 83, udp),
            mapping(local, 85, udp),
            Mapping { count: 3, container_port: 100, ..mapping(None, 100, udp) },
            mapping(None, 65535, tcp),
            mapping(None, 1, tcp),
            // The IPv6 port is held together with the IPv4 port.
            Mapping { container_ip: "fd00::2".parse().unwrap(), ..mapping(None, 1, tcp) },
            Mapping { container_ip: "fd00::2".parse().unwrap(), ..mapping(None, 2, tcp) },
            Mapping { host_ip: Some("fd00::1".parse().unwrap()), ..mapping(None, 7, tcp) },
        ];
        let ports = Ports::of(&mappings);
        let ranges: Vec<_> = ports.iter().map(|ports| (ports.first, ports.last)).collect();
        assert_eq!(
            ranges,
            [(80, 81), (82, 82), (83, 83), (85, 85), (100, 102), (65535, 65535), (1, 1), (2, 2), (7, 7)]
        );
        let each: Vec<_> = ports.iter().flat_map(Ports::each).map(|port| port.to_string()).collect();
        assert_eq!(
            each,
            [
                "80/tcp",
                "81/tcp",
                "82/udp",
                "127.0.0.1:83/udp",
                "127.0.0.1:85/udp",
                "100/udp",
                "101/udp",
                "102/udp",
                "65535/tcp",
                "1/tcp",
                "[::]:2/tcp",
                "[fd00::1]:7/tcp"
            ]
        );
    }
}
