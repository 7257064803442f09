//! The operations of all network tools, in one type.

use std::{collections::HashSet, os::fd::OwnedFd};

use ::operation::{Claim, Error, Scope, Shared};
use egress::EgressOperation;
use firewall::FirewallOperation;
use hold::HoldOperation;
use lease::Lease;
use names::NamesOperation;
use nat::{NatOperation, Used};
use netlink::{LinkOperation, Sysctl};
use netns::NetnsOperation;
use peers::PeersOperation;

::operation::any_of! {
    /// An operation of netns-add, netns-bridge, bridge-attach, macvlan-attach, ipvlan-attach,
    /// veth-pair, portmap, egress-allow, name-serve or link-hosts.
    pub enum NetworkOperation {
        /// The lease of an address. It precedes `Claim`, which has fewer members, so a lease would
        /// be parsed as a claim.
        Lease(Lease),
        /// A claim on a bridge.
        Claim(Claim),
        /// A sysctl variable: forwarding, and what 127.0.0.1 needs.
        Sysctl(Shared<Used<Sysctl>>),
        /// The bridge.
        Bridge(Shared<Used<LinkOperation>>),
        /// The bridge's rules in the host's own firewall.
        Firewall(Shared<Used<FirewallOperation>>),
        /// The hosts that may send to the bridge's VXLAN.
        Senders(Shared<Used<PeersOperation>>),
        /// All links to another container, and the nf_tables table as versions before 0.2 recorded
        /// it.
        SharedNat(Shared<NatOperation>),
        /// The nf_tables table.
        Nat(NatOperation),
        /// The container's restriction to a list.
        Egress(EgressOperation),
        /// The names of other containers.
        Names(NamesOperation),
        /// The containers on other hosts.
        Peers(PeersOperation),
        /// Holds published ports.
        Hold(HoldOperation),
        /// The network namespace.
        Namespace(NetnsOperation),
        /// A sysctl variable, as versions before 0.2 recorded it.
        EarlierSysctl(Shared<Sysctl>),
        /// A VLAN, or the bridge as versions before 0.2 recorded it.
        SharedLink(Shared<LinkOperation>),
        /// The container's own link.
        Link(LinkOperation),
    }
}

impl NetworkOperation {
    /// Whether the operation is about something that containers share.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(
            self,
            Self::Sysctl(_)
                | Self::Bridge(_)
                | Self::Senders(_)
                | Self::Peers(_)
                | Self::EarlierSysctl(_)
                | Self::SharedLink(_)
        )
    }

    /// Whether the operation is about the host's own firewall.
    pub(crate) fn is_firewall(&self) -> bool {
        matches!(self, Self::Firewall(_))
    }

    /// Whether this is the first operation with this effect. Several containers have the same
    /// operation on what they share.
    pub(crate) fn is_first(&self, seen: &mut HashSet<String>) -> bool {
        let what = match self {
            // There is nothing to repair.
            Self::Sysctl(shared) if shared.operation.only_undone => return false,
            Self::Sysctl(shared) => serde_json::to_string(&shared.operation.operation.variable),
            Self::EarlierSysctl(shared) => serde_json::to_string(&shared.operation.variable),
            Self::Bridge(shared) => shared_link(&shared.operation.operation),
            Self::SharedLink(shared) => shared_link(&shared.operation),
            Self::Senders(shared) => serde_json::to_string(&shared.operation.operation),
            Self::Peers(peers) => serde_json::to_string(peers),
            Self::Firewall(shared) => serde_json::to_string(&shared.operation.operation),
            _ => return true,
        };
        what.map_or(true, |what| seen.insert(what))
    }

    /// The operation on the nf_tables table, if it is one.
    pub(crate) fn nat(&self) -> Option<&NatOperation> {
        match self {
            Self::Nat(nat) => Some(nat),
            Self::SharedNat(shared) => Some(&shared.operation),
            _ => None,
        }
    }

    /// The operation on a link, if it is one.
    pub(crate) fn link(&self) -> Option<&LinkOperation> {
        match self {
            Self::Bridge(shared) => Some(&shared.operation.operation),
            Self::SharedLink(shared) => Some(&shared.operation),
            Self::Link(link) => Some(link),
            _ => None,
        }
    }

    /// A connection to the operation's process, if it has one that runs. It hangs up when the
    /// process ends.
    pub(crate) fn resident(&self) -> Option<OwnedFd> {
        match self {
            Self::Egress(egress) => egress.watch(),
            Self::Names(names) => names.watch(),
            _ => None,
        }
    }

    /// Whether all containers share the operation's process.
    pub(crate) fn has_common_resident(&self) -> bool {
        matches!(self, Self::Names(_))
    }

    /// Whether the operation makes the namespace.
    pub(crate) fn is_namespace(&self) -> bool {
        matches!(self, Self::Namespace(_))
    }

    /// Gives the namespace its name again, if the operation makes it and it still exists.
    pub(crate) fn name_again(&self, scope: &Scope) -> Result<bool, Error> {
        match self {
            Self::Namespace(namespace) => namespace.name_again(scope),
            _ => Ok(false),
        }
    }

    /// Whether the operation restricts the container to a list.
    pub(crate) fn is_restriction(&self) -> bool {
        matches!(self, Self::Egress(_))
    }

    /// Whether the operation is the list itself, which holds without any process.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self, Self::Egress(EgressOperation::Table { .. }))
    }

    /// Whether the operation sets up the host's side of the container's link.
    pub(crate) fn sets_link_up(&self) -> bool {
        matches!(self, Self::Link(LinkOperation::LinkUp { namespace: None, .. }))
    }

    /// Whether the operation is about something in the container's namespace.
    pub(crate) fn is_inside(&self) -> bool {
        let is_redirect = matches!(self, Self::Egress(egress) if egress.is_inside());
        is_redirect
            || matches!(
                self.link(),
                Some(
                    LinkOperation::LinkUp { namespace: Some(_), .. }
                        | LinkOperation::Ipv6On { namespace: Some(_), .. }
                        | LinkOperation::AddressAdd { namespace: Some(_), .. }
                        | LinkOperation::RouteAdd { namespace: Some(_), .. }
                        | LinkOperation::RouteRefuse { .. }
                        | LinkOperation::Ipv6Off { namespace: Some(_), .. }
                )
            )
    }
}

/// The operation without the mark of the container that the bridge was made for, which does not
/// matter here.
fn shared_link(link: &LinkOperation) -> serde_json::Result<String> {
    match link {
        LinkOperation::BridgeAdd { name, mac, .. } => {
            serde_json::to_string(&LinkOperation::BridgeAdd { name: name.clone(), mac: *mac, mark: None })
        }
        link => serde_json::to_string(link),
    }
}
