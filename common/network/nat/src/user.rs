//! Claims on what all containers in a network namespace share. The bridge, its rules and
//! `ip_forward` are the same for all run directories of a host. So each container puts its claims
//! into the table itself, in one transaction with what it needs there.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
};

use ipnet::Ipv6Net;
use netlink::{
    Error, Mark, NLM_F_CREATE, NLM_F_EXCL, Refusal,
    netfilter::{Kind, Netfilter},
    transaction::retry,
};
use operation::{Condition, Operation, Scope};
use serde::{Deserialize, Serialize};

use crate::{
    TABLE,
    adopt::adopt,
    encode, mapping,
    reconcile::{of_element, transact},
    ruleset::{Element, Value},
    table::{self, address_element},
};

/// A container that uses a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The container's id.
    pub holder: String,
    /// The mark of the container, which is the comment of its claim. None for an earlier version, whose
    /// claim has the id: another run directory may have a container with the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// The link that attaches the container to the bridge. Its name is unique in the network
    /// namespace.
    pub link: String,
    /// The directory of the claims on the bridge below `--run-dir`. An earlier version has its
    /// claims only there.
    pub claims: PathBuf,
}

impl User {
    /// The comment of the claim.
    fn comment(&self) -> String {
        self.mark.as_ref().map_or_else(|| self.holder.clone(), Mark::alias)
    }

    /// The element that claims the bridge.
    pub(crate) fn element(&self, bridge: &str) -> Element {
        let key = [bridge, &self.link].map(|name| Value::Interface(name.to_owned())).to_vec();
        Element { set: table::USERS.name, key, data: Vec::new(), comment: Some(self.comment()) }
    }

    /// Whether another container uses the bridge, or, with None, any bridge.
    pub(crate) fn is_one_of_several(
        &self,
        socket: &Netfilter,
        bridge: Option<&str>,
    ) -> Result<bool, Refusal> {
        let name = |bridge: &str| encode::first(&[Value::Interface(bridge.to_owned())]);
        let (bridge, own, comment) = (bridge.map(name), name(&self.link), self.comment());
        let users = mapping::elements(socket, table::USERS.name)?;
        Ok(users.iter().any(|(key, holder)| {
            let (used, link) = key.split_at(own.len().min(key.len()));
            let is_own = link == own && holder.as_ref() == Some(&comment);
            !is_own && bridge.as_ref().is_none_or(|bridge| used == bridge)
        }))
    }

    /// Whether another container has an address of the subnet.
    pub(crate) fn has_neighbours(&self, socket: &Netfilter, subnet: Ipv6Net) -> Result<bool, Refusal> {
        let addresses = mapping::elements(socket, table::ADDRESSES6.name)?;
        Ok(addresses.iter().any(|(key, holder)| {
            let address = key.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
            *holder != Some(self.holder.clone()) && address.is_some_and(|address| subnet.contains(&address))
        }))
    }
}

/// An operation on something that the containers of a network namespace share. Undo does nothing
/// while another container claims the bridge in the table, or any bridge if `bridge` is None.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used<O> {
    /// The container that it was applied for.
    pub user: User,
    /// The bridge. None for something that all bridges share.
    #[serde(default, rename = "usedBridge", skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// If set, only containers with an address of this subnet need the operation.
    #[serde(default, rename = "usedSubnet", skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Ipv6Net>,
    /// Whether the operation is only undone, by the last container: this one does not need it, but an
    /// earlier one may have.
    #[serde(default, rename = "usedBefore", skip_serializing_if = "std::ops::Not::not")]
    pub only_undone: bool,
    /// The operation. Its `apply` succeeds if the object exists already.
    #[serde(flatten)]
    pub operation: O,
}

impl<O> Used<O> {
    /// Wraps an operation for `user`, on this bridge, or on what all bridges share.
    pub fn new(user: &User, bridge: Option<&str>, operation: O) -> Self {
        Self {
            user: user.clone(),
            bridge: bridge.map(str::to_owned),
            subnet: None,
            only_undone: false,
            operation,
        }
    }

