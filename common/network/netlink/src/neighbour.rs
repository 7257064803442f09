//! The entries of a VXLAN: which host has a hardware address, and which hardware address belongs to
//! an address. Also the addresses that the host answers for (proxy NDP).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use nix::errno::Errno;
use rtnetlink::{
    packet_core::NLM_F_REPLACE,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};

use crate::{Connection, Error, Link, Mac, NLM_F_CREATE, NLM_F_EXCL, PROTOCOL, apply::unless_gone};

/// An entry of a VXLAN's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// Frames to `mac` go to the host with the address `host` (`bridge fdb`).
    Forward {
        /// The hardware address.
        mac: Mac,
        /// The host's address.
        host: IpAddr,
    },
    /// The VXLAN answers requests for `address` with `mac` (`ip neighbour`).
    Neighbour {
        /// The address.
        address: IpAddr,
        /// Its hardware address.
        mac: Mac,
    },
}

impl Entry {
    /// The key of the entry. The kernel has one entry for each key.
    fn subject(&self) -> (Option<Mac>, Option<IpAddr>) {
        match self {
            Self::Forward { mac, .. } => (Some(*mac), None),
            Self::Neighbour { address, .. } => (None, Some(*address)),
        }
    }

    fn told(&self) -> String {
        match self {
            Self::Forward { mac, host } => format!("{mac} at {host}"),
            Self::Neighbour { address, mac } => format!("{address} as {mac}"),
        }
    }

    fn message(&self, link: &Link) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = link.index;
        message.header.state = NeighbourState::Permanent;
        let mut by = None;
        let (mac, to) = match self {
            Self::Forward { mac, host } => {
                // The entry goes into the table of the link itself, not of its bridge.
                message.header.family = AddressFamily::Bridge;
                message.header.flags = NeighbourFlags::Own;
                by = link.under.map(NeighbourAttribute::IfIndex);
                (mac, *host)
            }
            Self::Neighbour { address, mac } => {
                message.header.family = family(*address);
                (mac, *address)
            }
        };
        let (to, mac) = (NeighbourAddress::from(to), NeighbourAttribute::LinkLayerAddress(mac.0.into()));
        message.attributes = [NeighbourAttribute::Destination(to), mac].into_iter().chain(by).collect();
        message
    }

    /// Parses a permanent entry. None for one that expires.
    fn read(message: &NeighbourMessage) -> Option<Self> {
        let (mut to, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                    to = Some((*address).into())
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                    to = Some((*address).into())
                }
                NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => to = address_of(bytes),
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok().map(Mac)
                }
                _ => {}
            }
        }
        let is_permanent = u16::from(message.header.state) & u16::from(NeighbourState::Permanent) != 0;
        let (to, mac) = to.zip(mac).filter(|_| is_permanent)?;
        Some(match message.header.family {
            AddressFamily::Bridge => Self::Forward { mac, host: to },
            _ => Self::Neighbour { address: to, mac },
        })
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

impl Connection {
    /// The permanent entries of the VXLAN with this index.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn entries(&self, link: u32) -> Result<BTreeSet<Entry>, Error> {
        let mut entries = BTreeSet::new();
        for family in [AddressFamily::Bridge, AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            match family {
                AddressFamily::Bridge => message.header.ifindex = link,
                _ => message.attributes.push(NeighbourAttribute::IfIndex(link)),
            }
            let answer = self.list("neighbours", &RouteNetlinkMessage::GetNeighbour(message))?;
            entries.extend(answer.iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewNeighbour(found) if found.header.ifindex == link => {
                    Entry::read(found)
                }
                _ => None,
            }));
        }
        Ok(entries)
    }

    /// Makes sure that the VXLAN has exactly these permanent entries. New entries are added before
    /// old ones are removed.
    ///
    /// # Errors
    /// When the kernel refuses an entry. The other entries are set anyway.
    pub fn set_entries(&self, link: &Link, wanted: &BTreeSet<Entry>) -> Result<(), Error> {
        let standing = self.entries(link.index)?;
        let subjects: BTreeSet<_> = wanted.iter().map(Entry::subject).collect();
        let mut outcome = Ok(());
        for entry in wanted.difference(&standing) {
            let message = RouteNetlinkMessage::NewNeighbour(entry.message(link));
            let set = self.change("set entry", entry.told(), &message, NLM_F_CREATE | NLM_F_REPLACE);
            outcome = outcome.and(set);
        }
        // An entry with the same key and another value was replaced already.
        for entry in standing.difference(wanted).filter(|entry| !subjects.contains(&entry.subject())) {
            let message = RouteNetlinkMessage::DelNeighbour(entry.message(link));
            let removed = self.change("remove entry", entry.told(), &message, 0);
            outcome = outcome.and(unless_gone(removed));
        }
        outcome
    }

    /// The addresses that the host answers for on the link with this index, each with its origin
    /// (NDA_PROTOCOL).
    pub(crate) fn proxies(&self, link: u32) -> Result<BTreeMap<Ipv6Addr, Option<u8>>, Error> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.flags = NeighbourFlags::Proxy;
        let answer = self.list("proxies", &RouteNetlinkMessage::GetNeighbour(message))?;
        let of_link = answer.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(found) if found.header.ifindex == link => Some(found),
            _ => None,
        });
        let proxies = of_link.filter(|found| found.header.flags.contains(NeighbourFlags::Proxy));
        let read = |found: &NeighbourMessage| {
            let by = found.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::Protocol(by) => Some(u8::from(*by)),
                _ => None,
            });
            let address = found.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(*address),
                _ => None,
            });
            address.map(|address| (address, by))
        };
        Ok(proxies.filter_map(read).collect())
    }

    /// Makes the host answer for an address on a link. It is no error if we made it do so already.
    pub(crate) fn add_proxy(&self, link: u32, address: Ipv6Addr) -> Result<(), Error> {
        let what = address.to_string();
        match self.proxies(link)?.get(&address) {
            Some(Some(PROTOCOL)) => return Ok(()),
            // The kernel would treat the entry of another program as ours.
            Some(_) => return Err(self.error("answer for", what, Errno::EEXIST)),
            None => {}
        }
        let message = RouteNetlinkMessage::NewNeighbour(proxy(link, address));
        self.change("answer for", what, &message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Stops answering for the address, if the entry is ours.
    pub(crate) fn remove_proxy(&self, link: u32, address: Ipv6Addr) -> Result<(), Error> {
        if self.proxies(link)?.get(&address) != Some(&Some(PROTOCOL)) {
            return Ok(());
        }
        let message = RouteNetlinkMessage::DelNeighbour(proxy(link, address));
        self.change("answer no more for", address.to_string(), &message, 0)
    }
}

fn proxy(link: u32, address: Ipv6Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.ifindex = link;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Proxy;
    let (to, by) = (NeighbourAddress::Inet6(address), PROTOCOL.into());
    message.attributes = vec![NeighbourAttribute::Destination(to), NeighbourAttribute::Protocol(by)];
    message
}
