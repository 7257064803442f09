//! The nf_tables chains at the hook `forward`, including those of iptables since 1.8: reads them
//! and adds our rules.

use std::collections::BTreeMap;

use nat::{
    encode,
    ruleset::{Field, Statement, Value},
};
use netlink::{
    Error, NLM_F_APPEND, NLM_F_CREATE, Refusal,
    attribute::{Attribute, find, number, read, string},
    expression,
    netfilter::{self, IPV4, Kind, Netfilter, OWN_TABLE},
    transaction::{Change, retry, transact},
};
use nix::errno::Errno;

use crate::{
    barrier::{Barrier, Family, Firewall},
    walk::{Chain, Condition, Dropped, Policy, Rule, Verdict, mark},
};

/// firewalld's table. firewalld makes it anew at any time, and may lock it against others.
const FIREWALLD: &str = "firewalld";

// linux/netfilter/nf_tables.h: attributes of chains and rules.
const IN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_POLICY: u16 = 5;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_POSITION: u16 = 6;
const RULE_COMMENT: u16 = 7;

/// A table with chains for forwarded packets.
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) name: String,
    pub(crate) chains: Vec<Chain>,
}

/// The firewall that a chain for forwarded packets belongs to.
pub(crate) fn owner(family: Family, table: &str, chain: &str) -> Firewall {
    match (family, table, chain) {
        (_, FIREWALLD, _) => Firewall::Firewalld,
        (Family::Ip | Family::Ip6, "filter" | "mangle" | "security", "FORWARD") => Firewall::Iptables,
        _ => Firewall::Nftables,
    }
}

/// Our rules for a bridge in a table of a family, for IPv4 or IPv6: for packets `from` the bridge,
/// and packets `to` it, in nft syntax.
pub(crate) fn rules(of: (Family, bool), bridge: &str, from: bool, to: bool) -> Vec<String> {
    let rule = |field| {
        let parts: Vec<String> = statements(of, field, bridge).iter().map(ToString::to_string).collect();
        format!("{} comment \"{}\"", parts.join(" "), mark(bridge))
    };
    fields(from, to).map(rule).collect()
}

fn fields(from: bool, to: bool) -> impl Iterator<Item = Field> {
    [(from, Field::IifName), (to, Field::OifName)]
        .into_iter()
        .filter(|(needed, _)| *needed)
        .map(|(_, field)| field)
}

/// Only what our own table guards is accepted. It does not guard IPv6 of a bridge that has none.
fn statements((family, v6): (Family, bool), field: Field, bridge: &str) -> Vec<Statement> {
    let value = Value::Interface(bridge.to_owned());
    let version = if v6 { Statement::OfIpv6 } else { Statement::OfIpv4 };
    let version = (family == Family::Inet).then_some(version);
    version.into_iter().chain([Statement::Is { field, not: false, value }, Statement::Accept]).collect()
}

/// All tables with a chain for forwarded packets, except our own. On a machine without any, this
/// takes three requests.
pub(crate) fn tables(socket: &Netfilter) -> Result<Vec<Table>, Refusal> {
    let mut tables = Vec::new();
    for family in Family::ALL {
        let dump = |kind, attributes: &[Attribute]| match socket.dump(kind, family.number(), attributes) {
            // The kernel does not support the family.
            Err(refusal) if refusal.errno == Errno::EOPNOTSUPP => Ok(Vec::new()),
            dumped => dumped,
        };
        let mut chains: BTreeMap<String, Vec<Chain>> = BTreeMap::new();
        for message in dump(Kind::GetChain, &[])? {
            chains.entry(text(&message, IN_TABLE)).or_default().push(chain(&message));
        }
        for (name, mut chains) in chains {
            let is_ours = name == OWN_TABLE;
            if is_ours || chains.iter().all(|chain| chain.forward.is_none()) {
                continue;
            }
            for message in dump(Kind::GetRule, &[Attribute::string(IN_TABLE, &name)])? {
                let of = text(&message, RULE_CHAIN);
                if let Some(chain) = chains.iter_mut().find(|chain| chain.name == of) {
                    chain.rules.push(rule(&message));
                }
            }
            tables.push(Table { family, name, chains });
        }
    }
    Ok(tables)
}

