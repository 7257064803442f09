//! Neighbor discovery on a link: whether another station has an IPv6 address (RFC 4861, RFC 4862).

use std::net::{Ipv6Addr, SocketAddrV6};

use nix::{errno::Errno, libc};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, ipproto, sendto, socket_with, sockopt,
};

use crate::{Error, Link, Mac, wire::Wire};

/// The protocol number of ICMPv6, and the types of neighbor solicitation and neighbor
/// advertisement.
const ICMP: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// The hop limit of a packet that no router has forwarded (RFC 4861, 7.1).
const HOP_LIMIT: u8 = 255;
/// All stations on a link.
const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Offsets in a packet: of the ICMPv6 message, of its target address, and of the end of that
/// address.
const HEADER: usize = 40;
const TARGET: usize = HEADER + 8;
const END: usize = TARGET + 16;

/// A socket filter that accepts only the two message types (the kernel's filter.rst).
const FILTER: [libc::sock_filter; 7] = [
    load(6),
    jump(libc::BPF_JEQ, ICMP, 0, 4),
    load(HEADER),
    jump(libc::BPF_JGE, SOLICITATION, 0, 2),
    jump(libc::BPF_JGT, ADVERTISEMENT, 1, 0),
    answer(u32::MAX),
    answer(0),
];

/// Loads the byte at this offset.
const fn load(at: usize) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, at as u32)
}

/// Skips `holds` instructions if the comparison is true, otherwise `fails` instructions.
const fn jump(compare: u32, with: u8, holds: u8, fails: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | compare | libc::BPF_K, holds, fails, with as u32)
}

/// Returns, and accepts `length` bytes of the packet.
const fn answer(length: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, length)
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// The solicited-node multicast address, and its hardware address (RFC 4291, 2.7.1; RFC 2464, 7).
fn group(address: Ipv6Addr) -> (Ipv6Addr, [u8; 6]) {
    let [.., a, b, c] = address.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    (group, [0x33, 0x33, 0xff, a, b, c])
}

/// The checksum over the message and the pseudo-header (RFC 8200, 8.1).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = (message.len() as u32).to_be_bytes();
    let all = [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, ICMP], message].concat();
    let mut sum: u32 = all.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A neighbor solicitation for `wanted`, sent by a station that has no address yet (RFC 4862,
/// 5.4.2).
fn probe(wanted: Ipv6Addr) -> Vec<u8> {
    let (source, (destination, _)) = (Ipv6Addr::UNSPECIFIED, group(wanted));
    let mut message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &wanted.octets()].concat();
    let sum = checksum(source, destination, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let begin = [0x60, 0, 0, 0, 0, message.len() as u8, ICMP, HOP_LIMIT];
    [&begin[..], &source.octets(), &destination.octets(), &message].concat()
}

/// Tells all stations on the link that the address, which is one of this host, has this hardware address
/// (RFC 4861, 4.4 and 7.2.6).
///
/// # Errors
/// When it cannot be sent.
pub(crate) fn announce(link: u32, own: Mac, address: Ipv6Addr) -> Result<(), Errno> {
    let (replaces, of_target, eight_bytes) = (0x20, 2, 1);
    // The kernel computes the checksum (RFC 3542, 3.1).
    let head = [ADVERTISEMENT, 0, 0, 0, replaces, 0, 0, 0];
    let message = [&head[..], &address.octets(), &[of_target, eight_bytes], &own.0].concat();
    let (flags, protocol) = (SocketFlags::CLOEXEC, Some(ipproto::ICMPV6));
    let wrong = |errno: rustix::io::Errno| Errno::from_raw(errno.raw_os_error());
    let send = || -> Result<(), rustix::io::Errno> {
        let socket = socket_with(AddressFamily::INET6, SocketType::RAW, flags, protocol)?;
        sockopt::set_ipv6_multicast_hops(&socket, HOP_LIMIT.into())?;
        bind(&socket, &SocketAddrV6::new(address, 0, 0, 0))?;
        sendto(&socket, &message, SendFlags::empty(), &SocketAddrV6::new(ALL, 0, 0, link)).map(drop)
    };
    send().map_err(wrong)
}

/// Whether the packet says that another station has the address, or is about to take it.
fn claims(packet: &[u8], address: Ipv6Addr) -> bool {
    let Some(packet) = packet.get(..END) else { return false };
    let is_about_it =
        packet[0] >> 4 == 6 && packet[6..8] == [ICMP, HOP_LIMIT] && packet[TARGET..END] == address.octets();
    let probes = packet[HEADER] == SOLICITATION && packet[8..24] == [0; 16];
    is_about_it && (packet[HEADER] == ADVERTISEMENT || probes)
}

/// Whether another station on this link has the address. Takes 0.1 s if nobody answers.
///
/// # Errors
/// When the probe cannot be sent, or the answers cannot be read.
pub fn is_in_use(link: &Link, address: Ipv6Addr) -> Result<bool, Error> {
    let wire = Wire::open(link.index, libc::ETH_P_IPV6 as u16, &FILTER);
    wire.and_then(|wire| wire.ask(&probe(address), group(address).1, |packet| claims(packet, address)))
        .map_err(|errno| Error::new("ask for", format!("{address} on link {:?}", link.name), errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_the_right_sum() {
        let probe = probe("fd00::1:2:3".parse().unwrap());
        assert_eq!(probe.len(), END);
        assert_eq!(&probe[24..40], &"ff02::1:ff02:3".parse::<Ipv6Addr>().unwrap().octets());
        // A message that includes its own checksum sums up to zero.
        let destination: [u8; 16] = probe[24..40].try_into().unwrap();
        assert_eq!(checksum(Ipv6Addr::UNSPECIFIED, destination.into(), &probe[HEADER..]), 0);
    }

    #[test]
    fn who_claims_an_address() {
        let (address, other): (Ipv6Addr, Ipv6Addr) = ("fd00::2".parse().unwrap(), "fd00::3".parse().unwrap());
        let packet = |kind: u8, source: Ipv6Addr, about: Ipv6Addr| {
            let mut packet = probe(about);
            packet[HEADER] = kind;
            packet[8..24].copy_from_slice(&source.octets());
            packet
        };
        let none = Ipv6Addr::UNSPECIFIED;
        for (packet, claimed) in [
            (packet(ADVERTISEMENT, address, address), true),
            (packet(ADVERTISEMENT, other, other), false),
            (packet(SOLICITATION, none, address), true),
            (packet(SOLICITATION, other, address), false),
            (packet(128, other, address), false),
            (packet(ADVERTISEMENT, address, address)[..60].to_vec(), false),
            (vec![], false),
        ] {
            assert_eq!(claims(&packet, address), claimed, "{packet:?}");
        }
        let mut from_afar = packet(ADVERTISEMENT, address, address);
        from_afar[7] = 254;
        assert!(!claims(&from_afar, address));
    }
}
