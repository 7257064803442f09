//! The table `inet stave`: its content, and the reasons.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    Mapping, Mode, OpenPort,
    mode::of_bridge,
    ruleset::{
        Chain, Element,
        Field::{self, IifName, Ip6Daddr, Ip6Saddr, IpDaddr, IpSaddr, L4Proto, OifName, ThDport},
        Hook, Rule, Set, Statement,
        Type::{Ifname, InetProto, InetService, Ipv4Addr, Ipv6Addr},
        Value,
    },
};

/// The table's name. Its family is `inet`: what is about addresses stands there twice, for each version of IP.
pub const TABLE: &str = netlink::netfilter::OWN_TABLE;

/// Ports published on all addresses of the host.
pub(crate) const PUBLISHED: Set = Set {
    name: "published",
    key: &[InetProto, InetService],
    data: Some(&[Ipv4Addr, InetService]),
    interval: false,
};

/// The same of IPv6.
pub(crate) const PUBLISHED6: Set = Set {
    name: "published6",
    key: &[InetProto, InetService],
    data: Some(&[Ipv6Addr, InetService]),
    interval: false,
};

/// Ports published on one address of the host.
pub(crate) const PUBLISHED_AT: Set = Set {
    name: "published_at",
    key: &[Ipv4Addr, InetProto, InetService],
    data: Some(&[Ipv4Addr, InetService]),
    interval: false,
};

/// The same of IPv6.
pub(crate) const PUBLISHED_AT6: Set = Set {
    name: "published_at6",
    key: &[Ipv6Addr, InetProto, InetService],
    data: Some(&[Ipv6Addr, InetService]),
    interval: false,
};

/// Runs of ports published on all addresses of the host, each with the same number in the container: one element each.
pub(crate) const RANGES: Set =
    Set { name: "ranges", key: &[InetProto, InetService], data: Some(&[Ipv4Addr]), interval: true };

/// The same of IPv6.
pub(crate) const RANGES6: Set =
    Set { name: "ranges6", key: &[InetProto, InetService], data: Some(&[Ipv6Addr]), interval: true };

/// Runs of ports published on one address of the host.
pub(crate) const RANGES_AT: Set = Set {
    name: "ranges_at",
    key: &[Ipv4Addr, InetProto, InetService],
    data: Some(&[Ipv4Addr]),
    interval: true,
};

/// The same of IPv6.
pub(crate) const RANGES_AT6: Set = Set {
    name: "ranges_at6",
    key: &[Ipv6Addr, InetProto, InetService],
    data: Some(&[Ipv6Addr]),
    interval: true,
};

/// Each bridge with its subnet, and with 127.0.0.0/8: sources that need no masquerade when they leave by that bridge,
/// unless their destination was translated.
pub(crate) const BRIDGES: Set = Set { name: "bridges", key: &[Ipv4Addr, Ifname], data: None, interval: true };

/// The same of IPv6, with ::1.
pub(crate) const BRIDGES6: Set =
    Set { name: "bridges6", key: &[Ipv6Addr, Ifname], data: None, interval: true };

/// The subnets of all bridges whose packets get the host's address.
pub(crate) const SUBNETS: Set = Set { name: "subnets", key: &[Ipv4Addr], data: None, interval: true };

/// The same of IPv6.
pub(crate) const SUBNETS6: Set = Set { name: "subnets6", key: &[Ipv6Addr], data: None, interval: true };

/// Each bridge with itself: packets that come in and leave by the same bridge. (nft shows the names in a set of only
/// names only if it made the set itself.)
pub(crate) const SAME_BRIDGE: Set =
    Set { name: "same_bridge", key: &[Ifname, Ifname], data: None, interval: false };

/// Each bridge whose containers are reached by their own addresses, with itself.
pub(crate) const ROUTED: Set = Set { name: "routed", key: &[Ifname, Ifname], data: None, interval: false };

/// Each bridge that no way leads out of, with itself.
pub(crate) const INTERNAL: Set =
    Set { name: "internal", key: &[Ifname, Ifname], data: None, interval: false };

