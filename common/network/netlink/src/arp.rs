//! ARP on a link: whether another station has an address (RFC 826, RFC 5227).
//!
//! The kernel closes an ARP socket only after all packets in flight were delivered. This takes
//! about 10 ms.

use std::net::Ipv4Addr;

use nix::{errno::Errno, libc};

use crate::{Error, Link, Mac, wire::Wire};

/// The first bytes of every ARP packet for IPv4 on Ethernet.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// An ARP probe for `wanted`, sent by a station that has no address yet.
fn probe(own: Mac, wanted: Ipv4Addr) -> [u8; 28] {
    let mut packet = [0; 28];
    packet[..6].copy_from_slice(&KIND);
    packet[7] = 1; // a request
    packet[8..14].copy_from_slice(&own.0);
    packet[24..28].copy_from_slice(&wanted.octets());
    packet
}

/// Tells all stations on the link that the address has this hardware address (RFC 5227, 3).
///
/// # Errors
/// When it cannot be sent.
pub(crate) fn announce(link: u32, own: Mac, address: Ipv4Addr) -> Result<(), Errno> {
    let mut packet = probe(own, address);
    packet[14..18].copy_from_slice(&address.octets());
    Wire::open(link, libc::ETH_P_ARP as u16, &[])?.send(&packet, [0xff; 6])
}

/// Whether the packet says that another station has the address, or is about to take it.
fn claims(packet: &[u8], own: Mac, address: Ipv4Addr) -> bool {
    let field = |from: usize, to: usize| packet.get(from..to).unwrap_or_default();
    let sender = field(14, 18);
    let probes = sender == [0; 4] && field(24, 28) == address.octets();
    field(0, 6) == KIND && field(8, 14) != own.0 && (sender == address.octets() || probes)
}

/// Whether another station on this link has the address (RFC 5227, 2.1.1, Probe Details). Takes 0.1
/// s if nobody answers.
///
/// # Errors
/// When the probe cannot be sent, or the answers cannot be read.
pub fn is_in_use(link: &Link, address: Ipv4Addr) -> Result<bool, Error> {
    let Some(mac) = link.mac else { return Ok(false) };
    let wire = Wire::open(link.index, libc::ETH_P_ARP as u16, &[]);
    wire.and_then(|wire| wire.ask(&probe(mac, address), [0xff; 6], |packet| claims(packet, mac, address)))
        .map_err(|errno| Error::new("ask for", format!("{address} on link {:?}", link.name), errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_claims_an_address() {
        let (own, other) = (Mac([2, 0, 0, 0, 0, 1]), [2, 0, 0, 0, 0, 2]);
        let packet = |mac: [u8; 6], has: [u8; 4], wants: [u8; 4]| {
            [&KIND[..], &[0, 1], &mac, &has, &[0; 6], &wants].concat()
        };
        let (address, another) = ([10, 0, 0, 2], [10, 0, 0, 3]);
        for (packet, claimed) in [
            (packet(other, address, another), true),
            (packet(other, [0; 4], address), true),
            (packet(other, another, address), false),
            (packet(own.0, address, address), false),
            (packet(other, address, another)[..17].to_vec(), false),
            (vec![], false),
        ] {
            assert_eq!(claims(&packet, own, address.into()), claimed, "{packet:?}");
        }
    }
}
