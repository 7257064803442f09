//! Takes over the table of versions before 0.2, whose family was `ip`. Its content is moved and the
//! table removed in one transaction. Containers of such a version keep their connections and are
//! undone like new ones.

use netlink::{
    NLM_F_CREATE, Refusal,
    attribute::{Attribute, covers, find, read},
    netfilter::{INET, IPV4, Kind, Netfilter},
    transaction::{self, Change, retry},
};
use nix::errno::Errno;

use crate::{
    TABLE, encode,
    reconcile::{Frame, closes, frame},
    table::{self, Closed},
};

/// The attributes of an element that are copied: key, value, flags, comment, and the end of its
/// range (NFTA_SET_ELEM_…).
const KEPT: [u16; 5] = [1, 2, 3, 6, 10];
const LIST_ELEM: u16 = 1;
const ELEMENTS: u16 = 3;
/// How many elements go into one message. A message has at most 64 KiB.
const TOGETHER: usize = 200;

/// Takes over the table of an earlier version, if there is one. A table with other content than we
/// make is not ours.
pub(crate) fn adopt() -> Result<(), Refusal> {
    let socket = Netfilter::of_this_thread()?;
    let attempt = || -> Result<(), Refusal> {
        let is_there = socket.get(Kind::GetTable, IPV4, &encode::table()[..1])?.is_some();
        if !is_there {
            return Ok(());
        }
        let generation = socket.generation()?;
        let changes = changes(&socket)?;
        transaction::commit(&socket, Some(generation), &changes, &former()).map_err(|(_, refusal)| refusal)
    };
    retry(attempt)
}

fn former() -> String {
    format!("table ip {TABLE}")
}

fn is_ours(socket: &Netfilter) -> Result<bool, Refusal> {
    let bridges = &table::BRIDGES;
    let wanted = encode::set(bridges, 0);
    let standing = socket.get(Kind::GetSet, IPV4, &encode::named(bridges.name))?;
    // Compare everything except the id, which only matters in the batch that makes the set.
    Ok(standing.is_some_and(|standing| covers(&standing, &wanted[..wanted.len() - 1])))
}

fn changes(socket: &Netfilter) -> Result<Vec<Change>, Refusal> {
    if !is_ours(socket)? {
        return Ok(Vec::new());
    }
    let rules = socket.dump(Kind::GetRule, IPV4, &encode::table()[..1])?;
    let closed = Closed { v4: closes(&rules, &table::closing_all()), v6: false };
    let Frame { mut changes, .. } = frame(socket, closed)?;
    for set in table::SETS {
        let messages = match socket.dump(Kind::GetElement, IPV4, &encode::named(set.name)) {
            // The old table has no such set.
            Err(refusal) if refusal.errno == Errno::ENOENT => continue,
            messages => messages?,
        };
        let lists = messages.iter().filter_map(|message| find(message, ELEMENTS));
        let members: Vec<Attribute> = lists.flat_map(read).map(|(_, member)| kept(member)).collect();
        for some in members.chunks(TOGETHER) {
            let mut attributes = encode::named(set.name);
            attributes.push(Attribute::Nested(ELEMENTS, some.to_vec()));
            let object = format!("elements of {} of table inet {TABLE}", set.name);
            changes.push(Change::new(Kind::NewElement, INET, NLM_F_CREATE, attributes, object));
        }
    }
    let name = encode::table()[..1].to_vec();
    changes.push(Change::new(Kind::DelTable, IPV4, 0, name, former()));
    Ok(changes)
}

/// Converts a listed element for another table.
fn kept(member: &[u8]) -> Attribute {
    let parts = read(member).filter(|(kind, _)| KEPT.contains(kind));
    let parts = parts.map(|(kind, value)| match kind {
        1 | 2 | 10 => Attribute::Nested(
            kind,
            read(value).map(|(kind, value)| Attribute::Bytes(kind, value.to_vec())).collect(),
        ),
        kind => Attribute::Bytes(kind, value.to_vec()),
    });
    Attribute::Nested(LIST_ELEM, parts.collect())
}
