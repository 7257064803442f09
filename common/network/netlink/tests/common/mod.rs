//! A network namespace for each test, and operations for it.

#![allow(dead_code)] // Each test uses a part of it.

use std::path::PathBuf;

use netlink::{LinkOperation as Op, Mac, Mark, PROTOCOL, Peer, veth_name};
use nix::sched::CloneFlags;
use operation::{Operation, Scope};
pub(crate) use testkit::sh;

pub(crate) fn scope() -> Scope {
    Scope { root: "/run/root".into(), run_dir: "/run/stave".into() }
}

/// Runs `work` on a thread with its own network, an empty `/run`, and the `/proc/sys/net` of that
/// network.
pub(crate) fn sandbox(work: impl FnOnce() + Send) {
    testkit::apart(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET, work);
}

pub(crate) fn picture() -> String {
    // The indices, and whether an IPv6 address is still tentative, differ between runs.
    sh("ip -d -o link | cut -d: -f2-; ip -4 -o addr; ip route show table all | grep -v fe80 || true; \
        sysctl net.ipv4.ip_forward; find /run | sort")
}

pub(crate) fn netns(name: &str) -> netns::NetnsOperation {
    let mut netns = netns::NetnsOperation::new(format!("/run/netns/{name}"), name);
    netns.apply(&scope()).unwrap();
    netns
}

pub(crate) fn bridge() -> Op {
    Op::BridgeAdd {
        name: "stave0".into(),
        mac: Mac::derive("", "stave0"),
        mark: Some(Mark::new("web", Some("0123456789abcdef"))),
    }
}

/// The link operations of netns-bridge and veth-pair, for the container `id` with this address.
pub(crate) fn container(id: &str, address: &str) -> Vec<Op> {
    let (name, mac, inside) = (veth_name(id, "eth0"), Mac::derive(id, "host"), Mac::derive(id, "eth0"));
    let namespace = PathBuf::from(format!("/run/netns/{id}"));
    let peer = Peer { name: "eth0".into(), mac: inside, namespace: namespace.clone() };
    vec![
        bridge(),
        Op::Ipv6Off { namespace: None, link: "stave0".into(), mac: Mac::derive("", "stave0") },
        Op::LinkUp { namespace: None, link: "stave0".into(), mac: Mac::derive("", "stave0") },
        Op::AddressAdd {
            namespace: None,
            link: "stave0".into(),
            mac: Some(Mac::derive("", "stave0")),
            address: "172.17.0.1/16".parse().unwrap(),
            protocol: Some(PROTOCOL),
        },
        Op::VethAdd {
            name: name.clone(),
            mac,
            master: "stave0".into(),
            mtu: 1400,
            peer,
            mark: Some(Mark::new(id, Some("0123456789abcdef"))),
        },
        Op::Ipv6Off { namespace: None, link: name.clone(), mac },
        Op::Hairpin { link: name.clone(), mac },
        Op::GuardLoopback { link: name.clone(), mac, bridge: "stave0".into() },
        Op::LinkUp { namespace: None, link: name, mac },
        Op::LinkUp { namespace: Some(namespace.clone()), link: "eth0".into(), mac: inside },
        Op::AddressAdd {
            namespace: Some(namespace.clone()),
            link: "eth0".into(),
            mac: Some(inside),
            address: address.parse().unwrap(),
            protocol: Some(PROTOCOL),
        },
        Op::RouteAdd {
            namespace: Some(namespace),
            destination: "0.0.0.0/0".parse().unwrap(),
            gateway: [172, 17, 0, 1].into(),
            link: "eth0".into(),
            mac: inside,
            metric: None,
            protocol: Some(PROTOCOL),
        },
    ]
}
