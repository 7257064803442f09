//! The table `ip stave`: its content, and the reasons.

use ipnet::Ipv4Net;

use crate::{
    Mapping, Mode, OpenPort,
    mode::of_bridge,
    ruleset::{
        Chain, Element,
        Field::{self, IifName, IpDaddr, IpSaddr, L4Proto, OifName, ThDport},
        Hook, Rule, Set, Statement,
        Type::{Ifname, InetProto, InetService, Ipv4Addr},
        Value,
    },
};

/// The table's name. Its family is `ip`.
pub const TABLE: &str = netlink::netfilter::OWN_TABLE;

/// Ports published on all addresses of the host.
pub(crate) const PUBLISHED: Set = Set {
    name: "published",
    key: &[InetProto, InetService],
    data: Some(&[Ipv4Addr, InetService]),
    interval: false,
};

/// Ports published on one address of the host.
pub(crate) const PUBLISHED_AT: Set = Set {
    name: "published_at",
    key: &[Ipv4Addr, InetProto, InetService],
    data: Some(&[Ipv4Addr, InetService]),
    interval: false,
};

/// Each bridge with its subnet, and with 127.0.0.0/8: sources that need no masquerade when they leave by that bridge,
/// unless their destination was translated.
pub(crate) const BRIDGES: Set = Set { name: "bridges", key: &[Ipv4Addr, Ifname], data: None, interval: true };

/// The subnets of all bridges.
pub(crate) const SUBNETS: Set = Set { name: "subnets", key: &[Ipv4Addr], data: None, interval: true };

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

/// Which container uses which bridge: the bridge, and the link by which the container hangs on it.
pub(crate) const USERS: Set = Set { name: "users", key: &[Ifname, Ifname], data: None, interval: false };

/// Which container has which address.
pub(crate) const ADDRESSES: Set = Set { name: "addresses", key: &[Ipv4Addr], data: None, interval: false };

pub(crate) const SETS: [&Set; 11] = [
    &PUBLISHED,
    &PUBLISHED_AT,
    &BRIDGES,
    &SUBNETS,
    &SAME_BRIDGE,
    &ROUTED,
    &INTERNAL,
    &ISOLATED,
    &OPEN,
    &USERS,
    &ADDRESSES,
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

/// 127.0.0.0/8.
fn loopback() -> Value {
    Value::Prefix(Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8))
}