/// Each bridge whose containers do not reach each other, with itself.
pub(crate) const ISOLATED: Set =
    Set { name: "isolated", key: &[Ifname, Ifname], data: None, interval: false };

/// The ports of containers that are open on their own addresses.
pub(crate) const OPEN: Set =
    Set { name: "open", key: &[Ipv4Addr, InetProto, InetService], data: None, interval: false };

/// The same of IPv6.
pub(crate) const OPEN6: Set =
    Set { name: "open6", key: &[Ipv6Addr, InetProto, InetService], data: None, interval: false };

/// Which container uses which bridge: the bridge, and the link by which the container hangs on it.
pub(crate) const USERS: Set = Set { name: "users", key: &[Ifname, Ifname], data: None, interval: false };

/// Which container has which address.
pub(crate) const ADDRESSES: Set = Set { name: "addresses", key: &[Ipv4Addr], data: None, interval: false };

/// The same of IPv6.
pub(crate) const ADDRESSES6: Set = Set { name: "addresses6", key: &[Ipv6Addr], data: None, interval: false };

pub(crate) const SETS: [&Set; 21] = [
    &PUBLISHED,
    &PUBLISHED6,
    &PUBLISHED_AT,
    &PUBLISHED_AT6,
    &RANGES,
    &RANGES6,
    &RANGES_AT,
    &RANGES_AT6,
    &BRIDGES,
    &BRIDGES6,
    &SUBNETS,
    &SUBNETS6,
    &SAME_BRIDGE,
    &ROUTED,
    &INTERNAL,
    &ISOLATED,
    &OPEN,
    &OPEN6,
    &USERS,
    &ADDRESSES,
    &ADDRESSES6,
];

pub(crate) const CHAINS: [Chain; 5] = [
    Chain { name: "martians", kind: "filter", hook: Hook::Prerouting, priority: ("raw", -300) },
    Chain { name: "prerouting", kind: "nat", hook: Hook::Prerouting, priority: ("dstnat", -100) },
    Chain { name: "forward", kind: "filter", hook: Hook::Forward, priority: ("filter", 0) },
    Chain { name: "output", kind: "nat", hook: Hook::Output, priority: ("-100", -100) },
    Chain { name: "postrouting", kind: "nat", hook: Hook::Postrouting, priority: ("srcnat", 100) },
];

/// The interface by which a packet comes in, and that by which it leaves: twice, as the key of a set of bridges.
const IN: &[Field] = &[IifName, IifName];
const OUT: &[Field] = &[OifName, OifName];

/// The addresses of this host alone: 127.0.0.0/8, or ::1.
fn loopback(v6: bool) -> Value {
    Value::Prefix(match v6 {
        false => IpNet::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        true => IpNet::new_assert(std::net::Ipv6Addr::LOCALHOST.into(), 128),
    })
}

/// The sets and fields of one version of IP.
struct Version {
    v6: bool,
    published: &'static Set,
    published_at: &'static Set,
    ranges: &'static Set,
    ranges_at: &'static Set,
    bridges: &'static Set,
    subnets: &'static Set,
    open: &'static Set,
    addresses: &'static Set,
    /// What `published_at` and `open` look at.
    to_port: &'static [Field],
    /// What `bridges` looks at.
    from_by: &'static [Field],
    from: &'static [Field],
}

const V4: Version = Version {
    v6: false,
    published: &PUBLISHED,
    published_at: &PUBLISHED_AT,
    ranges: &RANGES,
    ranges_at: &RANGES_AT,
    bridges: &BRIDGES,
    subnets: &SUBNETS,
    open: &OPEN,
    addresses: &ADDRESSES,
    to_port: &[IpDaddr, L4Proto, ThDport],
    from_by: &[IpSaddr, OifName],
    from: &[IpSaddr],
};

const V6: Version = Version {
    v6: true,
    published: &PUBLISHED6,
    published_at: &PUBLISHED_AT6,
    ranges: &RANGES6,
    ranges_at: &RANGES_AT6,
    bridges: &BRIDGES6,
    subnets: &SUBNETS6,
    open: &OPEN6,
    addresses: &ADDRESSES6,
    to_port: &[Ip6Daddr, L4Proto, ThDport],
    from_by: &[Ip6Saddr, OifName],
    from: &[Ip6Saddr],
};

