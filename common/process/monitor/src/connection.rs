//! The other side of a monitor's socket: a tool that attaches to a container.

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
    /// The client gets output from now on. `terminal`: the process has a terminal.
    Attached {
        /// Whether the process has a terminal.
        terminal: bool,
    },
    /// The process has ended, with this status if it is known.
    Ended(Option<i32>),
    /// The monitor is gone, or let go of this client.
    Gone,
}

impl Connection {
    /// To the monitor of a container; none if it has none.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn open(place: &Place) -> Result<Option<Self>> {
        Ok(socket::reach(place)?.map(|socket| Self { socket }))
    }

    /// Whether a container has a monitor, also one that is stopped and lets nobody in.
    ///
    /// # Errors
    /// When that cannot be told.
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

    /// Asks it to look at the record: what it waits for may be called off.
    ///
    /// # Errors
    /// When it is gone.
    pub fn wake(&self) -> Result<()> {
        self.say(json!({"request": "look"}).to_string().as_bytes())
    }

    /// Asks for the output from now on, and with `stdin` for a way to the process's input.
    ///
    /// # Errors
    /// When it is gone.
    pub fn attach(&self, stdin: bool) -> Result<()> {
        self.say(json!({"request": "attach", "stdin": stdin}).to_string().as_bytes())
    }

    /// Gives the container's terminal a size. False if the monitor has no room for that now.
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

    /// Passes on what was typed, as far as there is room for it now. Returns how many bytes were: less than all of them while the
    /// process does not read.
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

    /// The next event; waits for it.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn next(&self) -> Result<Event> {
        let mut packet = vec![0_u8; LONGEST];
        let length = loop {
            match recv(&self.socket, packet.as_mut_slice(), RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => break 0,
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
