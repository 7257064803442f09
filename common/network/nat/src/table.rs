//! The content of the table `inet stave`, and the reasons for it.

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

/// The name of the table. Its family is `inet`, so everything about addresses exists twice, once
/// for each IP version.
pub const TABLE: &str = netlink::netfilter::OWN_TABLE;

/// Ports published on all addresses of the host.
pub(crate) const PUBLISHED: Set = Set {
    name: "published",
    key: &[InetProto, InetService],
    data: Some(&[Ipv4Addr, InetService]),
    interval: false,
};

/// Like [`PUBLISHED`], for IPv6.
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

/// Like [`PUBLISHED_AT`], for IPv6.
pub(crate) const PUBLISHED_AT6: Set = Set {
    name: "published_at6",
    key: &[Ipv6Addr, InetProto, InetService],
    data: Some(&[Ipv6Addr, InetService]),
    interval: false,
};

/// Port ranges published on all addresses of the host. Each port has the same number in the
/// container, so a range is one element.
pub(crate) const RANGES: Set =
    Set { name: "ranges", key: &[InetProto, InetService], data: Some(&[Ipv4Addr]), interval: true };

/// Like [`RANGES`], for IPv6.
pub(crate) const RANGES6: Set =
    Set { name: "ranges6", key: &[InetProto, InetService], data: Some(&[Ipv6Addr]), interval: true };

/// Port ranges published on one address of the host.
pub(crate) const RANGES_AT: Set = Set {
    name: "ranges_at",
    key: &[Ipv4Addr, InetProto, InetService],
    data: Some(&[Ipv4Addr]),
    interval: true,
};

/// Like [`RANGES_AT`], for IPv6.
pub(crate) const RANGES_AT6: Set = Set {
    name: "ranges_at6",
    key: &[Ipv6Addr, InetProto, InetService],
    data: Some(&[Ipv6Addr]),
    interval: true,
};

/// Each bridge with its subnet, and with 127.0.0.0/8: sources that need no masquerade when they
/// leave by that bridge, unless their destination was translated.
pub(crate) const BRIDGES: Set = Set { name: "bridges", key: &[Ipv4Addr, Ifname], data: None, interval: true };

/// Like [`BRIDGES`], for IPv6, with ::1.
pub(crate) const BRIDGES6: Set =
    Set { name: "bridges6", key: &[Ipv6Addr, Ifname], data: None, interval: true };

/// The subnets whose packets are masqueraded.
pub(crate) const SUBNETS: Set = Set { name: "subnets", key: &[Ipv4Addr], data: None, interval: true };

/// Like [`SUBNETS`], for IPv6.
pub(crate) const SUBNETS6: Set = Set { name: "subnets6", key: &[Ipv6Addr], data: None, interval: true };

/// Each bridge, paired with itself: packets that arrive and leave by the same bridge. (In a set of
/// interface names only, nft shows the names only if nft made the set.)
pub(crate) const SAME_BRIDGE: Set =
    Set { name: "same_bridge", key: &[Ifname, Ifname], data: None, interval: false };

/// Each bridge whose containers are reached by their own addresses, paired with itself.
pub(crate) const ROUTED: Set = Set { name: "routed", key: &[Ifname, Ifname], data: None, interval: false };

/// Each internal bridge, paired with itself.
pub(crate) const INTERNAL: Set =
    Set { name: "internal", key: &[Ifname, Ifname], data: None, interval: false };

/// Each bridge whose containers are isolated from each other, paired with itself.
pub(crate) const ISOLATED: Set =
    Set { name: "isolated", key: &[Ifname, Ifname], data: None, interval: false };

/// Ports that are open on containers' own addresses.
pub(crate) const OPEN: Set =
    Set { name: "open", key: &[Ipv4Addr, InetProto, InetService], data: None, interval: false };

