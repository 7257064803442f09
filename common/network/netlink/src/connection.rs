use std::{
    cell::RefCell,
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::{
    AddressMessageBuilder, Handle,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage},
    },
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    Error, Mac,
    error::{errno, io_errno},
};

/// A connection to the kernel's rtnetlink in one network namespace.
#[derive(Clone)]
pub struct Connection {
    pub(crate) runtime: Rc<Runtime>,
    pub(crate) handle: Handle,
    pub(crate) namespace: Option<PathBuf>,
}

/// An interface, as far as the tools ask.
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
    /// Whether it is a bridge itself.
    pub bridge: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface's index.
    pub link: u32,
    /// The address with its prefix length.
    pub address: IpNet,
    /// Who put it there (IFA_PROTO), where that was noted.
    pub protocol: Option<u8>,
}

thread_local! {
    /// The connections of this thread, by the inode of the namespace; the first is that of the thread itself. They hold
    /// their namespace, so its inode is not given again meanwhile.
    static CONNECTIONS: RefCell<Vec<(Option<u64>, Connection)>> = const { RefCell::new(Vec::new()) };
}

impl Connection {
    /// The connection to the namespace at this path; to the one that this thread is in where there is none. Made once
    /// in a thread, which must not change its own namespace after that.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or no socket be opened.
    pub fn open(namespace: Option<&Path>) -> Result<Self, Error> {
        let fail = |source| Error::new("enter", "network namespace", source).within(namespace);
        let inode = match namespace {
            Some(path) => Some(fs::metadata(path).map_err(|source| fail(io_errno(&source)))?.ino()),
            None => None,
        };
        let known = CONNECTIONS.with_borrow(|known| {
            known.iter().find(|(key, _)| *key == inode).map(|(_, connection)| connection.clone())
        });
        if let Some(connection) = known {
            return Ok(connection);
        }
        let runtime = CONNECTIONS
            .with_borrow(|known| known.first().map(|(_, first)| first.runtime.clone()))
            .map_or_else(|| Builder::new_current_thread().enable_io().build().map(Rc::new), Ok)
            .map_err(|source| Error::new("open", "netlink socket", io_errno(&source)))?;
        let context = runtime.handle().clone();
        let connect = move || {
            let _inside = context.enter();
            rtnetlink::new_connection_with_strict_check()
        };
        let opened = match namespace {
            Some(path) => netns::enter(path, connect).map_err(|source| fail(source.errno()))?,
            None => connect(),
        };
        let (connection, handle, _) = opened
            .map_err(|source| Error::new("open", "netlink socket", io_errno(&source)).within(namespace))?;
        runtime.spawn(connection);
        let connection = Self { runtime, handle, namespace: namespace.map(Path::to_owned) };
        CONNECTIONS.with_borrow_mut(|known| known.push((inode, connection.clone())));
        Ok(connection)
    }

    pub(crate) fn error(&self, verb: &'static str, object: impl Into<String>, source: Errno) -> Error {
        Error::new(verb, object, source).within(self.namespace.as_deref())
    }

    /// Runs a request to its end.
    pub(crate) fn run<T>(
        &self,
        verb: &'static str,
        object: impl Into<String>,
        request: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T, Error> {
        self.runtime.block_on(request).map_err(|source| self.error(verb, object, errno(&source)))
    }

    /// The interface of this name; none where there is none.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let request = self.handle.link().get().match_name(name).execute();
        let answer = self.run("look for", format!("link {name:?}"), async move {
            futures_util::pin_mut!(request);
            request.try_next().await
        });
        match answer {
            Ok(message) => Ok(message.map(Link::from)),
            Err(error) if error.errno() == Errno::ENODEV => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All bridges.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn bridges(&self) -> Result<Vec<Link>, Error> {
        let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]);
        let links = self.links(kind, "bridges")?;
        Ok(links.into_iter().filter(|link| link.bridge).collect())
    }

    /// The ports of the bridge with this index.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ports(&self, bridge: u32) -> Result<Vec<Link>, Error> {
        let links = self.links(LinkAttribute::Controller(bridge), "ports")?;
        Ok(links.into_iter().filter(|link| link.master == Some(bridge)).collect())
    }

    /// The links that the kernel lists under `filter`.
    fn links(&self, filter: LinkAttribute, what: &str) -> Result<Vec<Link>, Error> {
        let mask = vec![LinkExtentMask::SkipStats];
        let mut request = self.handle.link().get().set_filter_mask(AddressFamily::Unspec, mask);
        request.message_mut().attributes.push(filter);
        let links: Vec<LinkMessage> = self.run("list", what, request.execute().try_collect())?;
        Ok(links.into_iter().map(Link::from).collect())
    }

    /// The IPv4 addresses of the interface with this index; of all of them without one.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn addresses(&self, link: Option<u32>) -> Result<Vec<Address>, Error> {
        let mut request = self.handle.address().get();
        request.message_mut().header.family = AddressFamily::Inet;
        if let Some(index) = link {
            request.message_mut().header.index = index;
        }
        let addresses: Vec<AddressMessage> =
            self.run("list", "addresses", request.execute().try_collect())?;
        let found = addresses.iter().filter_map(Address::read);
        Ok(found.filter(|address| link.is_none_or(|index| address.link == index)).collect())
    }

    /// The name of the interface with this index.
    ///
    /// # Errors
    /// When there is none.
    pub fn name(&self, index: u32) -> Result<String, Error> {
        let request = self.handle.link().get().match_index(index).execute();
        let answer = self.run("look for", format!("link {index}"), async move {
            futures_util::pin_mut!(request);
            request.try_next().await
        })?;
        Ok(answer.map(|message| Link::from(message).name).unwrap_or_default())
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
            bridge: false,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(address) => link.mac = address.try_into().ok().map(Mac),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::LinkInfo(infos) => {
                    link.bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                }
                _ => {}
            }
        }
        link
    }
}

impl Address {
    fn read(message: &AddressMessage) -> Option<Self> {
        let mut address = None;
        let mut local = None;
        let mut protocol = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Protocol(by) => protocol = Some(u8::from(*by)),
                _ => {}
            }
        }
        let ip = local.or(address)?;
        let address = IpNet::new(ip, message.header.prefix_len).ok()?;
        Some(Self { link: message.header.index, address, protocol })
    }

    /// The request that adds it.
    pub(crate) fn message(&self) -> Option<AddressMessage> {
        let IpAddr::V4(ip) = self.address.addr() else { return None };
        let builder = AddressMessageBuilder::<Ipv4Addr>::new();
        let mut message = builder.index(self.link).address(ip, self.address.prefix_len()).build();
        if let Some(by) = self.protocol {
            message.attributes.push(AddressAttribute::Protocol(by.into()));
        }
        Some(message)
    }
}