impl Table {
    /// Whether a chain for forwarded packets belongs to this firewall.
    pub(crate) fn is_of(&self, firewall: Firewall) -> bool {
        let mut forward = self.chains.iter().filter(|chain| chain.forward.is_some());
        forward.any(|chain| owner(self.family, &self.name, &chain.name) == firewall)
    }

    /// The chains that drop IPv4 or IPv6 packets of the bridge. For the firewall `anyway`, also
    /// chains that have no rules for the bridge.
    pub(crate) fn barriers(&self, bridge: &str, anyway: Firewall, v6: bool) -> Vec<Barrier> {
        if !self.family.sees(v6) {
            return Vec::new();
        }
        let barrier = |chain: &Chain| {
            let at = |Dropped { from, to, before }| Barrier::Nftables {
                family: self.family,
                table: self.name.clone(),
                v6,
                chain: chain.name.clone(),
                before,
                from,
                to,
            };
            let lacks =
                || chain.lacks(&self.chains, bridge, v6).map(at).filter(|found| found.firewall() == anyway);
            chain.drops(&self.chains, bridge, v6).map(at).or_else(lacks)
        };
        self.chains.iter().filter_map(barrier).collect()
    }
}

fn text(message: &[u8], kind: u16) -> String {
    find(message, kind).map(string).unwrap_or_default()
}

fn chain(message: &[u8]) -> Chain {
    let drops = find(message, CHAIN_POLICY).and_then(number) == Some(0);
    let policy = if drops { Policy::Drop } else { Policy::Accept };
    Chain {
        name: text(message, CHAIN_NAME),
        forward: netfilter::is_forward(message).then_some(policy),
        rules: Vec::new(),
    }
}

/// The content of a register: an interface name, or the protocol family.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    In,
    Out,
    Family,
}

/// What an expression `meta` loads: NFT_META_IIFNAME, NFT_META_OIFNAME or NFT_META_NFPROTO.
fn loaded(key: Option<u32>) -> Option<Loaded> {
    match key {
        Some(6) => Some(Loaded::In),
        Some(7) => Some(Loaded::Out),
        Some(15) => Some(Loaded::Family),
        _ => None,
    }
}

/// Parses a rule's expressions. A rule with an unknown expression is treated as one for some
/// packets only.
fn rule(message: &[u8]) -> Rule {
    let mut rule = Rule {
        id: netfilter::handle(message),
        conditions: Vec::new(),
        verdict: Verdict::Continue,
        comment: find(message, RULE_COMMENT).and_then(expression::read_comment),
    };
    let mut registers: BTreeMap<u32, Loaded> = BTreeMap::new();
    for (_, expression) in read(find(message, RULE_EXPRESSIONS).unwrap_or_default()) {
        let data = find(expression, 2).unwrap_or_default();
        let value = |kind| find(data, kind).and_then(number);
        match text(expression, 1).as_str() {
            "counter" | "log" | "notrack" | "last" => {}
            "meta" => match (value(1), loaded(value(2))) {
                (Some(into), Some(loaded)) => drop(registers.insert(into, loaded)),
                (Some(into), None) => drop(registers.remove(&into)),
                // The expression sets something.
                (None, _) => {}
            },
            // The register is overwritten. Its content does not matter, because an interface name
            // is compared right after it is loaded.
            "ct" | "payload" | "exthdr" | "rt" | "fib" | "numgen" | "hash" | "bitwise" | "byteorder" => {
                registers.clear()
            }
            "immediate" => match verdict(data) {
                Some(verdict) => rule.verdict = verdict,
                None => registers.clear(),
            },
            "cmp" => {
                let loaded = value(1).and_then(|register| registers.get(&register).copied());
                rule.conditions.push(compared(data, loaded));
            }
            "reject" => rule.verdict = Verdict::Drop,
            "queue" => rule.verdict = Verdict::Accept,
            "match" if text(data, 1) == "comment" => {
                rule.comment = rule.comment.or_else(|| find(data, 3).map(string));
            }
            "target" => match text(data, 1).as_str() {
                "REJECT" | "DROP" => rule.verdict = Verdict::Drop,
                "NFQUEUE" | "ACCEPT" => rule.verdict = Verdict::Accept,
                _ => {}
            },
            _ => rule.conditions.push(Condition::Unknown),
        }
    }
    rule
}

