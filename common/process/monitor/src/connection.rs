//! The client's side of a monitor's socket, for tools that attach to a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use serde_json::{Value, json};

use crate::{Place, Result, Source, attached::LONGEST, failed, socket};

/// A connection to the monitor of a container.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

/// What a monitor tells an attached client.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Output of the container's process.
    Output(Source, Vec<u8>),
    /// The client gets output from now on.
    Attached {
        /// Whether the process has a terminal.
        terminal: bool,
    },
    /// The process has ended, with this exit status; none if it is unknown.
    Ended(Option<i32>),
    /// The monitor is gone, or has dropped this client.
    Gone,
}

impl Connection {
    /// Connects to a container's monitor. Returns none if the container has no monitor.
    ///
    /// # Errors
    /// When the socket cannot be connected to.
    pub fn open(place: &Place) -> Result<Option<Self>> {
        Ok(socket::reach(place)?.map(|socket| Self { socket }))
    }

    /// Whether a container has a monitor. A monitor that is stopped and accepts no connection counts too.
    ///
    /// # Errors
    /// When the socket cannot be connected to.
    pub fn has_peer(place: &Place) -> Result<bool> {
        socket::is_there(place)
    }

    fn say(&self, packet: &[u8]) -> Result<()> {
        self.send(packet, SendFlags::NOSIGNAL).map_err(failed("send", "to the monitor"))
    }

    fn send(&self, packet: &[u8], flags: SendFlags) -> std::result::Result<(), Errno> {
        loop {
            match send(&self.socket, packet, flags) {
                Err(Errno::INTR) => {}
                sent => return sent.map(drop),
            }
        }
    }

    /// Asks the monitor to look at the container's record again: the restart that it waits for may be
    /// cancelled.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn wake(&self) -> Result<()> {
        self.say(json!({"request": "look"}).to_string().as_bytes())
    }

    /// Asks for the output from now on, and with `stdin` for the right to send input to the process.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn attach(&self, stdin: bool) -> Result<()> {
        self.say(json!({"request": "attach", "stdin": stdin}).to_string().as_bytes())
    }

    /// Sets the size of the container's terminal. Returns false if the monitor's socket is full.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<bool> {
        let packet = json!({"request": "resize", "columns": columns, "rows": rows}).to_string();
        match self.send(packet.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Ok(false),
            sent => sent.map(|()| true).map_err(failed("send", "to the monitor")),
        }
    }

    /// Sends typed input, as much as the socket has room for. Returns the number of bytes sent: fewer than
    /// all while the process does not read.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn input(&self, typed: &[u8]) -> Result<usize> {
        let mut passed = 0;
        for part in typed.chunks(LONGEST - 1) {
            match self.send(&[b"i", part].concat(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(()) => passed += part.len(),
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(failed("send", "to the monitor")(errno)),
            }
        }
        Ok(passed)
    }

    /// Says that no more input follows. The process's input then ends, unless it stays open for others. Returns false if the
    /// monitor's socket is full.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn end_input(&self) -> Result<bool> {
        match self.send(b"i", SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Ok(false),
            sent => sent.map(|()| true).map_err(failed("send", "to the monitor")),
        }
    }

    /// Waits for the next event and returns it.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn next(&self) -> Result<Event> {
        let mut packet = vec![0_u8; LONGEST];
        let length = loop {
            match recv(&self.socket, packet.as_mut_slice(), RecvFlags::empty()) {
                // The monitor ended without reading all input. What it had said before comes next.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                received => break received.map_err(failed("receive", "from the monitor"))?.0,
            }
        };
        packet.truncate(length);
        Ok(match packet.split_first() {
            None => Event::Gone,
            Some((b'o', output)) => Event::Output(Source::Stdout, output.to_vec()),
            Some((b'e', output)) => Event::Output(Source::Stderr, output.to_vec()),
            Some(_) => {
                let told: Value = serde_json::from_slice(&packet).unwrap_or_default();
                match told.get("attached") {
                    Some(_) => Event::Attached { terminal: told["terminal"] == true },
                    None => Event::Ended(
                        told["exitStatus"].as_i64().and_then(|status| i32::try_from(status).ok()),
                    ),
                }
            }
        })
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
