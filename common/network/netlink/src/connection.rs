use std::{
    cell::RefCell,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::{
    LinkMessageBuilder, LinkUnspec,
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::AddressMessage,
        link::{LinkAttribute, LinkExtentMask, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType},
    },
};

use crate::{Address, Error, Family, Link, Refusal, Request, Route, Socket, errno_of, namespace};

/// The index of `lo`, the first interface in every namespace.
const LOOPBACK: u32 = 1;

/// A connection to the kernel's rtnetlink in one network namespace.
#[derive(Clone)]
pub struct Connection {
    pub(crate) socket: Rc<Socket>,
    pub(crate) namespace: Option<PathBuf>,
}

thread_local! {
    /// The connections of this thread, by the inode of the namespace. None stands for the thread's
    /// own namespace. A connection keeps its namespace alive, so the inode is not reused while the
    /// connection is here.
    static CONNECTIONS: RefCell<Vec<(Option<u64>, Connection)>> = const { RefCell::new(Vec::new()) };
}

/// How often a list is requested again if it changes during the dump.
const ATTEMPTS: usize = 100;

/// A route whose prefix is shorter than this, in bits, counts as a default route. VPNs split the default
/// route into routes with short prefixes.
pub const WAY_OUT: u8 = 4;

/// Addresses in networks that nobody uses, so hardly any host has a specific route to them: for
/// examples (RFC 5737), for benchmarks (RFC 2544), and reserved (RFC 1112).
const FAR: [Ipv4Addr; 5] = [
    Ipv4Addr::new(192, 0, 2, 251),
    Ipv4Addr::new(198, 51, 100, 251),
    Ipv4Addr::new(203, 0, 113, 251),
    Ipv4Addr::new(198, 18, 0, 251),
    Ipv4Addr::new(240, 0, 0, 251),
];

/// The kernel's errors when there is no route: no route matches, a route forbids it, or forwarding
/// is off.
pub(crate) const NO_ROUTE: [Errno; 5] =
    [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL, Errno::EXDEV];

impl Connection {
    /// Opens the connection to the namespace at this path, or to this thread's own namespace if the
    /// path is None.
    ///
    /// Each thread makes a connection once and reuses it. The thread must not change its own
    /// namespace afterwards. A connection is replaced after an answer was lost.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or no socket can be opened.
    pub fn open(namespace: Option<&Path>) -> Result<Self, Error> {
        let fail = |source| Error::new("enter", "network namespace", source).within(namespace);
        let inode = match namespace {
            Some(path) => Some(fs::metadata(path).map_err(|source| fail(errno_of(&source)))?.ino()),
            None => None,
        };
        let known = CONNECTIONS.with_borrow_mut(|known| {
            known.retain(|(_, connection)| !connection.socket.is_lost());
            known.iter().find(|(key, _)| *key == inode).map(|(_, connection)| connection.clone())
        });
        if let Some(connection) = known {
            return Ok(connection);
        }
        let connection = match namespace {
            Some(path) => {
                Self::of(namespace::enter(path, || Socket::open(Family::Route)).map_err(fail)?, namespace)
            }
            None => Self::of(Socket::open(Family::Route), namespace),
        }?;
        CONNECTIONS.with_borrow_mut(|known| known.push((inode, connection.clone())));
        Ok(connection)
    }

