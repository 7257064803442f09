//! Encodes values as attributes of nf_tables messages (linux/netfilter/nf_tables.h).

use std::net::IpAddr;

use ipnet::IpNet;
use netlink::{
    attribute::Attribute,
    expression::{
        self, ELEMENT_INTERVAL_END, Expression, LINK, LIST_ELEM, META_L4PROTO, NETWORK, REGISTER_1,
        SET_CONCAT, SET_INTERVAL, TRANSPORT, compare, data, destination_type, expression, following, lookup,
        mask, meta, numbers, octets, payload, register, verdict,
    },
};

use crate::{
    list::Protocol,
    rules::{Chain, Element, Field, Key, Kind, Rule, Set, Statement, Version},
};

const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
/// Keys of `meta`.
const META_PROTOCOL: u32 = 1;
const META_LINK_TYPE: u32 = 8;
/// ARPHRD_ETHER.
const ETHERNET: u16 = 1;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// `fib daddr type`: RTN_UNICAST.
const TYPE_UNICAST: u32 = 1;
const REJECT_RESET: u32 = 1;
const REJECT_ICMPX: u32 = 2;
const ICMPX_ADMIN_PROHIBITED: u8 = 3;
const DYNSET_ADD: u32 = 0;
const DYNSET_UPDATE: u32 = 1;

/// Table flags: the table belongs to the sending socket, and it outlives that socket.
pub(crate) const OWNED: u32 = 2;
pub(crate) const PERSISTENT: u32 = 4;

fn milliseconds(kind: u16, seconds: u64) -> Attribute {
    Attribute::Bytes(kind, (seconds * 1000).to_be_bytes().to_vec())
}

/// The attributes that name a table.
pub(crate) fn table_name(table: &str) -> Vec<Attribute> {
    vec![Attribute::string(1, table)]
}

/// A table with a comment that names its owner.
pub(crate) fn table(table: &str, flags: u32, comment: &str) -> Vec<Attribute> {
    let mut attributes = table_name(table);
    attributes.push(Attribute::number(2, flags));
    attributes.push(Attribute::Bytes(6, described(comment)));
    attributes
}

fn described(text: &str) -> Vec<u8> {
    // An id and an instance are shorter than the limit.
    let text: String = text.chars().take(120).collect();
    expression::comment(&text)
}

/// Whether the table, as the kernel lists it, has this comment.
pub(crate) fn has_comment(table: &[u8], comment: &str) -> bool {
    netlink::attribute::find(table, 6) == Some(&described(comment)[..])
}

/// Whether a socket owns the table, as the kernel lists it: no other socket can remove it (NFTA_TABLE_OWNER).
pub(crate) fn is_owned(table: &[u8]) -> bool {
    netlink::attribute::find(table, 7).is_some()
}

pub(crate) fn chain_name(table: &str, chain: &str) -> Vec<Attribute> {
    vec![Attribute::string(1, table), Attribute::string(3, chain)]
}

pub(crate) fn chain(table: &str, chain: &Chain) -> Vec<Attribute> {
    let mut attributes = chain_name(table, &chain.name);
    if let Some((hook, link)) = &chain.hook {
        let hook =
            vec![Attribute::number(1, *hook as u32), Attribute::number(2, 0), Attribute::string(3, link)];
        attributes.push(Attribute::Nested(4, hook));
        attributes.push(Attribute::number(5, 1)); // policy accept
        attributes.push(Attribute::string(7, "filter"));
    }
    attributes
}

pub(crate) use netlink::expression::named;

