//! The caller's terminal, and the container's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};

use crate::{Error, error::Result};

/// The terminal that controls the caller's session.
#[derive(Debug)]
pub struct Terminal(OwnedFd);

/// The same in raw mode: every key goes to the other side. Dropped, it is as it was.
#[derive(Debug)]
pub struct RawTerminal {
    terminal: Terminal,
    before: Termios,
}

impl Terminal {
    /// Opens `/dev/tty`: standard input and output may be anything.
    ///
    /// # Errors
    /// When the session has no terminal.
    pub fn open() -> Result<Self> {
        rustix::fs::open("/dev/tty", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
            .map(Self)
            .map_err(Error::at("open the terminal \"/dev/tty\""))
    }

    /// Columns and rows.
    ///
    /// # Errors
    /// When it has none.
    pub fn size(&self) -> Result<(u16, u16)> {
        let size = tcgetwinsize(&self.0).map_err(Error::at("read the size of the terminal"))?;
        Ok((size.ws_col, size.ws_row))
    }

    /// Puts it into raw mode.
    ///
    /// # Errors
    /// When it is not one.
    pub fn into_raw(self) -> Result<RawTerminal> {
        let set = || {
            let before = tcgetattr(&self.0)?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&self.0, OptionalActions::Now, &raw)?;
            Ok(before)
        };
        let before = set().map_err(Error::at::<Errno>("put the terminal into raw mode"))?;
        Ok(RawTerminal { terminal: self, before })
    }
}

impl RawTerminal {
    /// Gives `inner` the size that this terminal has now.
    pub(crate) fn copy_size(&self, inner: impl AsFd) {
        if let Ok((columns, rows)) = self.terminal.size() {
            resize(inner, columns, rows);
        }
    }
}

/// A terminal whose size cannot be set works all the same.
pub(crate) fn resize(terminal: impl AsFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = tcsetwinsize(terminal, size);
}

impl AsFd for RawTerminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.terminal.0.as_fd()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal.0, OptionalActions::Now, &self.before);
    }
}
