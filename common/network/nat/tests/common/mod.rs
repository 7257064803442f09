//! A network namespace for each test, and operations for it.

#![allow(dead_code)] // Each test uses a part of it.

use nat::{Mapping, Mode, NatOperation as Nat, User};
use nix::sched::CloneFlags;
use operation::Scope;
pub(crate) use testkit::sh;

pub(crate) fn scope() -> Scope {
    Scope { root: "/run/root".into(), run_dir: "/run/stave".into() }
}

pub(crate) fn sandbox(work: impl FnOnce() + Send) {
    testkit::apart(CloneFlags::CLONE_NEWNET, work);
}

pub(crate) fn bridge(name: &str, subnet: &str) -> Nat {
    Nat::Bridge {
        bridge: name.into(),
        subnet: subnet.parse().unwrap(),
        user: None,
        subnet6: None,
        closed: false,
        closed6: false,
        mode: Mode::default(),
    }
}

/// The bridge as the container `holder` uses it, with its claims below this run directory.
pub(crate) fn used(name: &str, subnet: &str, holder: &str, run_dir: &str) -> Nat {
    let claims = format!("{run_dir}/shared/bridge-{name}").into();
    let user = User { holder: holder.into(), mark: None, link: format!("v{holder}"), claims };
    Nat::Bridge {
        bridge: name.into(),
        subnet: subnet.parse().unwrap(),
        user: Some(user),
        subnet6: None,
        closed: false,
        closed6: false,
        mode: Mode::default(),
    }
}

pub(crate) fn mapping(spec: &str) -> Mapping {
    let [protocol, host_ip, host_port, container_ip, container_port] =
        spec.split(' ').collect::<Vec<_>>().try_into().unwrap();
    Mapping {
        protocol: protocol.parse().unwrap(),
        host_ip: (host_ip != "*").then(|| host_ip.parse().unwrap()),
        host_port: host_port.parse().unwrap(),
        container_ip: container_ip.parse().unwrap(),
        container_port: container_port.parse().unwrap(),
        count: 1,
    }
}

pub(crate) fn publish(holder: &str, mappings: &[&str]) -> Nat {
    Nat::Publish { holder: holder.into(), mappings: mappings.iter().map(|spec| mapping(spec)).collect() }
}

pub(crate) fn example() -> Vec<Nat> {
    let mut dual = used("stave0", "172.17.0.0/16", "web", "/run/stave");
    let Nat::Bridge { subnet6, .. } = &mut dual else { panic!() };
    *subnet6 = "fd00:17::/64".parse().ok();
    let address6 = "fd00:17::2".parse().unwrap();
    vec![
        dual,
        Nat::Address { address: address6, holder: "web".into(), instead_of: None },
        publish("web", &["tcp * 10080 fd00:17::2 80", "udp fd00:9::1 10443 fd00:17::2 443"]),
        bridge("br1", "172.18.0.0/16"),
        Nat::Address { address: [172, 17, 0, 2].into(), holder: "web".into(), instead_of: None },
        publish(
            "web",
            &[
                "tcp * 10080 172.17.0.2 80",
                "udp * 10053 172.17.0.2 53",
                "tcp 127.0.0.1 10443 172.17.0.2 443",
                "sctp * 7 172.18.0.2 7",
            ],
        ),
    ]
}

/// A bridge without masquerade, as the container `holder` uses it.
pub(crate) fn routed(holder: &str) -> Nat {
    let mut bridge = used("r0", "10.5.0.0/24", holder, "/run/stave");
    let Nat::Bridge { mode, .. } = &mut bridge else { panic!() };
    *mode = Mode { routed: true, ..Mode::default() };
    bridge
}