fn version(address: IpAddr) -> &'static Version {
    if address.is_ipv4() { &V4 } else { &V6 }
}

/// Whether a host forwarded nothing before our first network, for each version of IP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

/// The rules. A host that forwarded nothing before ours (`closed`) forwards for nobody else.
pub(crate) fn rules(closed: Closed) -> Vec<Rule> {
    let mut rules = martians();
    rules.extend(translations("prerouting"));
    rules.extend(forward());
    rules.extend(translations("output"));
    rules.extend([&V4, &V6].into_iter().flat_map(sources));
    rules.extend(closed.v4.then(|| closing(Statement::OfIpv4)));
    rules.extend(closed.v6.then(|| closing(Statement::OfIpv6)));
    rules
}

fn rule(chain: &'static str, statements: &[Statement]) -> Rule {
    Rule { chain, statements: statements.to_vec() }
}

fn among(fields: &'static [Field], set: &Set, not: bool) -> Statement {
    Statement::In { fields, not, set: set.name }
}

/// 127.0.0.1 needs route_localnet to reach a container. But route_localnet would also let the neighbours on the bridge talk to
/// services on this host's loopback (CVE-2020-8558). DNAT comes before the kernel's own check for martians, so a port published
/// only on 127.0.0.1 would be open to everybody on the same wire. No packet from a wire has such an address: answers to our own
/// are translated back only after this hook. (The kernel drops packets from a wire to ::1 before it.)
fn martians() -> Vec<Rule> {
    let from_elsewhere = || Statement::Is { field: IifName, not: true, value: Value::Interface("lo".into()) };
    let loopback = |field| Statement::Is { field, not: false, value: loopback(false) };
    let drops = |field| rule("martians", &[from_elsewhere(), loopback(field), Statement::Drop]);
    vec![drops(IpDaddr), drops(IpSaddr)]
}

/// Published ports.
fn translations(chain: &'static str) -> Vec<Rule> {
    let to = |v6, fields, map: &Set| {
        let port = map.data.is_some_and(|data| data.len() > 1);
        rule(chain, &[Statement::ToThisHost, Statement::Dnat { v6, port, fields, map: map.name }])
    };
    let both = [&V4, &V6].into_iter();
    both.flat_map(|version| {
        [
            to(version.v6, version.to_port, version.published_at),
            to(version.v6, &[L4Proto, ThDport], version.published),
            to(version.v6, version.to_port, version.ranges_at),
            to(version.v6, &[L4Proto, ThDport], version.ranges),
        ]
    })
    .collect()
}

fn forward() -> Vec<Rule> {
    let crosses = || among(&[IifName, OifName], &SAME_BRIDGE, true);
    let opens = || [Statement::WasDnat { not: true }, Statement::OpensConnection, Statement::Drop];
    let mut rules = vec![
        // Nothing comes into an internal network, or out of it, but from this host. Frames within it do not come here, unless
        // br_netfilter sends them.
        rule("forward", &[among(OUT, &INTERNAL, false), crosses(), Statement::Drop]),
        rule("forward", &[among(IN, &INTERNAL, false), crosses(), Statement::Drop]),
        // The bridge keeps ports apart that are isolated. But a container could send to the bridge what is for its neighbour, and
        // the host would forward it.
        rule("forward", &[&[among(&[IifName, OifName], &ISOLATED, false)][..], &opens()].concat()),
    ];
    for version in [&V4, &V6] {
        // Containers on a routed bridge answer on their own addresses, for published ports and for ping.
        rules.push(rule("forward", &[among(version.to_port, version.open, false), Statement::Accept]));
        let ping = Statement::EchoRequest { v6: version.v6 };
        rules.push(rule("forward", &[among(OUT, &ROUTED, false), ping, Statement::Accept]));
    }
    // Whoever routes to a subnet of ours, a neighbour on the host's wire or another of our bridges, opens no connection
    // to a container but by a published port: its destination was translated. A port published on 127.0.0.1 is not
    // open to a neighbour that sends to the container's own address. The host's own packets do not come here.
    rules.push(rule("forward", &[&[among(OUT, &SAME_BRIDGE, false), crosses()][..], &opens()].concat()));
    rules
}

