use std::{fmt, str::FromStr};

use netlink::netfilter::{INET, IPV4, IPV6};
use operation::words;
use serde::{Deserialize, Serialize};

use crate::{nftables, walk::mark};

/// Which firewall of the host lets a bridge through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firewall {
    /// Whichever drops its packets.
    Auto,
    /// iptables, in both of its forms: before anything drops there as well.
    Iptables,
    /// The other chains of nftables at the hook `forward`.
    Nftables,
    /// firewalld.
    Firewalld,
    /// None: what drops packets is left alone.
    None,
}

/// Not the name of a firewall.
#[derive(Debug)]
pub struct InvalidFirewall;

impl Firewall {
    /// Their names, as [`FromStr`] reads them.
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

/// The family of a table of nf_tables.
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

    /// Whether packets of IPv4, or of IPv6, come to its tables.
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

/// A part of the host's firewall that drops packets of a bridge, and where it is to let them through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Barrier {
    /// A chain of nf_tables.
    Nftables {
        /// The family of its table.
        family: Family,
        /// Its table.
        table: String,
        /// Whether the packets are of IPv6.
        v6: bool,
        /// Its name.
        chain: String,
        /// The handle of the rule before which ours go; none at the end.
        before: Option<u64>,
        /// Whether it needs a rule for what comes from the bridge.
        from: bool,
        /// Whether it needs one for what goes to it.
        to: bool,
    },
    /// The chain FORWARD of a table of iptables in its form before nf_tables.
    Legacy {
        /// The table.
        table: String,
        /// The number of the rule before which ours go; none at the end.
        before: Option<u64>,
        /// As above.
        from: bool,
        /// As above.
        to: bool,
    },
    /// firewalld.
    Firewalld {
        /// The zone for the bridge.
        zone: String,
        /// The zone in which somebody else put it.
        bound: Option<String>,
    },
}

impl Barrier {
    /// The firewall that it is a part of.
    pub fn firewall(&self) -> Firewall {
        match self {
            Self::Nftables { family, table, chain, .. } => nftables::owner(*family, table, chain),
            Self::Legacy { .. } => Firewall::Iptables,
            Self::Firewalld { .. } => Firewall::Firewalld,
        }
    }

    /// The commands that would let the bridge through.
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
            Self::Legacy { table, before, from, to } => {
                let number = before.map(|number| number.to_string());
                let place = |option| {
                    let (verb, number) =
                        number.as_ref().map_or(("-A", None), |number| ("-I", Some(number.as_str())));
                    let begin = ["iptables-legacy", "-t", table, verb, "FORWARD"].into_iter().chain(number);
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
            Self::Legacy { table, .. } => write!(f, "chain FORWARD of table {table} of iptables-legacy"),
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
        let legacy = Barrier::Legacy { table: "filter".into(), before: None, from: true, to: true };
        assert_eq!(
            legacy.explain("br0"),
            [
                "iptables-legacy -t filter -A FORWARD -i br0 -m comment --comment 'stave br0' -j ACCEPT",
                "iptables-legacy -t filter -A FORWARD -o br0 -m comment --comment 'stave br0' -j ACCEPT"
            ]
        );
        let zone = Barrier::Firewalld { zone: "trusted".into(), bound: None };
        assert_eq!(zone.explain("br0"), ["firewall-cmd --zone=trusted --add-interface=br0"]);
    }
}
