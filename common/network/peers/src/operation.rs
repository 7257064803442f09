use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use netlink::{Connection, neighbour::Entry, netfilter};
use operation::{Condition, Error, Operation, Scope, words};
use serde::{Deserialize, Serialize};

use crate::{Peers, Tunnel, vxlan};

/// Operations on the entries of a network's VXLAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all_fields = "camelCase")]
pub enum PeersOperation {
    /// Sets the VXLAN's entries from the network's peer list. Without a list, there are no entries.
    /// They are removed with the link.
    #[serde(rename = "peers-entries")]
    Entries {
        /// The network's bridge.
        bridge: String,
        /// The path of the peer list ([`path`]).
        ///
        /// [`path`]: crate::path
        list: PathBuf,
        /// The VXLAN.
        link: String,
    },
    /// Accepts the VXLAN's packets only from the hosts on the network's peer list.
    #[serde(rename = "peers-filter")]
    Filter {
        /// The network's bridge.
        bridge: String,
        /// The path of the peer list ([`path`]).
        ///
        /// [`path`]: crate::path
        list: PathBuf,
        /// The packets.
        #[serde(flatten)]
        tunnel: Tunnel,
    },
}

impl Operation for PeersOperation {
    fn explain(&self) -> Vec<String> {
        let (Self::Entries { list, .. } | Self::Filter { list, .. }) = self;
        let peers = Peers::read_from(list).ok().flatten().unwrap_or_default();
        let link = match self {
            Self::Entries { link, .. } => link,
            Self::Filter { tunnel, .. } => return tunnel.explain(&peers.addresses()),
        };
        let command = |entry: &Entry| match entry {
            Entry::Forward { mac, host } => {
                let (mac, host) = (mac.to_string(), host.to_string());
                words(["bridge", "fdb", "replace", &mac, "dev", link, "dst", &host])
            }
            Entry::Neighbour { address, mac } => {
                let (address, mac) = (address.to_string(), mac.to_string());
                words(["ip", "neighbour", "replace", &address, "lladdr", &mac, "dev", link])
            }
        };
        peers.entries().iter().map(command).collect()
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), Error> {
        match &*self {
            Self::Entries { bridge, link, .. } => match Peers::read(&scope.run_dir, bridge)? {
                Some(peers) => peers.set_entries(link),
                None => Ok(()),
            },
            Self::Filter { bridge, tunnel, .. } => {
                let made = tunnel.make(&hosts(scope, bridge)?);
                if made.is_err() && netfilter::is_in_doubt() {
                    // The kernel may have carried the change out. The first error is the one to report.
                    let _ = tunnel.remove_without_link();
                }
                Ok(made?)
            }
        }
    }

    fn undo(&self, _: &Scope) -> Result<(), Error> {
        match self {
            // The entries are removed with the link.
            Self::Entries { .. } => Ok(()),
            Self::Filter { tunnel, .. } => Ok(tunnel.remove()?),
        }
    }

    fn check(&self, scope: &Scope) -> Result<Condition, Error> {
        let (bridge, name) = match self {
            Self::Entries { bridge, link, .. } => (bridge, link),
            Self::Filter { bridge, tunnel, .. } => return Ok(tunnel.condition(&hosts(scope, bridge)?)?),
        };
        let Some(peers) = Peers::read(&scope.run_dir, bridge)? else { return Ok(Condition::Present) };
        let connection = Connection::open(None)?;
        let Some(link) = vxlan(&connection, name)? else {
            return Ok(Condition::Missing(format!("link {name:?}")));
        };
        Ok(match connection.entries(link.index)? == peers.entries() {
            true => Condition::Present,
            false => Condition::Missing(format!("entries of link {name:?}")),
        })
    }
}

/// The hosts of the network on this bridge. None without a peer list.
fn hosts(scope: &Scope, bridge: &str) -> Result<BTreeSet<IpAddr>, Error> {
    Ok(Peers::read(&scope.run_dir, bridge)?.unwrap_or_default().addresses())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Earlier versions recorded the hardware address of the VXLAN as well.
    #[test]
    fn a_record_with_a_hardware_address_is_read() {
        let record = r#"{"op":"peers-entries","bridge":"front","list":"/run/stave/peers/front.json","link":"x1","mac":"02:00:00:00:00:01"}"#;
        let (bridge, list, link) =
            ("front".to_owned(), "/run/stave/peers/front.json".into(), "x1".to_owned());
        let read: PeersOperation = serde_json::from_str(record).unwrap();
        assert_eq!(read, PeersOperation::Entries { bridge, list, link });
    }
}
