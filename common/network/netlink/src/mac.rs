//! Interface names and hardware addresses. Those of a container's interfaces are derived from its
//! id. Those of the host's interfaces carry a mark.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The hardware address of an interface. Undo recognises its own interface by the derived address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// A string that is not six hexadecimal bytes separated by colons.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a hardware address")]
pub struct InvalidMac(String);

impl Mac {
    /// Derives the address of `interface` in the container `id`, or, with an empty `id`, of an
    /// interface of the host. It is locally administered and unicast (IEEE 802, "02" in the first
    /// octet).
    pub fn derive(id: &str, interface: &str) -> Self {
        let hash = hash("mac", id, interface);
        Self([0x02, hash[0], hash[1], hash[2], hash[3], hash[4]])
    }

    /// Makes a new address for the host's interface `name`, a bridge for example. Each host needs
    /// its own, because a VXLAN may put several hosts on one network. The last two bytes are
    /// computed from the others and the name: they are our mark. The address is locally
    /// administered and unicast.
    pub fn draw(name: &str, random: [u8; 4]) -> Self {
        let [a, b, c, d] = random;
        let a = a & 0xfc | 0x02;
        let [e, f] = mark_of(name, [a, b, c, d]);
        Self([a, b, c, d, e, f])
    }

    /// Whether we made this address for the host's interface `name`. Versions before 0.2 derived it
    /// from the name.
    pub fn is_of_host(self, name: &str) -> bool {
        let [a, b, c, d, e, f] = self.0;
        self == Self::derive("", name) || (a & 3 == 2 && mark_of(name, [a, b, c, d]) == [e, f])
    }

    /// Whether `other` identifies the same interface `name`. If somebody removed an interface of
    /// the host, it may have been made again with another address of ours.
    pub(crate) fn recognises(self, name: &str, other: Option<Self>) -> bool {
        other == Some(self) || (self.is_of_host(name) && other.is_some_and(|other| other.is_of_host(name)))
    }
}

/// The last two bytes of the address of `name` that starts with `first`.
fn mark_of(name: &str, first: [u8; 4]) -> [u8; 2] {
    let hash = hash("host", &u32::from_be_bytes(first).to_string(), name);
    [hash[0], hash[1]]
}

impl From<Ipv4Addr> for Mac {
    /// Derives the hardware address from an IPv4 address, as Docker does. A container that gets the
    /// address of an earlier one also gets its hardware address, so no neighbour's ARP cache is
    /// stale.
    fn from(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

/// The name of the host's side of the veth pair whose other side is `interface` in the container
/// `id`: `v` and ten hexadecimal digits. The kernel allows 15 characters.
pub fn veth_name(id: &str, interface: &str) -> String {
    let digits: String = hash("veth", id, interface)[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v{digits}")
}

/// The first name of the macvlan or ipvlan that will be `interface` in the container `id`, or, with
/// an empty `id`, of the host's VLAN `interface`: `m` and ten hexadecimal digits.
pub fn child_name(id: &str, interface: &str) -> String {
    let digits: String = hash("child", id, interface)[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("m{digits}")
}

/// The name of the VXLAN that is a port of this bridge: `x` and ten hexadecimal digits.
pub fn vxlan_name(bridge: &str) -> String {
    let digits: String = hash("vxlan", "", bridge)[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x{digits}")
}

fn hash(purpose: &str, id: &str, interface: &str) -> [u8; 32] {
    // Neither an id nor an interface name contains a slash, so different inputs give different
    // texts.
    Sha256::digest(format!("{purpose}/{id}/{interface}")).into()
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = InvalidMac;
    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let mut parts = text.split(':').map(|part| match part.len() {
            2 => u8::from_str_radix(part, 16).ok(),
            _ => None,
        });
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            *byte = parts.next().flatten().ok_or_else(|| InvalidMac(text.to_owned()))?;
        }
        if parts.next().is_some() { Err(InvalidMac(text.to_owned())) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = InvalidMac;
    fn try_from(text: String) -> Result<Self, InvalidMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_from_what_they_belong_to() {
        let mac = Mac::derive("web", "eth0");
        assert_eq!(mac, Mac::derive("web", "eth0"));
        for (id, interface) in [("web", "eth1"), ("db", "eth0"), ("", "stave0"), ("webeth", "0")] {
            assert_ne!(mac, Mac::derive(id, interface));
            assert_ne!(veth_name("web", "eth0"), veth_name(id, interface));
        }
        assert_eq!(mac.0[0], 2);
        assert!(veth_name(&"x".repeat(64), "eth0").len() < 16);
    }

    #[test]
    fn hosts_differ_and_their_own_is_recognised() {
        let [one, other] = [[1, 2, 3, 4], [255, 2, 3, 4]].map(|random| Mac::draw("stave0", random));
        assert_eq!((one.0[..4].to_vec(), other.0[..4].to_vec()), (vec![2, 2, 3, 4], vec![254, 2, 3, 4]));
        for mac in [one, other, Mac::derive("", "stave0")] {
            assert!(mac.is_of_host("stave0") && !mac.is_of_host("stave1"), "{mac}");
            assert!(
                one.recognises("stave0", Some(mac)) && !one.recognises("stave1", Some(mac)) || mac == one
            );
        }
        let of_others = Mac([one.0[0], one.0[1], one.0[2], one.0[3], one.0[4], !one.0[5]]);
        assert!(!of_others.is_of_host("stave0") && !one.recognises("stave0", Some(of_others)));
        assert!(
            of_others.recognises("stave0", Some(of_others)) && !of_others.recognises("stave0", Some(one))
        );
    }

    #[test]
    fn read_as_written() {
        let mac: Mac = "02:00:ff:10:0a:01".parse().unwrap();
        assert_eq!((mac, mac.to_string().as_str()), (Mac([2, 0, 255, 16, 10, 1]), "02:00:ff:10:0a:01"));
        for text in ["", "02:00:ff:10:0a", "02:00:ff:10:0a:01:02", "2:0:f:1:0:1", "+2:00:ff:10:0a:0g"] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
