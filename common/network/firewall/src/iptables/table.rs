//! The memory layout of a legacy table (linux/netfilter_ipv4/ip_tables.h, x_tables.h).
//!
//! A table is a list of consecutive entries. A jump contains the offset of its target entry. A hook
//! contains the offsets of its first entry and of its last one, which is its policy. A new entry
//! moves all entries after it.

use crate::{
    barrier::{Barrier, Firewall},
    walk::{Chain, Condition, Dropped, Policy, Rule, Verdict, mark},
};

/// `NF_INET_FORWARD`, and the number of hooks.
const FORWARD: usize = 2;
const HOOKS: usize = 5;
/// The length of a table's name.
pub(super) const TABLE_NAME: usize = 32;
/// struct ipt_getinfo.
pub(super) const INFO: usize = TABLE_NAME + 4 + 2 * 4 * HOOKS + 8;
/// The length of what precedes the entries in struct ipt_get_entries and ipt_replace, and the
/// counters in xt_counters_info. It is aligned like the counters in an entry.
pub(super) const BEFORE_ENTRIES: usize = TABLE_NAME + 8;
const BEFORE_REPLACEMENT: usize = TABLE_NAME + 12 + 2 * 4 * HOOKS + 4 + 8;
/// The length of struct ipt_entry, of its address part, and the offsets of its fields.
const ENTRY: usize = 112;
const IN_NAME: usize = 16;
const OUT_NAME: usize = 32;
const IN_MASK: usize = 48;
const OUT_MASK: usize = 64;
const PROTOCOL: usize = 80;
const FLAGS: usize = 82;
const INVERTED: usize = 83;
const TARGET_AT: usize = 88;
const NEXT_AT: usize = 90;
/// The header of struct xt_entry_match and xt_entry_target: a two-byte size, a name, and a
/// revision. The data follows.
const PART: usize = 32;
const PART_NAME: std::ops::Range<usize> = 2..31;
/// struct xt_standard_target, and struct xt_comment_info.
const STANDARD: usize = PART + 8;
const COMMENT: usize = 256;
/// struct xt_counters.
pub(super) const COUNTER: usize = 16;
/// The longest interface name, including a zero byte.
const INTERFACE: usize = 16;

const FLAG_FRAGMENT: u8 = 1;
const FLAG_GOTO: u8 = 2;
const INVERTED_IN: u8 = 1;
const INVERTED_OUT: u8 = 2;

/// Verdicts of the standard target: -NF_DROP - 1 and so on. A jump is an offset.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const RETURN: i32 = -5;

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

pub(super) fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
}

fn text(bytes: &[u8]) -> String {
    netlink::attribute::string(bytes)
}

pub(super) fn padded(name: &str, length: usize) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(length, 0);
    bytes
}

/// An entry: a rule, or the head of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// The offset when the table was read. None for a new entry.
    offset: Option<u32>,
    bytes: Vec<u8>,
}

impl Entry {
    /// Splits off the first entry. Returns it and the rest.
    fn first(bytes: &[u8], offset: u32) -> Option<(Self, &[u8])> {
        let length = half(bytes, NEXT_AT)?;
        let target = half(bytes, TARGET_AT)?;
        if target < ENTRY || length < target + PART {
            return None;
        }
        let entry = Self { offset: Some(offset), bytes: bytes.get(..length)?.to_vec() };
        Some((entry, &bytes[length..]))
    }

    /// A rule that accepts packets from the bridge, or with `out`, to the bridge.
    fn letting_through(bridge: &str, out: bool) -> Self {
        let target = ENTRY + PART + COMMENT;
        let mut bytes = vec![0; target + STANDARD];
        let (name, mask) = if out { (OUT_NAME, OUT_MASK) } else { (IN_NAME, IN_MASK) };
        let bridge_name = &bridge.as_bytes()[..bridge.len().min(INTERFACE - 1)];
        bytes[name..name + bridge_name.len()].copy_from_slice(bridge_name);
        // The mask includes the zero byte, so the whole name is compared.
        bytes[mask..=mask + bridge_name.len()].fill(0xff);
        bytes[TARGET_AT..TARGET_AT + 2].copy_from_slice(&(target as u16).to_ne_bytes());
        bytes[NEXT_AT..NEXT_AT + 2].copy_from_slice(&((target + STANDARD) as u16).to_ne_bytes());
        let part =
            |size: usize, name: &str| [&(size as u16).to_ne_bytes()[..], &padded(name, PART - 2)].concat();
        bytes[ENTRY..ENTRY + PART].copy_from_slice(&part(PART + COMMENT, "comment"));
        let comment = mark(bridge);
        bytes[ENTRY + PART..ENTRY + PART + comment.len()].copy_from_slice(comment.as_bytes());
        bytes[target..target + PART].copy_from_slice(&part(STANDARD, ""));
        put(&mut bytes, target + PART, ACCEPT.cast_unsigned());
        Self { offset: None, bytes }
    }

