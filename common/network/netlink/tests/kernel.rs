//! Applies operations to links, addresses and routes. Needs root: each test runs in its own network
//! and mount namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use netlink::{Connection, LinkOperation as Op, Mac, Mark, PROTOCOL, Peer, veth_name};
use operation::{Condition, Operation, undo_all};

use common::*;

#[test]
fn applied_checked_and_undone_at_every_length() {
    sandbox(|| {
        let netns = netns("web");
        let before = picture();
        let all = container("web", "172.17.0.2/16");
        for length in 0..=all.len() {
            let mut list = all.clone();
            for operation in &mut list[..length] {
                operation.apply(&scope()).unwrap();
                assert_eq!(operation.check(&scope()).unwrap(), Condition::Present, "{operation:?}");
            }
            for operation in &list[length..] {
                // Operations that end with the link are not checked separately.
                let with_link = matches!(operation, Op::Hairpin { .. });
                let found = operation.check(&scope()).unwrap();
                assert!(
                    with_link || matches!(found, Condition::Missing(_)),
                    "{length} {operation:?} {found:?}"
                );
            }
            assert!(undo_all(&list, &scope()).is_empty());
            assert!(undo_all(&list, &scope()).is_empty());
            assert_eq!(picture(), before, "after {length}");
        }
        netns.undo(&scope()).unwrap();
        assert!(undo_all(&all, &scope()).is_empty(), "the namespace is gone");
    });
}

