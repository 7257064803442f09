//! Operations as `ip` and `bridge` command lines.

use std::path::Path;

use ipnet::IpNet;
use operation::words;

use crate::{LinkOperation, PROTOCOL, apply::LOOPBACK_METRIC, child_name, guard, mark, sysctl};

/// The name of the namespace in `ip netns`, or its path.
fn name_of(namespace: &Path) -> String {
    namespace.strip_prefix("/run/netns").unwrap_or(namespace).to_string_lossy().into_owned()
}

/// An `ip` command, run in a namespace.
fn ip(namespace: Option<&Path>) -> Vec<String> {
    match namespace {
        None => vec!["ip".into()],
        Some(path) if path.starts_with("/run/netns") => vec!["ip".into(), "-n".into(), name_of(path)],
        Some(path) => vec!["nsenter".into(), format!("--net={}", path.display()), "ip".into()],
    }
}

/// The command line of `ip` with these words.
fn line(namespace: Option<&Path>, rest: &[&str]) -> String {
    words(ip(namespace).into_iter().chain(rest.iter().map(|word| (*word).to_owned())))
}

/// Like [`line`], for a route that may have a metric.
fn with_metric(namespace: Option<&Path>, route: &[&str], metric: Option<u32>) -> String {
    let metric = metric.map(|metric| metric.to_string());
    let metric: Vec<&str> = metric.iter().flat_map(|metric| ["metric", metric.as_str()]).collect();
    line(namespace, &[route, &metric].concat())
}

/// The `sysctl` command that enables IPv6 on a link.
fn ipv6_on(namespace: Option<&Path>, link: &str) -> String {
    let variable = |name| format!("{}=0", sysctl::Conf::of_ipv6(link, name).name());
    let set = words(["sysctl".to_owned(), "-w".to_owned()].into_iter().chain(sysctl::OFF.map(variable)));
    match namespace {
        None => set,
        Some(path) => format!("{} {set}", words(["nsenter", &format!("--net={}", path.display())])),
    }
}

impl LinkOperation {
    /// The command lines that have the effect of this operation.
    pub(crate) fn commands(&self) -> Vec<String> {
        if let Self::GuardLoopback { link, .. } = self {
            return guard::commands(link);
        }
        if let Self::ChildAdd { .. } | Self::VlanAdd { .. } = self {
            return self.made_and_named();
        }
        let alias = match self {
            Self::BridgeAdd { name, .. } | Self::VxlanAdd { name, .. } => {
                Some((name, mark::shared().to_owned()))
            }
            Self::VethAdd { name, mark: Some(mark), .. } => Some((name, mark.alias())),
            _ => None,
        };
        let named = alias.map(|(name, alias)| words(["ip", "link", "set", name, "alias", &alias]));
        [Some(self.command()), named].into_iter().flatten().collect()
    }

    /// The commands that make a link under its first name, and then name it.
    fn made_and_named(&self) -> Vec<String> {
        let (made, namespace, first, name, alias) = match self {
            Self::ChildAdd { parent, child, mtu, peer, mark } => {
                let (first, namespace) = (child_name(mark.id(), &peer.name), name_of(&peer.namespace));
                let address =
                    if child.has_own_mac() { format!(" address {}", peer.mac) } else { String::new() };
                let made = format!(
                    "ip link add {first} link {parent} netns {namespace}{address} mtu {mtu} type {child}"
                );
                (made, Some(peer.namespace.as_path()), first, &peer.name, mark.alias())
            }
            Self::VlanAdd { name, parent, id } => {
                let first = child_name("", name);
                let made = format!("ip link add {first} link {parent} type vlan id {id}");
                (made, None, first, name, mark::shared().to_owned())
            }
            _ => return Vec::new(),
        };
        let named = ["link", "set", &first, "name", name, "alias", &alias].map(str::to_owned);
        vec![made, words(ip(namespace).into_iter().chain(named))]
    }

