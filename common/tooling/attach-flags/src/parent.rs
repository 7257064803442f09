//! Attaches a container to the wire of a link of the host.

use std::{fmt, marker::PhantomData};

use anyhow::{Result, anyhow};
use attachment::{
    Container, Gateways, NetworkOperation, WantedParent,
    named::{self, Named},
};
use clap::{Parser, builder::PossibleValuesParser};
use document::{Document, Step, members};
use netlink::Child;
use operation::Scope;
use toolkit::{Common, Context, Filter, Plan, hint};

use crate::{Inside, Subnets, is_meant, refuse_flags, refuse_restricted};

/// What differs between macvlan-attach and ipvlan-attach.
pub trait Driver: fmt::Debug + Default + Clone + Send + Sync + 'static {
    /// The kind of the interface, in the kernel's words.
    const KIND: &'static str;
    /// The modes. The first is the default.
    const MODES: &'static [&'static str];
    /// The tool's name.
    const TOOL: &'static str;
    /// What the tool does, in one line.
    const ABOUT: &'static str;
    /// The help of `--mode`.
    const MODE: &'static str;
}

/// The command line of macvlan-attach and ipvlan-attach.
#[derive(Debug, Parser)]
#[command(
    name = D::TOOL,
    version,
    about = D::ABOUT,
    long_about = None,
    mut_arg("subnet", |arg| arg.help("Subnet of the wire; default: that of the parent's address")),
    mut_arg("gateways", |arg| arg.help("The router on the wire; default: that of the parent's default route, or the subnet's first address, if that is not this host's. One for each IP version. \"none\": no default route")),
    mut_arg("ipv4", |arg| arg.help("With `false`, the network has IPv6 only; needs --subnet6")),
    mut_arg("subnet6", |arg| arg.help("IPv6 subnet of the wire; default: no IPv6")),
    mut_arg("internal", |arg| arg.help("Give the container no default route: it reaches only its subnet")),
    mut_arg("mtu", |arg| arg.help("MTU of the interface in bytes; default: the parent's")),
)]
pub struct Attach<D: Driver> {
    /// A network of network-create, or a name for the network of --parent
    #[arg(value_name = "NAME", value_parser = named::parse_network)]
    name: Option<String>,
    /// The link of the host whose network the container joins; default: that of the default route. eth0.100
    /// is VLAN 100 on eth0. If it does not exist, it is made, and removed with its last container
    #[arg(long, value_name = "LINK", value_parser = attachment::parse_name)]
    parent: Option<String>,
    #[arg(long, value_name = "MODE", help = D::MODE, value_parser = PossibleValuesParser::new(D::MODES))]
    mode: Option<String>,
    /// Give the container no address: it gets one by itself, by DHCP for example
    #[arg(long, conflicts_with_all = ["subnet", "ip_range", "gateways", "ipv4", "subnet6", "ip6_range", "further"])]
    no_addresses: bool,
    #[command(flatten)]
    inside: Inside,
    #[command(flatten)]
    subnets: Subnets,
    #[command(flatten)]
    common: Common,
    #[arg(skip)]
    driver: PhantomData<D>,
}

impl<D: Driver> Attach<D> {
    /// Reads the file of the network, if it has one.
    fn named(&self, scope: &Scope) -> Result<Option<Named>> {
        let Some(name) = &self.name else { return Ok(None) };
        let Some(found) = Named::find(&scope.root, name)? else {
            if self.parent.is_some() {
                return Ok(None);
            }
            let error = anyhow!("no network {name:?}");
            let driver = D::KIND;
            return Err(hint(error, format!("network-create --driver {driver} makes one; or add --parent")));
        };
        let own = [
            self.parent.as_ref().map(|_| "--parent"),
            self.mode.as_ref().map(|_| "--mode"),
            self.no_addresses.then_some("--no-addresses"),
        ];
        refuse_flags(&found, &mut own.into_iter().flatten().chain(self.subnets.given()))?;
        Ok(Some(found))
    }

    /// The wanted properties of the network.
    fn wanted(&self, named: Option<&Named>) -> Result<WantedParent> {
        if let Some(named) = named {
            return Ok(named.parent(D::KIND)?.clone());
        }
        let Gateways { v4, v6 } = self.subnets.gateways()?;
        let mode = self.mode.as_deref().or(D::MODES.first().copied()).unwrap_or_default();
        let child = Child::of(D::KIND, mode).ok_or_else(|| anyhow!("{} has no mode {mode:?}", D::KIND))?;
        let Subnets { ipv4, subnet, ip_range, subnet6, ip6_range, internal, .. } = self.subnets;
        let (parent, gateway, gateway6) = (self.parent.clone(), v4, v6);
        Ok(WantedParent {
            child,
            parent,
            addresses: !self.no_addresses,
            ipv4,
            subnet,
            range: ip_range,
            gateway,
            subnet6,
            range6: ip6_range,
            gateway6,
            further: self.subnets.further.clone(),
            internal,
        })
    }
}

impl<D: Driver> Filter for Attach<D> {
    type Adds = members::Attached;
    type Operation = NetworkOperation;
    const LOCK: Option<&'static str> = Some("network");
    const READS: &'static [&'static str] = &["network", "networks"];

    fn common(&self) -> &Common {
        &self.common
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        let network = document.require::<members::Network>()?;
        refuse_restricted(document)?;
        let attachments = document.attachments()?;
        let named = self.named(&context.scope)?;
        let mut wanted = self.wanted(named.as_ref())?;
        let parent = wanted.parent()?;
        let mut container = Container::new(&context.scope, &context.id, document)?;
        container.planned = context.planned;
        container.choose(self.inside.interface.as_deref(), &parent, &network, &attachments)?;
        let mut asked = self.inside.asked(named.as_ref(), &attachments)?;
        asked.name = asked.name.or(self.name.clone());
        wanted.parent = Some(parent);
        let (attachment, operations) = attachment::child(&container, &network.namespace, &wanted, &asked)?;
        Ok(Plan { adds: members::Attached::new(&network, attachment), operations })
    }

    fn is_meant(&self, step: &Step) -> bool {
        is_meant(step, self.name.as_deref().or(self.parent.as_deref()))
    }

    fn forget(_: &mut Document) -> Result<()> {
        // An attachment that was not completed has added nothing.
        Ok(())
    }
}
