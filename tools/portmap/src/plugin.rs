//! `stave-portmap`: portmap as a CNI plugin, with the capability `portMappings` (CNI CONVENTIONS.md).

use cni::Error;
use plugin::{Plugin, Request, foreign};
use serde_json::{Value, json};

pub(crate) const PLUGIN: Plugin =
    Plugin { tool: "portmap", begins: false, arguments, result: |_, _| Ok(None) };

/// Members that every plugin has, and the members that `arguments` reads.
const KNOWN: [&str; 18] = [
    "args",
    "backend",
    "capabilities",
    "cni.dev/attachments",
    "cni.dev/valid-attachments",
    "cniVersion",
    "conditionsV4",
    "conditionsV6",
    "externalSetMarkChain",
    "hold",
    "markMasqBit",
    "masqAll",
    "name",
    "prevResult",
    "runtimeConfig",
    "snat",
    "type",
    "dns",
];

fn arguments(request: &Request) -> Result<Option<Vec<String>>, Error> {
    let configuration = &request.configuration;
    if let Some((key, value)) = configuration.members().find(|(key, _)| !KNOWN.contains(key)) {
        return Err(Error::unsupported(key, value));
    }
    // Members of the plugin `portmap` of which Stave supports only one value.
    for (key, only) in [("snat", json!(true)), ("masqAll", json!(false)), ("backend", json!("nftables"))] {
        if let Some(value) = configuration.get(key).filter(|value| **value != only) {
            return Err(Error::unsupported(key, value));
        }
    }
    for key in ["conditionsV4", "conditionsV6", "externalSetMarkChain", "markMasqBit"] {
        if let Some(value) = configuration.get(key).filter(|value| **value != json!([])) {
            return Err(Error::unsupported(key, value));
        }
    }
    let Some(list) = configuration.capability("portMappings") else { return Ok(None) };
    let list = list.as_array().ok_or_else(|| Error::invalid("portMappings", list, "a list"))?;
    // A mapping without a host port publishes nothing.
    let published = list
        .iter()
        .filter(|mapping| !matches!(mapping["hostPort"].as_u64(), Some(0)) && !mapping["hostPort"].is_null());
    let specs = published.map(spec).collect::<Result<Vec<_>, Error>>()?;
    if specs.is_empty() {
        return Ok(None);
    }
    // podman, the most common caller, listens on the ports itself.
    let hold = if configuration.flag("hold")? == Some(true) { "--hold" } else { "--no-hold" };
    let arguments = specs.into_iter().flat_map(|spec| ["-p".to_owned(), spec]);
    Ok(Some(arguments.chain([hold.to_owned()]).collect()))
}

/// A port mapping in the form of `-p`.
fn spec(mapping: &Value) -> Result<String, Error> {
    let number = |key: &str| {
        let port = mapping[key].as_u64().filter(|port| (1..=65535).contains(port));
        port.ok_or_else(|| Error::invalid("portMappings", mapping, "a port from 1 to 65535"))
    };
    let (host, container) = (number("hostPort")?, number("containerPort")?);
    let protocol =
        mapping["protocol"].as_str().filter(|text| !text.is_empty()).unwrap_or("tcp").to_ascii_lowercase();
    let address = mapping["hostIP"].as_str().unwrap_or_default();
    Ok(foreign::port(address, &host.to_string(), &container.to_string(), &protocol))
}
