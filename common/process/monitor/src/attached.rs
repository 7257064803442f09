//! Clients of a monitor.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send},
};
use serde::Deserialize;

/// The longest packet, in bytes.
pub(crate) const LONGEST: usize = (8 << 10) + 1;

/// The highest number of clients.
const MOST: usize = 32;

/// How long a client may leave packets unread before it is dropped. The other clients and the container wait
/// meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
    /// Whether the client gets output.
    listens: bool,
    /// Whether the client may send input.
    types: bool,
    /// Packets that the socket has no room for yet, oldest first.
    pending: VecDeque<Vec<u8>>,
    /// Since when the oldest pending packet waits.
    since: Option<Instant>,
    /// Typed input that the process has no room for yet. Nothing more is read from the client until it is
    /// written.
    pub(crate) input: Vec<u8>,
    gone: bool,
}

/// A client's request.
#[derive(Debug)]
pub(crate) enum Request {
    Look,
    Attach,
    Resize { columns: u16, rows: u16 },
    Input(Vec<u8>),
    EndOfInput,
}

#[derive(Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
enum Told {
    Look,
    Attach {
        #[serde(default)]
        stdin: bool,
    },
    Resize {
        columns: u16,
        rows: u16,
    },
}

impl Client {
    fn send(&mut self, packet: &[u8]) {
        self.pending.push_back(packet.to_owned());
        self.flush();
    }

    /// Sends pending packets until the socket is full.
    fn flush(&mut self) {
        while let (false, Some(packet)) = (self.gone, self.pending.front()) {
            match send(&self.socket, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => {
                    self.pending.pop_front();
                    self.since = None;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.gone = self.since.get_or_insert_with(Instant::now).elapsed() > PATIENCE;
                    return;
                }
                Err(_) => self.gone = true,
            }
        }
    }

    /// Returns the next request. Returns none if there is none yet, or if the previous one is not finished.
    pub(crate) fn request(&mut self) -> Option<Request> {
        if self.gone || !self.input.is_empty() || !self.pending.is_empty() {
            return None;
        }
        let mut packet = [0_u8; LONGEST];
        let length = match recv(&self.socket, packet.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((length @ 1.., _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return None,
            _ => {
                self.gone = true;
                return None;
            }
        };
        match packet.first() {
            Some(b'i') => self.types.then(|| match &packet[1..length] {
                [] => Request::EndOfInput,
                typed => Request::Input(typed.to_vec()),
            }),
            _ => match serde_json::from_slice(&packet[..length]) {
                Ok(Told::Look) => Some(Request::Look),
                Ok(Told::Resize { columns, rows }) => Some(Request::Resize { columns, rows }),
                Ok(Told::Attach { stdin }) => {
                    (self.listens, self.types) = (true, stdin);
                    Some(Request::Attach)
                }
                Err(_) => {
                    self.gone = true;
                    None
                }
            },
        }
    }
}

/// All clients of a monitor.
#[derive(Debug, Default)]
pub(crate) struct Clients(Vec<Client>);

impl Clients {
    /// Accepts a client. Closes the connection if there are `MOST` clients already.
    pub(crate) fn accept(&mut self, listener: impl AsFd) {
        if self.0.len() >= MOST {
            self.0.retain(|client| !operation::has_hung_up(&client.socket).unwrap_or_default());
        }
        if let Ok(socket) = accept_with(&listener, SocketFlags::CLOEXEC)
            && self.0.len() < MOST
        {
            let (pending, input) = (VecDeque::new(), Vec::new());
            self.0.push(Client {
                socket,
                listens: false,
                types: false,
                pending,
                since: None,
                input,
                gone: false,
            });
        }
    }

    /// The descriptors to poll, each with the events to wait for.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.0.iter().filter(|client| client.input.is_empty() || !client.pending.is_empty()).map(|client| {
            let flags = if client.pending.is_empty() { PollFlags::IN } else { PollFlags::OUT };
            (client.socket.as_fd(), flags)
        })
    }

    /// Whether a client has typed input that the process has no room for.
    pub(crate) fn type_on(&self) -> bool {
        self.0.iter().any(|client| !client.input.is_empty())
    }

    pub(crate) fn each(&mut self) -> impl Iterator<Item = &mut Client> {
        self.0.iter_mut()
    }

    /// Sends output to the attached clients.
    pub(crate) fn output(&mut self, letter: char, output: &[u8]) {
        if self.0.is_empty() {
            return;
        }
        for part in output.chunks(LONGEST - 1) {
            let packet = [&[letter as u8], part].concat();
            self.0.iter_mut().filter(|client| client.listens).for_each(|client| client.send(&packet));
        }
    }

    /// Sends a line to the attached clients.
    pub(crate) fn tell(&mut self, line: &str) {
        self.0.iter_mut().filter(|client| client.listens).for_each(|client| client.send(line.as_bytes()));
    }

    /// Sends a line to one client.
    pub(crate) fn answer(client: &mut Client, line: &str) {
        client.send(line.as_bytes());
    }

    /// Sends pending packets, and drops clients that are gone or too slow. Returns whether a client must read
    /// before the monitor takes more output.
    pub(crate) fn settle(&mut self) -> bool {
        self.0.iter_mut().for_each(Client::flush);
        self.0.retain(|client| !client.gone);
        self.0.iter().any(|client| !client.pending.is_empty())
    }

    /// Waits until each client has received the rest or was too slow.
    pub(crate) fn finish(mut self) {
        let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
        while self.settle() {
            let slow = self.0.iter().filter(|client| !client.pending.is_empty());
            let mut fds: Vec<_> = slow.map(|client| PollFd::new(&client.socket, PollFlags::OUT)).collect();
            let _ = poll(&mut fds, Some(&patience));
        }
    }
}
