//! Compares the name in the TLS hello of each connection with the names that opened its address, and
//! passes on what belongs together.
//!
//! The listeners are in the container's network namespace, where the table of `redirect` leads the
//! connections to them. The relay reads the hello, which it does not open, and only then connects to
//! the very address that the container wanted, from the host. So the container has no way around it,
//! whatever rights it has in its namespace. Everything else is reset.
//!
//! It is one thread beside the resolver, and waits with epoll, because connections are many and stay
//! long.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, PipeReader, PipeWriter, Read, pipe},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
    net::{SocketFlags, accept_with},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{
    connection::{Connection, Fate, Stage, is_later, reset, wanted},
    given::Given,
    hello::{self, Hello, Why},
    journal::{self, Journal, Outcome, What},
    list::Protocol,
    second::{Refused, Watch},
};

/// How long a hello may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The maximum number of connections, and the number of descriptors that are left for the resolver. A
/// container must not fill the host's memory with what its connections have not taken yet.
const CONNECTIONS: u64 = 1024;
const OTHERS: u64 = 256;
/// How long to wait when the host has neither files nor memory for a connection.
const MOMENT: Duration = Duration::from_millis(100);
/// The most bytes that are read at once.
const BUFFER: usize = 1 << 16;
/// The most bytes before the end of a hello: its records may be small.
const BEFORE: usize = 2 * hello::MOST;
/// The shortest time between two equal lines in the journal, and the number of lines that are
/// remembered for it.
const LOGGED: Duration = Duration::from_secs(60);
const LINES: usize = 4096;
/// The number of the first connection. The numbers before it are the listeners'.
const FIRST: u64 = 8;

/// What the relay works with.
pub(crate) struct Relay {
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) given: Arc<Mutex<Given>>,
    pub(crate) journal: Arc<Journal>,
    /// Whether everything passes and is only logged.
    pub(crate) learn: bool,
}

/// The lock on what the container was given.
pub(crate) fn lock(given: &Mutex<Given>) -> MutexGuard<'_, Given> {
    given.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the relay on a thread of its own. The result ends when the thread does.
///
/// # Errors
/// When there is no thread, or no descriptor for it.
pub(crate) fn start(relay: Relay) -> io::Result<PipeReader> {
    let (ended, end) = pipe()?;
    let most = raise_limit();
    let mut running = Running::new(relay, most)?;
    let mut run = move |_end: PipeWriter| {
        // Without it, nothing passes until the next repair.
        let _ = running.run();
    };
    thread::Builder::new().name("egress-sni".to_owned()).spawn(move || run(end))?;
    Ok(ended)
}

/// Allows as many open files as possible. Returns the number of connections for which they are
/// enough.
fn raise_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = 2 * CONNECTIONS + OTHERS;
    let raised = Some(limit.maximum.unwrap_or(wanted).min(wanted)).max(limit.current);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: raised, maximum: limit.maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(wanted).min(wanted);
    usize::try_from(files.saturating_sub(OTHERS) / 2).unwrap_or_default().max(16)
}

