//! Attaches a container to the wire of a link of the host, by a macvlan.
//!
//! # Does
//! Leases an address of the wire's subnet, after it has asked whether a station has it. Makes a macvlan of the
//! parent in the container's namespace: an interface with a hardware address of its own, with the address, and
//! a default route through the router on the wire. Others on the wire reach the container as another machine.
//! The host itself does not reach it over the parent, and publishes no ports of it. A VLAN on the parent
//! (eth0.100) is made for its first container.
//! If CNI_COMMAND is set, it is the CNI plugin `stave-macvlan` (docs/cni.md).
//! # Reads
//! `network`, `networks`; `$STAVE_ROOT/networks/NAME.json`; the leases below `$STAVE_RUN/leases`.
//! # Adds
//! An element of `networks`; `network.mode`.
//! # Undoes
//! The macvlan and the lease of the last attachment, or of the one to NAME. With the last container on it also
//! the VLAN.
//! # Needs
//! root (CAP_NET_ADMIN, CAP_SYS_ADMIN); the namespace that netns-add makes.

use std::process::ExitCode;

use attach_flags::{Attach, Driver};
use netlink::Child;
use plugin::Plugin;

const PLUGIN: Plugin = Plugin {
    tool: Macvlan::TOOL,
    begins: true,
    arguments: |request| plugin::on_a_wire(request, &[]),
    result: plugin::attached,
};

#[derive(Debug, Default, Clone)]
struct Macvlan;

impl Driver for Macvlan {
    const KIND: &'static str = "macvlan";
    const MODES: &'static [&'static str] = &Child::MACVLAN;
    const TOOL: &'static str = "macvlan-attach";
    const ABOUT: &'static str =
        "Attach a container to the network of a link of the host, with its own hardware address";
    const MODE: &'static str = "What the container reaches besides the host's network. bridge: the other macvlans of the parent; private: none of them; vepa: those to which a switch sends the frames back; passthru: the container has the parent for itself, with the parent's hardware address [default: bridge]";
}

pub(crate) fn main() -> ExitCode {
    if let Some(exit) = plugin::run(&PLUGIN) {
        return exit;
    }
    toolkit::filter::<Attach<Macvlan>>()
}
