//! Encodes values as attributes of nf_tables messages (linux/netfilter/nf_tables.h).

use std::net::SocketAddr;

use ipnet::IpNet;
use netlink::{
    attribute::Attribute,
    expression::{
        self, ELEMENT_INTERVAL_END, Expression, LIST_ELEM, META_L4PROTO, NETWORK, SET_CONCAT, SET_INTERVAL,
        TRANSPORT, comment, compare, data, destination_type, expression, following, lookup, mask, meta,
        numbers, octets, payload, register, verdict,
    },
};

use crate::{
    TABLE,
    ruleset::{Chain, Element, Field, Rule, Set, Statement, Type, Value},
};

const SET_MAP: u32 = 8;
/// The first attribute in messages about chains, rules, sets and elements.
const IN_TABLE: u16 = 1;
const NFPROTO_IPV4: u32 = 2;
const NFPROTO_IPV6: u32 = 10;
/// `ct status dnat`: IPS_DST_NAT.
const STATUS_DNAT: u32 = 1 << 5;
/// `ct state invalid,new,untracked`: NF_CT_STATE_INVALID_BIT, NF_CT_STATE_BIT(IP_CT_NEW), NF_CT_STATE_UNTRACKED_BIT.
const STATE_OPENS: u32 = 1 | 1 << 3 | 1 << 6;
/// The protocol number of ICMP, and the type of an echo request (RFC 792, RFC 4443).
const ECHO: (u8, u8) = (1, 8);
const ECHO6: (u8, u8) = (58, 128);
/// `fib daddr type local`: RTN_LOCAL.
const TYPE_LOCAL: u32 = 2;

impl Type {
    /// nft's number of the type.
    fn id(self) -> u32 {
        match self {
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Ifname => 41,
        }
    }

    /// The length in bytes.
    fn length(self) -> u32 {
        match self {
            Self::Ipv4Addr => 4,
            Self::Ipv6Addr => 16,
            Self::InetProto => 1,
            Self::InetService => 2,
            Self::Ifname => 16,
        }
    }
}

/// nft's number of a concatenation: six bits for each type.
fn type_id(types: &[Type]) -> u32 {
    types.iter().fold(0, |id, kind| id << 6 | kind.id())
}

/// The length of a concatenation in bytes. Each part is padded to whole registers of four bytes.
fn padded_length(types: &[Type]) -> u32 {
    types.iter().map(|kind| kind.length().next_multiple_of(4)).sum()
}

pub(crate) fn table() -> Vec<Attribute> {
    vec![Attribute::string(1, TABLE), Attribute::number(2, 0)]
}

pub(crate) fn chain(chain: &Chain) -> Vec<Attribute> {
    let hook = vec![Attribute::number(1, chain.hook as u32), Attribute::number(2, chain.priority.1 as u32)];
    vec![
        Attribute::string(IN_TABLE, TABLE),
        Attribute::string(3, chain.name),
        Attribute::Nested(4, hook),
        Attribute::number(5, 1), // policy accept
        Attribute::string(7, chain.kind),
    ]
}

/// The attributes of a set. `id` identifies the set within its batch.
pub(crate) fn set(set: &Set, id: u32) -> Vec<Attribute> {
    let concatenated = set.interval && set.key.len() > 1;
    let flags = [(set.interval, SET_INTERVAL), (set.data.is_some(), SET_MAP), (concatenated, SET_CONCAT)];
    let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum();
    let mut attributes = named(set.name);
    // The kernel does not dump an empty list.
    if flags != 0 {
        attributes.push(Attribute::number(3, flags));
    }
    attributes.push(Attribute::number(4, type_id(set.key)));
    attributes.push(Attribute::number(5, padded_length(set.key)));
    if let Some(data) = set.data {
        attributes.push(Attribute::number(6, type_id(data)));
        attributes.push(Attribute::number(7, padded_length(data)));
    }
    if concatenated {
        // The kernel looks up a range of a concatenation part by part, so it needs the length of
        // each part.
        let field = |kind: &Type| Attribute::Nested(LIST_ELEM, vec![Attribute::number(1, kind.length())]);
        attributes
            .push(Attribute::Nested(9, vec![Attribute::Nested(2, set.key.iter().map(field).collect())]));
    }
    attributes.push(Attribute::number(10, id));
    attributes
}

