//! Traces a packet through the chains of a table.

/// What a rule does with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    /// Continues in the chain with this name, and returns at its end.
    Jump(String),
    /// Continues in the chain with this name, and does not return.
    Goto(String),
    Return,
    Continue,
}

/// A condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The packet arrives by the interface with this name, or with `out`, leaves by it. With
    /// `prefix`, the interface's name starts with it. `not` negates.
    Interface { out: bool, name: Vec<u8>, prefix: bool, not: bool },
    /// The packet is IPv4 or IPv6.
    Ipv4(bool),
    /// A condition that is not evaluated here.
    Unknown,
}

/// A rule of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The kernel's handle, or the rule's position in the chain.
    pub(crate) id: u64,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) verdict: Verdict,
    pub(crate) comment: Option<String>,
}

/// A chain of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    /// If this is a base chain for forwarded packets, its policy.
    pub(crate) forward: Option<Policy>,
    pub(crate) rules: Vec<Rule>,
}

/// The policy of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Accept,
    Drop,
}

/// A packet that opens a connection, with its incoming and outgoing interface. None is any
/// interface but the bridge.
#[derive(Debug, Clone, Copy)]
struct Packet<'a> {
    /// Whether the packet is IPv6.
    v6: bool,
    bridge: &'a str,
    comes_by: Option<&'a str>,
    goes_by: Option<&'a str>,
}

/// Where a base chain drops packets of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Whether it drops packets from the bridge.
    pub(crate) from: bool,
    /// Whether it drops packets to the bridge.
    pub(crate) to: bool,
    /// The rule of the base chain that our rules must precede. None means at the end.
    pub(crate) before: Option<u64>,
}

impl Condition {
    /// Whether the condition holds for this packet. None if that is unknown.
    fn holds(&self, packet: &Packet) -> Option<bool> {
        let Self::Interface { out, name, prefix, not } = self else {
            return match self {
                Self::Ipv4(is) => Some(*is != packet.v6),
                _ => None,
            };
        };
        let interface = if *out { packet.goes_by } else { packet.comes_by };
        let is = match interface {
            Some(interface) if *prefix => interface.as_bytes().starts_with(name),
            Some(interface) => interface.as_bytes() == name,
            None if *prefix && name.is_empty() => true,
            None if !*prefix && name == packet.bridge.as_bytes() => false,
            None => return None,
        };
        Some(is != *not)
    }
}

impl Rule {
    /// Whether the rule certainly applies to this packet. A rule that only may apply is skipped: a
    /// packet that it drops was meant to be dropped, and a packet that it accepts may be another
    /// one.
    fn is_for(&self, packet: &Packet) -> bool {
        self.conditions.iter().all(|condition| condition.holds(packet) == Some(true))
    }

    /// Whether the rule accepts exactly the packets from the bridge, or with `out`, to the bridge,
    /// of this IP version or of both. It does not matter who made it.
    fn lets_through(&self, bridge: &str, out: bool, v6: bool) -> bool {
        let name = bridge.as_bytes().to_vec();
        let bridge = Condition::Interface { out, name, prefix: false, not: false };
        let of_version = Condition::Ipv4(!v6);
        self.verdict == Verdict::Accept
            && self.conditions.iter().filter(|condition| **condition != of_version).eq([&bridge])
    }

    /// Whether we made the rule for this bridge.
    pub(crate) fn is_ours(&self, bridge: &str) -> bool {
        self.comment.as_deref() == Some(&mark(bridge))
            && [(false, false), (true, false), (false, true), (true, true)]
                .iter()
                .any(|(out, v6)| self.lets_through(bridge, *out, *v6))
    }
}

/// The comment of a rule for this bridge.
pub(crate) fn mark(bridge: &str) -> String {
    format!("stave {bridge}")
}

/// The maximum depth of jumps (NFT_JUMP_STACK_SIZE).
const DEPTH: usize = 16;

