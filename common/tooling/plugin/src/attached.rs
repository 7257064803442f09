//! What the plugins that attach a container have in common.

use cni::{Code, Command, Error};
use document::{Document, members::Network};
use serde_json::{Value, json};

use crate::{Addresses, Request};

/// The members that every plugin of these has.
const KNOWN: [&str; 12] = [
    "args",
    "capabilities",
    "cni.dev/attachments",
    "cni.dev/valid-attachments",
    "cniVersion",
    "dns",
    "ipam",
    "mtu",
    "name",
    "prevResult",
    "runtimeConfig",
    "type",
];

/// Whether a member is set. Go writes unset members as null, `false`, 0, and empty texts, lists and objects.
pub fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// Refuses members that neither every plugin has nor this one (`known`).
///
/// # Errors
/// [`Code::UnsupportedField`] for the first of them.
pub fn refuse_unknown(request: &Request, known: &[&str]) -> Result<(), Error> {
    let is_known = |key: &str| KNOWN.contains(&key) || known.contains(&key);
    let mut members = request.configuration.members();
    match members.find(|(key, value)| !is_known(key) && is_set(value)) {
        Some((key, value)) => Err(Error::unsupported(key, value)),
        None => Ok(()),
    }
}

/// The flags for the interface: its name, its place among the default routes, the MTU and the hardware
/// address.
///
/// # Errors
/// [`Code::InvalidEnvironment`] and [`Code::InvalidConfiguration`].
pub fn interface(request: &Request) -> Result<Vec<String>, Error> {
    let Request { environment, configuration } = request;
    let mut arguments = Vec::new();
    let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    if environment.command == Command::Add {
        let interface = environment.attachment()?.interface;
        add("--metric", crate::metric(&interface, &environment.namespace()?).to_string());
        add("--interface", interface);
    }
    match configuration.get("mtu") {
        Some(mtu) if *mtu != json!(0) => {
            add("--mtu", mtu.as_u64().ok_or_else(|| Error::invalid("mtu", mtu, "a number"))?.to_string());
        }
        _ => {}
    }
    let mac = configuration.capability("mac").and_then(Value::as_str).or(environment.argument("MAC"));
    mac.into_iter().for_each(|mac| add("--mac-address", mac.to_owned()));
    Ok(arguments)
}

/// The flags of macvlan-attach and ipvlan-attach for the configuration of the plugins `macvlan` and `ipvlan`,
/// which have the members `known`, too. As there, only `ipam.routes` says that there is a default route.
///
/// # Errors
/// [`Code::UnsupportedField`] for what is not carried out, and [`Code::InvalidConfiguration`].
pub fn on_a_wire(request: &Request, known: &[&str]) -> Result<Option<Vec<String>>, Error> {
    let Request { configuration, .. } = request;
    refuse_unknown(request, &[&["master", "mode"], known].concat())?;
    let mut arguments = interface(request)?;
    for (key, flag) in [("master", "--parent"), ("mode", "--mode")] {
        let text = configuration.text(key)?.filter(|text| !text.is_empty());
        arguments.extend(text.into_iter().flat_map(|text| [flag.to_owned(), text.to_owned()]));
    }
    let mut addresses = Addresses::read(request)?;
    if addresses.is_empty() {
        let is_none =
            configuration.get("ipam").is_none_or(|ipam| ipam["type"].as_str().is_none_or(str::is_empty));
        if !is_none {
            return Err(Error::unsupported("ipam", configuration.get("ipam").unwrap_or(&Value::Null)));
        }
        // Without the flag, the tool would take the first free address of the host's own wire.
        arguments.push("--no-addresses".to_owned());
        return Ok(Some(arguments));
    }
    arguments.extend(addresses.take_way_out().into_iter().map(str::to_owned));
    arguments.extend(addresses.flags().into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
    Ok(Some(arguments))
}

/// The result of the attachment, with the name servers of the configuration.
///
/// # Errors
/// When the document has no attachment in its form.
pub fn attached(request: &Request, document: &Document) -> Result<Option<Value>, Error> {
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
