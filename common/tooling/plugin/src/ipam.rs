//! `ipam` of a configuration, and the addresses that the runtime asks for.

use std::net::IpAddr;

use cni::{Configuration, Error, strings};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::Request;

/// The addresses in `ipam` and from the runtime. The tool leases them itself; of `ipam`, the settings of
/// host-local and static are read.
#[derive(Debug, Default)]
pub struct Addresses {
    /// The container gets an address of each.
    subnets: Vec<Subnet>,
    wanted: Vec<IpAddr>,
    routes: Vec<String>,
    /// The default routes, with their gateways.
    out: Vec<(IpNet, Option<IpAddr>)>,
}

#[derive(Debug)]
struct Subnet {
    subnet: IpNet,
    range: Option<IpNet>,
    gateway: Option<IpAddr>,
}

impl Addresses {
    /// Reads them.
    ///
    /// # Errors
    /// [`Code::UnsupportedField`](cni::Code::UnsupportedField) for what the tools do not carry out, and
    /// [`Code::InvalidConfiguration`](cni::Code::InvalidConfiguration).
    pub fn read(request: &Request) -> Result<Self, Error> {
        let Request { environment, configuration } = request;
        let mut addresses = Self::default();
        let empty = json!({});
        let ipam = configuration.get("ipam").unwrap_or(&empty);
        match ipam["type"].as_str().unwrap_or_default() {
            "" | "stave" | "host-local" => addresses.host_local(configuration, ipam)?,
            "static" => addresses.fixed(ipam)?,
            _ => return Err(Error::unsupported("ipam.type", &ipam["type"])),
        }
        for route in ipam["routes"].as_array().into_iter().flatten() {
            addresses.route(route)?;
        }
        let asked = configuration
            .capability("ips")
            .or(configuration.get("args").and_then(|args| args["cni"].get("ips")));
        let asked = asked.map(|ips| strings("ips", ips)).transpose()?.unwrap_or_default();
        // Several addresses are separated by commas (CNI plugins, ipam/host-local).
        let argument = environment.argument("IP").into_iter().flat_map(|list| list.split(','));
        let asked = if asked.is_empty() { argument.collect() } else { asked };
        // Addresses from the runtime replace those of `static` (CNI plugins, ipam/static).
        if !asked.is_empty() {
            addresses.wanted.clear();
        }
        for text in asked {
            let bare = text.split('/').next().unwrap_or_default();
            addresses.wanted.push(parse("ips", bare, "an address")?);
        }
        Ok(addresses)
    }

