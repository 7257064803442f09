//! The variables of Docker's links: the addresses of the other container's ports, and the environment from
//! its image and `-e`.

use std::net::IpAddr;

use document::{Document, Error, members};

/// In a longer range of published ports, only the first port gets variables, because the size of an
/// environment is limited.
const LONGEST: u16 = 256;

/// The variables for the container `id`, which knows `other` as `alias` at the address `ip`.
pub(crate) fn variables(id: &str, alias: &str, ip: IpAddr, other: &Document) -> Result<Vec<String>, Error> {
    let prefix = alias.to_uppercase().replace(['-', '.'], "_");
    let image = other.get::<members::Image>()?;
    let configuration = image.as_ref().and_then(|image| image.configuration.config().as_ref());
    let mut variables = Vec::new();

    // ALIAS_PORT names the first port.
    let ports = attachment::ports(other, LONGEST)?;
    if let Some((port, protocol)) = ports.first() {
        variables.push(format!("{prefix}_PORT={protocol}://{ip}:{port}"));
    }
    for (port, protocol) in &ports {
        let name = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        variables.push(format!("{name}={protocol}://{ip}:{port}"));
        variables.push(format!("{name}_ADDR={ip}"));
        variables.push(format!("{name}_PORT={port}"));
        variables.push(format!("{name}_PROTO={protocol}"));
    }
    variables.push(format!("{prefix}_NAME=/{id}/{alias}"));
    let of_image = configuration.and_then(|config| config.env().clone()).unwrap_or_default();
    for (name, value) in set_for(other, of_image)?.iter().filter_map(|variable| variable.split_once('=')) {
        // These describe the other container's own programs and files.
        if !matches!(name, "PATH" | "HOME" | "HOSTNAME" | "TERM") {
            variables.push(format!("{prefix}_ENV_{name}={value}"));
        }
    }
    Ok(variables)
}

/// The other container's environment, from its image and its command line, without the variables of its own
/// links.
fn set_for(other: &Document, of_image: Vec<String>) -> Result<Vec<String>, Error> {
    let Some(process) = other.get::<members::Process>()? else { return Ok(of_image) };
    let links = other.get::<members::Hosts>()?.unwrap_or_default().environment;
    let set = process.spec["env"].as_array().into_iter().flatten().filter_map(|variable| variable.as_str());
    Ok(set.map(str::to_owned).filter(|variable| !links.contains(variable)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_of_a_run_has_its_variables() {
        let ports = |range: u16| {
            let port = format!(r#"{{"hostPort":8000,"containerPort":80,"protocol":"tcp","range":{range}}}"#);
            let other = format!(r#"{{"stave":1,"id":"db","ports":[{port}]}}"#);
            let other = Document::parse(other.as_bytes()).unwrap();
            let variables = variables("web", "db", [10, 0, 0, 2].into(), &other).unwrap();
            let ports = variables.iter().filter_map(|variable| variable.strip_suffix("_PROTO=tcp"));
            ports.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(ports(3), ["DB_PORT_80_TCP", "DB_PORT_81_TCP", "DB_PORT_82_TCP"]);
        // Variables for all of them would not fit into an environment.
        assert_eq!((ports(256).len(), ports(257)), (256, vec!["DB_PORT_80_TCP".to_owned()]));
    }
}
