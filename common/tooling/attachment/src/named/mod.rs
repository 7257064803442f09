//! Networks by name: files below `$STAVE_ROOT/networks`.
//!
//! `NAME.json` has podman's network format (containers/common, libnetwork/types/network.go). So
//! podman's files work as they are, and podman can read ours. `NAME.conflist` is a CNI network
//! whose first plugin is `bridge`, `macvlan` or `ipvlan` (CNI plugins, main; ipam/host-local). A setting that is
//! not supported is rejected by its key.

mod conflist;
mod file;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink::{Connection, Mac};
use operation::{Error, Place, unless_gone};

pub use file::{File, FileRoute, Subnet};

use crate::{
    Further, Gateway, Route, Wanted, WantedParent, bridge, chosen, free, parse_name, prefix, unfit::Unfit,
};

/// A network from its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Name of the network.
    pub name: String,
    /// Path of the file.
    pub path: PathBuf,
    /// The wanted properties of the network.
    pub network: Kind,
    /// The MTU of its interfaces, in bytes.
    pub mtu: Option<u32>,
    /// The metric of its containers' default routes.
    pub metric: Option<u32>,
    /// Whether its containers have no default route.
    pub no_default_route: bool,
    /// Further routes for its containers.
    pub routes: Vec<Route>,
}

/// The kinds of networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A network on a bridge.
    Bridge(Wanted),
    /// A network on a link of the host.
    Parent(WantedParent),
}

/// Why a network cannot be made from its file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("it is called {0:?}")]
    OtherName(String),
    #[error("{0} is not carried out")]
    NotCarriedOut(String),
    #[error("the driver of network {name:?} is {driver}")]
    Driver { name: String, driver: String },
    #[error("{0}")]
    Wrong(String),
}

/// The directory of all networks.
fn directory(root: &Path) -> PathBuf {
    root.join("networks")
}

/// Parses a network name: a letter or digit, then letters, digits, `_`, `.` and `-`, at most 64 in
/// all.
///
/// # Errors
/// Why the name is invalid.
pub fn parse_network(name: &str) -> Result<String, String> {
    match operation::is_name(name, 64) {
        true => Ok(name.to_owned()),
        false => Err("the name of a network takes letters, digits, `_`, `.` and `-`, a letter or digit first, 64 at most".into()),
    }
}

/// The names that `--network` of `stave run` gives another meaning.
const RESERVED: [&str; 4] = ["bridge", "default", "host", "none"];

/// Parses the name of a network that is to be made.
///
/// # Errors
/// As [`parse_network`]; when the name is reserved.
pub fn parse_new_network(name: &str) -> Result<String, String> {
    match RESERVED.contains(&name) {
        true => Err("the name is reserved: `stave run --network` gives it another meaning".to_owned()),
        false => parse_network(name),
    }
}

/// The bridge of a network that names none: the network's name if an interface may have it,
/// otherwise a derived name.
pub fn bridge_of(name: &str) -> String {
    parse_name(name).unwrap_or_else(|_| {
        let Mac([_, a, b, c, d, e]) = Mac::derive("", name);
        format!("br-{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}")
    })
}

impl Named {
    /// A network without routes. The path of its file is set later.
    fn new(name: &str, network: Kind) -> Self {
        Self {
            name: name.to_owned(),
            path: PathBuf::new(),
            network,
            mtu: None,
            metric: None,
            no_default_route: false,
            routes: Vec::new(),
        }
    }

    /// Reads the network with this name. None if there is no file for it.
    ///
    /// # Errors
    /// When its file cannot be read, or has a setting that is not supported.
    pub fn find(root: &Path, name: &str) -> Result<Option<Self>, Error> {
        for (suffix, read) in [("json", file::read as Reader), ("conflist", conflist::read)] {
            let path = directory(root).join(format!("{name}.{suffix}"));
            let text = unless_gone(fs::read(&path)).map_err(failed("read", &path))?;
            if let Some(text) = text {
                let found = read(name, &text).map_err(|cause| unusable(&path, cause))?;
                return Ok(Some(Self { path, ..found }));
            }
        }
        Ok(None)
    }

    /// The network's bridge.
    ///
    /// # Errors
    /// When it is on a link of the host.
    pub fn bridge(&self) -> Result<&Wanted, Error> {
        match &self.network {
            Kind::Bridge(wanted) => Ok(wanted),
            Kind::Parent(parent) => Err(self.of_other_kind(parent.child.kind())),
        }
    }

    /// The network's parent, whose containers have interfaces of this kind.
    ///
    /// # Errors
    /// When it is on a bridge, or its interfaces are of another kind.
    pub fn parent(&self, kind: &str) -> Result<&WantedParent, Error> {
        match &self.network {
            Kind::Parent(parent) if parent.child.kind() == kind => Ok(parent),
            _ => Err(self.of_other_kind(self.driver())),
        }
    }

