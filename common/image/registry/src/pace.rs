//! Aborts connections that are too slow.
//!
//! A timeout on each read is not enough: a server that sends one byte now and then is never silent. So bytes
//! are counted directly above the socket, where everything passes: TLS, heads, bodies, and uploads. Only the
//! time spent waiting for the other side counts. The time for our own work, and the time a connection is
//! idle, do not count.

use std::{
    cell::Cell,
    fmt, io,
    time::{Duration, Instant},
};

use ureq::{
    Error, Timeout,
    unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport},
};

/// How many bytes are sent between two looks at the clock.
const PIECE: usize = 16 << 10;

/// The slowest acceptable speed. Both values are those of curl's `--speed-limit` and `--speed-time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The limit in bytes per second; 0 means no limit.
    pub limit: u64,
    /// The time over which the speed is measured. Only time spent waiting for the other side counts.
    pub time: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { limit: 256, time: Duration::from_secs(60) }
    }
}

/// The connection was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSlow(pub(crate) Pace);

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pace { limit, time } = self.0;
        write!(f, "less than {limit} bytes a second for {} s", time.as_secs_f64())
    }
}

impl std::error::Error for TooSlow {}

impl TooSlow {
    /// Finds this error inside an error of a connection. ureq may have wrapped it.
    pub(crate) fn behind(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref()?;
        match inner.downcast_ref::<ureq::Error>() {
            Some(Error::Io(inner)) => Self::behind(inner),
            _ => inner.downcast_ref::<Self>().copied(),
        }
    }
}

/// How many bytes may arrive that are not content: heads and the framing of chunks.
const MOST_BESIDES: u64 = 4 << 20;

thread_local! {
    /// How many such bytes may still arrive. One thread makes a request and reads its answer.
    static ALLOWANCE: Cell<u64> = const { Cell::new(MOST_BESIDES) };
}

/// Resets the allowance when a request begins or content arrives. Without the allowance a server could send
/// trailers forever.
pub(crate) fn allow_more() {
    ALLOWANCE.set(MOST_BESIDES);
}

fn spend(bytes: u64) -> Result<(), Error> {
    match ALLOWANCE.get().checked_sub(bytes) {
        Some(left) => {
            ALLOWANCE.set(left);
            Ok(())
        }
        None => Err(Error::Other("more than 4 MiB that are not content".into())),
    }
}

/// Counts bytes since the speed was last checked.
#[derive(Debug)]
struct Meter {
    pace: Pace,
    bytes: u64,
    waited: Duration,
}

impl Meter {
    fn count(&mut self, bytes: u64, waited: Duration) -> Result<(), TooSlow> {
        self.bytes += bytes;
        self.waited += waited;
        if self.pace.limit == 0 || self.waited < self.pace.time {
            return Ok(());
        }
        let enough = self.bytes as f64 >= self.pace.limit as f64 * self.waited.as_secs_f64();
        (self.bytes, self.waited) = (0, Duration::ZERO);
        if enough { Ok(()) } else { Err(TooSlow(self.pace)) }
    }
}

impl From<TooSlow> for Error {
    fn from(slow: TooSlow) -> Self {
        Self::Io(io::Error::new(io::ErrorKind::TimedOut, slow))
    }
}

/// Puts a meter on every connection.
#[derive(Debug)]
pub(crate) struct Metered(pub(crate) Pace);

impl<In: Transport> Connector<In> for Metered {
    type Out = Connection<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let meter = Meter { pace: self.0, bytes: 0, waited: Duration::ZERO };
        Ok(chained.map(|inner| Connection { inner, meter, asked: false }))
    }
}

/// A connection with its meter.
#[derive(Debug)]
pub(crate) struct Connection<T> {
    inner: T,
    meter: Meter,
    /// Whether a request was sent and nothing has come back yet. The server may be working on it; the timeout
    /// covers that.
    asked: bool,
}

impl<T: Transport> Connection<T> {
    /// Sends a piece of output. The kernel accepts more bytes only in batches, after it has sent some, so the
    /// last byte may have to wait long. The wait is limited to the time over which the speed is measured.
    fn transmit(&mut self, piece: usize, timeout: NextTimeout) -> Result<(), Error> {
        let pace = self.meter.pace;
        let ours = pace.limit > 0 && timeout.per_write.is_none_or(|limit| *limit > pace.time);
        let capped = match ours {
            true => NextTimeout { per_write: Some(pace.time.into()), ..timeout },
            false => timeout,
        };
        let begin = Instant::now();
        match self.inner.transmit_output(piece, capped) {
            Err(Error::Timeout(Timeout::PerWrite)) if ours => Err(TooSlow(pace).into()),
            Err(error) => Err(error),
            Ok(()) => Ok(self.meter.count(piece as u64, begin.elapsed())?),
        }
    }
}

impl<T: Transport> Transport for Connection<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.asked = true;
        let mut left = amount;
        loop {
            let piece = left.min(PIECE);
            self.transmit(piece, timeout)?;
            left -= piece;
            if left == 0 {
                return Ok(());
            }
            // `transmit_output` always sends from the start of the buffer.
            self.inner.buffers().output().copy_within(piece..piece + left, 0);
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let before = self.inner.buffers().input().len();
        let begin = Instant::now();
        let progress = self.inner.await_input(timeout)?;
        let waited = if self.asked { Duration::ZERO } else { begin.elapsed() };
        self.asked = false;
        let count = self.inner.buffers().input().len().saturating_sub(before) as u64;
        self.meter.count(count, waited)?;
        spend(count)?;
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_which_too_little_passed_counts() {
        let pace = Pace { limit: 100, time: Duration::from_secs(10) };
        let mut meter = Meter { pace, bytes: 0, waited: Duration::ZERO };
        let second = Duration::from_secs(1);
        // Fast, then silent within the time: the average is sufficient.
        assert_eq!(meter.count(1000, second), Ok(()));
        assert_eq!(meter.count(0, 9 * second), Ok(()));
        // Earlier speed does not count for later bytes.
        for _ in 0..9 {
            assert_eq!(meter.count(99, second), Ok(()));
        }
        assert_eq!(meter.count(99, second), Err(TooSlow(pace)));
        // A long wait counts in full.
        assert_eq!(meter.count(2000, 30 * second), Err(TooSlow(pace)));
        let mut meter = Meter { pace: Pace { limit: 0, ..pace }, bytes: 0, waited: Duration::ZERO };
        assert_eq!(meter.count(0, 1000 * second), Ok(()));
    }

    #[test]
    fn found_below_the_errors_of_others() {
        let slow = TooSlow(Pace::default());
        let below = io::Error::other(Error::from(slow));
        assert_eq!(TooSlow::behind(&below), Some(slow));
        assert_eq!(TooSlow::behind(&io::Error::other("x")), None);
        assert_eq!(slow.to_string(), "less than 256 bytes a second for 60 s");
    }
}