    fn command(&self) -> String {
        match self {
            Self::BridgeAdd { .. } | Self::VethAdd { .. } | Self::VxlanAdd { .. } => self.link_added(),
            Self::ChildAdd { .. } | Self::VlanAdd { .. } => self.made_and_named().concat(),
            Self::AddressAdd { .. }
            | Self::RouteAdd { .. }
            | Self::RouteRefuse { .. }
            | Self::LoopbackIpv6 { .. }
            | Self::NdpProxy { .. } => self.address_or_route_added(),
            Self::Ipv6Off { namespace, link, .. } => {
                let set = format!("{}=1", sysctl::Conf::disable_ipv6(link).name());
                let enter = namespace.iter().map(|path| format!("--net={}", path.display()));
                let enter = enter.flat_map(|enter| ["nsenter".to_owned(), enter]);
                words(enter.chain(["sysctl".to_owned(), "-w".to_owned(), set]))
            }
            Self::Ipv6On { namespace, link, .. } => ipv6_on(namespace.as_deref(), link),
            Self::Hairpin { link, .. } => words(["bridge", "link", "set", "dev", link, "hairpin", "on"]),
            Self::Isolate { link, .. } => words(["bridge", "link", "set", "dev", link, "isolated", "on"]),
            Self::GuardLoopback { link, .. } => guard::commands(link).concat(),
            Self::Announce { namespace, link, address, .. } => {
                let enter = format!("--net={}", namespace.display());
                let address = address.to_string();
                match address.contains(':') {
                    false => words(["nsenter", &enter, "arping", "-U", "-c", "1", "-I", link, &address]),
                    true => words(["nsenter", &enter, "ndsend", &address, link]),
                }
            }
            Self::LinkUp { namespace, link, .. } => line(namespace.as_deref(), &["link", "set", link, "up"]),
        }
    }

    /// The command that makes a link under its own name.
    fn link_added(&self) -> String {
        match self {
            Self::BridgeAdd { name, mac, .. } => {
                line(None, &["link", "add", name, "address", &mac.to_string(), "type", "bridge"])
            }
            Self::VethAdd { name, mac, master, mtu, peer, .. } => {
                let (mac, mtu, peer_mac) = (mac.to_string(), mtu.to_string(), peer.mac.to_string());
                let here = ["link", "add", name, "address", &mac, "mtu", &mtu, "master", master];
                let namespace = name_of(&peer.namespace);
                let there = ["peer", "name", &peer.name, "address", &peer_mac, "mtu", &mtu];
                line(None, &[&here[..], &["type", "veth"], &there, &["netns", &namespace]].concat())
            }
            Self::VxlanAdd { name, mac, id, port, local, by, master, mtu } => {
                let by = by.as_ref().map(|by| format!(" dev {by}")).unwrap_or_default();
                let link =
                    format!("link add {name} address {mac} mtu {mtu} master {master} type vxlan id {id}");
                let link = format!("{link} dstport {port} local {local} nolearning proxy{by}");
                line(None, &link.split(' ').collect::<Vec<_>>())
            }
            _ => String::new(),
        }
    }

