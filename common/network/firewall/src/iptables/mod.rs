//! Legacy iptables tables. Each is one block of bytes that is read and replaced as a whole with
//! socket options.

mod table;

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    thread,
    time::Duration,
};

use netlink::{Error, Refusal, errno_of};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use crate::barrier::{Barrier, Firewall};
use table::{BEFORE_ENTRIES, COUNTER, INFO, Layout, TABLE_NAME, Table, V4, V6, padded, put, word};

/// Socket options that write, and socket options that read.
const SET_REPLACE: i32 = 64;
const SET_ADD_COUNTERS: i32 = 65;
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;

/// The tables of both IP versions.
const VERSIONS: [&Layout; 2] = [&V4, &V6];

/// The socket that takes the options for the tables of one IP version.
struct Tables {
    layout: &'static Layout,
    socket: OwnedFd,
}

impl Tables {
    fn open(layout: &'static Layout) -> Result<Self, Errno> {
        let family = if layout.v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        Ok(Self { layout, socket })
    }

    fn level(&self) -> i32 {
        if self.layout.v6 { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP }
    }

    /// Reads an option into `buffer`, which also contains the request. The kernel checks its
    /// length.
    fn get(&self, option: i32, buffer: &mut [u8]) -> Result<(), Errno> {
        let mut length = buffer.len() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes, the length of the buffer.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                self.level(),
                option,
                buffer.as_mut_ptr().cast(),
                &mut length,
            )
        };
        Errno::result(result).map(drop)
    }

    fn set(&self, option: i32, bytes: &[u8]) -> Result<(), Errno> {
        // SAFETY: the kernel reads that many bytes. The caller keeps the counters that they point
        // to.
        let result = unsafe {
            let length = bytes.len() as libc::socklen_t;
            libc::setsockopt(self.socket.as_raw_fd(), self.level(), option, bytes.as_ptr().cast(), length)
        };
        Errno::result(result).map(drop)
    }

    /// Reads a table. EAGAIN if another program replaced it in the meantime.
    fn read(&self, name: &str) -> Result<Table, Errno> {
        let mut info = padded(name, INFO);
        self.get(GET_INFO, &mut info)?;
        let size = word(&info, INFO - 4).ok_or(Errno::EBADMSG)?;
        let mut entries = padded(name, BEFORE_ENTRIES + size as usize);
        put(&mut entries, TABLE_NAME, size);
        self.get(GET_ENTRIES, &mut entries)?;
        Table::read(self.layout, name, &info, &entries[BEFORE_ENTRIES..]).ok_or(Errno::EBADMSG)
    }

    /// Replaces a table. EAGAIN if another program replaced it in the meantime.
    fn replace(&self, table: &Table, by: &Table) -> Result<(), Errno> {
        let mut counters = vec![0; table.len() * COUNTER];
        self.set(SET_REPLACE, &by.replacement(&mut counters))?;
        // The table works without its old counters too.
        let _ = self.set(SET_ADD_COUNTERS, &by.counts(table, &counters));
        Ok(())
    }
}

/// The tables that this network namespace has. Reading another one would create it.
fn names(layout: &Layout) -> Result<Vec<String>, Error> {
    let file = if layout.v6 { "ip6_tables_names" } else { "ip_tables_names" };
    match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(error("list", "the tables", layout, errno_of(&source))),
        Ok(names) => {
            Ok(names.lines().filter(|name| *name != "nat" && *name != "raw").map(str::to_owned).collect())
        }
    }
}

fn error(verb: &'static str, what: &str, layout: &Layout, refusal: impl Into<Refusal>) -> Error {
    let program = program(layout.v6);
    Error::new(verb, format!("{what} of {program}"), refusal)
}

/// The program for the tables of this IP version.
pub(crate) fn program(v6: bool) -> &'static str {
    if v6 { "ip6tables-legacy" } else { "iptables-legacy" }
}

/// The number of tries, and the time between them, if another program is busy with the tables: five
/// seconds in all.
const ATTEMPTS: usize = 250;
const PAUSE: Duration = Duration::from_millis(20);

fn again<T>(attempt: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(Errno::EAGAIN) => thread::sleep(PAUSE),
            done => return done,
        }
    }
    attempt()
}

/// Takes the lock of iptables. The kernel compares only the number of entries, so two writers could
/// overwrite each other.
fn lock() -> Result<Option<OwnedFd>, Errno> {
    let path = Path::new("/run/xtables.lock");
    let file = match open(
        path,
        OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::from(0o600),
    ) {
        // If the lock file cannot be made, iptables cannot lock either.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::ROFS | rustix::io::Errno::ACCESS) => {
            return Ok(None);
        }
        file => file.map_err(|errno| Errno::from_raw(errno.raw_os_error()))?,
    };
    again(|| {
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
    })?;
    Ok(Some(file))
}

/// The tables that drop packets of the bridge: IPv4 packets, and with `ipv6` also IPv6 packets. For the
/// firewall `anyway`, also those without rules for it.
pub(crate) fn barriers(bridge: &str, anyway: Firewall, ipv6: bool) -> Result<Vec<Barrier>, Error> {
    let mut barriers = Vec::new();
    for layout in VERSIONS.into_iter().filter(|layout| ipv6 || !layout.v6) {
        for name in names(layout)? {
            let table = again(|| Tables::open(layout)?.read(&name))
                .map_err(|errno| error("read", &format!("table {name}"), layout, errno))?;
            barriers.extend(table.barrier(bridge, anyway));
        }
    }
    Ok(barriers)
}

/// Whether this network namespace has a legacy table.
pub(crate) fn are_there() -> Result<bool, Error> {
    Ok(!names(&V4)?.is_empty() || !names(&V6)?.is_empty())
}

/// Replaces each table of this IP version for which `change` returns a new one.
fn change_all(
    verb: &'static str,
    layout: &'static Layout,
    change: impl Fn(&Table) -> Option<Table>,
) -> Result<(), Error> {
    for name in names(layout)? {
        let attempt = || {
            let tables = Tables::open(layout)?;
            if change(&tables.read(&name)?).is_none() {
                return Ok(());
            }
            let _lock = lock()?;
            let table = tables.read(&name)?;
            change(&table).map_or(Ok(()), |changed| tables.replace(&table, &changed))
        };
        again(attempt).map_err(|errno| error(verb, &format!("rules in table {name}"), layout, errno))?;
    }
    Ok(())
}

/// Adds the rules for the bridge to the tables of this IP version.
pub(crate) fn let_through(bridge: &str, firewall: Firewall, v6: bool) -> Result<(), Error> {
    let layout = VERSIONS[usize::from(v6)];
    change_all("add", layout, |table| table.letting_through(bridge, &table.barrier(bridge, firewall)?))
}

/// Removes all our rules for the bridge.
pub(crate) fn withdraw(bridge: &str) -> Result<(), Error> {
    // Try both, even if one fails.
    let [v4, v6] = VERSIONS.map(|layout| change_all("remove", layout, |table| table.without(bridge)));
    v4.and(v6)
}
