//! Failure in words: for people on standard error, for programs in the document's `error`.

use std::{fmt, io};

use document::members::{Failure, Stage};
use nix::{errno::Errno, unistd::geteuid};

use crate::Exit;

/// An error with a line that says what to do about it.
#[derive(Debug)]
struct Hinted {
    error: anyhow::Error,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Hinted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// `error`, with a second line for people: `hint: …`.
pub fn hint(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { error: error.into(), hint: hint.into() }.into()
}

/// That a tool ends with this status, and has said why already.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) Exit);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended: {:?}", self.0)
    }
}

impl std::error::Error for Ended {}

/// Says why the tool failed, unless that was said; returns how it ends.
pub(crate) fn end(tool: &str, error: &anyhow::Error) -> Exit {
    if let Some(Ended(exit)) = error.downcast_ref() {
        return *exit;
    }
    print(tool, error);
    Exit::Failed
}

/// The error and its causes, nearest first, each as one line and none that only repeats what the one before it ends
/// with (many libraries print their source in their own message).
fn lines(error: &anyhow::Error) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain() {
        // nix shows its own name of it before the system's words: "EPERM: Operation not permitted".
        let line = cause
            .downcast_ref::<Errno>()
            .map_or_else(|| plain(&cause.to_string()), |errno| errno.desc().into());
        let told = lines.last().is_some_and(|before| before.ends_with(&line));
        if !told && !line.is_empty() {
            lines.push(line);
        }
    }
    lines
}

/// One line, without the " (os error 2)" that the standard library appends to the system's words.
fn plain(message: &str) -> String {
    let mut line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    while let Some(start) = line.find(" (os error ") {
        let Some(length) = line[start..].find(')') else { break };
        line.replace_range(start..=start + length, "");
    }
    line
}

/// The whole error in one line: `create link "v3fa1" in /run/netns/web: File exists`.
pub fn report_line(error: &anyhow::Error) -> String {
    lines(error).join(": ")
}

/// Prints the error as `tool: what failed: cause`, and the hint where there is one.
pub fn print(tool: &str, error: &anyhow::Error) {
    eprintln!("{tool}: {}", report_line(error));
    if let Some(hint) = hint_of(error) {
        eprintln!("hint: {hint}");
    }
}

/// The error as the member `error`.
pub(crate) fn member(tool: &str, step: Stage, error: &anyhow::Error) -> Failure {
    let mut lines = lines(error).into_iter();
    Failure {
        tool: tool.to_owned(),
        step,
        message: lines.next().unwrap_or_default(),
        causes: lines.collect(),
    }
}

fn hint_of(error: &anyhow::Error) -> Option<String> {
    if let Some(hinted) = error.chain().find_map(|cause| cause.downcast_ref::<Hinted>()) {
        return Some(hinted.hint.clone());
    }
    if is_for_root(error) {
        return Some("this needs root: try it with sudo".to_owned());
    }
    let line = report_line(error);
    // A file system that is full is the one that was written to; one that is read-only may be a container's own.
    if [Errno::ENOSPC, Errno::EDQUOT].iter().any(|errno| line.ends_with(errno.desc())) {
        return Some(FULL.to_owned());
    }
    error.chain().any(|cause| is(cause, Errno::EROFS)).then(|| READ_ONLY.to_owned())
}

const FULL: &str = "make room there; `img-gc` removes images and layers that nothing refers to";
const READ_ONLY: &str =
    "choose a place that can be written to: --root DIR (STAVE_ROOT), --run-dir DIR (STAVE_RUN)";

/// Whether a cause is this error of the system.
fn is(cause: &(dyn std::error::Error + 'static), errno: Errno) -> bool {
    let io = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    io == Some(errno as i32) || cause.downcast_ref() == Some(&errno)
}

/// Whether the system refused something to a user who is not root.
fn is_for_root(error: &anyhow::Error) -> bool {
    let denied = |cause: &(dyn std::error::Error + 'static)| {
        let io =
            cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
        let words = cause.to_string();
        io || words.contains("Permission denied") || words.contains("Operation not permitted")
    };
    !geteuid().is_root() && error.chain().any(denied)
}

/// What to do about such a refusal where being root of a user namespace is enough.
pub fn namespace_hint(error: &anyhow::Error) -> Option<String> {
    is_for_root(error).then(|| {
        "this needs root, or a user namespace: run the pipe in `unshare --user --map-root-user --mount`"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn one_line_with_every_cause_once() {
        let io = io::Error::from_raw_os_error(17);
        let error = Err::<(), _>(io).context("create link \"v3fa1\"\nin /run/netns/web").unwrap_err();
        assert_eq!(report_line(&error), "create link \"v3fa1\" in /run/netns/web: File exists");
        let member = member("veth-pair", Stage::Apply, &error);
        assert_eq!(
            (member.message.as_str(), member.causes),
            ("create link \"v3fa1\" in /run/netns/web", vec!["File exists".to_owned()])
        );
        let errno =
            Err::<(), _>(Errno::EPERM).context("create link \"v1\": Operation not permitted").unwrap_err();
        assert_eq!(report_line(&errno), "create link \"v1\": Operation not permitted");
        let hinted = hint(error, "unwind web").context("top");
        assert_eq!(hint_of(&hinted).as_deref(), Some("unwind web"));
        assert_eq!(report_line(&hinted), "top: create link \"v3fa1\" in /run/netns/web: File exists");
    }
}
