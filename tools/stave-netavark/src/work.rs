//! `setup` and `teardown`.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use attachment::named::FileRoute;
use document::{Document, Id, members, record, table};
use netlink::Connection;
use operation::Scope;
use plugin::{foreign, tool};
use serde_json::{Map, Value, json};

use super::{
    input::{Interface, Network, Options, Subnet},
    naming::{self, Names},
    ports,
};

/// The prefix of the ids, and the document's member that says to which network and container a record
/// belongs.
pub(crate) const KIND: &str = "netavark";

/// Attaches the container. If anything fails, undoes what was made.
pub(crate) fn setup(options: &Options, namespace: &Path) -> Result<Value> {
    let attachments = options.attachments()?;
    let scope: Scope = toolkit::scope(None, None)?;
    let mut made = Vec::new();
    Connection::open(Some(namespace))?.set_loopback_up()?;
    let result = (|| {
        let mut status = Map::new();
        let has = |tool| naming::has(&scope, &options.container_id, tool);
        let tool = |(name, interface, network): &(&str, &Interface, &Network)| {
            attached(interface, network).with_context(|| format!("network {name:?}"))
        };
        let tools = attachments.iter().map(tool).collect::<Result<Vec<_>>>()?;
        // When a network is joined later, podman gives the ports again.
        let ports = if has("portmap")? { Vec::new() } else { ports::wanted(options, &attachments)? };
        let mut has_names = has(naming::TOOL)?;
        for ((name, interface, network), (tool, mut flags)) in attachments.iter().zip(tools) {
            let id = id_of(&options.container_id, name)?;
            let names = Names::wanted(options, interface, network);
            let mut about = json!({"network": name, "containerID": options.container_id});
            if let Some(names) = &names {
                about["names"] = serde_json::to_value(names)?;
            }
            let document = foreign::document(KIND, &id, namespace, &about)?;
            let metric = plugin::free_metric(namespace, network.metric())?.to_string();
            flags.extend(["--metric".to_owned(), metric]);
            let mut document = run(tool, &flags, &document)?;
            made.push(id.clone());
            for (_, flags) in ports.iter().filter(|(network, _)| network == name) {
                document = run("portmap", flags, &document)?;
            }
            if let (Some(names), false) = (&names, has_names) {
                document = run(naming::TOOL, &names.flags(), &document)?;
                has_names = true;
            }
            let own = options.dns_servers.as_deref().filter(|_| !has_names);
            status.insert((*name).to_owned(), block(&document, own)?);
        }
        Ok(Value::Object(status))
    })();
    if result.is_err() {
        // Only what this call made is undone.
        made.iter().rev().for_each(|id| drop(undo_all(&scope, id)));
    }
    result
}

/// Undoes everything, as far as possible. Returns the first error.
pub(crate) fn teardown(options: &Options) -> Result<()> {
    let scope: Scope = toolkit::scope(None, None)?;
    let mut first = Ok(());
    for one in options.networks.iter().rev() {
        let id = id_of(&options.container_id, &one.name)?;
        first = first.and(undo_all(&scope, &id));
    }
    first.and(naming::go_on(&scope, &options.container_id))
}

/// Undoes what was made for one network of a container.
fn undo_all(scope: &Scope, id: &Id) -> Result<()> {
    let Some(document) = record::read(&scope.run_dir, id)? else { return Ok(()) };
    let (tools, known) = (document.tools()?, table::network_tools());
    let own = tools.iter().rev().filter(|tool| known.contains(&tool.as_str()));
    own.map(|name| undo(scope, id, name)).fold(Ok(()), Result::and)
}

pub(crate) fn undo(scope: &Scope, id: &Id, name: &str) -> Result<()> {
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

pub(crate) fn run(name: &str, arguments: &[String], document: &Document) -> Result<Document> {
    let own = std::env::current_exe().context("find the tools")?;
    let program: PathBuf = own.with_file_name(name);
    tool::run(&program, name, arguments, document).map_err(|error| anyhow!("{name}: {error}"))
}

/// The driver of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bridge,
    Macvlan,
    Ipvlan,
}

impl Kind {
    /// The driver with this name.
    pub(crate) fn of(driver: &str) -> Result<Self> {
        Ok(match driver {
            "bridge" => Self::Bridge,
            "macvlan" => Self::Macvlan,
            "ipvlan" => Self::Ipvlan,
            driver => bail!("driver {driver:?} is not supported, only bridge, macvlan and ipvlan"),
        })
    }
}

/// Refuses addresses that podman does not lease itself. Without any, a container gets one by itself.
pub(crate) fn refuse_ipam(kind: Kind, driver: &str) -> Result<()> {
    match driver {
        "host-local" => Ok(()),
        NO_ADDRESSES if kind != Kind::Bridge => Ok(()),
        NO_ADDRESSES => bail!("ipam driver \"none\" is not supported on a bridge"),
        driver => bail!("ipam driver {driver:?} is not supported, only host-local and none"),
    }
}

/// The ipam driver of networks whose containers get no address.
pub(crate) const NO_ADDRESSES: &str = "none";

