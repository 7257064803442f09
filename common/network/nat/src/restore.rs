//! Restores the table after somebody else removed it, or a part of it, as `nft flush ruleset` does.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use netlink::{
    Error, NLM_F_CREATE, NLM_F_EXCL, Refusal,
    netfilter::{INET, Kind, Netfilter},
    transaction::{Change, retry},
};
use nix::errno::Errno;
use operation::{Condition, Operation, Scope};

use crate::{
    Mapping, NatOperation, TABLE,
    adopt::adopt,
    conntrack, encode,
    mapping::{self, Standing},
    reconcile::{Frame, commit, frame, of_element},
    ruleset::Element,
    table::{self, Closed},
};

/// Makes the table again for all containers if it is gone: applies the operations that `recorded`
/// lists. An operation that cannot be applied is reported, and the others are applied anyway.
///
/// # Errors
/// When the kernel does not say whether the table exists; the errors of `recorded`.
pub fn restore<E: From<Error>>(
    scope: &Scope,
    recorded: impl FnOnce() -> Result<Vec<NatOperation>, E>,
) -> Result<(), E> {
    adopt().map_err(|refusal| Error::new("take over", format!("table ip {TABLE}"), refusal))?;
    let look = || Netfilter::of_this_thread()?.get(Kind::GetTable, INET, &encode::table()[..1]);
    let table = look().map_err(|refusal| Error::new("look for", format!("table inet {TABLE}"), refusal))?;
    if table.is_some() {
        return Ok(());
    }
    let mut operations = recorded()?;
    if operations.is_empty() {
        return Ok(());
    }
    operation::note(&format!("table inet {TABLE} was gone: it is made again for all containers"));
    for mended in mend(scope, &mut operations)? {
        match mended {
            Err(error) => operation::note(&error.to_string()),
            Ok(Condition::Different(what)) => operation::note(&format!("differs: {what}")),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// The condition of each operation, in the same order. The table is read once for all of them.
///
/// # Errors
/// When the kernel does not answer.
pub fn conditions(operations: &[NatOperation]) -> Result<Vec<Condition>, Error> {
    let failed = |refusal| Error::new("look for", format!("table inet {TABLE}"), refusal);
    let socket = Netfilter::of_this_thread().map_err(failed)?;
    let look = retry(|| compare(&socket, operations)).map_err(failed)?;
    Ok(look.conditions)
}

/// Adds what is missing of these operations in one transaction. Returns the condition of each
/// operation before that. If the transaction is refused, each operation is applied on its own, and
/// one that fails does not stop the others.
///
/// # Errors
/// When the kernel does not answer.
pub fn mend(
    scope: &Scope,
    operations: &mut [NatOperation],
) -> Result<Vec<Result<Condition, operation::Error>>, Error> {
    let failed = |refusal| Error::new("look for", format!("table inet {TABLE}"), refusal);
    let socket = Netfilter::of_this_thread().map_err(failed)?;
    adopt().map_err(failed)?;
    let attempt = || -> Result<(Compared, bool), Refusal> {
        let generation = socket.generation()?;
        let compared = compare(&socket, operations)?;
        if takes_from_others(&socket, operations, &compared.conditions)? {
            return Ok((compared, false));
        }
        match commit(&socket, Some(generation), &compared.changes) {
            Err((_, refusal)) if refusal.errno == Errno::ERESTART => Err(refusal),
            made => Ok((compared, made.is_ok())),
        }
    };
    let (Compared { conditions, added, .. }, made) = retry(attempt).map_err(failed)?;
    let mut mended: Vec<_> = conditions.into_iter().map(Ok).collect();
    let missing = |condition: &Result<_, _>| matches!(condition, Ok(Condition::Missing(_)));
    if made {
        for (operation, mended) in operations.iter().zip(&mut mended).filter(|(_, mended)| missing(mended)) {
            let NatOperation::Publish { holder, mappings } = operation else { continue };
            // The connections of elements that were never missing stay.
            let is_added = |mapping: &&Mapping| {
                let element = table::mapping_element(mapping, holder);
                added.contains(&(element.set, encode::first(&element.key)))
            };
            let mut forgotten = mappings.iter().filter(is_added);
            if let Err(refusal) = forgotten.try_for_each(|mapping| conntrack::forget_before(&socket, mapping))
            {
                *mended = Err(Error::new("forget", "connections to the published ports", refusal).into());
            }
        }
        return Ok(mended);
    }
    let mut order: Vec<usize> = (0..operations.len()).filter(|at| missing(&mended[*at])).collect();
    order.sort_by_key(|at| match operations[*at] {
        NatOperation::Bridge { .. } => 0,
        NatOperation::Address { .. } => 1,
        NatOperation::Publish { .. } | NatOperation::Open { .. } => 2,
        NatOperation::Link { .. } | NatOperation::Links { .. } => 2,
    });
    for at in order {
        if let Err(error) = operations[at].apply(scope) {
            mended[at] = Err(error);
        }
    }
    Ok(mended)
}

/// Whether a missing operation needs a port that another container has in another map by now.
fn takes_from_others(
    socket: &Netfilter,
    operations: &[NatOperation],
    conditions: &[Condition],
) -> Result<bool, Refusal> {
    let missing: Vec<_> = operations
        .iter()
        .zip(conditions)
        .filter_map(|(operation, condition)| match (operation, condition) {
            (NatOperation::Publish { holder, mappings }, Condition::Missing(_)) => Some((holder, mappings)),
            _ => None,
        })
        .collect();
    let published = if missing.is_empty() { Vec::new() } else { mapping::all(socket)? };
    Ok(missing.iter().any(|(holder, mappings)| {
        let of_others = || published.iter().filter(|one| one.holder.as_ref() != Some(*holder));
        of_others().any(|one| mappings.iter().any(|mapping| one.collides(mapping)))
    }))
}

/// The result of comparing operations with the table.
struct Compared {
    /// The condition of each operation.
    conditions: Vec<Condition>,
    /// The changes that add what is missing.
    changes: Vec<Change>,
    /// The elements among these changes, by set and key.
    added: HashSet<(&'static str, Vec<u8>)>,
}

/// The elements of the table, by set and key.
fn standing(socket: &Netfilter) -> Result<HashMap<(&'static str, Vec<u8>), Standing>, Refusal> {
    let mut standing = HashMap::new();
    for set in table::SETS {
        let elements = mapping::standing_if_any(socket, set.name)?.into_iter();
        standing.extend(elements.map(|(key, is)| ((set.name, key), is)));
    }
    Ok(standing)
}

/// The addresses that these operations claim, each with its container.
fn claimed(operations: &[NatOperation]) -> HashSet<(IpAddr, &str)> {
    let one = |operation| match operation {
        &NatOperation::Address { address, ref holder, .. } => Some((address, holder.as_str())),
        _ => None,
    };
    operations.iter().filter_map(one).collect()
}

/// Compares the operations with the table, and lists the changes that add what is missing.
fn compare(socket: &Netfilter, operations: &[NatOperation]) -> Result<Compared, Refusal> {
    let all = || operations.iter().map(NatOperation::closed);
    let closed = Closed { v4: all().any(|closed| closed.v4), v6: all().any(|closed| closed.v6) };
    let Frame { new, mut changes } = match frame(socket, closed) {
        Err(refusal) if refusal.errno == Errno::EEXIST => {
            let different = format!("table inet {TABLE} is not as this version makes it");
            let conditions = vec![Condition::Different(different); operations.len()];
            return Ok(Compared { conditions, changes: Vec::new(), added: HashSet::new() });
        }
        frame => frame?,
    };
    let frame = changes.first().map(|change| change.object.clone());
    let standing = if new { HashMap::new() } else { standing(socket)? };
    // Two containers on one bridge share its elements.
    let mut added: HashMap<(&'static str, Vec<u8>), Element> = HashMap::new();
    let mut first_of = HashSet::new();
    let claims = claimed(operations);
    // A link is over when nobody claims it, or one of its containers has another address.
    let has = |(address, id): (IpAddr, &str)| {
        let element = table::address_element(address, id);
        let standing = standing.get(&(element.set, encode::first(&element.key)));
        standing.map_or_else(|| claims.contains(&(address, id)), |standing| standing.is(&element))
    };
    let conditions = operations.iter().map(|operation| {
        if !operation.is_claimed()? || !operation.linked().all(has) {
            return Ok(Condition::Present);
        }
        let mut missing = match operation {
            // Only the first operation of a bridge reports what is missing of the shared table.
            NatOperation::Bridge { bridge, .. } if first_of.insert(bridge) => frame.clone(),
            _ => None,
        };
        for element in operation.elements() {
            let key = (element.set, encode::first(&element.key));
            let object = || format!("element {} {{ {element} }} of table inet {TABLE}", element.set);
            match (standing.get(&key), added.get(&key)) {
                // A bridge's own elements have no comment and are not compared.
                (Some(found), _) if element.comment.is_none() || found.is(&element) => {}
                (Some(_), _) => return Ok(Condition::Different(object())),
                (None, Some(other)) if *other != element => return Ok(Condition::Different(object())),
                (None, Some(_)) => {
                    missing.get_or_insert_with(object);
                }
                (None, None) => {
                    missing.get_or_insert_with(object);
                    let exclusive = if element.comment.is_some() { NLM_F_EXCL } else { 0 };
                    changes.push(of_element(Kind::NewElement, NLM_F_CREATE | exclusive, &element));
                    added.insert(key, element);
                }
            }
        }
        Ok(missing.map_or(Condition::Present, Condition::Missing))
    });
    let conditions = conditions.collect::<Result<_, Refusal>>()?;
    Ok(Compared { conditions, changes, added: added.into_keys().collect() })
}