pub(crate) fn named(name: &str) -> Vec<Attribute> {
    expression::named(TABLE, name)
}

/// The first and last value of a range, padded to whole registers.
fn range(value: &Value) -> (Vec<u8>, Vec<u8>) {
    let one = |mut bytes: Vec<u8>| {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        (bytes.clone(), bytes)
    };
    match value {
        Value::Address(ip) => one(octets(*ip)),
        Value::Prefix(prefix) => (octets(prefix.network()), octets(prefix.broadcast())),
        Value::Protocol(protocol) => one(vec![*protocol as u8]),
        Value::Port(port) => one(port.to_be_bytes().to_vec()),
        Value::Ports(first, last) => {
            (one(first.to_be_bytes().to_vec()).0, one(last.to_be_bytes().to_vec()).0)
        }
        Value::Interface(name) => {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(Type::Ifname.length() as usize, 0);
            one(bytes)
        }
    }
}

pub(crate) fn first(values: &[Value]) -> Vec<u8> {
    values.iter().flat_map(|value| range(value).0).collect()
}

fn last(values: &[Value]) -> Vec<u8> {
    values.iter().flat_map(|value| range(value).1).collect()
}

/// The list members that encode one element: two for a range of single values, otherwise one.
pub(crate) fn element_members(element: &Element) -> Vec<Attribute> {
    let is_range = element.key.iter().any(|value| matches!(value, Value::Prefix(_) | Value::Ports(..)));
    let mut attributes = vec![data(1, first(&element.key))];
    if is_range && element.key.len() > 1 {
        attributes.push(data(10, last(&element.key)));
    }
    if !element.data.is_empty() {
        attributes.push(data(2, first(&element.data)));
    }
    if let Some(text) = &element.comment {
        attributes.push(Attribute::Bytes(6, comment(text)));
    }
    let mut members = vec![Attribute::Nested(LIST_ELEM, attributes)];
    if is_range && element.key.len() == 1 {
        // The end of the range is the first value after it. A range up to the last address has no
        // end element.
        if let Some(end) = following(last(&element.key)) {
            let attributes = vec![data(1, end), Attribute::number(3, ELEMENT_INTERVAL_END)];
            members.push(Attribute::Nested(LIST_ELEM, attributes));
        }
    }
    members
}

pub(crate) fn elements(element: &Element) -> Vec<Attribute> {
    let mut attributes = named(element.set);
    attributes.push(Attribute::Nested(3, element_members(element)));
    attributes
}

/// An element for a lookup: its key only; for a range, the start.
pub(crate) fn element_to_find(element: &Element) -> Vec<Attribute> {
    let element = Element { data: Vec::new(), comment: None, ..element.clone() };
    let mut attributes = named(element.set);
    attributes.push(Attribute::Nested(3, element_members(&element).into_iter().take(1).collect()));
    attributes
}

/// An element for removal: its key only.
pub(crate) fn element_key(element: &Element) -> Vec<Attribute> {
    elements(&Element { data: Vec::new(), comment: None, ..element.clone() })
}

pub(crate) fn rule(rule: &Rule) -> Vec<Attribute> {
    let mut attributes = in_chain(rule.chain);
    attributes.push(expressions(rule));
    attributes
}

pub(crate) fn in_chain(chain: &str) -> Vec<Attribute> {
    named(chain)
}

/// The attribute with the expressions of a rule.
pub(crate) fn expressions(rule: &Rule) -> Attribute {
    statements(&rule.statements)
}

