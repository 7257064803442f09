//! Listens to the kernel for what others change in this network namespace: rules, links, addresses
//! and routes.

use std::{
    collections::HashSet,
    os::fd::{AsFd, BorrowedFd},
};

use nix::errno::Errno;
use rtnetlink::{
    packet_core::NLM_F_REPLACE,
    sys::{self, protocols},
};
use rustix::net::{RecvFlags, recv};

use crate::{
    Error,
    attribute::{find, string},
    errno_of,
    frame::{Frame, frames},
    netfilter::{INET, IPV4, IPV6, OWN_TABLE},
};

// linux/rtnetlink.h, `enum rtnetlink_groups` and the message types.
const GROUP_LINK: u32 = 1;
const GROUP_IPV4_ADDRESS: u32 = 5;
const GROUP_IPV4_ROUTE: u32 = 7;
const GROUP_IPV6_ADDRESS: u32 = 9;
const GROUP_IPV6_ROUTE: u32 = 11;
const GROUP_IPV4_NETCONF: u32 = 24;
const GROUP_IPV6_NETCONF: u32 = 25;
const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const DEL_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const NEW_NETCONF: u16 = 80;
/// `struct rtmsg`.
const ROUTE_HEADER: usize = 12;
const ROUTE_LINK: u16 = 4;
// linux/netfilter/nfnetlink.h and nf_tables.h
const GROUP_NFTABLES: u32 = 7;
const SUBSYSTEM_NFTABLES: u8 = 10;
const NEW_TABLE: u8 = 0;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
/// DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM.
const REMOVALS: [u8; 5] = [2, 5, 8, 11, 14];
/// struct nfgenmsg.
const GENERIC: usize = 4;
const OF_TABLE: u16 = 1;

const BUFFER: usize = 1 << 16;

/// The two netlink sockets that receive notifications.
pub struct Events {
    route: sys::Socket,
    netfilter: sys::Socket,
    /// The links whose routes matter. Other routes may change by the thousand.
    links: HashSet<u32>,
}

/// What the notifications say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing of ours was removed.
    Nothing,
    /// Something of ours may be missing now.
    Change,
    /// The kernel dropped notifications, so anything may have changed.
    Lost,
}

impl Events {
    /// Starts to listen in this thread's network namespace.
    ///
    /// # Errors
    /// When no socket can be opened, or the kernel does not let this process listen.
    pub fn open() -> Result<Self, Error> {
        let open = |protocol, groups: &[u32]| -> std::io::Result<sys::Socket> {
            let mut socket = sys::Socket::new(protocol)?;
            socket.bind_auto()?;
            for group in groups {
                socket.add_membership(*group)?;
            }
            Ok(socket)
        };
        let failed = |source| Error::new("listen to", "changes of the network", errno_of(&source));
        let groups = [
            GROUP_LINK,
            GROUP_IPV4_ADDRESS,
            GROUP_IPV6_ADDRESS,
            GROUP_IPV4_ROUTE,
            GROUP_IPV6_ROUTE,
            GROUP_IPV4_NETCONF,
            GROUP_IPV6_NETCONF,
        ];
        Ok(Self {
            route: open(protocols::NETLINK_ROUTE, &groups).map_err(failed)?,
            netfilter: open(protocols::NETLINK_NETFILTER, &[GROUP_NFTABLES]).map_err(failed)?,
            links: HashSet::new(),
        })
    }

