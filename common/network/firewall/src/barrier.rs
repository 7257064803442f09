use std::{fmt, str::FromStr};

use netlink::netfilter::{INET, IPV4, IPV6};
use operation::words;
use serde::{Deserialize, Serialize};

use crate::{iptables, nftables, walk::mark};

/// The host's firewall that has to accept a bridge's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firewall {
    /// Every firewall that drops its packets.
    Auto,
    /// iptables, legacy and nf_tables. Rules are added even if nothing is dropped yet.
    Iptables,
    /// Other nftables chains at the hook `forward`.
    Nftables,
    /// firewalld.
    Firewalld,
    /// None: firewalls are left alone.
    None,
}

/// The text is not the name of a firewall.
#[derive(Debug)]
pub struct InvalidFirewall;

impl Firewall {
    /// The names that [`FromStr`] accepts.
    pub const NAMES: [&str; 5] = ["auto", "iptables", "nftables", "firewalld", "none"];
    const ALL: [Self; 5] = [Self::Auto, Self::Iptables, Self::Nftables, Self::Firewalld, Self::None];
}

impl FromStr for Firewall {
    type Err = InvalidFirewall;
    fn from_str(name: &str) -> Result<Self, InvalidFirewall> {
        let found = Self::NAMES.iter().zip(Self::ALL).find(|(known, _)| **known == name);
        found.map(|(_, firewall)| firewall).ok_or(InvalidFirewall)
    }
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.iter().zip(Self::NAMES).find(|(firewall, _)| *firewall == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

/// The family of an nf_tables table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// IPv4 and IPv6.
    Inet,
}

impl Family {
    pub(crate) const ALL: [Self; 3] = [Self::Ip, Self::Ip6, Self::Inet];

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Ip => IPV4,
            Self::Ip6 => IPV6,
            Self::Inet => INET,
        }
    }

    /// Whether packets of this IP version pass the tables of the family.
    pub(crate) fn sees(self, v6: bool) -> bool {
        match self {
            Self::Ip => !v6,
            Self::Ip6 => v6,
            Self::Inet => true,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        })
    }
}

/// A part of the host's firewall that drops packets of a bridge, and where a rule must accept them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Barrier {
    /// An nf_tables chain.
    Nftables {
        /// The family of the table.
        family: Family,
        /// The table.
        table: String,
        /// Whether it is about IPv6 packets.
        v6: bool,
        /// The chain.
        chain: String,
        /// The handle of the rule to insert ours before. None means at the end.
        before: Option<u64>,
        /// Whether a rule for packets from the bridge is needed.
        from: bool,
        /// Whether a rule for packets to the bridge is needed.
        to: bool,
    },
    /// The chain FORWARD of a legacy iptables table.
    Legacy {
        /// Whether it is a table of ip6tables.
        v6: bool,
        /// The table.
        table: String,
        /// The number of the rule to insert ours before. None means at the end.
        before: Option<u64>,
        /// As above.
        from: bool,
        /// As above.
        to: bool,
    },
    /// firewalld.
    Firewalld {
        /// The zone to put the bridge into.
        zone: String,
        /// The zone that somebody else put the bridge into.
        bound: Option<String>,
    },
}

impl Barrier {
    /// The firewall that this is a part of.
    pub fn firewall(&self) -> Firewall {
        match self {
            Self::Nftables { family, table, chain, .. } => nftables::owner(*family, table, chain),
            Self::Legacy { .. } => Firewall::Iptables,
            Self::Firewalld { .. } => Firewall::Firewalld,
        }
    }

