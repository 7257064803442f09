use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use netlink::{
    Error, Mac, Mark, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Refusal,
    attribute::{covers, find, string},
    netfilter::{Kind, NETDEV, Netfilter},
    transaction::{self, Change, retry},
};
use nix::{errno::Errno, net::if_::if_nametoindex};
use operation::{Cause, Condition, Operation, Place, Scope, words};
use serde::{Deserialize, Serialize};

use crate::{
    encode,
    list::{Entry, Protocol, Target},
    redirect::Redirect,
    resolver::{self, Resolver},
    rules::Rule,
    table::Table,
};

/// The host's side of a container's link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Name of the link.
    pub name: String,
    /// The hardware address of the container's side.
    pub mac: Mac,
    /// The container's addresses on the link, with prefix lengths.
    pub addresses: Vec<IpNet>,
}

/// Operations that restrict a container to a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all_fields = "camelCase")]
pub enum EgressOperation {
    /// The container's own nf_tables table, of family netdev, with rules at its links.
    #[serde(rename = "egress-table")]
    Table {
        /// The container's id, which is part of the table's name.
        holder: String,
        /// The owner, named in the table's comment.
        mark: Mark,
        /// The links.
        links: Vec<Link>,
        /// What the container may reach.
        allow: Vec<Entry>,
        /// The log group of rejected packets.
        group: u16,
        /// Whether everything passes and is only logged.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        learn: bool,
    },
    /// The process that answers the container's DNS questions.
    #[serde(rename = "egress-resolver")]
    Resolver {
        /// The container's id.
        holder: String,
        /// Path of its network namespace.
        namespace: PathBuf,
        /// What the container may reach.
        allow: Vec<Entry>,
        /// The name servers. The host's own if empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        servers: Vec<IpAddr>,
        /// Networks that no answer to a name may open.
        closed: Vec<IpNet>,
        /// Whether it answers with IPv6 addresses.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ipv6: bool,
        /// The log group of rejected packets.
        group: u16,
        /// The host's side of the container's first link. The process ends when the link is gone.
        link: String,
        /// The journal file of questions and rejected packets.
        journal: PathBuf,
        /// Whether it answers for all names.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        learn: bool,
        /// Whether all of the container's networks are internal. Then no question is forwarded.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        internal: bool,
        /// The addresses in the namespace where it takes connections, compares the name in the TLS
        /// hello, and passes them on. Empty if it does not. Then names open the ports themselves.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        listeners: Vec<SocketAddr>,
    },
    /// The table in the container's network namespace that leads its connections to the listeners
    /// of the resolver's process.
    #[serde(rename = "egress-redirect")]
    Redirect {
        /// The owner, named in the table's comment.
        mark: Mark,
        /// Path of the network namespace.
        namespace: PathBuf,
        /// The TCP ports.
        ports: Vec<u16>,
        /// Where connections to these ports lead.
        to: Vec<SocketAddr>,
        /// What the container may reach. Addresses of it are not compared.
        allow: Vec<Entry>,
        /// The networks of the container's neighbours, which are not compared either.
        networks: Vec<IpNet>,
    },
}

/// The port of TLS, which a name without a port means if the name in the TLS hello is compared.
pub const TLS: u16 = 443;
/// The port of the listeners. Servers in containers seldom have it, and the kernel chooses none so
/// high for a connection.
const LISTENER: u16 = 65_443;

/// Where a process takes connections, for a container with addresses of these IP versions.
pub fn listeners(ipv6: bool) -> Vec<SocketAddr> {
    let v4 = SocketAddr::new(names::ADDRESS.ip(), LISTENER);
    let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), LISTENER);
    [v4].into_iter().chain(ipv6.then_some(v6)).collect()
}

