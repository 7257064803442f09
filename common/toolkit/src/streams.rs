//! The document on standard input and standard output.

use std::io::{self, IsTerminal, Write};

use document::Document;

/// Reads the document from standard input, to its end.
///
/// # Errors
/// Those of [`Document::read`].
pub fn read_document() -> Result<Document, document::Error> {
    Document::read(io::stdin().lock())
}

/// Writes the document to standard output: indented on a terminal, one line otherwise.
///
/// # Errors
/// When it cannot be written, a closed pipe among the reasons.
pub fn write_document(document: &Document) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let text = if out.is_terminal() { document.to_pretty() } else { document.to_line() };
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes lines to standard output, for `--explain`. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn write_lines(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut write = || {
        for line in lines {
            writeln!(out, "{line}")?;
        }
        out.flush()
    };
    match write() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
