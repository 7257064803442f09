//! The types of a ruleset of family netdev. `Display` writes them in nft syntax.

use std::{
    fmt::{self, Display},
    net::IpAddr,
};

use ipnet::IpNet;
use nat::ruleset::join;
use netlink::Mac;

use crate::list::Protocol;

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

impl Version {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// The parts of a set's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// An address.
    Address,
    /// An address, a protocol, and a port.
    Port,
    /// An address, a protocol, its port, and the container's port.
    Flow,
}

/// A set for one IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) version: Version,
    pub(crate) key: Key,
    pub(crate) kind: Kind,
}

/// How a set gets its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With the table. The elements are ranges.
    Fixed,
    /// From the resolver, with a timeout. At most this many.
    Timed(u32),
    /// From rules, with a timeout. At most this many.
    Dynamic(u32),
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) set: Set,
    pub(crate) address: IpNet,
    pub(crate) port: Option<(Protocol, u16)>,
    /// The timeout in seconds; 0 for none.
    pub(crate) seconds: u64,
}

/// A field of a packet, used as a part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Source(Version),
    Destination(Version),
    Protocol,
    SourcePort,
    DestinationPort,
}

/// A statement of a rule. The next statement is evaluated only if this one matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    /// The EtherType, for a VLAN tag.
    EtherType(&'static str, u16),
    /// The frame's source is not this hardware address.
    NotFrom(Mac),
    /// The sender address of an ARP message.
    ArpSource(std::net::Ipv4Addr),
    /// The source address of the packet.
    Source(IpAddr),
    /// The destination of the packet is in this network.
    To(IpNet),
    /// The packet has this IP version.
    Version(Version),
    /// The packet is a fragment other than the first.
    LaterFragment,
    /// The packet is a fragment other than the last.
    MoreFragments,
    /// The transport protocol.
    Protocol(Protocol),
    /// The packet is TCP and not for this port.
    NotToPort(u16),
    /// At least one of these TCP flags is set.
    AnyFlag(&'static str, u8),
    /// Of the TCP flags in the mask, exactly these are set.
    Flags(&'static str, u8, &'static str, u8),
    /// The type of an ICMP message.
    Icmp(Version, &'static str, u8),
    /// The destination is not a single other host: it is an address of this host, or a broadcast or
    /// multicast address.
    NotElsewhere,
    /// The concatenated fields are in this set, or with `not`, are not.
    In { fields: Vec<Field>, not: bool, set: &'static str },
    /// Adds the fields to this set for this many seconds. If they are in the set, the timeout
    /// starts again.
    Update { fields: Vec<Field>, set: &'static str, seconds: u64 },
    /// Like `Update`, but the timeout of an existing element is unchanged.
    Add { fields: Vec<Field>, set: &'static str, seconds: u64 },
    /// Sends the first bytes of the packet to this log group.
    Log(u16),
    /// Accepts the packet.
    Accept,
    /// The packet is dropped.
    Drop,
    /// Rejects the packet with a TCP reset.
    Reset,
    /// Rejects the packet with ICMP "administratively prohibited".
    Prohibit,
    /// Continues in this chain.
    Goto(&'static str),
}

/// A rule of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) chain: String,
    pub(crate) statements: Vec<Statement>,
}

/// A chain. With a hook, it is a base chain for the packets of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    pub(crate) hook: Option<(Hook, String)>,
}

/// A netdev hook (linux/netfilter.h, `enum nf_dev_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Ingress = 0,
    Egress = 1,
}

impl Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source(Version::V4) => "ip saddr",
            Self::Source(Version::V6) => "ip6 saddr",
            Self::Destination(Version::V4) => "ip daddr",
            Self::Destination(Version::V6) => "ip6 daddr",
            Self::Protocol => "meta l4proto",
            Self::SourcePort => "th sport",
            Self::DestinationPort => "th dport",
        })
    }
}

/// The text between the braces.
impl Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match self.version {
            Version::V4 => "ipv4_addr",
            Version::V6 => "ipv6_addr",
        };
        let rest = match self.key {
            Key::Address => "",
            Key::Port => " . inet_proto . inet_service",
            Key::Flow => " . inet_proto . inet_service . inet_service",
        };
        write!(f, "type {address}{rest}; ")?;
        match self.kind {
            Kind::Fixed => f.write_str("flags interval;"),
            Kind::Timed(size) => write!(f, "size {size}; flags timeout;"),
            Kind::Dynamic(size) => write!(f, "size {size}; flags dynamic,timeout;"),
        }
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address.prefix_len() == self.address.max_prefix_len() {
            true => self.address.addr().fmt(f)?,
            false => self.address.fmt(f)?,
        }
        if let Some((protocol, port)) = self.port {
            write!(f, " . {protocol} . {port}")?;
        }
        match self.seconds {
            0 => Ok(()),
            seconds => write!(f, " timeout {seconds}s"),
        }
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hook {
            None => Ok(()),
            Some((hook, link)) => {
                let hook = if *hook == Hook::Ingress { "ingress" } else { "egress" };
                write!(f, "type filter hook {hook} device {link:?} priority filter; policy accept;")
            }
        }
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = |version: &Version| if *version == Version::V4 { "ip" } else { "ip6" };
        match self {
            Self::EtherType(name, _) => write!(f, "ether type {name}"),
            Self::NotFrom(mac) => write!(f, "ether saddr != {mac}"),
            Self::ArpSource(address) => write!(f, "arp saddr ip {address}"),
            Self::Source(address) => write!(f, "{} saddr {address}", ip(&Version::of(*address))),
            Self::To(net) => write!(f, "{} daddr {net}", ip(&Version::of(net.addr()))),
            Self::Version(version) => write!(f, "meta protocol {}", ip(version)),
            Self::LaterFragment => f.write_str("ip frag-off & 8191 != 0"),
            Self::MoreFragments => f.write_str("ip frag-off & 8192 != 0"),
            Self::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::NotToPort(port) => write!(f, "tcp dport != {port}"),
            Self::AnyFlag(names, _) => write!(f, "tcp flags {names}"),
            Self::Flags(names, _, set, _) => write!(f, "tcp flags & ({names}) == {set}"),
            Self::Icmp(Version::V4, name, _) => write!(f, "icmp type {name}"),
            Self::Icmp(Version::V6, name, _) => write!(f, "icmpv6 type {name}"),
            Self::NotElsewhere => f.write_str("fib daddr type != unicast"),
            Self::In { fields, not, set } => {
                join(f, fields, " . ")?;
                write!(f, " {}@{set}", if *not { "!= " } else { "" })
            }
            Self::Update { fields, set, seconds } | Self::Add { fields, set, seconds } => {
                let verb = if matches!(self, Self::Update { .. }) { "update" } else { "add" };
                write!(f, "{verb} @{set} {{ ")?;
                join(f, fields, " . ")?;
                write!(f, " timeout {seconds}s }}")
            }
            Self::Log(group) => write!(f, "log group {group}"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reset => f.write_str("reject with tcp reset"),
            Self::Prohibit => f.write_str("reject with icmpx admin-prohibited"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, &self.statements, " ")
    }
}
