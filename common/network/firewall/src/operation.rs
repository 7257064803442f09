use netlink::Connection;
use nix::errno::Errno;
use operation::{Condition, Error, Operation, Scope};
use serde::{Deserialize, Serialize};

use crate::{
    barrier::{Barrier, Firewall},
    firewalld, iptables, nftables,
};

/// Finds what drops packets of the bridge in this network namespace, in all firewalls: IPv4
/// packets, and with `ipv6` also IPv6 packets. For a given `firewall`, also includes chains that
/// drop nothing yet but have no rules for the bridge.
///
/// # Errors
/// When a firewall cannot be read.
pub fn barriers(bridge: &str, firewall: Firewall, ipv6: bool) -> Result<Vec<Barrier>, Error> {
    let mut barriers = Vec::new();
    for table in nftables::look()? {
        let found: Vec<_> =
            versions(ipv6).iter().flat_map(|v6| table.barriers(bridge, firewall, *v6)).collect();
        if !table.is_of(Firewall::Firewalld) {
            barriers.extend(found);
        } else if !found.is_empty() {
            // firewalld on the bus may belong to another network namespace. Its rules show whether
            // it is this one.
            barriers.extend(firewalld::barrier(bridge)?);
        }
    }
    barriers.extend(iptables::barriers(bridge, firewall, ipv6)?);
    if firewall == Firewall::Firewalld && !barriers.iter().any(|found| found.firewall() == firewall) {
        barriers.extend(firewalld::barrier(bridge)?);
    }
    Ok(barriers)
}

/// The IP versions of a bridge. True stands for IPv6.
fn versions(ipv6: bool) -> &'static [bool] {
    if ipv6 { &[false, true] } else { &[false] }
}

/// Lets a bridge's packets pass the host's firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all_fields = "camelCase")]
pub enum FirewallOperation {
    /// Makes sure that the host's firewall does not drop what our own rules accept. The added rules
    /// carry the bridge's name as a mark, so undo finds them even after others moved them.
    #[serde(rename = "firewall-accept")]
    Accept {
        /// The bridge.
        bridge: String,
        /// The firewall to change. With `none`, nothing is changed; undo still removes the rules
        /// that other containers needed.
        firewall: Firewall,
        /// Whether the bridge has IPv6.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ipv6: bool,
        /// Whether the bridge was in a forwarding zone of firewalld before a container of ours used
        /// it. Then it stays there.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keeps_zone: bool,
    },
}

fn covers(firewall: Firewall, barrier: &Barrier) -> bool {
    firewall == Firewall::Auto || firewall == barrier.firewall()
}

/// The names of barriers in error messages: `chain FORWARD of table ip filter`.
fn named(barriers: &[&Barrier]) -> String {
    let mut names: Vec<String> = barriers.iter().map(ToString::to_string).collect();
    // One chain may drop both IP versions.
    names.dedup();
    names.join(" and ")
}

fn has(firewall: Firewall) -> Result<bool, Error> {
    Ok(nftables::look()?.iter().any(|table| table.is_of(firewall)))
}

/// Whether the bridge exists and Stave made it.
fn is_our_bridge(bridge: &str) -> Result<bool, Error> {
    let failed = |error: netlink::Error| Error::from(error);
    let link = Connection::open(None).map_err(failed)?.link(bridge).map_err(failed)?;
    Ok(link.is_some_and(|link| link.is_our_bridge()))
}

/// A name from a record becomes part of messages with a fixed length for interface names.
fn validate(bridge: &str) -> Result<(), Error> {
    let is_valid = (1..16).contains(&bridge.len()) && !bridge.contains('\0');
    is_valid.then_some(()).ok_or_else(|| Error::new("look for", format!("bridge {bridge:?}"), Errno::EINVAL))
}

impl FirewallOperation {
    /// Plans the operation for this bridge, for IPv4, and with `ipv6` also for IPv6. `recorded`
    /// lists the operations of other containers. It is called only if the bridge is in a zone of
    /// firewalld already, perhaps because of one of them.
    ///
    /// # Errors
    /// When the given firewall is not on this host; the errors of `recorded`. What drops packets is
    /// determined when the operation is applied.
    pub fn plan<E: From<Error>>(
        bridge: &str,
        ipv6: bool,
        firewall: Firewall,
        recorded: impl FnOnce() -> Result<Vec<Self>, E>,
    ) -> Result<Self, E> {
        let mut operation = Self::Accept { bridge: bridge.to_owned(), firewall, ipv6, keeps_zone: false };
        operation.find(firewall)?;
        let is_there = firewall == Firewall::Firewalld || has(Firewall::Firewalld)?;
        let Self::Accept { keeps_zone, .. } = &mut operation;
        if is_there && firewalld::is_let_through(bridge)? {
            let first = recorded()?.into_iter().find(|Self::Accept { bridge: on, .. }| on == bridge);
            *keeps_zone = match first {
                Some(Self::Accept { keeps_zone, .. }) => keeps_zone,
                // A container of another run directory may have put it there.
                None => !is_our_bridge(bridge)?,
            };
        }
        Ok(operation)
    }