    /// The command that adds an address, a route or a proxy to a link.
    fn address_or_route_added(&self) -> String {
        match self {
            // Leaves out the protocol that marks the address: `ip` has an option for it only since
            // iproute2 6.3.
            Self::AddressAdd { namespace, link, address: address @ IpNet::V6(_), .. } => {
                line(namespace.as_deref(), &["address", "add", &address.to_string(), "nodad", "dev", link])
            }
            Self::AddressAdd { namespace, link, address, .. } => line(
                namespace.as_deref(),
                &["address", "add", &address.to_string(), "broadcast", "+", "dev", link],
            ),
            Self::RouteRefuse { namespace, destination, kind, metric } => {
                let (destination, by) = (destination.to_string(), PROTOCOL.to_string());
                let route = ["route", "add", kind.name(), &destination, "proto", &by];
                with_metric(Some(namespace), &route, *metric)
            }
            Self::RouteAdd { namespace, destination, gateway, link, metric, protocol, .. } => {
                let destination = match destination.prefix_len() {
                    0 => "default".to_owned(),
                    _ => destination.to_string(),
                };
                let gateway = gateway.to_string();
                let protocol = protocol.map_or_else(|| "static".to_owned(), |by| by.to_string());
                let route = ["route", "add", &destination, "via", &gateway, "dev", link, "proto", &protocol];
                with_metric(namespace.as_deref(), &route, *metric)
            }
            Self::LoopbackIpv6 { link, .. } => {
                let (metric, by) = (LOOPBACK_METRIC.to_string(), PROTOCOL.to_string());
                let route = ["-6", "route", "add", "local", "::1", "dev", link, "table", "local"];
                line(None, &[&route[..], &["metric", &metric, "proto", &by]].concat())
            }
            Self::NdpProxy { link, address } => {
                let (address, by) = (address.to_string(), PROTOCOL.to_string());
                line(None, &["-6", "neighbour", "add", "proxy", &address, "dev", link, "protocol", &by])
            }
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{LinkOperation, Mac, Mark, PROTOCOL, Peer, Rejection};

    fn examples(namespace: &str) -> [LinkOperation; 11] {
        let mac = |last| Mac([2, 0, 0, 0, 0, last]);
        let [link, peer] = ["v3fa1", "eth0"].map(str::to_owned);
        [
            LinkOperation::BridgeAdd { name: "stave0".into(), mac: mac(1), mark: None },
            LinkOperation::VethAdd {
                name: link.clone(),
                mac: mac(2),
                master: "stave0".into(),
                mtu: 1500,
                peer: Peer { name: peer.clone(), mac: mac(3), namespace: namespace.into() },
                mark: Some(Mark::new("web", Some("0123456789abcdef"))),
            },
            LinkOperation::VxlanAdd {
                name: "x0123456789".into(),
                mac: mac(4),
                id: 42,
                port: 4789,
                local: [192, 0, 2, 1].into(),
                by: None,
                master: "front".into(),
                mtu: 1450,
            },
            LinkOperation::Ipv6Off { namespace: None, link: link.clone(), mac: mac(2) },
            LinkOperation::Hairpin { link: link.clone(), mac: mac(2) },
            LinkOperation::Isolate { link: link.clone(), mac: mac(2) },
            LinkOperation::GuardLoopback { link, mac: mac(2), bridge: "stave0".into() },
            LinkOperation::LinkUp { namespace: Some(namespace.into()), link: peer.clone(), mac: mac(3) },
            LinkOperation::AddressAdd {
                namespace: Some(namespace.into()),
                link: peer.clone(),
                mac: Some(mac(3)),
                address: "172.17.0.2/16".parse().unwrap(),
                protocol: Some(PROTOCOL),
            },
            LinkOperation::RouteRefuse {
                namespace: namespace.into(),
                destination: "10.9.0.0/16".parse().unwrap(),
                kind: Rejection::Blackhole,
                metric: Some(9),
            },
            LinkOperation::RouteAdd {
                namespace: Some(namespace.into()),
                destination: "0.0.0.0/0".parse().unwrap(),
                gateway: [172, 17, 0, 1].into(),
                link: peer,
                mac: mac(3),
                metric: Some(7),
                protocol: Some(PROTOCOL),
            },
        ]
    }

    #[test]
    fn explained_as_a_person_would_type_it() {
        assert_eq!(
            examples("/run/netns/web").iter().flat_map(LinkOperation::commands).collect::<Vec<_>>(),
            [
                "ip link add stave0 address 02:00:00:00:00:01 type bridge",
                "ip link set stave0 alias stave",
                "ip link add v3fa1 address 02:00:00:00:00:02 mtu 1500 master stave0 type veth \
                 peer name eth0 address 02:00:00:00:00:03 mtu 1500 netns web",
                "ip link set v3fa1 alias 'stave web 0123456789abcdef'",
                "ip link add x0123456789 address 02:00:00:00:00:04 mtu 1450 master front type vxlan id 42 \
                 dstport 4789 local 192.0.2.1 nolearning proxy",
                "ip link set x0123456789 alias stave",
                "sysctl -w net.ipv6.conf.v3fa1.disable_ipv6=1",
                "bridge link set dev v3fa1 hairpin on",
                "bridge link set dev v3fa1 isolated on",
                "tc qdisc add dev v3fa1 clsact",
                "tc filter add dev v3fa1 ingress pref 83 handle 0x53 protocol all bpf direct-action bytecode \
                 '10,40 0 0 4294963200,21 0 6 2048,32 0 0 4293918736,84 0 0 4278190080,21 4 0 2130706432,\
                 32 0 0 4293918732,84 0 0 4278190080,21 1 0 2130706432,6 0 0 4294967295,6 0 0 2'",
                "ip -n web link set eth0 up",
                "ip -n web address add 172.17.0.2/16 broadcast + dev eth0",
                "ip -n web route add blackhole 10.9.0.0/16 proto 83 metric 9",
                "ip -n web route add default via 172.17.0.1 dev eth0 proto 83 metric 7",
            ]
        );
        let [.., address, _, route] = examples("/tmp/ns").map(|operation| operation.command());
        assert_eq!(address, "nsenter --net=/tmp/ns ip address add 172.17.0.2/16 broadcast + dev eth0");
        assert_eq!(
            route,
            "nsenter --net=/tmp/ns ip route add default via 172.17.0.1 dev eth0 proto 83 metric 7"
        );
    }

    #[test]
    fn json_reads_back_as_it_was() {
        for operation in examples("/run/netns/web") {
            let json = serde_json::to_string(&operation).unwrap();
            assert_eq!(serde_json::from_str::<LinkOperation>(&json).unwrap(), operation, "{json}");
        }
        let json = serde_json::to_string(&examples("/run/netns/web")[0]).unwrap();
        assert_eq!(json, r#"{"op":"bridge-add","name":"stave0","mac":"02:00:00:00:00:01"}"#);
    }
}
