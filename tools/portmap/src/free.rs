//! Finds free ports of the host.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
};

use anyhow::{Context as _, Result, anyhow, bail};
use hold::{Port, Reserved};
use nat::{Mapping, Protocol, Published};
use toolkit::hint;

use super::publish::{Container, Publish};

/// Chooses the mappings for each of `publish`. Given host ports come first, so that no chosen port takes
/// their place. With `is_exclusive`, no process of the host may listen on a given port.
///
/// # Errors
/// If a given port is taken or given twice, or no port is left to choose.
pub(crate) fn mappings(
    publish: &[Publish],
    container: Container,
    is_exclusive: bool,
) -> Result<Vec<Vec<Mapping>>> {
    if let Some(address) =
        publish.iter().filter(|one| one.ways(container).is_empty()).find_map(Publish::host_ip)
    {
        let version = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        bail!("publish on {address}: the container has no {version} address");
    }
    let any = if publish.iter().any(Publish::is_any) { given_out()? } else { Vec::new() };
    let mut chosen: Vec<Vec<Mapping>> = vec![Vec::new(); publish.len()];
    for (at, fixed) in publish.iter().enumerate().filter(|(_, publish)| publish.is_fixed()) {
        chosen[at] = fixed
            .run(container, super::HELD)
            .unwrap_or_else(|| fixed.candidates(container, &any).flatten().flatten().collect());
    }
    let told: Vec<Mapping> = chosen.concat();
    let mut used = Used::default();
    for mapping in &told {
        if !used.insert(mapping) {
            bail!("host port {} is given twice", of_host(mapping));
        }
    }
    let runs = nat::runs()?;
    refuse_taken(&told, &runs, is_exclusive)?;
    if publish.iter().all(Publish::is_fixed) {
        return Ok(chosen);
    }
    let reserved = Reserved::read().context("read net.ipv4.ip_local_reserved_ports")?;
    for (at, open) in publish.iter().enumerate().filter(|(_, publish)| !publish.is_fixed()) {
        for candidates in open.candidates(container, &any) {
            let reserved = open.is_any().then_some(&reserved);
            chosen[at].extend(first_free(candidates, &mut used, reserved, &runs)?);
        }
    }
    Ok(chosen)
}

/// The first candidate that is free, and not `reserved` in the kernel by another program.
fn first_free(
    candidates: impl Iterator<Item = Vec<Mapping>>,
    used: &mut Used,
    reserved: Option<&Reserved>,
    runs: &[Published],
) -> Result<Vec<Mapping>> {
    let mut tried = 0;
    for mappings in candidates {
        tried += 1;
        let is_left_out = |mapping: &Mapping| {
            used.has(mapping) || reserved.is_some_and(|reserved| reserved.has(mapping.host_port))
        };
        if !mappings.iter().any(is_left_out)
            && nat::taken(&mappings, runs)?.is_none()
            && !mappings.iter().map(is_listening).collect::<Result<Vec<_>>>()?.contains(&true)
        {
            for mapping in &mappings {
                used.insert(mapping);
            }
            return Ok(mappings);
        }
    }
    Err(hint(anyhow!("all {tried} host ports to choose from are taken"), "choose another host port"))
}

/// The ports that the kernel chooses from (ip(7), ip_local_port_range), as Docker does. The search starts at
/// a random port, so that another container does not get a port that was just freed.
fn given_out() -> Result<Vec<u16>> {
    let range = hold::chosen_from().context("read net.ipv4.ip_local_port_range")?;
    let mut ports: Vec<u16> = range.collect();
    let drawn = RandomState::new().hash_one(std::process::id());
    let start = usize::try_from(drawn).unwrap_or_default().checked_rem(ports.len()).unwrap_or_default();
    ports.rotate_left(start);
    Ok(ports)
}

/// The host's port of a mapping.
fn of_host(mapping: &Mapping) -> Port {
    let all = mapping.container_ip.is_ipv6().then(|| Ipv6Addr::UNSPECIFIED.into());
    Port::new(mapping.protocol, mapping.host_ip.or(all), mapping.host_port)
}

