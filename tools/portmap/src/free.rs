//! Which ports of the host are free.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    net::Ipv4Addr,
};

use anyhow::{Context as _, Result, anyhow, bail};
use hold::{Port, Reserved};
use nat::{Mapping, Protocol};
use toolkit::hint;

use crate::publish::Publish;

/// Chooses what is published, for each of `publish`. Given ports come first, so that no chosen port takes their place.
///
/// # Errors
/// When a given port is taken or given twice, and when no port is left to choose.
pub(crate) fn mappings(publish: &[Publish], container_ip: Ipv4Addr) -> Result<Vec<Vec<Mapping>>> {
    let any = if publish.iter().any(Publish::is_any) { given_out()? } else { Vec::new() };
    let mut chosen: Vec<Vec<Mapping>> = vec![Vec::new(); publish.len()];
    for (at, fixed) in publish.iter().enumerate().filter(|(_, publish)| publish.is_fixed()) {
        chosen[at] = fixed.candidates(container_ip, &any).flatten().collect();
    }
    let told: Vec<Mapping> = chosen.concat();
    let mut used = Used::default();
    for mapping in &told {
        if !used.insert(mapping) {
            bail!("host port {} is given twice", shown(mapping));
        }
    }
    refuse_taken(&told)?;
    if publish.iter().all(Publish::is_fixed) {
        return Ok(chosen);
    }
    let reserved = Reserved::read().context("read net.ipv4.ip_local_reserved_ports")?;
    for (at, open) in publish.iter().enumerate().filter(|(_, publish)| !publish.is_fixed()) {
        for candidates in open.candidates(container_ip, &any) {
            chosen[at].push(first_free(candidates, &mut used, open.is_any().then_some(&reserved))?);
        }
    }
    Ok(chosen)
}

/// Leaves out what somebody has `reserved` in the kernel.
fn first_free(
    candidates: impl Iterator<Item = Mapping>,
    used: &mut Used,
    reserved: Option<&Reserved>,
) -> Result<Mapping> {
    let mut tried = 0;
    for mapping in candidates {
        tried += 1;
        if !used.has(&mapping)
            && !reserved.is_some_and(|reserved| reserved.has(mapping.host_port))
            && nat::taken(std::slice::from_ref(&mapping))?.is_none()
            && !is_listening(&mapping)?
        {
            used.insert(&mapping);
            return Ok(mapping);
        }
    }
    Err(hint(anyhow!("all {tried} host ports to choose from are taken"), "choose another host port"))
}

/// The ports that the kernel hands out (ip(7), ip_local_port_range), which Docker uses as well. The search does not
/// start at the first one, so that another container does not get a port that has just been freed.
fn given_out() -> Result<Vec<u16>> {
    let range = hold::chosen_from().context("read net.ipv4.ip_local_port_range")?;
    let mut ports: Vec<u16> = range.collect();
    let drawn = RandomState::new().hash_one(std::process::id());
    let start = usize::try_from(drawn).unwrap_or_default().checked_rem(ports.len()).unwrap_or_default();
    ports.rotate_left(start);
    Ok(ports)
}

fn shown(mapping: &Mapping) -> Port {
    Port::new(mapping.protocol, mapping.host_ip, mapping.host_port)
}

/// The ports that one command line uses so far. A port on all addresses is not free on a single one.
#[derive(Debug, Default)]
struct Used {
    on_all: HashSet<(Protocol, u16)>,
    on_one: HashSet<(Ipv4Addr, Protocol, u16)>,
    anywhere: HashSet<(Protocol, u16)>,
}

impl Used {
    fn has(&self, mapping: &Mapping) -> bool {
        let (protocol, port) = (mapping.protocol, mapping.host_port);
        match mapping.host_ip {
            None => self.anywhere.contains(&(protocol, port)),
            Some(ip) => {
                self.on_all.contains(&(protocol, port)) || self.on_one.contains(&(ip, protocol, port))
            }
        }
    }

    /// False if it is used already.
    fn insert(&mut self, mapping: &Mapping) -> bool {
        let (protocol, port) = (mapping.protocol, mapping.host_port);
        let is_new = !self.has(mapping);
        self.anywhere.insert((protocol, port));
        match mapping.host_ip {
            None => self.on_all.insert((protocol, port)),
            Some(ip) => self.on_one.insert((ip, protocol, port)),
        };
        is_new
    }
}

/// Rejects a port that another container has, or a process of the host.
fn refuse_taken(mappings: &[Mapping]) -> Result<()> {
    if let Some((mapping, holder)) = nat::taken(mappings)? {
        let by = holder
            .map_or_else(|| "on one of the host's addresses".into(), |id| format!("by container {id:?}"));
        return Err(hint(anyhow!("host port {} is taken {by}", shown(mapping)), "choose another host port"));
    }
    for mapping in mappings {
        if is_listening(mapping)? {
            let error = anyhow!("host port {} is taken by a process of the host", shown(mapping));
            return Err(hint(error, "choose another host port"));
        }
    }
    Ok(())
}

/// Whether a process of the host has the port.
fn is_listening(mapping: &Mapping) -> Result<bool> {
    let port = shown(mapping);
    hold::is_bound(port).with_context(|| format!("publish on {port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_given_twice() {
        let mapping = |ip: Option<[u8; 4]>, host_port, protocol| Mapping {
            protocol,
            host_ip: ip.map(Ipv4Addr::from),
            host_port,
            container_ip: [172, 17, 0, 2].into(),
            container_port: 80,
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
