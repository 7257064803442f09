//! Templates of Go's `text/template`, as Docker and podman take them for `--format`: `{{.ID}}`, `{{json .}}`,
//! `{{range .Mounts}}…{{end}}`, `table {{.Names}}\t{{.Status}}`.
//!
//! The language is that of <https://pkg.go.dev/text/template>, over JSON values: actions, pipelines, variables, `if`,
//! `with`, `range`, Go's functions, and those that Docker adds (`json`, `join`, `split`, `lower`, `upper`, `title`, `pad`,
//! `truncate`). `define`, `template`, `block`, `call`, `html`, `js` and `urlquery` are rejected by name. A template comes
//! from a user and may be hostile: nesting, steps and output have limits, and there is no panic.

mod columns;
mod function;
mod lexer;
mod node;
mod parser;
mod printf;
mod run;
mod value;

pub use columns::align;
pub use node::Template;
pub use run::{Calls, Mode};

/// How deep actions and parentheses may be nested.
const DEEPEST: usize = 64;
/// How many nodes are carried out.
const MOST_STEPS: usize = 1_000_000;
/// How long the output may be, and each value on the way, in bytes.
const LONGEST: usize = 16 << 20;

/// Why a template was rejected, or cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template, character {at}: {cause}")]
pub struct Error {
    /// The character in the template, counted from 1.
    pub at: usize,
    /// What is wrong there.
    pub cause: String,
}

impl Error {
    fn new(at: usize, cause: impl Into<String>) -> Self {
        Self { at: at + 1, cause: cause.into() }
    }
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests;
