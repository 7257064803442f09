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
use table::{BEFORE_ENTRIES, COUNTER, INFO, TABLE_NAME, Table, padded, put, word};

/// Socket options that write, and socket options that read.
const SET_REPLACE: i32 = 64;
const SET_ADD_COUNTERS: i32 = 65;
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;

/// The socket that takes the options.
struct Tables(OwnedFd);

impl Tables {
    fn open() -> Result<Self, Errno> {
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).map(Self)
    }

    /// Reads an option into `buffer`, which also contains the request. The kernel checks its
    /// length.
    fn get(&self, option: i32, buffer: &mut [u8]) -> Result<(), Errno> {
        let mut length = buffer.len() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes, the length of the buffer.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::IPPROTO_IP,
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
            libc::setsockopt(self.0.as_raw_fd(), libc::IPPROTO_IP, option, bytes.as_ptr().cast(), length)
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
        Table::read(name, &info, &entries[BEFORE_ENTRIES..]).ok_or(Errno::EBADMSG)
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
fn names() -> Result<Vec<String>, io::Error> {
    match fs::read_to_string("/proc/thread-self/net/ip_tables_names") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => {
            Ok(names?.lines().filter(|name| *name != "nat" && *name != "raw").map(str::to_owned).collect())
        }
    }
}

fn error(verb: &'static str, what: &str, refusal: impl Into<Refusal>) -> Error {
    Error::new(verb, format!("{what} of iptables-legacy"), refusal)
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

/// The tables that drop packets of the bridge. For the firewall `anyway`, also those without rules
/// for it.
pub(crate) fn barriers(bridge: &str, anyway: Firewall) -> Result<Vec<Barrier>, Error> {
    let mut barriers = Vec::new();
    for name in names().map_err(|source| error("list", "the tables", errno_of(&source)))? {
        let table = again(|| Tables::open()?.read(&name))
            .map_err(|errno| error("read", &format!("table {name}"), errno))?;
        barriers.extend(table.barrier(bridge, anyway));
    }
    Ok(barriers)
}

/// Whether this network namespace has a legacy table.
pub(crate) fn are_there() -> Result<bool, Error> {
    Ok(!names().map_err(|source| error("list", "the tables", errno_of(&source)))?.is_empty())
}

/// Replaces each table for which `change` returns a new one.
fn change_all(verb: &'static str, change: impl Fn(&Table) -> Option<Table>) -> Result<(), Error> {
    for name in names().map_err(|source| error("list", "the tables", errno_of(&source)))? {
        let attempt = || {
            let tables = Tables::open()?;
            if change(&tables.read(&name)?).is_none() {
                return Ok(());
            }
            let _lock = lock()?;
            let table = tables.read(&name)?;
            change(&table).map_or(Ok(()), |changed| tables.replace(&table, &changed))
        };
        again(attempt).map_err(|errno| error(verb, &format!("rules in table {name}"), errno))?;
    }
    Ok(())
}

/// Adds the rules for the bridge.
pub(crate) fn let_through(bridge: &str, firewall: Firewall) -> Result<(), Error> {
    change_all("add", |table| table.letting_through(bridge, &table.barrier(bridge, firewall)?))
}

/// Removes all our rules for the bridge.
pub(crate) fn withdraw(bridge: &str) -> Result<(), Error> {
    change_all("remove", |table| table.without(bridge))
}
