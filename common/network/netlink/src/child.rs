//! Links that are made of another link: macvlans and ipvlans (Documentation/networking/ipvlan.rst).

use std::fmt;

use rtnetlink::packet_route::link::{IpVlanMode, MacVlanMode};
use serde::{Deserialize, Serialize};

/// The kind of a link that is made of another one, with its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "mode", rename_all = "lowercase")]
pub enum Child {
    /// A link with a hardware address of its own.
    Macvlan(MacvlanMode),
    /// A link with the hardware address of its parent, and with IP addresses of its own.
    Ipvlan(IpvlanMode),
}

/// Whom a macvlan reaches besides the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// The other macvlans of the parent, without the wire.
    Bridge,
    /// No other macvlan of the parent.
    Private,
    /// The other macvlans of the parent, by a switch on the wire that sends frames back.
    Vepa,
    /// The macvlan has the parent, and its hardware address, for itself.
    Passthru,
}

/// At which layer an ipvlan shares its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanMode {
    /// Frames: it takes part in ARP and broadcasts on the wire.
    L2,
    /// Packets: the host routes them. Others need a route to the host.
    L3,
    /// Like `L3`, but packets pass through the host's netfilter.
    L3s,
}

impl Child {
    /// The modes of each kind. The first is the default.
    pub const MACVLAN: [&str; 4] = ["bridge", "private", "vepa", "passthru"];
    /// Like [`Child::MACVLAN`].
    pub const IPVLAN: [&str; 3] = ["l2", "l3", "l3s"];

    const ALL: [Self; 7] = [
        Self::Macvlan(MacvlanMode::Bridge),
        Self::Macvlan(MacvlanMode::Private),
        Self::Macvlan(MacvlanMode::Vepa),
        Self::Macvlan(MacvlanMode::Passthru),
        Self::Ipvlan(IpvlanMode::L2),
        Self::Ipvlan(IpvlanMode::L3),
        Self::Ipvlan(IpvlanMode::L3s),
    ];

    /// The child with this kind and mode, in the kernel's words. None if there is no such one.
    pub fn of(kind: &str, mode: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|child| child.kind() == kind && child.mode() == mode)
    }

    /// The kind, in the kernel's words.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(_) => "ipvlan",
        }
    }

    /// The mode, in the kernel's words.
    pub fn mode(self) -> &'static str {
        match self {
            Self::Macvlan(MacvlanMode::Bridge) => "bridge",
            Self::Macvlan(MacvlanMode::Private) => "private",
            Self::Macvlan(MacvlanMode::Vepa) => "vepa",
            Self::Macvlan(MacvlanMode::Passthru) => "passthru",
            Self::Ipvlan(IpvlanMode::L2) => "l2",
            Self::Ipvlan(IpvlanMode::L3) => "l3",
            Self::Ipvlan(IpvlanMode::L3s) => "l3s",
        }
    }

    /// Whether its hardware address can differ from its parent's.
    pub fn has_own_mac(self) -> bool {
        matches!(self, Self::Macvlan(mode) if mode != MacvlanMode::Passthru)
    }

    /// Whether it takes part in ARP and neighbor discovery on the wire.
    pub fn is_on_the_wire(self) -> bool {
        !matches!(self, Self::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s))
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mode {}", self.kind(), self.mode())
    }
}

impl From<MacvlanMode> for MacVlanMode {
    fn from(mode: MacvlanMode) -> Self {
        match mode {
            MacvlanMode::Bridge => Self::Bridge,
            MacvlanMode::Private => Self::Private,
            MacvlanMode::Vepa => Self::Vepa,
            MacvlanMode::Passthru => Self::Passthrough,
        }
    }
}

impl From<IpvlanMode> for IpVlanMode {
    fn from(mode: IpvlanMode) -> Self {
        match mode {
            IpvlanMode::L2 => Self::L2,
            IpvlanMode::L3 => Self::L3,
            IpvlanMode::L3s => Self::L3S,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_modes_are_read_as_written() {
        let all = Child::MACVLAN
            .map(|mode| ("macvlan", mode))
            .into_iter()
            .chain(Child::IPVLAN.map(|mode| ("ipvlan", mode)));
        for (kind, mode) in all {
            let child = Child::of(kind, mode).unwrap();
            assert_eq!((child.kind(), child.mode()), (kind, mode));
        }
        for (kind, mode) in [("macvlan", "l2"), ("ipvlan", "bridge"), ("vlan", "bridge"), ("macvlan", "")] {
            assert_eq!(Child::of(kind, mode), None, "{kind} {mode}");
        }
    }
}