    /// Takes the gateways of the default routes for those of the subnets. Returns the flag for the IP versions
    /// that have no default route.
    pub fn take_way_out(&mut self) -> Option<&'static str> {
        for (all, gateway) in &self.out {
            let is_its = |subnet: &&mut Subnet| subnet.subnet.addr().is_ipv4() == all.addr().is_ipv4();
            if let Some(subnet) = self.subnets.iter_mut().find(is_its) {
                // The tool looks for a router of IPv4. That of IPv6 is host-local's: the first address.
                let usual = subnet.subnet.addr().is_ipv6().then(|| lease::gateway(subnet.subnet));
                subnet.gateway = gateway.or(subnet.gateway).or(usual);
            }
        }
        let leads_out = |v4| self.out.iter().any(|(all, _)| all.addr().is_ipv4() == v4);
        match (leads_out(true), leads_out(false)) {
            (true, true) => None,
            (true, false) => Some("--no-default-route=6"),
            (false, true) => Some("--no-default-route=4"),
            (false, false) => Some("--no-default-route"),
        }
    }

    /// Whether no address and no subnet is named.
    pub fn is_empty(&self) -> bool {
        self.subnets.is_empty() && self.wanted.is_empty()
    }

    /// The equivalent flags of the tools that attach.
    pub fn flags(self) -> Vec<(&'static str, String)> {
        let mut flags = Vec::new();
        // With subnets of IPv6 only, the tool would choose one of IPv4.
        let mut versions = self.subnets.iter().map(|subnet| subnet.subnet.addr().is_ipv6());
        if !self.subnets.is_empty() && versions.all(|is_ipv6| is_ipv6) {
            flags.push(("--ipv4", "false".to_owned()));
        }
        let mut seen = Vec::new();
        for Subnet { subnet, range, gateway } in self.subnets {
            if seen.contains(&subnet.addr().is_ipv4()) {
                let with = |word: &str, value: Option<String>| {
                    value.map(|value| format!(" {word} {value}")).unwrap_or_default()
                };
                let gateway = with("gateway", gateway.map(|gateway| gateway.to_string()));
                let range = with("range", range.map(|range| range.to_string()));
                flags.push(("--further-subnet", format!("{subnet}{gateway}{range}")));
                continue;
            }
            seen.push(subnet.addr().is_ipv4());
            let of = |v4, v6| if subnet.addr().is_ipv4() { v4 } else { v6 };
            flags.push((of("--subnet", "--subnet6"), subnet.to_string()));
            flags.extend(range.map(|range| (of("--ip-range", "--ip6-range"), range.to_string())));
            flags.extend(gateway.map(|gateway| ("--gateway", gateway.to_string())));
        }
        let wanted =
            |address: IpAddr| (if address.is_ipv4() { "--ip" } else { "--ip6" }, address.to_string());
        flags.extend(self.wanted.into_iter().map(wanted));
        flags.extend(self.routes.into_iter().map(|route| ("--route", route)));
        flags
    }

    /// Takes over a subnet. It may be an alternative to the one before, of which the container gets an address.
    fn add(&mut self, key: &str, subnet: Subnet, is_alternative: bool) -> Result<(), Error> {
        let known = self.subnets.iter_mut().find(|other| other.subnet == subnet.subnet);
        if let (Some(known), None) = (known, subnet.range) {
            known.gateway = known.gateway.or(subnet.gateway);
            return Ok(());
        }
        if is_alternative {
            let error = Error::unsupported(key, &json!(subnet.subnet.to_string()));
            let details = "a set of ranges has one range: make another set, of which the container gets an address, too";
            return Err(Error { details: details.to_owned(), ..error });
        }
        self.subnets.push(subnet);
        Ok(())
    }

    fn host_local(&mut self, configuration: &Configuration, ipam: &Value) -> Result<(), Error> {
        for key in ["dataDir", "resolvConf"] {
            if ipam[key].as_str().is_some_and(|text| !text.is_empty()) {
                return Err(Error::unsupported(&format!("ipam.{key}"), &ipam[key]));
            }
        }
        let ranges = configuration.capability("ipRanges").filter(|ranges| **ranges != json!([]));
        let sets = ranges.or(ipam.get("ranges")).and_then(Value::as_array).cloned().unwrap_or_default();
        let one = if ipam.get("subnet").is_some() { Some(ipam.clone()) } else { None };
        one.iter().try_for_each(|range| self.range(range, false))?;
        for set in &sets {
            let mut ranges = set.as_array().into_iter().flatten().enumerate();
            ranges.try_for_each(|(at, range)| self.range(range, at > 0))?;
        }
        Ok(())
    }

    fn range(&mut self, range: &Value, is_alternative: bool) -> Result<(), Error> {
        let text = |key: &str| range[key].as_str().filter(|text| !text.is_empty());
        let subnet: IpNet = parse("subnet", text("subnet").unwrap_or_default(), "a subnet")?;
        let subnet = subnet.trunc();
        let gateway = text("gateway").map(|gateway| parse("gateway", gateway, "an address")).transpose()?;
        let (start, end) = (text("rangeStart"), text("rangeEnd"));
        let part = match (start, end) {
            (None, None) => None,
            _ => Some(part_of(subnet, start, end)?),
        };
        self.add("ipam.ranges", Subnet { subnet, range: part, gateway }, is_alternative)
    }

    fn fixed(&mut self, ipam: &Value) -> Result<(), Error> {
        let all = ipam["addresses"].as_array().cloned().unwrap_or_default();
        if all.is_empty() {
            return Err(Error::unsupported("ipam.addresses", &ipam["addresses"]));
        }
        for one in &all {
            let text = one["address"].as_str().unwrap_or_default();
            let net: IpNet = parse("address", text, "an address with its prefix")?;
            self.wanted.push(net.addr());
            let gateway = one["gateway"].as_str().filter(|text| !text.is_empty());
            let gateway = gateway.map(|text| parse("gateway", text, "an address")).transpose()?;
            self.add("ipam.addresses", Subnet { subnet: net.trunc(), range: None, gateway }, false)?;
        }
        Ok(())
    }

    fn route(&mut self, route: &Value) -> Result<(), Error> {
        let members = route.as_object().into_iter().flatten();
        let unknown = |(key, value): &(&String, &Value)| {
            !["dst", "gw", "priority"].contains(&key.as_str()) && !value.is_null() && **value != json!(0)
        };
        if let Some((key, value)) = members.clone().find(unknown) {
            return Err(Error::unsupported(&format!("routes.{key}"), value));
        }
        let gateway = route["gw"].as_str().filter(|text| !text.is_empty());
        match route["dst"].as_str().unwrap_or_default() {
            all @ ("0.0.0.0/0" | "::/0") => {
                let gateway = gateway.map(|text| parse("routes.gw", text, "an address")).transpose()?;
                self.out.push((parse("routes.dst", all, "a network")?, gateway));
            }
            "" => return Err(Error::invalid("routes", route, "dst")),
            destination => {
                let via = gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
                let metric = route["priority"].as_u64().filter(|metric| *metric != 0);
                let metric = metric.map(|metric| format!(" metric {metric}")).unwrap_or_default();
                self.routes.push(format!("{destination}{via}{metric}"));
            }
        }
        Ok(())
    }
}

/// The prefix of the range from `start` to `end`. Leases are limited to a prefix, so other ranges are
/// refused.
fn part_of(subnet: IpNet, start: Option<&str>, end: Option<&str>) -> Result<IpNet, Error> {
    let bound = |text: Option<&str>, default: IpAddr| match text {
        Some(text) => parse::<IpAddr>("range", text, "an address"),
        None => Ok(default),
    };
    let (start, end) = (bound(start, subnet.network())?, bound(end, subnet.broadcast())?);
    let lengths = subnet.prefix_len()..=subnet.max_prefix_len();
    let mut parts = lengths.filter_map(|length| IpNet::new(start, length).ok()).map(|part| part.trunc());
    let part = parts.find(|part| part.network() == start && part.broadcast() == end);
    part.ok_or_else(|| Error::unsupported("rangeStart", &json!(format!("{start} to {end}"))))
}

fn parse<T: std::str::FromStr>(key: &str, text: &str, wanted: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::invalid(key, &json!(text), wanted))
}
