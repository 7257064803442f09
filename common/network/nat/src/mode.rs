//! The mode of a bridge, which all its containers share.

use ipnet::IpNet;
use netlink::{Error, netfilter::Netfilter};
use serde::{Deserialize, Serialize};

use crate::{
    mapping::look_up,
    ruleset::{Element, Set, Value},
    table, user,
};

/// How the containers on a bridge can be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    /// By their own addresses. Their packets leave the subnet without masquerade.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub routed: bool,
    /// Only from this host and the bridge. No packet is forwarded to or from another interface.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// Not from each other, except by published ports.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// Another program's bridge on which the host is no gateway. What the host forwards by it is not
    /// ours: no rule for forwarded packets matches the bridge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unguarded: bool,
}

impl Mode {
    /// The elements that say whether a bridge is routed or masqueraded.
    fn way(bridge: &str, subnets: &[IpNet], routed: bool) -> Vec<Element> {
        match routed {
            false => subnets.iter().copied().map(table::subnet_element).collect(),
            true => vec![of_bridge(&table::ROUTED, bridge)],
        }
    }

    /// The elements that say that the bridge has this mode.
    pub(crate) fn elements(self, bridge: &str, subnets: &[IpNet]) -> Vec<Element> {
        let further = [(self.internal, &table::INTERNAL), (self.isolated, &table::ISOLATED)];
        let further = further.into_iter().filter(|(is, _)| *is).map(|(_, set)| of_bridge(set, bridge));
        let way = if self.unguarded { Vec::new() } else { Self::way(bridge, subnets, self.routed) };
        way.into_iter().chain(further).collect()
    }

    /// The elements that the bridge would have in other modes.
    pub(crate) fn of_others(self, bridge: &str, subnets: &[IpNet]) -> Vec<Element> {
        let further = [(self.internal, &table::INTERNAL), (self.isolated, &table::ISOLATED)];
        let further = further.into_iter().filter(|(is, _)| !*is).map(|(_, set)| of_bridge(set, bridge));
        let guard = self.unguarded.then(|| of_bridge(&table::SAME_BRIDGE, bridge));
        Self::way(bridge, subnets, !self.routed).into_iter().chain(further).chain(guard).collect()
    }
}

/// The element of a bridge in a set of interface pairs.
pub(crate) fn of_bridge(set: &Set, bridge: &str) -> Element {
    let key = vec![Value::Interface(bridge.to_owned()); 2];
    Element { set: set.name, key, data: Vec::new(), comment: None }
}

/// The mode of a bridge. None if no container uses the bridge.
///
/// # Errors
/// When the kernel does not answer.
pub fn mode(bridge: &str) -> Result<Option<Mode>, Error> {
    let failed =
        |source| Error::new("look for", format!("bridge {bridge:?} in table inet {}", crate::TABLE), source);
    let socket = Netfilter::of_this_thread().map_err(failed)?;
    let stands = |set: &Set| {
        let found = look_up(&socket, &of_bridge(set, bridge));
        found.map(|standing| standing.is_some()).map_err(failed)
    };
    let unguarded = !stands(&table::SAME_BRIDGE)?;
    if unguarded && !user::is_used(&socket, bridge).map_err(failed)? {
        return Ok(None);
    }
    Ok(Some(Mode {
        unguarded,
        routed: stands(&table::ROUTED)?,
        internal: stands(&table::INTERNAL)?,
        isolated: stands(&table::ISOLATED)?,
    }))
}