    /// The sockets to poll.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.route.as_fd(), self.netfilter.as_fd()]
    }

    /// Reports changes of routes over these links from now on.
    pub fn watch_routes_of(&mut self, links: impl IntoIterator<Item = u32>) {
        self.links = links.into_iter().collect();
    }

    /// Reads all pending notifications without waiting.
    ///
    /// # Errors
    /// When a socket cannot be read.
    pub fn take(&self) -> Result<Heard, Error> {
        let route = drain(&self.route, |frame| self.is_relevant(frame))?;
        let netfilter = drain(&self.netfilter, concerns_rules)?;
        Ok(match (route, netfilter) {
            (Heard::Lost, _) | (_, Heard::Lost) => Heard::Lost,
            (Heard::Change, _) | (_, Heard::Change) => Heard::Change,
            _ => Heard::Nothing,
        })
    }

    fn is_relevant(&self, frame: &Frame<'_>) -> bool {
        let by_ours = || {
            let attributes = frame.payload.get(ROUTE_HEADER..).unwrap_or_default();
            let link = find(attributes, ROUTE_LINK).and_then(|link| link.try_into().ok());
            link.is_some_and(|link| self.links.contains(&u32::from_ne_bytes(link)))
        };
        match frame.kind {
            NEW_LINK | DEL_LINK | DEL_ADDRESS | NEW_NETCONF => true,
            DEL_ROUTE => by_ours(),
            // The kernel sends no notification about the route that was replaced.
            NEW_ROUTE => frame.flags & NLM_F_REPLACE != 0,
            _ => false,
        }
    }
}

/// Whether a rule, or its table, chain or set, was removed; something was added to our table; or
/// another table got a chain, rule or policy that may drop packets which ours accepts.
fn concerns_rules(frame: &Frame<'_>) -> bool {
    let [subsystem, kind] = frame.kind.to_be_bytes();
    if subsystem != SUBSYSTEM_NFTABLES {
        return false;
    }
    let of_ours = || {
        let attributes = frame.payload.get(GENERIC..).unwrap_or_default();
        find(attributes, OF_TABLE).is_some_and(|name| string(name) == OWN_TABLE)
    };
    let is_of_ip = || frame.payload.first().is_some_and(|family| [INET, IPV4, IPV6].contains(family));
    match kind {
        NEW_CHAIN | NEW_RULE => is_of_ip(),
        NEW_TABLE => of_ours(),
        removal => REMOVALS.contains(&removal),
    }
}

fn drain(socket: &sys::Socket, is_relevant: impl Fn(&Frame<'_>) -> bool) -> Result<Heard, Error> {
    let mut buffer = vec![0; BUFFER];
    let mut heard = Heard::Nothing;
    loop {
        let length = match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((_, length)) if length > BUFFER => {
                heard = Heard::Lost;
                continue;
            }
            Ok((_, length)) => length,
            Err(rustix::io::Errno::AGAIN) => return Ok(heard),
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::NOBUFS) => {
                heard = Heard::Lost;
                continue;
            }
            Err(error) => {
                let errno = Errno::from_raw(error.raw_os_error());
                return Err(Error::new("read", "changes of the network", errno));
            }
        };
        if heard == Heard::Nothing {
            let relevant = |frame: Result<Frame<'_>, Errno>| frame.is_ok_and(|frame| is_relevant(&frame));
            if frames(&buffer[..length]).any(relevant) {
                heard = Heard::Change;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_drop_our_packets_is_heard() {
        const NEW_SET_ELEMENT: u8 = 12;
        const ARP: u8 = 3;
        let concerns = |kind: u8, family: u8, table: &str| {
            let length = u16::try_from(table.len() + 5).unwrap();
            let attribute = [&length.to_ne_bytes()[..], &OF_TABLE.to_ne_bytes(), table.as_bytes(), &[0]];
            let payload = [&[family, 0, 0, 0], &attribute.concat()[..]].concat();
            let kind = u16::from_be_bytes([SUBSYSTEM_NFTABLES, kind]);
            concerns_rules(&Frame { kind, flags: 0, sequence: 0, payload: &payload })
        };
        for (kind, family, table, expected) in [
            (NEW_TABLE, IPV4, OWN_TABLE, true),
            (NEW_TABLE, IPV4, "filter", false),
            (NEW_CHAIN, IPV4, "filter", true),
            (NEW_RULE, INET, "fw", true),
            (NEW_RULE, IPV6, "filter", true),
            (NEW_RULE, ARP, "filter", false),
            (NEW_SET_ELEMENT, IPV4, "filter", false),
            (REMOVALS[2], IPV4, "filter", true),
        ] {
            assert_eq!(concerns(kind, family, table), expected, "{kind} {family} {table}");
        }
    }
}
