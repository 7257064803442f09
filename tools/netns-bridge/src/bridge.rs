//! Chooses the bridge and the subnet, and plans what to do for them.

use std::net::Ipv4Addr;

use anyhow::{Result, anyhow, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use document::members::GatewayMode;
use ipnet::{IpNet, Ipv4Net};
use netlink::{Connection, Link, LinkOperation, Mac, Mark, PROTOCOL, WAY_OUT};
use toolkit::hint;

/// The subnets to choose from, as Docker does (default-address-pools): 172.17.0.0/16 to 172.31.0.0/16, then parts of
/// 192.168.0.0/16 with twelve bits for hosts.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let larger = (17..32).map(|second| Ipv4Net::new_assert(Ipv4Addr::new(172, second, 0, 0), 16));
    let smaller = (0..16).map(|third| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, third * 16, 0), 20));
    larger.chain(smaller)
}

/// The choice.
pub(crate) struct Bridge {
    pub(crate) subnet: Ipv4Net,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) operations: Vec<LinkOperation>,
}

/// The name of an interface, by the kernel's rules (net/core/dev.c, `dev_valid_name`).
pub(crate) fn parse_name(name: &str) -> Result<String, String> {
    let forbidden = |c: char| c == '/' || c == ':' || c == '"' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(forbidden) {
        return Err(
            "the name of an interface has 1 to 15 characters, and no spaces, slashes or colons".into()
        );
    }
    Ok(name.to_owned())
}

/// A subnet: the network's own address, with room for a gateway and a container.
pub(crate) fn parse_subnet(text: &str) -> Result<Ipv4Net, String> {
    let subnet: Ipv4Net = text.parse().map_err(|_| "a subnet is written like 172.17.0.0/16".to_owned())?;
    if subnet.prefix_len() > 30 {
        return Err("it has no room for a gateway and a container: /30 is the smallest".into());
    }
    if subnet.trunc() != subnet {
        return Err(format!("{} is an address in {}", subnet.addr(), subnet.trunc()));
    }
    Ok(subnet)
}

/// The values of `--gateway-mode`.
pub(crate) fn modes() -> impl TypedValueParser<Value = GatewayMode> {
    PossibleValuesParser::new(["nat", "routed"]).map(|mode| match mode.as_str() {
        "routed" => GatewayMode::Routed,
        _ => GatewayMode::Nat,
    })
}

/// A part of a subnet, of any size.
pub(crate) fn parse_range(text: &str) -> Result<Ipv4Net, String> {
    let range: Ipv4Net = text.parse().map_err(|_| "a range is written like 172.17.5.0/24".to_owned())?;
    match range.trunc() == range {
        true => Ok(range),
        false => Err(format!("{} is an address in {}", range.addr(), range.trunc())),
    }
}

/// All containers on a bridge are reached in one way.
pub(crate) fn refuse_other_mode(bridge: &str, mode: GatewayMode) -> Result<()> {
    let name = |routed| if routed { "routed" } else { "nat" };
    let wanted = mode == GatewayMode::Routed;
    match nat::is_routed(bridge)? {
        Some(standing) if standing != wanted => Err(hint(
            anyhow!("bridge {bridge:?} has gateway mode {}, not {}", name(standing), name(wanted)),
            format!("use it with --gateway-mode {}, or another --bridge", name(standing)),
        )),
        _ => Ok(()),
    }
}

impl Bridge {
    /// Refuses a range from which no address can be leased.
    pub(crate) fn refuse_range(&self, range: Ipv4Net) -> Result<()> {
        let subnet = self.subnet;
        if !subnet.contains(&range) {
            return Err(hint(
                anyhow!("range {range} is not in subnet {subnet}"),
                "choose a part of the subnet",
            ));
        }
        if !lease::has_room(subnet, range, self.gateway) {
            bail!("range {range} of subnet {subnet} has no address for a container");
        }
        Ok(())
    }
}

