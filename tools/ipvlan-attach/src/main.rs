//! Attaches a container to the wire of a link of the host, by an ipvlan.
//!
//! # Does
//! Leases an address of the wire's subnet, after it has asked whether a station has it. Makes an ipvlan of the
//! parent in the container's namespace: an interface with the parent's hardware address, with an address of its
//! own, and a default route through the router on the wire. That fits where a switch or a cloud accepts one
//! hardware address only. The host itself does not reach the container over the parent, and publishes no ports
//! of it. A VLAN on the parent (eth0.100) is made for its first container.
//! If CNI_COMMAND is set, it is the CNI plugin `stave-ipvlan` (docs/cni.md).
//! # Reads
//! `network`, `networks`; `$STAVE_ROOT/networks/NAME.json`; the leases below `$STAVE_RUN/leases`.
//! # Adds
//! An element of `networks`; `network.mode`.
//! # Undoes
//! The ipvlan and the lease of the last attachment, or of the one to NAME. With the last container on it also
//! the VLAN.
//! # Needs
//! root (CAP_NET_ADMIN, CAP_SYS_ADMIN); the namespace that netns-add makes; ipvlan in the kernel.

use std::process::ExitCode;

use attach_flags::{Attach, Driver};
use netlink::Child;
use plugin::Plugin;

const PLUGIN: Plugin = Plugin {
    tool: Ipvlan::TOOL,
    begins: true,
    arguments: |request| plugin::on_a_wire(request, &[]),
    result: plugin::attached,
};

#[derive(Debug, Default, Clone)]
struct Ipvlan;

impl Driver for Ipvlan {
    const KIND: &'static str = "ipvlan";
    const MODES: &'static [&'static str] = &Child::IPVLAN;
    const TOOL: &'static str = "ipvlan-attach";
    const ABOUT: &'static str =
        "Attach a container to the network of a link of the host, with the link's hardware address";
    const MODE: &'static str = "What the containers share. l2: the frames of the parent, as on one switch; l3: packets, which the host routes, so other machines need a route to the host; l3s: the same, through the host's netfilter [default: l2]";
}

pub(crate) fn main() -> ExitCode {
    if let Some(exit) = plugin::run(&PLUGIN) {
        return exit;
    }
    toolkit::filter::<Attach<Ipvlan>>()
}
