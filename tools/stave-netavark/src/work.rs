//! `setup` and `teardown`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use document::{Document, Id, record};
use operation::Scope;
use plugin::{foreign, tool};
use serde_json::{Map, Value, json};

use crate::input::{Interface, Network, Options, Port, Subnet};

/// The tools, in the order in which setup runs them.
const TOOLS: [&str; 2] = ["bridge-attach", "portmap"];

/// The prefix of the ids, and the document's member that says to which network and container a record
/// belongs.
const KIND: &str = "netavark";

/// Attaches the container. If anything fails, undoes what was made.
pub(crate) fn setup(options: &Options, namespace: &Path) -> Result<Value> {
    let attachments = options.attachments()?;
    let mut made = Vec::new();
    let result = (|| {
        let mut status = Map::new();
        // When a network is joined later, podman gives the ports again.
        let mut ports = if has_ports(&options.container_id)? { Vec::new() } else { ports(options) };
        for (name, interface, network) in &attachments {
            let id = id_of(&options.container_id, name)?;
            let about = json!({"network": name, "containerID": options.container_id});
            let document = foreign::document(KIND, &id, namespace, &about)?;
            let flags = flags(interface, network).with_context(|| format!("network {name:?}"))?;
            let mut document = run("bridge-attach", &flags, &document)?;
            made.push(id.clone());
            if !ports.is_empty() && !network.internal {
                document = run("portmap", &std::mem::take(&mut ports), &document)?;
            }
            status.insert((*name).to_owned(), block(&document)?);
        }
        match ports.is_empty() {
            true => Ok(Value::Object(status)),
            false => bail!("no port can be published: every network of the container is internal"),
        }
    })();
    if result.is_err() {
        // Only what this call made is undone.
        let scope: Scope = toolkit::scope(None, None)?;
        made.iter().rev().for_each(|id| drop(undo_all(&scope, id)));
    }
    result
}

