use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use operation::{Condition, Scope};
use serde::{Deserialize, Serialize};

use crate::{Mac, Mark};

/// A change to links, addresses or routes. The derived hardware address and the alias mark a link as ours. Another link with
/// the same name belongs to others: applying is then an error, and undo leaves it, whatever a document says. [`PROTOCOL`]
/// marks addresses and routes.
///
/// [`PROTOCOL`]: crate::PROTOCOL
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum LinkOperation {
    /// Makes a bridge. An existing bridge with this address is fine. Undo leaves it while it has ports of others.
    BridgeAdd {
        /// Its name.
        name: String,
        /// Its hardware address, derived from its name.
        mac: Mac,
        /// The container for which it is made or used, whose own port does not keep it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<Mark>,
    },
    /// Makes a veth pair in one step: both sides get their final names; one becomes a port of a bridge here, the other
    /// goes into its namespace.
    VethAdd {
        /// The name of the side that stays here.
        name: String,
        /// Its hardware address.
        mac: Mac,
        /// The bridge that it becomes a port of.
        master: String,
        /// The MTU of both sides, in bytes.
        mtu: u32,
        /// The other side.
        peer: Peer,
        /// The container that it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<Mark>,
    },
    /// Disables IPv6 on a link here that is not up yet. The host must not accept the router advertisements of a
    /// container (CVE-2020-10749), and the kernel need not keep an address and routes for each port of a bridge. It
    /// ends with the link.
    Ipv6Off {
        /// The link.
        link: String,
        /// The link's hardware address.
        mac: Mac,
    },
    /// Enables IPv6 on a link, which accepts no router advertisements: the namespaces of containers begin without. It ends with
    /// the link.
    Ipv6On {
        /// The namespace of the link; here if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<PathBuf>,
        /// The link.
        link: String,
        /// The link's hardware address.
        mac: Mac,
    },
    /// Lets a port of a bridge send frames back the way they came. Without it, a container does not reach itself by a
    /// published port when bridged frames pass through netfilter (br_netfilter). It ends with the link.
    Hairpin {
        /// The port.
        link: String,
        /// The port's hardware address.
        mac: Mac,
    },
    /// Keeps a port of a bridge apart from the other ports that are set so: they exchange frames with the bridge itself alone. It
    /// ends with the link.
    Isolate {
        /// The port.
        link: String,
        /// The port's hardware address.
        mac: Mac,
    },
    /// Drops packets from and to 127.0.0.0/8 that come in by a port of our bridge, where `route_localnet` would let them reach
    /// this host's loopback. It ends with the link. On a kernel without classifiers by BPF, `route_localnet` of the bridge is
    /// switched off instead.
    GuardLoopback {
        /// The port.
        link: String,
        /// The port's hardware address.
        mac: Mac,
        /// The bridge.
        bridge: String,
    },
    /// Lets the answers to this host's own ::1 come in by a bridge, which is up: the kernel looks for ::1 on the interface of a packet,
    /// whatever other interface has it. So a port published on ::1 reaches a container. No packet that says on a wire that it is from ::1
    /// or for it comes so far (net/ipv6/ip6_input.c). Where br_netfilter translates packets of the bridge, answers look like that.
    LoopbackIpv6 {
        /// The bridge.
        link: String,
        /// Its hardware address; none for a bridge that others made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<Mac>,
    },
    /// Sets a link up. It ends with the link. (The kernel refuses to make the far side of a veth pair up at once.)
    LinkUp {
        /// The namespace of the link; here if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<PathBuf>,
        /// The link.
        link: String,
        /// The link's hardware address.
        mac: Mac,
    },
    /// Gives a link an address.
    AddressAdd {
        /// The namespace of the link; here if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<PathBuf>,
        /// The link.
        link: String,
        /// The link's hardware address; none for a bridge that others made, which changes its own with its ports.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<Mac>,
        /// The address with its prefix length.
        address: IpNet,
        /// Who put it there (IFA_PROTO): its mark. One without goes with its link.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<u8>,
    },
    /// Makes a route through a gateway.
    RouteAdd {
        /// The namespace of the link; here if there is none.
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
        /// Of several routes to one destination, that with the lowest metric counts. None is the kernel's own choice.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metric: Option<u32>,
        /// Who put it there: its mark. One without goes with its link.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<u8>,
    },
}

/// The side of a veth pair in another namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name there.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Path of the namespace.
    pub namespace: PathBuf,
}

impl operation::Operation for LinkOperation {
    fn explain(&self) -> Vec<String> {
        self.commands()
    }

    fn apply(&mut self, _: &Scope) -> Result<(), operation::Error> {
        Ok(self.make()?)
    }

    fn undo(&self, _: &Scope) -> Result<(), operation::Error> {
        Ok(self.take_back()?)
    }

    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        Ok(self.compare()?)
    }
}
