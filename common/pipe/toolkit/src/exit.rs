use std::process::ExitCode;

/// The exit status of a tool. `docs/exit-codes.md` describes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: failed. The tool undid what it had made, and the document left with `error`.
    Failed,
    /// 2: wrong usage. A document on standard input was passed on with `error`.
    Usage,
    /// 3: an earlier command failed. Nothing was done.
    Upstream,
    /// 4: the input is not a document that this version can read.
    Unreadable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
