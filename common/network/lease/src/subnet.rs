use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use ipnet::IpNet;

use crate::CURSOR;

/// The address of the bridge, which is the containers' gateway: the first one of the subnet.
pub fn gateway(subnet: IpNet) -> IpAddr {
    address(subnet, number(subnet.network()) + 1)
}

/// Whether the range has an address for a container, besides the gateway's.
pub fn has_room(subnet: IpNet, range: IpNet, gateway: IpAddr) -> bool {
    addresses(subnet, range, None).any(|address| address != gateway)
}

/// An address as a number.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address with this number, in the subnet's family.
fn address(subnet: IpNet, number: u128) -> IpAddr {
    match subnet {
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// The first and last host address of the range.
fn hosts(subnet: IpNet, range: IpNet) -> (u128, u128) {
    let (network, broadcast) = (number(subnet.network()), number(subnet.broadcast()));
    let (first, last) = match (subnet, subnet.max_prefix_len() - subnet.prefix_len()) {
        // A subnet with one or two addresses has no network or broadcast address (RFC 3021, RFC
        // 6164).
        (_, 0 | 1) => (network, broadcast),
        (IpNet::V4(_), _) => (network + 1, broadcast - 1),
        // The first address is the subnet-router anycast address (RFC 4291, 2.6.1). IPv6 has no
        // broadcast.
        (IpNet::V6(_), _) => (network + 1, broadcast),
    };
    (first.max(number(range.network())), last.min(number(range.broadcast())))
}

/// The first and last host address of the range. None if it has no host address.
pub fn hosts_of(subnet: IpNet, range: IpNet) -> Option<(IpAddr, IpAddr)> {
    let (first, last) = hosts(subnet, range);
    (first <= last).then(|| (address(subnet, first), address(subnet, last)))
}

/// The host addresses of the range, each once, starting after `cursor`.
pub(crate) fn addresses(subnet: IpNet, range: IpNet, cursor: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
    let (first, last) = hosts(subnet, range);
    let start = cursor.map(number).filter(|at| (first..last).contains(at)).map_or(first, |at| at + 1);
    (start..=last).chain(first..start).map(move |number| address(subnet, number))
}

/// Ranges with more host bits than this are not enumerated, because nobody fills them.
const WALKED: u8 = 24;

/// Whether the range is too large to enumerate.
pub(crate) fn is_large(range: IpNet) -> bool {
    range.max_prefix_len() - range.prefix_len() > WALKED
}

/// Addresses of the range that are derived from the holder. In such a range, two holders hardly
/// ever get the same one.
pub(crate) fn derived(subnet: IpNet, range: IpNet, holder: &str) -> impl Iterator<Item = IpAddr> {
    const TRIES: u32 = 64;
    let (first, last) = hosts(subnet, range);
    let holder = holder.to_owned();
    (0..TRIES).map(move |attempt| {
        let half = |part: u8| {
            let mut hasher = DefaultHasher::new();
            (&holder, subnet, attempt, part).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        let drawn: u128 = half(0) << 64 | half(1);
        address(subnet, first + drawn % (last - first + 1))
    })
}

/// The last leased address, if it is known.
pub(crate) fn cursor(directory: &Path) -> Option<IpAddr> {
    fs::read_to_string(directory.join(CURSOR)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_of_hosts_after_the_cursor_first() {
        for (subnet, range, cursor, expected) in [
            ("10.0.0.0/29", "10.0.0.0/29", None, "1 2 3 4 5 6"),
            ("10.0.0.0/29", "10.0.0.0/29", Some(3), "4 5 6 1 2 3"),
            ("10.0.0.0/29", "10.0.0.0/29", Some(6), "1 2 3 4 5 6"),
            ("10.0.0.0/29", "10.0.0.0/29", Some(77), "1 2 3 4 5 6"),
            ("10.0.0.4/30", "10.0.0.4/30", None, "5 6"),
            ("10.0.0.4/31", "10.0.0.4/31", None, "4 5"),
            ("10.0.0.4/32", "10.0.0.4/32", None, "4"),
            // Only the first and last address of the subnet itself are not host addresses.
            ("10.0.0.0/24", "10.0.0.8/30", None, "8 9 10 11"),
            ("10.0.0.0/24", "10.0.0.8/30", Some(9), "10 11 8 9"),
            ("10.0.0.0/24", "10.0.0.8/30", Some(3), "8 9 10 11"),
            ("10.0.0.0/24", "10.0.0.0/30", None, "1 2 3"),
            ("10.0.0.0/24", "10.0.0.255/32", None, ""),
        ] {
            let cursor = cursor.map(|last| Ipv4Addr::new(10, 0, 0, last).into());
            let found = addresses(subnet.parse().unwrap(), range.parse().unwrap(), cursor)
                .map(|ip| ip.to_string().rsplit_once('.').unwrap().1.to_owned());
            assert_eq!(found.collect::<Vec<_>>().join(" "), expected, "{range} of {subnet}");
        }
        assert_eq!(gateway("172.17.0.0/16".parse().unwrap()), Ipv4Addr::new(172, 17, 0, 1));
    }

    #[test]
    fn a_large_range_is_not_walked_through() {
        let subnet: IpNet = "fd00:1::/64".parse().unwrap();
        assert_eq!(gateway(subnet).to_string(), "fd00:1::1");
        assert!(is_large(subnet) && !is_large("10.0.0.0/8".parse().unwrap()));
        assert!(has_room(subnet, subnet, gateway(subnet)));
        let of = |holder: &str| derived(subnet, subnet, holder).collect::<Vec<_>>();
        assert_eq!(of("web"), of("web"));
        assert!(of("web").iter().all(|address| subnet.contains(address) && !of("db").contains(address)));
        let few: IpNet = "fd00:1::8/126".parse().unwrap();
        let all: Vec<_> = addresses(subnet, few, None).map(|address| address.to_string()).collect();
        assert_eq!(all, ["fd00:1::8", "fd00:1::9", "fd00:1::a", "fd00:1::b"]);
    }
}