/// The TCP ports that names of the list open, and on which the name in the TLS hello is compared.
/// With `learn`, [`TLS`] is always one of them.
pub fn compared(allow: &[Entry], learn: bool) -> Vec<u16> {
    let names = allow.iter().filter(|entry| matches!(entry.target, Target::Name(_)));
    let mut ports: Vec<u16> = names.filter_map(compared_port).chain(learn.then_some(TLS)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The TCP port of an entry with a name.
pub(crate) fn compared_port(entry: &Entry) -> Option<u16> {
    match entry.port {
        None => Some(TLS),
        Some(port) => (port.protocol == Protocol::Tcp).then_some(port.number),
    }
}

/// The name of a container's table.
pub fn table_of(id: &str) -> String {
    format!("stave_egress_{id}")
}

/// The path of a container's journal.
pub fn journal_of(scope: &Scope, id: &str) -> PathBuf {
    scope.run_dir.join("egress").join(format!("{id}.log"))
}

/// The complete table, to compare with the kernel's or to make.
struct Whole<'a> {
    name: String,
    holder: &'a str,
    owner: String,
    table: Table<'a>,
}

fn change(kind: Kind, flags: u16, attributes: Vec<netlink::attribute::Attribute>, object: String) -> Change {
    Change::new(kind, NETDEV, flags, attributes, object)
}

impl Whole<'_> {
    fn object(&self) -> String {
        format!("table netdev {}", self.name)
    }

    /// The changes that make the table.
    fn changes(&self, flags: u32) -> Vec<Change> {
        let Self { name, owner, table, .. } = self;
        const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
        let mut changes = vec![change(Kind::NewTable, NEW, encode::table(name, flags, owner), self.object())];
        for (at, set) in table.sets().iter().enumerate() {
            let object = format!("set {} of {}", set.name, self.object());
            changes.push(change(Kind::NewSet, NEW, encode::set(name, set, at as u32 + 1), object));
        }
        for chain in table.chains() {
            let object = format!("chain {} of {}", chain.name, self.object());
            changes.push(change(Kind::NewChain, NEW, encode::chain(name, &chain), object));
        }
        for rule in table.rules() {
            let object = format!("rule {} {rule} of {}", rule.chain, self.object());
            let flags = NLM_F_CREATE | NLM_F_APPEND;
            changes.push(change(Kind::NewRule, flags, encode::rule(name, &rule), object));
        }
        let elements = table.elements();
        for set in table.sets() {
            let of_set: Vec<_> = elements.iter().filter(|element| element.set == set).collect();
            // The elements of one message must fit into one attribute.
            for part in of_set.chunks(500) {
                let object = format!("elements of set {} of {}", set.name, self.object());
                changes.push(change(Kind::NewElement, NEW, encode::elements(name, &set, part), object));
            }
        }
        changes
    }

    /// The first difference from the kernel's table. None if there is none.
    fn lack(&self, socket: &Netfilter) -> Result<Option<Condition>, Refusal> {
        let Self { name, owner, table, .. } = self;
        let missing = |what: String| Ok(Some(Condition::Missing(what)));
        let Some(standing) = socket.get(Kind::GetTable, NETDEV, &encode::table_name(name))? else {
            return missing(self.object());
        };
        if !encode::has_comment(&standing, owner) {
            return Ok(Some(Condition::Different(self.object())));
        }
        for set in table.sets() {
            let standing = socket.get(Kind::GetSet, NETDEV, &encode::named(name, set.name))?;
            if !standing.is_some_and(|standing| covers(&standing, &encode::set_alone(name, &set))) {
                return missing(format!("set {} of {}", set.name, self.object()));
            }
        }
        for chain in table.chains() {
            let standing = socket.get(Kind::GetChain, NETDEV, &encode::chain_name(name, &chain.name))?;
            if !standing.is_some_and(|standing| covers(&standing, &encode::chain(name, &chain))) {
                return missing(format!("chain {} of {}", chain.name, self.object()));
            }
        }
        let dumped = socket.dump(Kind::GetRule, NETDEV, &encode::table_name(name))?;
        let rules = table.rules();
        for chain in table.chains() {
            let of_chain = |rule: &&Vec<u8>| find(rule, 2).is_some_and(|found| string(found) == chain.name);
            let standing: Vec<_> = dumped.iter().filter(of_chain).collect();
            let wanted: Vec<&Rule> = rules.iter().filter(|rule| rule.chain == chain.name).collect();
            let same = |(found, rule): (&&Vec<u8>, &&Rule)| covers(found, &[encode::expressions(rule)]);
            if standing.len() != wanted.len() || !standing.iter().zip(&wanted).all(same) {
                return missing(format!("rules of chain {} of {}", chain.name, self.object()));
            }
        }
        for element in table.elements() {
            let wanted = encode::element_to_find(name, &element);
            if socket.get(Kind::GetElement, NETDEV, &wanted)?.is_none() {
                return missing(format!("element {} {{ {element} }} of {}", element.set.name, self.object()));
            }
        }
        // A chain is bound to the name of its link. Under another name, the link is not restricted.
        let gone = |link: &&Link| if_nametoindex(link.name.as_str()) == Err(Errno::ENODEV);
        if let Some(link) = table.links.iter().find(gone) {
            return missing(format!("link {:?} of {}", link.name, self.object()));
        }
        Ok(None)
    }

    /// Makes the table in one transaction, which also removes what is left of an old one.
    fn make(&self, is_there: bool) -> Result<(), Error> {
        let remove =
            is_there.then(|| change(Kind::DelTable, 0, encode::table_name(&self.name), self.object()));
        let socket =
            Netfilter::of_this_thread().map_err(|refusal| Error::new("add", self.object(), refusal))?;
        // Kernels before 6.9 have no table that outlives its owner.
        for flags in [encode::PERSISTENT, 0] {
            let changes: Vec<_> = remove.iter().cloned().chain(self.changes(flags)).collect();
            match transaction::commit(&socket, None, &changes, &self.object()) {
                Ok(()) => return Ok(()),
                Err((_, refusal)) if refusal.errno == Errno::EOPNOTSUPP && flags != 0 => {}
                Err((object, refusal)) => return Err(Error::new("add", object, refusal)),
            }
        }
        Ok(())
    }

    fn explain(&self) -> Vec<String> {
        let (name, table) = (self.name.as_str(), &self.table);
        let nft = |what: &str, rest: &[&str]| {
            words(["nft", "add", what, "netdev", name].iter().chain(rest).copied())
        };
        let mut lines = vec![nft("table", &[&format!("{{ comment \"{}\"; }}", self.owner)])];
        lines.extend(table.sets().iter().map(|set| nft("set", &[set.name, &format!("{{ {set} }}")])));
        lines.extend(table.chains().iter().map(|chain| match &chain.hook {
            None => nft("chain", &[&chain.name]),
            Some(_) => nft("chain", &[&chain.name, &format!("{{ {chain} }}")]),
        }));
        lines.extend(table.rules().iter().map(|rule| nft("rule", &[&rule.chain, &rule.to_string()])));
        let elements = table.elements();
        lines.extend(
            elements.iter().map(|element| nft("element", &[element.set.name, &format!("{{ {element} }}")])),
        );
        lines
    }
}

