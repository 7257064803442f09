//! The BPF program that the kernel runs whenever a socket is bound
//! (BPF_PROG_TYPE_CGROUP_SOCK_ADDR), and the map of the ports that it refuses.
//!
//! The program is attached to the root cgroup, so it covers every process. It is attached once for
//! all containers of the machine, in any run directory. Each port is an entry in the map. The key
//! includes the cookie of the network namespace, so containers, and other hosts on the same kernel,
//! can bind what they like. Nothing is pinned: program and map are found by the program's name.
//!
//! There is no lock, because the kernel has no object for it that only root can lock. Instead, a
//! map that is about to be removed has the entry [`CLOSED`]. The process that removes the last port
//! adds this entry, checks again that the map is empty, and only then detaches the program. A
//! process that adds a port then looks for this entry. If the entry is there, the process uses
//! another map. Several programs may be attached at the same time: one is closed, or full, or two
//! processes started at once. All of them are in effect.

use std::{
    collections::HashSet,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

use bpf::{
    Assembler, Attachment, Errno, Program,
    opcode::{
        ADD, CALL, EXIT, JUMP, JUMP_EQUAL, JUMP_EQUAL_32, JUMP_NOT_EQUAL, JUMP_NOT_EQUAL_32, LOAD_32,
        LOAD_64, LOAD_NUMBER_64, MOVE, MOVE_REGISTER, STORE_16, STORE_32, STORE_64, STORE_NUMBER_32,
    },
};
use nix::libc;
use sha2::{Digest, Sha256};

use crate::{Port, bound};

/// The name of programs and maps. It stands for their function and the format of the map: a change
/// of either needs a new name.
const NAME: &str = "stave_hold";

/// The size of a map, in ports. The kernel allocates sixteen bytes for each, used or not. A full
/// map is followed by another one.
const ENTRIES: u32 = 16384;
/// The entries of a map that new ports leave free. An undo may have to put an entry back that stood before.
const SPARE: usize = 256;

/// How often, and after which time, an entry is tried again that finds no room.
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(1);

/// `struct key { u64 cookie; __be32 address; __be16 port; __u16 protocol; }`
type Key = [u8; 16];
/// Identifies the container that a port belongs to.
type Mark = [u8; 8];
type Map = bpf::Map<16, 8>;

/// Instead of an address: the port is refused on all addresses.
const ALL: u32 = 0;
/// Instead of an address: the port is published on at least one address, so it is refused for a
/// socket on all addresses.
const SOME: u32 = u32::MAX;

/// The entry of a map that is about to be removed. No network namespace has the cookie 0.
const CLOSED: Key = [0; 16];

const ATTACHMENTS: [Attachment; 2] = [Attachment::Bind4, Attachment::Bind6];

/// A map, and the programs for IPv4 and IPv6 that use it.
struct Guard {
    id: u32,
    map: Map,
    programs: [Option<Program>; 2],
}

/// The maps and programs, for ports of this thread's network namespace.
pub(crate) struct Guards {
    cgroup: OwnedFd,
    cookie: u64,
    standing: Vec<Guard>,
}

/// Why ports cannot be held by a program: the step that failed, and the errno.
pub(crate) type Refused = (&'static str, Errno);

/// Whether this process can load such a program.
pub(crate) fn is_possible() -> bool {
    let mut allows = Assembler::default();
    allows.push(MOVE, 0, 0, 0, 1).push(EXIT, 0, 0, 0, 0);
    let loads = || Program::load(NAME, Attachment::Bind4, &allows.finish()).is_ok();
    Guards::open().is_ok_and(|guards| !guards.standing.is_empty() || loads())
}

/// The mark of a container.
fn mark(holder: &str) -> Mark {
    let digest = Sha256::digest(holder);
    let mut mark = Mark::default();
    mark.iter_mut().zip(digest).for_each(|(place, byte)| *place = byte);
    mark
}

/// The key of a port. Everything but the cookie and the protocol is in network byte order.
fn key(cookie: u64, address: u32, port: Port) -> Key {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&cookie.to_ne_bytes());
    key[8..12].copy_from_slice(&address.to_be_bytes());
    key[12..14].copy_from_slice(&port.port.to_be_bytes());
    key[14..].copy_from_slice(&(port.protocol() as u16).to_ne_bytes());
    key
}

/// The key of the port itself, on its address, or on all addresses.
fn own_key(cookie: u64, port: Port) -> Key {
    // IPv6 ports are held by sockets.
    key(cookie, port.v4().map_or(ALL, u32::from), port)
}

impl Guards {
    /// Opens the existing maps and programs.
    pub(crate) fn open() -> Result<Self, Refused> {
        let cookie = bpf::namespace_cookie().map_err(|errno| ("SO_NETNS_COOKIE", errno))?;
        let cgroup = mount::cgroup::open().map_err(|error| {
            let errno = error.errno().map_or(Errno::IO, |errno| Errno::from_raw_os_error(errno as i32));
            ("cgroup2", errno)
        })?;
        let mut guards = Self { cgroup, cookie, standing: Vec::new() };
        for (at, attachment) in ATTACHMENTS.into_iter().enumerate() {
            let attached =
                Program::attached(&guards.cgroup, attachment, NAME).map_err(|errno| ("bpf", errno))?;
            for (program, maps) in attached {
                let Some(id) = maps.first() else { continue };
                guards.know(*id, at, program).map_err(|errno| ("bpf", errno))?;
            }
        }
        Ok(guards)
    }

    fn know(&mut self, id: u32, at: usize, program: Program) -> Result<(), Errno> {
        let guard = match self.standing.iter().position(|guard| guard.id == id) {
            Some(found) => &mut self.standing[found],
            None => {
                let map = match Map::by_id(id) {
                    Err(Errno::NOENT) => return Ok(()),
                    map => map?,
                };
                self.standing.push(Guard { id, map, programs: [None, None] });
                let last = self.standing.len() - 1;
                &mut self.standing[last]
            }
        };
        guard.programs[at] = Some(program);
        Ok(())
    }

    /// The ports that are not held for the container.
    pub(crate) fn unheld(&self, holder: &str, ports: &[Port]) -> Result<Vec<Port>, Errno> {
        let mark = mark(holder);
        let mut unheld = Vec::new();
        for port in ports {
            if !self.has(&mark, *port)? {
                unheld.push(*port);
            }
        }
        Ok(unheld)
    }

    /// Holds the ports, which are not held yet. EEXIST if another container holds one; the ports
    /// before it stay held.
    pub(crate) fn add(&mut self, holder: &str, ports: &[Port]) -> Result<(), Refused> {
        let failed = |errno| ("bpf", errno);
        let mark = mark(holder);
        let mut rest = ports.to_vec();
        let mut at = 0;
        while !rest.is_empty() {
            if at == self.standing.len() {
                let guard = self.made()?;
                self.standing.push(guard);
            }
            self.complete(at)?;
            let guard = &self.standing[at];
            let left = guard.add(self.cookie, &mark, &rest).map_err(failed)?;
            // If the map is about to be removed, the added ports do not count.
            if guard.map.get(&CLOSED).map_err(failed)?.is_none() {
                rest = left;
            }
            at += 1;
        }
        Ok(())
    }

    /// Releases this container's ports, and detaches programs whose map is empty.
    pub(crate) fn remove(&self, holder: &str, ports: &[Port]) -> Result<(), Errno> {
        let mark = mark(holder);
        for guard in &self.standing {
            guard.remove(self.cookie, &mark, ports)?;
        }
        self.standing.iter().try_for_each(|guard| guard.end_if_empty(&self.cgroup))
    }

    /// Whether the port is held for the container with this mark.
    fn has(&self, mark: &Mark, port: Port) -> Result<bool, Errno> {
        let has = |guard: &Guard| -> Result<bool, Errno> {
            let is_complete = guard.programs.iter().all(Option::is_some);
            let is_own = guard.map.get(&own_key(self.cookie, port))?.is_some_and(|found| found == *mark);
            let rest = port.host_ip.is_none() || guard.map.get(&key(self.cookie, SOME, port))?.is_some();
            Ok(is_complete && is_own && rest && guard.map.get(&CLOSED)?.is_none())
        };
        for guard in &self.standing {
            if has(guard)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first of the ports that is not held for the container.
    pub(crate) fn lack(&self, holder: &str, ports: &[Port]) -> Result<Option<Port>, Errno> {
        Ok(self.unheld(holder, ports)?.first().copied())
    }

    /// Makes a new, empty map.
    fn made(&self) -> Result<Guard, Refused> {
        let map = Map::new(NAME, ENTRIES).map_err(|errno| ("bpf", errno))?;
        // The kernel's id of the program is not needed here.
        Ok(Guard { id: 0, map, programs: [None, None] })
    }

    /// Attaches the missing programs of this map.
    fn complete(&mut self, at: usize) -> Result<(), Refused> {
        let guard = &mut self.standing[at];
        for (program, attachment) in guard.programs.iter_mut().zip(ATTACHMENTS) {
            if program.is_none() {
                let loaded = load(attachment, &guard.map).map_err(|errno| ("bpf", errno))?;
                loaded.attach(&self.cgroup, attachment).map_err(|errno| ("bpf", errno))?;
                *program = Some(loaded);
            }
        }
        Ok(())
    }

    /// The commands that hold a port.
    pub(crate) fn commands(&self, holder: &str, ports: &[Port]) -> Vec<String> {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let place = mount::cgroup::visible_place().unwrap_or_else(|| "/sys/fs/cgroup".into());
        let mut lines: Vec<String> = ["cgroup_inet4_bind", "cgroup_inet6_bind"]
            .map(|kind| format!("bpftool cgroup attach {} {kind} name {NAME} multi", place.display()))
            .into();
        for port in ports {
            let some = port.host_ip.map(|_| key(self.cookie, SOME, *port));
            for key in [own_key(self.cookie, *port)].into_iter().chain(some) {
                let (key, value) = (hex(&key), hex(&mark(holder)));
                lines.push(format!("bpftool map update name {NAME} key hex {key} value hex {value}"));
            }
        }
        lines
    }
}

impl Guard {
    /// Adds the ports. Returns those that found no room.
    fn add(&self, cookie: u64, mark: &Mark, ports: &[Port]) -> Result<Vec<Port>, Errno> {
        let mut room = (ENTRIES as usize - SPARE).saturating_sub(self.map.keys()?.len());
        for (at, port) in ports.iter().enumerate() {
            let wanted = if port.host_ip.is_some() { 2 } else { 1 };
            if room < wanted {
                return Ok(ports[at..].to_vec());
            }
            room -= wanted;
            let add = || -> Result<(), Errno> {
                let own = own_key(cookie, *port);
                match self.map.insert(&own, mark) {
                    Err(Errno::EXIST) if self.map.get(&own)? == Some(*mark) => {}
                    added => added?,
                }
                match port.host_ip {
                    None => Ok(()),
                    Some(_) => self.map.set(&key(cookie, SOME, *port), &Mark::default()),
                }
            };
            match add() {
                Err(Errno::TOOBIG | Errno::NOMEM) => return Ok(ports[at..].to_vec()),
                added => added?,
            }
        }
        Ok(Vec::new())
    }

    fn remove(&self, cookie: u64, mark: &Mark, ports: &[Port]) -> Result<(), Errno> {
        for port in ports {
            let own = own_key(cookie, *port);
            if self.map.get(&own)? == Some(*mark) {
                self.map.remove(&own)?;
            }
        }
        let on_one: Vec<_> = ports.iter().filter(|port| port.host_ip.is_some()).collect();
        let some: Vec<Key> = on_one.into_iter().map(|port| key(cookie, SOME, *port)).collect();
        self.settle(&some)
    }

    /// Removes the entries that a port is published on some address, if it is on none. A process
    /// with another run directory may add an address in the meantime. It adds the address before
    /// such an entry, so a second look finds it. During that moment the port is free for a socket
    /// on all addresses.
    fn settle(&self, some: &[Key]) -> Result<(), Errno> {
        if some.is_empty() {
            return Ok(());
        }
        let without_address = |key: &Key| (key[..8].to_vec(), key[12..].to_vec());
        let needed = || -> Result<HashSet<_>, Errno> {
            let is_one =
                |key: &Key| ![ALL.to_be_bytes(), SOME.to_be_bytes()].iter().any(|none| key[8..12] == *none);
            Ok(self.map.keys()?.iter().filter(|key| is_one(key)).map(without_address).collect())
        };
        let before = needed()?;
        let surplus: Vec<_> = some.iter().filter(|key| !before.contains(&without_address(key))).collect();
        for key in &surplus {
            self.map.remove(key)?;
        }
        let after = needed()?;
        for key in surplus.into_iter().filter(|key| after.contains(&without_address(key))) {
            // Without room, the port stays free for a socket on all addresses until the other container's
            // next repair. The ports of this one are released anyway.
            self.set(key)?;
        }
        Ok(())
    }

    /// Sets an entry that belongs to no container. Returns whether there was room. Other processes may
    /// fill the map in between. It may also look full for a moment, because the kernel distributes its
    /// free entries among processors. So it tries for a while.
    fn set(&self, key: &Key) -> Result<bool, Errno> {
        for _ in 0..TRIES {
            match self.map.set(key, &Mark::default()) {
                Err(Errno::TOOBIG | Errno::NOMEM) => thread::sleep(PAUSE),
                set => return set.map(|()| true),
            }
        }
        Ok(false)
    }

    /// Detaches the programs if the map is empty.
    fn end_if_empty(&self, cgroup: &OwnedFd) -> Result<(), Errno> {
        let is_empty = || -> Result<bool, Errno> {
            let mut key = self.map.next_key(None)?;
            while key == Some(CLOSED) {
                key = self.map.next_key(key.as_ref())?;
            }
            Ok(key.is_none())
        };
        if !is_empty()? {
            return Ok(());
        }
        if !self.set(&CLOSED)? {
            // Another process has filled the map in between.
            return Ok(());
        }
        if !is_empty()? {
            // Another process added a port in between. If it has seen the entry, it uses another
            // map and removes the port here again.
            return self.map.remove(&CLOSED);
        }
        for (program, attachment) in self.programs.iter().zip(ATTACHMENTS) {
            match program.as_ref().map(|program| program.detach(cgroup, attachment)) {
                Some(Err(Errno::NOENT)) | None => {}
                Some(detached) => detached?,
            }
        }
        Ok(())
    }
}

/// Loads the program. Before Linux 5.18 the program cannot choose the error of a refused process,
/// which then gets EPERM.
fn load(attachment: Attachment, map: &Map) -> Result<Program, Errno> {
    match Program::load(NAME, attachment, &instructions(attachment, map, true)) {
        Err(Errno::INVAL) => Program::load(NAME, attachment, &instructions(attachment, map, false)),
        loaded => loaded,
    }
}

/// Members of `struct bpf_sock_addr`, and of `struct bpf_sock`, linux/bpf.h.
const USER_IP4: i16 = 4;
const USER_IP6: i16 = 8;
const USER_PORT: i16 = 24;
const PROTOCOL: i16 = 36;
const SOCKET: i16 = 64;
const SOCKET_MARK: i16 = 16;

/// Functions of the kernel, `enum bpf_func_id`.
const MAP_LOOK_UP: i32 = 1;
const NAMESPACE_COOKIE: i32 = 122;
const SET_RETURN_VALUE: i32 = 187;

/// BPF_PSEUDO_MAP_FD
const MAP_DESCRIPTOR: u8 = 1;

/// The offset of the key on the stack, and within it of address, port and protocol.
const KEY: i16 = -16;
const ADDRESS: i16 = -8;
const PORT: i16 = -4;
const PROTOCOL_OF_KEY: i16 = -2;

/// Registers: the frame pointer, the context, and the address to be bound. Function calls preserve
/// the last two.
const FRAME: u8 = 10;
const CONTEXT: u8 = 6;
const TO_BIND: u8 = 7;

/// The instructions of the program. It returns 0 to refuse, and 1 to allow. With `says_why`, the
/// refused process gets EADDRINUSE.
fn instructions(attachment: Attachment, map: &Map, says_why: bool) -> Vec<u64> {
    let descriptor = map.as_fd().as_raw_fd();
    let mut program = Assembler::default();
    program
        .push(MOVE_REGISTER, CONTEXT, 1, 0, 0)
        .push(LOAD_32, 2, CONTEXT, USER_PORT, 0)
        // The kernel chooses the port, and leaves out reserved ones.
        .jump(JUMP_EQUAL, 2, 0, "allow")
        .push(STORE_16, FRAME, 2, PORT, 0)
        // A socket of ours that only checks the port.
        .push(LOAD_64, 1, CONTEXT, SOCKET, 0)
        .push(LOAD_32, 1, 1, SOCKET_MARK, 0)
        .jump(JUMP_EQUAL_32, 1, bound::LOOKING.cast_signed(), "allow");
    load_address(&mut program, attachment);
    program
        .push(LOAD_32, 2, CONTEXT, PROTOCOL, 0)
        .push(STORE_16, FRAME, 2, PROTOCOL_OF_KEY, 0)
        .push(MOVE_REGISTER, 1, CONTEXT, 0, 0)
        .push(CALL, 0, 0, 0, NAMESPACE_COOKIE)
        .push(STORE_64, FRAME, 0, KEY, 0)
        .push(STORE_NUMBER_32, FRAME, 0, ADDRESS, ALL.cast_signed());
    look_up(&mut program, descriptor);
    program
        .jump(JUMP_NOT_EQUAL_32, TO_BIND, 0, "one")
        .push(MOVE, TO_BIND, 0, 0, SOME.cast_signed())
        .label("one")
        .push(STORE_32, FRAME, TO_BIND, ADDRESS, 0);
    look_up(&mut program, descriptor);
    program.jump(JUMP, 0, 0, "allow").label("refuse");
    if says_why {
        program.push(MOVE, 1, 0, 0, -libc::EADDRINUSE).push(CALL, 0, 0, 0, SET_RETURN_VALUE);
    }
    program
        .push(MOVE, 0, 0, 0, 0)
        .push(EXIT, 0, 0, 0, 0)
        .label("allow")
        .push(MOVE, 0, 0, 0, 1)
        .push(EXIT, 0, 0, 0, 0);
    program.finish()
}

/// Loads the IPv4 address to be bound. Goes to "allow" for an address of IPv6 alone.
fn load_address(program: &mut Assembler, attachment: Attachment) {
    if attachment != Attachment::Bind6 {
        program.push(LOAD_32, TO_BIND, CONTEXT, USER_IP4, 0);
        return;
    }
    // An IPv4 address mapped to IPv6, or `::`, which includes IPv4.
    program
        .push(LOAD_32, 1, CONTEXT, USER_IP6, 0)
        .jump(JUMP_NOT_EQUAL, 1, 0, "allow")
        .push(LOAD_32, 1, CONTEXT, USER_IP6 + 4, 0)
        .jump(JUMP_NOT_EQUAL, 1, 0, "allow")
        .push(LOAD_32, TO_BIND, CONTEXT, USER_IP6 + 12, 0)
        .push(LOAD_32, 1, CONTEXT, USER_IP6 + 8, 0)
        .jump(JUMP_EQUAL_32, 1, 0xffff_u32.to_be().cast_signed(), "known")
        .jump(JUMP_NOT_EQUAL_32, 1, 0, "allow")
        .jump(JUMP_NOT_EQUAL_32, TO_BIND, 0, "allow")
        .label("known");
}

/// Looks the key up in the map. Goes to "refuse" if it is there.
fn look_up(program: &mut Assembler, map: i32) {
    program
        .push(LOAD_NUMBER_64, 1, MAP_DESCRIPTOR, 0, map)
        .push(0, 0, 0, 0, 0)
        .push(MOVE_REGISTER, 2, FRAME, 0, 0)
        .push(ADD, 2, 0, 0, KEY.into())
        .push(CALL, 0, 0, 0, MAP_LOOK_UP)
        .jump(JUMP_NOT_EQUAL, 0, 0, "refuse");
}
