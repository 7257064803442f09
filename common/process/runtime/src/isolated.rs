//! A network namespace with nothing but `lo`. It shows afterwards whether a process tried to reach more.

use std::{fs::File, os::fd::AsRawFd, path::PathBuf, thread};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::{Error, error::Result, sys};

/// A network namespace with nothing but `lo`. It ends with its last process and with this value.
#[derive(Debug)]
pub struct Isolated {
    namespace: File,
}

/// The network namespace of the calling thread, which may not be its process's.
const OWN: &str = "/proc/thread-self/ns/net";

impl Isolated {
    /// Makes a namespace. The calling process has a second thread for a moment.
    ///
    /// # Errors
    /// When the system cannot make one.
    pub fn new() -> Result<Self> {
        aside(|| {
            sys::unshare(UnshareFlags::NEWNET).map_err(Error::at("create", "network namespace"))?;
            sys::raise_loopback().map_err(Error::at("set", "link lo up"))?;
            let open = |error| Error::new(format_args!("open {OWN:?}: {error}"));
            Ok(Self { namespace: File::open(OWN).map_err(open)? })
        })
    }

    /// A path of the namespace, valid as long as this value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.namespace.as_raw_fd()))
    }

    /// Whether a process in the namespace tried to reach something that is not there: an address without a
    /// route, or a UDP server on `lo`, such as the host's name server. False if this cannot be determined.
    pub fn was_too_small(&self) -> bool {
        let counters = aside(|| {
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&self.namespace),
                Some(LinkNameSpaceType::Network),
            )
            .map_err(Error::at("enter", "network namespace"))?;
            let read =
                |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
            Ok((read("snmp"), read("snmp6")))
        });
        counters.is_ok_and(|(snmp, snmp6)| looked_for_more(&snmp, &snmp6))
    }
}

/// Runs `work` on a thread of its own. The thread ends with it, and so leaves the namespaces that it has
/// entered.
pub(crate) fn aside<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().spawn_scoped(scope, work);
        let worker = worker.map_err(Error::at("start", "a thread"))?;
        worker.join().unwrap_or_else(|_| Err(Error::new("a thread ended too soon")))
    })
}

/// Reads the kernel's counters (`/proc/net/snmp`: a line of names, a line of values; `/proc/net/snmp6`: a name and a value).
fn looked_for_more(snmp: &str, snmp6: &str) -> bool {
    let lines: Vec<&str> = snmp.lines().collect();
    let named = |pair: &[&str]| {
        let names = pair[0].split_whitespace();
        let (kind, counters) = (names.clone().next(), ["OutNoRoutes", "NoPorts"]);
        names.zip(pair[1].split_whitespace()).any(|(name, value)| {
            matches!(kind, Some("Ip:" | "Udp:")) && counters.contains(&name) && value != "0"
        })
    };
    let of_six = |line: &str| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["Ip6OutNoRoutes" | "Udp6NoPorts", value] => *value != "0",
        _ => false,
    };
    lines.chunks_exact(2).any(named) || snmp6.lines().any(of_six)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_for_more_is_seen() {
        testkit::require_root();
        let before = std::fs::read_link("/proc/self/ns/net").unwrap();
        for (address, expected) in [
            (None, false),
            (Some("192.0.2.1:9"), true),
            (Some("[2001:db8::1]:9"), true),
            (Some("127.0.0.1:53"), true),
        ] {
            let isolated = Isolated::new().unwrap();
            let inside = std::fs::File::open(isolated.path()).unwrap();
            aside(|| {
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&inside),
                    Some(LinkNameSpaceType::Network),
                )
                .unwrap();
                if let Some(address) = address {
                    let bind = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                    let socket = std::net::UdpSocket::bind(bind).unwrap();
                    let _ = socket.send_to(b"x", address);
                }
                Ok(())
            })
            .unwrap();
            assert_eq!(isolated.was_too_small(), expected, "{address:?}");
        }
        assert_eq!(std::fs::read_link("/proc/self/ns/net").unwrap(), before);
    }
}
