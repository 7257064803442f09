//! All operations that make a network.

use std::{collections::HashSet, os::fd::OwnedFd};

use ::operation::{Claim, Shared};
use egress::EgressOperation;
use firewall::FirewallOperation;
use hold::HoldOperation;
use lease::Lease;
use names::NamesOperation;
use nat::{NatOperation, Used};
use netlink::{LinkOperation, Sysctl};
use netns::NetnsOperation;

::operation::any_of! {
    /// What a network tool does: one of the operations of netns-add, netns-bridge, bridge-attach, veth-pair, portmap,
    /// egress-allow and name-serve.
    pub enum NetworkOperation {
        /// The lease of the address. Before a claim, which has fewer members and would be read from it.
        Lease(Lease),
        /// A claim on a bridge.
        Claim(Claim),
        /// Forwarding, and what 127.0.0.1 needs.
        Sysctl(Shared<Used<Sysctl>>),
        /// The bridge.
        Bridge(Shared<Used<LinkOperation>>),
        /// The host's own firewall.
        Firewall(Shared<Used<FirewallOperation>>),
        /// The table, as versions before 0.2 recorded it.
        EarlierNat(Shared<NatOperation>),
        /// The table.
        Nat(NatOperation),
        /// What restricts the container to a list.
        Egress(EgressOperation),
        /// What gives it the names of others.
        Names(NamesOperation),
        /// What holds published ports.
        Hold(HoldOperation),
        /// The namespace.
        Namespace(NetnsOperation),
        /// As versions before 0.2 recorded it.
        EarlierSysctl(Shared<Sysctl>),
        /// As versions before 0.2 recorded it.
        EarlierBridge(Shared<LinkOperation>),
        /// The container's own link.
        Link(LinkOperation),
    }
}

impl NetworkOperation {
    /// Whether it is about something that containers share.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Sysctl(_) | Self::Bridge(_) | Self::EarlierSysctl(_) | Self::EarlierBridge(_))
    }

    /// Whether it lets a bridge through the host's own firewall.
    pub(crate) fn is_firewall(&self) -> bool {
        matches!(self, Self::Firewall(_))
    }

    /// Whether this is the first of those that do the same for several containers.
    pub(crate) fn is_first(&self, seen: &mut HashSet<String>) -> bool {
        let what = match self {
            Self::Sysctl(shared) => serde_json::to_string(&shared.operation.operation.variable),
            Self::EarlierSysctl(shared) => serde_json::to_string(&shared.operation.variable),
            Self::Bridge(shared) => shared_link(&shared.operation.operation),
            Self::EarlierBridge(shared) => shared_link(&shared.operation),
            Self::Firewall(shared) => serde_json::to_string(&shared.operation.operation),
            _ => return true,
        };
        what.map_or(true, |what| seen.insert(what))
    }

    /// What it does to the table, if it does.
    pub(crate) fn nat(&self) -> Option<&NatOperation> {
        match self {
            Self::Nat(nat) => Some(nat),
            Self::EarlierNat(shared) => Some(&shared.operation),
            _ => None,
        }
    }

    /// What it does to a link, if it does.
    pub(crate) fn link(&self) -> Option<&LinkOperation> {
        match self {
            Self::Bridge(shared) => Some(&shared.operation.operation),
            Self::EarlierBridge(shared) => Some(&shared.operation),
            Self::Link(link) => Some(link),
            _ => None,
        }
    }

    /// A connection to its process, if it has one that is there. It hangs up when the process ends.
    pub(crate) fn resident(&self) -> Option<OwnedFd> {
        match self {
            Self::Egress(egress) => egress.watch(),
            Self::Names(names) => names.watch(),
            _ => None,
        }
    }

    /// Whether its process is the same for all containers.
    pub(crate) fn has_common_resident(&self) -> bool {
        matches!(self, Self::Names(_))
    }

    /// Whether it makes the namespace.
    pub(crate) fn is_namespace(&self) -> bool {
        matches!(self, Self::Namespace(_))
    }

    /// Whether it restricts the container.
    pub(crate) fn is_restriction(&self) -> bool {
        matches!(self, Self::Egress(_))
    }

    /// Whether it sets the container's link up, on this host's side.
    pub(crate) fn sets_link_up(&self) -> bool {
        matches!(self, Self::Link(LinkOperation::LinkUp { namespace: None, .. }))
    }

    /// Whether it is about something in the container's namespace.
    pub(crate) fn is_inside(&self) -> bool {
        matches!(
            self.link(),
            Some(
                LinkOperation::LinkUp { namespace: Some(_), .. }
                    | LinkOperation::Ipv6On { namespace: Some(_), .. }
                    | LinkOperation::AddressAdd { namespace: Some(_), .. }
                    | LinkOperation::RouteAdd { namespace: Some(_), .. }
            )
        )
    }
}

/// A bridge carries the mark of the container for which it was made, which does not matter here.
fn shared_link(link: &LinkOperation) -> serde_json::Result<String> {
    match link {
        LinkOperation::BridgeAdd { name, mac, .. } => {
            serde_json::to_string(&LinkOperation::BridgeAdd { name: name.clone(), mac: *mac, mark: None })
        }
        link => serde_json::to_string(link),
    }
}