/// The flags for an option of a network. Empty if it is met anyway. The metric is read with the network.
pub(crate) fn option(kind: Kind, key: &str, value: &str) -> Result<Vec<String>> {
    let flags = |flags: &[&str]| Ok(flags.iter().map(|flag| (*flag).to_owned()).collect());
    match (key, value) {
        // As in netavark, 0 is the usual one.
        ("mtu" | "com.docker.network.driver.mtu", "0") => flags(&[]),
        ("mtu" | "com.docker.network.driver.mtu", value) => match attachment::parse_mtu(value) {
            Some(_) => flags(&["--mtu", value]),
            None => bail!("option {key:?} with value {value:?} is not 68 to 65535 bytes"),
        },
        ("metric", value) if value.parse::<u32>().is_ok() => flags(&[]),
        ("metric", value) => bail!("option {key:?} with value {value:?} is not a number"),
        ("no_default_route", "true") => flags(&["--no-default-route"]),
        ("no_default_route", "false") => flags(&[]),
        // Networks are always isolated from each other.
        ("isolate", "true" | "strict") | ("mode", "" | "managed") if kind == Kind::Bridge => flags(&[]),
        ("mode", "unmanaged") if kind == Kind::Bridge => flags(&["--unmanaged"]),
        ("mode", value) if kind != Kind::Bridge => flags(&["--mode", value]),
        (key, value) => bail!("option {key:?} with value {value:?} is not supported"),
    }
}

/// A route in the form of `--route`.
pub(crate) fn route(route: &FileRoute) -> Result<String> {
    let attachment::Route { destination, gateway, rejection, metric } =
        route.route().map_err(|wrong| anyhow!(wrong))?;
    let way = match (rejection, gateway) {
        (Some(rejection), _) => format!(" {}", rejection.name()),
        (None, gateway) => gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default(),
    };
    let metric = metric.map(|metric| format!(" metric {metric}")).unwrap_or_default();
    Ok(format!("{destination}{way}{metric}"))
}

/// The tool that attaches the container, and its flags. Unsupported settings are errors.
fn attached(interface: &Interface, network: &Network) -> Result<(&'static str, Vec<String>)> {
    let ipam = network.ipam_options.as_ref().and_then(|options| options.get("driver"));
    let link = network.network_interface.as_deref().filter(|name| !name.is_empty());
    let kind = Kind::of(&network.driver)?;
    ipam.map_or(Ok(()), |driver| refuse_ipam(kind, driver))?;
    let (tool, mut flags) = match (kind, link) {
        (Kind::Bridge, Some(bridge)) => ("bridge-attach", vec![bridge.to_owned()]),
        (Kind::Bridge, None) => bail!("network_interface is missing"),
        (Kind::Macvlan, link) => ("macvlan-attach", parent(link)),
        (Kind::Ipvlan, link) => ("ipvlan-attach", parent(link)),
    };
    if ipam.is_some_and(|driver| driver == NO_ADDRESSES) {
        flags.push("--no-addresses".to_owned());
    }
    let mut add = |flag: &str, value: String| flags.extend([flag.to_owned(), value]);
    add("--interface", interface.interface_name.clone());
    let (mut seen, mut gateways) = (Vec::new(), Vec::new());
    for Subnet { subnet, gateway, .. } in network.subnets.as_deref().unwrap_or_default() {
        let flag = if subnet.addr().is_ipv4() { "--subnet" } else { "--subnet6" };
        if seen.contains(&flag) {
            let gateway = gateway.map_or_else(|| "none".to_owned(), |gateway| gateway.to_string());
            add("--further-subnet", format!("{} gateway {gateway}", subnet.trunc()));
            continue;
        }
        seen.push(flag);
        add(flag, subnet.trunc().to_string());
        gateways.extend(gateway.map(|gateway| gateway.to_string()));
    }
    // Without a gateway in any subnet, the network has none.
    if gateways.is_empty() && !seen.is_empty() {
        gateways.push("none".to_owned());
    }
    gateways.into_iter().for_each(|gateway| add("--gateway", gateway));
    if seen == ["--subnet6"] {
        add("--ipv4", "false".to_owned());
    }
    for address in interface.static_ips.as_deref().unwrap_or_default() {
        add(if address.is_ipv4() { "--ip" } else { "--ip6" }, address.to_string());
    }
    interface
        .static_mac
        .iter()
        .filter(|mac| !mac.is_empty())
        .for_each(|mac| add("--mac-address", mac.clone()));
    for one in network.routes.as_deref().unwrap_or_default() {
        add("--route", route(one)?);
    }
    for (key, value) in network.options.iter().flatten() {
        flags.extend(option(kind, key, value)?);
    }
    if network.internal {
        flags.push("--internal".to_owned());
    }
    Ok((tool, flags))
}

/// The flags for the parent. None means the link of the default route.
fn parent(link: Option<&str>) -> Vec<String> {
    link.into_iter().flat_map(|link| ["--parent".to_owned(), link.to_owned()]).collect()
}

/// netavark's status block for one network. A container without names has name servers of its `own`.
fn block(document: &Document, own: Option<&[IpAddr]>) -> Result<Value> {
    let attachments = document.attachments()?;
    let attachment = attachments.last().context("there is no attachment")?;
    let inside = attachment.cni.interfaces.iter().find(|interface| interface.sandbox.is_some());
    let mac = inside.and_then(|interface| interface.mac.clone()).unwrap_or_default();
    let subnets: Vec<Value> = attachment
        .cni
        .ips
        .iter()
        .map(|ip| match ip.gateway.filter(|_| !attachment.on.is_internal()) {
            None => json!({"ipnet": ip.address}),
            Some(gateway) => json!({"ipnet": ip.address, "gateway": gateway}),
        })
        .collect();
    let interface = json!({"mac_address": mac, "subnets": subnets});
    let interfaces = Map::from_iter([(attachment.interface.clone(), interface)]);
    let (domains, servers) = match document.get::<members::Names>()? {
        Some(names) => (vec![names::PODMANS], vec![names.resolver]),
        None => (Vec::new(), own.unwrap_or_default().to_vec()),
    };
    Ok(json!({"dns_search_domains": domains, "dns_server_ips": servers, "interfaces": interfaces}))
}
