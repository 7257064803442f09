//! `stave-bridge`: bridge-attach as a CNI plugin. It takes the configuration of the plugin `bridge`, as far
//! as that applies here.

use std::net::IpAddr;

use cni::{Code, Configuration, Error, strings};
use document::{Document, members::Network};
use ipnet::IpNet;
use plugin::{Plugin, Request};
use serde_json::{Value, json};

pub(crate) const PLUGIN: Plugin = Plugin { tool: "bridge-attach", begins: true, arguments, result };

/// The members that every plugin has, and those that `arguments` reads.
const KNOWN: [&str; 20] = [
    "args",
    "bridge",
    "capabilities",
    "cni.dev/attachments",
    "cni.dev/valid-attachments",
    "cniVersion",
    "dns",
    "forceAddress",
    "hairpinMode",
    "ipMasq",
    "ipam",
    "isDefaultGateway",
    "isGateway",
    "mtu",
    "name",
    "portIsolation",
    "prevResult",
    "promiscMode",
    "runtimeConfig",
    "type",
];

fn arguments(request: &Request) -> Result<Option<Vec<String>>, Error> {
    let Request { environment, configuration } = request;
    // Go writes unset members as `false`, 0 and empty strings.
    let is_set = |value: &Value| {
        !matches!(value, Value::Null | Value::Bool(false))
            && *value != json!(0)
            && *value != json!("")
            && *value != json!([])
    };
    if let Some((key, value)) =
        configuration.members().find(|(key, value)| !KNOWN.contains(key) && is_set(value))
    {
        return Err(Error::unsupported(key, value));
    }
    for key in ["promiscMode", "forceAddress"] {
        if configuration.flag(key)? == Some(true) {
            return Err(Error::unsupported(key, &json!(true)));
        }
    }
    let mut arguments =
        vec![configuration.text("bridge")?.filter(|name| !name.is_empty()).unwrap_or("cni0").to_owned()];
    let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    if environment.command == cni::Command::Add {
        let interface = environment.attachment()?.interface;
        add("--gateway-priority", ::plugin::priority(&interface).to_string());
        add("--interface", interface);
    }
    match configuration.get("mtu") {
        Some(mtu) if *mtu != json!(0) => {
            add("--mtu", mtu.as_u64().ok_or_else(|| Error::invalid("mtu", mtu, "a number"))?.to_string());
        }
        _ => {}
    }
    // By default a network has a gateway and masquerades, unless the configuration says otherwise.
    let is_default = configuration.flag("isDefaultGateway")?;
    let is_gateway =
        is_default == Some(true) || configuration.flag("isGateway")?.or(is_default) != Some(false);
    let flags = Addresses::read(request)?.flags().into_iter();
    flags.filter(|(flag, _)| is_gateway || *flag != "--gateway").for_each(|(flag, value)| add(flag, value));
    let mac = configuration.capability("mac").and_then(Value::as_str).or(environment.argument("MAC"));
    mac.into_iter().for_each(|mac| add("--mac-address", mac.to_owned()));
    if configuration.flag("portIsolation")? == Some(true) {
        add("--icc", "false".to_owned());
    }
    match (is_gateway, configuration.flag("ipMasq")?) {
        (false, _) => arguments.extend(["--gateway".to_owned(), "none".to_owned()]),
        (true, Some(false)) => arguments.extend(["--gateway-mode".to_owned(), "routed".to_owned()]),
        _ => {}
    }
    Ok(Some(arguments))
}

/// The addresses in `ipam` and from the runtime. bridge-attach leases them itself; of `ipam`, the settings
/// of host-local and static are read.
#[derive(Default)]
struct Addresses {
    /// At most one for each IP version.
    subnets: Vec<Subnet>,
    wanted: Vec<IpAddr>,
    routes: Vec<String>,
}

struct Subnet {
    subnet: IpNet,
    range: Option<IpNet>,
    gateway: Option<IpAddr>,
}