impl EgressOperation {
    fn whole(&self) -> Option<Whole<'_>> {
        match self {
            Self::Table { holder, mark, links, allow, group, learn } => {
                let of = Table { links, allow, group: *group, learn: *learn };
                Some(Whole { name: table_of(holder), holder, owner: mark.alias(), table: of })
            }
            Self::Resolver { .. } | Self::Redirect { .. } => None,
        }
    }

    /// The table in the container's namespace, if the operation is about that.
    fn redirect(&self) -> Option<Redirect<'_>> {
        let Self::Redirect { mark, namespace, ports, to, allow, networks } = self else { return None };
        Some(Redirect { namespace, owner: mark.alias(), ports, to, allow, networks })
    }

    /// Whether the operation is about the container's own namespace.
    pub fn is_inside(&self) -> bool {
        matches!(self, Self::Redirect { .. })
    }

    fn resolver(&self) -> Option<Resolver<'_>> {
        match self {
            Self::Table { .. } | Self::Redirect { .. } => None,
            Self::Resolver {
                holder,
                namespace,
                allow,
                servers,
                closed,
                ipv6,
                group,
                link,
                journal,
                learn,
                internal,
                listeners,
            } => Some(Resolver {
                holder,
                namespace,
                allow,
                servers,
                closed,
                ipv6: *ipv6,
                group: *group,
                link,
                journal,
                learn: *learn,
                internal: *internal,
                listeners,
            }),
        }
    }

    /// A connection that hangs up when the process of this operation ends. None if the operation
    /// has no process, or it does not run.
    pub fn watch(&self) -> Option<std::os::fd::OwnedFd> {
        self.resolver().and_then(|resolver| names::watch(&resolver::name(resolver.holder)).ok().flatten())
    }
}

fn lack(whole: &Whole<'_>) -> Result<Option<Condition>, operation::Error> {
    let look = || whole.lack(&*Netfilter::of_this_thread()?);
    Ok(retry(look).map_err(|refusal| Error::new("look for", whole.object(), refusal))?)
}

