//! Removes tracked UDP connections. UDP has no connection setup, so a client that keeps sending
//! would keep its old translation: it would reach a container that is gone, or miss a newly
//! published one.

use std::collections::BTreeSet;

use netlink::{
    Refusal,
    attribute::{Attribute, find},
    netfilter::{IPV4, IPV6, Netfilter},
};
use nix::errno::Errno;

use crate::{Mapping, Protocol};

/// IPCTNL_MSG_CT_DELETE.
const DELETE: u8 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
/// The fields of the tuple to match (net/netfilter/nf_conntrack_netlink.c, CTA_FILTER_F_…).
const BY_SOURCE_ADDRESS: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;
const BY_DESTINATION_PORT: u32 = 1 << 5;

fn protocol(number: u8, port_kind: u16, port: u16) -> Attribute {
    let number = Attribute::Bytes(1, vec![number]);
    Attribute::Nested(2, vec![number, Attribute::Bytes(port_kind, port.to_be_bytes().to_vec())])
}

/// The mapping of each port that has tracked connections. A single port is always returned. Of a
/// range, only the ports in use are returned, because a request for each port would take too long.
/// `tuple` and `part` say which attribute of a connection holds the port.
fn remembered(
    socket: &Netfilter,
    mapping: &Mapping,
    (tuple, part): (u16, u16),
) -> Result<Vec<Mapping>, Refusal> {
    if mapping.count == 1 || mapping.protocol != Protocol::Udp {
        return Ok(vec![mapping.clone()]);
    }
    let port = |connection: &Vec<u8>| -> Option<u16> {
        let protocol = find(find(connection, tuple)?, 2)?;
        let is_udp = find(protocol, 1)? == [17];
        is_udp.then(|| find(protocol, part)?.try_into().ok().map(u16::from_be_bytes)).flatten()
    };
    let used: BTreeSet<u16> = socket.connections(family(mapping))?.iter().filter_map(port).collect();
    Ok(mapping.each().filter(|one| used.contains(&one.host_port)).collect())
}

fn family(mapping: &Mapping) -> u8 {
    if mapping.container_ip.is_ipv4() { IPV4 } else { IPV6 }
}

/// Removes tracked UDP connections that the new mapping redirects.
pub(crate) fn forget_before(socket: &Netfilter, mapping: &Mapping) -> Result<(), Refusal> {
    let all = remembered(socket, mapping, (TUPLE_ORIGINAL, 3))?;
    all.iter().try_for_each(|one| forget_one_before(socket, one))
}

fn forget_one_before(socket: &Netfilter, mapping: &Mapping) -> Result<(), Refusal> {
    let tuple = Attribute::Nested(TUPLE_ORIGINAL, vec![protocol(17, 3, mapping.host_port)]);
    forget(socket, mapping, tuple, (FILTER_ORIGINAL, BY_PROTOCOL | BY_DESTINATION_PORT))
}

/// Removes tracked UDP connections to the container of the removed mapping.
pub(crate) fn forget_after(socket: &Netfilter, mapping: &Mapping) -> Result<(), Refusal> {
    // In a range, the port has the same number on both sides.
    let all = remembered(socket, mapping, (TUPLE_REPLY, 2))?;
    all.iter().try_for_each(|one| forget_one_after(socket, one))
}

fn forget_one_after(socket: &Netfilter, mapping: &Mapping) -> Result<(), Refusal> {
    // CTA_IP_V4_SRC, CTA_IP_V6_SRC
    let kind = if mapping.container_ip.is_ipv4() { 1 } else { 3 };
    let address = Attribute::Bytes(kind, netlink::expression::octets(mapping.container_ip));
    let parts = vec![Attribute::Nested(1, vec![address]), protocol(17, 2, mapping.container_port)];
    let flags = BY_SOURCE_ADDRESS | BY_PROTOCOL | BY_SOURCE_PORT;
    forget(socket, mapping, Attribute::Nested(TUPLE_REPLY, parts), (FILTER_REPLY, flags))
}

fn forget(socket: &Netfilter, mapping: &Mapping, tuple: Attribute, by: (u16, u32)) -> Result<(), Refusal> {
    if mapping.protocol != Protocol::Udp {
        return Ok(());
    }
    let family = family(mapping);
    // The kernel requires both directions. One of them has no fields to match. The flags are in
    // host byte order.
    let flags = |kind, flags: u32| Attribute::Bytes(kind, flags.to_ne_bytes().to_vec());
    let other = if by.0 == FILTER_ORIGINAL { FILTER_REPLY } else { FILTER_ORIGINAL };
    let filter = Attribute::Nested(FILTER, vec![flags(by.0, by.1), flags(other, 0)]);
    match socket.conntrack(DELETE, family, &[tuple, filter]) {
        // There is no connection, or the kernel cannot filter. Without filters it would remove all
        // connections or none; connections expire anyway.
        Err(refusal) if [Errno::ENOENT, Errno::EOPNOTSUPP, Errno::EINVAL].contains(&refusal.errno) => Ok(()),
        result => result,
    }
}
