//! The process that answers a container's DNS questions, and opens the addresses in its answers.
//!
//! It runs as nobody, with the right to change the network. The container's table belongs to the
//! socket of the process, so that another program's `nft flush ruleset` does not remove it. However
//! the process ends, the table stays, and no name is answered any more.

use std::{
    io::{self, PipeReader},
    net::{IpAddr, SocketAddr, TcpListener},
    ops::ControlFlow,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use names::{
    Claim, Containers, Control, Found, Name, Own, Place, Policy, Privileges, Question, Rtype, Upstreams,
    Verdict,
};
use netlink::{
    NLM_F_CREATE, Refusal,
    attribute::find,
    netfilter::{Kind, Message, NETDEV, Netfilter},
    packets::Packets,
};
use nix::{errno::Errno, net::if_::if_nametoindex};
use operation::{Condition, Error, Scope, words};
use rustix::thread::CapabilitySet;

use crate::{
    encode,
    given::Given,
    guarded::may_open,
    journal::{self, Journal, Outcome, What},
    list::{Entry, Target},
    operation::{TLS, compared_port, contain, table_of},
    relay::{self, Relay},
    rules::{Element, Version},
    table::Sets,
};

/// How long an address stays open after the TTL of its answer has passed, in seconds. Programs
/// connect some time after they asked, and some answers have a TTL of 0.
const GRACE: u64 = 60;
/// The same for the address of another container, which may soon belong to a different one.
const OWN_GRACE: u64 = 5;

/// What the process needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolver<'a> {
    pub(crate) holder: &'a str,
    pub(crate) namespace: &'a Path,
    pub(crate) allow: &'a [Entry],
    pub(crate) servers: &'a [IpAddr],
    pub(crate) closed: &'a [IpNet],
    pub(crate) ipv6: bool,
    pub(crate) group: u16,
    pub(crate) link: &'a str,
    pub(crate) journal: &'a Path,
    pub(crate) learn: bool,
    pub(crate) internal: bool,
    pub(crate) listeners: &'a [SocketAddr],
}

/// The name of a container's resolver process.
pub(crate) fn name(holder: &str) -> Name {
    Name::new("egress", holder)
}

fn failed(verb: &'static str, holder: &str) -> impl Fn(rustix::io::Errno) -> Error {
    move |errno| Error::new(verb, format!("resolver of {holder:?}"), Errno::from_raw(errno.raw_os_error()))
}

/// The name of an entry, and the port on which it is compared.
fn sni(entry: &Entry) -> String {
    match (&entry.target, compared_port(entry)) {
        (Target::Name(name), Some(port)) => format!("{name}:{port}"),
        _ => entry.to_string(),
    }
}

/// Ends the process of a container, if it runs.
pub(crate) fn end(holder: &str) -> Result<(), Error> {
    names::end(&name(holder)).map_err(failed("end", holder))
}

