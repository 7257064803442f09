//! The main loop of a resolver.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    ops::ControlFlow,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    Own, Place, Question,
    exchange::{Exchange, Progress},
    random::Random,
    stream::{self, MESSAGE},
    wire::{self, Asked},
};

/// The maximum numbers of pending questions and of connections of one place.
const QUESTIONS: usize = 128;
const CONNECTIONS: usize = 32;
/// The most bytes that are kept for a client that does not read its answers.
const UNSENT: usize = 1 << 20;
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(10);
/// How often [`Policy::look_around`] is called at least.
const LOOK: Duration = Duration::from_secs(60);

/// How a question is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// With this answer.
    Own(Own),
    /// By a name server.
    Forward,
}

/// Decides how questions are answered. The policy numbers its places, and never reuses a number.
pub trait Policy {
    /// The sockets that clients send their questions to.
    fn places(&self) -> Vec<(u64, &Place)>;

    /// How to answer a question that was asked at this place.
    fn decide(&mut self, place: u64, question: &Question) -> Verdict;

    /// The name servers for forwarded questions.
    fn servers(&mut self, place: u64) -> Vec<SocketAddr>;

    /// Chooses which of the server's addresses the client gets, each with its TTL in seconds.
    /// Called before the answer is sent. None makes the client get an error.
    fn admit(&mut self, place: u64, question: &Question, addresses: &[(IpAddr, u32)]) -> Option<Vec<IpAddr>>;

    /// More descriptors to poll.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// Called when the descriptor at this index of the list is ready. Returns whether to continue.
    fn ready(&mut self, at: usize) -> ControlFlow<()>;

    /// Called at least once a minute. Returns whether to continue.
    fn look_around(&mut self) -> ControlFlow<()>;
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy)]
enum Client {
    Datagram { place: u64, address: SocketAddr },
    Stream { place: u64, number: u64 },
}

impl Client {
    fn place(self) -> u64 {
        match self {
            Self::Datagram { place, .. } | Self::Stream { place, .. } => place,
        }
    }

    fn is_datagram(self) -> bool {
        matches!(self, Self::Datagram { .. })
    }
}

/// A TCP connection of a client.
struct Connection {
    place: u64,
    stream: TcpStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    until: Instant,
}

struct Server<P> {
    policy: P,
    exchanges: Vec<Exchange<Client>>,
    connections: HashMap<u64, Connection>,
    next: u64,
    random: Random,
}

/// Something that is ready.
#[derive(Clone, Copy)]
enum Source {
    Policy(usize),
    Datagrams(u64),
    Listener(u64),
    Exchange(usize),
    Connection(u64),
}

/// Answers questions until the policy ends the loop.
///
/// # Errors
/// When polling fails.
pub fn serve<P: Policy>(policy: P) -> Result<(), Errno> {
    let mut server = Server {
        policy,
        exchanges: Vec::new(),
        connections: HashMap::new(),
        next: 0,
        random: Random::default(),
    };
    let mut look = Instant::now() + LOOK;
    loop {
        let mut ready = server.wait(look)?;
        // An exchange that ends changes the indexes of those behind it.
        ready
            .sort_by_key(|source| std::cmp::Reverse(if let Source::Exchange(at) = source { *at } else { 0 }));
        for source in ready {
            if server.handle(source).is_break() {
                return Ok(());
            }
        }
        let now = Instant::now();
        server.expire(now);
        if now >= look {
            if server.policy.look_around().is_break() {
                return Ok(());
            }
            look = now + LOOK;
        }
    }
}

impl<P: Policy> Server<P> {
    /// Waits, and returns what is ready.
    fn wait(&self, look: Instant) -> Result<Vec<Source>, Errno> {
        let mut sources = Vec::new();
        let mut polled = Vec::new();
        for (at, descriptor) in self.policy.descriptors().into_iter().enumerate() {
            sources.push(Source::Policy(at));
            polled.push(PollFd::new(descriptor, PollFlags::POLLIN));
        }
        for (number, place) in self.policy.places() {
            sources.extend([Source::Datagrams(number), Source::Listener(number)]);
            polled.push(PollFd::new(place.udp.as_fd(), PollFlags::POLLIN));
            polled.push(PollFd::new(place.tcp.as_fd(), PollFlags::POLLIN));
        }
        for (at, exchange) in self.exchanges.iter().enumerate() {
            let (socket, flags) = exchange.waits_for();
            sources.push(Source::Exchange(at));
            polled.push(PollFd::new(socket, flags));
        }
        for (number, connection) in &self.connections {
            let unsent = if connection.unsent.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            sources.push(Source::Connection(*number));
            polled.push(PollFd::new(connection.stream.as_fd(), PollFlags::POLLIN | unsent));
        }
        let ends = self.exchanges.iter().map(Exchange::deadline);
        let ends = ends.chain(self.connections.values().map(|connection| connection.until));
        let left = ends.fold(look, Instant::min).saturating_duration_since(Instant::now());
        // Rounded up, so that it does not wake just before the deadline.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let is_ready = |(_, polled): &(_, &PollFd<'_>)| polled.any() == Some(true);
        Ok(sources.into_iter().zip(&polled).filter(is_ready).map(|(source, _)| source).collect())
    }

