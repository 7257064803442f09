//! Containers that have several records.
//!
//! A container of another runtime, such as podman, has a record for each of its networks, and only one
//! of them has names: there is one resolver in a network namespace.

use std::{collections::HashMap, path::PathBuf};

use crate::Container;

/// Joins the records of each network namespace: each gets the networks and aliases of all. Records
/// without a network are left alone.
pub(crate) fn joined(mut containers: Vec<Container>) -> Vec<Container> {
    let mut groups: HashMap<PathBuf, Vec<usize>> = HashMap::new();
    for (at, container) in containers.iter().enumerate() {
        if let (Some(namespace), false) = (&container.namespace, container.networks.is_empty()) {
            groups.entry(namespace.clone()).or_default().push(at);
        }
    }
    for group in groups.into_values().filter(|group| group.len() > 1) {
        let members = || group.iter().map(|at| &containers[*at]);
        let networks: Vec<_> = members().flat_map(|one| one.networks.clone()).collect();
        let mut aliases: Vec<_> = members().flat_map(|one| one.aliases.clone()).collect();
        aliases.sort();
        aliases.dedup();
        for at in group {
            containers[at].networks.clone_from(&networks);
            containers[at].aliases.clone_from(&aliases);
        }
    }
    containers
}

#[cfg(test)]
mod tests {
    use crate::{Containers, Found};

    #[test]
    fn a_container_with_two_records_has_the_networks_of_both() {
        let directory = tempfile::tempdir().unwrap();
        let write = |id: &str, namespace: &str, bridge: &str, address: &str, more: &str| {
            let text = format!(
                r#"{{"id":"{id}","network":{{"mode":"none","namespace":"/run/netns/{namespace}"}},"networks":[{{"name":"{bridge}",
                    "bridge":{{"name":"{bridge}"}},"cni":{{"ips":[{{"address":"{address}/24"}}]}}}}]{more}}}"#
            );
            std::fs::write(directory.path().join(format!("{id}.json")), text).unwrap();
        };
        write("x-1", "web", "front", "10.1.0.2", r#","names":{"aliases":["web"]}"#);
        write("x-2", "web", "back", "10.2.0.2", "");
        write("x-3", "db", "back", "10.2.0.3", r#","names":{"aliases":["db"]}"#);
        // This one has no network of its own.
        std::fs::write(
            directory.path().join("in.json"),
            r#"{"id":"in","network":{"namespace":"/run/netns/web"}}"#,
        )
        .unwrap();
        let mut containers = Containers::new(directory.path());
        for (asker, name, found) in [
            ("x-1", "db", &["10.2.0.3"][..]),
            ("x-3", "web", &["10.2.0.2"]),
            ("x-1", "web", &["10.1.0.2", "10.2.0.2"]),
            ("in", "db", &[]),
        ] {
            let asker = containers.container(asker).unwrap();
            let told = match containers.find(&asker, &[name.as_bytes().to_vec()]) {
                Found::Addresses(mut addresses) => {
                    addresses.sort();
                    addresses.iter().map(ToString::to_string).collect()
                }
                _ => Vec::new(),
            };
            assert_eq!(told, found, "{} asks for {name}", asker.id);
        }
    }
}