impl Addresses {
    fn read(request: &Request) -> Result<Self, Error> {
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
            addresses.want(parse("ips", bare, "an address")?)?;
        }
        Ok(addresses)
    }

    /// The equivalent flags of bridge-attach.
    fn flags(self) -> Vec<(&'static str, String)> {
        let mut flags = Vec::new();
        // With subnets of IPv6 only, bridge-attach would choose one of IPv4.
        let mut versions = self.subnets.iter().map(|subnet| subnet.subnet.addr().is_ipv6());
        if !self.subnets.is_empty() && versions.all(|is_ipv6| is_ipv6) {
            flags.push(("--ipv4", "false".to_owned()));
        }
        for Subnet { subnet, range, gateway } in self.subnets {
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

    /// Takes over an address, at most one for each IP version.
    fn want(&mut self, address: IpAddr) -> Result<(), Error> {
        if self.wanted.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            return Err(Error::unsupported("ips", &json!(address.to_string())));
        }
        self.wanted.push(address);
        Ok(())
    }

    /// Takes over a subnet, at most one for each IP version.
    fn add(&mut self, key: &str, subnet: Subnet) -> Result<(), Error> {
        if self.subnets.iter().any(|other| other.subnet.addr().is_ipv4() == subnet.subnet.addr().is_ipv4()) {
            return Err(Error::unsupported(key, &json!(subnet.subnet.to_string())));
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
        let mut all: Vec<Value> = one.into_iter().collect();
        all.extend(sets.iter().flat_map(|set| set.as_array().cloned().unwrap_or_default()));
        all.iter().try_for_each(|range| self.range(range))
    }

    fn range(&mut self, range: &Value) -> Result<(), Error> {
        let text = |key: &str| range[key].as_str().filter(|text| !text.is_empty());
        let subnet: IpNet = parse("subnet", text("subnet").unwrap_or_default(), "a subnet")?;
        let subnet = subnet.trunc();
        let gateway = text("gateway").map(|gateway| parse("gateway", gateway, "an address")).transpose()?;
        let (start, end) = (text("rangeStart"), text("rangeEnd"));
        let part = match (start, end) {
            (None, None) => None,
            _ => Some(part_of(subnet, start, end)?),
        };
        self.add("ipam.ranges", Subnet { subnet, range: part, gateway })
    }

    fn fixed(&mut self, ipam: &Value) -> Result<(), Error> {
        let all = ipam["addresses"].as_array().cloned().unwrap_or_default();
        if all.is_empty() {
            return Err(Error::unsupported("ipam.addresses", &ipam["addresses"]));
        }
        for one in &all {
            let text = one["address"].as_str().unwrap_or_default();
            let net: IpNet = parse("address", text, "an address with its prefix")?;
            self.want(net.addr())?;
            let gateway = one["gateway"].as_str().filter(|text| !text.is_empty());
            let gateway = gateway.map(|text| parse("gateway", text, "an address")).transpose()?;
            self.add("ipam.addresses", Subnet { subnet: net.trunc(), range: None, gateway })?;
        }
        Ok(())
    }

    fn route(&mut self, route: &Value) -> Result<(), Error> {
        let destination = route["dst"].as_str().unwrap_or_default();
        match (destination, route["gw"].as_str()) {
            // The network has a default route anyway.
            ("0.0.0.0/0" | "::/0", _) => {}
            ("", _) => return Err(Error::invalid("routes", route, "dst")),
            (destination, Some(gateway)) => self.routes.push(format!("{destination} via {gateway}")),
            (destination, None) => self.routes.push(destination.to_owned()),
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

/// The result of the attachment, with the name servers of the configuration.
fn result(request: &Request, document: &Document) -> Result<Option<Value>, Error> {
    let wrong = |error: &dyn std::fmt::Display| Error::new(Code::Failed, error.to_string());
    document.require::<Network>().map_err(|error| wrong(&error))?;
    let attachments = document.attachments().map_err(|error| wrong(&error))?;
    let Some(attachment) = attachments.into_iter().next_back() else { return Ok(None) };
    let mut result = serde_json::to_value(attachment.cni).map_err(|error| wrong(&error))?;
    let Request { configuration, .. } = request;
    let dns = configuration.capability("dns").or(configuration.get("dns")).cloned().unwrap_or(json!({}));
    // As a capability, the keys are `servers` and `searches` (CNI CONVENTIONS.md).
    for (key, other) in
        [("nameservers", "servers"), ("domain", "domain"), ("search", "searches"), ("options", "options")]
    {
        let value = dns.get(key).or(dns.get(other)).filter(|value| !value.is_null() && **value != json!([]));
        if let Some(value) = value {
            result["dns"][key] = value.clone();
        }
    }
    Ok(Some(result))
}
