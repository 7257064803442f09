//! A snapshot of all links of this network namespace.

use std::collections::HashMap;

use operation::Condition;

use crate::{Address, Connection, Error, Link, LinkOperation};

/// The links and addresses of this thread's network namespace at one moment. It saves many
/// operations from asking the kernel one by one.
#[derive(Debug, Default)]
pub struct Picture {
    links: HashMap<String, Link>,
    addresses: HashMap<u32, Vec<Address>>,
}

impl Picture {
    /// Lists all links and addresses.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn take() -> Result<Self, Error> {
        let connection = Connection::open(None)?;
        let links = connection.all()?.into_iter().map(|link| (link.name.clone(), link)).collect();
        let mut addresses: HashMap<u32, Vec<Address>> = HashMap::new();
        for address in connection.addresses(None)?.into_iter().chain(connection.addresses6(None)?) {
            addresses.entry(address.link).or_default().push(address);
        }
        Ok(Self { links, addresses })
    }

    /// The link with this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.get(name)
    }

    /// The condition of an operation on a link of this namespace. For a veth pair, only the side
    /// that is here is compared. None if the snapshot does not show it.
    pub fn condition(&self, operation: &LinkOperation) -> Option<Condition> {
        let (name, mac, what) = match operation {
            LinkOperation::BridgeAdd { name, mac, .. } => (name, Some(*mac), format!("link {name:?}")),
            LinkOperation::VethAdd { name, mac, .. } | LinkOperation::VxlanAdd { name, mac, .. } => {
                (name, Some(*mac), format!("link {name:?}"))
            }
            LinkOperation::Hairpin { link, mac } => (link, Some(*mac), format!("hairpin of link {link:?}")),
            LinkOperation::Isolate { link, mac } => (link, Some(*mac), format!("isolation of link {link:?}")),
            LinkOperation::LinkUp { namespace: None, link, mac } => {
                (link, Some(*mac), format!("link {link:?} set up"))
            }
            LinkOperation::AddressAdd { namespace: None, link, mac, address, .. } => {
                (link, *mac, format!("address {address} of link {link:?}"))
            }
            _ => return None,
        };
        let link = match self.link(name) {
            None => return Some(Condition::Missing(what)),
            Some(link) if mac.is_some_and(|mac| !mac.recognises(name, link.mac)) => {
                return Some(Condition::Different(format!("link {name:?} has another hardware address")));
            }
            Some(link) => link,
        };
        let stands = match operation {
            LinkOperation::VethAdd { master, .. } | LinkOperation::VxlanAdd { master, .. } => {
                let port = format!("link {name:?} as a port of {master:?}");
                return Some(match link.master {
                    None => Condition::Missing(port),
                    other if other != self.link(master).map(|bridge| bridge.index) => {
                        Condition::Different(port)
                    }
                    _ => Condition::Present,
                });
            }
            LinkOperation::Hairpin { .. } => link.hairpin,
            LinkOperation::Isolate { .. } => link.isolated,
            LinkOperation::LinkUp { .. } => link.up,
            LinkOperation::AddressAdd { address, .. } => {
                let own = self.addresses.get(&link.index);
                match own.is_some_and(|own| own.iter().any(|found| found.address == *address)) {
                    // Only the kernel knows whether the route exists.
                    true => return None,
                    false => false,
                }
            }
            _ => true,
        };
        Some(if stands { Condition::Present } else { Condition::Missing(what) })
    }
}
