//! Joins a network on this host, and leaves it.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use attachment::{
    Gateway,
    named::{self, File, Named},
};
use document::{members::Vxlan, record::Lock};
use etcd::{Client, Lease};
use netlink::{
    vxlan_name,
    wireguard::{self, Wireguard},
};
use operation::Scope;
use peers::{Peers, Tunnel};
use toolkit::prelude::*;

use super::{
    NetPeers, key, own,
    shape::{Shape, hash},
    told::{End, Keys, ToldHost, below},
};

/// The default UDP port of VXLAN (RFC 7348, 5).
const PORT: u16 = 4789;

/// This host and its part of a network.
pub(crate) struct Joined {
    pub(crate) host: String,
    /// The address of its VXLAN for the other hosts.
    pub(crate) address: IpAddr,
    /// Its WireGuard endpoint, if it uses WireGuard.
    pub(crate) end: Option<End>,
    pub(crate) keys: Keys,
    pub(crate) shape: Shape,
    pub(crate) part: u32,
    pub(crate) network: Named,
    pub(crate) lease: Lease,
}

impl Joined {
    /// The packets of the network's VXLAN.
    pub(crate) fn filtered(&self) -> Tunnel {
        let link = vxlan_name(self.network.link());
        Tunnel { link, id: self.shape.vxlan, port: self.shape.port, local: self.address }
    }
}

/// The name of this host.
pub(crate) fn host(asked: &NetPeers) -> Result<String> {
    if let Some(host) = &asked.host {
        return Ok(host.clone());
    }
    let name = nix::unistd::gethostname().context("ask for the host's name")?;
    let name = name.to_string_lossy().into_owned();
    named::parse_network(&name)
        .map_err(|reason| hint(anyhow!("{name:?}: {reason}"), "choose another with --host"))
}

/// Joins the network, and writes its file if there is none.
pub(crate) fn join(asked: &NetPeers, scope: &Scope, client: &Client) -> Result<Joined> {
    let (host, outer) = (host(asked)?, address(asked)?);
    let keys = Keys::new(&asked.etcd_prefix, &asked.name);
    let shape = shape(asked, client, &keys)?;
    let (address, end) = reached(asked, &shape, outer)?;
    let lease = client.grant(asked.ttl)?;
    let known = Named::find(&scope.root, &asked.name)?;
    let part = match &known {
        Some(network) => {
            let part = part_of(network, &shape, address)?;
            take(client, &keys, &host, address, part, lease)?;
            part
        }
        None => choose(client, &keys, &host, address, &shape, lease)?,
    };
    let network = match known {
        Some(network) => network,
        None => write(scope, &asked.name, &shape, part, address)?,
    };
    Ok(Joined { host, address, end, keys, shape, part, network, lease })
}

/// The address of this host's VXLAN: `outer`, or with WireGuard its tunnel address. Makes the WireGuard
/// link.
fn reached(asked: &NetPeers, shape: &Shape, outer: IpAddr) -> Result<(IpAddr, Option<End>)> {
    let Some(path) = &asked.wireguard_key else {
        return match shape.wireguard {
            true => Err(hint(
                anyhow!("the hosts of network {:?} use WireGuard", asked.name),
                "add --wireguard-key",
            )),
            false => Ok((outer, None)),
        };
    };
    if !shape.wireguard {
        let error = anyhow!("the hosts of network {:?} do not use WireGuard", asked.name);
        return Err(hint(error, "leave out --wireguard-key"));
    }
    let private = key::read(path)?;
    let public = Wireguard::open()?.make(&tunnel(&asked.name), &private, asked.wireguard_port)?;
    let endpoint = SocketAddr::new(outer, asked.wireguard_port);
    Ok((wireguard::address_of(&public).into(), Some(End { key: key::written(&public), endpoint })))
}