impl Version {
    fn length(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// nft's number of the address type.
    fn type_id(self) -> u32 {
        match self {
            Self::V4 => 7,
            Self::V6 => 8,
        }
    }

    fn ether_type(self) -> u16 {
        match self {
            Self::V4 => ETH_P_IP,
            Self::V6 => ETH_P_IPV6,
        }
    }
}

impl Key {
    /// The number of parts after the address: a protocol, and ports.
    fn more(self) -> u32 {
        match self {
            Self::Address => 0,
            Self::Port => 2,
            Self::Flow => 3,
        }
    }
}

/// The attributes of a set. `id` identifies the set within its batch.
pub(crate) fn set(table: &str, set: &Set, id: u32) -> Vec<Attribute> {
    let mut attributes = set_alone(table, set);
    attributes.push(Attribute::number(10, id));
    attributes
}

/// The attributes of a set as the kernel lists them.
pub(crate) fn set_alone(table: &str, set: &Set) -> Vec<Attribute> {
    const INET_PROTO: u32 = 12;
    const INET_SERVICE: u32 = 13;
    let parts = set.key.more();
    let concatenated = parts > 0 && set.kind == Kind::Fixed;
    let flags = match set.kind {
        Kind::Fixed => SET_INTERVAL | if concatenated { SET_CONCAT } else { 0 },
        Kind::Timed(_) => SET_TIMEOUT,
        Kind::Dynamic(_) => SET_TIMEOUT | SET_EVAL,
    };
    let more = [INET_PROTO, INET_SERVICE, INET_SERVICE];
    let type_id = more.iter().take(parts as usize).fold(set.version.type_id(), |id, kind| id << 6 | kind);
    let mut attributes = named(table, set.name);
    attributes.push(Attribute::number(3, flags));
    attributes.push(Attribute::number(4, type_id));
    attributes.push(Attribute::number(5, set.version.length() + 4 * parts));
    if let Kind::Dynamic(size) | Kind::Timed(size) = set.kind {
        attributes.push(Attribute::Nested(9, vec![Attribute::number(1, size)]));
    }
    if concatenated {
        // The kernel looks up a range of a concatenation part by part, so it needs the length of
        // each part.
        let field = |length| Attribute::Nested(LIST_ELEM, vec![Attribute::number(1, length)]);
        let lengths = std::iter::once(set.version.length()).chain((0..parts).map(|_| 4));
        attributes.push(Attribute::Nested(9, vec![Attribute::Nested(2, lengths.map(field).collect())]));
    }
    attributes
}

/// A key. Each part is padded to whole registers of four bytes.
fn key(address: IpAddr, port: Option<(Protocol, u16)>) -> Vec<u8> {
    let mut bytes = octets(address);
    if let Some((protocol, port)) = port {
        bytes.extend([protocol as u8, 0, 0, 0]);
        bytes.extend(port.to_be_bytes());
        bytes.extend([0, 0]);
    }
    bytes
}

/// The attributes of elements of one set.
pub(crate) fn elements(table: &str, set: &Set, elements: &[&Element]) -> Vec<Attribute> {
    let mut attributes = named(table, set.name);
    attributes.push(Attribute::Nested(3, elements.iter().flat_map(|element| members(element)).collect()));
    attributes
}

/// The list members that encode one element: two for a range of single values, otherwise one.
fn members(element: &Element) -> Vec<Attribute> {
    let Element { set, address, port, seconds } = element;
    let mut attributes = vec![data(1, key(address.network(), *port))];
    if set.kind == Kind::Fixed && port.is_some() {
        attributes.push(data(10, key(address.broadcast(), *port)));
    }
    if *seconds > 0 {
        attributes.push(milliseconds(4, *seconds));
    }
    let mut members = vec![Attribute::Nested(LIST_ELEM, attributes)];
    if set.kind == Kind::Fixed && port.is_none() {
        // The end of the range is the first value after it. A range up to the last address has no
        // end element.
        if let Some(end) = following(octets(address.broadcast())) {
            let attributes = vec![data(1, end), Attribute::number(3, ELEMENT_INTERVAL_END)];
            members.push(Attribute::Nested(LIST_ELEM, attributes));
        }
    }
    members
}

/// An element for a lookup: its key only; for a range, the start.
pub(crate) fn element_to_find(table: &str, element: &Element) -> Vec<Attribute> {
    let element = Element { seconds: 0, ..element.clone() };
    let mut attributes = named(table, element.set.name);
    attributes.push(Attribute::Nested(3, members(&element).into_iter().take(1).collect()));
    attributes
}

pub(crate) fn rule(table: &str, rule: &Rule) -> Vec<Attribute> {
    let mut attributes = named(table, &rule.chain);
    attributes.push(expressions(rule));
    attributes
}

/// The attribute with the expressions of a rule.
pub(crate) fn expressions(rule: &Rule) -> Attribute {
    let mut encoder = Encoder::default();
    rule.statements.iter().for_each(|statement| encoder.statement(statement));
    expression::list(encoder.expressions)
}

/// The offset of the destination address in the network header.
fn destination(version: Version) -> u32 {
    match version {
        Version::V4 => 16,
        Version::V6 => 24,
    }
}

/// Writes the expressions of one rule. As in nft, the type of a header is checked once, before the
/// first use of a field of it.
#[derive(Default)]
struct Encoder {
    expressions: Vec<Expression>,
    link_type: bool,
    ether_type: Option<u16>,
    protocol: Option<u8>,
}

impl Encoder {
    fn push(&mut self, expression: Expression) {
        self.expressions.push(expression);
    }

