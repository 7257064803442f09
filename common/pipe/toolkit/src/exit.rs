use std::process::ExitCode;

/// How a tool ends; `docs/exit-codes.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Done,
    /// 1: what it made was taken back, the document left with `error`.
    Failed,
    /// 2: wrong usage; a document on standard input was passed on with `error`.
    Usage,
    /// 3: a command before failed; nothing was done.
    Upstream,
    /// 4: what came in is not a document that this version can read.
    Unreadable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
