use std::{fs, net::Ipv4Addr, path::Path};

use ipnet::Ipv4Net;

use crate::CURSOR;

/// The address of the bridge, which is the gateway of the containers: the first of the subnet.
pub fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    (u32::from(subnet.network()) + 1).into()
}

/// Whether the range has an address that a container can have, besides the gateway's.
pub fn has_room(subnet: Ipv4Net, range: Ipv4Net, gateway: Ipv4Addr) -> bool {
    addresses(subnet, range, None).any(|address| address != gateway)
}

/// The subnet's addresses for hosts in the range, each once, starting after `cursor`.
pub(crate) fn addresses(
    subnet: Ipv4Net,
    range: Ipv4Net,
    cursor: Option<Ipv4Addr>,
) -> impl Iterator<Item = Ipv4Addr> {
    let network = u32::from(subnet.network());
    // A subnet with one or two addresses has no network or broadcast address (RFC 3021).
    let (first, last) = match subnet.prefix_len() {
        31 | 32 => (network, u32::from(subnet.broadcast())),
        _ => (network + 1, u32::from(subnet.broadcast()) - 1),
    };
    let (first, last) = (first.max(range.network().into()), last.min(range.broadcast().into()));
    let start = cursor.map(u32::from).filter(|at| (first..last).contains(at)).map_or(first, |at| at + 1);
    (start..=last).chain(first..start).map(Ipv4Addr::from)
}

/// The last address, if it is known.
pub(crate) fn cursor(directory: &Path) -> Option<Ipv4Addr> {
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
            // Only the subnet's own first and last address are none of a host.
            ("10.0.0.0/24", "10.0.0.8/30", None, "8 9 10 11"),
            ("10.0.0.0/24", "10.0.0.8/30", Some(9), "10 11 8 9"),
            ("10.0.0.0/24", "10.0.0.8/30", Some(3), "8 9 10 11"),
            ("10.0.0.0/24", "10.0.0.0/30", None, "1 2 3"),
            ("10.0.0.0/24", "10.0.0.255/32", None, ""),
        ] {
            let cursor = cursor.map(|last| Ipv4Addr::new(10, 0, 0, last));
            let found = addresses(subnet.parse().unwrap(), range.parse().unwrap(), cursor)
                .map(|ip| ip.octets()[3].to_string());
            assert_eq!(found.collect::<Vec<_>>().join(" "), expected, "{range} of {subnet}");
        }
        assert_eq!(gateway("172.17.0.0/16".parse().unwrap()), Ipv4Addr::new(172, 17, 0, 1));
    }
}
