//! The nf_tables table that accepts a network's VXLAN packets from the network's hosts only.
//!
//! The kernel takes a VXLAN packet from any sender. So a container could send frames into a network
//! that it is not on: to its own host, or to another host, where its packet arrives with the address
//! of its own host. The rules apply to every packet that this host receives, also to one that it
//! forwards. The packet's source must be a host on the peer list, and the route to that host must
//! lead back to the link that the packet came from. So a container cannot use a host's address, and
//! with WireGuard the packet must come through the tunnel.
//!
//! Fragments are complete at this point: connection tracking, which the table `inet stave` uses,
//! puts them together first (NF_IP_PRI_CONNTRACK_DEFRAG, linux/netfilter_ipv4.h).

use std::{collections::BTreeSet, net::IpAddr};

use netlink::{
    Connection, Error, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Refusal,
    attribute::{self, Attribute, covers, find},
    expression::{
        DROP, Expression, LIST_ELEM, META_L4PROTO, NETWORK, REGISTER_1, TRANSPORT, comment, compare, data,
        list, lookup, meta, named, no_route_back, octets, payload, verdict,
    },
    netfilter::{INET, Kind, Netfilter},
    transaction::{self, Change, retry},
};
use nix::errno::Errno;
use operation::{Condition, words};
use serde::{Deserialize, Serialize};

const SET: &str = "peers";
const CHAIN: &str = "prerouting";
/// `raw`: before all rules that change a packet.
const PRIORITY: i32 = -300;
const HOOK: u32 = 0;
const META_NFPROTO: u32 = 15;
const UDP: u8 = 17;
/// The comment that marks the table as ours.
const MARK: &str = "stave";

/// The packets of a network's VXLAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// The name of the VXLAN.
    pub link: String,
    /// Its identifier (VNI).
    pub id: u32,
    /// Its UDP port.
    pub port: u16,
    /// The address of this host. The other hosts have addresses of the same IP version.
    pub local: IpAddr,
}

impl Tunnel {
    /// The name of the table.
    fn table(&self) -> String {
        format!("stave_{}", self.link)
    }

    /// The table in error messages.
    pub(crate) fn object(&self) -> String {
        format!("table inet {}", self.table())
    }

    fn versioned<T>(&self, v4: T, v6: T) -> T {
        if self.local.is_ipv4() { v4 } else { v6 }
    }

    fn attributes_of_table(&self) -> Vec<Attribute> {
        let mut attributes = vec![Attribute::string(1, &self.table()), Attribute::number(2, 0)];
        attributes.push(Attribute::Bytes(6, comment(MARK)));
        attributes
    }

    fn attributes_of_set(&self) -> Vec<Attribute> {
        let mut attributes = named(&self.table(), SET);
        let (kind, length) = self.versioned((7, 4), (8, 16));
        attributes.extend([Attribute::number(4, kind), Attribute::number(5, length)]);
        attributes
    }

    fn attributes_of_chain(&self) -> Vec<Attribute> {
        let hook = vec![Attribute::number(1, HOOK), Attribute::number(2, PRIORITY.cast_unsigned())];
        vec![
            Attribute::string(1, &self.table()),
            Attribute::string(3, CHAIN),
            Attribute::Nested(4, hook),
            Attribute::number(5, 1), // policy accept
            Attribute::string(7, "filter"),
        ]
    }

    /// The packets of the VXLAN: the IP version, UDP, the destination port, the VNI (RFC 7348, 5).
    fn matches(&self) -> Vec<Expression> {
        let [_, vni @ ..] = self.id.to_be_bytes();
        vec![
            meta(META_NFPROTO, REGISTER_1),
            compare(false, &[self.versioned(netlink::netfilter::IPV4, netlink::netfilter::IPV6)]),
            meta(META_L4PROTO, REGISTER_1),
            compare(false, &[UDP]),
            payload(TRANSPORT, 2, 2, REGISTER_1),
            compare(false, &self.port.to_be_bytes()),
            payload(TRANSPORT, 12, 3, REGISTER_1),
            compare(false, &vni),
        ]
    }