impl Resolver<'_> {
    pub(crate) fn explain(&self) -> Vec<String> {
        let namespace = format!("--net={}", self.namespace.display());
        let address = format!("--listen-address={}", names::ADDRESS.ip());
        let mut answer = vec!["nsenter".to_owned(), namespace, "dnsmasq".to_owned(), address];
        // Names that are not listed do not exist.
        answer.extend((!self.learn).then(|| "--local=/#/".to_owned()));
        for entry in self.allow {
            let Target::Name(name) = &entry.target else { continue };
            answer.push(format!("--server=/{name}/#"));
            if !self.is_compared(entry) {
                let set = if entry.port.is_some() { "hostports4" } else { "hosts4" };
                answer.push(format!("--nftset=/{name}/4#netdev#{}#{set}", table_of(self.holder)));
            }
        }
        let journal = words(["install", "-D", "-m", "600", "/dev/null", &self.journal.to_string_lossy()]);
        let mut lines = vec![journal, words(answer.iter().map(String::as_str))];
        let namespace = format!("--net={}", self.namespace.display());
        let names = self.allow.iter().filter(|entry| self.is_compared(entry));
        let names: Vec<_> = names.map(|entry| format!("--sni-hostnames={}", sni(entry))).collect();
        for listener in self.listeners {
            let listen = format!("--listen={listener}");
            let proxy = ["nsenter", &namespace, "sslh", &listen, "--protocol=tls"];
            lines.push(words(proxy.into_iter().chain(names.iter().map(String::as_str))));
        }
        lines
    }

    /// Whether the name in the TLS hello of connections by this entry is compared.
    fn is_compared(&self, entry: &Entry) -> bool {
        let is_name = matches!(entry.target, Target::Name(_));
        !self.listeners.is_empty() && is_name && compared_port(entry).is_some()
    }

    /// Starts the process, if it does not run.
    pub(crate) fn start(&self, scope: &Scope) -> Result<(), Error> {
        contain(scope, self.journal, self.holder)?;
        let Some(claim) = Claim::take(&name(self.holder)).map_err(failed("start", self.holder))? else {
            return Ok(());
        };
        let listeners = self.listen()?;
        let place = Place::open(self.namespace, names::ADDRESS).map_err(|errno| {
            let object = format!("{} in {}", names::ADDRESS, self.namespace.display());
            Error::new("listen on", object, errno)
        })?;
        let journal =
            Journal::open(self.journal).map_err(Error::on("open", format!("{:?}", self.journal)))?;
        let journal = Arc::new(journal);
        let packets = match Packets::open(self.group) {
            Ok(packets) => Some(packets),
            Err(error) => {
                operation::note(&format!("{error}: what is rejected is not logged"));
                None
            }
        };
        let table = self.own_table()?;
        let mut kept: Vec<BorrowedFd<'_>> = place.descriptors().to_vec();
        kept.extend([journal.descriptor(), table.descriptor()]);
        kept.extend(packets.iter().map(Packets::descriptor));
        kept.extend(listeners.iter().map(AsFd::as_fd));
        // The process reads the records of other containers to find their names.
        let capabilities = CapabilitySet::NET_ADMIN | CapabilitySet::DAC_READ_SEARCH;
        let privileges = Privileges { own_user: true, capabilities };
        let work = |control: &mut Control| {
            let given = Arc::new(Mutex::new(Given::default()));
            let Ok(relay) = self.relay(&listeners, &given, &journal) else { return };
            let serving = Serving {
                of: self,
                control,
                place: &place,
                upstreams: Upstreams::new(self.servers),
                containers: Containers::new(&scope.run_dir),
                table: &table,
                journal: &journal,
                packets: packets.as_ref(),
                given,
                relay,
            };
            // If this fails, nothing is answered until the next repair.
            let _ = names::serve(serving);
        };
        names::start(c"egress-allow", claim, &kept, privileges, work).map_err(failed("start", self.holder))
    }

    /// Opens the sockets for connections whose TLS hello is compared.
    fn listen(&self) -> Result<Vec<TcpListener>, Error> {
        let bind = || -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
            let open = |address: &SocketAddr| {
                let listener = TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    Ok(listener)
                });
                listener.map_err(|error| (*address, error))
            };
            self.listeners.iter().map(open).collect()
        };
        if self.listeners.is_empty() {
            return Ok(Vec::new());
        }
        let namespace = self.namespace.display();
        let entered = netlink::namespace::enter(self.namespace, bind);
        let entered =
            entered.map_err(|errno| Error::new("enter", format!("network namespace {namespace}"), errno))?;
        entered.map_err(|(address, error)| {
            Error::new("listen on", format!("{address} in {namespace}"), netlink::errno_of(&error))
        })
    }

    /// Starts to compare names. None if nothing is compared.
    fn relay(
        &self,
        listeners: &[TcpListener],
        given: &Arc<Mutex<Given>>,
        journal: &Arc<Journal>,
    ) -> io::Result<Option<PipeReader>> {
        if listeners.is_empty() {
            return Ok(None);
        }
        let listeners = listeners.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
        let (given, journal) = (given.clone(), journal.clone());
        // The relay's own packets do not pass the rules that close an internal network.
        let learn = self.learn && !self.internal;
        relay::start(Relay { listeners, given, journal, learn }).map(Some)
    }

    /// Opens a socket that becomes the owner of the container's table, if the kernel supports it
    /// (Linux 6.9).
    fn own_table(&self) -> Result<Netfilter, Error> {
        let table = table_of(self.holder);
        let failed = |refusal: Refusal| {
            Error::from(netlink::Error::new("take over", format!("table netdev {table}"), refusal))
        };
        let socket = Netfilter::open().map_err(failed)?;
        let name = encode::table_name(&table);
        if socket.get(Kind::GetTable, NETDEV, &name).map_err(failed)?.is_none() {
            return Err(failed(Errno::ENOENT.into()));
        }
        let flags = encode::OWNED | encode::PERSISTENT;
        let attributes = [name, vec![netlink::attribute::Attribute::number(2, flags)]].concat();
        let own = Message { kind: Kind::NewTable, family: NETDEV, flags: 0, attributes };
        match socket.commit(None, &[own]).map_err(|refused| refused.refusal) {
            // The table was made without an owner, by an older kernel.
            Err(refusal) if refusal.errno == Errno::EOPNOTSUPP => Ok(socket),
            owned => owned.map(|()| socket).map_err(failed),
        }
    }

    /// Ends the process, and removes its journal.
    pub(crate) fn stop(&self, scope: &Scope) -> Result<(), Error> {
        contain(scope, self.journal, self.holder)?;
        end(self.holder)?;
        let removed = scope.remove_file(self.journal);
        removed
            .map_err(|errno| Error::new("remove", format!("{:?}", self.journal), std::io::Error::from(errno)))
    }

    pub(crate) fn check(&self) -> Result<Condition, Error> {
        Ok(match names::stands(&name(self.holder)).map_err(failed("look for", self.holder))? {
            true => Condition::Present,
            false => Condition::Missing(format!("resolver of {:?}", self.holder)),
        })
    }

    /// The entries that match the name of a question.
    fn entries<'b>(&'b self, question: &'b Question) -> impl Iterator<Item = &'b Entry> {
        self.allow.iter().filter(
            |entry| matches!(&entry.target, Target::Name(pattern) if pattern.matches(question.labels())),
        )
    }
}

