//! The values of a rule set, and their form in `nft` (`Display`).

use std::{
    fmt::{self, Display},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::Protocol;

/// The type of a part of a key or value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are nft's.
pub enum Type {
    Ipv4Addr,
    Ipv6Addr,
    InetProto,
    InetService,
    Ifname,
}

/// A set; with `data`, a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// The types that its key is concatenated of.
    pub key: &'static [Type],
    /// The types of what it maps to.
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
    /// Its value; nothing in a set.
    pub data: Vec<Value>,
    /// The container that it belongs to.
    pub comment: Option<String>,
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// The hook of its packets.
    pub hook: Hook,
    /// The name of its priority, and its number.
    pub priority: (&'static str, i32),
}

/// A hook of both stacks (linux/netfilter.h, `enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A field of a packet, or another fact about it.
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

/// A part of a rule. The packet goes on to the next part if this one matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// The field has this value, or (`not`) another.
    Is {
        /// The field.
        field: Field,
        /// Negated.
        not: bool,
        /// The value.
        value: Value,
    },
    /// The fields together are in this set, or (`not`) are not.
    In {
        /// The fields.
        fields: &'static [Field],
        /// Negated.
        not: bool,
        /// The set's name.
        set: &'static str,
    },
    /// The packet is one of IPv4, in a table that sees others, too.
    OfIpv4,
    /// The packet is one of IPv6.
    OfIpv6,
    /// The destination is an address of this host.
    ToThisHost,
    /// The destination of the packet's connection was translated, or (`not`) was not.
    WasDnat {
        /// Negated.
        not: bool,
    },
    /// The packet does not belong to a connection that was let through before.
    OpensConnection,
    /// The destination becomes the fields' value in the map; if there is none, or the packet is of the other version of IP, the
    /// rule ends.
    Dnat {
        /// Whether it is one of IPv6.
        v6: bool,
        /// Whether the value has a port. Without one the port stays.
        port: bool,
        /// The fields.
        fields: &'static [Field],
        /// The map's name.
        map: &'static str,
    },
    /// The source becomes the address of the interface by which the packet leaves.
    Masquerade,
    /// The packet is a request of ping.
    EchoRequest {
        /// Whether of IPv6.
        v6: bool,
    },
    /// The packet goes through this chain.
    Accept,
    /// The packet is dropped.
    Drop,
}

/// A rule of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The chain's name.
    pub chain: &'static str,
    /// Its parts, in order.
    pub statements: Vec<Statement>,
}

/// The parts, separated by `between`.
fn join<T: Display>(f: &mut fmt::Formatter<'_>, parts: &[T], between: &str) -> fmt::Result {
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