    fn of_other_kind(&self, driver: &str) -> Error {
        let error = Error::caused_by(Unusable::Driver { name: self.name.clone(), driver: driver.to_owned() });
        error.with_hint(format!("{driver}-attach {} attaches a container to it", self.name))
    }

    /// The driver: `bridge`, `macvlan` or `ipvlan`.
    pub fn driver(&self) -> &'static str {
        match &self.network {
            Kind::Bridge(_) => "bridge",
            Kind::Parent(parent) => parent.child.kind(),
        }
    }

    /// The name of the bridge or the parent. Empty for the link of the default route.
    pub fn link(&self) -> &str {
        match &self.network {
            Kind::Bridge(wanted) => &wanted.bridge,
            Kind::Parent(parent) => parent.parent.as_deref().unwrap_or_default(),
        }
    }

    /// Whether it is internal.
    pub fn is_internal(&self) -> bool {
        match &self.network {
            Kind::Bridge(wanted) => wanted.internal,
            Kind::Parent(parent) => parent.internal,
        }
    }

    /// Its subnets.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        let (v4, v6, further) = match &self.network {
            Kind::Bridge(wanted) => (wanted.subnet, wanted.subnet6, &wanted.further),
            Kind::Parent(parent) => (parent.subnet, parent.subnet6, &parent.further),
        };
        let further = further.iter().map(|one| one.subnet);
        v4.map(IpNet::from).into_iter().chain(v6.map(IpNet::from)).chain(further)
    }

    /// The names of all networks, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(root: &Path) -> Result<Vec<String>, Error> {
        let directory = directory(root);
        let entries = unless_gone(fs::read_dir(&directory)).map_err(failed("list", &directory))?;
        let mut names = Vec::new();
        for entry in entries.into_iter().flatten() {
            let name = entry.map_err(failed("list", &directory))?.file_name();
            let name = name
                .to_str()
                .and_then(|name| name.strip_suffix(".json").or_else(|| name.strip_suffix(".conflist")));
            names.extend(name.filter(|name| parse_network(name).is_ok()).map(str::to_owned));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

type Reader = fn(&str, &[u8]) -> Result<Named, Unusable>;

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::new(verb, format_args!("{path:?}"), error).of(Place::Store)
}

fn unusable(path: &Path, cause: Unusable) -> Error {
    Error::new("read network", format_args!("{path:?}"), operation::Cause::Source(Box::new(cause)))
}

/// Chooses the missing subnets of a new network, which has these versions of IP. `others` are the existing networks. `on` is the
/// link on which the host answers for the IPv6 subnet.
///
/// # Errors
/// When a given subnet collides with another network, an interface or a route, or no subnet is
/// free.
pub fn subnets(
    ipv4: bool,
    subnet: Option<Ipv4Net>,
    ipv6: bool,
    subnet6: Option<Ipv6Net>,
    on: Option<&str>,
    others: &[Named],
) -> Result<(Option<Ipv4Net>, Option<Ipv6Net>), Error> {
    let connection = Connection::open(None)?;
    refuse_taken(&[subnet.map(IpNet::from), subnet6.map(IpNet::from)], others)?;
    let subnet = match subnet {
        Some(subnet) => {
            free::refuse_collision(&connection, subnet)?;
            Some(subnet)
        }
        None if !ipv4 => None,
        None => {
            let taken = others.iter().flat_map(Named::subnets).filter_map(|net| match net {
                IpNet::V4(net) => Some(net),
                IpNet::V6(_) => None,
            });
            Some(free::first_free(&connection, &taken.collect::<Vec<_>>())?)
        }
    };
    let subnet6 = match subnet6 {
        Some(subnet) => {
            prefix::refuse_collision(&connection, subnet, on)?;
            Some(subnet)
        }
        None if ipv6 || !ipv4 => Some(prefix::random()?),
        None => None,
    };
    Ok((subnet, subnet6))
}

/// The further subnets of a new network, whose first ones are chosen. `others` are the existing networks.
///
/// # Errors
/// When one collides with another network, an interface or a route, or its gateway or range is wrong.
pub fn further(all: &[Further], first: &[Option<IpNet>], others: &[Named]) -> Result<Vec<Subnet>, Error> {
    let connection = Connection::open(None)?;
    refuse_taken(&all.iter().map(|one| Some(one.subnet)).collect::<Vec<_>>(), others)?;
    let one = |(at, one): (usize, &Further)| {
        let before = all[..at].iter().map(|other| other.subnet);
        one.refuse_overlap(first.iter().flatten().copied().chain(before))?;
        one.refuse_collision(&connection)?;
        subnet(one.subnet, one.gateway, one.range)
    };
    all.iter().enumerate().map(one).collect()
}

