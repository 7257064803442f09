//! Tells the neighbours of a container what hardware address its addresses have.
//!
//! A neighbour that remembers an earlier one sends there for up to 46 s: until it has asked, and the
//! earlier one has not answered.

use std::{
    net::IpAddr,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{Connection, Error, Link, Mac, arp, namespace, ndp};

/// How long the port of a bridge may take until it forwards. It takes a millisecond.
const PATIENCE: Duration = Duration::from_millis(200);
const MOMENT: Duration = Duration::from_micros(200);

/// Announces the address from the link in the namespace. Waits for its other side to forward frames, if
/// that is a `port` of a bridge.
pub(crate) fn announce(
    path: &Path,
    link: &Link,
    mac: Mac,
    address: IpAddr,
    port: Option<&str>,
) -> Result<(), Error> {
    if let Some(port) = port {
        let (connection, end) = (Connection::open(None)?, Instant::now() + PATIENCE);
        while connection.link(port)?.is_some_and(|port| !port.forwards) && Instant::now() < end {
            sleep(MOMENT);
        }
    }
    // This helps the neighbours, and may be forbidden (CAP_NET_RAW). Without it they ask in the end.
    let _ = namespace::enter(path, || match address {
        IpAddr::V4(address) => arp::announce(link.index, mac, address),
        IpAddr::V6(address) => ndp::announce(link.index, mac, address),
    });
    Ok(())
}
