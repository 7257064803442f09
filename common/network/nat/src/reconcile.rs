//! Compares the current table with the wanted one and computes the changes.

use std::collections::HashMap;

use ipnet::IpNet;
use netlink::{
    Error, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Refusal,
    attribute::{Attribute, covers, find, string},
    netfilter::{INET, Kind, Netfilter},
    transaction::{self, Change},
};
use nix::errno::Errno;

use crate::{
    TABLE,
    adopt::adopt,
    encode, mapping,
    mode::Mode,
    ruleset::{Element, Rule, Statement},
    table::{self, Closed},
    user::User,
};

/// The name of the whole table in error messages.
fn whole() -> String {
    format!("table inet {TABLE}")
}

fn change(kind: Kind, flags: u16, attributes: Vec<Attribute>, object: String) -> Change {
    Change::new(kind, INET, flags, attributes, object)
}

/// A change of one element.
pub(crate) fn of_element(kind: Kind, flags: u16, element: &Element) -> Change {
    let attributes = match kind {
        Kind::NewElement => encode::elements(element),
        _ => encode::element_key(element),
    };
    change(kind, flags, attributes, format!("element {} {{ {element} }} of {}", element.set, whole()))
}

/// Reads the ruleset and sends the changes, again while others change the ruleset in between.
pub(crate) fn transact(
    verb: &'static str,
    changes: impl Fn(&Netfilter) -> Result<Vec<Change>, Refusal>,
) -> Result<(), Error> {
    adopt().map_err(|refusal| Error::new("take over", format!("table ip {TABLE}"), refusal))?;
    transaction::transact(verb, &whole(), changes)
}

/// Sends the changes as one transaction.
///
/// # Errors
/// The first refusal, with the object of that change.
pub(crate) fn commit(
    socket: &Netfilter,
    generation: Option<u32>,
    changes: &[Change],
) -> Result<(), (String, Refusal)> {
    transaction::commit(socket, generation, changes, &whole())
}

/// The wanted state of a bridge in the table.
#[derive(Clone, Copy)]
pub(crate) struct Standing<'a> {
    pub(crate) bridge: &'a str,
    /// At most one subnet for each IP version.
    pub(crate) subnets: &'a [IpNet],
    /// The container that claims the bridge.
    pub(crate) user: Option<&'a User>,
    pub(crate) mode: Mode,
}

/// The changes that add what is missing of the table, the bridge and its mode. Empty if nothing is
/// missing.
pub(crate) fn missing(
    socket: &Netfilter,
    Standing { bridge, subnets, user, mode }: Standing<'_>,
    closed: Closed,
) -> Result<Vec<Change>, Refusal> {
    let Frame { new: none, mut changes } = frame(socket, closed)?;
    // A container of another run directory may use the bridge in another mode. A bridge has only
    // one mode.
    for element in mode.of_others(bridge, subnets).iter().filter(|_| !none) {
        if mapping::look_up(socket, element)?.is_some() {
            return Err(Errno::EEXIST.into());
        }
    }
    for element in table::bridge_elements(bridge, subnets, mode) {
        if none || mapping::look_up(socket, &element)?.is_none() {
            changes.push(of_element(Kind::NewElement, NLM_F_CREATE, &element));
        }
    }
    if let Some(user) = user {
        let element = user.element(bridge);
        let standing = if none { None } else { mapping::look_up(socket, &element)? };
        // The claim of another container makes the transaction fail.
        if !standing.is_some_and(|standing| standing.is(&element)) {
            changes.push(of_element(Kind::NewElement, NLM_F_CREATE | NLM_F_EXCL, &element));
        }
    }
    Ok(changes)
}

/// The table with its sets, chains and rules, without elements.
pub(crate) struct Frame {
    /// Whether the table does not exist.
    pub(crate) new: bool,
    /// The changes that add what is missing. Empty if nothing is missing.
    pub(crate) changes: Vec<Change>,
}

/// The changes that add what the table lacks, apart from elements.
pub(crate) fn frame(socket: &Netfilter, closed: Closed) -> Result<Frame, Refusal> {
    let mut changes = Vec::new();
    let table = socket.get(Kind::GetTable, INET, &encode::table()[..1])?;
    let none = table.is_none();
    // This also wakes a table that somebody made dormant.
    if table.is_none_or(|table| !covers(&table, &encode::table())) {
        changes.push(change(Kind::NewTable, NLM_F_CREATE, encode::table(), whole()));
    }
    let sets = if none { Vec::new() } else { socket.dump(Kind::GetSet, INET, &encode::table()[..1])? };
    let mut standing: HashMap<String, &Vec<u8>> =
        sets.iter().filter_map(|set| Some((string(find(set, 2)?), set))).collect();
    for (at, set) in table::SETS.into_iter().enumerate() {
        let wanted = encode::set(set, at as u32 + 1);
        let Some(standing) = standing.remove(set.name) else {
            let object = format!("{} {} of table inet {TABLE}", set.kind(), set.name);
            changes.push(change(Kind::NewSet, NLM_F_CREATE | NLM_F_EXCL, wanted, object));
            continue;
        };
        // Compare everything except the id, which only matters in the batch that makes the set.
        if !covers(standing, &wanted[..wanted.len() - 1]) {
            return Err(Errno::EEXIST.into());
        }
    }
    for chain in &table::CHAINS {
        let wanted = encode::chain(chain);
        let standing = if none { None } else { socket.get(Kind::GetChain, INET, &wanted[..2])? };
        match standing {
            Some(standing) if !covers(&standing, &wanted) => return Err(Errno::EEXIST.into()),
            Some(_) => {}
            None => {
                let object = format!("chain {} of table inet {TABLE}", chain.name);
                changes.push(change(Kind::NewChain, NLM_F_CREATE | NLM_F_EXCL, wanted, object));
            }
        }
    }
    let dumped = if none { Vec::new() } else { socket.dump(Kind::GetRule, INET, &encode::table()[..1])? };
    missing_rules(&dumped, closed, &mut changes);
    Ok(Frame { new: none, changes })
}

