//! The types of a ruleset. `Display` writes them in nft syntax.

use std::{
    fmt::{self, Display},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use crate::Protocol;

/// The type of one part of a key or a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are nft's.
pub enum Type {
    Ipv4Addr,
    Ipv6Addr,
    InetProto,
    InetService,
    Ifname,
}

/// A set. With `data` it is a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// The types of the concatenated key.
    pub key: &'static [Type],
    /// The types of the map's values. None for a set.
    pub data: Option<&'static [Type]>,
    /// Whether its elements are ranges.
    pub interval: bool,
}

/// A part of an element's key or value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Value {
    Address(IpAddr),
    Prefix(IpNet),
    Protocol(Protocol),
    Port(u16),
    Ports(u16, u16),
    Interface(String),
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The set's name.
    pub set: &'static str,
    /// The key, one value for each of its types.
    pub key: Vec<Value>,
    /// The value. Empty in a set.
    pub data: Vec<Value>,
    /// The id of the container that the element belongs to.
    pub comment: Option<String>,
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// The hook.
    pub hook: Hook,
    /// The name of the priority, and its number.
    pub priority: (&'static str, i32),
}

/// An inet hook (linux/netfilter.h, `enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A header field of a packet, or its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Field {
    IpSaddr,
    IpDaddr,
    Ip6Saddr,
    Ip6Daddr,
    L4Proto,
    ThDport,
    IifName,
    OifName,
}

/// A statement of a rule. The next statement is evaluated only if this one matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// The field has this value, or with `not`, another one.
    Is {
        /// The field.
        field: Field,
        /// Negates the match.
        not: bool,
        /// The value.
        value: Value,
    },
    /// The concatenated fields are in this set, or with `not`, are not.
    In {
        /// The fields.
        fields: &'static [Field],
        /// Negates the match.
        not: bool,
        /// The set's name.
        set: &'static str,
    },
    /// The packet is IPv4. For a table that sees both versions.
    OfIpv4,
    /// The packet is IPv6.
    OfIpv6,
    /// The destination is a local address of this host.
    ToThisHost,
    /// The connection's destination was translated (DNAT), or with `not`, was not.
    WasDnat {
        /// Negates the match.
        not: bool,
    },
    /// The packet does not belong to a connection that was accepted before.
    OpensConnection,
    /// Translates the destination to the fields' value in the map. The rule ends if the map has no
    /// such key or the packet has the other IP version.
    Dnat {
        /// Whether it translates IPv6.
        v6: bool,
        /// Whether the value includes a port. Otherwise the port is unchanged.
        port: bool,
        /// The fields.
        fields: &'static [Field],
        /// The map's name.
        map: &'static str,
    },
    /// Translates the destination to this address and port.
    DnatTo(SocketAddr),
    /// Translates the source to the address of the outgoing interface.
    Masquerade,
    /// The packet is an ICMP echo request.
    EchoRequest {
        /// Whether it is ICMPv6.
        v6: bool,
    },
    /// Accepts the packet in this chain.
    Accept,
    /// Drops the packet.
    Drop,
}

/// A rule of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The chain's name.
    pub chain: &'static str,
    /// The statements, in order.
    pub statements: Vec<Statement>,
}

/// Writes the parts, separated by `between`.
///
/// # Errors
/// Those of the formatter.
pub fn join<T: Display>(f: &mut fmt::Formatter<'_>, parts: &[T], between: &str) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            f.write_str(between)?;
        }
        part.fmt(f)?;
    }
    Ok(())
}

impl Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4Addr => "ipv4_addr",
            Self::Ipv6Addr => "ipv6_addr",
            Self::InetProto => "inet_proto",
            Self::InetService => "inet_service",
            Self::Ifname => "ifname",
        })
    }
}

impl Set {
    /// `map` or `set`.
    pub fn kind(&self) -> &'static str {
        if self.data.is_some() { "map" } else { "set" }
    }
}

/// The text between the braces.
impl Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("type ")?;
        join(f, self.key, " . ")?;
        if let Some(data) = self.data {
            f.write_str(" : ")?;
            join(f, data, " . ")?;
        }
        f.write_str(if self.interval { "; flags interval;" } else { ";" })
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Protocol(protocol) => protocol.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::Ports(first, last) => write!(f, "{first}-{last}"),
            Self::Interface(name) => write!(f, "{name:?}"),
        }
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, &self.key, " . ")?;
        if let Some(comment) = &self.comment {
            write!(f, " comment {comment:?}")?;
        }
        if !self.data.is_empty() {
            f.write_str(" : ")?;
            join(f, &self.data, " . ")?;
        }
        Ok(())
    }
}

/// The text between the braces.
impl Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        write!(f, "type {} hook {hook} priority {}; policy accept;", self.kind, self.priority.0)
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IpSaddr => "ip saddr",
            Self::IpDaddr => "ip daddr",
            Self::Ip6Saddr => "ip6 saddr",
            Self::Ip6Daddr => "ip6 daddr",
            Self::L4Proto => "meta l4proto",
            Self::ThDport => "th dport",
            Self::IifName => "iifname",
            Self::OifName => "oifname",
        })
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let negation = |not: bool| if not { "!= " } else { "" };
        match self {
            Self::Is { field, not, value } => write!(f, "{field} {}{value}", negation(*not)),
            Self::In { fields, not, set } => {
                join(f, fields, " . ")?;
                write!(f, " {}@{set}", negation(*not))
            }
            Self::OfIpv4 => f.write_str("meta nfproto ipv4"),
            Self::OfIpv6 => f.write_str("meta nfproto ipv6"),
            Self::ToThisHost => f.write_str("fib daddr type local"),
            Self::WasDnat { not } => f.write_str(if *not { "ct status ! dnat" } else { "ct status dnat" }),
            Self::OpensConnection => f.write_str("ct state invalid,new,untracked"),
            Self::Dnat { v6, fields, map, .. } => {
                f.write_str(if *v6 { "dnat ip6 to " } else { "dnat ip to " })?;
                join(f, fields, " . ")?;
                write!(f, " map @{map}")
            }
            Self::DnatTo(SocketAddr::V4(to)) => write!(f, "dnat ip to {to}"),
            Self::DnatTo(SocketAddr::V6(to)) => write!(f, "dnat ip6 to {to}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::EchoRequest { v6: false } => f.write_str("icmp type echo-request"),
            Self::EchoRequest { v6: true } => f.write_str("icmpv6 type echo-request"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
        }
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, &self.statements, " ")
    }
}
