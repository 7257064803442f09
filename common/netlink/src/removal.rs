//! Removing a link without waiting until the kernel has freed it.
//!
//! A request to remove a link returns only after every processor has let go of it (RCU): 15 to 50 ms, most of what it
//! takes to undo a container's network. The link itself is gone after two or three: its name is free, its addresses and
//! routes went with it, and the kernel announces so. Nothing can fail after that.

use std::thread;

use futures_util::{StreamExt, future};
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkPayload,
    packet_route::{AddressFamily, RouteNetlinkMessage},
};
use tokio::sync::oneshot;

use crate::{Connection, Error, Link, error::io_errno};

/// Removes a link of this thread's own namespace; returns once it is announced as gone. A thread waits for the rest,
/// and the process does not end before that.
pub(crate) fn remove(connection: &Connection, link: &Link) -> Result<(), Error> {
    let object = format!("{:?}", link.name);
    let failed = |source| connection.error("remove link", &object, io_errno(&source));
    let context = connection.runtime.enter();
    let (listener, _, mut messages) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).map_err(failed)?;
    let (done, answer) = oneshot::channel();
    let removed = link.clone();
    thread::Builder::new().spawn(move || done.send(request(&removed))).map_err(failed)?;
    drop(context);

    let listener = connection.runtime.spawn(listener);
    let index = link.index;
    let announced = async move {
        while let Some((message, _)) = messages.next().await {
            if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(gone)) = message.payload
                // A bridge announces in its own family that a port left it.
                && gone.header.index == index && gone.header.interface_family == AddressFamily::Unspec
            {
                return;
            }
        }
        // Announcements were lost: the answer counts.
        future::pending().await
    };
    let first = connection.runtime.block_on(future::select(answer, Box::pin(announced)));
    listener.abort();
    match first {
        future::Either::Left((Ok(result), _)) => result,
        _ => Ok(()),
    }
}

/// The request itself, to its end.
fn request(link: &Link) -> Result<(), Error> {
    let connection = Connection::open(None)?;
    let request = connection.handle.link().del(link.index).execute();
    connection.run("remove link", format!("{:?}", link.name), request)
}