    /// The commands that would let the bridge's packets pass.
    pub(crate) fn explain(&self, bridge: &str) -> Vec<String> {
        match self {
            Self::Nftables { family, table, v6, chain, before, from, to } => {
                let of = family.to_string();
                let place = match before {
                    Some(handle) => {
                        words(["nft", "insert", "rule", &of, table, chain, "handle", &handle.to_string()])
                    }
                    None => words(["nft", "add", "rule", &of, table, chain]),
                };
                let rule = |text: String| format!("{place} {}", operation::quote(&text));
                nftables::rules((*family, *v6), bridge, *from, *to).into_iter().map(rule).collect()
            }
            Self::Legacy { v6, table, before, from, to } => {
                let number = before.map(|number| number.to_string());
                let place = |option| {
                    let (verb, number) =
                        number.as_ref().map_or(("-A", None), |number| ("-I", Some(number.as_str())));
                    let program = iptables::program(*v6);
                    let begin = [program, "-t", table, verb, "FORWARD"].into_iter().chain(number);
                    let comment = mark(bridge);
                    words(begin.chain([
                        option,
                        bridge,
                        "-m",
                        "comment",
                        "--comment",
                        &comment,
                        "-j",
                        "ACCEPT",
                    ]))
                };
                let options = [(*from, "-i"), (*to, "-o")];
                options.into_iter().filter(|(needed, _)| *needed).map(|(_, option)| place(option)).collect()
            }
            Self::Firewalld { zone, .. } => {
                vec![words(["firewall-cmd", &format!("--zone={zone}"), &format!("--add-interface={bridge}")])]
            }
        }
    }
}

impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nftables { family, table, chain, .. } => {
                write!(f, "chain {chain} of table {family} {table}")
            }
            Self::Legacy { v6, table, .. } => {
                write!(f, "chain FORWARD of table {table} of {}", iptables::program(*v6))
            }
            Self::Firewalld { bound: None, .. } => f.write_str("firewalld"),
            Self::Firewalld { bound: Some(bound), .. } => write!(f, "zone {bound} of firewalld"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in Firewall::NAMES {
            assert_eq!(name.parse::<Firewall>().unwrap().to_string(), name);
        }
        assert!("ufw".parse::<Firewall>().is_err());
    }

    #[test]
    fn commands() {
        let nft = Barrier::Nftables {
            family: Family::Ip,
            table: "filter".into(),
            v6: false,
            chain: "FORWARD".into(),
            before: Some(7),
            from: true,
            to: false,
        };
        assert_eq!(nft.firewall(), Firewall::Iptables);
        assert_eq!(
            nft.explain("br0"),
            ["nft insert rule ip filter FORWARD handle 7 'iifname \"br0\" accept comment \"stave br0\"'"]
        );
        let both = Barrier::Nftables {
            family: Family::Inet,
            table: "t".into(),
            v6: false,
            chain: "f".into(),
            before: None,
            from: false,
            to: true,
        };
        assert_eq!(
            both.explain("br0"),
            ["nft add rule inet t f 'meta nfproto ipv4 oifname \"br0\" accept comment \"stave br0\"'"]
        );
        let Barrier::Nftables { table, chain, .. } = both else { panic!("{both}") };
        for (family, rule) in [
            (
                Family::Inet,
                "nft add rule inet t f 'meta nfproto ipv6 oifname \"br0\" accept comment \"stave br0\"'",
            ),
            (Family::Ip6, "nft add rule ip6 t f 'oifname \"br0\" accept comment \"stave br0\"'"),
        ] {
            let (table, chain) = (table.clone(), chain.clone());
            let of_ipv6 =
                Barrier::Nftables { family, table, v6: true, chain, before: None, from: false, to: true };
            assert_eq!(of_ipv6.explain("br0"), [rule]);
        }
        let legacy = |v6| Barrier::Legacy { v6, table: "filter".into(), before: None, from: true, to: !v6 };
        assert_eq!(
            legacy(true).explain("br0"),
            ["ip6tables-legacy -t filter -A FORWARD -i br0 -m comment --comment 'stave br0' -j ACCEPT"]
        );
        assert_eq!(
            legacy(false).explain("br0"),
            [
                "iptables-legacy -t filter -A FORWARD -i br0 -m comment --comment 'stave br0' -j ACCEPT",
                "iptables-legacy -t filter -A FORWARD -o br0 -m comment --comment 'stave br0' -j ACCEPT"
            ]
        );
        let zone = Barrier::Firewalld { zone: "trusted".into(), bound: None };
        assert_eq!(zone.explain("br0"), ["firewall-cmd --zone=trusted --add-interface=br0"]);
    }
}