/// The address of this host for the other hosts.
fn address(asked: &NetPeers) -> Result<IpAddr> {
    if let Some(address) = asked.address {
        return Ok(address);
    }
    let servers = asked.endpoints.iter().flat_map(|endpoint| addresses(endpoint));
    let own = servers.filter_map(|server| {
        let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(server).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    let found = own.into_iter().find(|address| !address.is_loopback());
    found.ok_or_else(|| {
        hint(anyhow!("cannot tell this host's address from the route to etcd"), "give --address")
    })
}

/// Resolves the addresses of a server.
fn addresses(endpoint: &str) -> Vec<SocketAddr> {
    let (_, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let name = rest.split('/').next().unwrap_or_default();
    let named = name.to_socket_addrs().or_else(|_| (name.trim_matches(['[', ']']), 2379).to_socket_addrs());
    named.into_iter().flatten().collect()
}

/// The shape that all hosts agree on. The first host decides it.
fn shape(asked: &NetPeers, client: &Client, keys: &Keys) -> Result<Shape> {
    let read = |text: &str| -> Result<Shape> {
        let shape: Shape =
            serde_json::from_str(text).with_context(|| format!("read key {:?}", keys.shape()))?;
        shape.checked()
    };
    let Some(subnet) = asked.subnet else {
        let found = client.get(&keys.shape())?;
        let unknown =
            || hint(anyhow!("no host has made network {:?}", asked.name), "give --subnet on the first host");
        return read(&found.ok_or_else(unknown)?);
    };
    let bits = match asked.part {
        Some(length) => length.saturating_sub(subnet.prefix_len()),
        None => 8,
    };
    let vxlan = asked.vxlan.unwrap_or_else(|| hash(&asked.name) % ((1 << 24) - 1) + 1);
    let port = asked.vxlan_port.unwrap_or(PORT);
    let own =
        Shape { subnet, subnet6: asked.subnet6, bits, vxlan, port, wireguard: asked.wireguard_key.is_some() };
    let own = own.checked()?;
    let Some(standing) = client.create(&keys.shape(), &serde_json::to_string(&own)?, None)? else {
        return Ok(own);
    };
    let standing = read(&standing)?;
    match standing == own {
        true => Ok(standing),
        false => {
            let error = anyhow!("network {:?} is another: {}", asked.name, serde_json::to_string(&standing)?);
            Err(hint(error, "leave out --subnet and the flags that go with it"))
        }
    }
}

/// The number of the part in the network's file.
fn part_of(network: &Named, shape: &Shape, address: IpAddr) -> Result<u32> {
    let wanted = network.bridge()?;
    let vxlan = vxlan(&network.name, shape, address);
    let is_it = wanted.subnet == Some(shape.subnet)
        && wanted.subnet6 == shape.subnet6
        && wanted.vxlan.as_ref() == Some(&vxlan);
    let part = wanted.range.and_then(|range| shape.number_of(range)).filter(|_| is_it);
    part.ok_or_else(|| {
        let error = anyhow!("{:?} is about another network, or another address of this host", network.path);
        hint(error, format!("unwind its containers, and network-rm {}", network.name))
    })
}

/// The name of the network's WireGuard link. The network's file may name another bridge than the one that
/// this is derived from.
pub(crate) fn tunnel(network: &str) -> String {
    wireguard::link_name(&named::bridge_of(network))
}

/// The VXLAN of this host.
fn vxlan(network: &str, shape: &Shape, address: IpAddr) -> Vxlan {
    let link = shape.wireguard.then(|| tunnel(network));
    Vxlan { id: shape.vxlan, port: shape.port, local: address, link }
}

/// Refuses the name of a host at another address.
fn refuse_other(client: &Client, keys: &Keys, host: &str, address: IpAddr) -> Result<()> {
    if let Some(other) =
        client.get(&keys.host(host))?.and_then(|text| serde_json::from_str::<ToldHost>(&text).ok())
        && other.address != address
    {
        let error = anyhow!("host {host:?} is at {}, and this one is {address}", other.address);
        return Err(hint(error, "choose another name with --host, or wait until it counts as dead"));
    }
    Ok(())
}

/// Claims a part for this host, unless another host has it. Returns the name of that host.
fn hold(client: &Client, keys: &Keys, host: &str, part: u32, lease: Lease) -> Result<Option<String>> {
    match client.create(&keys.part(part), host, Some(lease))? {
        // This host has had the part before.
        Some(holder) if holder == host => {
            client.put(&keys.part(part), host, Some(lease))?;
            Ok(None)
        }
        holder => Ok(holder),
    }
}

/// Claims a part for this host.
pub(crate) fn take(
    client: &Client,
    keys: &Keys,
    host: &str,
    address: IpAddr,
    part: u32,
    lease: Lease,
) -> Result<()> {
    refuse_other(client, keys, host, address)?;
    let Some(holder) = hold(client, keys, host, part, lease)? else { return Ok(()) };
    let error = anyhow!("part {part} of the subnet is that of host {holder:?}");
    Err(hint(error, "unwind the containers that are on the network here, and network-rm it"))
}

/// The first free part, starting from one that is derived from the host's name.
fn choose(
    client: &Client,
    keys: &Keys,
    host: &str,
    address: IpAddr,
    shape: &Shape,
    lease: Lease,
) -> Result<u32> {
    refuse_other(client, keys, host, address)?;
    let first = shape.first_for(host);
    let values = client.list(keys.all())?.values;
    let holder = |number: u32| values.get(&keys.part(number)).map(String::as_str);
    let all = || (0..shape.parts()).map(|number| (first + number) % shape.parts());
    let own = all().find(|number| holder(*number) == Some(host));
    for number in own.into_iter().chain(all().filter(|number| holder(*number).is_none())) {
        // If another host was faster, the next part is tried.
        if hold(client, keys, host, number, lease)?.is_none() {
            return Ok(number);
        }
    }
    bail!("all {} parts of {} are taken", shape.parts(), shape.subnet)
}

/// Writes the network's file.
fn write(scope: &Scope, name: &str, shape: &Shape, part: u32, address: IpAddr) -> Result<Named> {
    let mut file = File::new(name, "bridge", &named::bridge_of(name));
    let subnets = [Some(shape.subnet.into()), shape.subnet6.map(Into::into)];
    let parts = shape.part(part).into_iter().zip(shape.gateways(part));
    for (subnet, (range, gateway)) in subnets.into_iter().flatten().zip(parts) {
        file.subnets.push(named::subnet(subnet, Gateway::At(gateway), Some(range))?);
    }
    file.ipv6_enabled = shape.subnet6.is_some();
    let Vxlan { id, port, local, link } = vxlan(name, shape, address);
    let options = [
        Some(("vxlan", id.to_string())),
        Some(("vxlan_port", port.to_string())),
        Some(("vxlan_local", local.to_string())),
        link.map(|link| ("vxlan_link", link)),
    ];
    file.options = options.into_iter().flatten().map(|(key, value)| (key.to_owned(), value)).collect();
    file.id = operation::random_name()?;
    let lock = Lock::take(&scope.run_dir, "network")?;
    file.create(&scope.root)?;
    drop(lock);
    Named::find(&scope.root, name)?.ok_or_else(|| anyhow!("network {name:?} was removed in the meantime"))
}

/// Removes what this host has published in etcd.
pub(crate) fn leave(asked: &NetPeers, scope: &Scope) -> Result<()> {
    let host = host(asked)?;
    if let Some(id) = own::containers(scope, &asked.name)?.keys().next() {
        let error = anyhow!("container {id:?} is on network {:?}", asked.name);
        return Err(hint(error, format!("unwind {id}")));
    }
    // A running net-peers would publish everything again.
    let _sole = own::sole(&asked.name)?;
    let (client, keys) = (asked.client()?, Keys::new(&asked.etcd_prefix, &asked.name));
    let values = client.list(keys.all())?.values;
    let containers = keys.containers(&host);
    for (key, _) in below(&values, &containers) {
        client.delete(key)?;
    }
    client.delete(&keys.host(&host))?;
    // This comes last, because another host may claim the part afterwards.
    let prefix = keys.parts();
    for (key, _) in below(&values, &prefix).filter(|(_, holder)| **holder == host) {
        client.delete(key)?;
    }
    let bridge = match Named::find(&scope.root, &asked.name)? {
        Some(network) => network.bridge()?.bridge.clone(),
        None => named::bridge_of(&asked.name),
    };
    let lock = Lock::take(&scope.run_dir, "network")?;
    if Peers::read(&scope.run_dir, &bridge)?.is_some() {
        Peers::default().set_entries(&vxlan_name(&bridge))?;
        Peers::remove(&scope.run_dir, &bridge)?;
    }
    Wireguard::remove(&tunnel(&asked.name))?;
    drop(lock);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{net::TcpListener, time::Duration};

    use etcd::Trust;

    use super::super::gateway::answer;
    use super::*;

    /// The list shows a free part, and another host has it by the time that this one asks for it.
    #[test]
    fn a_part_that_another_host_took_first_is_passed_over() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let client = Client::new(&[url], &Trust::default(), Duration::from_secs(5)).unwrap();
        let shape = Shape {
            subnet: "10.7.0.0/16".parse().unwrap(),
            subnet6: None,
            bits: 8,
            vxlan: 7,
            port: PORT,
            wireguard: false,
        };
        let lost = r#"{"responses":[{"response_range":{"kvs":[{"key":"YQ==","value":"Yg=="}]}}]}"#;
        let answers = [r#"{"ID":"7"}"#, "{}", "{}", lost, r#"{"succeeded":true}"#];
        let (chosen, asked) = std::thread::scope(|scope| {
            let asked = scope.spawn(|| answer(&server, &answers));
            let lease = client.grant(30).unwrap();
            let keys = Keys::new("/stave", "front");
            let chosen = choose(&client, &keys, "a", [192, 0, 2, 1].into(), &shape, lease);
            (chosen, asked.join().unwrap())
        });
        assert_eq!(chosen.unwrap(), (shape.first_for("a") + 1) % shape.parts());
        assert!(asked[3..].iter().all(|line| line.starts_with("POST /v3/kv/txn ")), "{asked:?}");
    }
}
