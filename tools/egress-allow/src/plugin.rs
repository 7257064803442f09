//! `stave-egress`: egress-allow as a CNI plugin, after `stave-bridge`.

use cni::{Error, strings};
use document::Document;
use plugin::{Plugin, Request};
use serde_json::{Value, json};

pub(crate) const PLUGIN: Plugin = Plugin { tool: "egress-allow", begins: false, arguments, result };

/// Members that every plugin has, and the members that `arguments` reads.
const KNOWN: [&str; 13] = [
    "allow",
    "args",
    "capabilities",
    "cni.dev/attachments",
    "cni.dev/valid-attachments",
    "cniVersion",
    "dns",
    "log",
    "name",
    "prevResult",
    "runtimeConfig",
    "sni",
    "type",
];

fn arguments(request: &Request) -> Result<Option<Vec<String>>, Error> {
    let configuration = &request.configuration;
    if let Some((key, value)) = configuration.members().find(|(key, _)| !KNOWN.contains(key)) {
        return Err(Error::unsupported(key, value));
    }
    let list = |key: &str, value: Option<&Value>| -> Result<Vec<String>, Error> {
        let value = value.filter(|value| !value.is_null());
        let texts = value.map(|value| strings(key, value)).transpose()?.unwrap_or_default();
        Ok(texts.into_iter().map(str::to_owned).collect())
    };
    let allow = list("allow", configuration.get("allow"))?;
    let log = configuration.flag("log")? == Some(true);
    if allow.is_empty() && !log {
        return Err(Error::invalid("allow", &json!(allow), "a list that is not empty, or \"log\": true"));
    }
    let servers = list("dns", configuration.get("dns").and_then(|dns| dns.get("nameservers")))?;
    let servers = servers.into_iter().flat_map(|server| ["--dns".to_owned(), server]);
    let sni = configuration.flag("sni")? == Some(true);
    let flags = [(log, "--log"), (sni, "--sni")].into_iter();
    let flags = flags.filter(|(given, _)| *given).map(|(_, flag)| flag.to_owned());
    Ok(Some(flags.chain(servers).chain(["--".to_owned()]).chain(allow).collect()))
}

/// The result: the only name server that answers the container.
fn result(_: &Request, _: &Document) -> Result<Option<Value>, Error> {
    Ok(Some(json!({"dns": {"nameservers": [egress::RESOLVER.ip()]}})))
}
