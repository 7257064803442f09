//! The signal that asks a container to stop.

use std::{fmt, os::fd::AsFd, str::FromStr};

use nix::sys::signal::Signal;
use rustix::{io::Errno, process::pidfd_send_signal};

use crate::sys;

/// A signal: named, or one of the real-time signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopSignal(i32);

/// The first and the last real-time signal that the C libraries leave to programs.
const REAL_TIME: (i32, i32) = (34, 64);

impl StopSignal {
    /// The signal that ends a process at once.
    pub const KILL: Self = Self(Signal::SIGKILL as i32);
}

impl Default for StopSignal {
    fn default() -> Self {
        Self(Signal::SIGTERM as i32)
    }
}

impl FromStr for StopSignal {
    type Err = String;

    /// Parses a name or a number: `SIGTERM`, `term`, `15`, `RTMIN+3`.
    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let (first, last) = REAL_TIME;
        let real_time = |from: i32, offset: &str, sign: i32| match offset {
            "" => Some(from),
            _ => offset[1..].parse::<u8>().ok().map(|offset| from + sign * i32::from(offset)),
        };
        let number = match name {
            _ if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            "IOT" => Some(Signal::SIGABRT as i32),
            "CLD" => Some(Signal::SIGCHLD as i32),
            "POLL" => Some(Signal::SIGIO as i32),
            _ => match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
                (Some(offset), _) if offset.is_empty() || offset.starts_with('+') => {
                    real_time(first, offset, 1)
                }
                (_, Some(offset)) if offset.is_empty() || offset.starts_with('-') => {
                    real_time(last, offset, -1)
                }
                _ => format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32),
            },
        };
        number.filter(|number| is_one(*number)).map(Self).ok_or_else(|| format!("{text:?} is not a signal"))
    }
}

fn is_one(number: i32) -> bool {
    Signal::try_from(number).is_ok() || (REAL_TIME.0..=REAL_TIME.1).contains(&number)
}

impl fmt::Display for StopSignal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (Signal::try_from(self.0), self.0 - REAL_TIME.0) {
            (Ok(signal), _) => formatter.write_str(signal.as_str()),
            (Err(_), 0) => formatter.write_str("SIGRTMIN"),
            (Err(_), offset) => write!(formatter, "SIGRTMIN+{offset}"),
        }
    }
}

impl StopSignal {
    /// Sends the signal to a process (pidfd_open(2)).
    ///
    /// # Errors
    /// When the process has ended, or belongs to another user.
    pub fn send(self, process: impl AsFd) -> Result<(), Errno> {
        pidfd_send_signal(process, sys::signal(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number, name) in [
            ("SIGTERM", 15, "SIGTERM"),
            ("term", 15, "SIGTERM"),
            ("15", 15, "SIGTERM"),
            ("Quit", 3, "SIGQUIT"),
            ("SIGWINCH", 28, "SIGWINCH"),
            ("POLL", 29, "SIGIO"),
            ("RTMIN", 34, "SIGRTMIN"),
            ("SIGRTMIN+3", 37, "SIGRTMIN+3"),
            ("37", 37, "SIGRTMIN+3"),
            ("RTMAX-1", 63, "SIGRTMIN+29"),
            ("RTMAX", 64, "SIGRTMIN+30"),
        ] {
            assert_eq!(text.parse(), Ok(StopSignal(number)), "{text}");
            assert_eq!(StopSignal(number).to_string(), name);
        }
        for text in [
            "",
            "0",
            "32",
            "65",
            "-15",
            "+15",
            "SIG",
            "SIGSIGTERM",
            "HALT",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX+1",
            "RTMIN+",
            "RTMIN+x",
            "9 ",
        ] {
            assert_eq!(text.parse::<StopSignal>(), Err(format!("{text:?} is not a signal")), "{text}");
        }
    }
}
