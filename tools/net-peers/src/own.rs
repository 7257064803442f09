//! This host's containers and bridge on the network.

use std::{collections::BTreeMap, net::IpAddr};

use document::{
    Sole,
    members::{Attachment, Names},
    record,
};
use netlink::{Connection, Mac};
use operation::Scope;
use peers::Station;
use toolkit::prelude::*;

/// The containers on the network, by id, from the records. A container that is being undone does not count.
pub(crate) fn containers(scope: &Scope, network: &str) -> Result<BTreeMap<String, Station>> {
    let mut containers = BTreeMap::new();
    for id in record::list(&scope.run_dir)? {
        let Some(document) = record::read(&scope.run_dir, &id)?.filter(|document| !document.has_failed())
        else {
            continue;
        };
        let attachments = document.attachments()?;
        let Some(attachment) = attachments.iter().find(|one| one.name == network) else { continue };
        let aliases = document.get::<Names>()?.map(|names| names.aliases).unwrap_or_default();
        if let Some((mac, addresses)) = station(attachment) {
            let aliases = aliases.into_iter().chain(attachment.aliases.clone());
            let mut own = vec![document.called(&id)?.to_string(), id.to_string()];
            own.dedup();
            let names = own.into_iter().chain(aliases).collect();
            containers.insert(id.to_string(), Station { mac, addresses, names });
        }
    }
    Ok(containers)
}

/// The addresses of the container's side of an attachment.
fn station(attachment: &Attachment) -> Option<(Mac, Vec<IpAddr>)> {
    let inside = attachment.cni.interfaces.iter().find(|interface| interface.sandbox.is_some())?;
    let mac = inside.mac.as_ref()?.parse().ok()?;
    Some((mac, attachment.cni.ips.iter().map(|ip| ip.address.addr()).collect()))
}

/// Makes this process the only net-peers for the network in this network namespace. A second one, with another run directory, would
/// remove what the first one has published.
pub(crate) fn sole(network: &str) -> Result<Sole> {
    let sole = Sole::take(&format!("net-peers/{network}"));
    let sole = sole.with_context(|| format!("look for another net-peers on network {network:?}"))?;
    sole.ok_or_else(|| {
        let error = anyhow!("another net-peers is on network {network:?} here");
        hint(error, "stop it first, even if it has another --run-dir")
    })
}

/// The hardware address of the network's bridge. None if there is no bridge.
pub(crate) fn bridge(name: &str) -> Result<Option<Mac>> {
    let connection = Connection::open(None)?;
    Ok(connection.link(name)?.and_then(|link| link.mac))
}
