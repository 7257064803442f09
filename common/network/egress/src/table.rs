//! The table of a container: its content, and the reasons.
//!
//! Its chains are at the container's own link, on the host's side: below bridges, routes and translation, and out of the
//! container's reach. So one list counts for everything that leaves the container, also for its neighbours on the bridge, whom
//! the rules for forwarded packets never see. And no other packet of the host passes it. There is no connection tracking at that
//! place, so the table remembers by itself who has answered.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use crate::{
    list::{Entry, Port, Protocol, Target},
    operation::Link,
    rules::{
        Chain, Element,
        Field::{self, Destination, DestinationPort, Source, SourcePort},
        Hook, Key, Kind, Rule, Set, Statement, Version,
    },
};

/// How long the kernel's connection tracking keeps an idle connection, in seconds. Nothing ends here that would go on there.
const CONNECTED: u64 = 432_000;
/// How long it keeps one that begins or ends, and one of UDP.
const BRIEF: u64 = 60;
const UDP: u64 = 180;
/// How long the rest of a packet may come after its beginning, and the answer after a ping.
const REST: u64 = 10;
/// How often the same is logged at most.
const LOGGED: u64 = 60;

/// The most connections at a time that are remembered, and the most addresses: a container must not fill the host's memory by
/// what it asks for.
const CONNECTIONS: u32 = 65_536;
const ADDRESSES: u32 = 65_536;
const FEW: u32 = 4096;

/// The ports of name servers, by TCP. They are open where they are listed with the port.
const NAME_SERVERS: [u16; 2] = [53, 853];

const FIN_RST: Statement = Statement::AnyFlag("fin,rst", 0x05);
const RST: Statement = Statement::AnyFlag("rst", 0x04);
const SYN_ONLY: Statement = Statement::Flags("syn | ack", 0x12, "syn", 0x02);

/// What a table is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table<'a> {
    pub(crate) links: &'a [Link],
    pub(crate) allow: &'a [Entry],
    /// The group for what is logged.
    pub(crate) group: u16,
    /// Whether everything passes, and is logged.
    pub(crate) learn: bool,
}

/// The names of a version's sets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sets {
    /// Listed addresses, without a port and with one.
    nets: Set,
    netports: Set,
    /// Addresses of listed names, as they were answered, without a port and with one.
    pub(crate) hosts: Set,
    pub(crate) hostports: Set,
    /// Who has answered the container, or asked it.
    flows: Set,
    /// Connections of these that are coming to their end.
    closing: Set,
    /// Who has sent a ping to the container.
    pinged: Set,
    /// Where the beginning of a fragmented packet went.
    fragments: Set,
    /// What was logged of late.
    logged: Set,
}

impl Sets {
    pub(crate) const fn of(version: Version) -> Self {
        macro_rules! set {
            ($name:literal, $key:expr, $kind:expr) => {
                Set {
                    name: match version {
                        Version::V4 => concat!($name, "4"),
                        Version::V6 => concat!($name, "6"),
                    },
                    version,
                    key: $key,
                    kind: $kind,
                }
            };
        }
        Self {
            nets: set!("nets", Key::Address, Kind::Fixed),
            netports: set!("netports", Key::Port, Kind::Fixed),
            hosts: set!("hosts", Key::Address, Kind::Timed(ADDRESSES)),
            hostports: set!("hostports", Key::Port, Kind::Timed(ADDRESSES)),
            flows: set!("flows", Key::Flow, Kind::Dynamic(CONNECTIONS)),
            closing: set!("closing", Key::Flow, Kind::Dynamic(CONNECTIONS)),
            pinged: set!("pinged", Key::Address, Kind::Dynamic(FEW)),
            fragments: set!("fragments", Key::Address, Kind::Dynamic(FEW)),
            logged: set!("logged", Key::Port, Kind::Dynamic(FEW)),
        }
    }

