//! Containers that have several records.
//!
//! A container of another runtime, such as podman, has a record for each of its networks, and only one
//! of them is served: there is one resolver in a network namespace. It can look up the names on all of
//! these networks.

use std::{collections::HashMap, path::PathBuf};

use crate::Container;

/// Joins the records of each network namespace: each gets the networks of all. Records without a
/// network are left alone.
pub(crate) fn joined(mut containers: Vec<Container>) -> Vec<Container> {
    let mut groups: HashMap<PathBuf, Vec<usize>> = HashMap::new();
    for (at, container) in containers.iter().enumerate() {
        if let (Some(namespace), false) = (&container.namespace, container.networks.is_empty()) {
            groups.entry(namespace.clone()).or_default().push(at);
        }
    }
    for group in groups.into_values().filter(|group| group.len() > 1) {
        let networks: Vec<_> = group.iter().flat_map(|at| containers[*at].networks.clone()).collect();
        for at in group {
            containers[at].networks.clone_from(&networks);
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
        let both = r#","netavark":{"names":{"aliases":["web","shop"]}},"names":{"aliases":["web","shop"]}"#;
        write("x-1", "web", "front", "10.1.0.2", both);
        // Its resolver is in the other record.
        write("x-2", "web", "back", "10.2.0.2", r#","netavark":{"names":{"aliases":["web","Store"]}}"#);
        let alone = r#","netavark":{"names":{"aliases":["db"]}},"names":{"aliases":["db"]}"#;
        write("x-3", "db", "back", "10.2.0.3", alone);
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
            // An alias is of one network.
            ("x-3", "store", &["10.2.0.2"]),
            ("x-3", "shop", &[]),
            ("x-1", "shop", &["10.1.0.2"]),
            ("x-1", "store", &["10.2.0.2"]),
            // In the domain that podman's containers search, also behind a network's name.
            ("x-3", "web.dns.podman", &["10.2.0.2"]),
            ("x-1", "db.back.dns.podman", &["10.2.0.3"]),
            ("x-3", "shop.dns.podman", &[]),
            ("in", "db", &[]),
        ] {
            let asker = containers.container(asker).unwrap();
            let labels: Vec<_> = name.split('.').map(|label| label.as_bytes().to_vec()).collect();
            let told = match containers.find(&asker, &labels) {
                Found::Addresses(mut addresses) => {
                    addresses.sort();
                    addresses.iter().map(ToString::to_string).collect()
                }
                _ => Vec::new(),
            };
            assert_eq!(told, found, "{} asks for {name}", asker.id);
        }
        let asker = containers.container("x-3").unwrap();
        let labels = ["nobody", "dns", "podman"].map(|label| label.as_bytes().to_vec());
        assert_eq!(containers.find(&asker, &labels), Found::Nobody, "no name server has that domain");
        let names = containers.names(&asker, "10.2.0.2".parse().unwrap()).unwrap();
        assert_eq!(names, ["store", "web"], "nobody knows podman's containers by an id of ours");
    }
}
