//! How a table lies in memory (linux/netfilter_ipv4/ip_tables.h, x_tables.h).
//!
//! A table is a list of entries, one behind the other. Jumps name the offset of the entry that they go to, and a hook the offset
//! of its first and of its last one, which is its policy. A new entry moves all entries behind it.

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
/// What comes before the entries in struct ipt_get_entries and ipt_replace, and before the counters in xt_counters_info:
/// aligned as the counters in an entry are.
pub(super) const BEFORE_ENTRIES: usize = TABLE_NAME + 8;
const BEFORE_REPLACEMENT: usize = TABLE_NAME + 12 + 2 * 4 * HOOKS + 4 + 8;
/// struct ipt_entry: the address part, and where in it things are.
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
/// struct xt_entry_match and xt_entry_target: a size of two bytes, a name, a revision; then their own data.
const PART: usize = 32;
const PART_NAME: std::ops::Range<usize> = 2..31;
/// struct xt_standard_target, and struct xt_comment_info.
const STANDARD: usize = PART + 8;
const COMMENT: usize = 256;
/// struct xt_counters.
pub(super) const COUNTER: usize = 16;
/// The longest name of an interface, with a zero byte.
const INTERFACE: usize = 16;

const FLAG_FRAGMENT: u8 = 1;
const FLAG_GOTO: u8 = 2;
const INVERTED_IN: u8 = 1;
const INVERTED_OUT: u8 = 2;

/// Verdicts of the standard target: -NF_DROP - 1 and so on; a jump is an offset.
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

/// A rule as the table holds it, or the head of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Where it was when the table was read; none for a new one.
    offset: Option<u32>,
    bytes: Vec<u8>,
}

impl Entry {
    /// The first of a list, and what comes after it.
    fn first(bytes: &[u8], offset: u32) -> Option<(Self, &[u8])> {
        let length = half(bytes, NEXT_AT)?;
        let target = half(bytes, TARGET_AT)?;
        if target < ENTRY || length < target + PART {
            return None;
        }
        let entry = Self { offset: Some(offset), bytes: bytes.get(..length)?.to_vec() };
        Some((entry, &bytes[length..]))
    }

    /// Lets through what comes from the bridge, or goes `out` to it.
    fn letting_through(bridge: &str, out: bool) -> Self {
        let target = ENTRY + PART + COMMENT;
        let mut bytes = vec![0; target + STANDARD];
        let (name, mask) = if out { (OUT_NAME, OUT_MASK) } else { (IN_NAME, IN_MASK) };
        let bridge_name = &bridge.as_bytes()[..bridge.len().min(INTERFACE - 1)];
        bytes[name..name + bridge_name.len()].copy_from_slice(bridge_name);
        // With the zero byte: the whole name.
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

    /// The name of the chain that begins after it.
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

    /// Whether its verdict says to go on with the next one.
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

    /// As a rule with this number; the chains by the offset at which they begin.
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
    /// Where each hook begins, and where its policy is.
    begins: [u32; HOOKS],
    ends: [u32; HOOKS],
    entries: Vec<Entry>,
}

impl Table {
    /// From what the kernel wrote for GET_INFO, and the entries.
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

    /// The places of the rules of FORWARD; its policy comes after them.
    fn forward(&self) -> Option<std::ops::Range<usize>> {
        if self.hooks & 1 << FORWARD == 0 {
            return None;
        }
        let range = self.at(self.begins[FORWARD])?..self.at(self.ends[FORWARD])?;
        (range.start <= range.end).then_some(range)
    }

    /// FORWARD, and the chains that users made.
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

    /// The same, with rules for the bridge.
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

    /// The same, without our rules for the bridge; none if there are none.
    pub(super) fn without(&self, bridge: &str) -> Option<Self> {
        let forward = self.forward()?;
        let ours = |at: usize| forward.contains(&at) && self.entries[at].rule(0, &[]).is_ours(bridge);
        let kept: Vec<_> = (0..self.entries.len()).filter(|at| !ours(*at)).collect();
        if kept.len() == self.entries.len() {
            return None;
        }
        self.laid_out(kept.into_iter().map(|at| self.entries[at].clone()).collect(), false)
    }

