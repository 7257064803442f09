//! The memory layout of a legacy table (linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h,
//! x_tables.h).
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
/// The layout of struct ipt_entry or struct ip6t_entry: its length, and the offsets of its fields. The
/// addresses come before the names of the interfaces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) v6: bool,
    entry: usize,
    in_name: usize,
    out_name: usize,
    in_mask: usize,
    out_mask: usize,
    protocol: usize,
    flags: usize,
    inverted: usize,
    target_at: usize,
    next_at: usize,
    /// The flag of a rule that goes to its chain and does not return.
    flag_goto: u8,
    /// The flags of other conditions: fragments, the protocol, the type of service.
    flag_conditions: u8,
}

pub(super) static V4: Layout = Layout {
    v6: false,
    entry: 112,
    in_name: 16,
    out_name: 32,
    in_mask: 48,
    out_mask: 64,
    protocol: 80,
    flags: 82,
    inverted: 83,
    target_at: 88,
    next_at: 90,
    flag_goto: 2,
    flag_conditions: 1,
};

pub(super) static V6: Layout = Layout {
    v6: true,
    entry: 168,
    in_name: 64,
    out_name: 80,
    in_mask: 96,
    out_mask: 112,
    protocol: 128,
    flags: 131,
    inverted: 132,
    target_at: 140,
    next_at: 142,
    flag_goto: 4,
    flag_conditions: 3,
};

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
    layout: &'static Layout,
    /// The offset when the table was read. None for a new entry.
    offset: Option<u32>,
    bytes: Vec<u8>,
}

impl Entry {
    /// Splits off the first entry. Returns it and the rest.
    fn first<'a>(layout: &'static Layout, bytes: &'a [u8], offset: u32) -> Option<(Self, &'a [u8])> {
        let length = half(bytes, layout.next_at)?;
        let target = half(bytes, layout.target_at)?;
        if target < layout.entry || length < target + PART {
            return None;
        }
        let entry = Self { layout, offset: Some(offset), bytes: bytes.get(..length)?.to_vec() };
        Some((entry, &bytes[length..]))
    }

    /// A rule that accepts packets from the bridge, or with `out`, to the bridge.
    fn letting_through(layout: &'static Layout, bridge: &str, out: bool) -> Self {
        let Layout { entry, target_at, next_at, .. } = *layout;
        let target = entry + PART + COMMENT;
        let mut bytes = vec![0; target + STANDARD];
        let (name, mask) = match out {
            true => (layout.out_name, layout.out_mask),
            false => (layout.in_name, layout.in_mask),
        };
        let bridge_name = &bridge.as_bytes()[..bridge.len().min(INTERFACE - 1)];
        bytes[name..name + bridge_name.len()].copy_from_slice(bridge_name);
        // The mask includes the zero byte, so the whole name is compared.
        bytes[mask..=mask + bridge_name.len()].fill(0xff);
        bytes[target_at..target_at + 2].copy_from_slice(&(target as u16).to_ne_bytes());
        bytes[next_at..next_at + 2].copy_from_slice(&((target + STANDARD) as u16).to_ne_bytes());
        let part =
            |size: usize, name: &str| [&(size as u16).to_ne_bytes()[..], &padded(name, PART - 2)].concat();
        bytes[entry..entry + PART].copy_from_slice(&part(PART + COMMENT, "comment"));
        let comment = mark(bridge);
        bytes[entry + PART..entry + PART + comment.len()].copy_from_slice(comment.as_bytes());
        bytes[target..target + PART].copy_from_slice(&part(STANDARD, ""));
        put(&mut bytes, target + PART, ACCEPT.cast_unsigned());
        Self { layout, offset: None, bytes }
    }

    fn target(&self) -> usize {
        half(&self.bytes, self.layout.target_at).unwrap_or(self.layout.entry)
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
        !self.goes() && self.standard().is_some_and(next)
    }

    /// Whether a jump of this entry does not return.
    fn goes(&self) -> bool {
        self.byte(self.layout.flags) & self.layout.flag_goto != 0
    }

    fn interface(&self, out: bool) -> Option<Condition> {
        let (name, mask, inverted) = match out {
            true => (self.layout.out_name, self.layout.out_mask, INVERTED_OUT),
            false => (self.layout.in_name, self.layout.in_mask, INVERTED_IN),
        };
        let counts = self.bytes.get(mask..mask + INTERFACE)?.iter().take_while(|byte| **byte != 0).count();
        if counts == 0 {
            return None;
        }
        let name = self.bytes.get(name..name + counts)?;
        let end = name.iter().position(|byte| *byte == 0);
        let whole = name[..end.unwrap_or(name.len())].to_vec();
        let not = self.byte(self.layout.inverted) & inverted != 0;
        Some(Condition::Interface { out, name: whole, prefix: end.is_none() && counts < INTERFACE, not })
    }

    /// Converts the entry to a rule with this number. `chains` has the chains' names, by the offset
    /// of their first entry.
    fn rule(&self, id: u64, chains: &[(u32, String)]) -> Rule {
        let mut conditions: Vec<_> =
            [false, true].into_iter().filter_map(|out| self.interface(out)).collect();
        let layout = self.layout;
        let addresses =
            self.bytes.get(..layout.in_name).is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0));
        let inverted = self.byte(layout.inverted) & !(INVERTED_IN | INVERTED_OUT) != 0;
        let flags = self.byte(layout.flags) & layout.flag_conditions != 0;
        let protocol = half(&self.bytes, layout.protocol) != Some(0) || flags;
        if addresses || inverted || protocol {
            conditions.push(Condition::Unknown);
        }
        let mut comment = None;
        let mut matches = self.bytes.get(layout.entry..self.target()).unwrap_or_default();
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
                Some((_, name)) if self.goes() => Verdict::Goto(name.clone()),
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
    layout: &'static Layout,
    name: String,
    hooks: u32,
    /// The offsets of each hook's first entry, and of its policy.
    begins: [u32; HOOKS],
    ends: [u32; HOOKS],
    entries: Vec<Entry>,
}

impl Table {
    /// Parses the kernel's answer to GET_INFO, and the entries.
    pub(super) fn read(layout: &'static Layout, name: &str, info: &[u8], mut bytes: &[u8]) -> Option<Self> {
        let hooks = word(info, TABLE_NAME)?;
        let (mut begins, mut ends) = ([0; HOOKS], [0; HOOKS]);
        for hook in 0..HOOKS {
            begins[hook] = word(info, TABLE_NAME + 4 + 4 * hook)?;
            ends[hook] = word(info, TABLE_NAME + 4 + 4 * (HOOKS + hook))?;
        }
        let (mut entries, mut offset) = (Vec::new(), 0);
        while !bytes.is_empty() {
            let (entry, rest) = Entry::first(layout, bytes, offset)?;
            offset += entry.bytes.len() as u32;
            entries.push(entry);
            bytes = rest;
        }
        Some(Self { layout, name: name.to_owned(), hooks, begins, ends, entries })
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
        let v6 = self.layout.v6;
        let lacks = || (anyway == Firewall::Iptables).then(|| forward.lacks(&chains, bridge, v6)).flatten();
        let Dropped { from, to, before } = forward.drops(&chains, bridge, v6).or_else(lacks)?;
        Some(Barrier::Legacy { v6, table: self.name.clone(), before, from, to })
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
        let added = added.map(|(_, out)| Entry::letting_through(self.layout, bridge, out));
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
