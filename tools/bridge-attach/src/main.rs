//! Attaches a container to a network.
//!
//! # Does
//! Makes sure that the network's bridge exists, with everything that it needs on the host, as netns-bridge
//! does. Leases an address of its subnet. Makes a veth pair: one side is a port of the bridge, the other an
//! interface in the container's namespace, with the address, a default route through the bridge, and
//! further routes. Several attachments make several interfaces: eth0, eth1 and so on. Containers on
//! different bridges reach each other only by published ports. If CNI_COMMAND is set, it is the CNI plugin
//! `stave-bridge` (docs/cni.md).
//! # Reads
//! `network`, `networks`; `$STAVE_ROOT/networks/NAME.json` or `NAME.conflist`; the leases below
//! `$STAVE_RUN/leases`.
//! # Adds
//! An element of `networks`; for versions before 0.2 also `network.bridge` and `network.cni`, if it is the
//! first.
//! # Undoes
//! The veth pair and the lease of the last attachment, or of the one to NAME. With the last container on
//! the bridge also the bridge, its masquerade, `ip_forward`, and its rules in the host's firewall.
//! # Needs
//! root (CAP_NET_ADMIN, CAP_SYS_ADMIN); the namespace that netns-add makes.

mod arguments;
mod plugin;

use std::process::ExitCode;

use anyhow::Result;
use arguments::BridgeAttach;
use attachment::{Asked, Container, NetworkOperation};
use document::{Document, Step, members};
use operation::Scope;
use toolkit::{Common, Context, Filter, Plan};

impl Filter for BridgeAttach {
    type Adds = members::Attached;
    type Operation = NetworkOperation;
    const LOCK: Option<&'static str> = Some("network");
    const READS: &'static [&'static str] = &["network", "networks"];

    fn common(&self) -> &Common {
        &self.common
    }

    fn restore(scope: &Scope) -> Result<()> {
        repair::restore(scope, || toolkit::recorded(scope))
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        let network = document.require::<members::Network>()?;
        attach_flags::refuse_restricted(document)?;
        let attachments = document.attachments()?;
        let named = self.named(&context.scope)?;
        let wanted = self.wanted(named.as_ref())?;
        let mut container = Container::new(&context.scope, &context.id, document)?;
        container.planned = context.planned;
        container.choose(self.inside.interface.as_deref(), &wanted.bridge, &network, &attachments)?;
        let recorded = || toolkit::recorded(&context.scope);
        let mut planned = attachment::network(&container, &wanted, self.firewall, recorded)?;
        let routers = std::mem::take(&mut planned.routers);
        let asked = self.inside.asked(named.as_ref(), &attachments)?;
        let asked = Asked { makes_bridge: planned.mac, routers, ..asked };
        let (attachment, pair) = attachment::pair(&container, &network.namespace, &planned.bridge, &asked)?;
        planned.operations.extend(pair);
        planned.operations.extend(attachment::complete_links(&container, document, &attachment)?);
        Ok(Plan { adds: members::Attached::new(&network, attachment), operations: planned.operations })
    }

    fn is_meant(&self, step: &Step) -> bool {
        attach_flags::is_meant(step, self.name.as_deref())
    }

    fn refuse_undo(_: &Scope, recorded: &Document, step: &Step) -> Result<()> {
        attachment::refuse_published(recorded, step)
    }

    fn forget(_: &mut Document) -> Result<()> {
        // An attachment that was not completed has added nothing.
        Ok(())
    }
}

pub(crate) fn main() -> ExitCode {
    if let Some(exit) = ::plugin::run(&plugin::PLUGIN) {
        return exit;
    }
    let exit = toolkit::filter::<BridgeAttach>();
    nat::close();
    exit
}
