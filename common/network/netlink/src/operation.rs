use std::{
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
};

use ipnet::IpNet;
use nix::errno::Errno;
use operation::{Condition, Scope};
use serde::{Deserialize, Serialize};

use crate::{Child, Mac, Mark};

/// A change to links, addresses or routes.
///
/// The derived hardware address and the alias mark a link as ours. A link with the same name and no
/// mark belongs to another program: applying is then an error, and undo leaves the link alone,
/// whatever a document says. [`PROTOCOL`] marks addresses and routes.
///
/// [`PROTOCOL`]: crate::PROTOCOL
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum LinkOperation {
    /// Makes a bridge. An existing bridge with this address is fine. Undo leaves the bridge while
    /// it has other ports.
    BridgeAdd {
        /// Name of the bridge.
        name: String,
        /// Hardware address of the bridge, marked for its name ([`Mac::draw`]).
        mac: Mac,
        /// The container that makes or uses the bridge. Its own port does not keep the bridge from
        /// being removed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<Mark>,
    },
    /// Makes a veth pair in one step, with its final names. One side becomes a port of a bridge
    /// here, the other goes into its namespace.
    VethAdd {
        /// Name of the side that stays here.
        name: String,
        /// Hardware address of the side that stays here.
        mac: Mac,
        /// The bridge that this side is attached to.
        master: String,
        /// The MTU of both sides, in bytes.
        mtu: u32,
        /// The other side.
        peer: Peer,
        /// The container that the pair belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<Mark>,
    },
    /// Makes a VXLAN (RFC 7348) as a port of a bridge. It connects the bridge to the same bridge on
    /// other hosts. It does not learn addresses from frames, does not flood, and answers for the
    /// neighbours that it has entries of. An existing one with our mark is fine.
    VxlanAdd {
        /// Name of the VXLAN.
        name: String,
        /// Hardware address of the VXLAN, marked for its name ([`Mac::draw`]).
        mac: Mac,
        /// The VXLAN network identifier (VNI), the same on all hosts.
        id: u32,
        /// The UDP port, the same on all hosts.
        port: u16,
        /// This host's address as the other hosts use it.
        local: IpAddr,
        /// The link that the other hosts are reached over, needed for a link-local address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// The bridge that the VXLAN is attached to.
        master: String,
        /// MTU in bytes.
        mtu: u32,
    },
    /// Makes a macvlan or an ipvlan of a link here, in another namespace. The kernel makes it among
    /// the links here and then moves it, so it first has a name of its own ([`child_name`]). Its
    /// final name and its alias are set together.
    ///
    /// [`child_name`]: crate::child_name
    ChildAdd {
        /// The link here that it is made of.
        parent: String,
        /// Its kind and mode.
        #[serde(flatten)]
        child: Child,
        /// MTU in bytes.
        mtu: u32,
        /// Its final name, its hardware address and its namespace. An ipvlan has its parent's address.
        peer: Peer,
        /// The container that it belongs to.
        mark: Mark,
    },
    /// Makes a VLAN (IEEE 802.1Q) on a link here. An existing one with our mark is fine. Undo
    /// leaves it while something else uses it.
    VlanAdd {
        /// Name of the VLAN.
        name: String,
        /// The link that carries it.
        parent: String,
        /// The VLAN identifier, 1 to 4094.
        id: u16,
    },
    /// Disables IPv6 on a link that is not up yet. The host must not accept a container's router
    /// advertisements (CVE-2020-10749), nor one container those of another (CVE-2020-13401), and the
    /// kernel need not keep an address and routes for each bridge port. Removed with the link.
    Ipv6Off {
        /// The namespace of the link. None means this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<PathBuf>,
        /// The link.
        link: String,
        /// The link's hardware address.
        mac: Mac,
    },
    /// Enables IPv6 on a link, without router advertisements and without duplicate address
    /// detection. In containers' namespaces IPv6 is disabled at first. Removed with the link.
    Ipv6On {
        /// The namespace of the link. None means this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<PathBuf>,
        /// The link.
        link: String,
        /// The link's hardware address.
        mac: Mac,
    },
    /// Enables hairpin mode on a bridge port: frames may leave by the port they came in by. Without
    /// it, a container cannot reach itself by a published port if bridged frames pass through
    /// netfilter (br_netfilter). Removed with the link.
    Hairpin {
        /// The port.
        link: String,
        /// The port's hardware address.
        mac: Mac,
    },
    /// Isolates a bridge port: isolated ports exchange frames with the bridge only, not with each
    /// other. Removed with the link.
    Isolate {
        /// The port.
        link: String,
        /// The port's hardware address.
        mac: Mac,
    },
    /// Drops packets from and to 127.0.0.0/8 that arrive by a port of our bridge, where
    /// `route_localnet` would let them reach this host's loopback. Removed with the link. If the
    /// kernel has no BPF classifiers, `route_localnet` of the bridge is switched off instead.
    GuardLoopback {
        /// The port.
        link: String,
        /// The port's hardware address.
        mac: Mac,
        /// The bridge.
        bridge: String,
    },
    /// Lets answers to this host's own ::1 arrive by a bridge that is up, so that a port published
    /// on ::1 reaches a container.
    ///
    /// The kernel looks ::1 up on the interface that a packet arrives by, even if another interface
    /// has it. Packets from or to ::1 that come from the wire are dropped earlier
    /// (net/ipv6/ip6_input.c). But answers that br_netfilter translated on the bridge look the same
    /// and get this far.
    LoopbackIpv6 {
        /// The bridge.
        link: String,
        /// Hardware address of the bridge. None for another program's bridge.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<Mac>,
    },
    /// Makes the host answer for a container's address on one of the host's links (RFC 4389).
    /// Stations on that link then see the address as a neighbour.
    NdpProxy {
        /// The link.
        link: String,
        /// The address.
        address: Ipv6Addr,
    },
    /// Sets a link up. Removed with the link. (The kernel refuses to make the far side of a veth
    /// pair up at once.)
    LinkUp {
        /// The namespace of the link. None means this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<PathBuf>,
        /// The link.
        link: String,
        /// The link's hardware address.
        mac: Mac,
    },
    /// Adds an address to a link.
    AddressAdd {
        /// The namespace of the link. None means this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<PathBuf>,
        /// The link.
        link: String,
        /// Hardware address of the link. None for another program's bridge, whose address changes
        /// with its ports.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<Mac>,
        /// The address with its prefix length.
        address: IpNet,
        /// The origin of the address (IFA_PROTO), which is its mark. An address without one is
        /// removed with its link.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<u8>,
    },
    /// Tells the stations on a link that an address has the link's hardware address, so that they forget
    /// an earlier one (RFC 5227, 3; RFC 4861, 7.2.6). Nothing stays of it.
    Announce {
        /// The namespace of the link.
        namespace: PathBuf,
        /// The link.
        link: String,
        /// The link's hardware address.
        mac: Mac,
        /// The address.
        address: IpAddr,
        /// The other side of the link, which is a port of a bridge here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
    },
    /// Adds a route through a gateway.
    RouteAdd {
        /// The namespace of the link. None means this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<PathBuf>,
        /// The destination; `0.0.0.0/0` and `::/0` are default routes.
        destination: IpNet,
        /// The next hop.
        gateway: IpAddr,
        /// The link of the route.
        link: String,
        /// The link's hardware address.
        mac: Mac,
        /// The metric. The route with the lowest one is used. None lets the kernel choose.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metric: Option<u32>,
        /// The origin of the route (`rtm_protocol`), which is its mark. A route without one is
        /// removed with its link.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<u8>,
    },
    /// Adds a route that rejects or drops packets to a destination. It has no link, so undo removes it by
    /// its origin, [`PROTOCOL`].
    ///
    /// [`PROTOCOL`]: crate::PROTOCOL
    RouteRefuse {
        /// The namespace of the route.
        namespace: PathBuf,
        /// The destination.
        destination: IpNet,
        /// What happens to the packets.
        kind: Rejection,
        /// The metric. None lets the kernel choose.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metric: Option<u32>,
    },
}