/// Whether the kernel's list contains this rule.
pub(crate) fn closes(dumped: &[Vec<u8>], rule: &Rule) -> bool {
    let wanted = [encode::expressions(rule)];
    dumped.iter().any(|found| covers(found, &wanted))
}

/// A chain whose rules differ in number, content or order is flushed and filled again in one
/// transaction. A host that was closed for another container stays closed.
fn missing_rules(dumped: &[Vec<u8>], closed: Closed, changes: &mut Vec<Change>) {
    let stands = |of| closes(dumped, &table::closing(of));
    let closed =
        Closed { v4: closed.v4 || stands(Statement::OfIpv4), v6: closed.v6 || stands(Statement::OfIpv6) };
    let rules = table::rules(closed);
    for chain in &table::CHAINS {
        let of_chain = |rule: &&Vec<u8>| find(rule, 2).is_some_and(|name| string(name) == chain.name);
        let standing: Vec<_> = dumped.iter().filter(of_chain).collect();
        let wanted: Vec<&Rule> = rules.iter().filter(|rule| rule.chain == chain.name).collect();
        let same = standing.len() == wanted.len()
            && standing.iter().zip(&wanted).all(|(found, rule)| covers(found, &[encode::expressions(rule)]));
        if same {
            continue;
        }
        if !standing.is_empty() {
            let object = format!("rules of chain {} of table inet {TABLE}", chain.name);
            changes.push(change(Kind::DelRule, 0, encode::in_chain(chain.name), object));
        }
        for rule in wanted {
            let object = format!("rule {} {rule} of table inet {TABLE}", rule.chain);
            changes.push(change(Kind::NewRule, NLM_F_CREATE | NLM_F_APPEND, encode::rule(rule), object));
        }
    }
}

/// The changes that remove a bridge, unless somebody else uses it (`shared`, or a claim in the
/// table).
///
/// They remove the bridge's elements, or the whole table if it has no other bridge. The user's
/// claim is removed in any case. On another program's bridge (`of_others`), which has containers
/// without IPv6 too, the IPv6 subnet is removed when nobody else has an address of it. A table with
/// other content than we make is not ours and stays.
pub(crate) fn surplus(
    socket: &Netfilter,
    Standing { bridge, subnets, user, mode }: Standing<'_>,
    shared: bool,
    of_others: bool,
) -> Result<Vec<Change>, Refusal> {
    let bridges = table::BRIDGES;
    let Some(standing) = socket.get(Kind::GetSet, INET, &encode::named(bridges.name))? else {
        return Ok(Vec::new());
    };
    let wanted = encode::set(&bridges, 0);
    if !covers(&standing, &wanted[..wanted.len() - 1]) {
        return Ok(Vec::new());
    }
    let nobody = User { holder: String::new(), mark: None, link: String::new(), claims: Default::default() };
    let by = user.unwrap_or(&nobody);
    let mut changes = Vec::new();
    if let Some(user) = user {
        let claim = user.element(bridge);
        if mapping::look_up(socket, &claim)?.is_some_and(|standing| standing.is(&claim)) {
            changes.push(of_element(Kind::DelElement, 0, &claim));
        }
    }
    // A guarded container of another run directory may have come at the same time, and left before.
    let mode = Mode { unguarded: false, ..mode };
    let mut ours = table::bridge_elements(bridge, subnets, mode);
    if shared || by.is_one_of_several(socket, Some(bridge))? {
        for subnet in subnets.iter().filter(|_| of_others) {
            let IpNet::V6(subnet6) = subnet else { continue };
            if by.has_neighbours(socket, *subnet6)? {
                continue;
            }
            let rest: Vec<_> = subnets.iter().copied().filter(|other| other != subnet).collect();
            let needed = table::bridge_elements(bridge, &rest, mode);
            ours.retain(|element| !needed.contains(element));
            changes.extend(removals(socket, ours)?);
            break;
        }
        return Ok(changes);
    }
    let our_keys: Vec<_> = ours.iter().map(|element| encode::first(&element.key)).collect();
    let others = mapping::keys(socket, table::BRIDGES.name)?;
    if others.iter().all(|key| our_keys.contains(key)) && !by.is_one_of_several(socket, None)? {
        let name = encode::table()[..1].to_vec();
        return Ok(vec![change(Kind::DelTable, 0, name, whole())]);
    }
    changes.extend(removals(socket, ours)?);
    Ok(changes)
}

/// The changes that remove those of the elements that exist.
fn removals(socket: &Netfilter, elements: Vec<Element>) -> Result<Vec<Change>, Refusal> {
    let mut changes = Vec::new();
    for element in elements {
        if mapping::look_up(socket, &element)?.is_some() {
            changes.push(of_element(Kind::DelElement, 0, &element));
        }
    }
    Ok(changes)
}
