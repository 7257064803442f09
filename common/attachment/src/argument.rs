//! Parses arguments: names, subnets, routes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Parses an interface name by the kernel's rules (net/core/dev.c, `dev_valid_name`).
///
/// # Errors
/// Why the name is invalid.
pub fn parse_name(name: &str) -> Result<String, String> {
    let forbidden = |c: char| c == '/' || c == ':' || c == '"' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(forbidden) {
        return Err(
            "the name of an interface has 1 to 15 characters, and no spaces, slashes or colons".into()
        );
    }
    Ok(name.to_owned())
}

/// Parses an IPv4 subnet: a network address, with room for a gateway and a container.
///
/// # Errors
/// Why the subnet is invalid.
pub fn parse_subnet(text: &str) -> Result<Ipv4Net, String> {
    let subnet: Ipv4Net = text.parse().map_err(|_| "a subnet is written like 172.17.0.0/16".to_owned())?;
    if subnet.prefix_len() > 30 {
        return Err("it has no room for a gateway and a container: /30 is the smallest".into());
    }
    if subnet.trunc() != subnet {
        return Err(format!("{} is an address in {}", subnet.addr(), subnet.trunc()));
    }
    Ok(subnet)
}

/// Parses a part of an IPv4 subnet, of any size.
///
/// # Errors
/// Why the range is invalid.
pub fn parse_range(text: &str) -> Result<Ipv4Net, String> {
    let range: Ipv4Net = text.parse().map_err(|_| "a range is written like 172.17.5.0/24".to_owned())?;
    match range.trunc() == range {
        true => Ok(range),
        false => Err(format!("{} is an address in {}", range.addr(), range.trunc())),
    }
}

/// Parses an IPv6 subnet. It must be large enough that its addresses need not be counted.
///
/// # Errors
/// Why the subnet is invalid.
pub fn parse_subnet6(text: &str) -> Result<Ipv6Net, String> {
    let subnet = parse_range6(text)?;
    match subnet.prefix_len() {
        ..=126 => Ok(subnet),
        _ => Err("it has no room for a gateway and a container: /126 is the smallest".into()),
    }
}

/// Parses a part of an IPv6 subnet, of any size.
///
/// # Errors
/// Why the range is invalid.
pub fn parse_range6(text: &str) -> Result<Ipv6Net, String> {
    let range: Ipv6Net =
        text.parse().map_err(|_| "a subnet of IPv6 is written like fd01:2345:6789::/64".to_owned())?;
    match range.trunc() == range {
        true => Ok(range),
        false => Err(format!("{} is an address in {}", range.addr(), range.trunc())),
    }
}

/// The given addresses of a bridge, at most one for each IP version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub struct Gateways {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl Gateways {
    /// Sorts the addresses by IP version.
    ///
    /// # Errors
    /// When two have the same version.
    pub fn of(given: &[IpAddr]) -> Result<Self, String> {
        let mut gateways = Self::default();
        for address in given {
            let earlier = match address {
                IpAddr::V4(address) => gateways.v4.replace(*address).map(IpAddr::from),
                IpAddr::V6(address) => gateways.v6.replace(*address).map(IpAddr::from),
            };
            if let Some(earlier) = earlier {
                return Err(format!("{earlier} and {address} are two gateways of one version of IP"));
            }
        }
        Ok(gateways)
    }
}

/// A route in the container: `10.8.0.0/16 via 172.17.0.9`. Without `via`, the gateway is the
/// bridge's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destination network.
    pub destination: IpNet,
    /// The next hop.
    pub gateway: Option<IpAddr>,
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a route is written like \"10.8.0.0/16 via 172.17.0.9\"".to_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let (destination, gateway) = match words[..] {
            [destination] => (destination, None),
            [destination, "via", gateway] => (destination, Some(gateway)),
            _ => return Err(wrong()),
        };
        // As with `ip`, an address without a prefix length is a single host.
        let destination = destination
            .parse::<IpNet>()
            .or_else(|_| destination.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| wrong())?;
        if destination.trunc() != destination {
            return Err(format!("{} is an address in {}", destination.addr(), destination.trunc()));
        }
        if destination.prefix_len() == 0 {
            return Err("the default route comes with the network: see --gateway-priority".into());
        }
        let gateway = gateway.map(str::parse::<IpAddr>).transpose().map_err(|_| wrong())?;
        if gateway.is_some_and(|gateway| gateway.is_ipv4() != destination.addr().is_ipv4()) {
            return Err("its next hop is of the other version of IP".into());
        }
        Ok(Self { destination, gateway })
    }
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

    #[test]
    fn routes() {
        let wrong = "a route is written like \"10.8.0.0/16 via 172.17.0.9\"";
        for (text, told) in [
            ("10.8.0.0/16 via 172.17.0.9", "10.8.0.0/16 Some(172.17.0.9)"),
            ("10.8.0.0/16", "10.8.0.0/16 None"),
            ("10.8.0.1", "10.8.0.1/32 None"),
            ("fd01::/48 via fd00::9", "fd01::/48 Some(fd00::9)"),
            ("10.8.0.1/16", "10.8.0.1 is an address in 10.8.0.0/16"),
            ("0.0.0.0/0", "the default route comes with the network: see --gateway-priority"),
            ("10.8.0.0/16 via fd00::9", "its next hop is of the other version of IP"),
            ("", wrong),
            ("10.8.0.0/16 via", wrong),
            ("10.8.0.0/16 via x", wrong),
            ("x", wrong),
        ] {
            let shown = match text.parse::<Route>() {
                Ok(route) => format!("{} {:?}", route.destination, route.gateway),
                Err(error) => error,
            };
            assert_eq!(shown, told, "{text}");
        }
    }
}
