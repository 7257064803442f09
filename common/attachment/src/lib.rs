//! What attaches a container to a network: the plans of netns-add, netns-bridge, veth-pair and bridge-attach.
//!
//! [`namespace`] plans the container's namespace, [`network`] the bridge with all that it needs on the host, [`pair`] the link
//! between both. Each returns operations, and what the document says of them. A tool that does several of these joins the lists.

mod address;
mod argument;
mod bridge;
mod container;
pub mod named;
mod pair;
mod prefix;
mod published;
mod unfit;

use std::{fs::File, io::Read};

use operation::Error;

pub use argument::{Gateways, Route, parse_name, parse_range, parse_range6, parse_subnet, parse_subnet6};
pub use bridge::{Planned, Wanted, network};
pub use container::{Container, namespace};
pub use pair::{Asked, pair, priority};
pub use published::refuse_published;
pub use repair::NetworkOperation;

/// Random bytes.
fn draw<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let drawn = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    drawn.map_err(Error::on("read", "/dev/urandom"))?;
    Ok(bytes)
}
