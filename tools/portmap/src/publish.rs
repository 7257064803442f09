//! `[[hostIP:][hostPort]:]containerPort[/protocol]`, as in `docker run -p`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use nat::{Mapping, OpenPort, Protocol};

/// The value of a `-p`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    host_ip: Option<IpAddr>,
    host: Host,
    container: RangeInclusive<u16>,
    protocol: Protocol,
    /// How many container ports the same `-p` or exposed range publishes.
    together: usize,
}

/// The host's ports of a `-p`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// One for each container port, in order.
    Ports(RangeInclusive<u16>),
    /// A range to choose from for the only container port.
    OneOf(RangeInclusive<u16>),
    /// Any port that the kernel chooses from.
    Any,
}

fn port(text: &str) -> Result<u16, String> {
    // Rust also accepts "+80" as a number.
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

/// Parses an address. An IPv6 address is in brackets.
fn address(text: &str) -> Result<IpAddr, String> {
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match inside {
        Some(inside) => inside.parse::<Ipv6Addr>().map(IpAddr::from),
        None => text.parse::<Ipv4Addr>().map(IpAddr::from),
    };
    match address {
        Ok(address) => Ok(address),
        Err(_) => Err(format!("{text:?} is not an IP address (IPv6 in brackets)")),
    }
}

/// The container's addresses to which ports lead, at most one of each IP version.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Container {
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

impl Container {
    pub(crate) fn each(self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::from).into_iter().chain(self.v6.map(IpAddr::from))
    }
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.parse().map_err(|error: nat::InvalidProtocol| error.to_string())?;
        let (rest, container) = ports.rsplit_once(':').unwrap_or(("", ports));
        let (host_ip, host) = match rest.rsplit_once(':') {
            Some((ip, host)) => (Some(address(ip)?), host),
            None => (None, rest),
        };
        let container = range(container)?;
        let host = match host {
            "" | "0" => Host::Any,
            host => of_host(range(host)?, container.len())?,
        };
        let together = container.len();
        Ok(Self { host_ip, host, container, protocol, together })
    }
}

fn of_host(host: RangeInclusive<u16>, wanted: usize) -> Result<Host, String> {
    match (host.len(), wanted) {
        (has, wanted) if has == wanted => Ok(Host::Ports(host)),
        (_, 1) => Ok(Host::OneOf(host)),
        (has, wanted) => Err(format!("{has} host ports for {wanted} container ports")),
    }
}

impl Publish {
    /// The pairs of a host address and a container address that the ports connect. A host address of None
    /// means all addresses of that IP version.
    pub(crate) fn ways(&self, container: Container) -> Vec<(Option<IpAddr>, IpAddr)> {
        let fits = |ip: &IpAddr| self.host_ip.is_none_or(|host| host.is_ipv4() == ip.is_ipv4());
        let host = self.host_ip.filter(|host| !host.is_unspecified());
        container.each().filter(fits).map(|ip| (host, ip)).collect()
    }

