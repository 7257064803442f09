//! The container to attach.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use document::{
    Document, Instance,
    members::{Attachment, Namespace, Network, On},
};
use netlink::{Mark, veth_name};
use netns::NetnsOperation;
use operation::{Error, Scope};

use crate::unfit::Unfit;

/// The name of the first interface in a container.
pub(crate) const FIRST: &str = "eth0";

/// A container, and the interface that it gets.
#[derive(Debug, Clone)]
pub struct Container<'a> {
    /// The directories of stores and records.
    pub scope: &'a Scope,
    /// Its id.
    pub id: &'a str,
    /// Its instance, if it has one already.
    pub instance: Option<String>,
    /// The name of the interface in the container's namespace.
    pub interface: String,
    /// Whether this is only a plan, so that the objects it needs may not exist yet.
    pub planned: bool,
}

impl<'a> Container<'a> {
    /// The container of a document, with the first interface.
    ///
    /// # Errors
    /// When its instance cannot be read.
    pub fn new(scope: &'a Scope, id: &'a str, document: &Document) -> Result<Self, document::Error> {
        let instance = document.get::<Instance>()?.map(|instance| instance.to_string());
        Ok(Self { scope, id, instance, interface: FIRST.to_owned(), planned: document.is_planned()? })
    }

    /// The mark of the container's objects.
    pub(crate) fn mark(&self) -> Mark {
        Mark::new(self.id, self.instance.as_deref())
    }

    /// The holder of this attachment's claims. It is unique, because no id contains a colon.
    pub(crate) fn holder(&self) -> String {
        format!("{}:{}", self.id, self.interface)
    }

    /// The name of the host's side of the link.
    pub(crate) fn link(&self) -> String {
        veth_name(self.id, &self.interface)
    }

    /// Refuses this host's own network namespace: its links, routes and addresses are not a container's.
    pub(crate) fn refuse_own(&self, namespace: &Path) -> Result<(), Error> {
        match netlink::namespace::is_own(namespace) {
            true => Err(Unfit::OwnNamespace(namespace.to_owned()).into()),
            false => Ok(()),
        }
    }

    /// Chooses the interface: `wanted`, or the first of eth0, eth1 and so on that no attachment
    /// has. `network` is the document's network. If nothing is attached to its bridge yet, the
    /// first interface is left for veth-pair.
    ///
    /// # Errors
    /// When another attachment has the interface, or uses this `link` of the host.
    pub fn choose(
        &mut self,
        wanted: Option<&str>,
        link: &str,
        network: &Network,
        attachments: &[Attachment],
    ) -> Result<(), Error> {
        let kept = network.bridge.as_ref().filter(|_| network.cni.is_none());
        let taken: Vec<(&str, &str)> = attachments
            .iter()
            .map(|one| (one.interface.as_str(), one.on.link()))
            .chain(kept.map(|bridge| (FIRST, bridge.name.as_str())))
            .collect();
        if taken.iter().any(|(_, on)| *on == link) {
            let own = attachments.iter().find(|one| one.on.link() == link);
            let twice = own.map_or_else(|| format!("bridge {link:?}"), |one| what(&one.on));
            return Err(Unfit::Twice(twice).into());
        }
        let mut by: HashMap<&str, &str> = HashMap::with_capacity(taken.len());
        for (interface, on) in taken {
            by.entry(interface).or_insert(on);
        }
        self.interface = match wanted {
            Some(name) => match by.get(name) {
                Some(by) => {
                    let (interface, by) = (name.to_owned(), (*by).to_owned());
                    return Err(Unfit::InterfaceTaken { interface, by }.into());
                }
                None => name.to_owned(),
            },
            None => (0..)
                .map(|number| format!("eth{number}"))
                .find(|name| !by.contains_key(name.as_str()))
                .unwrap_or_else(|| FIRST.to_owned()),
        };
        Ok(())
    }
}

/// A bridge or a parent in words: `bridge "stave0"`, `link "eth0"`.
pub(crate) fn what(on: &On) -> String {
    match on {
        On::Bridge(bridge) => format!("bridge {:?}", bridge.name),
        On::Parent(parent) => format!("link {:?}", parent.name),
    }
}

/// Plans the namespace of the container: `/run/netns/<id>`, with `lo` up in it.
///
/// # Errors
/// When the namespace exists already.
pub fn namespace(container: &Container<'_>) -> Result<(Namespace, NetnsOperation), Error> {
    let namespace: PathBuf = Path::new("/run/netns").join(container.id);
    if namespace.symlink_metadata().is_ok() {
        return Err(Unfit::NamespaceExists(namespace).into());
    }
    let operation = NetnsOperation::new(&namespace, container.id).marked(container.mark());
    Ok((Namespace { mode: "none", namespace }, operation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn attachment(interface: &str, bridge: &str) -> Attachment {
        serde_json::from_value(json!({
            "name": bridge, "interface": interface, "cni": {"cniVersion": "1.1.0"},
            "bridge": {"name": bridge, "subnet": "10.0.0.0/24", "gateway": "10.0.0.1"},
        }))
        .unwrap()
    }

    /// So many that the test would take minutes if the time grew with the square.
    #[test]
    fn many_attachments_take_no_longer_each() {
        let scope = Scope { root: "/r".into(), run_dir: "/s".into() };
        let many: Vec<Attachment> =
            (0..50_000).map(|n| attachment(&format!("eth{n}"), &format!("b{n}"))).collect();
        let network = Network {
            mode: "none".into(),
            namespace: "/run/netns/web".into(),
            bridge: None,
            cni: None,
            other: Default::default(),
        };
        let interface = String::new();
        let mut container = Container { scope: &scope, id: "web", instance: None, interface, planned: false };
        container.choose(None, "c", &network, &many).unwrap();
        assert_eq!(container.interface, "eth50000");
    }

    #[test]
    fn interfaces_are_chosen_in_turn() {
        let scope = Scope { root: "/r".into(), run_dir: "/s".into() };
        let network = |bridge: bool| Network {
            mode: "none".into(),
            namespace: "/run/netns/web".into(),
            bridge: attachment("", "kept").on.bridge().filter(|_| bridge).cloned(),
            cni: None,
            other: Default::default(),
        };
        let two = [attachment("eth0", "a"), attachment("wan", "b")];
        for (wanted, bridge, kept, attachments, chosen) in [
            (None, "c", false, &[][..], "eth0"),
            (None, "c", false, &two, "eth1"),
            (None, "c", true, &[], "eth1"),
            (Some("wan"), "c", false, &[], "wan"),
            (Some("wan"), "c", false, &two, "interface \"wan\" is taken by network \"b\""),
            (Some("eth0"), "c", true, &[], "interface \"eth0\" is taken by network \"kept\""),
            (None, "b", false, &two, "the container is on bridge \"b\" already"),
            (None, "kept", true, &[], "the container is on bridge \"kept\" already"),
        ] {
            let mut container = Container {
                scope: &scope,
                id: "web",
                instance: None,
                interface: String::new(),
                planned: false,
            };
            let told = match container.choose(wanted, bridge, &network(kept), attachments) {
                Ok(()) => container.interface,
                Err(error) => error.to_string(),
            };
            assert_eq!(told, chosen);
        }
    }
}