    /// The table with these entries, and every offset as it becomes by that. `at_begin` says that FORWARD begins with new ones.
    fn laid_out(&self, mut entries: Vec<Entry>, at_begin: bool) -> Option<Self> {
        let mut moved = Vec::new();
        let mut offset = 0;
        for entry in &entries {
            moved.push((entry.offset, offset));
            offset += entry.bytes.len() as u32;
        }
        // One that is gone is where the next one is that stays.
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

    /// How many entries it has.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// struct ipt_replace; the kernel writes the counters of the `replaced` entries into `counters`.
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

    /// struct xt_counters_info: gives the entries that stayed the counts that they had.
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
mod tests {
    use super::*;

    /// An entry for all packets, with this verdict.
    fn entry(verdict: i32) -> Vec<u8> {
        let mut bytes = Entry::letting_through("", false).bytes;
        bytes.drain(ENTRY..ENTRY + PART + COMMENT);
        bytes[IN_NAME..PROTOCOL].fill(0);
        bytes[TARGET_AT..TARGET_AT + 2].copy_from_slice(&(ENTRY as u16).to_ne_bytes());
        bytes[NEXT_AT..NEXT_AT + 2].copy_from_slice(&((ENTRY + STANDARD) as u16).to_ne_bytes());
        put(&mut bytes, ENTRY + PART, verdict.cast_unsigned());
        bytes
    }

    const SIZE: i32 = (ENTRY + STANDARD) as i32;

    fn head(name: &str) -> Vec<u8> {
        let mut bytes = entry(0);
        bytes[ENTRY + 2..ENTRY + 7].copy_from_slice(b"ERROR");
        bytes.truncate(ENTRY + PART);
        bytes.extend(padded(name, 32));
        let length = bytes.len() as u16;
        bytes[ENTRY..ENTRY + 2].copy_from_slice(&(length - ENTRY as u16).to_ne_bytes());
        bytes[NEXT_AT..NEXT_AT + 2].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    /// INPUT, FORWARD, OUTPUT with their policies; FORWARD has a rule that goes on, and one that jumps to the chain `more`.
    fn table() -> Table {
        let begin_of_more = 6 * SIZE + head("more").len() as i32;
        let bytes = [
            entry(ACCEPT),
            entry(2 * SIZE),
            entry(begin_of_more),
            entry(DROP),
            entry(begin_of_more),
            entry(ACCEPT),
            head("more"),
            entry(RETURN),
            head("ERROR"),
        ]
        .concat();
        let mut info = padded("filter", INFO);
        put(&mut info, TABLE_NAME, 0b1110);
        for (hook, (begin, end)) in [(1, (0, 0)), (2, (1, 3)), (3, (4, 5))] {
            put(&mut info, TABLE_NAME + 4 + 4 * hook, (begin * SIZE).cast_unsigned());
            put(&mut info, TABLE_NAME + 4 + 4 * (HOOKS + hook), (end * SIZE).cast_unsigned());
        }
        Table::read("filter", &info, &bytes).unwrap()
    }

    /// As the kernel would give it back.
    fn read_again(table: &Table) -> Table {
        let mut info = padded("filter", INFO);
        put(&mut info, TABLE_NAME, table.hooks);
        for hook in 0..HOOKS {
            put(&mut info, TABLE_NAME + 4 + 4 * hook, table.begins[hook]);
            put(&mut info, TABLE_NAME + 4 + 4 * (HOOKS + hook), table.ends[hook]);
        }
        let bytes: Vec<u8> = table.entries.iter().flat_map(|entry| entry.bytes.clone()).collect();
        Table::read("filter", &info, &bytes).unwrap()
    }

    #[test]
    fn a_table_is_read() {
        let (forward, chains) = table().chains().unwrap();
        assert_eq!(forward.forward, Some(Policy::Drop));
        let verdicts: Vec<_> = forward.rules.iter().map(|rule| rule.verdict.clone()).collect();
        assert_eq!(verdicts, [Verdict::Continue, Verdict::Jump("more".into())]);
        let more = chains.iter().find(|chain| chain.name == "more").unwrap();
        assert_eq!(more.rules.iter().map(|rule| rule.verdict.clone()).collect::<Vec<_>>(), [Verdict::Return]);
        assert_eq!(
            table().barrier("br0", Firewall::Auto).unwrap().to_string(),
            "chain FORWARD of table filter of iptables-legacy"
        );
    }

    #[test]
    fn rules_are_added_and_removed_at_any_place_and_all_that_points_behind_them_moves() {
        let before = table();
        for place in [None, Some(1), Some(2)] {
            let barrier = Barrier::Legacy { table: "filter".into(), before: place, from: true, to: true };
            let with = read_again(&before.letting_through("br0", &barrier).unwrap());
            let (forward, chains) = with.chains().unwrap();
            let at = place.map_or(2, |number| number as usize - 1);
            let is_ours: Vec<_> = forward.rules.iter().map(|rule| rule.is_ours("br0")).collect();
            assert_eq!(is_ours.iter().filter(|ours| **ours).count(), 2, "{place:?}");
            assert!(is_ours[at] && is_ours[at + 1], "{place:?}: {is_ours:?}");
            let others: Vec<_> =
                forward.rules.iter().filter(|rule| !rule.is_ours("br0")).map(|rule| &rule.verdict).collect();
            assert_eq!(others, [&Verdict::Continue, &Verdict::Jump("more".into())], "{place:?}");
            assert_eq!(chains.iter().find(|chain| chain.name == "more").unwrap().rules.len(), 1);
            assert_eq!(with.entries[with.at(with.ends[FORWARD]).unwrap()].standard(), Some(DROP));
            let begin_of_output = with.at(with.begins[3]).unwrap();
            assert_eq!(
                with.entries[begin_of_output].verdict(&[]),
                Verdict::Continue,
                "no chain is known here"
            );
            let without = read_again(&with.without("br0").unwrap());
            assert_eq!(without, before, "{place:?}");
            assert_eq!(without.without("br0"), None);
        }
    }

    #[test]
    fn counts_go_with_their_rules() {
        let before = table();
        let barrier = Barrier::Legacy { table: "filter".into(), before: Some(1), from: true, to: false };
        let with = before.letting_through("br0", &barrier).unwrap();
        let counters: Vec<u8> =
            (0..before.entries.len() as u8).flat_map(|number| [number; COUNTER]).collect();
        let counts = with.counts(&before, &counters);
        let firsts: Vec<u8> = counts[BEFORE_ENTRIES..].chunks(COUNTER).map(|count| count[0]).collect();
        assert_eq!(firsts, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn bytes_that_mean_nothing_are_no_table() {
        let info = padded("filter", INFO);
        assert_eq!(Table::read("filter", &info, &[7; 300]), None);
        assert_eq!(Table::read("filter", &info, &[0; 5]), None);
        assert_eq!(Table::read("filter", &[], &[]), None);
        assert_eq!(Table::read("filter", &info, &[]).unwrap().chains(), None, "no hook");
    }
}