/// Refuses subnets of a new network that overlap those of `others`.
///
/// # Errors
/// The first collision.
pub fn refuse_taken(subnets: &[Option<IpNet>], others: &[Named]) -> Result<(), Error> {
    for (other, theirs) in others.iter().flat_map(|other| other.subnets().map(move |net| (other, net))) {
        let overlaps = |subnet: &&IpNet| subnet.contains(&theirs) || theirs.contains(*subnet);
        if let Some(subnet) = subnets.iter().flatten().find(overlaps) {
            let what = format!("network {:?}, which has {theirs}", other.name);
            return Err(Unfit::Collision { subnet: *subnet, what }.into());
        }
    }
    Ok(())
}

/// A subnet of a new network. The usual gateway is the first address.
///
/// # Errors
/// When no host can have the gateway's address, or the range has no address to lease.
pub fn subnet(subnet: IpNet, gateway: Gateway, range: Option<IpNet>) -> Result<Subnet, Error> {
    let gateway = match gateway {
        Gateway::None => None,
        Gateway::Usual => Some(lease::gateway(subnet)),
        Gateway::At(gateway) => {
            bridge::refuse_gateway(subnet, gateway)?;
            Some(gateway)
        }
    };
    if let Some(range) = range {
        chosen::refuse_range(range, subnet, gateway)?;
    }
    Ok(Subnet::new(subnet, gateway, range))
}

impl File {
    /// The path of the network's file.
    pub fn path(&self, root: &Path) -> PathBuf {
        directory(root).join(format!("{}.json", self.name))
    }

    /// Writes the file of a new network. Returns its path.
    ///
    /// # Errors
    /// When a network with this name exists, or the file cannot be written.
    pub fn create(&self, root: &Path) -> Result<PathBuf, Error> {
        let directory = directory(root);
        operation::make_directories(&directory, 0o777).map_err(failed("create", &directory))?;
        let path = self.path(root);
        let mut text = serde_json::to_string_pretty(self).map_err(|error| unusable(&path, error.into()))?;
        text.push('\n');
        // Write a temporary file first, so that a file with the final name is always complete.
        let beside = directory.join(format!(".{}.new", self.name));
        let write = || -> io::Result<()> {
            let mut file = fs::File::create(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::hard_link(&beside, &path)?;
            let end = || {
                fs::remove_file(&beside)?;
                fs::File::open(&directory)?.sync_all()
            };
            end().inspect_err(|_| drop(fs::remove_file(&path)))
        };
        let written = write();
        if written.is_err() {
            let _ = fs::remove_file(&beside);
            // It stays if there are other networks.
            let _ = fs::remove_dir(&directory);
        }
        written.map_err(failed("create", &path))?;
        Ok(path)
    }
}

/// Removes the file of a network, and the directory with its last file. A power cut does not bring it back.
///
/// # Errors
/// When the file cannot be removed.
pub fn remove(path: &Path) -> Result<(), Error> {
    let remove = || -> io::Result<()> {
        fs::remove_file(path)?;
        let Some(directory) = path.parent() else { return Ok(()) };
        // `File::create` makes it again.
        let kept = match fs::remove_dir(directory) {
            Ok(()) => directory.parent().unwrap_or(directory),
            Err(_) => directory,
        };
        fs::File::open(kept)?.sync_all()
    };
    remove().map_err(failed("remove", path))
}

/// The prefix of the range from `first` to `last`. The range may leave out the prefix's first and
/// last address. None if the range is the whole subnet.
///
/// # Errors
/// When an address is not in the subnet, or the range is not a prefix.
pub(crate) fn range(
    subnet: IpNet,
    first: Option<&str>,
    last: Option<&str>,
) -> Result<Option<IpNet>, Unusable> {
    let wrong = || Unusable::Wrong(format!("a range of subnet {subnet} is no two addresses of it"));
    let parse =
        |text: &str| text.parse::<std::net::IpAddr>().ok().filter(|ip| subnet.contains(ip)).ok_or_else(wrong);
    let (first, last) = (first.map(parse).transpose()?, last.map(parse).transpose()?);
    if first.is_none() && last.is_none() {
        return Ok(None);
    }
    let first = first.unwrap_or_else(|| subnet.network());
    let last = last.unwrap_or_else(|| subnet.broadcast());
    let is_it = |net: &IpNet| {
        let inside = lease::hosts_of(subnet, *net);
        let begins = first == net.network()
            || Some(first) == inside.map(|(first, _)| first)
            || first == lease::gateway(*net);
        let ends = last == net.broadcast() || Some(last) == inside.map(|(_, last)| last);
        begins && ends
    };
    let lengths = subnet.prefix_len()..=subnet.max_prefix_len();
    let nets = lengths.filter_map(|length| IpNet::new(last, length).ok()).map(|net| net.trunc());
    match nets.into_iter().find(is_it) {
        Some(net) if net == subnet => Ok(None),
        Some(net) => Ok(Some(net)),
        None => Err(Unusable::NotCarriedOut(format!("a range that has no prefix ({first} to {last})"))),
    }
}