/// Like [`OPEN`], for IPv6.
pub(crate) const OPEN6: Set =
    Set { name: "open6", key: &[Ipv6Addr, InetProto, InetService], data: None, interval: false };

/// Ports that a container reaches through a link, where its bridge isolates containers: the
/// container's address, the other one's, protocol and port.
pub(crate) const LINKED: Set =
    Set { name: "linked", key: &[Ipv4Addr, Ipv4Addr, InetProto, InetService], data: None, interval: false };

/// Like [`LINKED`], for IPv6.
pub(crate) const LINKED6: Set =
    Set { name: "linked6", key: &[Ipv6Addr, Ipv6Addr, InetProto, InetService], data: None, interval: false };

/// Which container uses which bridge: the bridge, and the link that attaches the container to it.
pub(crate) const USERS: Set = Set { name: "users", key: &[Ifname, Ifname], data: None, interval: false };

/// Which container has which address.
pub(crate) const ADDRESSES: Set = Set { name: "addresses", key: &[Ipv4Addr], data: None, interval: false };

/// Like [`ADDRESSES`], for IPv6.
pub(crate) const ADDRESSES6: Set = Set { name: "addresses6", key: &[Ipv6Addr], data: None, interval: false };

pub(crate) const SETS: [&Set; 23] = [
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
    &LINKED,
    &LINKED6,
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

/// The incoming interface, as the pair that the sets of bridges have as key. `OUT` is the same for
/// the outgoing one.
const IN: &[Field] = &[IifName, IifName];
const OUT: &[Field] = &[OifName, OifName];

/// The loopback addresses: 127.0.0.0/8, or ::1.
fn loopback(v6: bool) -> Value {
    Value::Prefix(match v6 {
        false => IpNet::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        true => IpNet::new_assert(std::net::Ipv6Addr::LOCALHOST.into(), 128),
    })
}

/// The sets and fields of one IP version.
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
    linked: &'static Set,
    /// The fields of the key of `published_at` and `open`.
    to_port: &'static [Field],
    /// The fields of the key of `bridges`.
    from_by: &'static [Field],
    from: &'static [Field],
    /// The fields of the key of `linked`.
    between: &'static [Field],
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
    linked: &LINKED,
    to_port: &[IpDaddr, L4Proto, ThDport],
    from_by: &[IpSaddr, OifName],
    from: &[IpSaddr],
    between: &[IpSaddr, IpDaddr, L4Proto, ThDport],
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
    linked: &LINKED6,
    to_port: &[Ip6Daddr, L4Proto, ThDport],
    from_by: &[Ip6Saddr, OifName],
    from: &[Ip6Saddr],
    between: &[Ip6Saddr, Ip6Daddr, L4Proto, ThDport],
};

fn version(address: IpAddr) -> &'static Version {
    if address.is_ipv4() { &V4 } else { &V6 }
}

/// For each IP version, whether the host did not forward before our first network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

/// All rules. A host that did not forward before (`closed`) forwards for our bridges only.
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

/// Drops packets from a wire to or from loopback addresses.
///
/// 127.0.0.1 needs route_localnet to reach a container. But route_localnet would also let
/// neighbours on the bridge reach services on this host's loopback (CVE-2020-8558). DNAT comes
/// before the kernel's own check for martians, so a port published only on 127.0.0.1 would be open
/// to everybody on the same wire. No legitimate packet on a wire has such an address: answers to
/// our own packets are translated back only after this hook. (The kernel drops packets from a wire
/// to ::1 before it.)
fn martians() -> Vec<Rule> {
    let from_elsewhere = || Statement::Is { field: IifName, not: true, value: Value::Interface("lo".into()) };
    let loopback = |field| Statement::Is { field, not: false, value: loopback(false) };
    let drops = |field| rule("martians", &[from_elsewhere(), loopback(field), Statement::Drop]);
    vec![drops(IpDaddr), drops(IpSaddr)]
}