    fn target(&self) -> usize {
        half(&self.bytes, TARGET_AT).unwrap_or(ENTRY)
    }

    fn target_name(&self) -> String {
        let target = self.target();
        self.bytes.get(target + PART_NAME.start..target + PART_NAME.end).map(text).unwrap_or_default()
    }

    /// The verdict of a standard target.
    fn standard(&self) -> Option<i32> {
        let is_standard = self.target_name().is_empty();
        is_standard.then(|| word(&self.bytes, self.target() + PART).map(u32::cast_signed)).flatten()
    }

    /// The name of the chain that starts after this entry.
    fn head(&self) -> Option<String> {
        let begin = self.target() + PART;
        (self.target_name() == "ERROR").then(|| self.bytes.get(begin..).map(text).unwrap_or_default())
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or_default()
    }

    fn end(&self) -> Option<u32> {
        Some(self.offset? + self.bytes.len() as u32)
    }

    /// Whether the verdict is to continue with the next entry.
    fn falls_through(&self) -> bool {
        let next = |verdict: i32| verdict >= 0 && Some(verdict.cast_unsigned()) == self.end();
        self.byte(FLAGS) & FLAG_GOTO == 0 && self.standard().is_some_and(next)
    }

    fn interface(&self, out: bool) -> Option<Condition> {
        let (name, mask, inverted) =
            if out { (OUT_NAME, OUT_MASK, INVERTED_OUT) } else { (IN_NAME, IN_MASK, INVERTED_IN) };
        let counts = self.bytes.get(mask..mask + INTERFACE)?.iter().take_while(|byte| **byte != 0).count();
        if counts == 0 {
            return None;
        }
        let name = self.bytes.get(name..name + counts)?;
        let end = name.iter().position(|byte| *byte == 0);
        let whole = name[..end.unwrap_or(name.len())].to_vec();
        let not = self.byte(INVERTED) & inverted != 0;
        Some(Condition::Interface { out, name: whole, prefix: end.is_none() && counts < INTERFACE, not })
    }

    /// Converts the entry to a rule with this number. `chains` has the chains' names, by the offset
    /// of their first entry.
    fn rule(&self, id: u64, chains: &[(u32, String)]) -> Rule {
        let mut conditions: Vec<_> =
            [false, true].into_iter().filter_map(|out| self.interface(out)).collect();
        let addresses = self.bytes.get(..IN_NAME).is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0));
        let inverted = self.byte(INVERTED) & !(INVERTED_IN | INVERTED_OUT) != 0;
        let protocol = half(&self.bytes, PROTOCOL) != Some(0) || self.byte(FLAGS) & FLAG_FRAGMENT != 0;
        if addresses || inverted || protocol {
            conditions.push(Condition::Unknown);
        }
        let mut comment = None;
        let mut matches = self.bytes.get(ENTRY..self.target()).unwrap_or_default();
        while let Some(size) = half(matches, 0).filter(|size| (PART..=matches.len()).contains(size)) {
            match text(&matches[PART_NAME]).as_str() {
                "comment" => comment = Some(text(&matches[PART..size])),
                _ => conditions.push(Condition::Unknown),
            }
            matches = &matches[size..];
        }
        Rule { id, conditions, verdict: self.verdict(chains), comment }
    }

    fn verdict(&self, chains: &[(u32, String)]) -> Verdict {
        match self.standard() {
            _ if self.falls_through() => Verdict::Continue,
            Some(DROP) => Verdict::Drop,
            Some(RETURN) => Verdict::Return,
            Some(to @ 0..) => match chains.iter().find(|(offset, _)| *offset == to.cast_unsigned()) {
                Some((_, name)) if self.byte(FLAGS) & FLAG_GOTO != 0 => Verdict::Goto(name.clone()),
                Some((_, name)) => Verdict::Jump(name.clone()),
                None => Verdict::Continue,
            },
            Some(_) => Verdict::Accept,
            None => match self.target_name().as_str() {
                "REJECT" => Verdict::Drop,
                "NFQUEUE" => Verdict::Accept,
                _ => Verdict::Continue,
            },
        }
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    name: String,
    hooks: u32,
    /// The offsets of each hook's first entry, and of its policy.
    begins: [u32; HOOKS],
    ends: [u32; HOOKS],
    entries: Vec<Entry>,
}

