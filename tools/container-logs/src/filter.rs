//! Selects and formats the lines of a log.

use std::{
    collections::VecDeque,
    io::{self, Write},
    str::FromStr,
};

use jiff::Timestamp;
use life::Point;
use monitor::Source;

/// The number of lines at the end to print. None for all lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail(Option<usize>);

impl FromStr for Tail {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(lines) => Ok(Self(Some(lines))),
            // As with Docker, a negative number means all lines.
            Err(_) if text == "all" || text.parse::<i64>().is_ok() => Ok(Self(None)),
            Err(_) => Err("it is a number of lines, or all".to_owned()),
        }
    }
}

/// Which lines to print, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter {
    pub(crate) since: Option<Point>,
    pub(crate) until: Option<Point>,
    pub(crate) tail: Tail,
    pub(crate) timestamps: bool,
}

impl Filter {
    pub(crate) fn needs_times(&self) -> bool {
        self.since.is_some() || self.until.is_some() || self.timestamps
    }

    fn admits(&self, time: Option<i128>) -> bool {
        let Some(time) = time.map(Point::from_nanoseconds) else { return true };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    /// Whether `until` has passed.
    pub(crate) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until < Point::now())
    }
}

/// A line, or the beginning of a line.
#[derive(Debug)]
struct Line {
    source: Source,
    time: Option<i128>,
    text: Vec<u8>,
}

/// Splits pieces of output into lines, and prints them.
#[derive(Debug)]
pub(crate) struct Printer {
    filter: Filter,
    /// The unfinished line of each stream.
    open: [Option<Line>; 2],
    /// The last lines so far. They are printed once the end of the log is reached.
    kept: Option<VecDeque<Line>>,
}

impl Printer {
    pub(crate) fn new(filter: Filter) -> Self {
        Self { filter, open: [None, None], kept: filter.tail.0.map(|_| VecDeque::new()) }
    }

    /// Takes the next piece of output.
    pub(crate) fn take(&mut self, source: Source, time: Option<i128>, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let slot = &mut self.open[usize::from(source == Source::Stderr)];
            let line = slot.get_or_insert_with(|| Line { source, time, text: Vec::new() });
            line.text.extend_from_slice(part);
            if part.ends_with(b"\n")
                && let Some(line) = slot.take()
            {
                self.line(line)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, line: Line) -> io::Result<()> {
        if !self.filter.admits(line.time) {
            return Ok(());
        }
        match (&mut self.kept, self.filter.tail.0) {
            (Some(kept), Some(most)) => {
                kept.push_back(line);
                if kept.len() > most {
                    kept.pop_front();
                }
                Ok(())
            }
            _ => self.print(&line),
        }
    }

    fn print(&self, line: &Line) -> io::Result<()> {
        let mut text = Vec::new();
        if self.filter.timestamps {
            let time = line.time.and_then(|time| Timestamp::from_nanosecond(time).ok()).unwrap_or_default();
            text.extend_from_slice(format!("{time:.9} ").as_bytes());
        }
        text.extend_from_slice(&line.text);
        match line.source {
            Source::Stdout => io::stdout().write_all(&text),
            Source::Stderr => io::stderr().write_all(&text),
        }
    }

    /// The end of the log was reached. Prints the last lines; later lines are printed at once. Also prints
    /// unfinished lines, unless `-t` puts a time before each line.
    pub(crate) fn settle(&mut self, is_end: bool) -> io::Result<()> {
        if is_end || !self.filter.timestamps {
            for slot in 0..2 {
                if let Some(line) = self.open[slot].take() {
                    self.line(line)?;
                }
            }
        }
        for line in self.kept.take().into_iter().flatten() {
            self.print(&line)?;
        }
        io::stdout().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails() {
        assert_eq!("3".parse(), Ok(Tail(Some(3))));
        assert_eq!("all".parse(), Ok(Tail(None)));
        assert_eq!("-1".parse(), Ok(Tail(None)));
        assert!("x".parse::<Tail>().is_err());
    }
}
