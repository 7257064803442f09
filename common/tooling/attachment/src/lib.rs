//! Plans how a container is attached to a network, for netns-add, netns-bridge, veth-pair,
//! bridge-attach, macvlan-attach and ipvlan-attach.
//!
//! [`namespace`] plans the container's namespace, [`network`] the bridge with everything that it
//! needs on the host, and [`pair`] the link between both. [`child`] plans an interface that is made
//! of a link of the host. Each returns operations and the members for the document. A tool that does
//! several of these joins the lists.

mod address;
mod argument;
mod bridge;
mod chosen;
mod container;
mod free;
mod further;
mod inside;
mod link;
pub mod named;
mod overlay;
mod own;
mod pair;
mod parent;
mod prefix;
mod published;
mod subnet;
mod unfit;

pub use argument::{
    Closed, Gateway, Gateways, MTU, Route, gateways, parse_any_range, parse_any_subnet, parse_mtu,
    parse_name, parse_range, parse_range6, parse_subnet, parse_subnet6,
};
pub use bridge::{Planned, Wanted, network};
pub use container::{Container, namespace};
pub use free::overlap;
pub use further::Further;
pub use link::{End, complete as complete_links, open as open_link, ports};
pub use pair::{Asked, metric, pair, priority};
pub use parent::{WantedParent, child};
pub use prefix::random as random_prefix;
pub use published::refuse_published;
pub use repair::NetworkOperation;