/// The condition of a `cmp` with a register of this content.
fn compared(data: &[u8], loaded: Option<Loaded>) -> Condition {
    let value = find(data, 3).and_then(|value| find(value, 1)).unwrap_or_default();
    let (Some(loaded), Some(operator @ (0 | 1))) = (loaded, find(data, 2).and_then(number)) else {
        return Condition::Unknown;
    };
    let not = operator == 1;
    if loaded == Loaded::Family {
        return match value {
            [family] => Condition::Ipv4((*family == IPV4) != not),
            _ => Condition::Unknown,
        };
    }
    // A complete name ends with a zero byte. Without one, it is a prefix.
    let end = value.iter().position(|byte| *byte == 0);
    let name = value[..end.unwrap_or(value.len())].to_vec();
    Condition::Interface { out: loaded == Loaded::Out, name, prefix: end.is_none(), not }
}

/// The verdict of `immediate`. None if it loads a value.
fn verdict(data: &[u8]) -> Option<Verdict> {
    let verdict = find(find(data, 2)?, 2)?;
    let chain = || text(verdict, 2);
    Some(match find(verdict, 1).and_then(number).map(u32::cast_signed) {
        Some(0) => Verdict::Drop,
        // NF_QUEUE: a program decides.
        Some(1 | 3) => Verdict::Accept,
        Some(-3) => Verdict::Jump(chain()),
        Some(-4) => Verdict::Goto(chain()),
        Some(-5) => Verdict::Return,
        _ => Verdict::Continue,
    })
}

fn change(kind: Kind, flags: u16, family: Family, table: &str, chain: &str, more: Vec<Attribute>) -> Change {
    let mut attributes = vec![Attribute::string(IN_TABLE, table), Attribute::string(RULE_CHAIN, chain)];
    attributes.extend(more);
    let object = format!("rule of chain {chain} of table {family} {table}");
    Change::new(kind, family.number(), flags, attributes, object)
}

fn handle(kind: u16, handle: u64) -> Attribute {
    Attribute::Bytes(kind, handle.to_be_bytes().to_vec())
}

/// The rules that let the bridge's packets pass this barrier.
fn additions(bridge: &str, barrier: &Barrier) -> Vec<Change> {
    let Barrier::Nftables { family, table, v6, chain, before, from, to } = barrier else { return Vec::new() };
    let add = |field| {
        let mut attributes = vec![
            encode::statements(&statements((*family, *v6), field, bridge)),
            Attribute::Bytes(RULE_COMMENT, expression::comment(&mark(bridge))),
        ];
        attributes.extend(before.map(|before| handle(RULE_POSITION, before)));
        let place = if before.is_some() { 0 } else { NLM_F_APPEND };
        change(Kind::NewRule, NLM_F_CREATE | place, *family, table, chain, attributes)
    };
    fields(*from, *to).map(add).collect()
}

/// Adds rules to all chains that `covers` selects, except in firewalld's table.
pub(crate) fn let_through(
    bridge: &str,
    firewall: Firewall,
    versions: &[bool],
    covers: impl Fn(&Barrier) -> bool,
) -> Result<(), Error> {
    transact("add", OBJECT, |socket| {
        let tables = tables(socket)?;
        let others = tables.iter().filter(|table| !table.is_of(Firewall::Firewalld));
        let of_version = |table: &Table, v6: &bool| table.barriers(bridge, firewall, *v6);
        let barriers = others.flat_map(|table| versions.iter().flat_map(move |v6| of_version(table, v6)));
        Ok(barriers.filter(&covers).flat_map(|barrier| additions(bridge, &barrier)).collect())
    })
}