/// Which packets get another source.
fn sources(version: &Version) -> [Rule; 2] {
    [
        // A container that reaches itself or a sibling by a published port must get the answer from the host. Otherwise
        // the answer would come directly, from an unknown sender. The same holds for the host's own 127.0.0.1.
        rule(
            "postrouting",
            &[
                Statement::WasDnat { not: false },
                among(version.from_by, version.bridges, false),
                Statement::Masquerade,
            ],
        ),
        // Packets that leave a subnet, except to its own bridge, get the host's address.
        rule(
            "postrouting",
            &[
                among(version.from, version.subnets, false),
                among(version.from_by, version.bridges, true),
                Statement::Masquerade,
            ],
        ),
    ]
}

/// Packets of this version of IP that neither come from one of our bridges nor go to one are dropped: where we switched forwarding
/// on, the host does not become a router between its other networks.
pub(crate) fn closing(of: Statement) -> Rule {
    let mut rule = closing_all();
    rule.statements.insert(0, of);
    rule
}

/// The same for all packets, as in the table of family `ip` of versions before 0.2.
pub(crate) fn closing_all() -> Rule {
    rule("forward", &[among(IN, &SAME_BRIDGE, true), among(OUT, &SAME_BRIDGE, true), Statement::Drop])
}

/// The elements for a bridge.
pub(crate) fn bridge_elements(bridge: &str, subnets: &[IpNet], mode: Mode) -> Vec<Element> {
    let mut elements = Vec::new();
    for subnet in subnets {
        let version = version(subnet.addr());
        for prefix in [Value::Prefix(subnet.trunc()), loopback(version.v6)] {
            let key = vec![prefix, Value::Interface(bridge.to_owned())];
            elements.push(Element { set: version.bridges.name, key, data: Vec::new(), comment: None });
        }
    }
    elements.extend(mode.elements(bridge, subnets));
    elements.push(of_bridge(&SAME_BRIDGE, bridge));
    elements
}

/// The element of a subnet whose packets get the host's address.
pub(crate) fn subnet_element(subnet: IpNet) -> Element {
    let set = version(subnet.addr()).subnets.name;
    Element { set, key: vec![Value::Prefix(subnet.trunc())], data: Vec::new(), comment: None }
}

/// The element that stands for a container's address.
pub(crate) fn address_element(address: IpAddr, holder: &str) -> Element {
    let key = vec![Value::Address(address)];
    Element { set: version(address).addresses.name, key, data: Vec::new(), comment: Some(holder.to_owned()) }
}

/// The element for a port that is open on the container's own address.
pub(crate) fn open_element(port: &OpenPort, holder: &str) -> Element {
    let key = vec![
        Value::Address(port.container_ip),
        Value::Protocol(port.protocol),
        Value::Port(port.container_port),
    ];
    Element {
        set: version(port.container_ip).open.name,
        key,
        data: Vec::new(),
        comment: Some(holder.to_owned()),
    }
}

/// The element for a published port, or a run of them.
pub(crate) fn mapping_element(mapping: &Mapping, holder: &str) -> Element {
    let version = version(mapping.container_ip);
    let to = Value::Address(mapping.container_ip);
    let (port, on_all, on_one, data) = match mapping.count {
        1 => {
            let data = vec![to, Value::Port(mapping.container_port)];
            (Value::Port(mapping.host_port), version.published, version.published_at, data)
        }
        _ => (Value::Ports(mapping.host_port, mapping.last()), version.ranges, version.ranges_at, vec![to]),
    };
    let port = [Value::Protocol(mapping.protocol), port];
    let (set, key) = match mapping.host_ip {
        None => (on_all.name, port.to_vec()),
        Some(address) => (on_one.name, [&[Value::Address(address)], &port[..]].concat()),
    };
    Element { set, key, data, comment: Some(holder.to_owned()) }
}
