//! Restores what is missing of containers' networks, from the operations in their records.
//!
//! The nf_tables table, the links and their addresses are read as a whole, so many containers take
//! hardly longer than one. What containers share is compared once. Every other operation is
//! compared with the machine on its own, and applied again if it is missing.

mod operation;

use std::{collections::HashSet, os::fd::OwnedFd};

use ::operation::{Condition, Error, Operation, Scope};
use nat::NatOperation;
use netlink::{LinkOperation, Picture};

pub use operation::NetworkOperation;

/// The name of the lock that the tools of a network hold while they work.
pub const LOCK: &str = "network";

/// What a repair covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only the host's namespace. What a container changed in its own namespace stays, except that
    /// a link which has to be made again is completed.
    Host,
    /// Also the containers' own namespaces.
    Whole,
}

/// What to do about something that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Restore it.
    Restore,
    /// Report the commands that would restore it.
    Explain,
}

/// The network of a container, from its record.
#[derive(Debug, Clone)]
pub struct Network<'a> {
    /// The container's id.
    pub id: String,
    /// The operations of its steps, in order.
    pub operations: &'a [NetworkOperation],
}

/// The result for one container's network.
#[derive(Debug, Default)]
pub struct Found {
    /// The container's id.
    pub id: String,
    /// What was missing and has been restored.
    pub restored: Vec<String>,
    /// What could not be restored, and why.
    pub failed: Vec<Error>,
    /// With [`Act::Explain`], the commands that would restore what is missing.
    pub commands: Vec<String>,
}

/// Compares the networks with the machine, and restores what is missing. A container that cannot be
/// repaired does not stop the others. The caller must hold the lock [`LOCK`].
///
/// # Errors
/// When the kernel's state cannot be read.
pub fn repair(scope: &Scope, networks: &[Network<'_>], reach: Reach, act: Act) -> Result<Vec<Found>, Error> {
    let found = networks.iter().map(|network| Found { id: network.id.clone(), ..Found::default() }).collect();
    let mut repair =
        Repair { scope, reach, act, picture: Picture::default(), found, stopped: HashSet::new() };
    if act == Act::Restore {
        networks.iter().enumerate().for_each(|(at, network)| repair.restrict(at, network));
    }
    repair.table(networks)?;
    repair.picture = Picture::take()?;
    if repair.shared(networks) {
        // Bridges may have been made.
        repair.picture = Picture::take()?;
    }
    for (at, network) in networks.iter().enumerate() {
        repair.own(at, network);
    }
    repair.firewalls(networks);
    Ok(repair.found)
}

/// Makes the nf_tables table again for all containers if somebody removed it ([`nat::restore`]), and before that the
/// tables that restrict containers to lists, which may have gone with it. `recorded` gives the operations of all
/// records.
///
/// # Errors
/// As [`nat::restore`].
pub fn restore<E: From<netlink::Error>>(
    scope: &Scope,
    recorded: impl FnOnce() -> Result<Vec<NetworkOperation>, E>,
) -> Result<(), E> {
    nat::restore(scope, || {
        let operations = recorded()?;
        // Without its link, a container reaches nothing.
        for (.., made) in lists(scope, &operations) {
            if let Err(error) = made {
                ::operation::note(&error.to_string());
            }
        }
        Ok(operations.iter().filter_map(NetworkOperation::nat).cloned().collect())
    })
}

/// Restores the lists that are missing. Returns each with what was missing, and whether it could be restored.
fn lists<'a>(
    scope: &Scope,
    operations: &'a [NetworkOperation],
) -> impl Iterator<Item = (&'a NetworkOperation, String, Result<(), Error>)> {
    operations.iter().filter(|operation| operation.is_list()).filter_map(|operation| {
        match operation.check(scope) {
            Ok(Condition::Missing(what)) => Some((operation, what, operation.clone().apply(scope))),
            _ => None,
        }
    })
}

struct Repair<'a> {
    scope: &'a Scope,
    reach: Reach,
    act: Act,
    /// The state before links were made.
    picture: Picture,
    found: Vec<Found>,
    /// The indexes of containers for which an operation failed. Later operations depend on it and
    /// are skipped.
    stopped: HashSet<usize>,
}

