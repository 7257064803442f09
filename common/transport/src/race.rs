//! Connects to the address of a host that answers first (RFC 8305, "Happy Eyeballs").
//!
//! Many hosts have a global IPv6 address, and a way out that swallows the packets. Without this, each connection to a
//! server with both kinds of addresses would wait for the end of a timeout.

use std::{
    collections::HashSet,
    io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::fd::OwnedFd,
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt},
};

/// How long an address may be silent before the next one is asked as well (RFC 8305, section 5: 250 ms).
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses that lost a race. They are asked last from then on, so that one run waits for them only once.
static LOST: Mutex<Option<HashSet<SocketAddr>>> = Mutex::new(None);

/// Looks up `host:port`, and connects to the first of its addresses that answers.
///
/// # Errors
/// When the host has no address. When none answers within `limit`, or all refuse.
pub fn connect_to(host_and_port: &str, limit: Duration) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = host_and_port.to_socket_addrs()?.collect();
    connect(&addresses, Some(limit))
}

/// Connects to the first of `addresses` that answers. They are in the order of preference.
///
/// # Errors
/// When none answers within `limit`, or all refuse. The error is that of the first address that could be asked.
pub fn connect(addresses: &[SocketAddr], limit: Option<Duration>) -> io::Result<TcpStream> {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut waiting = in_turns(addresses).into_iter().peekable();
    let mut running: Vec<(SocketAddr, OwnedFd)> = Vec::new();
    let mut failure = None;
    let mut next_at = Instant::now();
    loop {
        let now = Instant::now();
        if let Some(address) = waiting.next_if(|_| running.is_empty() || now >= next_at) {
            match begin(&address) {
                Ok((socket, true)) => return won(socket, &running),
                Ok((socket, false)) => {
                    running.push((address, socket));
                    next_at = now + HEAD_START;
                }
                Err(error) => keep(&mut failure, error),
            }
            continue;
        }
        if running.is_empty() {
            return Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            // That an address refuses says more than that another one is silent.
            let silence = io::ErrorKind::TimedOut.into();
            return Err(failure.filter(|failure| !is_no_way(failure)).unwrap_or(silence));
        }
        let turn = waiting.peek().map(|_| next_at);
        let until = turn.into_iter().chain(deadline).min();
        let Some(at) = answered(&running, until.map(|until| until - now))? else { continue };
        let (_, socket) = running.swap_remove(at);
        match sockopt::socket_error(&socket)? {
            Ok(()) => return won(socket, &running),
            Err(error) => {
                keep(&mut failure, error.into());
                next_at = now;
            }
        }
    }
}

/// The addresses in the order in which they are asked: the families take turns (RFC 8305, section 4), and what lost
/// before comes last.
fn in_turns(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut own, mut other): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv6() == first_is_ipv6);
    own.reverse();
    other.reverse();
    let mut turns = Vec::with_capacity(addresses.len());
    while !own.is_empty() || !other.is_empty() {
        turns.extend(own.pop());
        turns.extend(other.pop());
    }
    if let Ok(lost) = LOST.lock() {
        turns.sort_by_key(|address| lost.as_ref().is_some_and(|lost| lost.contains(address)));
    }
    turns
}

/// Begins to connect, without waiting. Returns whether the connection stands already.
fn begin(address: &SocketAddr) -> io::Result<(OwnedFd, bool)> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match rustix::net::connect(&socket, address) {
        Ok(()) => Ok((socket, true)),
        Err(Errno::INPROGRESS | Errno::INTR) => Ok((socket, false)),
        Err(error) => Err(error.into()),
    }
}

/// Waits until one of the sockets has connected or failed, at most for `limit`. Returns its place.
fn answered(running: &[(SocketAddr, OwnedFd)], limit: Option<Duration>) -> io::Result<Option<usize>> {
    let mut polled: Vec<PollFd> =
        running.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::OUT)).collect();
    let limit = limit.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    match poll(&mut polled, limit.as_ref()) {
        Ok(_) => Ok(polled.iter().position(|polled| !polled.revents().is_empty())),
        Err(Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Keeps the error that says most: the first one, unless there was only no way to the address.
fn keep(failure: &mut Option<io::Error>, error: io::Error) {
    let says_little = failure.as_ref().is_none_or(is_no_way);
    if says_little {
        *failure = Some(error);
    }
}

/// Whether there is only no way to the address, as for IPv6 on many hosts.
fn is_no_way(failure: &io::Error) -> bool {
    matches!(
        failure.kind(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable
    )
}

fn won(socket: OwnedFd, losers: &[(SocketAddr, OwnedFd)]) -> io::Result<TcpStream> {
    if let Ok(mut lost) = LOST.lock() {
        lost.get_or_insert_default().extend(losers.iter().map(|(address, _)| *address));
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// An address on which nobody answers: a listener whose queue is full.
    fn silent() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            queue.push(stream);
        }
        (listener, queue, address)
    }

    #[test]
    fn the_families_take_turns() {
        let addresses = |text: &str| -> Vec<SocketAddr> {
            text.split(' ').map(|address| format!("{address}:80").parse().unwrap()).collect()
        };
        assert_eq!(
            in_turns(&addresses("[2001:db8::1] [2001:db8::2] [2001:db8::3] 192.0.2.1")),
            addresses("[2001:db8::1] 192.0.2.1 [2001:db8::2] [2001:db8::3]")
        );
        assert_eq!(in_turns(&addresses("192.0.2.1 [2001:db8::1]")), addresses("192.0.2.1 [2001:db8::1]"));
        assert_eq!(in_turns(&[]), []);
    }

    #[test]
    fn a_silent_address_costs_little_and_only_once() {
        let (_listener, _queue, silent) = silent();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = server.local_addr().unwrap();
        let limit = Some(Duration::from_secs(30));
        let begin = Instant::now();
        assert_eq!(connect(&[silent, good], limit).unwrap().peer_addr().unwrap(), good);
        let first = begin.elapsed();
        assert!(first >= HEAD_START && first < Duration::from_secs(10), "{first:?}");
        assert_eq!(in_turns(&[silent, good]), [good, silent], "what lost is asked last");
        assert_eq!(connect(&[silent, good], limit).unwrap().peer_addr().unwrap(), good);
        let alone = connect(&[silent], Some(Duration::from_millis(20))).unwrap_err();
        assert_eq!(alone.kind(), io::ErrorKind::TimedOut);
        drop(server);
        let refused = connect(&[silent, good], Some(Duration::from_millis(20))).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn an_error_begins_the_next_attempt_at_once() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = server.local_addr().unwrap();
        let no_way: SocketAddr = "255.255.255.255:1".parse().unwrap();
        assert_eq!(connect(&[closed, no_way, good], None).unwrap().peer_addr().unwrap(), good);
        let refused = connect(&[no_way, closed, no_way], None).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
        assert!(connect(&[], None).is_err());
    }
}
