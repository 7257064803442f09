//! A forwarded question. It goes to one server after another until one answers.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use domain::base::iana::Rcode;
use nix::poll::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::{
    random::Random,
    stream::{self, MESSAGE},
    wire::{self, Question, Replied, Reply},
};

/// How often the servers are asked before the client gets an error. It waits about five seconds
/// (resolv.conf(5)).
const ATTEMPTS: usize = 3;
const BY_UDP: Duration = Duration::from_millis(1500);
const BY_TCP: Duration = Duration::from_secs(3);

/// A question that waits for its answer. Each has a socket of its own, so its port must be guessed
/// by an attacker.
pub(crate) struct Exchange<C> {
    /// The client.
    pub(crate) client: C,
    pub(crate) question: Question,
    servers: Vec<SocketAddr>,
    attempt: usize,
    id: u16,
    edns: bool,
    way: Way,
    deadline: Instant,
}

/// How the server is asked.
enum Way {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, unsent: Vec<u8>, received: Vec<u8> },
}

/// The state of an exchange.
pub(crate) enum Progress {
    /// No answer yet.
    Waiting,
    /// The answer.
    Answered(Box<Reply>),
    /// No server has answered.
    Failed,
}

impl<C> Exchange<C> {
    /// Asks the first server. Returns the client as the error if no server can be asked.
    pub(crate) fn start(
        client: C,
        question: Question,
        servers: Vec<SocketAddr>,
        random: &mut Random,
    ) -> Result<Self, (C, Question)> {
        for attempt in 0..ATTEMPTS {
            let Some(server) = servers.get(attempt % servers.len().max(1)) else { break };
            let id = random.draw();
            if let Ok(way) = by_udp(*server, &question.query(id, true)) {
                let deadline = Instant::now() + BY_UDP;
                return Ok(Self { client, question, servers, attempt, id, edns: true, way, deadline });
            }
        }
        Err((client, question))
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The socket, and the events to poll for.
    pub(crate) fn waits_for(&self) -> (BorrowedFd<'_>, PollFlags) {
        match &self.way {
            Way::Udp(socket) => (socket.as_fd(), PollFlags::POLLIN),
            Way::Tcp { stream, unsent, .. } if !unsent.is_empty() => (stream.as_fd(), PollFlags::POLLOUT),
            Way::Tcp { stream, .. } => (stream.as_fd(), PollFlags::POLLIN),
        }
    }

    /// Handles what the socket received.
    pub(crate) fn go_on(&mut self, random: &mut Random) -> Progress {
        match self.receive() {
            Ok(None) => Progress::Waiting,
            Ok(Some(Replied::Truncated)) if matches!(self.way, Way::Udp(_)) => self.ask_by_tcp(random),
            Ok(Some(Replied::Reply(reply))) => match reply.rcode {
                Rcode::NOERROR | Rcode::NXDOMAIN => Progress::Answered(Box::new(reply)),
                // An old server that does not support EDNS.
                Rcode::FORMERR | Rcode::NOTIMP if self.edns => {
                    self.edns = false;
                    self.ask(self.attempt, random)
                }
                _ => self.ask(self.attempt + 1, random),
            },
            Ok(Some(_)) | Err(_) => self.ask(self.attempt + 1, random),
        }
    }

    /// Asks the next server, because this one did not answer in time.
    pub(crate) fn give_up_waiting(&mut self, random: &mut Random) -> Progress {
        self.ask(self.attempt + 1, random)
    }

    /// Receives an answer. None if it is not complete. Messages that do not answer the question are
    /// skipped.
    fn receive(&mut self) -> io::Result<Option<Replied>> {
        match &mut self.way {
            Way::Udp(socket) => {
                let mut buffer = [0; MESSAGE];
                loop {
                    let length = match socket.recv(&mut buffer) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                        received => received?,
                    };
                    match wire::reply(&buffer[..length], &self.question, self.id) {
                        Replied::Other => {}
                        replied => return Ok(Some(replied)),
                    }
                }
            }
            Way::Tcp { stream, unsent, .. } if !unsent.is_empty() => {
                let sent = stream.write(unsent)?;
                unsent.drain(..sent);
                Ok(None)
            }
            Way::Tcp { stream, received, .. } => {
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(length) => received.extend(&buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(error) => return Err(error),
                }
                Ok(stream::take(received).map(|bytes| wire::reply(&bytes, &self.question, self.id)))
            }
        }
    }

    /// Asks the server of this attempt, or the next one that can be asked.
    fn ask(&mut self, attempt: usize, random: &mut Random) -> Progress {
        for attempt in attempt..ATTEMPTS {
            self.attempt = attempt;
            self.id = random.draw();
            if let Ok(way) = by_udp(self.server(), &self.question.query(self.id, self.edns)) {
                self.way = way;
                self.deadline = Instant::now() + BY_UDP;
                return Progress::Waiting;
            }
        }
        Progress::Failed
    }

    fn server(&self) -> SocketAddr {
        self.servers[self.attempt % self.servers.len()]
    }

    fn ask_by_tcp(&mut self, random: &mut Random) -> Progress {
        self.id = random.draw();
        match by_tcp(self.server(), &self.question.query(self.id, self.edns)) {
            Ok(way) => {
                self.way = way;
                self.deadline = Instant::now() + BY_TCP;
                Progress::Waiting
            }
            Err(_) => self.ask(self.attempt + 1, random),
        }
    }
}

fn by_udp(server: SocketAddr, query: &[u8]) -> io::Result<Way> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    // From here on, the socket receives only from this server.
    socket.connect(server)?;
    socket.send(query)?;
    Ok(Way::Udp(socket))
}

fn by_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Way> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &server) {
        Err(rustix::io::Errno::INPROGRESS) => {}
        connected => connected?,
    }
    Ok(Way::Tcp { stream: socket.into(), unsent: stream::framed(query), received: Vec::new() })
}
