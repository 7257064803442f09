use std::{
    cell::RefCell,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use nix::errno::Errno;
use rtnetlink::{
    LinkMessageBuilder, LinkUnspec,
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::AddressMessage,
        link::{
            InfoBridgePort, InfoKind, InfoPortData, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
            LinkMessage,
        },
        route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType},
    },
};

use crate::{Address, Error, Family, Mac, Refusal, Request, Route, Socket, errno_of, mark, namespace};

/// The interface `lo` is the first in every namespace.
const LOOPBACK: u32 = 1;

/// A connection to the kernel's rtnetlink in one network namespace.
#[derive(Clone)]
pub struct Connection {
    pub(crate) socket: Rc<Socket>,
    pub(crate) namespace: Option<PathBuf>,
}

/// An interface, as far as the tools need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// The index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// Whether it is a port of a bridge that sends frames back the way they came.
    pub hairpin: bool,
    /// Whether it is a port of a bridge that is kept apart from others of the kind.
    pub isolated: bool,
    /// Whether it is a bridge itself.
    pub bridge: bool,
    /// Its alias: a note for people, and a mark for its owner.
    pub alias: Option<String>,
}

thread_local! {
    /// The connections of this thread, by the inode of the namespace; none for the thread's own namespace. They keep
    /// their namespace, so its inode is not reused meanwhile.
    static CONNECTIONS: RefCell<Vec<(Option<u64>, Connection)>> = const { RefCell::new(Vec::new()) };
}

/// How often a list is requested again when it changes meanwhile.
const ATTEMPTS: usize = 100;

/// A route with a shorter prefix is one of all packets to the outside: a VPN splits the default route so.
pub const WAY_OUT: u8 = 4;

/// Addresses far away, in networks that nobody has, so that hardly a route of its own leads to one: those of examples (RFC
/// 5737), of measurements (RFC 2544), and a reserved one (RFC 1112).
const FAR: [Ipv4Addr; 5] = [
    Ipv4Addr::new(192, 0, 2, 251),
    Ipv4Addr::new(198, 51, 100, 251),
    Ipv4Addr::new(203, 0, 113, 251),
    Ipv4Addr::new(198, 18, 0, 251),
    Ipv4Addr::new(240, 0, 0, 251),
];

/// What the kernel says where no route leads: nothing does, a route says so, or forwarding is off.
const NO_ROUTE: [Errno; 5] =
    [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL, Errno::EXDEV];

impl Connection {
    /// The connection to the namespace at this path, or to this thread's own if there is none. Each thread makes it
    /// once, and must not change its own namespace afterwards. It is made again after a lost answer.
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

    /// A connection to the thread's current namespace. It is not kept for others.
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
    fn ask(&self, message: &RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        let mut body = vec![0; message.buffer_len()];
        message.serialize(&mut body);
        let request = Request { kind: message.message_type(), flags, body };
        let answer = self.socket.request(&request)?;
        answer.into_iter().map(|(kind, payload)| read(kind, &payload)).collect()
    }

    /// Has the kernel change something, and waits for its answer.
    pub(crate) fn change(
        &self,
        verb: &'static str,
        object: impl Into<String>,
        message: &RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        self.ask(message, flags | NLM_F_ACK).map(drop).map_err(|refusal| self.error(verb, object, refusal))
    }

    /// Lists what the request asks for.
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

    /// The single interface that the request asks for; none if it does not exist.
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

    /// The interface with this name; none if it does not exist.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one(format!("link {name:?}"), message)
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

    /// The links that the kernel lists under `filter`.
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

