//! The addresses that an answer to a name never opens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::list::{Entry, Target};

/// The addresses of clouds' metadata services, which give a machine its secrets, apart from
/// link-local ones.
const METADATA: [IpNet; 9] = [
    // Amazon: the machine (::254), and the containers of EKS and ECS (::23).
    net6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32),
    // Google.
    net6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
    // Alibaba.
    net4([100, 100, 100, 200], 32),
    net6([0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200], 128),
    // Azure.
    net4([168, 63, 129, 16], 32),
    // Oracle.
    net4([192, 0, 0, 192], 32),
    net6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128),
    // Scaleway.
    net6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128),
    // Linode.
    net6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1], 128),
];

const fn net4([a, b, c, d]: [u8; 4], length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn net6([a, b, c, d, e, f, g, h]: [u16; 8], length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length))
}

/// Where IPv6 addresses have the octets of the IPv4 address to which they lead.
const LAST: [usize; 4] = [12, 13, 14, 15];

/// The same behind a NAT64 whose prefix has 48, 56, 64 or 96 bits (RFC 6052, 2.2).
const BEHIND: [[usize; 4]; 4] = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], LAST];

/// The IPv4 addresses to which an IPv6 address may lead.
fn within(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(v6) = address else { return Vec::new() };
    let places = match v6.segments() {
        // 6to4 (RFC 3056).
        [0x2002, ..] => &[[2, 3, 4, 5]][..],
        // By a NAT64, and IPv4-compatible ones (RFC 4291, 2.5.5.1).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => &[LAST],
        // By a NAT64 with a prefix of the site's own in this one (RFC 8215).
        [0x64, 0xff9b, 1, ..] => &BEHIND,
        _ => &[],
    };
    let octets = v6.octets();
    let four = |place: &[usize; 4]| Ipv4Addr::from(place.map(|at| octets[at]));
    // The rest of a longer prefix is no address.
    let is_address = |found: &Ipv4Addr| places.len() == 1 || found.octets()[0] != 0;
    places.iter().map(four).filter(is_address).map(IpAddr::V4).collect()
}

/// Whether an answer to a name may open this address. `closed` are the networks that none may open.
/// What is listed by address may be opened anyway.
pub(crate) fn may_open(address: IpAddr, allow: &[Entry], closed: &[IpNet]) -> bool {
    let address = address.to_canonical();
    let is_inside = within(address).into_iter().any(|inside| !may_open(inside, &[], closed));
    let is_special = match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local()
        }
    };
    let is_in = |net: &IpNet| net.contains(&address);
    let listed = allow.iter().any(|entry| matches!(&entry.target, Target::Addresses(net) if is_in(net)));
    listed || !(is_special || is_inside || METADATA.iter().any(is_in) || closed.iter().any(is_in))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_opens_nothing_that_is_the_machines_own() {
        let closed = ["10.0.0.0/8".parse().unwrap()];
        let may = |address: &str, allow: &[Entry]| may_open(address.parse().unwrap(), allow, &closed);
        for secret in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "100.100.100.200",
            "fd00:100::100:200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "fd00:a9fe:a9fe::1",
            "10.1.2.3",
            // By a NAT64, or by 6to4.
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:2:a9:fea9:fe00:0",
            "::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "64:ff9b::a01:203",
        ] {
            assert!(!may(secret, &[]), "{secret}");
        }
        for open in
            ["192.0.2.1", "2001:db8::1", "64:ff9b::c000:201", "64:ff9b:1::c000:201", "2002:c000:201::1"]
        {
            assert!(may(open, &[]), "{open}");
        }
        assert!(may("64:ff9b::a9fe:a9fe", &["64:ff9b::a9fe:a9fe".parse().unwrap()]));
        // An address that is listed itself may be opened.
        assert!(may("192.0.0.192", &["192.0.0.192".parse().unwrap()]));
    }
}
