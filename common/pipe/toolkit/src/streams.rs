//! The document on standard input and standard output.

use std::io::{self, IsTerminal, Write};

use document::Document;
use operation::{Error, Place};

use crate::{Common, Exit, failure};

/// Reads the document from standard input, to its end.
///
/// # Errors
/// Those of [`Document::read`].
pub(crate) fn read_document() -> Result<Document, document::Error> {
    Document::read(io::stdin().lock())
}

/// Writes the document to standard output: indented on a terminal, one line otherwise.
///
/// # Errors
/// When it cannot be written, for example to a closed pipe.
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

/// Whether people read standard output, and want no JSON.
pub(crate) fn shows(common: &Common) -> bool {
    !common.json && io::stdout().is_terminal()
}

/// Closes standard output. Its reader has everything, and need not wait until the kernel has closed this process's
/// other files: closing nf_tables takes some milliseconds after a removal.
pub(crate) fn close_output() {
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(null);
    }
}

/// The whole of `--explain`: the lines, or the reason why there are none.
pub(crate) fn explained(tool: &str, lines: anyhow::Result<Vec<String>>) -> Exit {
    match lines.and_then(|lines| Ok(write_lines(&lines)?)) {
        Ok(()) => Exit::Done,
        Err(error) => failure::end(tool, &error),
    }
}

/// Writes to standard output, to its end.
pub(crate) fn write_text(text: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).map_err(unwritten)
}

/// Why nothing can be printed.
fn unwritten(error: io::Error) -> Error {
    Error::new("write", "to standard output", error).of(Place::Output)
}

/// Writes lines to standard output, for `--explain`. A reader that closes the pipe early (`| head`) is no failure.
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
