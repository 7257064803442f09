//! Links, as the kernel describes them.

use rtnetlink::packet_route::link::{
    BridgePortState, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};

use crate::{Mac, mark};

/// The kinds of links that are made of another one.
const CHILDREN: [&str; 5] = ["macvlan", "macvtap", "ipvlan", "ipvtap", "vlan"];

/// An interface, with the properties that the tools need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Whether the interface is up.
    pub up: bool,
    /// The index of the bridge that it is attached to.
    pub master: Option<u32>,
    /// Whether it is a bridge port in hairpin mode: the bridge may send a frame back out of the
    /// port it came in by.
    pub hairpin: bool,
    /// Whether it is an isolated bridge port: it exchanges no frames with other isolated ports.
    pub isolated: bool,
    /// Whether it is a bridge port that forwards frames. The kernel lets it shortly after it is up.
    pub forwards: bool,
    /// Whether it is a bridge.
    pub bridge: bool,
    /// Its kind, in the kernel's words: `bridge`, `veth`, `vlan`. Empty for a device.
    pub kind: String,
    /// The index of the link that a VXLAN sends its packets over, if one is set, or that a macvlan,
    /// an ipvlan or a VLAN is made of. That link may be in another namespace.
    pub under: Option<u32>,
    /// Its alias: a note for people, and a mark for its owner.
    pub alias: Option<String>,
}

impl Link {
    /// Whether this is a bridge of ours: its hardware address has our mark.
    pub fn is_our_bridge(&self) -> bool {
        self.is_of_host()
    }

    /// Whether this link serves all containers of a bridge: the bridge itself, or its VXLAN.
    pub fn is_of_host(&self) -> bool {
        self.mac.is_some_and(|mac| mac.is_of_host(&self.name))
    }

    /// Whether it is made of the link with this index.
    pub fn is_child_of(&self, index: u32) -> bool {
        CHILDREN.contains(&self.kind.as_str()) && self.under == Some(index)
    }

    /// Whether the link has a mark of ours.
    pub fn is_marked(&self) -> bool {
        self.alias.as_deref().is_some_and(mark::is_ours)
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            master: None,
            hairpin: false,
            isolated: false,
            forwards: false,
            bridge: false,
            kind: String::new(),
            under: None,
            alias: None,
        };
        let mut below = None;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(address) => link.mac = address.try_into().ok().map(Mac),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::Link(index) => below = Some(index),
                LinkAttribute::LinkInfo(infos) => {
                    link.bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                    let kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                    link.kind = kind.unwrap_or_default();
                    let port_is = |set: InfoBridgePort| {
                        infos.iter().any(|info| match info {
                            LinkInfo::PortData(InfoPortData::BridgePort(port)) => port.contains(&set),
                            _ => false,
                        })
                    };
                    link.under = infos.iter().find_map(|info| match info {
                        LinkInfo::Data(InfoData::Vxlan(data)) => data.iter().find_map(|one| match one {
                            InfoVxlan::Link(index) if *index != 0 => Some(*index),
                            _ => None,
                        }),
                        _ => None,
                    });
                    link.hairpin = port_is(InfoBridgePort::HairpinMode(true));
                    link.forwards = port_is(InfoBridgePort::State(BridgePortState::Forwarding));
                    link.isolated = port_is(InfoBridgePort::Isolated(true));
                }
                _ => {}
            }
        }
        if CHILDREN.contains(&link.kind.as_str()) {
            link.under = below;
        }
        link
    }
}