/// The running process.
struct Serving<'a> {
    of: &'a Resolver<'a>,
    control: &'a mut Control,
    place: &'a Place,
    upstreams: Upstreams,
    containers: Containers,
    table: &'a Netfilter,
    journal: &'a Journal,
    packets: Option<&'a Packets>,
    given: Arc<Mutex<Given>>,
    /// Ends with the thread that compares names.
    relay: Option<PipeReader>,
}

impl Serving<'_> {
    /// Handles a message to the process. Returns whether to continue.
    fn hear(&mut self, at: usize) -> ControlFlow<()> {
        self.control.hear(at).map_continue(drop)
    }

    /// The answer for another container's name, if name-serve gave the container those names. A
    /// list may contain them as well.
    fn of_a_container(&mut self, question: &Question) -> Option<Own> {
        let asker = self.containers.container(self.of.holder).filter(names::Container::is_served)?;
        let mut addresses = match self.containers.find(&asker, question.labels()) {
            Found::Addresses(addresses) => question.asked_for(addresses),
            Found::Nobody => return Some(Own::NoSuchName),
            Found::Elsewhere => return None,
        };
        addresses.retain(|address| address.is_ipv4() || self.of.ipv6);
        let seconds = u64::from(names::TTL) + OWN_GRACE;
        // Each container has addresses of its own, so no names are compared.
        let opens = |address: &IpAddr| self.open(question, *address, seconds, |_| false).is_ok();
        if !addresses.iter().all(opens) {
            return Some(Own::Failure);
        }
        self.note(question, addresses.clone(), Vec::new());
        Some(question.of_addresses(addresses, names::TTL))
    }

    /// Records an answer in the journal.
    fn note(&self, question: &Question, addresses: Vec<IpAddr>, withheld: Vec<IpAddr>) {
        let listed = self.of.entries(question).next().is_some();
        let verdict = if listed { Outcome::Allowed } else { Outcome::Logged };
        self.journal.note(verdict, What::Name { name: question.text(), addresses, withheld });
    }

    /// Opens the address on the entries' ports, for this many seconds: for connections whose TLS
    /// hello has the name if the entry is compared, otherwise for everything.
    fn open(
        &self,
        question: &Question,
        address: IpAddr,
        seconds: u64,
        is_compared: impl Fn(&Entry) -> bool,
    ) -> Result<(), Refusal> {
        let sets = Sets::of(Version::of(address));
        for entry in self.of.entries(question) {
            if is_compared(entry) {
                let to = SocketAddr::new(address, compared_port(entry).unwrap_or(TLS));
                let (name, time) = (question.text(), Duration::from_secs(seconds));
                if !relay::lock(&self.given).add(to, &name, time, Instant::now()) {
                    return Err(Errno::ENFILE.into());
                }
                continue;
            }
            if self.of.learn {
                continue;
            }
            let set = if entry.port.is_some() { sets.hostports } else { sets.hosts };
            let port = entry.port.map(|port| (port.protocol, port.number));
            put(
                self.table,
                &table_of(self.of.holder),
                &Element { set, address: address.into(), port, seconds },
            )?;
        }
        Ok(())
    }
}