impl Repair<'_> {
    fn fail(&mut self, at: usize, error: Error) {
        self.found[at].failed.push(error);
        self.stopped.insert(at);
    }

    /// Restores what restricts the container to a list, before the table gives it its way out. If its link is
    /// missing too, this is done when the link is there.
    fn restrict(&mut self, at: usize, network: &Network<'_>) {
        for (operation, what, made) in lists(self.scope, network.operations) {
            if made.is_ok() {
                self.missing(at, operation, what);
            }
        }
    }

    /// Repairs the nf_tables table. It comes before the links, because it protects the host.
    fn table(&mut self, networks: &[Network<'_>]) -> Result<(), Error> {
        let all = || networks.iter().enumerate();
        let of = |(at, network)| std::iter::repeat(at).zip(Network::nat(network));
        let (holders, mut operations): (Vec<usize>, Vec<NatOperation>) = all().flat_map(of).unzip();
        if operations.is_empty() {
            return Ok(());
        }
        let mended = match self.act {
            Act::Restore => nat::mend(self.scope, &mut operations)?,
            Act::Explain => nat::conditions(&operations)?.into_iter().map(Ok).collect(),
        };
        for ((at, operation), mended) in holders.into_iter().zip(&operations).zip(mended) {
            match mended {
                Ok(Condition::Present) => {}
                Ok(Condition::Missing(what)) => self.missing(at, operation, what),
                Ok(Condition::Different(what)) => self.found[at].failed.push(differs(what)),
                Err(error) => self.found[at].failed.push(error),
            }
        }
        Ok(())
    }

    /// Records something that was missing.
    fn missing(&mut self, at: usize, operation: &impl Operation, what: String) {
        let found = &mut self.found[at];
        match self.act {
            Act::Restore => found.restored.push(what),
            Act::Explain => found.commands.extend(operation.explain()),
        }
    }

    /// Repairs what containers share, such as a bridge, its address, its VXLAN and the VXLAN's
    /// senders and entries, a VLAN, and forwarding. Each is compared once for all containers. Returns whether something was missing.
    fn shared(&mut self, networks: &[Network<'_>]) -> bool {
        let restored = |found: &[Found]| found.iter().map(|found| found.restored.len()).sum::<usize>();
        let before = restored(&self.found);
        let mut seen = HashSet::new();
        for (at, network) in networks.iter().enumerate() {
            for operation in network.operations.iter().filter(|operation| operation.is_shared()) {
                if !self.stopped.contains(&at) && operation.is_first(&mut seen) {
                    let known = operation.link().and_then(|link| self.picture.condition(link));
                    self.restore(at, operation, known);
                }
            }
        }
        restored(&self.found) != before
    }

    /// Repairs what belongs to one container.
    fn own(&mut self, at: usize, network: &Network<'_>) {
        let mut made_again = false;
        for operation in in_order(network.operations) {
            let is_done = operation.is_shared() || operation.nat().is_some() || operation.is_firewall();
            if is_done || self.stopped.contains(&at) {
                continue;
            }
            let inside = operation.is_inside();
            if inside && self.reach == Reach::Host && !made_again {
                continue;
            }
            let known = match operation.link() {
                // The snapshot is outdated from here on.
                Some(_) if made_again => None,
                Some(pair @ LinkOperation::VethAdd { name, .. }) => {
                    let here = self.picture.condition(pair);
                    made_again = self.picture.link(name).is_none();
                    match self.reach {
                        // If one end of a veth pair exists, so does the other.
                        Reach::Host => here,
                        Reach::Whole => here.filter(|here| *here != Condition::Present),
                    }
                }
                Some(LinkOperation::ChildAdd { .. }) => match operation.check(self.scope) {
                    Ok(there) => {
                        made_again = matches!(there, Condition::Missing(_));
                        Some(there)
                    }
                    Err(error) => {
                        self.fail(at, error);
                        continue;
                    }
                },
                Some(link) => self.picture.condition(link),
                None => None,
            };
            self.restore(at, operation, known);
        }
    }

    /// Repairs the rules in the host's own firewall, once for each bridge. They come last, because
    /// nothing depends on them.
    fn firewalls(&mut self, networks: &[Network<'_>]) {
        let mut seen = HashSet::new();
        for (at, network) in networks.iter().enumerate() {
            for operation in network.operations.iter().filter(|operation| operation.is_firewall()) {
                if operation.is_first(&mut seen) {
                    self.restore(at, operation, None);
                }
            }
        }
    }

    /// Applies the operation again if it is missing. `known` is its condition, if that is known
    /// already.
    fn restore(&mut self, at: usize, operation: &NetworkOperation, known: Option<Condition>) {
        let condition = match known.map_or_else(|| operation.check(self.scope), Ok) {
            Ok(condition) => condition,
            Err(error) => return self.fail(at, error),
        };
        match condition {
            Condition::Present => {}
            Condition::Different(what) => self.fail(at, differs(what)),
            // The container's processes are in the old namespace. A new one would be empty.
            Condition::Missing(what) if operation.is_namespace() => self.name_again(at, operation, what),
            Condition::Missing(what) if self.act == Act::Explain => self.missing(at, operation, what),
            Condition::Missing(what) => match operation.clone().apply(self.scope) {
                Ok(()) => self.missing(at, operation, what),
                Err(error) => self.fail(at, error),
            },
        }
    }
}

impl Repair<'_> {
    /// Gives the container's namespace its name again, if it still exists.
    fn name_again(&mut self, at: usize, operation: &NetworkOperation, what: String) {
        // net-guard leaves a container's own namespace alone.
        let named = match (&self.act, &self.reach) {
            (Act::Restore, Reach::Whole) => operation.name_again(self.scope),
            _ => Ok(false),
        };
        match named {
            Ok(true) => self.missing(at, operation, what),
            Ok(false) => {
                let hint = "unwind the container, and start it again";
                self.fail(at, Error::caused_by(Unlike::Gone(what)).with_hint(hint));
            }
            Err(error) => self.fail(at, error),
        }
    }
}

/// The operations in order, with one exception: the link of a container restricted to a list is set
/// up right after the restriction. Before Linux 6.16, the rules at a link are removed with the
/// link. So a link that is made again stays down until they are back, and nothing gets out. The
/// operations after that may fail; the link stays up then.
fn in_order(operations: &[NetworkOperation]) -> impl Iterator<Item = &NetworkOperation> {
    let restricted = operations.iter().rposition(NetworkOperation::is_restriction).map_or(0, |last| last + 1);
    let (before, after) = operations.split_at(restricted);
    let (late, early): (Vec<_>, Vec<_>) = before.iter().partition(|operation| operation.sets_link_up());
    early.into_iter().chain(late).chain(after)
}

/// A connection to each process that belongs to the networks. It hangs up when the process ends.
pub fn residents(networks: &[Network<'_>]) -> Vec<OwnedFd> {
    let operations = || networks.iter().flat_map(|network| network.operations);
    let own = operations().filter(|operation| !operation.has_common_resident());
    let common = operations().find(|operation| operation.has_common_resident());
    own.chain(common).filter_map(NetworkOperation::resident).collect()
}

/// Why something cannot be restored.
#[derive(Debug, thiserror::Error)]
enum Unlike {
    #[error("differs: {0}")]
    Different(String),
    #[error("missing: {0}")]
    Gone(String),
}

fn differs(what: String) -> Error {
    Error::caused_by(Unlike::Different(what))
}

impl<'a> Network<'a> {
    /// The network of the container `id`.
    pub fn new(id: &str, operations: &'a [NetworkOperation]) -> Self {
        Self { id: id.to_owned(), operations }
    }

    /// Its operations on the nf_tables table.
    fn nat(&self) -> impl Iterator<Item = NatOperation> {
        self.operations.iter().filter_map(NetworkOperation::nat).cloned()
    }

    /// The names of its bridges.
    pub fn bridges(&self) -> impl Iterator<Item = &str> {
        self.operations.iter().filter_map(|operation| match operation.nat() {
            Some(NatOperation::Bridge { bridge, .. }) => Some(bridge.as_str()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use egress::EgressOperation;
    use hold::HoldOperation;
    use netlink::{Mac, Mark};
    use peers::PeersOperation;

    use super::*;

    #[test]
    fn a_restricted_link_comes_up_right_after_its_list() {
        let up = || -> NetworkOperation {
            LinkOperation::LinkUp { namespace: None, link: "v".to_owned(), mac: Mac([2, 0, 0, 0, 0, 1]) }
                .into()
        };
        let hold = || -> NetworkOperation {
            let holder = "a".to_owned();
            HoldOperation { holder, ports: Vec::new(), reserved: Vec::new(), by_program: false }.into()
        };
        let list = || -> NetworkOperation {
            let (holder, mark) = ("a".to_owned(), Mark::new("a", None));
            let (links, allow) = (Vec::new(), Vec::new());
            EgressOperation::Table { holder, mark, links, allow, group: 0, learn: false }.into()
        };
        let order = |operations: &[NetworkOperation]| -> String {
            let kind = |operation: &NetworkOperation| match operation {
                NetworkOperation::Egress(_) => 'e',
                NetworkOperation::Link(_) => 'u',
                _ => 'h',
            };
            in_order(operations).map(kind).collect()
        };
        assert_eq!(order(&[up(), hold(), list(), hold()]), "heuh");
        assert_eq!(order(&[up(), list(), hold(), up()]), "euhu");
        assert_eq!(order(&[up(), hold()]), "uh");
    }

    #[test]
    fn entries_are_compared_once_for_all_containers_of_a_network() {
        let entries = |bridge: &str| -> NetworkOperation {
            let (list, link) = (peers::path(Path::new("/run/stave"), bridge), netlink::vxlan_name(bridge));
            PeersOperation::Entries { bridge: bridge.to_owned(), list, link }.into()
        };
        let mut seen = HashSet::new();
        let all = [entries("front"), entries("front"), entries("back")];
        assert!(all.iter().all(NetworkOperation::is_shared));
        assert_eq!(all.map(|operation| operation.is_first(&mut seen)), [true, false, true]);
    }
}