    /// Limits the operation to containers with an address of this subnet.
    pub fn by_subnet(self, subnet: Ipv6Net) -> Self {
        Self { subnet: Some(subnet), ..self }
    }

    /// Limits the operation to its undo.
    pub fn only_undone(self) -> Self {
        Self { only_undone: true, ..self }
    }
}

impl<O: Operation> Operation for Used<O> {
    fn explain(&self) -> Vec<String> {
        if self.only_undone { Vec::new() } else { self.operation.explain() }
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), operation::Error> {
        if self.only_undone { Ok(()) } else { self.operation.apply(scope) }
    }

    fn undo(&self, scope: &Scope) -> Result<(), operation::Error> {
        let failed = |refusal| Error::new("list", format!("users of table inet {TABLE}"), refusal);
        adopt().map_err(failed)?;
        let several = retry(|| {
            let socket = Netfilter::of_this_thread()?;
            match self.subnet {
                Some(subnet) => self.user.has_neighbours(&socket, subnet),
                None => self.user.is_one_of_several(&socket, self.bridge.as_deref()),
            }
        });
        match several.map_err(failed)? {
            true => Ok(()),
            false => self.operation.undo(scope),
        }
    }

    fn check(&self, scope: &Scope) -> Result<Condition, operation::Error> {
        if self.only_undone { Ok(Condition::Present) } else { self.operation.check(scope) }
    }
}

/// Whether a container claims the bridge. False without the table.
pub(crate) fn is_used(socket: &Netfilter, bridge: &str) -> Result<bool, Refusal> {
    let name = encode::first(&[Value::Interface(bridge.to_owned())]);
    let users = mapping::standing_if_any(socket, table::USERS.name)?;
    Ok(users.iter().any(|(key, _)| key.starts_with(&name)))
}

/// The container that has the address, in whichever run directory.
///
/// # Errors
/// When the kernel does not answer.
pub fn address_holder(address: IpAddr) -> Result<Option<String>, Error> {
    let failed =
        |refusal| Error::new("look for", format!("address {address} in table inet {TABLE}"), refusal);
    let socket = Netfilter::of_this_thread().map_err(failed)?;
    let standing = mapping::look_up(&socket, &address_element(address, "")).map_err(failed)?;
    Ok(standing.map(|standing| standing.comment.unwrap_or_default()))
}

/// Claims the address. Replaces the claim of `instead_of`, if that container has the address.
pub(crate) fn claim_address(address: IpAddr, holder: &str, instead_of: Option<&str>) -> Result<(), Error> {
    let element = address_element(address, holder);
    transact("add", |socket| {
        let add = of_element(Kind::NewElement, NLM_F_CREATE | NLM_F_EXCL, &element);
        let standing = mapping::look_up(socket, &element)?;
        Ok(match standing.map(|standing| standing.comment.unwrap_or_default()) {
            Some(has) if has == holder => vec![],
            Some(has) if Some(has.as_str()) == instead_of => {
                vec![of_element(Kind::DelElement, 0, &element), add]
            }
            _ => vec![add],
        })
    })
}

/// Removes the claim on the address, if this container has it, and all links from and to it: the
/// next container with this address must not have them.
pub(crate) fn release_address(address: IpAddr, holder: &str) -> Result<(), Error> {
    let element = address_element(address, holder);
    transact("remove", |socket| {
        let standing = mapping::look_up(socket, &element)?;
        if !standing.is_some_and(|standing| standing.is(&element)) {
            return Ok(vec![]);
        }
        let mut changes = vec![of_element(Kind::DelElement, 0, &element)];
        changes.extend(
            mapping::links_of(socket, address)?.iter().map(|link| of_element(Kind::DelElement, 0, link)),
        );
        Ok(changes)
    })
}
