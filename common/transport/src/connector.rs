//! TCP for ureq.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use ureq::{
    Error, Timeout,
    unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport},
};

use crate::race;

/// Connects to the address of a host that answers first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Connector<()> for Tcp {
    type Out = Socket;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Socket>, Error> {
        let limit = details.timeout.not_zero().map(|limit| *limit);
        let stream = race::connect(&details.addrs, limit).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Error::Timeout(Timeout::Connect),
            _ => Error::Io(error),
        })?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Socket { stream, buffers, read_limit: None, write_limit: None }))
    }
}

/// A connection without TLS.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// The limits that the socket has at the moment.
    read_limit: Option<Duration>,
    write_limit: Option<Duration>,
}

/// The time that is left; None if there is no limit.
fn left(timeout: NextTimeout) -> Result<Option<Duration>, Error> {
    match timeout.after.is_zero() {
        true => Err(Error::Timeout(timeout.reason)),
        false => Ok(timeout.not_zero().map(|limit| *limit)),
    }
}

fn failed(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}

impl Socket {
    /// Lets a read wait no longer than this. The system is only told what changes.
    fn limit_read(&mut self, limit: Option<Duration>) -> io::Result<()> {
        if limit != self.read_limit {
            self.stream.set_read_timeout(limit)?;
            self.read_limit = limit;
        }
        Ok(())
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let limit = left(timeout)?;
        if limit != self.write_limit {
            self.stream.set_write_timeout(limit)?;
            self.write_limit = limit;
        }
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output).map_err(|error| failed(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let limit = left(timeout)?;
        let begin = Instant::now();
        self.limit_read(limit)?;
        let count = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                // Linux does not continue a read with a limit after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    let rest = limit.map(|limit| limit.saturating_sub(begin.elapsed()));
                    if rest.is_some_and(|rest| rest.is_zero()) {
                        return Err(Error::Timeout(timeout.reason));
                    }
                    self.limit_read(rest)?;
                }
                result => break result.map_err(|error| failed(error, timeout))?,
            }
        };
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    /// Whether the server has not closed the connection. Bytes that nobody asked for are as bad.
    fn is_open(&mut self) -> bool {
        let peeked = recv(&self.stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(peeked, Err(Errno::WOULDBLOCK))
    }
}