/// The verdict of the chain on the packet, and the index of the deciding rule. `Return` means no
/// decision.
fn fate(chains: &[Chain], chain: &Chain, packet: &Packet, depth: usize) -> (Verdict, usize) {
    let called = |name: &str| match chains.iter().find(|chain| chain.name == name) {
        Some(chain) if depth < DEPTH => fate(chains, chain, packet, depth + 1).0,
        _ => Verdict::Return,
    };
    for (at, rule) in chain.rules.iter().enumerate().filter(|(_, rule)| rule.is_for(packet)) {
        match &rule.verdict {
            Verdict::Continue => {}
            Verdict::Jump(name) => match called(name) {
                Verdict::Return => {}
                decided => return (decided, at),
            },
            Verdict::Goto(name) => return (called(name), at),
            decided => return (decided.clone(), at),
        }
    }
    (Verdict::Return, chain.rules.len())
}

impl Chain {
    /// Where the chain drops packets of the bridge, if it is a base chain for forwarded packets.
    /// Looks at packets that open a connection from the bridge, between two of its ports, or to it;
    /// IPv4, or with `v6` IPv6.
    pub(crate) fn drops(&self, chains: &[Chain], bridge: &str, v6: bool) -> Option<Dropped> {
        let policy = self.forward?;
        let dropped = |comes_by, goes_by| {
            let (verdict, at) = fate(chains, self, &Packet { v6, bridge, comes_by, goes_by }, 0);
            let is_dropped = verdict == Verdict::Drop || verdict == Verdict::Return && policy == Policy::Drop;
            is_dropped.then_some(at)
        };
        let from = [dropped(Some(bridge), None), dropped(Some(bridge), Some(bridge))];
        let to = dropped(None, Some(bridge));
        let first = from.into_iter().chain([to]).flatten().min()?;
        let before = self.rules.get(first).map(|rule| rule.id);
        Some(Dropped { from: from.iter().any(Option::is_some), to: to.is_some(), before })
    }

