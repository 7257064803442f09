//! Which of the flags of every tool a kind of tool carries out.

use clap::{Command, CommandFactory};

/// A kind of tool (see [`crate::tool`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A [`Filter`](crate::Filter), or a [`Marker`](crate::Marker).
    Filter,
    Source,
    Export,
    Report,
    Walker,
}

impl Kind {
    /// The flags of [`Common`](crate::Common), by the names of their fields, that mean nothing to such a tool. `--help`, manual
    /// pages and completions leave them out.
    ///
    /// In a pipe, `--undo` and the like are given to each tool in turn. So a tool with a document accepts them.
    fn without(self) -> &'static [&'static str] {
        match self {
            Self::Filter => &[],
            Self::Source => &["null_input", "check", "repair"],
            Self::Export => &["null_input", "undo", "steps", "check", "repair"],
            Self::Report | Self::Walker => &["id", "null_input", "undo", "steps", "check", "repair"],
        }
    }

    /// The flags that such a tool rejects. `--undo`, `--check` and `--repair` it rejects by itself.
    pub(crate) fn rejected(self) -> &'static [&'static str] {
        match self {
            Self::Report | Self::Walker => &["id", "null_input"],
            Self::Filter | Self::Source | Self::Export => &[],
        }
    }

    /// What `--help` says about `--dry-run`. None if such a tool passes a document on, as a filter does.
    fn dry_run(self) -> Option<&'static str> {
        match self {
            Self::Filter | Self::Export => None,
            Self::Source | Self::Report | Self::Walker => Some("Print what would be done, and do nothing"),
        }
    }

    /// The command line of a tool of this kind.
    pub(crate) fn command<T: CommandFactory>(self) -> Command {
        let command = self
            .without()
            .iter()
            .fold(T::command(), |command, flag| command.mut_arg(flag, |flag| flag.hide(true)));
        match self.dry_run() {
            Some(words) => command.mut_arg("dry_run", |flag| flag.help(words)),
            None => command,
        }
    }
}