#[test]
fn the_explanation_typed_by_a_person_does_the_same() {
    sandbox(|| {
        let netns = netns("web");
        let mut list = container("web", "172.17.0.2/16");
        let inside = "; ip -n web -d -o link show eth0; ip -n web -o -4 addr; ip -n web route; \
                      bridge -d link | grep -o 'hairpin on'";
        let see = || {
            // The bridge comes up some time after its port.
            sh("for n in $(seq 300); do ip link show stave0 | grep -q 'state UP' && break; sleep 0.01; done");
            let text = picture() + &sh(&inside[2..]);
            // Interface indexes only grow.
            text.split_whitespace()
                .map(|word| word.split_once("@if").map_or(word, |(name, _)| name))
                .filter(|word| word.parse::<u64>().is_err() && !word.ends_with("sec"))
                .filter(|word| !word.trim_end_matches(':').chars().all(|c| c.is_ascii_digit()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        for operation in &mut list {
            operation.apply(&scope()).unwrap();
        }
        let ours = see();
        assert!(undo_all(&list, &scope()).is_empty());
        for operation in &list {
            for line in operation.explain() {
                sh(&line);
            }
        }
        assert_eq!(strip_timers(&see()), strip_timers(&ours));
        assert!(undo_all(&list, &scope()).is_empty(), "known by what was typed");
        netns.undo(&scope()).unwrap();
    });
}

fn strip_timers(text: &str) -> String {
    text.split(' ')
        .filter(|word| !word.contains('.') || word.starts_with("172"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn what_others_made_under_the_same_name_stays() {
    sandbox(|| {
        let netns = netns("web");
        let mut list = container("web", "172.17.0.2/16");
        let veth = veth_name("web", "eth0");
        sh(&format!("ip link add stave0 type bridge; ip link add {veth} type veth peer name other"));
        let before = picture();
        for (at, error) in [
            (0, r#"create link "stave0": File exists"#.to_owned()),
            (1, r#"switch off IPv6 on link "stave0": File exists"#.to_owned()),
            (2, r#"set up on link "stave0": File exists"#.to_owned()),
            (3, r#"add address 172.17.0.1/16 on link "stave0": File exists"#.to_owned()),
            (4, format!(r#"create link "{veth}": File exists"#)),
            (5, format!(r#"switch off IPv6 on link "{veth}": File exists"#)),
            (6, format!(r#"set hairpin on link "{veth}": File exists"#)),
            (7, format!(r#"guard 127.0.0.0/8 on link "{veth}": File exists"#)),
            (10, r#"add address 172.17.0.2/16 on link "eth0" in /run/netns/web: No such device"#.to_owned()),
        ] {
            assert_eq!(list[at].apply(&scope()).unwrap_err().to_string(), error);
        }
        assert!(undo_all(&list, &scope()).is_empty());
        assert!(matches!(list[0].check(&scope()).unwrap(), Condition::Different(_)));
        assert_eq!(picture(), before);
        sh("ip link del stave0");
        let error = list[4].apply(&scope()).unwrap_err().to_string();
        assert_eq!(error, format!(r#"create link "{veth}" on bridge "stave0": No such device"#));
        netns.undo(&scope()).unwrap();
        sh(&format!("ip link del {veth}"));
        list[0].apply(&scope()).unwrap();
        let error = list[4].apply(&scope()).unwrap_err().to_string();
        assert_eq!(error, "enter network namespace in /run/netns/web: No such file or directory");
    });
}

#[test]
fn a_bridge_with_somebody_elses_port_stays() {
    sandbox(|| {
        let (mut bridge, mac) = (bridge(), Mac::derive("", "stave0"));
        let mut up = Op::LinkUp { namespace: None, link: "stave0".into(), mac };
        for operation in [&mut bridge, &mut up] {
            operation.apply(&scope()).unwrap();
            operation.apply(&scope()).unwrap();
        }
        sh(
            "ip link set stave0 down; ip link add tap0 type veth peer name tap1; ip link set tap0 master stave0",
        );
        assert!(matches!(up.check(&scope()).unwrap(), Condition::Missing(_)));
        up.apply(&scope()).unwrap();
        assert_eq!(up.check(&scope()).unwrap(), Condition::Present);
        bridge.undo(&scope()).unwrap();
        assert_eq!(bridge.check(&scope()).unwrap(), Condition::Present);
        sh("ip link del tap0");
        bridge.undo(&scope()).unwrap();
        assert!(Connection::open(None).unwrap().link("stave0").unwrap().is_none());
    });
}

#[test]
fn on_a_users_bridge_only_the_marked_address_goes() {
    sandbox(|| {
        sh("ip link add br0 address 02:00:00:00:00:09 type bridge; ip addr add 10.9.0.1/24 dev br0");
        let add = |address: &str| Op::AddressAdd {
            namespace: None,
            link: "br0".into(),
            mac: None,
            address: address.parse().unwrap(),
            protocol: Some(83),
        };
        assert!(add("10.9.0.1/24").apply(&scope()).is_err());
        add("10.9.0.1/24").undo(&scope()).unwrap();
        let mut ours = add("10.8.0.1/24");
        assert_eq!(ours.explain(), ["ip address add 10.8.0.1/24 broadcast + dev br0"]);
        ours.apply(&scope()).unwrap();
        ours.apply(&scope()).unwrap();
        assert_eq!(ours.check(&scope()).unwrap(), Condition::Present);
        ours.undo(&scope()).unwrap();
        assert_eq!(sh("ip -o -4 addr show dev br0 | grep -c inet").trim(), "1");
    });
}

/// Whatever a document says, undo leaves the objects of other programs alone.
#[test]
fn a_document_that_names_a_foreign_link_address_or_route_changes_nothing() {
    sandbox(|| {
        let netns = netns("web");
        sh(
            "ip link add br0 address 02:11:22:33:44:01 type bridge; ip link add up0 address 02:11:22:33:44:02 type veth peer name up1; \
            ip link set up0 up alias 'stave0 uplink'; ip addr add 10.9.0.1/24 dev up0; \
            ip route add default via 10.9.0.2 dev up0; ip link add o1 address 02:11:22:33:44:03 type veth peer name o2",
        );
        let before = picture();
        let mac = |last| Mac([2, 0x11, 0x22, 0x33, 0x44, last]);
        let marks =
            [None, Some(Mark::new("web", None)), Some(Mark::new("uplink", None)), Some(Mark::new("", None))];
        let mut hostile = Vec::new();
        for mark in marks {
            for (name, mac) in [("br0", mac(1)), ("up0", mac(2)), ("o1", mac(3)), ("lo", Mac([0; 6]))] {
                hostile.push(Op::BridgeAdd { name: name.into(), mac, mark: mark.clone() });
                let peer = Peer { name: "eth0".into(), mac, namespace: "/run/netns/web".into() };
                let (name, master) = (name.into(), "br0".into());
                hostile.push(Op::VethAdd { name, mac, master, mtu: 1500, peer, mark: mark.clone() });
            }
        }
        for protocol in [None, Some(0), Some(3), Some(PROTOCOL)] {
            for address in ["10.9.0.1/24", "10.9.0.1/16"] {
                let (link, address) = ("up0".to_owned(), address.parse().unwrap());
                for mac in [None, Some(mac(2))] {
                    let (link, namespace) = (link.clone(), None);
                    hostile.push(Op::AddressAdd { namespace, link, mac, address, protocol });
                }
            }
            hostile.push(Op::RouteAdd {
                namespace: None,
                destination: "0.0.0.0/0".parse().unwrap(),
                gateway: [10, 9, 0, 2].into(),
                link: "up0".into(),
                mac: mac(2),
                metric: None,
                protocol,
            });
        }
        for operation in &hostile {
            operation.undo(&scope()).unwrap();
            assert_eq!(picture(), before, "{operation:?}");
        }
        netns.undo(&scope()).unwrap();
    });
}

#[test]
fn another_containers_link_of_the_same_name_stays() {
    sandbox(|| {
        let netns = netns("web");
        let mut list = container("web", "172.17.0.2/16");
        list[0].apply(&scope()).unwrap();
        list[4].apply(&scope()).unwrap();
        let Op::VethAdd { name, .. } = &list[4] else { panic!() };
        let link = || Connection::open(None).unwrap().link(name).unwrap();
        assert_eq!(link().unwrap().alias.as_deref(), Some("stave web 0123456789abcdef"));
        let of = |instance| {
            let mut other = list[4].clone();
            if let Op::VethAdd { mark, .. } = &mut other {
                *mark = instance;
            }
            other
        };
        for other in
            [of(None), of(Some(Mark::new("web", Some("fedcba9876543210")))), of(Some(Mark::new("db", None)))]
        {
            other.undo(&scope()).unwrap();
            assert!(link().is_some(), "{other:?}");
        }
        // The bridge is removed although the container's port could not be. With another
        // container's port it stays.
        sh("ip link add tap0 type veth peer name tap1; ip link set tap0 master stave0");
        list[0].undo(&scope()).unwrap();
        assert!(Connection::open(None).unwrap().link("stave0").unwrap().is_some());
        sh("ip link del tap0");
        list[0].undo(&scope()).unwrap();
        assert!(Connection::open(None).unwrap().link("stave0").unwrap().is_none());
        list[4].undo(&scope()).unwrap();
        assert!(link().is_none());
        netns.undo(&scope()).unwrap();
    });
}

/// `ip route flush` removes the route that the kernel added with a bridge's address.
#[test]
fn the_route_of_an_address_is_made_again() {
    sandbox(|| {
        netns("web");
        let mut operations = container("web", "172.17.0.2/16");
        operations.iter_mut().for_each(|operation| operation.apply(&scope()).unwrap());
        // The kernel notices a little later that no port of a bridge is up.
        let routes = || sh("ip route show table all").replace("linkdown ", "");
        let before = routes();
        let address = &mut operations[3];
        assert_eq!(address.check(&scope()).unwrap(), Condition::Present);
        sh("ip route del 172.17.0.0/16 dev stave0");
        let missing = Condition::Missing("route 172.17.0.0/16 of link \"stave0\"".into());
        assert_eq!(address.check(&scope()).unwrap(), missing);
        address.apply(&scope()).unwrap();
        assert_eq!(address.check(&scope()).unwrap(), Condition::Present);
        assert_eq!(routes(), before);
        // A wider policy rule does not make it missing.
        sh("ip rule add pref 7 lookup 100; ip route add default dev stave0 table 100");
        assert_eq!(address.check(&scope()).unwrap(), Condition::Present);
        sh("ip rule del pref 7");
        assert!(undo_all(&operations, &scope()).is_empty());
    });
}