    fn all(self) -> [Set; 9] {
        let Self { nets, netports, hosts, hostports, flows, closing, pinged, fragments, logged } = self;
        [nets, netports, hosts, hostports, flows, closing, pinged, fragments, logged]
    }
}

/// The names of a version's chains.
struct Names {
    /// What the container sends.
    out: &'static str,
    /// What belongs to a connection, or begins one that may be.
    pass: &'static str,
    /// What may not be.
    deny: &'static str,
    /// What the container gets.
    back: &'static str,
}

impl Names {
    fn of(version: Version) -> Self {
        match version {
            Version::V4 => Self { out: "out4", pass: "pass4", deny: "deny4", back: "back4" },
            Version::V6 => Self { out: "out6", pass: "pass6", deny: "deny6", back: "back6" },
        }
    }
}

impl Table<'_> {
    /// The versions that the container has an address of.
    pub(crate) fn versions(&self) -> impl Iterator<Item = Version> {
        let addresses = || self.links.iter().flat_map(|link| &link.addresses).map(IpNet::addr);
        Version::ALL.into_iter().filter(move |version| addresses().any(|ip| Version::of(ip) == *version))
    }

    pub(crate) fn sets(&self) -> Vec<Set> {
        self.versions().flat_map(|version| Sets::of(version).all()).collect()
    }

    pub(crate) fn chains(&self) -> Vec<Chain> {
        let plain = |name: &str| Chain { name: name.to_owned(), hook: None };
        let of_version = |version| {
            let Names { out, pass, deny, back } = Names::of(version);
            [out, pass, deny, back].map(plain)
        };
        let of_link = |(at, link): (usize, &Link)| {
            let hook = |name, hook| Chain { name: hooked(name, at), hook: Some((hook, link.name.clone())) };
            [hook("from", Hook::Ingress), hook("to", Hook::Egress)]
        };
        self.versions().flat_map(of_version).chain(self.links.iter().enumerate().flat_map(of_link)).collect()
    }

    pub(crate) fn rules(&self) -> Vec<Rule> {
        let mut rules = Rules::default();
        for version in self.versions() {
            self.pass(&mut rules, version);
            self.deny(&mut rules, version);
            self.out(&mut rules, version);
            back(&mut rules, version);
        }
        for (at, link) in self.links.iter().enumerate() {
            self.of_link(&mut rules, at, link);
        }
        rules.0
    }

    /// The listed addresses. Those that another one covers are left out, because ranges must not overlap.
    pub(crate) fn elements(&self) -> Vec<Element> {
        let listed = |wanted: Option<Port>| {
            let nets = self.allow.iter().filter_map(move |entry| match entry.target {
                Target::Addresses(net) if entry.port == wanted => Some(net),
                _ => None,
            });
            IpNet::aggregate(&nets.collect())
        };
        let mut ports: Vec<Option<Port>> = Vec::new();
        for entry in self.allow {
            if !ports.contains(&entry.port) {
                ports.push(entry.port);
            }
        }
        let versions: Vec<_> = self.versions().collect();
        let element = |port: Option<Port>, address: IpNet| {
            let version = Version::of(address.addr());
            let sets = Sets::of(version);
            let set = if port.is_some() { sets.netports } else { sets.nets };
            let port = port.map(|port| (port.protocol, port.number));
            versions.contains(&version).then_some(Element { set, address, port, seconds: 0 })
        };
        ports
            .into_iter()
            .flat_map(|port| listed(port).into_iter().filter_map(move |net| element(port, net)))
            .collect()
    }

    /// What comes from the container's link, and what goes to it.
    fn of_link(&self, rules: &mut Rules, at: usize, link: &Link) {
        let (from, to) = (hooked("from", at), hooked("to", at));
        // A tagged frame would be looked at as what is in it, and leave by another network.
        rules.add(&from, [Statement::EtherType("8021q", 0x8100), Statement::Drop]);
        rules.add(&from, [Statement::EtherType("8021ad", 0x88a8), Statement::Drop]);
        // Nobody else's: a neighbour's address would be a way around this list.
        rules.add(&from, [Statement::NotFrom(link.mac), Statement::Drop]);
        for net in &link.addresses {
            if let IpNet::V6(_) = net {
                neighbours(rules, &from, *net);
            }
        }
        for net in &link.addresses {
            let out = Names::of(Version::of(net.addr())).out;
            rules.add(&from, [Statement::Source(net.addr()), Statement::Goto(out)]);
        }
        for net in &link.addresses {
            if let IpNet::V4(net) = net {
                rules.add(&from, [Statement::ArpSource(net.addr()), Statement::Accept]);
            }
        }
        rules.add(&from, [Statement::Drop]);
        for version in self.versions() {
            rules.add(&to, [Statement::Version(version), Statement::Goto(Names::of(version).back)]);
        }
    }

    /// What the container sends.
    fn out(&self, rules: &mut Rules, version: Version) {
        let (sets, Names { out, pass, deny, .. }) = (Sets::of(version), Names::of(version));
        let to = || vec![Destination(version)];
        let flow = || vec![Destination(version), Field::Protocol, DestinationPort, SourcePort];
        let within = |fields, set: Set| Statement::In { fields, not: false, set: set.name };
        let known = |seconds| Statement::Update { fields: flow(), set: sets.flows.name, seconds };
        let ending = || Statement::Update { fields: flow(), set: sets.closing.name, seconds: BRIEF };
        if version == Version::V4 {
            // It has no ports: it may go where its beginning went.
            rules.add(out, [Statement::LaterFragment, within(to(), sets.fragments), Statement::Accept]);
            rules.add(out, [Statement::LaterFragment, Statement::Drop]);
        }
        rules.add(out, [within(flow(), sets.flows), FIN_RST, known(BRIEF), ending(), Statement::Goto(pass)]);
        rules.add(out, [within(flow(), sets.flows), Statement::Goto(pass)]);
        let (request, reply) = ping(version);
        rules.add(out, [reply, within(to(), sets.pinged), Statement::Accept]);
        let port = || vec![Destination(version), Field::Protocol, DestinationPort];
        let anything = |rules: &mut Rules, set: Set| {
            let [dns, dot] = NAME_SERVERS.map(Statement::NotToPort);
            rules.add(out, [dns, dot, within(to(), set), Statement::Goto(pass)]);
            rules.add(out, [request.clone(), within(to(), set), Statement::Goto(pass)]);
        };
        rules.add(out, [within(port(), sets.netports), Statement::Goto(pass)]);
        anything(rules, sets.nets);
        // A name's answer opens neither this host nor a group, whatever addresses it has by now.
        rules.add(out, [Statement::NotElsewhere, Statement::Goto(deny)]);
        rules.add(out, [within(port(), sets.hostports), Statement::Goto(pass)]);
        anything(rules, sets.hosts);
        rules.add(out, [Statement::Goto(deny)]);
    }

    /// What passes. A large packet's beginning opens the way for the rest of it.
    fn pass(&self, rules: &mut Rules, version: Version) {
        let (sets, pass) = (Sets::of(version), Names::of(version).pass);
        if version == Version::V4 {
            let fields = vec![Destination(version)];
            let open = Statement::Update { fields, set: sets.fragments.name, seconds: REST };
            rules.add(pass, [Statement::MoreFragments, open, Statement::Accept]);
        }
        rules.add(pass, [Statement::Accept]);
    }

    /// What is on no list: it is logged, once in a while, and its sender hears at once.
    fn deny(&self, rules: &mut Rules, version: Version) {
        let (sets, Names { deny, pass, .. }) = (Sets::of(version), Names::of(version));
        let port = || vec![Destination(version), Field::Protocol, DestinationPort];
        let new = Statement::In { fields: port(), not: true, set: sets.logged.name };
        let note = Statement::Add { fields: port(), set: sets.logged.name, seconds: LOGGED };
        rules.add(deny, [new, note, Statement::Log(self.group)]);
        if self.learn {
            rules.add(deny, [Statement::Goto(pass)]);
            return;
        }
        rules.add(deny, [Statement::Protocol(Protocol::Tcp), Statement::Reset]);
        rules.add(deny, [Statement::Prohibit]);
    }
}

