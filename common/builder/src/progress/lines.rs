//! What a process of the build prints: text, from whatever part of it or from a command, and objects of the build's own.
//! Both come through one pipe, so that their order stays. Objects have a mark that no command knows.

use std::{fmt, io};

use serde_json::Value;

/// The longest line of text, in bytes. A longer line is printed in parts.
const LINE: usize = 64 << 10;
/// The longest object, in bytes. It contains at most text of the Dockerfile, or names of files.
const OBJECT: usize = 128 << 20;

/// What the line of an object begins with: random digits, drawn for each build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark(String);

impl Mark {
    /// # Errors
    /// When the system has no random bytes.
    pub(crate) fn draw() -> io::Result<Self> {
        let digits = operation::random_name().map_err(io::Error::other)?;
        Ok(Self(format!("{digits} ")))
    }

    /// The line of an object.
    pub(crate) fn line(&self, object: &Value) -> String {
        format!("{}{object}\n", self.0)
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Printed {
    Text(Vec<u8>),
    /// An object of the build, without its mark.
    Object(Vec<u8>),
}

/// Splits what comes through the pipe.
#[derive(Debug)]
pub(crate) struct Lines {
    mark: Mark,
    /// The beginning of a line whose end has not arrived yet.
    line: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(mark: Mark) -> Self {
        Self { mark, line: Vec::new() }
    }

    /// The lines that these bytes end.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<Printed> {
        let mut all = Vec::new();
        let mark = self.mark.bytes().len();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            // Only the new part is searched, and what may be the beginning of a mark before it.
            let from = self.line.len().saturating_sub(mark - 1);
            self.line.extend_from_slice(part);
            let found = self.line[from..].windows(mark).position(|window| window == self.mark.bytes());
            // Text without an end of its line came before.
            if let Some(at @ 1..) = found.map(|at| from + at) {
                all.push(Printed::Text(self.line.drain(..at).collect()));
            }
            let longest = if self.line.starts_with(self.mark.bytes()) { OBJECT } else { LINE };
            if part.ends_with(b"\n") {
                self.line.pop();
                all.push(self.end());
            } else if self.line.len() > longest {
                all.push(Printed::Text(std::mem::take(&mut self.line)));
            }
        }
        all
    }

    /// The last line, at the end of everything, if it has no end.
    pub(crate) fn rest(&mut self) -> Option<Printed> {
        (!self.line.is_empty()).then(|| self.end())
    }

    fn end(&mut self) -> Printed {
        let line = std::mem::take(&mut self.line);
        match line.strip_prefix(self.mark.bytes()) {
            Some(object) => Printed::Object(object.to_vec()),
            None => Printed::Text(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(text: &str) -> Printed {
        Printed::Text(text.as_bytes().to_vec())
    }

    #[test]
    fn only_what_has_the_mark_is_an_object() {
        let (mark, other) = (Mark::draw().unwrap(), Mark::draw().unwrap());
        let event = json!({"event": "over"});
        let object = || Printed::Object(event.to_string().into_bytes());
        let all = format!("{event}\n{}part{}\n{}", other.line(&event), mark.line(&event), mark.line(&event));
        let wanted = [
            text(&event.to_string()),
            text(other.line(&event).trim_end()),
            text("part"),
            object(),
            text(""),
            object(),
        ];
        for size in [1, 2, 7, 1000] {
            let mut lines = Lines::new(mark.clone());
            let found: Vec<Printed> = all.as_bytes().chunks(size).flat_map(|part| lines.take(part)).collect();
            assert_eq!((found.as_slice(), lines.rest()), (&wanted[..], None), "{size}");
        }
    }

    #[test]
    fn long_text_comes_in_parts() {
        let mut lines = Lines::new(Mark::draw().unwrap());
        assert_eq!(lines.take(&vec![b'{'; LINE + 1]), [Printed::Text(vec![b'{'; LINE + 1])]);
        assert_eq!((lines.take(b"rest"), lines.rest(), lines.rest()), (vec![], Some(text("rest")), None));
    }
}
