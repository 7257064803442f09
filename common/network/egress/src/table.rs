//! The content of a container's table, and the reasons for it.
//!
//! The chains are hooked to the container's link on the host's side: below bridges, routes and
//! address translation, and out of the container's reach. So one list covers everything that leaves
//! the container, including packets to its neighbours on the bridge, which the rules for forwarded
//! packets never see. Packets of other containers do not pass the table. There is no connection
//! tracking at this hook, so the table itself remembers the connections.

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

/// The timeout of idle TCP connections, in seconds. It is that of the kernel's connection tracking,
/// so no connection ends here earlier than there.
const CONNECTED: u64 = 432_000;
/// The timeout of connections that begin or end, and of UDP, in seconds.
const BRIEF: u64 = 60;
const UDP: u64 = 180;
/// The timeout for the later fragments of a packet, and for the answer to a ping, in seconds.
const REST: u64 = 10;
/// The shortest time between two logs of the same packet, in seconds.
const LOGGED: u64 = 60;

/// The maximum number of remembered connections and addresses. A container must not fill the host's
/// memory with requests.
const CONNECTIONS: u32 = 65_536;
const ADDRESSES: u32 = 65_536;
const FEW: u32 = 4096;

/// The TCP ports of name servers. They are open only if they are listed with the port.
const NAME_SERVERS: [u16; 2] = [53, 853];

const FIN_RST: Statement = Statement::AnyFlag("fin,rst", 0x05);
const RST: Statement = Statement::AnyFlag("rst", 0x04);
const SYN_ONLY: Statement = Statement::Flags("syn | ack", 0x12, "syn", 0x02);

/// The parameters of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table<'a> {
    pub(crate) links: &'a [Link],
    pub(crate) allow: &'a [Entry],
    /// The log group.
    pub(crate) group: u16,
    /// Whether everything passes and is only logged.
    pub(crate) learn: bool,
}

/// The sets of one IP version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sets {
    /// Listed addresses, without a port and with one.
    nets: Set,
    netports: Set,
    /// Addresses of listed names from DNS answers, without a port and with one.
    pub(crate) hosts: Set,
    pub(crate) hostports: Set,
    /// Connections with a host that has answered the container, or has opened the connection.
    flows: Set,
    /// Connections that are being closed.
    closing: Set,
    /// Hosts that have sent a ping to the container.
    pinged: Set,
    /// The destinations of fragmented packets whose first fragment passed.
    fragments: Set,
    /// What was logged recently.
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

/// The names of the chains of one IP version.
struct Names {
    /// Packets from the container.
    out: &'static str,
    /// Packets that belong to a connection, or may open one.
    pass: &'static str,
    /// Packets to reject.
    deny: &'static str,
    /// Packets to the container.
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
    /// The IP versions that the container has an address of.
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

    /// The listed addresses. An entry within another one is left out, because ranges must not
    /// overlap.
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

    /// The rules for packets from and to a link of the container.
    fn of_link(&self, rules: &mut Rules, at: usize, link: &Link) {
        let (from, to) = (hooked("from", at), hooked("to", at));
        // A tagged frame would be checked like its content, but leave to another network.
        rules.add(&from, [Statement::EtherType("8021q", 0x8100), Statement::Drop]);
        rules.add(&from, [Statement::EtherType("8021ad", 0x88a8), Statement::Drop]);
        // Only the container's own addresses: with a neighbour's address it could get around this
        // list.
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

    /// The rules for packets from the container.
    fn out(&self, rules: &mut Rules, version: Version) {
        let (sets, Names { out, pass, deny, .. }) = (Sets::of(version), Names::of(version));
        let to = || vec![Destination(version)];
        let flow = || vec![Destination(version), Field::Protocol, DestinationPort, SourcePort];
        let within = |fields, set: Set| Statement::In { fields, not: false, set: set.name };
        let known = |seconds| Statement::Update { fields: flow(), set: sets.flows.name, seconds };
        let ending = || Statement::Update { fields: flow(), set: sets.closing.name, seconds: BRIEF };
        if version == Version::V4 {
            // A later fragment has no ports. It may go where the first one went.
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
        // The answer to a name opens neither this host nor a broadcast or multicast address,
        // whatever addresses these are by now.
        rules.add(out, [Statement::NotElsewhere, Statement::Goto(deny)]);
        rules.add(out, [within(port(), sets.hostports), Statement::Goto(pass)]);
        anything(rules, sets.hosts);
        rules.add(out, [Statement::Goto(deny)]);
    }

    /// The rules for packets that pass. The first fragment of a packet lets the others pass.
    fn pass(&self, rules: &mut Rules, version: Version) {
        let (sets, pass) = (Sets::of(version), Names::of(version).pass);
        if version == Version::V4 {
            let fields = vec![Destination(version)];
            let open = Statement::Update { fields, set: sets.fragments.name, seconds: REST };
            rules.add(pass, [Statement::MoreFragments, open, Statement::Accept]);
        }
        rules.add(pass, [Statement::Accept]);
    }

    /// The rules for packets on no list: they are logged at intervals, and rejected, so that the
    /// sender is told at once.
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

/// Lets neighbor discovery and group membership messages pass (RFC 4861, RFC 3810), on the link
/// only.
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

/// The rules for packets to the container. They always pass. The container may answer their
/// senders.
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
    // These include our own resets of rejected packets, which must not open anything.
    rules.add(chain, [RST, Statement::Accept]);
    // The last packets of a connection that is closed must not open a new one.
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

/// The name of a chain of the link with this index.
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