    /// For each container port, the mappings to try in order, with one mapping for each IP version. If the
    /// host port is given, there is only one candidate. Otherwise the ports come from `any`.
    pub(crate) fn candidates<'a>(
        &'a self,
        container: Container,
        any: &'a [u16],
    ) -> impl Iterator<Item = impl Iterator<Item = Vec<Mapping>> + 'a> + 'a {
        let protocol = self.protocol;
        let ways = self.ways(container);
        self.container.clone().enumerate().map(move |(at, container_port)| {
            let (ports, any): (_, &[u16]) = match &self.host {
                Host::Ports(ports) => (ports.clone().nth(at).map(|port| port..=port), &[]),
                Host::OneOf(ports) => (Some(ports.clone()), &[]),
                Host::Any => (None, any),
            };
            let ports = ports.into_iter().flatten().chain(any.iter().copied());
            let ways = ways.clone();
            ports.map(move |host_port| {
                let one = |(host_ip, container_ip): &(Option<IpAddr>, IpAddr)| {
                    let (host_ip, container_ip) = (*host_ip, *container_ip);
                    Mapping { protocol, host_ip, host_port, container_ip, container_port, count: 1 }
                };
                ways.iter().map(one).collect()
            })
        })
    }

    /// All ports as one mapping for each IP version, if there are more than `many`, with the same numbers on
    /// both sides.
    pub(crate) fn run(&self, container: Container, many: usize) -> Option<Vec<Mapping>> {
        let count = u16::try_from(self.container.len()).ok()?;
        let is_run = self.host == Host::Ports(self.container.clone()) && self.container.len() > many;
        let (protocol, first) = (self.protocol, *self.container.start());
        let one = |(host_ip, container_ip)| Mapping {
            protocol,
            host_ip,
            host_port: first,
            container_ip,
            container_port: first,
            count,
        };
        is_run.then(|| self.ways(container).into_iter().map(one).collect())
    }

    /// The container's ports, such as `80/tcp`.
    pub(crate) fn container_ports(&self) -> impl Iterator<Item = String> {
        let protocol = self.protocol;
        self.container.clone().map(move |port| format!("{port}/{protocol}"))
    }

    /// The container's ports one by one, each on any port of the host.
    pub(crate) fn each(&self) -> impl Iterator<Item = (u16, Self)> {
        let Self { host_ip, protocol, together, .. } = *self;
        let one = move |port| Self { host_ip, host: Host::Any, container: port..=port, protocol, together };
        self.container.clone().map(move |port| (port, one(port)))
    }

    /// Whether any port of the host may be chosen.
    pub(crate) fn is_any(&self) -> bool {
        self.host == Host::Any
    }

    /// How many container ports the same `-p` or exposed range publishes.
    pub(crate) fn together(&self) -> usize {
        self.together
    }

    /// The host's address, if only one was given.
    pub(crate) fn host_ip(&self) -> Option<IpAddr> {
        self.host_ip
    }

    /// The container's ports, as ports that are open on its own addresses.
    pub(crate) fn open(&self, container: Container) -> impl Iterator<Item = OpenPort> {
        let protocol = self.protocol;
        let on = move |container_ip| {
            self.container.clone().map(move |container_port| OpenPort {
                protocol,
                container_ip,
                container_port,
            })
        };
        container.each().flat_map(on)
    }

    /// Whether the host's ports are given, so that none has to be chosen.
    pub(crate) fn is_fixed(&self) -> bool {
        matches!(self.host, Host::Ports(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_takes_it() {
        let container = Container { v4: Some([172, 17, 0, 2].into()), v6: "fd00::2".parse().ok() };
        for (text, parsed) in [
            ("10080:80", "tcp *:10080 80"),
            ("127.0.0.1:10080:80/tcp", "tcp 127.0.0.1:10080 80"),
            ("0.0.0.0:53:5353/udp", "udp *:53 5353"),
            ("[::]:53:5353/udp", "udp *:53 5353 of fd00::2"),
            ("[fd00:9::1]:53:5353/udp", "udp fd00:9::1:53 5353 of fd00::2"),
            ("7:7/sctp", "sctp *:7 7"),
            ("8000-8002:80-82", "tcp *:8000 80, tcp *:8001 81, tcp *:8002 82"),
            ("65535:65535", "tcp *:65535 65535"),
            ("80", "tcp *:40000 80 or tcp *:40001 80"),
            (":80", "tcp *:40000 80 or tcp *:40001 80"),
            ("0:80/udp", "udp *:40000 80 or udp *:40001 80"),
            ("127.0.0.1::80", "tcp 127.0.0.1:40000 80 or tcp 127.0.0.1:40001 80"),
            ("80-81", "tcp *:40000 80 or tcp *:40001 80, tcp *:40000 81 or tcp *:40001 81"),
            ("8000-8002:80", "tcp *:8000 80 or tcp *:8001 80 or tcp *:8002 80"),
            ("", "\"\" is not a port: 1 to 65535"),
            ("80:", "\"\" is not a port: 1 to 65535"),
            ("80:0", "\"0\" is not a port: 1 to 65535"),
            ("65536:80", "\"65536\" is not a port: 1 to 65535"),
            ("+80:80", "\"+80\" is not a port: 1 to 65535"),
            ("-1:80", "\"\" is not a port: 1 to 65535"),
            ("80:x", "\"x\" is not a port: 1 to 65535"),
            ("localhost:80:80", "\"localhost\" is not an IP address (IPv6 in brackets)"),
            ("fd00::1:80:80", "\"fd00::1\" is not an IP address (IPv6 in brackets)"),
            ("[::1]:80:80", "tcp ::1:80 80 of fd00::2"),
            ("80:80/icmp", "\"icmp\" is not tcp, udp or sctp"),
            ("80:80/", "\"\" is not tcp, udp or sctp"),
            ("8000-8002:80-81", "3 host ports for 2 container ports"),
            ("8002-8000:80-82", "range \"8002-8000\" ends before it begins"),
        ] {
            let shown = match text.parse::<Publish>() {
                Err(error) => error,
                Ok(publish) => {
                    let one = |mappings: Vec<Mapping>| {
                        let mapping = &mappings[0];
                        let ip = mapping.host_ip.map_or("*".into(), |ip| ip.to_string());
                        let of = match mapping.container_ip {
                            IpAddr::V4(_) => String::new(),
                            IpAddr::V6(ip) => format!(" of {ip}"),
                        };
                        let (protocol, port) = (mapping.protocol, mapping.container_port);
                        format!("{protocol} {ip}:{} {port}{of}", mapping.host_port)
                    };
                    let of_port = |list: Vec<String>| list.join(" or ");
                    let ports = publish
                        .candidates(container, &[40_000, 40_001])
                        .map(|candidates| of_port(candidates.map(one).collect()));
                    ports.collect::<Vec<_>>().join(", ")
                }
            };
            assert_eq!(shown, parsed, "{text}");
        }
    }
}
