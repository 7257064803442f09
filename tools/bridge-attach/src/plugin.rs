//! `stave-bridge`: bridge-attach as a CNI plugin. Its configuration is that of the plugin `bridge`, as far as it makes sense here.

use std::net::Ipv4Addr;

use cni::{Code, Configuration, Error, strings};
use document::{Document, members::Network};
use ipnet::Ipv4Net;
use plugin::{Plugin, Request};
use serde_json::{Value, json};

pub(crate) const PLUGIN: Plugin = Plugin { tool: "bridge-attach", begins: true, arguments, result };

/// Members that every plugin has, and those that `arguments` reads.
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
    // `false`, 0 and empty texts are what Go writes for nothing.
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
    let Addresses { subnet, range, wanted, routes } = Addresses::read(request)?;
    subnet.into_iter().for_each(|subnet| add("--subnet", subnet.to_string()));
    range.into_iter().for_each(|range| add("--ip-range", range.to_string()));
    wanted.into_iter().for_each(|address| add("--ip", address.to_string()));
    routes.into_iter().for_each(|route| add("--route", route));
    let mac = configuration.capability("mac").and_then(Value::as_str).or(environment.argument("MAC"));
    mac.into_iter().for_each(|mac| add("--mac-address", mac.to_owned()));
    if configuration.flag("portIsolation")? == Some(true) {
        add("--icc", "false".to_owned());
    }
    // Here a network has a gateway, and its addresses are hidden, unless the configuration says otherwise.
    let is_default = configuration.flag("isDefaultGateway")?;
    let is_gateway =
        is_default == Some(true) || configuration.flag("isGateway")?.or(is_default) != Some(false);
    match (is_gateway, configuration.flag("ipMasq")?) {
        (false, _) => arguments.push("--internal".to_owned()),
        (true, Some(false)) => arguments.extend(["--gateway-mode".to_owned(), "routed".to_owned()]),
        _ => {}
    }
    Ok(Some(arguments))
}

/// What `ipam` and the runtime say of addresses. They are leased here: of `ipam`, what host-local and static are told is read.
#[derive(Default)]
struct Addresses {
    subnet: Option<Ipv4Net>,
    range: Option<Ipv4Net>,
    wanted: Option<Ipv4Addr>,
    routes: Vec<String>,
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
        if let [_, second, ..] = asked[..] {
            return Err(Error::unsupported("ips", &json!(second)));
        }
        if let Some(text) = asked.first().copied().or(environment.argument("IP")) {
            let bare = text.split('/').next().unwrap_or_default();
            addresses.wanted = Some(parse("ips", bare, "an IPv4 address")?);
        }
        Ok(addresses)
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
        match &all[..] {
            [] => Ok(()),
            [range] => self.range(range),
            [_, second, ..] => Err(Error::unsupported("ipam.ranges", second)),
        }
    }

    fn range(&mut self, range: &Value) -> Result<(), Error> {
        let text = |key: &str| range[key].as_str().filter(|text| !text.is_empty());
        let subnet: Ipv4Net = parse("subnet", text("subnet").unwrap_or_default(), "an IPv4 subnet")?;
        let subnet = subnet.trunc();
        self.subnet = Some(subnet);
        if let Some(gateway) = text("gateway") {
            let own = subnet.hosts().next();
            if parse::<Ipv4Addr>("gateway", gateway, "an IPv4 address").map(Some)? != own {
                return Err(Error::unsupported("gateway", &range["gateway"]));
            }
        }
        let (start, end) = (text("rangeStart"), text("rangeEnd"));
        if start.is_none() && end.is_none() {
            return Ok(());
        }
        let bound = |text: Option<&str>, default: Ipv4Addr| match text {
            Some(text) => parse::<Ipv4Addr>("range", text, "an IPv4 address"),
            None => Ok(default),
        };
        let (start, end) = (bound(start, subnet.network())?, bound(end, subnet.broadcast())?);
        // Leases are limited to a part of the subnet that has a prefix of its own.
        let part = (subnet.prefix_len()..=32).filter_map(|length| Ipv4Net::new(start, length).ok());
        let part =
            part.map(|part| part.trunc()).find(|part| part.network() == start && part.broadcast() == end);
        match part {
            Some(part) => self.range = Some(part),
            None => return Err(Error::unsupported("rangeStart", &json!(format!("{start} to {end}")))),
        }
        Ok(())
    }

    fn fixed(&mut self, ipam: &Value) -> Result<(), Error> {
        let all = ipam["addresses"].as_array().cloned().unwrap_or_default();
        let [only] = &all[..] else { return Err(Error::unsupported("ipam.addresses", &ipam["addresses"])) };
        let net: Ipv4Net = parse(
            "address",
            only["address"].as_str().unwrap_or_default(),
            "an IPv4 address with its prefix",
        )?;
        (self.subnet, self.wanted) = (Some(net.trunc()), Some(net.addr()));
        Ok(())
    }

    fn route(&mut self, route: &Value) -> Result<(), Error> {
        let destination = route["dst"].as_str().unwrap_or_default();
        match (destination, route["gw"].as_str()) {
            // The way out is there already.
            ("0.0.0.0/0" | "::/0", _) => {}
            ("", _) => return Err(Error::invalid("routes", route, "dst")),
            (destination, Some(gateway)) => self.routes.push(format!("{destination} via {gateway}")),
            (destination, None) => self.routes.push(destination.to_owned()),
        }
        Ok(())
    }
}

fn parse<T: std::str::FromStr>(key: &str, text: &str, wanted: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::invalid(key, &json!(text), wanted))
}

/// The attachment's own result, with the name servers of the configuration.
fn result(request: &Request, document: &Document) -> Result<Option<Value>, Error> {
    let wrong = |error: &dyn std::fmt::Display| Error::new(Code::Failed, error.to_string());
    document.require::<Network>().map_err(|error| wrong(&error))?;
    let attachments = document.attachments().map_err(|error| wrong(&error))?;
    let Some(attachment) = attachments.into_iter().next_back() else { return Ok(None) };
    let mut result = serde_json::to_value(attachment.cni).map_err(|error| wrong(&error))?;
    let Request { configuration, .. } = request;
    let dns = configuration.capability("dns").or(configuration.get("dns")).cloned().unwrap_or(json!({}));
    // As a capability the keys are `servers` and `searches` (CNI CONVENTIONS.md).
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
