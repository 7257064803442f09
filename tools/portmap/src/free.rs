//! Whether ports of the host are free.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nat::{Mapping, Protocol};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt},
};
use toolkit::hint;

/// Under its address where it has one: `127.0.0.1:80/tcp`.
fn shown(mapping: &Mapping) -> String {
    let address = mapping.host_ip.map(|ip| format!("{ip}:")).unwrap_or_default();
    format!("{address}{}/{}", mapping.host_port, mapping.protocol)
}

/// The same port twice on one command line.
pub(crate) fn refuse_repetition(mappings: &[Mapping]) -> Result<()> {
    let mut on_all = HashSet::new();
    let mut on_one = HashSet::new();
    let mut ports = HashSet::new();
    for mapping in mappings {
        let port = (mapping.protocol, mapping.host_port);
        let clash = match mapping.host_ip {
            None => !on_all.insert(port) || ports.contains(&port),
            Some(ip) => !on_one.insert((ip, port)) || on_all.contains(&port),
        };
        if clash {
            bail!("host port {} is given twice", shown(mapping));
        }
        ports.insert(port);
    }
    Ok(())
}

/// A port that another container has, or a process of the host.
pub(crate) fn refuse_taken(mappings: &[Mapping]) -> Result<()> {
    if let Some((mapping, holder)) = nat::taken(mappings)? {
        let by = holder
            .map_or_else(|| "on one of the host's addresses".into(), |id| format!("by container {id:?}"));
        return Err(hint(anyhow!("host port {} is taken {by}", shown(mapping)), "choose another host port"));
    }
    mappings.iter().try_for_each(refuse_listening)
}

/// Binds the port, only to see that nobody has.
fn refuse_listening(mapping: &Mapping) -> Result<()> {
    let (kind, protocol) = match mapping.protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = match socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, Some(protocol)) {
        // A kernel without SCTP sockets passes it on all the same, and nobody here can listen to it.
        Err(Errno::PROTONOSUPPORT) => return Ok(()),
        socket => socket.with_context(|| format!("look for host port {}", shown(mapping)))?,
    };
    if mapping.protocol == Protocol::Tcp {
        // A connection that lingers after its server ended is no server.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    let address = SocketAddrV4::new(mapping.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED), mapping.host_port);
    match bind(&socket, &address) {
        Ok(()) => Ok(()),
        Err(Errno::ADDRINUSE) => {
            let error = anyhow!("host port {} is taken by a process of the host", shown(mapping));
            Err(hint(error, "choose another host port"))
        }
        Err(error) => Err(error).with_context(|| format!("publish on {}", shown(mapping))),
    }
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
        for (mappings, error) in [
            ([mapping(None, 80, tcp), mapping(None, 80, udp)], ""),
            ([mapping(None, 80, tcp), mapping(None, 81, tcp)], ""),
            ([mapping(local, 80, tcp), mapping(Some([10, 0, 0, 1]), 80, tcp)], ""),
            ([mapping(None, 80, tcp), mapping(None, 80, tcp)], "host port 80/tcp is given twice"),
            ([mapping(local, 80, tcp), mapping(local, 80, tcp)], "host port 127.0.0.1:80/tcp is given twice"),
            ([mapping(None, 80, tcp), mapping(local, 80, tcp)], "host port 127.0.0.1:80/tcp is given twice"),
            ([mapping(local, 80, tcp), mapping(None, 80, tcp)], "host port 80/tcp is given twice"),
        ] {
            let found = refuse_repetition(&mappings).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(found, error);
        }
    }
}
