//! Clients of a monitor.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::PollFlags,
    io::Errno,
    net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send},
};
use serde::Deserialize;

/// The longest packet, in bytes.
pub(crate) const LONGEST: usize = (8 << 10) + 1;

/// How many clients there may be.
const MOST: usize = 32;

/// How long a client may keep the others, and the container, waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
    /// It gets output.
    listens: bool,
    /// It sends input.
    types: bool,
    /// What did not go into its socket, and since when it waits.
    pending: Option<(Vec<u8>, Instant)>,
    gone: bool,
}

/// What a client asks for.
#[derive(Debug)]
pub(crate) enum Request {
    Look,
    Attach,
    Resize { columns: u16, rows: u16 },
    Input(Vec<u8>),
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
        if self.gone {
            return;
        }
        match send(&self.socket, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => {
                let since = self.pending.take().map_or_else(Instant::now, |(_, since)| since);
                self.pending = Some((packet.to_owned(), since));
            }
            Err(_) => self.gone = true,
        }
    }

    /// The next request; none if there is none now.
    pub(crate) fn request(&mut self) -> Option<Request> {
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
            Some(b'i') => self.types.then(|| Request::Input(packet[1..length].to_vec())),
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

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Clients(Vec<Client>);

impl Clients {
    /// Takes a new one, if there is room.
    pub(crate) fn accept(&mut self, listener: impl AsFd) {
        if let Ok(socket) = accept_with(&listener, SocketFlags::CLOEXEC)
            && self.0.len() < MOST
        {
            self.0.push(Client { socket, listens: false, types: false, pending: None, gone: false });
        }
    }

    /// The descriptors to wait for, in the order of [`Clients::each`].
    pub(crate) fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.0.iter().map(|client| {
            let out = if client.pending.is_some() { PollFlags::OUT } else { PollFlags::empty() };
            (client.socket.as_fd(), PollFlags::IN | out)
        })
    }

    pub(crate) fn each(&mut self) -> impl Iterator<Item = &mut Client> {
        self.0.iter_mut()
    }

    /// Sends output to those who asked for it.
    pub(crate) fn output(&mut self, letter: char, output: &[u8]) {
        if self.0.is_empty() {
            return;
        }
        for part in output.chunks(LONGEST - 1) {
            let packet = [&[letter as u8], part].concat();
            self.0.iter_mut().filter(|client| client.listens).for_each(|client| client.send(&packet));
        }
    }

    /// Tells the ones who listen something.
    pub(crate) fn tell(&mut self, line: &str) {
        self.0.iter_mut().filter(|client| client.listens).for_each(|client| client.send(line.as_bytes()));
    }

    /// Tells one of them something.
    pub(crate) fn answer(client: &mut Client, line: &str) {
        client.send(line.as_bytes());
    }

    /// Sends what is pending, and forgets who is gone or too slow. Whether somebody still has to read before there is more.
    pub(crate) fn settle(&mut self) -> bool {
        for client in &mut self.0 {
            if let Some((packet, since)) = client.pending.take() {
                client.send(&packet);
                if let Some((_, again)) = &mut client.pending {
                    *again = since;
                    client.gone |= since.elapsed() > PATIENCE;
                }
            }
        }
        self.0.retain(|client| !client.gone);
        self.0.iter().any(|client| client.pending.is_some())
    }
}