    fn of_ethernet(&mut self) {
        if !std::mem::replace(&mut self.link_type, true) {
            self.push(meta(META_LINK_TYPE, REGISTER_1));
            self.push(compare(false, &ETHERNET.to_ne_bytes()));
        }
    }

    fn of_type(&mut self, ether_type: u16) {
        if self.ether_type.replace(ether_type) != Some(ether_type) {
            self.push(meta(META_PROTOCOL, REGISTER_1));
            self.push(compare(false, &ether_type.to_be_bytes()));
        }
    }

    fn of_protocol(&mut self, protocol: u8) {
        if self.protocol.replace(protocol) != Some(protocol) {
            self.push(meta(META_L4PROTO, REGISTER_1));
            self.push(compare(false, &[protocol]));
        }
    }

    fn address(&mut self, version: Version, is_source: bool, into: u32) {
        self.of_type(version.ether_type());
        let offset = match (version, is_source) {
            (Version::V4, true) => 12,
            (Version::V6, true) => 8,
            (_, false) => destination(version),
        };
        self.push(payload(NETWORK, offset, version.length(), into));
    }

    /// Loads the fields into consecutive registers.
    fn load(&mut self, fields: &[Field]) {
        let mut word = 0;
        for field in fields {
            let into = register(word);
            match field {
                Field::Source(version) => self.address(*version, true, into),
                Field::Destination(version) => self.address(*version, false, into),
                Field::Protocol => self.push(meta(META_L4PROTO, into)),
                Field::SourcePort => self.push(payload(TRANSPORT, 0, 2, into)),
                Field::DestinationPort => self.push(payload(TRANSPORT, 2, 2, into)),
            }
            word += match field {
                Field::Source(version) | Field::Destination(version) => version.length() / 4,
                _ => 1,
            };
        }
    }

    fn dynamic(&mut self, operation: u32, fields: &[Field], set: &str, seconds: u64) {
        self.load(fields);
        let mut attributes = vec![Attribute::string(1, set)];
        attributes.extend(numbers([(3, operation), (4, REGISTER_1)]));
        attributes.push(milliseconds(6, seconds));
        self.push(expression("dynset", attributes));
    }

    fn tcp_flags(&mut self, mask_of: u8) {
        self.of_protocol(Protocol::Tcp as u8);
        self.push(payload(TRANSPORT, 13, 1, REGISTER_1));
        self.push(mask(&[mask_of]));
    }