    /// Opens a connection to the thread's current namespace. It is not reused by later calls.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub fn here() -> Result<Self, Error> {
        Self::of(Socket::open(Family::Route), None)
    }

    fn of(socket: Result<Socket, Errno>, namespace: Option<&Path>) -> Result<Self, Error> {
        let socket =
            socket.map_err(|source| Error::new("open", "netlink socket", source).within(namespace))?;
        Ok(Self { socket: Rc::new(socket), namespace: namespace.map(Path::to_owned) })
    }

    pub(crate) fn error(
        &self,
        verb: &'static str,
        object: impl Into<String>,
        source: impl Into<Refusal>,
    ) -> Error {
        Error::new(verb, object, source).within(self.namespace.as_deref())
    }

    /// Sends a request and returns the whole answer.
    pub(crate) fn ask(
        &self,
        message: &RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        let mut body = vec![0; message.buffer_len()];
        message.serialize(&mut body);
        let request = Request { kind: message.message_type(), flags, body };
        let answer = self.socket.request(&request)?;
        answer.into_iter().map(|(kind, payload)| read(kind, &payload)).collect()
    }

    /// Sends a request that changes something, and waits for the kernel's answer.
    pub(crate) fn change(
        &self,
        verb: &'static str,
        object: impl Into<String>,
        message: &RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        self.ask(message, flags | NLM_F_ACK).map(drop).map_err(|refusal| self.error(verb, object, refusal))
    }

    /// Lists the objects that the request asks for.
    pub(crate) fn list(
        &self,
        what: &str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut answer = self.ask(message, NLM_F_DUMP);
        for _ in 1..ATTEMPTS {
            match &answer {
                Err(refusal) if refusal.errno == Errno::ERESTART => answer = self.ask(message, NLM_F_DUMP),
                _ => break,
            }
        }
        answer.map_err(|refusal| self.error("list", what, refusal))
    }

    /// The one interface that the request asks for. None if it does not exist.
    fn one(&self, object: impl Into<String>, message: LinkMessage) -> Result<Option<Link>, Error> {
        match self.ask(&RouteNetlinkMessage::GetLink(message), 0) {
            Ok(answer) => match answer.into_iter().next() {
                Some(RouteNetlinkMessage::NewLink(message)) => Ok(Some(Link::from(message))),
                _ => Err(self.error("look for", object, Errno::EPROTO)),
            },
            Err(refusal) if refusal.errno == Errno::ENODEV => Ok(None),
            Err(refusal) => Err(self.error("look for", object, refusal)),
        }
    }

    /// The interface with this name. None if it does not exist.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one(format!("link {name:?}"), message)
    }

    /// The interface with this index. None if it does not exist.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn link_at(&self, index: u32) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.one(format!("link {index}"), message)
    }

    /// All interfaces.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn all(&self) -> Result<Vec<Link>, Error> {
        self.links(None, "links")
    }

    /// The ports of the bridge with this index.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn ports(&self, bridge: u32) -> Result<Vec<Link>, Error> {
        let links = self.links(Some(LinkAttribute::Controller(bridge)), "ports")?;
        Ok(links.into_iter().filter(|link| link.master == Some(bridge)).collect())
    }

    /// The links that match `filter`.
    fn links(&self, filter: Option<LinkAttribute>, what: &str) -> Result<Vec<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        message.attributes.extend(filter);
        let answer = self.list(what, &RouteNetlinkMessage::GetLink(message))?;
        let links = answer.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(Link::from(link)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// The IPv4 addresses of the interface with this index, or of all interfaces if it is None.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn addresses(&self, link: Option<u32>) -> Result<Vec<Address>, Error> {
        self.addresses_of(AddressFamily::Inet, link)
    }

    /// Like [`Connection::addresses`], for IPv6.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn addresses6(&self, link: Option<u32>) -> Result<Vec<Address>, Error> {
        self.addresses_of(AddressFamily::Inet6, link)
    }

    fn addresses_of(&self, family: AddressFamily, link: Option<u32>) -> Result<Vec<Address>, Error> {
        let mut message = AddressMessage::default();
        message.header.family = family;
        message.header.index = link.unwrap_or_default();
        let answer = self.list("addresses", &RouteNetlinkMessage::GetAddress(message))?;
        let found = answer.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address) => Address::read(address),
            _ => None,
        });
        Ok(found.filter(|address| link.is_none_or(|index| address.link == index)).collect())
    }

    /// The IPv4 routes over the interface with this index, or over all interfaces if it is None.
    /// The routes to the host's own addresses are left out.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn routes(&self, link: Option<u32>) -> Result<Vec<Route>, Error> {
        self.routes_of(AddressFamily::Inet, link)
    }

    /// The destinations of IPv4 routes that lead nowhere: blackhole, unreachable and prohibit (ip-route(8)). They have no
    /// link. One of type throw leads to the next table.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn dead_ends(&self) -> Result<Vec<IpNet>, Error> {
        let kinds = [RouteType::BlackHole, RouteType::Unreachable, RouteType::Prohibit];
        let routes = self.routes_of_kinds(AddressFamily::Inet, None, &kinds)?;
        Ok(routes.into_iter().map(|route| route.destination).collect())
    }

    /// Like [`Connection::routes`], for IPv6.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn routes6(&self, link: Option<u32>) -> Result<Vec<Route>, Error> {
        self.routes_of(AddressFamily::Inet6, link)
    }

    /// Whether packets to ::1 that arrive on this link are delivered to this host.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) fn takes_loopback6(&self, link: u32) -> Result<bool, Error> {
        let routes = self.routes_of_kinds(AddressFamily::Inet6, Some(link), &[RouteType::Local])?;
        let is_it =
            |route: &Route| route.link == Some(link) && route.destination.addr() == Ipv6Addr::LOCALHOST;
        Ok(routes.iter().any(is_it))
    }

    fn routes_of(&self, family: AddressFamily, link: Option<u32>) -> Result<Vec<Route>, Error> {
        self.routes_of_kinds(family, link, &[RouteType::Unicast])
    }

    pub(crate) fn routes_of_kinds(
        &self,
        family: AddressFamily,
        link: Option<u32>,
        kinds: &[RouteType],
    ) -> Result<Vec<Route>, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.attributes.extend(link.map(RouteAttribute::Oif));
        let answer = self.list("routes", &RouteNetlinkMessage::GetRoute(message))?;
        let found = answer.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) if kinds.contains(&route.header.kind) => Route::read(route),
            _ => None,
        });
        Ok(found.collect())
    }

    /// The route that this host uses for packets to an address, by its rules and routing tables.
    /// None if there is no route. The kernel looks the route up, so the number of routes does not
    /// matter.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn route_to(&self, address: Ipv4Addr) -> Result<Option<Route>, Error> {
        self.looked_up(address, None)
    }

    /// Looks a route up. With `from`, it is the route of forwarded packets that arrive on the
    /// interface with this index from this address.
    fn looked_up(&self, to: Ipv4Addr, from: Option<(u32, Ipv4Addr)>) -> Result<Option<Route>, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.header.flags = RouteFlags::FibMatch;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(to)));
        if let Some((link, source)) = from {
            message.header.source_prefix_length = 32;
            message.attributes.push(RouteAttribute::Source(RouteAddress::Inet(source)));
            message.attributes.push(RouteAttribute::Iif(link));
        }
        match self.ask(&RouteNetlinkMessage::GetRoute(message), 0) {
            Ok(answer) => Ok(answer.iter().find_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Unicast => {
                    Route::read(route)
                }
                _ => None,
            })),
            Err(refusal) if NO_ROUTE.contains(&refusal.errno) => Ok(None),
            Err(refusal) => Err(self.error("look for", format!("route to {to}"), refusal)),
        }
    }

    /// The interface of the default route. `from` is the index of a bridge and an address of its
    /// subnet: policy routing may send packets from there another way.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn way_out(&self, from: Option<(u32, Ipv4Addr)>) -> Result<Option<Link>, Error> {
        let sources = from.map(Some).into_iter().chain([None]);
        let mut out = None;
        for (source, far) in sources.flat_map(|source| FAR.map(|far| (source, far))) {
            let found = self.looked_up(far, source)?;
            out = found.filter(|route| route.destination.prefix_len() < WAY_OUT);
            if out.is_some() {
                break;
            }
        }
        match out.and_then(|route| route.link) {
            Some(index) => self.link_at(index),
            None => Ok(None),
        }
    }

    /// The name of the interface with this index.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn name(&self, index: u32) -> Result<String, Error> {
        let link = self.link_at(index)?;
        link.map(|link| link.name)
            .ok_or_else(|| self.error("look for", format!("link {index}"), Errno::ENODEV))
    }

    /// Sets `lo` up.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set_loopback_up(&self) -> Result<(), Error> {
        let up = LinkMessageBuilder::<LinkUnspec>::new().index(LOOPBACK).up().build();
        self.change("set up", "link \"lo\"", &RouteNetlinkMessage::SetLink(up), 0)
    }

    /// Sets `lo` up and gives it an alias. Every namespace has `lo` from the start.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn start_loopback(&self, alias: &str) -> Result<(), Error> {
        let up = LinkMessageBuilder::<LinkUnspec>::new().index(LOOPBACK).alias(alias).up().build();
        self.change("set up", "link \"lo\"", &RouteNetlinkMessage::SetLink(up), 0)
    }
}

/// Parses a message of the kernel. An unreadable message is an error, because the object that it
/// describes exists.
fn read(kind: u16, payload: &[u8]) -> Result<RouteNetlinkMessage, Refusal> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    RouteNetlinkMessage::deserialize(&header, payload)
        .map_err(|error| Refusal { errno: Errno::EBADMSG, text: Some(error.to_string()) })
}