/// Removes all our rules for the bridge.
pub(crate) fn withdraw(bridge: &str) -> Result<(), Error> {
    transact("remove", OBJECT, |socket| {
        let mut changes = Vec::new();
        for table in tables(socket)? {
            for chain in table.chains.iter().filter(|chain| chain.forward.is_some()) {
                for rule in chain.rules.iter().filter(|rule| rule.is_ours(bridge)) {
                    let this = vec![handle(RULE_HANDLE, rule.id)];
                    changes.push(change(Kind::DelRule, 0, table.family, &table.name, &chain.name, this));
                }
            }
        }
        Ok(changes)
    })
}

const OBJECT: &str = "rules for forwarded packets";

/// Reads the tables, again while others change the ruleset.
pub(crate) fn look() -> Result<Vec<Table>, Error> {
    let failed = |refusal| Error::new("list", OBJECT, refusal);
    let socket = Netfilter::of_this_thread().map_err(failed)?;
    retry(|| tables(&socket)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(attributes: &[Attribute]) -> Vec<u8> {
        let mut bytes = Vec::new();
        attributes.iter().for_each(|attribute| attribute.write(&mut bytes));
        bytes
    }

    #[test]
    fn our_rules_are_read_as_they_are_written() {
        for (family, v6, field, out) in [
            (Family::Ip, false, Field::IifName, false),
            (Family::Ip, false, Field::OifName, true),
            (Family::Ip6, true, Field::OifName, true),
            (Family::Inet, false, Field::IifName, false),
            (Family::Inet, true, Field::OifName, true),
        ] {
            let written = attributes(&[
                handle(RULE_HANDLE, 0x0102),
                encode::statements(&statements((family, v6), field, "br0")),
                Attribute::Bytes(RULE_COMMENT, expression::comment("stave br0")),
            ]);
            let rule = rule(&written);
            let interface = Condition::Interface { out, name: b"br0".to_vec(), prefix: false, not: false };
            let version = (family == Family::Inet).then_some(Condition::Ipv4(!v6));
            let conditions: Vec<_> = version.into_iter().chain([interface]).collect();
            assert_eq!(
                (rule.id, rule.conditions.clone(), &rule.verdict),
                (0x0102, conditions, &Verdict::Accept)
            );
            assert!(rule.is_ours("br0") && !rule.is_ours("br1"));
        }
    }

    #[test]
    fn a_register_that_holds_another_thing_is_not_compared_as_a_name() {
        let expression = |name: &str, data: Vec<Attribute>| {
            Attribute::Nested(1, vec![Attribute::string(1, name), Attribute::Nested(2, data)])
        };
        let number = Attribute::number;
        let meta = |key| expression("meta", vec![number(2, key), number(1, 1)]);
        let compare = |register| {
            let value = Attribute::Nested(3, vec![Attribute::Bytes(1, b"br0\0".to_vec())]);
            expression("cmp", vec![number(1, register), number(2, 0), value])
        };
        let name = Condition::Interface { out: false, name: b"br0".to_vec(), prefix: false, not: false };
        for (expressions, expected) in [
            (vec![meta(6), compare(1)], name.clone()),
            (vec![meta(6), compare(2)], Condition::Unknown),
            (vec![meta(6), meta(16), compare(1)], Condition::Unknown),
            (
                vec![meta(6), expression("bitwise", vec![number(1, 1), number(2, 1)]), compare(1)],
                Condition::Unknown,
            ),
        ] {
            let message = attributes(&[Attribute::Nested(RULE_EXPRESSIONS, expressions)]);
            assert_eq!(rule(&message).conditions, [expected]);
        }
    }

    #[test]
    fn bytes_that_mean_nothing_are_read_without_harm() {
        let empty = rule(&[]);
        assert_eq!((empty.id, empty.conditions.len(), empty.verdict), (0, 0, Verdict::Continue));
        let odd = attributes(&[Attribute::Nested(RULE_EXPRESSIONS, vec![Attribute::number(1, 77)])]);
        assert_eq!(rule(&odd).conditions, [Condition::Unknown]);
        assert_eq!(chain(&[1, 2, 3]).forward, None);
    }
}
