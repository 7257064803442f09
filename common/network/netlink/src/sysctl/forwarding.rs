//! Who still needs forwarding when the last of our networks is removed.

use std::{collections::BTreeSet, fs, io};

use nix::errno::Errno;
use operation::Scope;

use super::failed;
use crate::{
    Connection, Error, Link, PROTOCOL,
    attribute::{find, string},
    netfilter::{self, INET, IPV4, Kind, Netfilter, OWN_TABLE, handle, is_forward},
};

/// Whether a container claims a network of ours: any network, or one on a bridge other than `but`.
pub(super) fn is_claimed(scope: &Scope, but: Option<&str>) -> Result<bool, Error> {
    let directory = scope.run_dir.join("shared");
    let fail = |source| failed("list", &directory.to_string_lossy())(source);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(fail)?,
    };
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        let Some(bridge) = name.to_str().and_then(|name| name.strip_prefix("bridge-")) else { continue };
        // No container has the name "", so every entry belongs to another one.
        if Some(bridge) != but && operation::holds_another(&entry.path(), "").map_err(fail)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The name of the claims of containers that have IPv6.
pub(crate) const IPV6: &str = "ipv6";

/// Whether a container claims forwarding of IPv6.
pub(super) fn is_claimed_for_ipv6(scope: &Scope) -> Result<bool, Error> {
    let claims = scope.claims(IPV6);
    operation::holds_another(&claims, "").map_err(|source| failed("list", &claims.to_string_lossy())(source))
}

/// The links, and the rules for forwarded packets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    links: BTreeSet<String>,
    rules: BTreeSet<String>,
}

impl Seen {
    pub(super) fn now(v6: bool) -> Result<Self, Error> {
        let connection = Connection::open(None)?;
        let links = connection.all()?.iter().map(shown).collect();
        Ok(Self { links, rules: forward_rules(v6)? })
    }

    /// Appends one line for each link and rule.
    pub(super) fn write(&self, out: &mut String) {
        let lines = [("link", &self.links), ("rule", &self.rules)];
        for (kind, name) in lines.iter().flat_map(|(kind, names)| names.iter().map(move |name| (kind, name)))
        {
            out.push_str(&format!("{kind} {name}\n"));
        }
    }

    /// Parses the recorded lines. None if nothing was recorded, as by an earlier version.
    fn read(text: &str) -> Option<Self> {
        let mut seen = Self::default();
        for line in text.lines().skip(1) {
            match line.split_once(' ') {
                Some(("link", name)) => seen.links.insert(name.to_owned()),
                Some(("rule", name)) => seen.rules.insert(name.to_owned()),
                _ => false,
            };
        }
        (seen != Self::default()).then_some(seen)
    }
}

/// The line includes the index, because a link that was removed and made again is a different one.
fn shown(link: &Link) -> String {
    format!("{} {}", link.index, link.name)
}

/// Who may need forwarding besides our own bridge.
pub(super) enum Needed {
    /// A bridge that existed before. It keeps working as it did.
    Before,
    /// Something that appeared after forwarding was switched on, in words.
    Since(String),
}

/// Whether forwarding is needed by another program's bridge, or by a link or a rule that did not
/// exist when forwarding was switched on (`kept`).
pub(super) fn needed_by(bridge: &str, v6: bool, kept: &str) -> Result<Option<Needed>, Error> {
    let connection = Connection::open(None)?;
    let links = connection.all()?;
    // A bridge of ours without IPv6 needs no IPv6 forwarding.
    let mut without = BTreeSet::new();
    for link in links.iter().filter(|link| v6 && link.is_our_bridge()) {
        let own = connection.addresses6(Some(link.index))?;
        if own.iter().all(|address| address.protocol != Some(PROTOCOL)) {
            without.insert(link.index);
        }
    }
    let is_own = |link: &Link| link.is_our_bridge() && (link.name == bridge || without.contains(&link.index));
    let before = Seen::read(kept);
    let was_there = |link: &Link| before.as_ref().is_some_and(|before| before.links.contains(&shown(link)));
    let bridges = || links.iter().filter(|link| link.bridge && !is_own(link));
    if let Some(other) = bridges().find(|other| !was_there(other)) {
        return Ok(Some(Needed::Since(format!("bridge {:?}", other.name))));
    }
    if bridges().next().is_some() {
        return Ok(Some(Needed::Before));
    }
    let Some(before) = &before else { return Ok(None) };
    let since = |link: &&Link| !link.is_marked() && !is_own(link) && !was_there(link);
    if let Some(link) = links.iter().find(since) {
        return Ok(Some(Needed::Since(format!("link {:?}, which appeared since,", link.name))));
    }
    let rule = forward_rules(v6)?.difference(&before.rules).next().is_some();
    Ok(rule.then(|| Needed::Since("a forward rule that appeared since".to_owned())))
}

/// The rules of other programs in the chains that forwarded packets of an IP version pass, by
/// table, chain and handle.
fn forward_rules(v6: bool) -> Result<BTreeSet<String>, Error> {
    let failed = |refusal| Error::new("list", "rules for forwarded packets", refusal);
    let mut rules = BTreeSet::new();
    for family in [INET, if v6 { netfilter::IPV6 } else { IPV4 }] {
        // A kernel without nf_tables has no rules.
        let netfilter = match Netfilter::of_this_thread() {
            Err(refusal) if refusal.errno == Errno::EPROTONOSUPPORT => return Ok(rules),
            netfilter => netfilter.map_err(failed)?,
        };
        let list = |kind| -> Result<Vec<Vec<u8>>, Error> {
            for _ in 0..100 {
                match netfilter.dump(kind, family, &[]) {
                    Err(refusal) if refusal.errno == Errno::ERESTART => {}
                    Err(refusal) if refusal.errno == Errno::EOPNOTSUPP => return Ok(Vec::new()),
                    listed => return listed.map_err(failed),
                }
            }
            Err(failed(Errno::EBUSY.into()))
        };
        let text = |message: &[u8], kind| find(message, kind).map(string).unwrap_or_default();
        let chains = list(Kind::GetChain)?;
        let forward: BTreeSet<(String, String)> = chains
            .iter()
            .filter(|chain| is_forward(chain))
            .map(|chain| (text(chain, 1), text(chain, 3)))
            .filter(|(table, _)| table != OWN_TABLE)
            .collect();
        if forward.is_empty() {
            continue;
        }
        for rule in list(Kind::GetRule)? {
            let place = (text(&rule, 1), text(&rule, 2));
            if forward.contains(&place) {
                rules.insert(format!("{family} {} {} {}", place.0, place.1, handle(&rule)));
            }
        }
    }
    Ok(rules)
}