    /// Which rules for the bridge this chain lacks, whether or not it drops packets.
    pub(crate) fn lacks(&self, chains: &[Chain], bridge: &str, v6: bool) -> Option<Dropped> {
        self.forward?;
        let is_missing = |out| !self.rules.iter().any(|rule| rule.lets_through(bridge, out, v6));
        let dropped =
            self.drops(chains, bridge, v6).unwrap_or(Dropped { from: false, to: false, before: None });
        let (from, to) = (dropped.from || is_missing(false), dropped.to || is_missing(true));
        (from || to).then_some(Dropped { from, to, ..dropped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(out: bool, name: &str) -> Condition {
        let prefix = name.ends_with('*');
        let (not, name) = name.strip_prefix('!').map_or((false, name), |name| (true, name));
        Condition::Interface { out, name: name.trim_end_matches('*').into(), prefix, not }
    }

    /// In `conditions`, `>name` is the incoming interface, `<name` the outgoing one, `4` and `6`
    /// the IP version, and `?` something unknown.
    fn rule(id: u64, conditions: &str, verdict: Verdict) -> Rule {
        let condition = |word: &str| match word.split_at(1) {
            (">", name) => interface(false, name),
            ("<", name) => interface(true, name),
            ("4", _) => Condition::Ipv4(true),
            ("6", _) => Condition::Ipv4(false),
            _ => Condition::Unknown,
        };
        Rule {
            id,
            conditions: conditions.split_whitespace().map(condition).collect(),
            verdict,
            comment: None,
        }
    }

    fn chain(name: &str, forward: Option<Policy>, rules: Vec<Rule>) -> Chain {
        Chain { name: name.into(), forward, rules }
    }

    /// Asserts what drops the packets of a bridge, with the rules for IPv4 and with the same rules for IPv6.
    #[track_caller]
    fn assert_drops(base: Chain, expected: Option<Dropped>, what: &str) {
        let drops = chain("drops", None, vec![rule(7, "", Verdict::Drop)]);
        let chains = [base.clone(), drops, chain("empty", None, vec![])];
        assert_eq!(base.drops(&chains, "br0", false), expected, "{what}");
        let turned = |rule: &Rule| Rule {
            conditions: rule.conditions.iter().cloned().map(of_the_other).collect(),
            ..rule.clone()
        };
        let base = Chain { rules: base.rules.iter().map(turned).collect(), ..base };
        assert_eq!(base.drops(&chains, "br0", true), expected, "{what}, of IPv6");
    }

    #[test]
    fn packets_are_followed_to_what_drops_them() {
        use Verdict::{Accept, Drop, Goto, Jump, Return};
        let jump = |name: &str| Jump(name.into());
        let accept = || vec![rule(1, ">br0", Accept), rule(2, "<br0", Accept)];
        let all = |before| Some(Dropped { from: true, to: true, before });
        for (what, policy, rules, expected) in [
            ("an empty chain", Policy::Accept, vec![], None),
            ("its policy", Policy::Drop, vec![], all(None)),
            (
                "a rule at its end",
                Policy::Accept,
                vec![rule(1, "?", Accept), rule(2, "", Drop)],
                all(Some(2)),
            ),
            ("after ours", Policy::Drop, accept(), None),
            ("before ours", Policy::Drop, [vec![rule(9, "", Drop)], accept()].concat(), all(Some(9))),
            ("a rule for some", Policy::Accept, vec![rule(1, "? <br0", Drop)], None),
            ("all of IPv4", Policy::Accept, vec![rule(1, "4", Drop)], all(Some(1))),
            ("all but IPv4", Policy::Accept, vec![rule(1, "6", Drop)], None),
            ("ours for IPv4", Policy::Drop, vec![rule(1, "4 >br0", Accept), rule(2, "4 <br0", Accept)], None),
            ("a chain of its own", Policy::Accept, vec![rule(1, "", jump("drops"))], all(Some(1))),
            (
                "no way back",
                Policy::Drop,
                [vec![rule(1, "", Goto("empty".into()))], accept()].concat(),
                all(Some(1)),
            ),
            ("there and back", Policy::Drop, [vec![rule(5, "", jump("empty"))], accept()].concat(), None),
            ("for another bridge", Policy::Accept, vec![rule(1, ">br1", Drop), rule(2, "<br1", Drop)], None),
            (
                "the end of the chain",
                Policy::Drop,
                vec![rule(3, "", Return), rule(4, "", Accept)],
                all(Some(3)),
            ),
            ("a chain that is not there", Policy::Accept, vec![rule(1, "", jump("none"))], None),
            (
                "all but the bridge",
                Policy::Drop,
                vec![rule(1, ">!br0", Accept)],
                Some(Dropped { from: true, to: false, before: None }),
            ),
            (
                "names that begin so",
                Policy::Drop,
                vec![rule(1, ">br*", Accept)],
                Some(Dropped { from: false, to: true, before: None }),
            ),
            ("any name", Policy::Drop, vec![rule(1, ">*", Accept)], None),
            ("only between its ports", Policy::Drop, vec![rule(1, ">br0 <br0", Accept)], all(None)),
        ] {
            assert_drops(chain("FORWARD", Some(policy), rules), expected, what);
        }
    }

    /// The same condition for IPv6.
    fn of_the_other(condition: Condition) -> Condition {
        match condition {
            Condition::Ipv4(is) => Condition::Ipv4(!is),
            other => other,
        }
    }

    #[test]
    fn a_chain_that_calls_itself_ends() {
        let base = chain("a", Some(Policy::Drop), vec![rule(1, "", Verdict::Jump("a".into()))]);
        assert_eq!(base.drops(std::slice::from_ref(&base), "br0", false).unwrap().before, None);
    }

    #[test]
    fn ours_are_told_by_comment_and_content() {
        let with = |conditions, verdict, comment: &str| Rule {
            comment: Some(comment.into()),
            ..rule(1, conditions, verdict)
        };
        for (rule, ours) in [
            (with(">br0", Verdict::Accept, "stave br0"), true),
            (with("<br0", Verdict::Accept, "stave br0"), true),
            (with("4 <br0", Verdict::Accept, "stave br0"), true),
            (with("6 <br0", Verdict::Accept, "stave br0"), true),
            (with("4 6 <br0", Verdict::Accept, "stave br0"), false),
            (with("4", Verdict::Accept, "stave br0"), false),
            (with("<br0", Verdict::Accept, "stave br1"), false),
            (with("<br0", Verdict::Drop, "stave br0"), false),
            (with("<br0 ?", Verdict::Accept, "stave br0"), false),
            (rule(1, "<br0", Verdict::Accept), false),
        ] {
            assert_eq!(rule.is_ours("br0"), ours, "{rule:?}");
        }
    }
}
