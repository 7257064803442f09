//! Parses arguments: names, subnets, routes.

use std::{net::IpAddr, ops::RangeInclusive, str::FromStr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink::Rejection;

/// How large an MTU may be, in bytes: what an IPv4 header needs (RFC 791), to the longest packet.
pub const MTU: RangeInclusive<i64> = 68..=65535;

/// Parses an MTU. None if it cannot be one.
pub fn parse_mtu(text: &str) -> Option<u32> {
    text.parse().ok().filter(|mtu| MTU.contains(&i64::from(*mtu)))
}

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

/// Parses a subnet of either IP version.
///
/// # Errors
/// Why the subnet is invalid.
pub fn parse_any_subnet(text: &str) -> Result<IpNet, String> {
    match text.contains(':') {
        true => parse_subnet6(text).map(IpNet::V6),
        false => parse_subnet(text).map(IpNet::V4),
    }
}

/// Parses a part of a subnet of either IP version.
///
/// # Errors
/// Why the range is invalid.
pub fn parse_any_range(text: &str) -> Result<IpNet, String> {
    match text.contains(':') {
        true => parse_range6(text).map(IpNet::V6),
        false => parse_range(text).map(IpNet::V4),
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

/// The wanted gateway of a subnet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Gateway {
    /// The usual one: that of the existing bridge or of the parent, or the first address.
    #[default]
    Usual,
    /// None: the network has no way out.
    None,
    /// This address.
    At(IpAddr),
}

impl Gateway {
    /// The given address.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::At(address) => Some(address),
            Self::Usual | Self::None => None,
        }
    }
}

impl FromStr for Gateway {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            text => text.parse().map(Self::At).map_err(|_| "a gateway is an address, or \"none\"".to_owned()),
        }
    }
}

/// The given gateways, at most one for each IP version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub struct Gateways {
    pub v4: Gateway,
    pub v6: Gateway,
}

impl Gateways {
    /// Sorts the gateways by IP version. `none` is for both.
    ///
    /// # Errors
    /// When two have the same version.
    pub fn of(given: &[Gateway]) -> Result<Self, String> {
        if given.contains(&Gateway::None) {
            return match given {
                [_] => Ok(Self { v4: Gateway::None, v6: Gateway::None }),
                _ => Err("a network has a gateway, or none".to_owned()),
            };
        }
        let mut gateways = Self::default();
        for address in given.iter().filter_map(|gateway| gateway.address()) {
            let place = if address.is_ipv4() { &mut gateways.v4 } else { &mut gateways.v6 };
            if let Some(earlier) = place.address() {
                return Err(format!("{earlier} and {address} are two gateways of one version of IP"));
            }
            *place = Gateway::At(address);
        }
        Ok(gateways)
    }
}

/// The gateways of a network, of which `subnet` and `range` are given. Without IPv4, nothing of it may
/// be given.
///
/// # Errors
/// When two gateways have the same IP version, or a flag is about IPv4 and the network has none.
pub fn gateways(
    given: &[Gateway],
    ipv4: bool,
    subnet: Option<Ipv4Net>,
    range: Option<Ipv4Net>,
) -> Result<Gateways, String> {
    let gateways = Gateways::of(given)?;
    let of_ipv4 = [
        subnet.map(|_| "--subnet"),
        range.map(|_| "--ip-range"),
        gateways.v4.address().map(|_| "a --gateway of IPv4"),
    ];
    match of_ipv4.into_iter().flatten().next() {
        Some(flag) if !ipv4 => Err(format!("{flag} is not for a network without IPv4")),
        _ => Ok(gateways),
    }
}

/// The IP versions by which a container has no default route, although the network has a gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Closed {
    /// Neither of them.
    #[default]
    Neither,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Both.
    Both,
}

impl Closed {
    /// Whether the default route to this destination is left out.
    pub(crate) fn leaves_out(self, all: IpNet) -> bool {
        match self {
            Self::Neither => false,
            Self::Ipv4 => all.addr().is_ipv4(),
            Self::Ipv6 => all.addr().is_ipv6(),
            Self::Both => true,
        }
    }
}

impl FromStr for Closed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "4" => Ok(Self::Ipv4),
            "6" => Ok(Self::Ipv6),
            // As of a flag without values.
            "true" => Ok(Self::Both),
            "false" => Ok(Self::Neither),
            _ => Err("4 or 6 is wanted, or true or false".to_owned()),
        }
    }
}