/// A line of the journal: where the connection goes, the name in the hello, and the reason.
type Line = (SocketAddr, Option<String>, Option<&'static str>);

struct Running {
    relay: Relay,
    epoll: OwnedFd,
    connections: HashMap<u64, Connection>,
    /// The connections whose hello is awaited, the oldest first.
    hellos: VecDeque<(Instant, u64)>,
    next: u64,
    most: usize,
    /// The number of connections for which there is room now: fewer after the host lacked memory or files.
    room: usize,
    /// Whether the listeners are waited for.
    listens: bool,
    logged: HashMap<Line, Instant>,
    buffer: Vec<u8>,
}

impl Running {
    fn new(relay: Relay, most: usize) -> io::Result<Self> {
        let mut running = Self {
            relay,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            connections: HashMap::new(),
            hellos: VecDeque::new(),
            next: FIRST,
            most,
            room: most,
            listens: false,
            logged: HashMap::new(),
            buffer: vec![0; BUFFER],
        };
        running.listen(true)?;
        Ok(running)
    }

    /// Waits for the listeners, or does so no more.
    fn listen(&mut self, listens: bool) -> io::Result<()> {
        if self.listens == listens {
            return Ok(());
        }
        for (at, listener) in self.relay.listeners.iter().enumerate() {
            match listens {
                true => epoll::add(&self.epoll, listener, EventData::new_u64(at as u64), EventFlags::IN)?,
                false => epoll::delete(&self.epoll, listener)?,
            }
        }
        self.listens = listens;
        Ok(())
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = [MaybeUninit::<Event>::uninit(); 256];
        loop {
            let now = Instant::now();
            let left = self.hellos.front().map(|(until, _)| until.saturating_duration_since(now));
            // Rounded up, so that it does not wake just before the deadline.
            let left = left.map(|left| left + Duration::from_millis(1));
            let timeout = left.map(|left| Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            });
            let ready = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
                Err(Errno::INTR) => continue,
                ready => ready?.0.iter().map(|event| (event.data.u64(), event.flags)).collect::<Vec<_>>(),
            };
            for (number, flags) in ready {
                match usize::try_from(number).ok().filter(|at| *at < self.relay.listeners.len()) {
                    Some(at) => self.accept(at)?,
                    None => self.attend(number >> 1, number & 1 == 1, flags),
                }
            }
            self.expire();
            self.listen(self.connections.len() < self.room)?;
        }
    }

    /// Ends the connections whose hello does not come.
    fn expire(&mut self) {
        let now = Instant::now();
        while self.hellos.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, number)) = self.hellos.pop_front() else { return };
            let Some(connection) = self.connections.get(&number) else { continue };
            if connection.stage == Stage::Hello {
                let why = if connection.up.pending.is_empty() { Why::NotTls } else { Why::Malformed };
                let fate = self.without(number, why, None);
                self.conclude(number, fate);
            }
        }
    }

    fn accept(&mut self, at: usize) -> io::Result<()> {
        while self.connections.len() < self.room {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let stream = match accept_with(&self.relay.listeners[at], flags) {
                Ok(socket) => TcpStream::from(socket),
                Err(Errno::AGAIN) => return Ok(()),
                // The client has gone.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PERM | Errno::PROTO) => continue,
                // Too many files, or too little memory. It tries again when a connection ends, or without one
                // after a moment.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    match self.connections.len() {
                        0 => thread::sleep(MOMENT),
                        connections => self.room = connections,
                    }
                    return Ok(());
                }
                Err(errno) => return Err(errno.into()),
            };
            let Some(to) = wanted(&stream) else {
                reset(&stream);
                continue;
            };
            let is_open = self.relay.learn || lock(&self.relay.given).is_open(to, Instant::now());
            if !is_open {
                self.note(Outcome::Rejected, to, None, None);
                reset(&stream);
                continue;
            }
            self.next += 1;
            self.connections.insert(self.next, Connection::new(stream, to));
            self.hellos.push_back((Instant::now() + PATIENCE, self.next));
            self.conclude(self.next, Fate::Stays);
        }
        Ok(())
    }

    /// Handles what happened at one side of a connection.
    fn attend(&mut self, number: u64, at_server: bool, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let fate = match connection.stage {
            Stage::Hello => self.hear(number),
            Stage::Connecting => match connection.connected() {
                Ok(()) => connection.pass(&mut self.buffer, true, true),
                Err(_) => Fate::Broken,
            },
            Stage::Passing => {
                let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
                let (reads, writes) = (flags.contains(EventFlags::IN), flags.contains(EventFlags::OUT));
                let (up, down) = if at_server { (writes, reads) } else { (reads, writes) };
                connection.pass(&mut self.buffer, up || broken, down || broken)
            }
        };
        self.conclude(number, fate);
    }

    /// Reads of a hello, and decides when it is complete.
    fn hear(&mut self, number: u64) -> Fate {
        let Some(connection) = self.connections.get_mut(&number) else { return Fate::Over };
        let room = BEFORE.saturating_sub(connection.up.pending.len()).min(self.buffer.len());
        match connection.client.stream.read(&mut self.buffer[..room]) {
            Ok(0) => return Fate::Over,
            Ok(length) => connection.up.pending.extend_from_slice(&self.buffer[..length]),
            Err(error) if is_later(&error) => return Fate::Stays,
            Err(_) => return Fate::Broken,
        }
        match hello::read(&connection.up.pending) {
            Hello::Part if connection.up.pending.len() < BEFORE => Fate::Stays,
            Hello::Part => self.without(number, Why::Malformed, None),
            Hello::Without(why, name) => self.without(number, why, name),
            Hello::Name(name) => self.named(number, name),
        }
    }

    fn named(&mut self, number: u64, name: String) -> Fate {
        let Some(to) = self.connections.get(&number).map(|connection| connection.to) else {
            return Fate::Over;
        };
        if lock(&self.relay.given).has(to, &name, Instant::now()) {
            if let Some(connection) = self.connections.get_mut(&number).filter(|_| !self.relay.learn) {
                let mut watch = Watch::new(name.clone());
                if let Err(refused) = watch.client(&connection.up.pending) {
                    return Fate::Refused(refused);
                }
                connection.watch = Some(watch);
            }
            return self.connect(number, Some(name));
        }
        if self.relay.learn {
            self.note(Outcome::Logged, to, Some(name.clone()), None);
            return self.connect(number, Some(name));
        }
        self.note(Outcome::Rejected, to, Some(name), Some(journal::ANOTHER));
        Fate::Broken
    }

    fn without(&mut self, number: u64, why: Why, name: Option<String>) -> Fate {
        let Some(to) = self.connections.get(&number).map(|connection| connection.to) else {
            return Fate::Over;
        };
        if self.relay.learn {
            self.note(Outcome::Logged, to, name.clone(), Some(why.text()));
            return self.connect(number, name);
        }
        self.note(Outcome::Rejected, to, name, Some(why.text()));
        Fate::Broken
    }

    /// Begins a connection to the address that the client wants, with this name in its hello.
    fn connect(&mut self, number: u64, name: Option<String>) -> Fate {
        let Some(connection) = self.connections.get_mut(&number) else { return Fate::Over };
        let to = connection.to;
        let Ok(true) = is_elsewhere(to.ip()) else {
            self.note(Outcome::Rejected, to, name, Some("an address of this host or of a container"));
            return Fate::Broken;
        };
        if connection.begin().is_ok() { Fate::Stays } else { Fate::Broken }
    }

    /// Ends a connection, or waits for what it needs next.
    fn conclude(&mut self, number: u64, fate: Fate) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let fate = match fate {
            Fate::Stays if connection.wait(&self.epoll, number).is_err() => Fate::Broken,
            Fate::Refused(Refused(why, name)) => {
                let (to, reason) = (connection.to, why.map_or(journal::ANOTHER, Why::text));
                self.note(Outcome::Rejected, to, name, Some(reason));
                Fate::Broken
            }
            fate => fate,
        };
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if let Fate::Broken = fate {
            reset(&connection.client.stream);
            connection.server.iter().for_each(|server| reset(&server.stream));
        }
        if !matches!(fate, Fate::Stays) {
            // Closing the sockets removes them from what is waited for.
            self.connections.remove(&number);
            self.room = self.most;
        }
    }

    /// Writes a line to the journal, unless there was an equal one a moment ago.
    fn note(&mut self, verdict: Outcome, to: SocketAddr, sni: Option<String>, reason: Option<&'static str>) {
        let now = Instant::now();
        let key = (to, sni, reason);
        if self.logged.get(&key).is_some_and(|last| now.duration_since(*last) < LOGGED) {
            return;
        }
        if self.logged.len() >= LINES {
            self.logged.clear();
        }
        self.logged.insert(key.clone(), now);
        let (address, port, protocol) = (to.ip(), Some(to.port()), Protocol::Tcp.to_string());
        let reason = reason.map(str::to_owned);
        self.relay.journal.note(verdict, What::Packet { address, port, protocol, sni: key.1, reason });
    }
}

/// Whether the address belongs to another host, and not to a container on one of our bridges. The
/// rules for forwarded packets keep containers of different bridges apart. The relay's own packets
/// do not pass these rules.
fn is_elsewhere(address: IpAddr) -> Result<bool, netlink::Error> {
    let link = netlink::Connection::open(None)?.link_towards(address)?;
    Ok(link.is_some_and(|link| !link.is_our_bridge()))
}
