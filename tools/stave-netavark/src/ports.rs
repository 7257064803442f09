//! The networks by which a container's ports are published.

use anyhow::{Result, bail};

use super::input::{Interface, Network, Options, Port};

/// A network of the container, with its name and the container's interface.
type Attached<'a> = (&'a str, &'a Interface, &'a Network);

/// Refuses ports that could not be published, or whose answers would leave by another network, where this host is not
/// the gateway: each network has a document of its own, so `portmap` does not see the others.
fn refuse_dead(options: &Options, attachments: &[Attached<'_>]) -> Result<()> {
    if options.port_mappings.as_ref().is_none_or(Vec::is_empty) {
        return Ok(());
    }
    if !attachments.iter().any(|(.., network)| network.publishes()) {
        if attachments.iter().all(|(.., network)| network.internal) {
            // As in netavark, nobody reaches an internal network by them.
            operation::note("no port is published: every network of the container is internal");
            return Ok(());
        }
        bail!("no port can be published: this host is the gateway of no network of the container");
    }
    let all = attachments.iter().filter(|(.., network)| network.leads_out());
    match all.min_by_key(|(.., network)| network.metric()) {
        Some((name, _, network)) if !network.publishes() => bail!(
            "no port can be published: the default route of the container is by network {name:?}, whose gateway is not this host"
        ),
        _ => Ok(()),
    }
}

/// The flags of portmap for each network that publishes the ports: the one by which the answers leave, and if that
/// lacks an IP version, another one that has it. podman listens on the ports itself.
///
/// # Errors
/// When no network can publish them.
pub(crate) fn wanted<'a>(
    options: &Options,
    attachments: &[Attached<'a>],
) -> Result<Vec<(&'a str, Vec<String>)>> {
    refuse_dead(options, attachments)?;
    let ports = options.port_mappings.as_deref().unwrap_or_default();
    let best = |is_fit: &dyn Fn(&Network) -> bool| {
        let all = attachments.iter().filter(|(.., network)| network.publishes() && is_fit(network));
        all.min_by_key(|(.., network)| (!network.leads_out(), network.metric())).copied()
    };
    let Some((name, _, main)) = best(&|_| true).filter(|_| !ports.is_empty()) else { return Ok(Vec::new()) };
    let lacks = [true, false].into_iter().find(|is_ipv4| !main.has(*is_ipv4));
    // The answers of that version must leave by it, too.
    let is_dead = |is_ipv4: bool| {
        let ways = attachments.iter().filter(|(.., network)| network.leads_out() && network.has(is_ipv4));
        ways.min_by_key(|(.., network)| network.metric()).is_some_and(|(.., network)| !network.publishes())
    };
    let lacks = lacks.filter(|is_ipv4| !is_dead(*is_ipv4));
    let second = lacks.and_then(|is_ipv4| Some((is_ipv4, best(&|network| network.has(is_ipv4))?.0)));
    let specs = |is_meant: &dyn Fn(&Port) -> Option<Vec<String>>| {
        let specs = ports.iter().filter_map(is_meant).flatten().flat_map(|spec| ["-p".to_owned(), spec]);
        let flags: Vec<String> = specs.chain(["--no-hold".to_owned()]).collect();
        (flags.len() > 1).then_some(flags)
    };
    let Some((is_ipv4, second)) = second else {
        return Ok(specs(&|port| Some(port.specs())).map(|flags| (name, flags)).into_iter().collect());
    };
    let is_of_second = |port: &Port| port.address().is_some_and(|address| address.is_ipv4() == is_ipv4);
    let of_main = specs(&|port| (!is_of_second(port)).then(|| port.specs()));
    // The second network may have the other version as well.
    let of_version = |port: &Port| match is_ipv4 {
        true => port.specs_at("").into_iter().map(|spec| format!("0.0.0.0:{spec}")).collect(),
        false => port.specs_at("::"),
    };
    let of_second = specs(&|port| match port.address() {
        None => Some(of_version(port)),
        Some(_) => is_of_second(port).then(|| port.specs()),
    });
    let flags = [of_main.map(|flags| (name, flags)), of_second.map(|flags| (second, flags))];
    Ok(flags.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What portmap gets for networks with these subnets and metrics.
    fn told(networks: &[(&str, &[&str], u32)]) -> Vec<String> {
        let (mut interfaces, mut info) = (json!({}), json!({}));
        for (at, (name, subnets, metric)) in networks.iter().enumerate() {
            let gateway =
                |subnet: &&str| subnet.split('/').next().unwrap().trim_end_matches('0').to_owned() + "1";
            let subnets: Vec<_> =
                subnets.iter().map(|subnet| json!({"subnet": subnet, "gateway": gateway(subnet)})).collect();
            interfaces[name] = json!({"interface_name": format!("eth{at}")});
            let driver = if *name == "wire" { "macvlan" } else { "bridge" };
            info[name] =
                json!({"driver": driver, "subnets": subnets, "options": {"metric": metric.to_string()}});
        }
        let port = |port: u16, host: &str| json!({"container_port": port, "host_port": 8000 + port, "host_ip": host});
        let ports = [port(80, ""), port(81, "127.0.0.1"), port(82, "::1")];
        let options = json!({"container_id": "a", "networks": interfaces, "network_info": info, "port_mappings": ports});
        let options: Options = serde_json::from_value(options).unwrap();
        let wanted = wanted(&options, &options.attachments().unwrap()).unwrap();
        wanted.into_iter().map(|(network, flags)| format!("{network} {}", flags.join(" "))).collect()
    }

    #[test]
    fn each_ip_version_has_a_network() {
        let (four, six): (&[&str], &[&str]) = (&["10.5.0.0/24"], &["fd05::/64"]);
        let both: &[&str] = &["10.6.0.0/24", "fd06::/64"];
        let one = "four -p 8080:80/tcp -p 127.0.0.1:8081:81/tcp -p [::1]:8082:82/tcp --no-hold";
        assert_eq!(told(&[("four", four, 100)]), [one]);
        assert_eq!(
            told(&[("four", four, 100), ("six", six, 101)]),
            [
                "four -p 8080:80/tcp -p 127.0.0.1:8081:81/tcp --no-hold",
                "six -p [::]:8080:80/tcp -p [::1]:8082:82/tcp --no-hold",
            ]
        );
        assert_eq!(
            told(&[("both", both, 100), ("six", six, 99)]),
            [
                "six -p 8080:80/tcp -p [::1]:8082:82/tcp --no-hold",
                "both -p 0.0.0.0:8080:80/tcp -p 127.0.0.1:8081:81/tcp --no-hold",
            ]
        );
        assert_eq!(told(&[("both", both, 100), ("six", six, 101)]).len(), 1);
        // The answers of IPv6 would leave by the wire.
        assert_eq!(told(&[("four", four, 50), ("wire", &["fd07::/64"], 99), ("six", six, 100)]), [one]);
    }
}