/// A route in the container: `10.8.0.0/16 via 172.17.0.9`. Without `via`, the next hop is the
/// network's gateway. Or the route rejects packets: `10.8.0.0/16 blackhole`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destination network.
    pub destination: IpNet,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// What happens to the packets instead. Then there is no next hop.
    pub rejection: Option<Rejection>,
    /// The metric. None lets the kernel choose.
    pub metric: Option<u32>,
}

impl Route {
    /// A route through this next hop, or through the network's gateway.
    pub fn new(destination: IpNet, gateway: Option<IpAddr>) -> Self {
        Self { destination, gateway, rejection: None, metric: None }
    }
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a route is written like \"10.8.0.0/16 via 172.17.0.9\"".to_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let (way, metric) = match words[..] {
            [ref way @ .., "metric", metric] => (way, Some(metric.parse::<u32>().map_err(|_| wrong())?)),
            ref way => (way, None),
        };
        let (destination, gateway, rejection) = match *way {
            [destination] => (destination, None, None),
            [destination, "via", gateway] => (destination, Some(gateway), None),
            [destination, kind] => (destination, None, Some(Rejection::of(kind).ok_or_else(wrong)?)),
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
        Ok(Self { destination, gateway, rejection, metric })
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
    fn gateways() {
        let of = |given: &[&str]| {
            let given: Vec<Gateway> = given.iter().map(|text| text.parse().unwrap()).collect();
            Gateways::of(&given)
        };
        let at = |text: &str| Gateway::At(text.parse().unwrap());
        assert_eq!(of(&[]), Ok(Gateways { v4: Gateway::Usual, v6: Gateway::Usual }));
        assert_eq!(of(&["none"]), Ok(Gateways { v4: Gateway::None, v6: Gateway::None }));
        let both = Ok(Gateways { v4: at("10.0.0.1"), v6: at("fd00::1") });
        assert_eq!(of(&["fd00::1", "10.0.0.1"]), both);
        for (given, message) in [
            (["10.0.0.1", "10.0.0.2"], "10.0.0.1 and 10.0.0.2 are two gateways of one version of IP"),
            (["none", "10.0.0.2"], "a network has a gateway, or none"),
        ] {
            assert_eq!(of(&given), Err(message.to_owned()));
        }
        assert!("None".parse::<Gateway>().is_err());
        let (subnet, v6, v4) = ("10.0.0.0/24".parse().ok(), at("fd00::1"), at("10.0.0.1"));
        assert!(super::gateways(&[v6], false, None, None).is_ok());
        assert!(super::gateways(&[v4], true, subnet, subnet).is_ok());
        for (given, subnet, range, flag) in [
            (v6, subnet, None, "--subnet"),
            (v6, None, subnet, "--ip-range"),
            (v4, None, None, "a --gateway of IPv4"),
        ] {
            let told = super::gateways(&[given], false, subnet, range);
            assert_eq!(told, Err(format!("{flag} is not for a network without IPv4")));
        }
    }

    #[test]
    fn versions_without_a_default_route() {
        let all: [IpNet; 2] = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        for (text, left_out) in
            [("true", [true, true]), ("4", [true, false]), ("6", [false, true]), ("false", [false, false])]
        {
            let closed: Closed = text.parse().unwrap();
            assert_eq!(all.map(|all| closed.leaves_out(all)), left_out, "{text}");
        }
        assert!("5".parse::<Closed>().is_err());
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
            ("10.8.0.0/16 blackhole", "10.8.0.0/16 None Blackhole"),
            ("10.8.0.0/16 prohibit metric 7", "10.8.0.0/16 None Prohibit 7"),
            ("10.8.0.0/16 via 172.17.0.9 metric 7", "10.8.0.0/16 Some(172.17.0.9) 7"),
            ("10.8.0.0/16 metric 0", "10.8.0.0/16 None 0"),
            ("10.8.0.0/16 metric -1", wrong),
            ("10.8.0.0/16 black", wrong),
            ("10.8.0.0/16 via 172.17.0.9 blackhole", wrong),
            ("metric 7", wrong),
            ("10.8.0.0/16 via x", wrong),
            ("x", wrong),
        ] {
            let shown = match text.parse::<Route>() {
                Ok(Route { destination, gateway, rejection, metric }) => {
                    let rejection = rejection.map(|kind| format!(" {kind:?}")).unwrap_or_default();
                    let metric = metric.map(|metric| format!(" {metric}")).unwrap_or_default();
                    format!("{destination} {gateway:?}{rejection}{metric}")
                }
                Err(error) => error,
            };
            assert_eq!(shown, told, "{text}");
        }
    }
}