    fn handle(&mut self, source: Source) -> ControlFlow<()> {
        match source {
            Source::Policy(at) => return self.policy.ready(at),
            Source::Datagrams(place) => self.take_datagrams(place),
            Source::Listener(place) => self.accept(place),
            Source::Exchange(at) => {
                if let Some(exchange) = self.exchanges.get_mut(at) {
                    let progress = exchange.go_on(&mut self.random);
                    self.conclude(at, progress);
                }
            }
            Source::Connection(number) => self.attend(number),
        }
        ControlFlow::Continue(())
    }

    /// Ends exchanges and connections that took too long.
    fn expire(&mut self, now: Instant) {
        for at in (0..self.exchanges.len()).rev() {
            if self.exchanges[at].deadline() <= now {
                let progress = self.exchanges[at].give_up_waiting(&mut self.random);
                self.conclude(at, progress);
            }
        }
        self.connections.retain(|_, connection| connection.until > now);
    }

    fn place(&self, number: u64) -> Option<&Place> {
        self.policy.places().into_iter().find(|(found, _)| *found == number).map(|(_, place)| place)
    }

    fn take_datagrams(&mut self, number: u64) {
        // A limited number at once, so that no other client waits for long.
        for _ in 0..QUESTIONS {
            let mut buffer = [0; MESSAGE];
            let Some(place) = self.place(number) else { return };
            let Ok((length, address)) = place.udp.recv_from(&mut buffer) else { return };
            self.take(&buffer[..length], Client::Datagram { place: number, address });
        }
    }

    fn accept(&mut self, number: u64) {
        while let Some(Ok((stream, _))) = self.place(number).map(|place| place.tcp.accept()) {
            let of_place = self.connections.values().filter(|connection| connection.place == number).count();
            if of_place >= CONNECTIONS || stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.next += 1;
            let until = Instant::now() + IDLE;
            let connection =
                Connection { place: number, stream, received: Vec::new(), unsent: Vec::new(), until };
            self.connections.insert(self.next, connection);
        }
    }

    /// Reads from a connection, and writes to it.
    fn attend(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let place = connection.place;
        let (messages, is_over) = connection.exchange();
        for message in messages {
            self.take(&message, Client::Stream { place, number });
        }
        if is_over {
            self.connections.remove(&number);
        }
    }

    /// Handles a message of a client.
    fn take(&mut self, message: &[u8], client: Client) {
        let question = match wire::read(message) {
            Asked::Question(question) => question,
            Asked::Refused(answer) => return self.send(client, &answer),
            Asked::Nothing => return,
        };
        match self.policy.decide(client.place(), &question) {
            Verdict::Own(own) => self.send(client, &question.own(&own, client.is_datagram())),
            Verdict::Forward => self.forward(client, question),
        }
    }

    fn forward(&mut self, client: Client, question: Question) {
        let of_place = |exchange: &&Exchange<Client>| exchange.client.place() == client.place();
        let is_busy = self.exchanges.iter().filter(of_place).count() >= QUESTIONS;
        let servers = if is_busy { Vec::new() } else { self.policy.servers(client.place()) };
        match Exchange::start(client, question, servers, &mut self.random) {
            Ok(exchange) => self.exchanges.push(exchange),
            Err((client, question)) => self.send(client, &question.own(&Own::Failure, client.is_datagram())),
        }
    }

    /// Answers the client of the exchange at this index, if the exchange is complete.
    fn conclude(&mut self, at: usize, progress: Progress) {
        let reply = match progress {
            Progress::Waiting => return,
            Progress::Answered(reply) => Some(reply),
            Progress::Failed => None,
        };
        let Exchange { client, question, .. } = self.exchanges.remove(at);
        let datagram = client.is_datagram();
        let answer = reply.and_then(|reply| {
            let kept = self.policy.admit(client.place(), &question, &reply.addresses)?;
            Some(reply.answer(&question, datagram, |address| kept.contains(&address)))
        });
        let answer = answer.unwrap_or_else(|| question.own(&Own::Failure, datagram));
        self.send(client, &answer);
    }

    fn send(&mut self, client: Client, answer: &[u8]) {
        match client {
            Client::Datagram { place, address } => {
                // It does not matter if the client has gone.
                let _ = self.place(place).map(|place| place.udp.send_to(answer, address));
            }
            Client::Stream { number, .. } => {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.unsent.extend(stream::framed(answer));
                    connection.until = Instant::now() + IDLE;
                    if connection.send().is_err() || connection.unsent.len() > UNSENT {
                        self.connections.remove(&number);
                    }
                }
            }
        }
    }
}

impl Connection {
    /// The messages that were received, and whether the connection has ended.
    fn exchange(&mut self) -> (Vec<Vec<u8>>, bool) {
        let mut buffer = [0; 4096];
        let over = match self.stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(length) => {
                self.received.extend(&buffer[..length]);
                false
            }
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        let messages: Vec<_> = std::iter::from_fn(|| stream::take(&mut self.received)).collect();
        if !messages.is_empty() {
            self.until = Instant::now() + IDLE;
        }
        let failed = self.send().is_err();
        (messages, over || failed)
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
