//! The document on standard input and standard output.

use std::io::{self, IsTerminal, Write};

use document::Document;
use operation::{Error, Place};

use crate::{Common, Exit, failure};

/// Reads the document from standard input, to its end.
///
/// # Errors
/// The errors of [`Document::read`].
pub(crate) fn read_document() -> Result<Document, document::Error> {
    Document::read(io::stdin().lock())
}

/// Writes the document to standard output: indented on a terminal, one line otherwise.
///
/// # Errors
/// When the document cannot be written, for example to a closed pipe.
pub fn write_document(document: &Document) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let text = if out.is_terminal() { document.to_pretty() } else { document.to_line() };
    let mut write = || {
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    };
    write().map_err(|error| Error::new("write", "the document to standard output", error).of(Place::Output))
}

/// Whether standard output is a terminal, and the user does not ask for JSON.
pub(crate) fn shows(common: &Common) -> bool {
    !common.json && io::stdout().is_terminal()
}

/// Closes standard output, so that its reader does not wait until the kernel has closed the other files of
/// this process. Closing the nf_tables socket takes some milliseconds after a removal.
pub(crate) fn close_output() {
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(null);
    }
}

/// Prints the lines of `--explain`, or why there are none.
pub(crate) fn explained(tool: &str, lines: anyhow::Result<Vec<String>>) -> Exit {
    match lines.and_then(|lines| Ok(write_lines(&lines)?)) {
        Ok(()) => Exit::Done,
        Err(error) => failure::end(tool, &error),
    }
}

/// Writes all of `text` to standard output.
pub(crate) fn write_text(text: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).map_err(unwritten)
}

/// The error of writing to standard output.
fn unwritten(error: io::Error) -> Error {
    Error::new("write", "to standard output", error).of(Place::Output)
}

/// Prints lines to standard output, for `--explain`. A reader that closes the pipe early (`| head`) is no
/// failure.
pub(crate) fn write_lines(lines: &[String]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let mut write = || {
        for line in lines {
            writeln!(out, "{line}")?;
        }
        out.flush()
    };
    match write() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(unwritten),
    }
}
