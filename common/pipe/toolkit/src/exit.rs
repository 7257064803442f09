use std::process::ExitCode;

/// The exit status of a tool; `docs/exit-codes.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Done,
    /// 1: failed; what it made was undone, and the document left with `error`.
    Failed,
    /// 2: wrong usage; a document on standard input was passed on with `error`.
    Usage,
    /// 3: an earlier command failed; nothing was done.
    Upstream,
    /// 4: the input is not a document that this version can read.
    Unreadable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
