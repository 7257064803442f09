//! Connects a container's network namespace to its bridge.
//!
//! # Does
//! Leases an address of the bridge's subnet. Makes a veth pair: one side is a port of the bridge, the other
//! is `eth0` in the namespace. Gives `eth0` the address and a default route through the gateway. The port
//! drops packets from and to 127.0.0.0/8. On a bridge that Stave did not make, the bridge drops them instead,
//! and an address is leased only if nobody answers for it.
//! # Reads
//! `network`; the leases below `$STAVE_RUN/leases`.
//! # Adds
//! An element of `networks`; for versions before 0.2 also `network.cni`.
//! # Undoes
//! The veth pair, with its address and route; the lease.
//! # Needs
//! Root (CAP_NET_ADMIN, CAP_SYS_ADMIN).

use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use attachment::{Asked, Container, NetworkOperation};
use clap::Parser;
use document::{Document, Step, members};
use operation::Scope;
use toolkit::{Common, Context, Filter, Plan, hint};

/// Make a veth pair between a network namespace and its bridge, with an address and a default route
#[derive(Parser)]
#[command(name = "veth-pair", version)]
struct VethPair {
    /// The MTU of the interface in bytes; by default that of the route out, or of a bridge that Stave did not
    /// make
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(attachment::MTU))]
    mtu: Option<u32>,
    #[command(flatten)]
    common: Common,
}

impl Filter for VethPair {
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
        if network.cni.is_some() {
            bail!("the container has an interface already");
        }
        let Some(on) = &network.bridge else {
            let error = anyhow!("no bridge in `network`");
            return Err(hint(error, "after netns-add, bridge-attach joins the container to one"));
        };
        let mut container = Container::new(&context.scope, &context.id, document)?;
        container.planned = context.planned;
        let asked = Asked { mtu: self.mtu, ..Asked::default() };
        let (attachment, mut operations) = attachment::pair(&container, &network.namespace, on, &asked)?;
        operations.extend(attachment::complete_links(&container, document, &attachment)?);
        Ok(Plan { adds: members::Attached::new(&network, attachment), operations })
    }

    fn refuse_undo(_: &Scope, recorded: &Document, step: &Step) -> Result<()> {
        attachment::refuse_published(recorded, step)
    }

    fn forget(document: &mut Document) -> Result<()> {
        if let Some(network) = document.get::<members::Network>()? {
            document.set(&members::Network { cni: None, ..network })?;
        }
        Ok(())
    }
}

pub(crate) fn main() -> ExitCode {
    let exit = toolkit::filter::<VethPair>();
    nat::close();
    exit
}