/// Makes sure that the element stays for at least this long.
fn put(socket: &Netfilter, table: &str, element: &Element) -> Result<(), Refusal> {
    const EXPIRATION: u16 = 5;
    let wanted = encode::element_to_find(table, element);
    let standing = socket.get(Kind::GetElement, NETDEV, &wanted)?;
    let left = standing.and_then(|answer| {
        let member = find(find(&answer, 3)?, 1)?.to_vec();
        let milliseconds = find(&member, EXPIRATION)?.try_into().ok()?;
        Some(u64::from_be_bytes(milliseconds) / 1000)
    });
    if left.is_some_and(|left| left >= element.seconds) {
        return Ok(());
    }
    let message = |kind, flags, element: &Element| Message {
        kind,
        family: NETDEV,
        flags,
        attributes: encode::elements(table, &element.set, &[element]),
    };
    // Kernels before 6.12 do not change the timeout of an existing element. So one transaction adds
    // it, removes it and adds it again.
    let (add, timeless) =
        (message(Kind::NewElement, NLM_F_CREATE, element), Element { seconds: 0, ..element.clone() });
    let remove = message(Kind::DelElement, 0, &timeless);
    socket.commit(None, &[add.clone(), remove, add]).map_err(|refused| refused.refusal)
}

impl Policy for Serving<'_> {
    fn places(&self) -> Vec<(u64, &Place)> {
        vec![(0, self.place)]
    }

    fn decide(&mut self, _: u64, question: &Question) -> Verdict {
        if !self.of.learn && self.of.entries(question).next().is_none() {
            let what = What::Name { name: question.text(), addresses: Vec::new(), withheld: Vec::new() };
            self.journal.note(Outcome::Rejected, what);
            return Verdict::Own(Own::Prohibited);
        }
        if let Some(own) = self.of_a_container(question) {
            return Verdict::Own(own);
        }
        if self.of.internal {
            // Forwarding a question would be a way out of internal networks (CVE-2024-29018).
            let what = What::Name { name: question.text(), addresses: Vec::new(), withheld: Vec::new() };
            self.journal.note(Outcome::Rejected, what);
            return Verdict::Own(Own::Prohibited);
        }
        match question.kind {
            // Without IPv6, these addresses are of no use.
            Rtype::AAAA if !self.of.ipv6 => Verdict::Own(Own::NoData),
            // These records contain addresses that were not asked for, and can hide the name in a
            // TLS hello.
            Rtype::HTTPS | Rtype::SVCB | Rtype::ANY => Verdict::Own(Own::NoData),
            _ => Verdict::Forward,
        }
    }

    fn servers(&mut self, _: u64) -> Vec<SocketAddr> {
        self.upstreams.servers()
    }

    fn admit(&mut self, _: u64, question: &Question, answered: &[(IpAddr, u32)]) -> Option<Vec<IpAddr>> {
        let (mut addresses, mut withheld) = (Vec::new(), Vec::new());
        for (address, seconds) in answered {
            if !self.of.learn && !may_open(*address, self.of.allow, self.of.closed) {
                withheld.push(*address);
                continue;
            }
            let time = u64::from(*seconds) + GRACE;
            let is_compared = |entry: &Entry| self.of.is_compared(entry);
            if self.open(question, *address, time, is_compared).is_err() {
                return None;
            }
            addresses.push(*address);
        }
        self.note(question, addresses.clone(), withheld);
        Some(addresses)
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        // The other descriptors come first, because the number of connections changes.
        let relay = self.relay.iter().map(AsFd::as_fd);
        let packets = self.packets.iter().map(|packets| packets.descriptor());
        relay.chain(packets).chain(self.control.descriptors()).collect()
    }

    fn ready(&mut self, at: usize) -> ControlFlow<()> {
        let at = match &self.relay {
            None => at,
            Some(_) if at > 0 => at - 1,
            // It has ended. A process that compares nothing must be started again.
            Some(_) => return ControlFlow::Break(()),
        };
        let Some(packets) = self.packets else { return self.hear(at) };
        let Some(at) = at.checked_sub(1) else {
            let verdict = if self.of.learn { Outcome::Logged } else { Outcome::Rejected };
            for what in packets.take().iter().filter_map(|packet| journal::packet(packet)) {
                self.journal.note(verdict, what);
            }
            return ControlFlow::Continue(());
        };
        self.hear(at)
    }

    fn look_around(&mut self) -> ControlFlow<()> {
        // The link is gone, so the container was not undone properly. End, because the process
        // would keep its namespace alive.
        let is_gone = if_nametoindex(self.of.link) == Err(Errno::ENODEV);
        // Without the table's socket, no address can be opened.
        if is_gone || self.table.is_lost() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