/// The rules. A host that forwarded nothing before ours (`closed`) forwards for nobody else.
pub(crate) fn rules(closed: bool) -> Vec<Rule> {
    let rule = |chain, statements: &[Statement]| Rule { chain, statements: statements.to_vec() };
    let in_bridges = |not| Statement::In { fields: &[IpSaddr, OifName], not, set: BRIDGES.name };
    let from_elsewhere = Statement::Is { field: IifName, not: true, value: Value::Interface("lo".into()) };
    let loopback = |field| Statement::Is { field, not: false, value: loopback() };
    let one_address = Statement::Dnat { fields: &[IpDaddr, L4Proto, ThDport], map: PUBLISHED_AT.name };
    let bridge = |fields: &'static [Field], not| Statement::In { fields, not, set: SAME_BRIDGE.name };
    let both_ways = |fields: &'static [Field], set| Statement::In { fields, not: false, set };
    let any_address = Statement::Dnat { fields: &[L4Proto, ThDport], map: PUBLISHED.name };
    let mut rules = vec![
        // 127.0.0.1 needs route_localnet to reach a container. But route_localnet would also let the neighbours on the
        // bridge talk to services on this host's loopback (CVE-2020-8558). DNAT comes before the kernel's own check for
        // martians, so a port published only on 127.0.0.1 would be open to everybody on the same wire. No packet from a
        // wire has such an address: answers to our own are translated back only after this hook.
        rule("martians", &[from_elsewhere.clone(), loopback(IpDaddr), Statement::Drop]),
        rule("martians", &[from_elsewhere, loopback(IpSaddr), Statement::Drop]),
        rule("prerouting", &[Statement::ToThisHost, one_address.clone()]),
        rule("prerouting", &[Statement::ToThisHost, any_address.clone()]),
        // Nothing comes into an internal network, or out of it, but from this host. Frames within it do not come here, unless
        // br_netfilter sends them.
        rule("forward", &[both_ways(OUT, INTERNAL.name), bridge(&[IifName, OifName], true), Statement::Drop]),
        rule("forward", &[both_ways(IN, INTERNAL.name), bridge(&[IifName, OifName], true), Statement::Drop]),
        // The bridge keeps ports apart that are isolated. But a container could send to the bridge what is for its neighbour, and
        // the host would forward it.
        rule(
            "forward",
            &[
                both_ways(&[IifName, OifName], ISOLATED.name),
                Statement::WasDnat { not: true },
                Statement::OpensConnection,
                Statement::Drop,
            ],
        ),
        // Containers on a routed bridge answer on their own addresses, for published ports and for ping.
        rule(
            "forward",
            &[
                Statement::In { fields: &[IpDaddr, L4Proto, ThDport], not: false, set: OPEN.name },
                Statement::Accept,
            ],
        ),
        rule(
            "forward",
            &[
                Statement::In { fields: &[OifName, OifName], not: false, set: ROUTED.name },
                Statement::EchoRequest,
                Statement::Accept,
            ],
        ),
        // Whoever routes to a subnet of ours, a neighbour on the host's wire or another of our bridges, opens no connection
        // to a container but by a published port: its destination was translated. A port published on 127.0.0.1 is not
        // open to a neighbour that sends to the container's own address. The host's own packets do not come here.
        rule(
            "forward",
            &[
                bridge(&[OifName, OifName], false),
                bridge(&[IifName, OifName], true),
                Statement::WasDnat { not: true },
                Statement::OpensConnection,
                Statement::Drop,
            ],
        ),
        rule("output", &[Statement::ToThisHost, one_address]),
        rule("output", &[Statement::ToThisHost, any_address]),
        // A container that reaches itself or a sibling by a published port must get the answer from the host. Otherwise
        // the answer would come directly, from an unknown sender. The same holds for the host's own 127.0.0.1.
        rule("postrouting", &[Statement::WasDnat { not: false }, in_bridges(false), Statement::Masquerade]),
        // Packets that leave a subnet, except to its own bridge, get the host's address.
        rule(
            "postrouting",
            &[
                Statement::In { fields: &[IpSaddr], not: false, set: SUBNETS.name },
                in_bridges(true),
                Statement::Masquerade,
            ],
        ),
    ];
    rules.extend(closed.then(closing));
    rules
}

/// Packets that neither come from one of our bridges nor go to one are dropped: where we switched ip_forward on, the host
/// does not become a router between its other networks.
pub(crate) fn closing() -> Rule {
    let of_ours = |fields| Statement::In { fields, not: true, set: SAME_BRIDGE.name };
    let statements = vec![of_ours(&[IifName, IifName]), of_ours(&[OifName, OifName]), Statement::Drop];
    Rule { chain: "forward", statements }
}

/// The elements for a bridge.
pub(crate) fn bridge_elements(bridge: &str, subnet: Ipv4Net, mode: Mode) -> Vec<Element> {
    let on_bridge = |prefix| {
        let key = vec![prefix, Value::Interface(bridge.to_owned())];
        Element { set: BRIDGES.name, key, data: Vec::new(), comment: None }
    };
    let mut elements = vec![on_bridge(Value::Prefix(subnet.trunc())), on_bridge(loopback())];
    elements.extend(mode.elements(bridge, subnet));
    elements.push(of_bridge(&SAME_BRIDGE, bridge));
    elements
}

/// The element for a port that is open on the container's own address.
pub(crate) fn open_element(port: &OpenPort, holder: &str) -> Element {
    let key = vec![
        Value::Address(port.container_ip),
        Value::Protocol(port.protocol),
        Value::Port(port.container_port),
    ];
    Element { set: OPEN.name, key, data: Vec::new(), comment: Some(holder.to_owned()) }
}

/// The element for a published port.
pub(crate) fn mapping_element(mapping: &Mapping, holder: &str) -> Element {
    let port = [Value::Protocol(mapping.protocol), Value::Port(mapping.host_port)];
    let (set, key) = match mapping.host_ip {
        None => (PUBLISHED.name, port.to_vec()),
        Some(address) => (PUBLISHED_AT.name, [&[Value::Address(address)], &port[..]].concat()),
    };
    Element {
        set,
        key,
        data: vec![Value::Address(mapping.container_ip), Value::Port(mapping.container_port)],
        comment: Some(holder.to_owned()),
    }
}