/// The attribute with the expressions of a rule made of these statements. The table sees both IP
/// versions. So, as in nft, a statement that reads an IP header follows a check of the version.
pub fn statements(statements: &[Statement]) -> Attribute {
    let mut list = Vec::new();
    let mut is_known = false;
    for statement in statements {
        if let (false, Some(version)) = (is_known, statement.version()) {
            list.extend(of_version(version));
            is_known = true;
        }
        list.extend(expressions_of(statement));
        is_known |= matches!(statement, Statement::OfIpv4 | Statement::OfIpv6);
    }
    expression::list(list)
}

fn of_version(version: u32) -> Vec<Expression> {
    let protocol = 15;
    vec![meta(protocol, register(0)), compare(false, &[version as u8])]
}

impl Statement {
    /// The IP version of the header that the statement reads. None if it reads no IP header.
    fn version(&self) -> Option<u32> {
        match self {
            Self::Is { field, .. } => field.version(),
            Self::In { fields, .. } | Self::Dnat { fields, .. } => {
                fields.iter().find_map(|field| field.version())
            }
            Self::EchoRequest { v6: false } | Self::DnatTo(SocketAddr::V4(_)) => Some(NFPROTO_IPV4),
            Self::EchoRequest { v6: true } | Self::DnatTo(SocketAddr::V6(_)) => Some(NFPROTO_IPV6),
            _ => None,
        }
    }
}

impl Field {
    fn version(self) -> Option<u32> {
        match self {
            Self::IpSaddr | Self::IpDaddr => Some(NFPROTO_IPV4),
            Self::Ip6Saddr | Self::Ip6Daddr => Some(NFPROTO_IPV6),
            _ => None,
        }
    }

    fn length(self) -> u32 {
        match self {
            Self::IpSaddr | Self::IpDaddr => 4,
            Self::Ip6Saddr | Self::Ip6Daddr => 16,
            Self::L4Proto => 1,
            Self::ThDport => 2,
            Self::IifName | Self::OifName => 16,
        }
    }

    /// The expression that loads the field into a register.
    fn load(self, into: u32) -> Expression {
        self.load_part(into, self.length())
    }

    /// Like `load`, for the first `length` bytes of a header field.
    fn load_part(self, into: u32, length: u32) -> Expression {
        match self {
            Self::IpSaddr => payload(NETWORK, 12, length, into),
            Self::IpDaddr => payload(NETWORK, 16, length, into),
            Self::Ip6Saddr => payload(NETWORK, 8, length, into),
            Self::Ip6Daddr => payload(NETWORK, 24, length, into),
            Self::ThDport => payload(TRANSPORT, 2, length, into),
            Self::IifName => meta(6, into),
            Self::OifName => meta(7, into),
            Self::L4Proto => meta(META_L4PROTO, into),
        }
    }
}

/// Loads the fields into consecutive registers.
fn load(fields: &[Field]) -> Vec<Expression> {
    load_with(fields, |_, _| None)
}

/// Like [`load`]. After each field, adds the expression that `more` returns for the field and its
/// register.
fn load_with(fields: &[Field], more: impl Fn(Field, u32) -> Option<Expression>) -> Vec<Expression> {
    let mut word = 0;
    let one = |field: &Field| {
        let at = register(word);
        word += field.length().div_ceil(4);
        [Some(field.load(at)), more(*field, at)]
    };
    fields.iter().flat_map(one).flatten().collect()
}

/// Loads the fields for a map of ranges. nft adds a byte-order conversion of the protocol there,
/// which has no effect on a single byte. We add it too, so that our rule equals one that was typed
/// in.
fn load_for_ranges(fields: &[Field]) -> Vec<Expression> {
    const HTON: u32 = 1;
    load_with(fields, |field, at| {
        let turned = || expression("byteorder", numbers([(1, at), (2, at), (3, HTON), (4, 1), (5, 2)]));
        (field == Field::L4Proto).then(turned)
    })
}

/// Whether the connection has one of the bits under this key of `ct`, or with `not`, none of them.
fn connection_has(key: u32, bits: u32, not: bool) -> Vec<Expression> {
    let load = expression("ct", numbers([(2, key), (1, register(0))]));
    vec![load, mask(&bits.to_ne_bytes()), compare(!not, &[0; 4])]
}

