//! `stave-bridge`: bridge-attach as a CNI plugin. It takes the configuration of the plugin `bridge`, as far
//! as that applies here.

use cni::Error;
use plugin::{Addresses, Plugin, Request};
use serde_json::json;

pub(crate) const PLUGIN: Plugin =
    Plugin { tool: "bridge-attach", begins: true, arguments, result: ::plugin::attached };

/// The members that `arguments` reads.
const KNOWN: [&str; 8] = [
    "bridge",
    "forceAddress",
    "hairpinMode",
    "ipMasq",
    "isDefaultGateway",
    "isGateway",
    "portIsolation",
    "promiscMode",
];

fn arguments(request: &Request) -> Result<Option<Vec<String>>, Error> {
    let Request { configuration, .. } = request;
    ::plugin::refuse_unknown(request, &KNOWN)?;
    for key in ["promiscMode", "forceAddress"] {
        if configuration.flag(key)? == Some(true) {
            return Err(Error::unsupported(key, &json!(true)));
        }
    }
    let mut arguments =
        vec![configuration.text("bridge")?.filter(|name| !name.is_empty()).unwrap_or("cni0").to_owned()];
    arguments.extend(::plugin::interface(request)?);
    let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    // By default a network has a gateway and masquerades, unless the configuration says otherwise.
    let is_default = configuration.flag("isDefaultGateway")?;
    let is_gateway =
        is_default == Some(true) || configuration.flag("isGateway")?.or(is_default) != Some(false);
    let flags = Addresses::read(request)?.flags().into_iter();
    flags.filter(|(flag, _)| is_gateway || *flag != "--gateway").for_each(|(flag, value)| add(flag, value));
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
