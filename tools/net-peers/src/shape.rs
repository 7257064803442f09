//! The properties of a network on all hosts, and its parts for each host.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use toolkit::prelude::*;

/// The properties that all hosts agree on. The first host writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) subnet: Ipv4Net,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subnet6: Option<Ipv6Net>,
    /// The number of address bits that select the part.
    pub(crate) bits: u8,
    /// The VXLAN network identifier (VNI), and the UDP port.
    pub(crate) vxlan: u32,
    pub(crate) port: u16,
    /// Whether the hosts use WireGuard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) wireguard: bool,
}

/// The maximum number of these bits: a network has at most 65,536 parts.
const MAX_BITS: u8 = 16;

impl Shape {
    /// Checks that each part has room for the bridge and a container.
    pub(crate) fn checked(self) -> Result<Self> {
        let length = self.subnet.prefix_len().saturating_add(self.bits);
        let length6 = self.subnet6.map(|subnet| subnet.prefix_len().saturating_add(self.bits));
        if self.bits == 0 || self.bits > MAX_BITS || length > 30 || length6.is_some_and(|length| length > 126)
        {
            let error = anyhow!(
                "{} has no {} parts with room for containers",
                self.subnet,
                1_u32 << self.bits.min(31)
            );
            return Err(hint(error, "choose a larger --subnet, or another --part"));
        }
        Ok(self)
    }

    /// The number of parts.
    pub(crate) fn parts(&self) -> u32 {
        1 << self.bits
    }

    /// The subnets of the part with this number, one for each IP version.
    pub(crate) fn part(&self, number: u32) -> Vec<IpNet> {
        let v4 = {
            let length = self.subnet.prefix_len() + self.bits;
            let first = u32::from(self.subnet.network()) | (number << (32 - u32::from(length)));
            IpNet::new_assert(std::net::Ipv4Addr::from(first).into(), length)
        };
        let v6 = self.subnet6.map(|subnet| {
            let length = subnet.prefix_len() + self.bits;
            let first = u128::from(subnet.network()) | (u128::from(number) << (128 - u32::from(length)));
            IpNet::new_assert(std::net::Ipv6Addr::from(first).into(), length)
        });
        [v4].into_iter().chain(v6).collect()
    }

    /// The addresses of the bridge on the host with this part: the first of each subnet.
    pub(crate) fn gateways(&self, number: u32) -> Vec<IpAddr> {
        self.part(number).into_iter().map(lease::gateway).collect()
    }

    /// The number of this part. None if it is not a part.
    pub(crate) fn number_of(&self, part: Ipv4Net) -> Option<u32> {
        let number = (u32::from(part.network())
            - u32::from(self.subnet.network()).min(u32::from(part.network())))
        .checked_shr(32 - u32::from(part.prefix_len()))?;
        (number < self.parts() && self.part(number).first() == Some(&IpNet::from(part))).then_some(number)
    }

    /// The number of the part that a host tries first. It is derived from the host's name, so a host that
    /// comes back finds its own part.
    pub(crate) fn first_for(&self, host: &str) -> u32 {
        hash(host) % self.parts()
    }
}

/// A hash of a text (FNV-1a).
pub(crate) fn hash(text: &str) -> u32 {
    let mixed = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = text.bytes().fold(0x811c_9dc5, mixed);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shape(subnet: &str, subnet6: Option<&str>, bits: u8) -> Shape {
        let subnet6 = subnet6.map(|subnet| subnet.parse().unwrap());
        Shape { subnet: subnet.parse().unwrap(), subnet6, bits, vxlan: 7, port: 4789, wireguard: false }
    }

    #[test]
    fn parts_are_apart_and_found_again() {
        let shape = shape("10.7.0.0/16", Some("fd07::/48"), 8);
        let told = |number| shape.part(number).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(told(0), "10.7.0.0/24 fd07::/56");
        assert_eq!(told(255), "10.7.255.0/24 fd07:0:0:ff00::/56");
        for number in 0..shape.parts() {
            let IpNet::V4(part) = shape.part(number)[0] else { unreachable!() };
            assert_eq!(shape.number_of(part), Some(number));
        }
        for other in ["10.8.0.0/24", "10.7.0.0/25", "10.7.0.0/16", "10.6.1.0/24", "0.0.0.0/0"] {
            assert_eq!(shape.number_of(other.parse().unwrap()), None, "{other}");
        }
        assert_eq!(shape.first_for("a"), shape.first_for("a"));
        assert!((0..100).all(|host| shape.first_for(&host.to_string()) < shape.parts()));
    }

    #[test]
    fn parts_have_room() {
        for (subnet, subnet6, bits, fits) in [
            ("10.7.0.0/16", None, 8, true),
            ("10.7.0.0/24", None, 6, true),
            ("10.7.0.0/24", None, 7, false),
            ("10.7.0.0/8", None, 17, false),
            ("10.7.0.0/16", None, 0, false),
            ("10.7.0.0/16", Some("fd00::/120"), 8, false),
        ] {
            assert_eq!(shape(subnet, subnet6, bits).checked().is_ok(), fits, "{subnet} {bits}");
        }
    }
}