    /// The expressions of each rule.
    fn rules(&self) -> [Attribute; 2] {
        let (offset, length) = self.versioned((12, 4), (8, 16));
        let unknown = vec![payload(NETWORK, offset, length, REGISTER_1), lookup(SET, true)];
        [unknown, no_route_back()]
            .map(|condition| list([self.matches(), condition, vec![verdict(DROP, None)]].concat()))
    }

    fn attributes_of_rule(&self, expressions: Attribute) -> Vec<Attribute> {
        let mut attributes = named(&self.table(), CHAIN);
        attributes.push(expressions);
        attributes
    }

    /// The hosts as elements of the set. An address of the other IP version cannot be a sender.
    fn elements(&self, hosts: &BTreeSet<IpAddr>) -> Option<Vec<Attribute>> {
        let fitting = hosts.iter().filter(|host| host.is_ipv4() == self.local.is_ipv4());
        let members: Vec<_> =
            fitting.map(|host| Attribute::Nested(LIST_ELEM, vec![data(1, octets(*host))])).collect();
        let mut attributes = named(&self.table(), SET);
        attributes.push(Attribute::Nested(3, members.clone()));
        (!members.is_empty()).then_some(attributes)
    }

    /// The changes that make the table.
    fn changes(&self, hosts: &BTreeSet<IpAddr>) -> Vec<Change> {
        const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
        let of = |what: &str| format!("{what} of {}", self.object());
        let change = |kind, flags, attributes, object| Change::new(kind, INET, flags, attributes, object);
        let mut set = self.attributes_of_set();
        set.push(Attribute::number(10, 1)); // its id within the batch
        let mut changes = vec![
            change(Kind::NewTable, NEW, self.attributes_of_table(), self.object()),
            change(Kind::NewSet, NEW, set, of("set peers")),
            change(Kind::NewChain, NEW, self.attributes_of_chain(), of("chain prerouting")),
        ];
        for rule in self.rules() {
            let flags = NLM_F_CREATE | NLM_F_APPEND;
            changes.push(change(Kind::NewRule, flags, self.attributes_of_rule(rule), of("rules")));
        }
        let elements = self.elements(hosts);
        changes.extend(elements.map(|all| change(Kind::NewElement, NEW, all, of("elements"))));
        changes
    }

    /// Compares the table with the kernel's.
    pub(crate) fn condition(&self, hosts: &BTreeSet<IpAddr>) -> Result<Condition, Error> {
        let look = || {
            let socket = Netfilter::of_this_thread()?;
            Ok(match self.is_there(&socket) {
                Ok(false) => Condition::Missing(self.object()),
                Ok(true) => self.difference(&socket, hosts)?.map_or(Condition::Present, Condition::Missing),
                Err(refusal) if refusal.errno == Errno::EEXIST => Condition::Different(self.object()),
                Err(refusal) => return Err(refusal),
            })
        };
        retry(look).map_err(|refusal| Error::new("look for", self.object(), refusal))
    }

    /// Makes the table, or replaces one that differs, in one transaction.
    pub(crate) fn make(&self, hosts: &BTreeSet<IpAddr>) -> Result<(), Error> {
        transaction::transact("add", &self.object(), |socket| {
            if !self.is_there(socket)? {
                return Ok(self.changes(hosts));
            }
            Ok(match self.difference(socket, hosts)? {
                None => Vec::new(),
                Some(_) => [self.removal()].into_iter().chain(self.changes(hosts)).collect(),
            })
        })
    }

