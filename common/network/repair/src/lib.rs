//! Puts back what is missing of containers' networks, from the operations that their records list.
//!
//! The table of nf_tables, the links and their addresses are looked at as a whole, so that many containers take hardly longer
//! than one, and what containers share is compared once. Every other operation compares itself with the machine, and is applied
//! again where it is missing.

mod operation;

use std::{collections::HashSet, os::fd::OwnedFd};

use ::operation::{Condition, Error, Operation, Scope};
use nat::NatOperation;
use netlink::{LinkOperation, Picture};

pub use operation::NetworkOperation;

/// The tools whose steps make a network.
pub const TOOLS: [&str; 7] =
    ["netns-add", "netns-bridge", "bridge-attach", "veth-pair", "portmap", "egress-allow", "name-serve"];

/// The lock that these tools hold while they work.
pub const LOCK: &str = "network";

/// How far a repair goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What stands in the host's namespace. What a container changed in its own stays; only a link that has to be made again is
    /// made whole.
    Host,
    /// The containers' own namespaces as well.
    Whole,
}

/// What is done about something that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It is put back.
    Restore,
    /// The commands for it are told.
    Explain,
}

/// The network of a container, as its record lists it.
#[derive(Debug, Clone)]
pub struct Network<'a> {
    /// The container's id.
    pub id: String,
    /// The operations of its steps, in their order.
    pub operations: &'a [NetworkOperation],
}

/// What was found at a container's network.
#[derive(Debug, Default)]
pub struct Found {
    /// The container's id.
    pub id: String,
    /// What was missing, and stands now.
    pub restored: Vec<String>,
    /// What could not be put back, and why.
    pub failed: Vec<Error>,
    /// With [`Act::Explain`], the commands that would put back what is missing.
    pub commands: Vec<String>,
}

/// Compares the networks with the machine, and puts back what is missing. A container that cannot be repaired does not keep the
/// others from it. The caller holds the lock of the network.
///
/// # Errors
/// When the kernel does not say what stands.
pub fn repair(scope: &Scope, networks: &[Network<'_>], reach: Reach, act: Act) -> Result<Vec<Found>, Error> {
    let found = networks.iter().map(|network| Found { id: network.id.clone(), ..Found::default() }).collect();
    let mut repair =
        Repair { scope, reach, act, picture: Picture::default(), found, stopped: HashSet::new() };
    repair.table(networks)?;
    repair.picture = Picture::take()?;
    if repair.shared(networks) {
        // Bridges were made.
        repair.picture = Picture::take()?;
    }
    for (at, network) in networks.iter().enumerate() {
        repair.own(at, network);
    }
    repair.firewalls(networks);
    Ok(repair.found)
}

struct Repair<'a> {
    scope: &'a Scope,
    reach: Reach,
    act: Act,
    /// As it was before links were made.
    picture: Picture,
    found: Vec<Found>,
    /// The containers for which something failed. What comes later relies on it.
    stopped: HashSet<usize>,
}

impl Repair<'_> {
    fn fail(&mut self, at: usize, error: Error) {
        self.found[at].failed.push(error);
        self.stopped.insert(at);
    }

    /// The table of nf_tables: first, because it protects the host.
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

    /// Notes something that was missing.
    fn missing(&mut self, at: usize, operation: &impl Operation, what: String) {
        let found = &mut self.found[at];
        match self.act {
            Act::Restore => found.restored.push(what),
            Act::Explain => found.commands.extend(operation.explain()),
        }
    }

    /// What containers share: a bridge, its address, forwarding. It is the same for all of them, and compared once. Whether
    /// something was missing.
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

    /// What belongs to one container.
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
                // From here on the picture is old.
                Some(_) if made_again => None,
                Some(pair @ LinkOperation::VethAdd { name, .. }) => {
                    let here = self.picture.condition(pair);
                    made_again = self.picture.link(name).is_none();
                    match self.reach {
                        // A pair has two ends, or none.
                        Reach::Host => here,
                        Reach::Whole => here.filter(|here| *here != Condition::Present),
                    }
                }
                Some(link) => self.picture.condition(link),
                None => None,
            };
            self.restore(at, operation, known);
        }
    }

    /// The host's own firewall: last, because nothing else relies on it. It is asked once for each bridge.
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

    /// Applies the operation again if it is missing. `known` is what is known about it already.
    fn restore(&mut self, at: usize, operation: &NetworkOperation, known: Option<Condition>) {
        let condition = match known.map_or_else(|| operation.check(self.scope), Ok) {
            Ok(condition) => condition,
            Err(error) => return self.fail(at, error),
        };
        match condition {
            Condition::Present => {}
            Condition::Different(what) => self.fail(at, differs(what)),
            // Its processes are in the one that was there: another would be a network of nobody.
            Condition::Missing(what) if operation.is_namespace() => {
                let hint = "unwind the container, and start it again";
                self.fail(at, Error::caused_by(Unlike::Gone(what)).with_hint(hint));
            }
            Condition::Missing(what) if self.act == Act::Explain => self.missing(at, operation, what),
            Condition::Missing(what) => match operation.clone().apply(self.scope) {
                Ok(()) => self.missing(at, operation, what),
                Err(error) => self.fail(at, error),
            },
        }
    }
}

/// The operations in their order. But the link of a container that is restricted to a list comes up right after what restricts it: before
/// Linux 6.16 the rules at a link go with it, and nothing gets out meanwhile. What follows may fail, and leaves the link up.
fn in_order(operations: &[NetworkOperation]) -> impl Iterator<Item = &NetworkOperation> {
    let restricted = operations.iter().rposition(NetworkOperation::is_restriction).map_or(0, |last| last + 1);
    let (before, after) = operations.split_at(restricted);
    let (late, early): (Vec<_>, Vec<_>) = before.iter().partition(|operation| operation.sets_link_up());
    early.into_iter().chain(late).chain(after)
}

/// Connections to the processes that belong to the networks, one to each process. It hangs up when its process ends.
pub fn residents(networks: &[Network<'_>]) -> Vec<OwnedFd> {
    let operations = || networks.iter().flat_map(|network| network.operations);
    let own = operations().filter(|operation| !operation.has_common_resident());
    let common = operations().find(|operation| operation.has_common_resident());
    own.chain(common).filter_map(NetworkOperation::resident).collect()
}

/// What cannot be put back.
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

    /// Its operations on the table.
    fn nat(&self) -> impl Iterator<Item = NatOperation> {
        self.operations.iter().filter_map(NetworkOperation::nat).cloned()
    }

    /// The bridges that it uses, by their names.
    pub fn bridges(&self) -> impl Iterator<Item = &str> {
        self.operations.iter().filter_map(|operation| match operation.nat() {
            Some(NatOperation::Bridge { bridge, .. }) => Some(bridge.as_str()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use egress::EgressOperation;
    use hold::HoldOperation;
    use netlink::{Mac, Mark};

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
}