    fn fragment(&mut self, bits: u16) {
        self.of_type(ETH_P_IP);
        self.push(payload(NETWORK, 6, 2, REGISTER_1));
        self.push(mask(&bits.to_be_bytes()));
        self.push(compare(true, &[0, 0]));
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::EtherType(_, number) => {
                self.of_ethernet();
                self.push(payload(LINK, 12, 2, REGISTER_1));
                self.push(compare(false, &number.to_be_bytes()));
            }
            Statement::NotFrom(mac) => {
                self.of_ethernet();
                self.push(payload(LINK, 6, 6, REGISTER_1));
                self.push(compare(true, &mac.0));
            }
            Statement::ArpSource(address) => {
                self.of_type(ETH_P_ARP);
                self.push(payload(NETWORK, 14, 4, REGISTER_1));
                self.push(compare(false, &address.octets()));
            }
            Statement::Source(address) => {
                self.address(Version::of(*address), true, REGISTER_1);
                self.push(compare(false, &octets(*address)));
            }
            Statement::To(net) => self.to(*net),
            Statement::Version(version) => self.of_type(version.ether_type()),
            Statement::LaterFragment => self.fragment(0x1fff),
            Statement::MoreFragments => self.fragment(0x2000),
            Statement::Protocol(protocol) => self.of_protocol(*protocol as u8),
            Statement::NotToPort(port) => {
                self.of_protocol(Protocol::Tcp as u8);
                self.push(payload(TRANSPORT, 2, 2, REGISTER_1));
                self.push(compare(true, &port.to_be_bytes()));
            }
            Statement::AnyFlag(_, flags) => {
                self.tcp_flags(*flags);
                self.push(compare(true, &[0]));
            }
            Statement::Flags(_, flags, _, set) => {
                self.tcp_flags(*flags);
                self.push(compare(false, &[*set]));
            }
            Statement::Icmp(version, _, kind) => {
                self.of_type(version.ether_type());
                self.of_protocol(if *version == Version::V4 { ICMP } else { ICMPV6 });
                self.push(payload(TRANSPORT, 0, 1, REGISTER_1));
                self.push(compare(false, &[*kind]));
            }
            statement => self.effect(statement),
        }
    }

    /// As in nft: compare only the leading whole bytes of the address, or use a mask.
    fn to(&mut self, net: IpNet) {
        self.address(Version::of(net.addr()), false, REGISTER_1);
        let first = octets(net.network());
        if net.prefix_len() < net.max_prefix_len() {
            if net.prefix_len().is_multiple_of(8) {
                let length = u32::from(net.prefix_len() / 8);
                self.expressions.pop();
                self.push(payload(NETWORK, destination(Version::of(net.addr())), length, REGISTER_1));
                return self.push(compare(false, &first[..length as usize]));
            }
            self.push(mask(&octets(net.netmask())));
        }
        self.push(compare(false, &first));
    }

    /// Encodes set statements and verdicts.
    fn effect(&mut self, statement: &Statement) {
        match statement {
            Statement::NotElsewhere => {
                self.push(destination_type());
                self.push(compare(true, &TYPE_UNICAST.to_ne_bytes()));
            }
            Statement::In { fields, not, set } => {
                self.load(fields);
                self.push(lookup(set, *not));
            }
            Statement::Update { fields, set, seconds } => self.dynamic(DYNSET_UPDATE, fields, set, *seconds),
            Statement::Add { fields, set, seconds } => self.dynamic(DYNSET_ADD, fields, set, *seconds),
            Statement::Log(group) => {
                self.push(expression("log", vec![Attribute::Bytes(1, group.to_be_bytes().to_vec())]));
            }
            Statement::Accept => self.push(verdict(expression::ACCEPT, None)),
            Statement::Drop => self.push(verdict(expression::DROP, None)),
            Statement::Goto(chain) => self.push(verdict(expression::GOTO, Some(chain))),
            Statement::Reset => self.push(expression("reject", numbers([(1, REJECT_RESET)]))),
            Statement::Prohibit => {
                let code = Attribute::Bytes(2, vec![ICMPX_ADMIN_PROHIBITED]);
                self.push(expression("reject", vec![Attribute::number(1, REJECT_ICMPX), code]));
            }
            _ => {}
        }
    }
}