    /// Removes the table.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        transaction::transact("remove", &self.object(), |socket| match self.is_there(socket) {
            Ok(true) => Ok(vec![self.removal()]),
            // Another program's table stays.
            Err(refusal) if refusal.errno == Errno::EEXIST => Ok(Vec::new()),
            other => other.map(|_| Vec::new()),
        })
    }

    /// Removes the table, unless the VXLAN exists and needs it.
    pub(crate) fn remove_without_link(&self) -> Result<(), operation::Error> {
        match crate::vxlan(&Connection::open(None)?, &self.link)? {
            Some(_) => Ok(()),
            None => Ok(self.remove()?),
        }
    }

    fn removal(&self) -> Change {
        Change::new(Kind::DelTable, INET, 0, vec![Attribute::string(1, &self.table())], self.object())
    }

    /// Whether the table exists.
    ///
    /// # Errors
    /// EEXIST when it is another program's.
    fn is_there(&self, socket: &Netfilter) -> Result<bool, Refusal> {
        let table = socket.get(Kind::GetTable, INET, &self.attributes_of_table()[..1])?;
        match table {
            None => Ok(false),
            Some(table) if find(&table, 6) == Some(&comment(MARK)[..]) => Ok(true),
            Some(_) => Err(Errno::EEXIST.into()),
        }
    }

    /// The part of the existing table that differs.
    fn difference(&self, socket: &Netfilter, hosts: &BTreeSet<IpAddr>) -> Result<Option<String>, Refusal> {
        let differs = |what: &str| Ok(Some(format!("{what} of {}", self.object())));
        let table = socket.get(Kind::GetTable, INET, &self.attributes_of_table()[..1])?;
        // Somebody may have made the table dormant.
        if !table.is_some_and(|table| covers(&table, &self.attributes_of_table())) {
            return Ok(Some(self.object()));
        }
        let set = socket.get(Kind::GetSet, INET, &named(&self.table(), SET))?;
        if !set.is_some_and(|set| covers(&set, &self.attributes_of_set())) {
            return differs("set peers");
        }
        let wanted = self.attributes_of_chain();
        let chain = socket.get(Kind::GetChain, INET, &wanted[..2])?;
        if !chain.is_some_and(|chain| covers(&chain, &wanted)) {
            return differs("chain prerouting");
        }
        let rules = socket.dump(Kind::GetRule, INET, &self.attributes_of_table()[..1])?;
        let wanted = self.rules();
        let same = |(found, rule): (&Vec<u8>, &Attribute)| covers(found, std::slice::from_ref(rule));
        if rules.len() != wanted.len() || !rules.iter().zip(&wanted).all(same) {
            return differs("rules");
        }
        let messages = socket.dump(Kind::GetElement, INET, &named(&self.table(), SET))?;
        let members = messages.iter().filter_map(|message| find(message, 3)).flat_map(attribute::read);
        let found: BTreeSet<Vec<u8>> =
            members.filter_map(|(_, member)| Some(find(find(member, 1)?, 1)?.to_vec())).collect();
        let fitting = hosts.iter().filter(|host| host.is_ipv4() == self.local.is_ipv4());
        match found == fitting.map(|host| octets(*host)).collect() {
            true => Ok(None),
            false => differs("elements"),
        }
    }

    /// The commands that make the table.
    pub(crate) fn explain(&self, hosts: &BTreeSet<IpAddr>) -> Vec<String> {
        let nft = |what: &str, rest: &[&str]| {
            let table = self.table();
            let all = ["nft", "add", what, "inet", &table];
            words(all.into_iter().chain(rest.iter().copied()).map(str::to_owned))
        };
        let (version, kind, header) =
            self.versioned(("ipv4", "ipv4_addr", "ip"), ("ipv6", "ipv6_addr", "ip6"));
        let of =
            format!("meta nfproto {version} meta l4proto udp th dport {} @th,96,24 {}", self.port, self.id);
        let mut lines = vec![
            nft("table", &[&format!("{{ comment \"{MARK}\"; }}")]),
            nft("set", &[SET, &format!("{{ type {kind}; }}")]),
            nft("chain", &[CHAIN, "{ type filter hook prerouting priority raw; policy accept; }"]),
            nft("rule", &[CHAIN, &format!("{of} {header} saddr != @{SET} drop")]),
            nft("rule", &[CHAIN, &format!("{of} fib saddr . iif oif missing drop")]),
        ];
        let fitting: Vec<_> = hosts
            .iter()
            .filter(|host| host.is_ipv4() == self.local.is_ipv4())
            .map(ToString::to_string)
            .collect();
        if !fitting.is_empty() {
            lines.push(nft("element", &[SET, &format!("{{ {} }}", fitting.join(", "))]));
        }
        lines
    }
}
