use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use operation::{Condition, Scope};
use serde::{Deserialize, Serialize};

use crate::Mac;

/// A change to links, addresses or routes. A link is known as our own by its hardware address: what carries the same
/// name and another address was made by somebody else, is an error to apply and stays when it is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum LinkOperation {
    /// Makes a bridge. One that stands already with this address is as well; it stays where it has ports.
    BridgeAdd {
        /// Its name.
        name: String,
        /// Its hardware address.
        mac: Mac,
    },
    /// Makes a veth pair in one go: both sides under their final names, one a port of a bridge here, the other in its
    /// namespace.
    VethAdd {
        /// The name of the side that stays here.
        name: String,
        /// Its hardware address.
        mac: Mac,
        /// The bridge that it becomes a port of.
        master: String,
        /// The MTU of both sides, in bytes.
        mtu: u32,
        /// The other side.
        peer: Peer,
    },
    /// Switches IPv6 off on a link here that is not up yet: the host shall not take the router advertisements of a
    /// container (CVE-2020-10749), and the kernel need not keep an address and routes for each port of a bridge. It goes
    /// with the link.
    Ipv6Off {
        /// The link.
        link: String,
        /// The link's hardware address.
        mac: Mac,
    },
    /// Lets a port of a bridge send frames back the way they came: without it a container does not reach itself by a
    /// published port, where bridged frames pass through netfilter (br_netfilter). It goes with the link.
    Hairpin {
        /// The port.
        link: String,
        /// The port's hardware address.
        mac: Mac,
    },
    /// Sets a link up. It goes with the link. (The kernel refuses to make the far side of a veth pair up at once.)
    LinkUp {
        /// Where the link is; here where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<PathBuf>,
        /// The link.
        link: String,
        /// The link's hardware address.
        mac: Mac,
    },
    /// Gives a link an address.
    AddressAdd {
        /// Where the link is; here where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<PathBuf>,
        /// The link.
        link: String,
        /// The link's hardware address; none for a bridge that others made, which changes its own with its ports.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<Mac>,
        /// The address with its prefix length.
        address: IpNet,
        /// Who put it there (IFA_PROTO): the mark of an address on a link that others made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<u8>,
    },
    /// Makes a route by a gateway.
    RouteAdd {
        /// Where the link is; here where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<PathBuf>,
        /// The destination; `0.0.0.0/0` is the default route.
        destination: IpNet,
        /// The next hop.
        gateway: IpAddr,
        /// The link that it is reached by.
        link: String,
        /// The link's hardware address.
        mac: Mac,
    },
}

/// The side of a veth pair that stands in another namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name there.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Path of the namespace.
    pub namespace: PathBuf,
}

impl operation::Operation for LinkOperation {
    fn explain(&self) -> Vec<String> {
        vec![self.command()]
    }

    fn apply(&mut self, _: &Scope) -> Result<(), operation::Error> {
        Ok(self.make()?)
    }

    fn undo(&self, _: &Scope) -> Result<(), operation::Error> {
        Ok(self.take_back()?)
    }

    fn check(&self, _: &Scope) -> Result<Condition, operation::Error> {
        Ok(self.compare()?)
    }
}