impl Table {
    /// Parses the kernel's answer to GET_INFO, and the entries.
    pub(super) fn read(name: &str, info: &[u8], mut bytes: &[u8]) -> Option<Self> {
        let hooks = word(info, TABLE_NAME)?;
        let (mut begins, mut ends) = ([0; HOOKS], [0; HOOKS]);
        for hook in 0..HOOKS {
            begins[hook] = word(info, TABLE_NAME + 4 + 4 * hook)?;
            ends[hook] = word(info, TABLE_NAME + 4 + 4 * (HOOKS + hook))?;
        }
        let (mut entries, mut offset) = (Vec::new(), 0);
        while !bytes.is_empty() {
            let (entry, rest) = Entry::first(bytes, offset)?;
            offset += entry.bytes.len() as u32;
            entries.push(entry);
            bytes = rest;
        }
        Some(Self { name: name.to_owned(), hooks, begins, ends, entries })
    }

    fn at(&self, offset: u32) -> Option<usize> {
        self.entries.iter().position(|entry| entry.offset == Some(offset))
    }

    /// The indexes of the rules of FORWARD. Its policy follows them.
    fn forward(&self) -> Option<std::ops::Range<usize>> {
        if self.hooks & 1 << FORWARD == 0 {
            return None;
        }
        let range = self.at(self.begins[FORWARD])?..self.at(self.ends[FORWARD])?;
        (range.start <= range.end).then_some(range)
    }

    /// FORWARD, and the user-defined chains.
    fn chains(&self) -> Option<(Chain, Vec<Chain>)> {
        let names: Vec<(u32, String)> =
            self.entries.iter().filter_map(|entry| Some((entry.end()?, entry.head()?))).collect();
        let rules = |entries: &[Entry]| -> Vec<Rule> {
            (1..).zip(entries).map(|(number, entry)| entry.rule(number, &names)).collect()
        };
        let forward = self.forward()?;
        let policy = match self.entries[forward.end].standard() {
            Some(DROP) => Policy::Drop,
            _ => Policy::Accept,
        };
        let own = |(begin, name): &(u32, String)| {
            let from = self.at(*begin)?;
            let length = self.entries[from..].iter().take_while(|entry| entry.head().is_none()).count();
            let rules = rules(&self.entries[from..from + length]);
            Some(Chain { name: name.clone(), forward: None, rules })
        };
        let base =
            Chain { name: "FORWARD".into(), forward: Some(policy), rules: rules(&self.entries[forward]) };
        Some((base, names.iter().filter_map(own).collect()))
    }

    pub(super) fn barrier(&self, bridge: &str, anyway: Firewall) -> Option<Barrier> {
        let (forward, chains) = self.chains()?;
        let lacks =
            || (anyway == Firewall::Iptables).then(|| forward.lacks(&chains, bridge, false)).flatten();
        let Dropped { from, to, before } = forward.drops(&chains, bridge, false).or_else(lacks)?;
        Some(Barrier::Legacy { table: self.name.clone(), before, from, to })
    }