/// Looks at the system and chooses.
pub(crate) fn choose(name: &str, wanted: Option<Ipv4Net>, mark: Mark) -> Result<Bridge> {
    let connection = Connection::open(None)?;
    let standing = connection.link(name)?;
    let own = match &standing {
        Some(link) => connection.addresses(Some(link.index))?,
        None => Vec::new(),
    };
    let present = own.iter().find_map(|address| match address.address {
        IpNet::V4(net) if wanted.is_none_or(|subnet| net.trunc() == subnet) => Some((net, address.protocol)),
        _ => None,
    });
    let subnet = match (present, wanted) {
        (Some((net, _)), _) => net.trunc(),
        (None, Some(subnet)) => subnet,
        (None, None) if own.is_empty() => first_free(&connection)?,
        // Its address is of another family or kind; told below.
        (None, None) => candidates().next().unwrap_or_default(),
    };
    if let (None, Some(other)) = (present, own.first()) {
        let error = anyhow!("bridge {name:?} has address {}, outside of subnet {subnet}", other.address);
        return Err(hint(
            error,
            format!("use it with --subnet {}, or another --bridge", other.address.trunc()),
        ));
    }
    // If the address exists, this was checked when it was added. Looking at all addresses takes longer when more
    // containers run.
    if present.is_none() && wanted.is_some() {
        refuse_collision(&connection, subnet)?;
    }
    let gateway = present.map_or_else(|| lease::gateway(subnet), |(net, _)| net.addr());
    let address = IpNet::from(Ipv4Net::new(gateway, subnet.prefix_len())?);
    let add_address = |mac| LinkOperation::AddressAdd {
        namespace: None,
        link: name.to_owned(),
        mac,
        address,
        protocol: Some(PROTOCOL),
    };
    let ours = Mac::derive("", name);
    let operations = match standing {
        Some(link) if !link.is_our_bridge() => {
            refuse_unusable(&link)?;
            // An address that the bridge had before must not be removed by us.
            let came_with_it = present.is_some_and(|(_, protocol)| protocol != Some(PROTOCOL));
            if came_with_it { vec![] } else { vec![add_address(None)] }
        }
        _ => vec![
            LinkOperation::BridgeAdd { name: name.to_owned(), mac: ours, mark: Some(mark) },
            LinkOperation::Ipv6Off { link: name.to_owned(), mac: ours },
            LinkOperation::LinkUp { namespace: None, link: name.to_owned(), mac: ours },
            add_address(Some(ours)),
        ],
    };
    Ok(Bridge { subnet, gateway, operations })
}

fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// The IPv4 addresses of all interfaces, with the index of each.
fn addresses(connection: &Connection) -> Result<Vec<(u32, Ipv4Net)>> {
    let nets = connection.addresses(None)?.into_iter().filter_map(|found| match found.address {
        IpNet::V4(net) => Some((found.link, net)),
        IpNet::V6(_) => None,
    });
    Ok(nets.collect())
}

/// The first subnet in which no interface has an address, and to which no route leads: a VPN, or the network behind a router,
/// would be out of reach.
fn first_free(connection: &Connection) -> Result<Ipv4Net> {
    let addresses = addresses(connection)?.into_iter().map(|(_, net)| net.trunc());
    let routes = connection.routes(None)?.into_iter().map(|route| route.destination);
    let used: Vec<_> = addresses.chain(routes.filter(|route| route.prefix_len() >= WAY_OUT)).collect();
    let free = candidates().find(|subnet| !used.iter().any(|net| overlap(*subnet, *net)));
    free.ok_or_else(|| {
        let error = anyhow!("all subnets to choose from, 172.17.0.0/16 to 192.168.240.0/20, are in use");
        hint(error, "choose one with --subnet")
    })
}

/// An address of another interface inside or around the subnet would make one of the two unreachable; so would a route to
/// the subnet or a part of it. A wider route may stay: it leads to the rest of what it is for.
fn refuse_collision(connection: &Connection, subnet: Ipv4Net) -> Result<()> {
    let collides = |what: String, link: Option<u32>| -> Result<()> {
        let interface = link.map(|link| connection.name(link)).transpose()?;
        let on = interface.map(|name| format!(" on interface {name:?}")).unwrap_or_default();
        Err(hint(anyhow!("subnet {subnet} collides with {what}{on}"), "choose another with --subnet"))
    };
    for (link, net) in addresses(connection)? {
        if overlap(subnet, net.trunc()) {
            return collides(net.to_string(), Some(link));
        }
    }
    match connection.routes(None)?.into_iter().find(|route| subnet.contains(&route.destination)) {
        Some(route) => collides(format!("the route to {}", route.destination), route.link),
        None => Ok(()),
    }
}

fn refuse_unusable(link: &Link) -> Result<()> {
    let name = &link.name;
    if !link.bridge {
        bail!("interface {name:?} is not a bridge");
    }
    if !link.up {
        return Err(hint(anyhow!("bridge {name:?} is down"), format!("ip link set {name} up")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        for (text, message) in [
            ("172.17.0.0/16", ""),
            ("10.0.0.4/30", ""),
            ("10.0.0.4/31", "it has no room for a gateway and a container: /30 is the smallest"),
            ("10.0.0.5/24", "10.0.0.5 is an address in 10.0.0.0/24"),
            ("10.0.0.0", "a subnet is written like 172.17.0.0/16"),
            ("fd00::/64", "a subnet is written like 172.17.0.0/16"),
        ] {
            assert_eq!(parse_subnet(text).err().unwrap_or_default(), message, "{text}");
        }
        for (name, valid) in [
            ("stave0", true),
            ("br.1", true),
            ("", false),
            ("a/b", false),
            ("..", false),
            ("a234567890123456", false),
        ] {
            assert_eq!(parse_name(name).is_ok(), valid, "{name}");
        }
    }
}