    /// The IPv4 addresses of the interface with this index; of all of them without one.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn addresses(&self, link: Option<u32>) -> Result<Vec<Address>, Error> {
        self.addresses_of(AddressFamily::Inet, link)
    }

    /// The same of IPv6.
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

    /// The routes for IPv4 packets by the interface with this index, or by all of them, but not those to the host's own
    /// addresses.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn routes(&self, link: Option<u32>) -> Result<Vec<Route>, Error> {
        self.routes_of(AddressFamily::Inet, link)
    }

    /// The same for IPv6 packets.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn routes6(&self, link: Option<u32>) -> Result<Vec<Route>, Error> {
        self.routes_of(AddressFamily::Inet6, link)
    }

    /// Whether packets for ::1 that come in by this link are for this host.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) fn takes_loopback6(&self, link: u32) -> Result<bool, Error> {
        let routes = self.routes_of_kind(AddressFamily::Inet6, Some(link), RouteType::Local)?;
        let is_it =
            |route: &Route| route.link == Some(link) && route.destination.addr() == Ipv6Addr::LOCALHOST;
        Ok(routes.iter().any(is_it))
    }

    fn routes_of(&self, family: AddressFamily, link: Option<u32>) -> Result<Vec<Route>, Error> {
        self.routes_of_kind(family, link, RouteType::Unicast)
    }

    fn routes_of_kind(
        &self,
        family: AddressFamily,
        link: Option<u32>,
        kind: RouteType,
    ) -> Result<Vec<Route>, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.attributes.extend(link.map(RouteAttribute::Oif));
        let answer = self.list("routes", &RouteNetlinkMessage::GetRoute(message))?;
        let found = answer.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) if route.header.kind == kind => Route::read(route),
            _ => None,
        });
        Ok(found.collect())
    }

    /// The route by which this host sends packets to an address, as the rules and tables say; none if there is none. The kernel
    /// looks it up, so the number of routes does not matter.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn route_to(&self, address: Ipv4Addr) -> Result<Option<Route>, Error> {
        self.looked_up(address, None)
    }

    /// The same, for packets that come from `source` by the interface with this index, and are forwarded.
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

    /// The MTU of the way out, in bytes: of the interface by which packets go to where no other route leads. `from` is a bridge
    /// and an address of its subnet: their packets may have a way of their own.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn mtu_of_the_way_out(&self, from: Option<(u32, Ipv4Addr)>) -> Result<Option<u32>, Error> {
        let sources = from.map(Some).into_iter().chain([None]);
        let mut out = None;
        for (source, far) in sources.flat_map(|source| FAR.map(|far| (source, far))) {
            let found = self.looked_up(far, source)?;
            out = found.filter(|route| route.destination.prefix_len() < WAY_OUT);
            if out.is_some() {
                break;
            }
        }
        let Some(index) = out.and_then(|route| route.link) else { return Ok(None) };
        let mut message = LinkMessage::default();
        message.header.index = index;
        Ok(self.one(format!("link {index}"), message)?.map(|link| link.mtu))
    }

    /// The name of the interface with this index.
    ///
    /// # Errors
    /// When there is none.
    pub fn name(&self, index: u32) -> Result<String, Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let object = || format!("link {index}");
        let link = self.one(object(), message)?;
        link.map(|link| link.name).ok_or_else(|| self.error("look for", object(), Errno::ENODEV))
    }

    /// Sets up `lo`, which every namespace has from the start, and gives it an alias.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn start_loopback(&self, alias: &str) -> Result<(), Error> {
        let up = LinkMessageBuilder::<LinkUnspec>::new().index(LOOPBACK).alias(alias).up().build();
        self.change("set up", "link \"lo\"", &RouteNetlinkMessage::SetLink(up), 0)
    }
}

/// A message of the kernel. An unreadable one is an error, because the object that it describes exists.
fn read(kind: u16, payload: &[u8]) -> Result<RouteNetlinkMessage, Refusal> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    RouteNetlinkMessage::deserialize(&header, payload)
        .map_err(|error| Refusal { errno: Errno::EBADMSG, text: Some(error.to_string()) })
}

impl Link {
    /// Whether it is a bridge of ours: it has the hardware address that follows from its name.
    pub fn is_our_bridge(&self) -> bool {
        self.mac == Some(Mac::derive("", &self.name))
    }

    /// Whether it carries a mark of ours.
    pub fn is_marked(&self) -> bool {
        self.alias.as_deref().is_some_and(mark::is_ours)
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            master: None,
            hairpin: false,
            isolated: false,
            bridge: false,
            alias: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(address) => link.mac = address.try_into().ok().map(Mac),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::LinkInfo(infos) => {
                    link.bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                    let port_is = |set: InfoBridgePort| {
                        infos.iter().any(|info| match info {
                            LinkInfo::PortData(InfoPortData::BridgePort(port)) => port.contains(&set),
                            _ => false,
                        })
                    };
                    link.hairpin = port_is(InfoBridgePort::HairpinMode(true));
                    link.isolated = port_is(InfoBridgePort::Isolated(true));
                }
                _ => {}
            }
        }
        link
    }
}