    /// The table with rules for the bridge added.
    pub(super) fn letting_through(&self, bridge: &str, barrier: &Barrier) -> Option<Self> {
        let Barrier::Legacy { before, from, to, .. } = barrier else { return None };
        let forward = self.forward()?;
        let at = match before {
            Some(number) => forward.start + usize::try_from(*number).ok()?.checked_sub(1)?,
            None => forward.end,
        };
        let added = [(*from, false), (*to, true)].into_iter().filter(|(needed, _)| *needed);
        let added = added.map(|(_, out)| Entry::letting_through(bridge, out));
        let mut entries = self.entries.clone();
        entries.splice(at..at, added);
        self.laid_out(entries, at == forward.start)
    }

    /// The table without our rules for the bridge. None if there are none.
    pub(super) fn without(&self, bridge: &str) -> Option<Self> {
        let forward = self.forward()?;
        let ours = |at: usize| forward.contains(&at) && self.entries[at].rule(0, &[]).is_ours(bridge);
        let kept: Vec<_> = (0..self.entries.len()).filter(|at| !ours(*at)).collect();
        if kept.len() == self.entries.len() {
            return None;
        }
        self.laid_out(kept.into_iter().map(|at| self.entries[at].clone()).collect(), false)
    }

    /// A table with these entries and all offsets adjusted. `at_begin` says that FORWARD begins
    /// with new entries.
    fn laid_out(&self, mut entries: Vec<Entry>, at_begin: bool) -> Option<Self> {
        let mut moved = Vec::new();
        let mut offset = 0;
        for entry in &entries {
            moved.push((entry.offset, offset));
            offset += entry.bytes.len() as u32;
        }
        // The offset of a removed entry becomes that of the next one that stays.
        let to = |old: u32| {
            let stays = |(was, _): &&(Option<u32>, u32)| was.is_some_and(|was| was >= old);
            moved.iter().find(stays).map(|(_, is)| *is)
        };
        let (mut begins, mut ends) = (self.begins, self.ends);
        for hook in (0..HOOKS).filter(|hook| self.hooks & 1 << hook != 0) {
            (begins[hook], ends[hook]) = (to(begins[hook])?, to(ends[hook])?);
        }
        if at_begin {
            let added = moved.iter().position(|(was, _)| was.is_none())?;
            begins[FORWARD] = moved[added].1;
        }
        for (entry, (_, begin)) in entries.iter_mut().zip(&moved) {
            let target = entry.target() + PART;
            match entry.standard() {
                _ if entry.falls_through() => {
                    let next = begin + entry.bytes.len() as u32;
                    put(&mut entry.bytes, target, next);
                }
                Some(jump @ 0..) => put(&mut entry.bytes, target, to(jump.cast_unsigned())?),
                _ => {}
            }
        }
        Some(Self { entries, begins, ends, ..self.clone() })
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Builds struct ipt_replace. The kernel writes the counters of the `replaced` entries into
    /// `counters`.
    pub(super) fn replacement(&self, counters: &mut [u8]) -> Vec<u8> {
        let size: usize = self.entries.iter().map(|entry| entry.bytes.len()).sum();
        let mut bytes = padded(&self.name, TABLE_NAME);
        let begin = [self.hooks, self.entries.len() as u32, size as u32];
        let numbers = begin.iter().chain(&self.begins).chain(&self.ends);
        numbers.for_each(|number| bytes.extend(number.to_ne_bytes()));
        bytes.extend(((counters.len() / COUNTER) as u32).to_ne_bytes());
        bytes.extend(counters.as_mut_ptr().expose_provenance().to_ne_bytes());
        debug_assert_eq!(bytes.len(), BEFORE_REPLACEMENT);
        self.entries.iter().for_each(|entry| bytes.extend(&entry.bytes));
        bytes
    }

    /// Builds struct xt_counters_info, which restores the counters of the entries that stayed.
    pub(super) fn counts(&self, replaced: &Self, counters: &[u8]) -> Vec<u8> {
        let mut bytes = padded(&self.name, TABLE_NAME);
        bytes.extend((self.entries.len() as u32).to_ne_bytes());
        bytes.resize(BEFORE_ENTRIES, 0);
        for entry in &self.entries {
            let at = entry.offset.and_then(|offset| replaced.at(offset)).map(|at| at * COUNTER);
            let count = at.and_then(|at| counters.get(at..at + COUNTER)).unwrap_or(&[0; COUNTER]);
            bytes.extend(count);
        }
        bytes
    }
}

#[cfg(test)]
mod tests;
