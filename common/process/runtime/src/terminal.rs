//! The caller's terminal, and the container's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags},
    io::{Errno, fcntl_dupfd_cloexec},
    termios::{OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};

use crate::{Error, error::Result};

/// The caller's side of a container's terminal: where its input comes from, and where its output goes.
/// Neither has to be a terminal.
#[derive(Debug)]
pub struct Terminal {
    typed: Option<OwnedFd>,
    shown: OwnedFd,
}

/// A [`Terminal`] whose input is in raw mode, if it is a terminal: every key goes to the container. Dropping
/// it restores the mode.
#[derive(Debug)]
pub struct RawTerminal {
    terminal: Terminal,
    before: Option<Termios>,
}

impl Terminal {
    /// Output goes to standard output. With `stdin`, input comes from standard input; otherwise from the controlling
    /// terminal of the session, if there is one.
    ///
    /// # Errors
    /// With `stdin`, when standard input is not a terminal; when standard output is closed.
    pub fn open(stdin: bool) -> Result<Self> {
        let shown =
            fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(Error::at("open", "standard output"))?;
        if !stdin {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            return Ok(Self { typed: rustix::fs::open("/dev/tty", flags, Mode::empty()).ok(), shown });
        }
        let typed = rustix::stdio::stdin();
        if !isatty(typed) {
            return Err(Error::new("read the terminal's input: standard input is not a terminal"));
        }
        let typed = fcntl_dupfd_cloexec(typed, 3).map_err(Error::at("open", "standard input"))?;
        Ok(Self { typed: Some(typed), shown })
    }

    /// Columns and rows; none without a terminal.
    pub fn size(&self) -> Option<(u16, u16)> {
        let mut sides = [Some(&self.shown), self.typed.as_ref()].into_iter().flatten();
        sides.find_map(|side| tcgetwinsize(side).ok()).map(|size| (size.ws_col, size.ws_row))
    }

    /// Puts the input into raw mode.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn into_raw(self) -> Result<RawTerminal> {
        let Some(typed) = self.typed.as_ref() else {
            return Ok(RawTerminal { terminal: self, before: None });
        };
        let set = || {
            let before = tcgetattr(typed)?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(typed, OptionalActions::Now, &raw)?;
            Ok(before)
        };
        let before = set().map_err(Error::at::<Errno>("put", "the terminal into raw mode"))?;
        Ok(RawTerminal { terminal: self, before: Some(before) })
    }
}

impl RawTerminal {
    /// Gives `inner` the current size of this terminal.
    pub fn copy_size(&self, inner: impl AsFd) {
        if let Some((columns, rows)) = self.terminal.size() {
            resize(inner, columns, rows);
        }
    }

    /// Columns and rows; none without a terminal.
    pub fn size(&self) -> Option<(u16, u16)> {
        self.terminal.size()
    }

    /// The source of the input.
    pub fn typed(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.typed.as_ref().map(AsFd::as_fd)
    }

    /// The destination of the output.
    pub fn shown(&self) -> BorrowedFd<'_> {
        self.terminal.shown.as_fd()
    }
}

/// Sets the size of a terminal. Errors are ignored: a terminal works without a size.
pub fn resize(terminal: impl AsFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = tcsetwinsize(terminal, size);
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let (Some(typed), Some(before)) = (&self.terminal.typed, &self.before) {
            let _ = tcsetattr(typed, OptionalActions::Now, before);
        }
    }
}
