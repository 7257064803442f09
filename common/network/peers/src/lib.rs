//! The containers of a network that are on other hosts.
//!
//! `$STAVE_RUN/peers/<bridge>.json` lists the hosts and the containers on each. `net-peers` writes
//! it from what the hosts tell each other. Other programs may write it too; the file is replaced by
//! rename. The entries of the network's VXLAN are made from it, so nothing is broadcast to other
//! hosts, and only these hosts may send to the VXLAN. It also has the names of containers on other
//! hosts.

mod filter;
mod operation;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use ::operation::{Error, Place, unless_gone};
use netlink::{Connection, Link, Mac, neighbour::Entry};
use serde::{Deserialize, Serialize};

pub use self::{filter::Tunnel, operation::PeersOperation};

/// The other hosts of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// The network's name.
    pub network: String,
    /// The hosts.
    pub hosts: Vec<Host>,
}

/// Another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The name of the host.
    pub name: String,
    /// The address of the host for the VXLAN.
    pub address: IpAddr,
    /// The containers on the network there.
    #[serde(default)]
    pub stations: Vec<Station>,
}

/// A container on another host, or that host's bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// Its hardware address.
    pub mac: Mac,
    /// Its addresses on the network.
    pub addresses: Vec<IpAddr>,
    /// Its names: the id, and the names that others use. A bridge has no name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// The directory of all peer lists.
pub fn directory(run_dir: &Path) -> PathBuf {
    run_dir.join("peers")
}

/// The path of the peer list for the network on this bridge.
pub fn path(run_dir: &Path, bridge: &str) -> PathBuf {
    directory(run_dir).join(format!("{bridge}.json"))
}

impl Peers {
    /// Reads the peer list for the network on this bridge. None if there is no list.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn read(run_dir: &Path, bridge: &str) -> Result<Option<Self>, Error> {
        Self::read_from(&path(run_dir, bridge))
    }

    fn read_from(path: &Path) -> Result<Option<Self>, Error> {
        let failed = |cause: io::Error| Error::new("read", format_args!("{path:?}"), cause).of(Place::RunDir);
        let Some(text) = unless_gone(fs::read(path)).map_err(failed)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|error| failed(error.into()))
    }

    /// Replaces the list atomically.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, run_dir: &Path, bridge: &str) -> Result<(), Error> {
        let path = path(run_dir, bridge);
        let write = || -> io::Result<()> {
            let directory = directory(run_dir);
            ::operation::make_directories(&directory, 0o777)?;
            let mut file = tempfile::NamedTempFile::new_in(&directory)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|cause| Error::new("write", format_args!("{path:?}"), cause).of(Place::RunDir))
    }

    /// Removes the peer list for the network on this bridge.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(run_dir: &Path, bridge: &str) -> Result<(), Error> {
        let path = path(run_dir, bridge);
        let removed = unless_gone(fs::remove_file(&path));
        removed.map_err(|cause| Error::new("remove", format_args!("{path:?}"), cause).of(Place::RunDir))?;
        // The lists of other networks may be there.
        let _ = fs::remove_dir(directory(run_dir));
        Ok(())
    }

    /// The entries for the network's VXLAN.
    pub fn entries(&self) -> BTreeSet<Entry> {
        let stations =
            self.hosts.iter().flat_map(|host| host.stations.iter().map(move |one| (host.address, one)));
        let entries = stations.flat_map(|(host, station)| {
            let mac = station.mac;
            let neighbours =
                station.addresses.iter().map(move |address| Entry::Neighbour { address: *address, mac });
            neighbours.chain([Entry::Forward { mac, host }])
        });
        entries.collect()
    }

    /// The addresses of the hosts.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.hosts.iter().map(|host| host.address).collect()
    }

    /// Sets the entries of the network's VXLAN, and accepts its packets from these hosts only.
    /// Without the VXLAN, this does nothing.
    ///
    /// # Errors
    /// When the kernel refuses an entry, or the table of the packets that are accepted.
    pub fn set(&self, tunnel: &Tunnel) -> Result<(), Error> {
        let connection = Connection::open(None)?;
        let Some(link) = vxlan(&connection, &tunnel.link)? else { return Ok(()) };
        tunnel.make(&self.addresses())?;
        Ok(connection.set_entries(&link, &self.entries())?)
    }

    /// Sets the entries of the VXLAN `link`. Without the VXLAN, this does nothing.
    ///
    /// # Errors
    /// When the kernel refuses an entry.
    pub fn set_entries(&self, link: &str) -> Result<(), Error> {
        let connection = Connection::open(None)?;
        match vxlan(&connection, link)? {
            Some(link) => Ok(connection.set_entries(&link, &self.entries())?),
            None => Ok(()),
        }
    }
}

/// The VXLAN with this name, if it exists and is ours.
fn vxlan(connection: &Connection, name: &str) -> Result<Option<Link>, Error> {
    Ok(connection.link(name)?.filter(Link::is_of_host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_becomes_entries() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(Peers::read(run.path(), "front").unwrap(), None);
        let mac = Mac([2, 0x42, 10, 7, 2, 5]);
        let addresses: Vec<IpAddr> = vec![[10, 7, 2, 5].into(), "fd00::5".parse().unwrap()];
        let station = Station { mac, addresses: addresses.clone(), names: vec!["db".to_owned()] };
        let host = Host { name: "b".to_owned(), address: [192, 0, 2, 2].into(), stations: vec![station] };
        let peers = Peers { network: "front".to_owned(), hosts: vec![host] };
        peers.write(run.path(), "front").unwrap();
        assert_eq!(Peers::read(run.path(), "front").unwrap().as_ref(), Some(&peers));
        let expected = [
            Entry::Forward { mac, host: [192, 0, 2, 2].into() },
            Entry::Neighbour { address: addresses[0], mac },
            Entry::Neighbour { address: addresses[1], mac },
        ];
        assert_eq!(peers.entries(), BTreeSet::from(expected));
        fs::write(path(run.path(), "front"), "{").unwrap();
        assert!(Peers::read(run.path(), "front").is_err());
        Peers::remove(run.path(), "front").unwrap();
        Peers::remove(run.path(), "front").unwrap();
        assert!(!directory(run.path()).exists());
    }
}