    /// Checks that the given firewall is on this host.
    fn find(&self, firewall: Firewall) -> Result<(), Error> {
        let Self::Accept { bridge, .. } = self;
        let is_there = match firewall {
            Firewall::Auto | Firewall::None => true,
            Firewall::Iptables => has(firewall)? || iptables::are_there()?,
            Firewall::Nftables => has(firewall)?,
            Firewall::Firewalld => self.needed().map(|_| true)?,
        };
        if !is_there {
            let hint = "--firewall auto finds out which firewall drops its packets, if any";
            let object = format!("bridge {bridge:?} through {firewall}");
            return Err(Error::new("let", object, "it has no chain for forwarded packets").with_hint(hint));
        }
        Ok(())
    }

    /// The barriers to let the bridge's packets pass now.
    fn needed(&self) -> Result<Vec<Barrier>, Error> {
        let Self::Accept { bridge, firewall, ipv6, .. } = self;
        validate(bridge)?;
        if *firewall == Firewall::None {
            return Ok(Vec::new());
        }
        let mut found = barriers(bridge, *firewall, *ipv6)?;
        found.retain(|barrier| covers(*firewall, barrier));
        Ok(found)
    }
}

impl Operation for FirewallOperation {
    fn explain(&self) -> Vec<String> {
        let Self::Accept { bridge, .. } = self;
        // If a firewall cannot be read now, the error appears when this is applied.
        self.needed().unwrap_or_default().iter().flat_map(|barrier| barrier.explain(bridge)).collect()
    }

    fn apply(&mut self, _: &Scope) -> Result<(), Error> {
        let found = self.needed()?;
        let Self::Accept { bridge, firewall, ipv6, .. } = self;
        let (bridge, firewall, ipv6) = (bridge.as_str(), *firewall, *ipv6);
        // What may be refused comes first, and one transaction last.
        for barrier in &found {
            firewalld::let_through(bridge, barrier)?;
        }
        for of in versions(ipv6) {
            if found.iter().any(|barrier| matches!(barrier, Barrier::Legacy { v6, .. } if v6 == of)) {
                iptables::let_through(bridge, firewall, *of)?;
            }
        }
        if found.iter().any(|barrier| matches!(barrier, Barrier::Nftables { .. })) {
            nftables::let_through(bridge, firewall, versions(ipv6), |barrier| covers(firewall, barrier))?;
        }
        Ok(())
    }

    fn undo(&self, _: &Scope) -> Result<(), Error> {
        let Self::Accept { bridge, firewall, keeps_zone, .. } = self;
        validate(bridge)?;
        // Try all of them, even if one fails.
        let nftables = nftables::withdraw(bridge).map_err(Error::from);
        let legacy = iptables::withdraw(bridge).map_err(Error::from);
        let zone = match *firewall == Firewall::Firewalld {
            _ if *keeps_zone => Ok(false),
            true => Ok(true),
            false => has(Firewall::Firewalld),
        };
        let zone = zone.and_then(|there| if there { firewalld::withdraw(bridge) } else { Ok(()) });
        nftables.and(legacy).and(zone)
    }

    fn check(&self, _: &Scope) -> Result<Condition, Error> {
        let Self::Accept { bridge, firewall, ipv6, .. } = self;
        validate(bridge)?;
        if *firewall == Firewall::None {
            return Ok(Condition::Present);
        }
        let found = barriers(bridge, *firewall, *ipv6)?;
        let (ours, others): (Vec<_>, Vec<_>) = found.iter().partition(|barrier| covers(*firewall, barrier));
        Ok(if !ours.is_empty() {
            let rule = format!("a rule for bridge {bridge:?} in {}, which drops its packets", named(&ours));
            Condition::Missing(format!("{rule} (--repair adds it)"))
        } else if !others.is_empty() {
            let left = format!("--firewall {firewall} leaves it so");
            Condition::Different(format!("{} drops packets of bridge {bridge:?}, and {left}", named(&others)))
        } else {
            Condition::Present
        })
    }
}
