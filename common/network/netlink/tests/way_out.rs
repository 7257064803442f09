//! The link over which packets leave the host. Needs root: each test runs in its own network and
//! mount namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;

use netlink::Connection;

use common::*;

/// Two links to the outside with different MTUs. The default route is over the first.
fn ways() {
    sh(
        "for n in 1 2; do ip link add w$n type veth peer name p$n; ip link set p$n up; ip link set w$n up mtu 1${n}00; \
            ip addr add 10.20$n.0.1/24 dev w$n; done; ip route add default via 10.201.0.2",
    );
}

fn mtu() -> Option<u32> {
    Connection::here().unwrap().way_out(None).unwrap().map(|out| out.mtu)
}

#[test]
fn the_way_out_is_where_packets_go() {
    sandbox(|| {
        assert_eq!(mtu(), None, "there is none");
        ways();
        assert_eq!(mtu(), Some(1100));
        // One route is in a table for marked packets only, and one is for an address that is looked
        // up.
        sh(
            "ip rule add fwmark 7 lookup 100; ip route add default via 10.202.0.2 table 100; ip route add 192.0.2.0/24 via 10.202.0.2",
        );
        assert_eq!(mtu(), Some(1100));
        sh("ip route add blackhole 198.51.100.0/24; ip route add unreachable 203.0.113.0/24");
        assert_eq!(mtu(), Some(1100));
        sh(
            "ip route add default via 10.202.0.2 metric 5; ip route del default metric 0; ip route add default via 10.201.0.2 metric 9",
        );
        assert_eq!(mtu(), Some(1200), "the lowest metric");
        sh("for half in 0.0.0.0/1 128.0.0.0/1; do ip route add $half via 10.201.0.2; done");
        assert_eq!(mtu(), Some(1100), "a VPN splits the default route");
        // Policy routing may send packets of containers another way.
        sh(
            "ip link add b0 type bridge; ip addr add 172.17.0.1/16 dev b0; ip link set b0 up; sysctl -qw net.ipv4.ip_forward=1; \
            ip rule add from 172.17.0.0/16 lookup 100",
        );
        let bridge = Connection::here().unwrap().link("b0").unwrap().unwrap().index;
        let of_bridge = || {
            let from = Some((bridge, "172.17.0.2".parse().unwrap()));
            Connection::here().unwrap().way_out(from).unwrap().map(|out| out.mtu)
        };
        assert_eq!((of_bridge(), mtu()), (Some(1200), Some(1100)));
        sh("sysctl -qw net.ipv4.ip_forward=0");
        assert_eq!(of_bridge(), Some(1100), "nothing is forwarded: the host's own way");
    });
}

#[test]
fn the_way_out_is_found_at_once_among_many_routes() {
    sandbox(|| {
        ways();
        let time = || {
            let look = || {
                let start = std::time::Instant::now();
                assert_eq!(mtu(), Some(1100));
                start.elapsed()
            };
            (0..20).map(|_| look()).min().unwrap()
        };
        let few = time();
        let routes: String = (0..100_000)
            .map(|n| format!("route add 11.{}.{}.{}/32 dev w2\n", n >> 16, n >> 8 & 255, n & 255))
            .collect();
        fs::write("/run/routes", routes).unwrap();
        sh("ip -batch /run/routes");
        let many = time();
        // Listing all routes takes a tenth of a second.
        assert!(
            many < few * 10 + std::time::Duration::from_millis(2),
            "{few:?} with few, {many:?} with many"
        );
        assert_eq!(
            Connection::here()
                .unwrap()
                .route_to("11.0.1.1".parse().unwrap())
                .unwrap()
                .unwrap()
                .destination
                .prefix_len(),
            32
        );
    });
}
