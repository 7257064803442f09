//! Names and hardware addresses: derived, never random.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The hardware address of an interface. A derived address is the mark by which undo recognises its own interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// A string that is not six hexadecimal bytes separated by colons.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a hardware address")]
pub struct InvalidMac(String);

impl Mac {
    /// The address of `interface` in the container `id`; or, with an empty `id`, of an interface of the host. Locally
    /// administered, unicast (IEEE 802, "02" in the first octet).
    pub fn derive(id: &str, interface: &str) -> Self {
        let hash = hash("mac", id, interface);
        Self([0x02, hash[0], hash[1], hash[2], hash[3], hash[4]])
    }
}

impl From<Ipv4Addr> for Mac {
    /// That of the interface with this address, as Docker derives it: who has the address after another container has the
    /// same hardware address too, so that no neighbour sends to one that is gone.
    fn from(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

/// The name of the host's side of the veth pair whose other side is `interface` in the container `id`: `v` and ten
/// hexadecimal digits, under the kernel's limit of 15 characters.
pub fn veth_name(id: &str, interface: &str) -> String {
    let digits: String = hash("veth", id, interface)[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v{digits}")
}

fn hash(purpose: &str, id: &str, interface: &str) -> [u8; 32] {
    // Neither an id nor the name of an interface has a slash, so no two inputs give the same text.
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
    fn read_as_written() {
        let mac: Mac = "02:00:ff:10:0a:01".parse().unwrap();
        assert_eq!((mac, mac.to_string().as_str()), (Mac([2, 0, 255, 16, 10, 1]), "02:00:ff:10:0a:01"));
        for text in ["", "02:00:ff:10:0a", "02:00:ff:10:0a:01:02", "2:0:f:1:0:1", "+2:00:ff:10:0a:0g"] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
