//! The table in a container's network namespace that leads its connections to the listener that
//! compares names.
//!
//! The container may remove the table if it has the right to. That opens nothing: at the host's side
//! of the link, what names list on these ports is rejected. Only the process on the host reaches it.

use std::{net::SocketAddr, path::Path};

use ipnet::IpNet;
use nat::ruleset::{Field, Statement, Value};
use netlink::{
    Error, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Refusal,
    attribute::{Attribute, covers, find},
    namespace::{enter, is_plain_file},
    netfilter::{self, INET, Kind, Netfilter},
    transaction::{self, Change, retry},
};
use nix::errno::Errno;
use operation::{Condition, words};

use crate::{
    encode,
    list::{Entry, Protocol, Target},
};

/// The name of the table, and of its chain.
const TABLE: &str = "stave_sni";
const CHAIN: &str = "output";

/// The parameters of a table.
#[derive(Debug, Clone)]
pub(crate) struct Redirect<'a> {
    pub(crate) namespace: &'a Path,
    /// The comment of the table.
    pub(crate) owner: String,
    /// The TCP ports.
    pub(crate) ports: &'a [u16],
    /// Where connections lead: one address for each IP version of the container.
    pub(crate) to: &'a [SocketAddr],
    pub(crate) allow: &'a [Entry],
    /// The networks of the container's neighbours.
    pub(crate) networks: &'a [IpNet],
}

fn object() -> String {
    format!("table inet {TABLE}")
}

fn change(kind: Kind, flags: u16, attributes: Vec<Attribute>, object: String) -> Change {
    Change::new(kind, INET, flags, attributes, object)
}

fn chain() -> Vec<Attribute> {
    // Where the kernel translates the destinations of the namespace's own packets.
    let (output, before) = (3, -100_i32);
    let mut attributes = encode::chain_name(TABLE, CHAIN);
    let hook = vec![Attribute::number(1, output), Attribute::number(2, before.cast_unsigned())];
    attributes.push(Attribute::Nested(4, hook));
    attributes.push(Attribute::number(5, 1)); // policy accept
    attributes.push(Attribute::string(7, "nat"));
    attributes
}

fn rule(statements: &[Statement]) -> Vec<Attribute> {
    let mut attributes = encode::named(TABLE, CHAIN);
    attributes.push(nat::encode::statements(statements));
    attributes
}

