//! `[hostIP:]hostPort:containerPort[/protocol]`, as `docker run -p` takes it.

use std::{net::Ipv4Addr, ops::RangeInclusive, str::FromStr};

use nat::{Mapping, Protocol};

/// What one `-p` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    host_ip: Option<Ipv4Addr>,
    host: RangeInclusive<u16>,
    container: RangeInclusive<u16>,
    protocol: Protocol,
}

fn port(text: &str) -> Result<u16, String> {
    // "+80" is a number to Rust.
    let number = text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    match number {
        Some(port) if port > 0 => Ok(port),
        _ => Err(format!("{text:?} is not a port: 1 to 65535")),
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("range {text:?} ends before it begins"));
    }
    Ok(first..=last)
}

fn address(text: &str) -> Result<Option<Ipv4Addr>, String> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) if address.is_unspecified() => Ok(None),
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(format!("{text:?} is not an IPv4 address")),
    }
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.parse().map_err(|error: nat::InvalidProtocol| error.to_string())?;
        let (rest, container) =
            ports.rsplit_once(':').ok_or("hostPort:containerPort is the least it takes")?;
        let (host_ip, host) = match rest.rsplit_once(':') {
            Some((ip, host)) => (address(ip)?, host),
            None => (None, rest),
        };
        let (host, container) = (range(host)?, range(container)?);
        if host.len() != container.len() {
            return Err(format!("{} ports of the host for {} of the container", host.len(), container.len()));
        }
        Ok(Self { host_ip, host, container, protocol })
    }
}

impl Publish {
    /// One mapping for each port.
    pub(crate) fn mappings(&self, container_ip: Ipv4Addr) -> impl Iterator<Item = Mapping> {
        let Self { host_ip, protocol, .. } = *self;
        self.host.clone().zip(self.container.clone()).map(move |(host_port, container_port)| Mapping {
            protocol,
            host_ip,
            host_port,
            container_ip,
            container_port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_takes_it() {
        for (text, parsed) in [
            ("10080:80", "tcp *:10080 80"),
            ("127.0.0.1:10080:80/tcp", "tcp 127.0.0.1:10080 80"),
            ("0.0.0.0:53:5353/udp", "udp *:53 5353"),
            ("7:7/sctp", "sctp *:7 7"),
            ("8000-8002:80-82", "tcp *:8000 80, tcp *:8001 81, tcp *:8002 82"),
            ("65535:65535", "tcp *:65535 65535"),
            ("80", "hostPort:containerPort is the least it takes"),
            ("", "hostPort:containerPort is the least it takes"),
            (":80", "\"\" is not a port: 1 to 65535"),
            ("0:80", "\"0\" is not a port: 1 to 65535"),
            ("80:0", "\"0\" is not a port: 1 to 65535"),
            ("65536:80", "\"65536\" is not a port: 1 to 65535"),
            ("+80:80", "\"+80\" is not a port: 1 to 65535"),
            ("-1:80", "\"\" is not a port: 1 to 65535"),
            ("80:x", "\"x\" is not a port: 1 to 65535"),
            ("localhost:80:80", "\"localhost\" is not an IPv4 address"),
            ("[::1]:80:80", "\"[::1]\" is not an IPv4 address"),
            ("80:80/icmp", "\"icmp\" is not tcp, udp or sctp"),
            ("80:80/", "\"\" is not tcp, udp or sctp"),
            ("8000-8002:80", "3 ports of the host for 1 of the container"),
            ("8002-8000:80-82", "range \"8002-8000\" ends before it begins"),
        ] {
            let shown = match text.parse::<Publish>() {
                Err(error) => error,
                Ok(publish) => publish
                    .mappings([172, 17, 0, 2].into())
                    .map(|mapping| {
                        let ip = mapping.host_ip.map_or("*".into(), |ip| ip.to_string());
                        format!("{} {ip}:{} {}", mapping.protocol, mapping.host_port, mapping.container_port)
                    })
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            assert_eq!(shown, parsed, "{text}");
        }
    }
}