/// What a route does with packets that it does not forward (rtnetlink(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rejection {
    /// Drops them silently.
    Blackhole,
    /// Tells the sender that the host is unreachable.
    Unreachable,
    /// Tells the sender that it is prohibited.
    Prohibit,
}

impl Rejection {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Blackhole, Self::Unreachable, Self::Prohibit];

    /// The name in the command line of `ip route`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
        }
    }

    /// The one with this name. None if there is no such one.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// A link in another namespace: a side of a veth pair, or a macvlan or ipvlan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Name of the link there.
    pub name: String,
    /// Hardware address of the link.
    pub mac: Mac,
    /// Path of the namespace.
    pub namespace: PathBuf,
}

impl operation::Operation for LinkOperation {
    fn explain(&self) -> Vec<String> {
        self.commands()
    }

    fn apply(&mut self, _: &Scope) -> Result<(), operation::Error> {
        self.make().map_err(|error| {
            let is_taken = error.errno() == Errno::EADDRINUSE;
            let error = operation::Error::from(error);
            // The kernel compares the macvlans and ipvlans of one parent. Another run directory may have
            // leased the same address.
            match self {
                Self::LinkUp { namespace: Some(_), .. } if is_taken => error.with_hint(
                    "another link of the parent has the hardware address, which is derived from the IP address: choose another with --ip or --mac-address",
                ),
                Self::AddressAdd { .. } if is_taken => {
                    error.with_hint("another container on this host has the address: choose one with --ip")
                }
                _ => error,
            }
        })
    }

    fn undo(&self, _: &Scope) -> Result<(), operation::Error> {
        Ok(self.take_back()?)
    }

    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        Ok(self.compare()?)
    }
}