/// Neighbours are found and told, and groups are joined (RFC 4861, RFC 3810): on the link, and nowhere else.
fn neighbours(rules: &mut Rules, from: &str, own: IpNet) {
    let net = |first, length| Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), length).into();
    let on_link: [IpNet; 3] = [net(0xff02, 16), net(0xfe80, 10), own.trunc()];
    for (name, kind) in
        [("nd-neighbor-solicit", 135), ("nd-neighbor-advert", 136), ("mld2-listener-report", 143)]
    {
        for to in on_link {
            rules.add(from, [Statement::Icmp(Version::V6, name, kind), Statement::To(to), Statement::Accept]);
        }
    }
}

/// What the container gets. It is not held up here, whatever it is; who sends it may be answered.
fn back(rules: &mut Rules, version: Version) {
    let (sets, chain) = (Sets::of(version), Names::of(version).back);
    let flow = || vec![Source(version), Field::Protocol, SourcePort, DestinationPort];
    let within = |set: Set| Statement::In { fields: flow(), not: false, set: set.name };
    let update = |set: Set, seconds| Statement::Update { fields: flow(), set: set.name, seconds };
    if version == Version::V4 {
        rules.add(chain, [Statement::LaterFragment, Statement::Accept]);
    }
    rules.add(
        chain,
        [
            FIN_RST,
            within(sets.flows),
            update(sets.flows, BRIEF),
            update(sets.closing, BRIEF),
            Statement::Accept,
        ],
    );
    // Among these are our own, to what was rejected: they open nothing.
    rules.add(chain, [RST, Statement::Accept]);
    // A connection that ends does not become a new one by the last of its packets.
    rules.add(
        chain,
        [
            Statement::Protocol(Protocol::Tcp),
            within(sets.closing),
            update(sets.closing, BRIEF),
            update(sets.flows, BRIEF),
            Statement::Accept,
        ],
    );
    let begin = Statement::Add { fields: flow(), set: sets.flows.name, seconds: BRIEF };
    rules.add(chain, [SYN_ONLY, begin, Statement::Accept]);
    for (protocol, seconds) in [(Protocol::Tcp, CONNECTED), (Protocol::Udp, UDP), (Protocol::Sctp, CONNECTED)]
    {
        rules.add(chain, [Statement::Protocol(protocol), update(sets.flows, seconds), Statement::Accept]);
    }
    let (request, _) = ping(version);
    let from = Statement::Update { fields: vec![Source(version)], set: sets.pinged.name, seconds: REST };
    rules.add(chain, [request, from, Statement::Accept]);
}

/// A ping, and its answer (RFC 792, RFC 4443).
fn ping(version: Version) -> (Statement, Statement) {
    match version {
        Version::V4 => {
            (Statement::Icmp(version, "echo-request", 8), Statement::Icmp(version, "echo-reply", 0))
        }
        Version::V6 => {
            (Statement::Icmp(version, "echo-request", 128), Statement::Icmp(version, "echo-reply", 129))
        }
    }
}

/// The name of a chain of the link at this place.
fn hooked(name: &str, at: usize) -> String {
    if at == 0 { name.to_owned() } else { format!("{name}{at}") }
}

#[derive(Default)]
struct Rules(Vec<Rule>);

impl Rules {
    fn add<const N: usize>(&mut self, chain: &str, statements: [Statement; N]) {
        self.0.push(Rule { chain: chain.to_owned(), statements: statements.to_vec() });
    }
}