/// The IP version of a translation, and the register of the new port. It is the one after the new
/// address, which is in the first registers.
fn nat_registers(v6: bool) -> (u32, u32) {
    if v6 { (NFPROTO_IPV6, register(4)) } else { (NFPROTO_IPV4, register(1)) }
}

/// Whether the address in the field is in the prefix, or with `not`, outside.
fn in_prefix(field: Field, not: bool, prefix: IpNet) -> Vec<Expression> {
    // As in nft: load only the leading whole bytes of the address, or use a mask.
    let address = octets(prefix.network());
    if prefix.prefix_len().is_multiple_of(8) {
        let length = u32::from(prefix.prefix_len() / 8);
        let load = field.load_part(register(0), length);
        return vec![load, compare(not, &address[..length as usize])];
    }
    let mask = mask(&octets(prefix.netmask()));
    [load(&[field]), vec![mask, compare(not, &address)]].concat()
}

/// Translates to what the map has for the fields: an address, and if `port`, a port.
fn dnat_by(map: &str, v6: bool, port: bool, fields: &[Field]) -> Vec<Expression> {
    let lookup = vec![Attribute::string(1, map), Attribute::number(2, 1), Attribute::number(3, 1)];
    let (family, next) = nat_registers(v6);
    let (loaded, nat) = match port {
        true => (load(fields), numbers([(1, 1), (2, family), (3, register(0)), (5, next)])),
        false => (load_for_ranges(fields), numbers([(1, 1), (2, family), (3, register(0))])),
    };
    [loaded, vec![expression("lookup", lookup), expression("nat", nat)]].concat()
}

fn dnat_to(to: SocketAddr) -> Vec<Expression> {
    let (family, next) = nat_registers(to.is_ipv6());
    let value = |into, bytes| expression("immediate", vec![Attribute::number(1, into), data(2, bytes)]);
    vec![
        value(register(0), octets(to.ip())),
        value(next, to.port().to_be_bytes().to_vec()),
        expression("nat", numbers([(1, 1), (2, family), (3, register(0)), (5, next)])),
    ]
}

fn expressions_of(statement: &Statement) -> Vec<Expression> {
    match statement {
        Statement::Is { field, not, value: Value::Prefix(prefix) } => in_prefix(*field, *not, *prefix),
        Statement::Is { field, not, value } => {
            // Without the padding of sets, as in nft.
            let mut bytes = first(std::slice::from_ref(value));
            bytes.truncate(field.length() as usize);
            [load(&[*field]), vec![compare(*not, &bytes)]].concat()
        }
        Statement::In { fields, not, set } => [load(fields), vec![lookup(set, *not)]].concat(),
        Statement::OfIpv4 => of_version(NFPROTO_IPV4),
        Statement::OfIpv6 => of_version(NFPROTO_IPV6),
        Statement::ToThisHost => vec![destination_type(), compare(false, &TYPE_LOCAL.to_ne_bytes())],
        Statement::WasDnat { not } => {
            let status = 2;
            connection_has(status, STATUS_DNAT, *not)
        }
        Statement::OpensConnection => {
            let state = 0;
            connection_has(state, STATE_OPENS, false)
        }
        Statement::Dnat { v6, port, fields, map } => dnat_by(map, *v6, *port, fields),
        Statement::DnatTo(to) => dnat_to(*to),
        Statement::Masquerade => vec![expression("masq", Vec::new())],
        Statement::EchoRequest { v6 } => {
            let (protocol, request) = if *v6 { ECHO6 } else { ECHO };
            let kind = payload(TRANSPORT, 0, 1, register(0));
            vec![
                Field::L4Proto.load(register(0)),
                compare(false, &[protocol]),
                kind,
                compare(false, &[request]),
            ]
        }
        Statement::Accept => vec![verdict(expression::ACCEPT, None)],
        Statement::Drop => vec![verdict(expression::DROP, None)],
    }
}