/// The rules for published ports.
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
        // Only this host exchanges packets with an internal network. Frames within the network do
        // not pass here, unless br_netfilter sends them.
        rule("forward", &[among(OUT, &INTERNAL, false), crosses(), Statement::Drop]),
        rule("forward", &[among(IN, &INTERNAL, false), crosses(), Statement::Drop]),
    ];
    for version in [&V4, &V6] {
        // A link opens the other container's ports, and nothing else. Answers belong to a connection.
        let linked = among(version.between, version.linked, false);
        rules.push(rule(
            "forward",
            &[among(&[IifName, OifName], &ISOLATED, false), linked, Statement::Accept],
        ));
    }
    // The bridge keeps isolated ports apart. But a container could send a packet for its
    // neighbour to the bridge's own address, and the host would forward it.
    rules.push(rule("forward", &[&[among(&[IifName, OifName], &ISOLATED, false)][..], &opens()].concat()));
    for version in [&V4, &V6] {
        // Containers on a routed bridge answer on their own addresses, for published ports and for ping.
        rules.push(rule("forward", &[among(version.to_port, version.open, false), Statement::Accept]));
        let ping = Statement::EchoRequest { v6: version.v6 };
        rules.push(rule("forward", &[among(OUT, &ROUTED, false), ping, Statement::Accept]));
    }
    // A host that routes to one of our subnets, be it a neighbour on the host's network or another
    // bridge of ours, can open connections to a container only by a published port, whose
    // destination was translated. A port published on 127.0.0.1 is not open to a neighbour that
    // sends to the container's own address. The host's own packets do not pass this chain.
    rules.push(rule("forward", &[&[among(OUT, &SAME_BRIDGE, false), crosses()][..], &opens()].concat()));
    rules
}

/// The rules for packets that get another source address.
fn sources(version: &Version) -> [Rule; 2] {
    [
        // A container that reaches itself or a sibling by a published port must get the answer from
        // the host. Otherwise the answer would come directly, from an unexpected source. The same
        // holds for the host's own 127.0.0.1.
        rule(
            "postrouting",
            &[
                Statement::WasDnat { not: false },
                among(version.from_by, version.bridges, false),
                Statement::Masquerade,
            ],
        ),
        // Masquerade packets that leave a subnet, except to its own bridge.
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

/// Drops packets of this IP version that neither come from one of our bridges nor go to one. Where
/// we switched forwarding on, the host must not become a router between its other networks.
pub(crate) fn closing(of: Statement) -> Rule {
    let mut rule = closing_all();
    rule.statements.insert(0, of);
    rule
}

/// Like [`closing`], for all packets, as in the table of family `ip` of versions before 0.2.
pub(crate) fn closing_all() -> Rule {
    rule("forward", &[among(IN, &SAME_BRIDGE, true), among(OUT, &SAME_BRIDGE, true), Statement::Drop])
}

/// The elements of a bridge.
pub(crate) fn bridge_elements(bridge: &str, subnets: &[IpNet], mode: Mode) -> Vec<Element> {
    if mode.unguarded {
        return mode.elements(bridge, subnets);
    }
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

/// The element of a masqueraded subnet.
pub(crate) fn subnet_element(subnet: IpNet) -> Element {
    let set = version(subnet.addr()).subnets.name;
    Element { set, key: vec![Value::Prefix(subnet.trunc())], data: Vec::new(), comment: None }
}

/// The element that claims a container's address.
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

/// The element for a port that the container at `from` reaches through a link. It has no holder,
/// because the steps of both containers may add it.
pub(crate) fn linked_element(from: IpAddr, to: &OpenPort) -> Element {
    let key = vec![
        Value::Address(from),
        Value::Address(to.container_ip),
        Value::Protocol(to.protocol),
        Value::Port(to.container_port),
    ];
    Element { set: version(from).linked.name, key, data: Vec::new(), comment: None }
}

/// The element for a published port or port range.
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