fn text(statements: &[Statement]) -> String {
    statements.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

impl Redirect<'_> {
    fn rules(&self) -> Vec<Vec<Statement>> {
        let is = |field, value| Statement::Is { field, not: false, value };
        let to = |net: IpNet| match (net, net.prefix_len()) {
            (IpNet::V4(_), 0) => Statement::OfIpv4,
            (IpNet::V6(_), 0) => Statement::OfIpv6,
            (IpNet::V4(_), _) => is(Field::IpDaddr, Value::Prefix(net)),
            (IpNet::V6(_), _) => is(Field::Ip6Daddr, Value::Prefix(net)),
        };
        let tcp = || is(Field::L4Proto, Value::Protocol(Protocol::Tcp));
        let port = |number| is(Field::ThDport, Value::Port(number));
        // The container's own servers.
        let mut rules = vec![vec![Statement::ToThisHost, Statement::Accept]];
        // The containers on its networks. Each has addresses of its own, so there is nothing to
        // compare, and what isolates them from each other holds.
        rules.extend(self.networks.iter().map(|net| vec![to(*net), Statement::Accept]));
        for entry in self.allow {
            let Target::Addresses(net) = entry.target else { continue };
            match entry.port {
                None => rules.push(vec![to(net), Statement::Accept]),
                Some(listed) if listed.protocol == Protocol::Tcp => {
                    rules.push(vec![to(net), tcp(), port(listed.number), Statement::Accept]);
                }
                Some(_) => {}
            }
        }
        for to in self.to {
            let version = if to.is_ipv4() { Statement::OfIpv4 } else { Statement::OfIpv6 };
            for number in self.ports {
                rules.push(vec![version.clone(), tcp(), port(*number), Statement::DnatTo(*to)]);
            }
        }
        rules
    }

    /// The changes that make the table.
    fn changes(&self) -> Vec<Change> {
        const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
        let mut changes = vec![
            change(Kind::NewTable, NEW, encode::table(TABLE, 0, &self.owner), object()),
            change(Kind::NewChain, NEW, chain(), format!("chain {CHAIN} of {}", object())),
        ];
        changes.extend(self.rules().iter().map(|statements| {
            let object = format!("rule {CHAIN} {} of {}", text(statements), object());
            change(Kind::NewRule, NLM_F_CREATE | NLM_F_APPEND, rule(statements), object)
        }));
        changes
    }

    pub(crate) fn explain(&self) -> Vec<String> {
        let namespace = format!("--net={}", self.namespace.display());
        let nft = |what: &str, rest: &[&str]| {
            let command = ["nsenter", &namespace, "nft", "add", what, "inet", TABLE];
            words(command.iter().chain(rest).copied())
        };
        let hook = "{ type nat hook output priority -100; policy accept; }";
        let mut lines = vec![
            nft("table", &[&format!("{{ comment \"{}\"; }}", self.owner)]),
            nft("chain", &[CHAIN, hook]),
        ];
        lines.extend(self.rules().iter().map(|statements| nft("rule", &[CHAIN, &text(statements)])));
        lines
    }

    /// Makes the table, or makes it again if something is missing.
    pub(crate) fn make(&self) -> Result<(), operation::Error> {
        let made = self.inside("add", |socket| {
            let lack = self.lack(socket)?;
            let Some(lack) = lack else { return Ok(()) };
            if matches!(lack, Condition::Different(_)) {
                return Err(Errno::EEXIST.into());
            }
            let standing = socket.get(Kind::GetTable, INET, &encode::table_name(TABLE))?;
            let remove = standing.map(|_| change(Kind::DelTable, 0, encode::table_name(TABLE), object()));
            let changes: Vec<_> = remove.into_iter().chain(self.changes()).collect();
            transaction::commit(socket, None, &changes, &object()).map_err(|(_, refusal)| refusal)
        });
        if made.is_err() && netfilter::is_in_doubt() {
            // The kernel may have carried the change out. The first error is the one to report.
            let _ = self.remove();
        }
        made
    }

    pub(crate) fn check(&self) -> Result<Condition, operation::Error> {
        Ok(self.inside("look for", |socket| self.lack(socket))?.unwrap_or(Condition::Present))
    }

    /// Removes the table, unless it is another one's. A namespace that is gone has no table.
    pub(crate) fn remove(&self) -> Result<(), operation::Error> {
        let unknown = operation::Error::on("look for", format!("{:?}", self.namespace));
        if !self.namespace.try_exists().map_err(unknown)? || is_plain_file(self.namespace) {
            return Ok(());
        }
        self.inside("remove", |socket| {
            let name = encode::table_name(TABLE);
            let standing = socket.get(Kind::GetTable, INET, &name)?;
            if !standing.is_some_and(|standing| encode::has_comment(&standing, &self.owner)) {
                return Ok(());
            }
            match transaction::commit(socket, None, &[change(Kind::DelTable, 0, name, object())], &object()) {
                Err((_, refusal)) if refusal.errno != Errno::ENOENT => Err(refusal),
                _ => Ok(()),
            }
        })
    }

    /// Works in the container's namespace.
    fn inside<T: Send>(
        &self,
        verb: &'static str,
        work: impl Fn(&Netfilter) -> Result<T, Refusal> + Sync,
    ) -> Result<T, operation::Error> {
        let failed = |refusal| {
            let object = format!("{} in {}", object(), self.namespace.display());
            operation::Error::from(Error::new(verb, object, refusal))
        };
        // The socket is not that of the thread, which belongs to the thread's own namespace.
        let worked = enter(self.namespace, || {
            let socket = Netfilter::open()?;
            retry(|| work(&socket))
        });
        worked.map_err(|errno| failed(errno.into()))?.map_err(failed)
    }

    /// The first difference from the kernel's table. None if there is none.
    fn lack(&self, socket: &Netfilter) -> Result<Option<Condition>, Refusal> {
        let missing = |what: &str| {
            let of = format!("{} in {}", object(), self.namespace.display());
            Ok(Some(Condition::Missing(format!("{what}{of}"))))
        };
        let Some(table) = socket.get(Kind::GetTable, INET, &encode::table_name(TABLE))? else {
            return missing("");
        };
        if !encode::has_comment(&table, &self.owner) {
            return Ok(Some(Condition::Different(object())));
        }
        let standing = socket.get(Kind::GetChain, INET, &encode::chain_name(TABLE, CHAIN))?;
        if !standing.is_some_and(|standing| covers(&standing, &chain())) {
            return missing("chain output of ");
        }
        let standing = socket.dump(Kind::GetRule, INET, &encode::table_name(TABLE))?;
        let rules = self.rules();
        let same = |(found, statements): (&Vec<u8>, &Vec<Statement>)| {
            find(found, 2).is_some() && covers(found, &[nat::encode::statements(statements)])
        };
        match standing.len() == rules.len() && standing.iter().zip(&rules).all(same) {
            true => Ok(None),
            false => missing("rules of "),
        }
    }
}