/// The host ports of one command line so far. A port on all addresses is not free on a single address.
#[derive(Debug, Default)]
struct Used {
    on_all: HashSet<(bool, Protocol, u16)>,
    on_one: HashSet<(IpAddr, Protocol, u16)>,
    /// The ports on any address. The flag means IPv4.
    anywhere: HashSet<(bool, Protocol, u16)>,
}

impl Used {
    fn has(&self, mapping: &Mapping) -> bool {
        let (v4, protocol, port) = (mapping.container_ip.is_ipv4(), mapping.protocol, mapping.host_port);
        match mapping.host_ip {
            None => self.anywhere.contains(&(v4, protocol, port)),
            Some(ip) => {
                self.on_all.contains(&(v4, protocol, port)) || self.on_one.contains(&(ip, protocol, port))
            }
        }
    }

    /// Adds the ports of a mapping. False if one of them was already used.
    fn insert(&mut self, mapping: &Mapping) -> bool {
        mapping.each().all(|one| self.insert_one(&one))
    }

    fn insert_one(&mut self, mapping: &Mapping) -> bool {
        let (v4, protocol, port) = (mapping.container_ip.is_ipv4(), mapping.protocol, mapping.host_port);
        let is_new = !self.has(mapping);
        self.anywhere.insert((v4, protocol, port));
        match mapping.host_ip {
            None => self.on_all.insert((v4, protocol, port)),
            Some(ip) => self.on_one.insert((ip, protocol, port)),
        };
        is_new
    }
}

/// Rejects a port that another container has, and, if it is to be exclusive, one that a process of the host has.
fn refuse_taken(mappings: &[Mapping], runs: &[Published], is_exclusive: bool) -> Result<()> {
    if let Some((mapping, holder)) = nat::taken(mappings, runs)? {
        let by = holder
            .map_or_else(|| "on one of the host's addresses".into(), |id| format!("by container {id:?}"));
        return Err(hint(
            anyhow!("host port {} is taken {by}", of_host(mapping)),
            "choose another host port",
        ));
    }
    for mapping in mappings.iter().filter(|_| is_exclusive).flat_map(in_question) {
        if is_listening(&mapping)? {
            let error = anyhow!("host port {} is taken by a process of the host", of_host(&mapping));
            return Err(hint(error, "choose another host port"));
        }
    }
    Ok(())
}

/// The ports that a process may have. In a range, only ports that the kernel lists as used are checked,
/// because checking each port takes long.
fn in_question(mapping: &Mapping) -> Vec<Mapping> {
    let listed = if mapping.count > 1 { hold::listed(mapping.protocol) } else { None };
    mapping
        .each()
        .filter(|one| listed.as_ref().is_none_or(|listed| listed.contains(&one.host_port)))
        .collect()
}

/// Whether a process of the host has the port.
fn is_listening(mapping: &Mapping) -> Result<bool> {
    let port = of_host(mapping);
    hold::is_bound(port).with_context(|| format!("publish on {port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_given_twice() {
        let mapping = |ip: Option<[u8; 4]>, host_port, protocol| Mapping {
            protocol,
            host_ip: ip.map(IpAddr::from),
            host_port,
            container_ip: [172, 17, 0, 2].into(),
            container_port: 80,
            count: 1,
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let local = Some([127, 0, 0, 1]);
        for (mappings, free) in [
            ([mapping(None, 80, tcp), mapping(None, 80, udp)], true),
            ([mapping(None, 80, tcp), mapping(None, 81, tcp)], true),
            ([mapping(local, 80, tcp), mapping(Some([10, 0, 0, 1]), 80, tcp)], true),
            ([mapping(None, 80, tcp), mapping(None, 80, tcp)], false),
            ([mapping(local, 80, tcp), mapping(local, 80, tcp)], false),
            ([mapping(None, 80, tcp), mapping(local, 80, tcp)], false),
            ([mapping(local, 80, tcp), mapping(None, 80, tcp)], false),
        ] {
            let mut used = Used::default();
            assert!(used.insert(&mappings[0]));
            assert_eq!(used.insert(&mappings[1]), free, "{mappings:?}");
        }
    }
}
