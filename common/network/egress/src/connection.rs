//! One connection of the relay: both of its ends, and what passes between them.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt},
};

use crate::second::{Refused, Watch};

/// One direction of a connection.
#[derive(Default)]
pub(crate) struct Half {
    /// Bytes that were read and not yet written.
    pub(crate) pending: Vec<u8>,
    /// The sender has ended.
    ended: bool,
    /// The receiver knows.
    told: bool,
}

/// One end of a connection, and what is waited for there.
pub(crate) struct Side {
    pub(crate) stream: TcpStream,
    waits: EventFlags,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Hello,
    Connecting,
    Passing,
}

pub(crate) struct Connection {
    pub(crate) to: SocketAddr,
    /// Looks for a second hello, until there can be none.
    pub(crate) watch: Option<Watch>,
    pub(crate) stage: Stage,
    pub(crate) client: Side,
    pub(crate) server: Option<Side>,
    /// From the client to the server.
    pub(crate) up: Half,
    down: Half,
}

/// What becomes of a connection.
pub(crate) enum Fate {
    Stays,
    Over,
    /// Both ends get a reset.
    Broken,
    /// The same, because the client sent another hello.
    Refused(Refused),
}

impl Connection {
    /// A connection of a client that has sent nothing yet.
    pub(crate) fn new(stream: TcpStream, to: SocketAddr) -> Self {
        let client = Side { stream, waits: EventFlags::empty() };
        let (up, down) = (Half::default(), Half::default());
        Self { to, watch: None, stage: Stage::Hello, client, server: None, up, down }
    }

    /// Begins to connect to the address that the client wants.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        settle(&self.client.stream);
        self.server = Some(Side { stream: begin(self.to)?, waits: EventFlags::empty() });
        self.stage = Stage::Connecting;
        Ok(())
    }

    /// Finds out whether the connection to the server stands.
    pub(crate) fn connected(&mut self) -> io::Result<()> {
        let Some(server) = &self.server else { return Ok(()) };
        if let Some(error) = server.stream.take_error()? {
            return Err(error);
        }
        self.stage = Stage::Passing;
        Ok(())
    }

    /// Passes bytes on, in the directions in which something is ready.
    pub(crate) fn pass(&mut self, buffer: &mut [u8], up: bool, down: bool) -> Fate {
        let Some(server) = &self.server else { return Fate::Broken };
        let ways = [
            (up, &mut self.up, &self.client.stream, &server.stream),
            (down, &mut self.down, &server.stream, &self.client.stream),
        ];
        let mut refused = None;
        for (at, (_, half, from, to)) in ways.into_iter().enumerate().filter(|(_, (ready, ..))| *ready) {
            let mut look = |bytes: &[u8]| -> io::Result<()> {
                let Some(watch) = &mut self.watch else { return Ok(()) };
                if at == 0 {
                    watch.client(bytes).map_err(|why| {
                        refused = Some(why);
                        io::ErrorKind::InvalidData
                    })?;
                } else {
                    watch.server(bytes);
                }
                if watch.is_over() {
                    self.watch = None;
                }
                Ok(())
            };
            if half.go_on(from, to, buffer, &mut look).is_err() {
                return refused.map_or(Fate::Broken, Fate::Refused);
            }
        }
        if self.up.told && self.down.told { Fate::Over } else { Fate::Stays }
    }

    /// Waits for what each side can do next. A side with nothing to do is not waited for at all,
    /// because its end would be reported again and again.
    pub(crate) fn wait(&mut self, epoll: &OwnedFd, number: u64) -> io::Result<()> {
        let passing = self.stage == Stage::Passing;
        let some = |flags, when: bool| if when { flags } else { EventFlags::empty() };
        let reads = |half: &Half| passing && !half.ended && half.pending.is_empty();
        let writes = |half: &Half| passing && !half.pending.is_empty();
        let client = some(EventFlags::IN, self.stage == Stage::Hello || reads(&self.up))
            | some(EventFlags::OUT, writes(&self.down));
        let server = some(EventFlags::IN, reads(&self.down))
            | some(EventFlags::OUT, self.stage == Stage::Connecting || writes(&self.up));
        self.client.wait(epoll, number << 1, client)?;
        self.server.as_mut().map_or(Ok(()), |side| side.wait(epoll, number << 1 | 1, server))
    }
}

impl Side {
    fn wait(&mut self, epoll: &OwnedFd, data: u64, flags: EventFlags) -> io::Result<()> {
        let (old, data) = (self.waits, EventData::new_u64(data));
        if old == flags {
            return Ok(());
        }
        match (old.is_empty(), flags.is_empty()) {
            (true, _) => epoll::add(epoll, &self.stream, data, flags)?,
            (_, true) => epoll::delete(epoll, &self.stream)?,
            _ => epoll::modify(epoll, &self.stream, data, flags)?,
        }
        self.waits = flags;
        Ok(())
    }
}

impl Half {
    /// Writes what is pending, and then reads once and writes that, after `look` at it.
    fn go_on(
        &mut self,
        mut from: &TcpStream,
        to: &TcpStream,
        buffer: &mut [u8],
        look: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let written = write(to, &self.pending)?;
        if written == self.pending.len() {
            // Idle connections need no buffer.
            self.pending = Vec::new();
        } else {
            self.pending.drain(..written);
        }
        if self.pending.is_empty() && !self.ended {
            match from.read(buffer) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    look(&buffer[..length])?;
                    let written = write(to, &buffer[..length])?;
                    self.pending.extend_from_slice(&buffer[written..length]);
                }
                Err(error) if is_later(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if self.pending.is_empty() && self.ended && !self.told {
            to.shutdown(Shutdown::Write)?;
            self.told = true;
        }
        Ok(())
    }
}

/// Writes as much as is taken at once. Returns the number of bytes.
fn write(mut to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

pub(crate) fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The address that the client wanted before its connection was led here. None if it was not.
pub(crate) fn wanted(stream: &TcpStream) -> Option<SocketAddr> {
    let own = stream.local_addr().ok()?;
    let to = match own {
        SocketAddr::V4(_) => sockopt::ip_original_dst(stream).ok().map(SocketAddr::V4),
        SocketAddr::V6(_) => sockopt::ipv6_original_dst(stream).ok().map(SocketAddr::V6),
    }?;
    (to != own).then(|| SocketAddr::new(to.ip(), to.port()))
}

/// Closes the connection with a reset, when it is dropped.
pub(crate) fn reset(stream: &TcpStream) {
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Bytes are passed on at once, and an end that vanishes is noticed some time.
fn settle(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
}

/// Begins to connect.
fn begin(to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = TcpStream::from(socket_with(family, SocketType::STREAM, flags, None)?);
    settle(&stream);
    match connect(&stream, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(stream),
        Err(errno) => Err(errno.into()),
    }
}