fn make(whole: &Whole<'_>) -> Result<(), operation::Error> {
    match lack(whole)? {
        None => return Ok(()),
        Some(Condition::Different(what)) => {
            return Err(operation::Error::new("add", what, Errno::EEXIST).of(Place::Network));
        }
        Some(_) => {}
    }
    let socket =
        Netfilter::of_this_thread().map_err(|refusal| Error::new("look for", whole.object(), refusal))?;
    let standing = socket.get(Kind::GetTable, NETDEV, &encode::table_name(&whole.name));
    let standing = standing.map_err(|refusal| Error::new("look for", whole.object(), refusal))?;
    if standing.is_some() {
        // The table belongs to the resolver, which is started again afterwards.
        resolver::end(whole.holder)?;
    }
    Ok(whole.make(standing.is_some())?)
}

fn remove(whole: &Whole<'_>) -> Result<(), operation::Error> {
    let socket =
        Netfilter::of_this_thread().map_err(|refusal| Error::new("look for", whole.object(), refusal))?;
    let name = encode::table_name(&whole.name);
    let failed = |refusal: Refusal| operation::Error::from(Error::new("remove", whole.object(), refusal));
    let Some(standing) = socket.get(Kind::GetTable, NETDEV, &name).map_err(failed)? else { return Ok(()) };
    if !encode::has_comment(&standing, &whole.owner) {
        return Ok(());
    }
    let changes = [change(Kind::DelTable, 0, name, whole.object())];
    let remove = || match transaction::commit(&socket, None, &changes, &whole.object()) {
        Err((_, refusal)) if refusal.errno != Errno::ENOENT => Err(refusal),
        _ => Ok(()),
    };
    let is_refused = |refusal: &Refusal| refusal.errno == Errno::EPERM && encode::is_owned(&standing);
    match remove() {
        Err(refusal) if is_refused(&refusal) => {}
        removed => return removed.map_err(failed),
    }
    // The resolver still runs. It could not be ended, which was the error to report, or the record does not list it
    // any more. The table is this container's, and so is the process that owns it.
    let _ = resolver::end(whole.holder);
    remove().map_err(|refusal| match is_refused(&refusal) {
        true => {
            let cause = Cause::Explained(Errno::EBUSY, "a process that still runs owns it".to_owned());
            operation::Error::new("remove", whole.object(), cause)
        }
        false => failed(refusal),
    })
}

impl Operation for EgressOperation {
    fn explain(&self) -> Vec<String> {
        if let Some(redirect) = self.redirect() {
            return redirect.explain();
        }
        match (self.whole(), self.resolver()) {
            (Some(whole), _) => whole.explain(),
            (None, resolver) => resolver.iter().flat_map(Resolver::explain).collect(),
        }
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), operation::Error> {
        if let Some(redirect) = self.redirect() {
            return redirect.make();
        }
        match (self.whole(), self.resolver()) {
            (Some(whole), _) => {
                let made = make(&whole);
                if made.is_err() && netlink::netfilter::is_in_doubt() {
                    // The kernel may have carried the change out. The first error is the one to
                    // report.
                    let _ = remove(&whole);
                }
                made
            }
            (None, Some(resolver)) => resolver.start(scope),
            (None, None) => Ok(()),
        }
    }

    fn undo(&self, scope: &Scope) -> Result<(), operation::Error> {
        if let Some(redirect) = self.redirect() {
            return redirect.remove();
        }
        match (self.whole(), self.resolver()) {
            (Some(whole), _) => remove(&whole),
            (None, Some(resolver)) => resolver.stop(scope),
            (None, None) => Ok(()),
        }
    }

    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        if let Some(redirect) = self.redirect() {
            return redirect.check();
        }
        match (self.whole(), self.resolver()) {
            (Some(whole), _) => Ok(lack(&whole)?.unwrap_or(Condition::Present)),
            (None, Some(resolver)) => resolver.check(),
            (None, None) => Ok(Condition::Present),
        }
    }
}

/// Checks that the path is the journal of this container in this scope.
pub(crate) fn contain(scope: &Scope, journal: &Path, holder: &str) -> Result<(), operation::Error> {
    match journal == journal_of(scope, holder) {
        true => Ok(()),
        false => {
            Err(operation::Error::new("find", format!("{journal:?}"), "it is no journal of the container"))
        }
    }
}