/// Whether another network of the container already publishes its ports.
fn has_ports(container: &str) -> Result<bool> {
    let scope: Scope = toolkit::scope(None, None)?;
    for id in record::list(&scope.run_dir)? {
        let Some(document) = record::read(&scope.run_dir, &id)? else { continue };
        let is_own = foreign::about(KIND, &document).is_some_and(|own| own["containerID"] == container);
        if is_own && foreign::undo("portmap", &document)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Undoes everything, as far as possible. Returns the first error.
pub(crate) fn teardown(options: &Options) -> Result<()> {
    let scope: Scope = toolkit::scope(None, None)?;
    let mut first = Ok(());
    for name in options.networks.keys().rev() {
        let id = id_of(&options.container_id, name)?;
        first = first.and(undo_all(&scope, &id));
    }
    first
}

/// Undoes what was made for one network of a container.
fn undo_all(scope: &Scope, id: &Id) -> Result<()> {
    TOOLS.iter().rev().map(|name| undo(scope, id, name)).fold(Ok(()), Result::and)
}

fn undo(scope: &Scope, id: &Id, name: &str) -> Result<()> {
    let Some(document) = record::read(&scope.run_dir, id)? else { return Ok(()) };
    match foreign::undo(name, &document)? {
        Some(arguments) => run(name, &arguments, &document).map(drop),
        None => Ok(()),
    }
}

/// The id of the record for a network of a container.
fn id_of(container: &str, network: &str) -> Result<Id> {
    Ok(foreign::id(KIND, &[network, container])?)
}

fn run(name: &str, arguments: &[String], document: &Document) -> Result<Document> {
    let own = std::env::current_exe().context("find the tools")?;
    let program: PathBuf = own.with_file_name(name);
    tool::run(&program, name, arguments, document).map_err(|error| anyhow!("{name}: {error}"))
}

/// The flags for bridge-attach. Unsupported settings are errors.
fn flags(interface: &Interface, network: &Network) -> Result<Vec<String>> {
    if network.driver != "bridge" {
        bail!("driver {:?} is not supported, only bridge", network.driver);
    }
    let bridge = network.network_interface.as_deref().filter(|name| !name.is_empty());
    let bridge = bridge.ok_or_else(|| anyhow!("network_interface is missing"))?;
    let mut flags = vec![bridge.to_owned()];
    let mut add = |flag: &str, value: String| flags.extend([flag.to_owned(), value]);
    add("--interface", interface.interface_name.clone());
    add("--gateway-priority", plugin::priority(&interface.interface_name).to_string());
    let mut seen = Vec::new();
    for Subnet { subnet, gateway } in network.subnets.as_deref().unwrap_or_default() {
        let flag = if subnet.addr().is_ipv4() { "--subnet" } else { "--subnet6" };
        if seen.contains(&flag) {
            bail!("subnet {subnet} is not supported: only one of each version of IP is");
        }
        seen.push(flag);
        add(flag, subnet.trunc().to_string());
        gateway.iter().for_each(|gateway| add("--gateway", gateway.to_string()));
    }
    if seen == ["--subnet6"] {
        bail!("a network without IPv4 is not supported");
    }
    for address in interface.static_ips.as_deref().unwrap_or_default() {
        let flag = if address.is_ipv4() { "--ip" } else { "--ip6" };
        if seen.contains(&flag) {
            bail!("address {address} is not supported: only one of each version of IP is");
        }
        seen.push(flag);
        add(flag, address.to_string());
    }
    interface
        .static_mac
        .iter()
        .filter(|mac| !mac.is_empty())
        .for_each(|mac| add("--mac-address", mac.clone()));
    for route in network.routes.as_deref().unwrap_or_default() {
        if route.metric.is_some() {
            bail!("the metric of the route to {} is not supported", route.destination);
        }
        add("--route", format!("{} via {}", route.destination, route.gateway));
    }
    let options = network.options.iter().chain(&interface.options).flatten();
    for (key, value) in options {
        match (key.as_str(), value.as_str()) {
            ("mtu", mtu) => add("--mtu", mtu.to_owned()),
            // Networks are always isolated from each other.
            ("isolate", "true" | "strict") | ("mode", "managed") => {}
            ("com.docker.network.driver.mtu", mtu) => add("--mtu", mtu.to_owned()),
            (key, value) => bail!("option {key:?} with value {value:?} is not supported"),
        }
    }
    if network.internal {
        flags.push("--internal".to_owned());
    }
    Ok(flags)
}

/// The flags for portmap. Empty without ports. podman listens on the ports itself.
fn ports(options: &Options) -> Vec<String> {
    let ports = options.port_mappings.as_deref().unwrap_or_default();
    let specs: Vec<String> = ports.iter().flat_map(Port::specs).collect();
    match specs.is_empty() {
        true => Vec::new(),
        false => {
            let flags = specs.into_iter().flat_map(|spec| ["-p".to_owned(), spec]);
            flags.chain(["--no-hold".to_owned()]).collect()
        }
    }
}

/// netavark's status block for one network.
fn block(document: &Document) -> Result<Value> {
    let attachments = document.attachments()?;
    let attachment = attachments.last().context("bridge-attach has told of no attachment")?;
    let inside = attachment.cni.interfaces.iter().find(|interface| interface.sandbox.is_some());
    let mac = inside.and_then(|interface| interface.mac.clone()).unwrap_or_default();
    let subnets: Vec<Value> = attachment
        .cni
        .ips
        .iter()
        .map(|ip| match attachment.bridge.internal {
            true => json!({"ipnet": ip.address}),
            false => json!({"ipnet": ip.address, "gateway": ip.gateway}),
        })
        .collect();
    let interface = json!({"mac_address": mac, "subnets": subnets});
    let interfaces = Map::from_iter([(attachment.interface.clone(), interface)]);
    Ok(json!({"dns_search_domains": [], "dns_server_ips": [], "interfaces": interfaces}))
}
