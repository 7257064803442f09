//! Failures: text for people on standard error, and `error` in the document for programs.

use std::{borrow::Cow, collections::HashSet, fmt};

use document::members::{Failure, Stage};
use nix::errno::Errno;
use operation::Place;

use crate::Exit;

/// An error, with advice for the user.
#[derive(Debug)]
struct Advised {
    error: anyhow::Error,
    advice: Advice,
}

#[derive(Debug)]
enum Advice {
    /// A hint.
    Hint(String),
    /// Where the failed work was. The place has hints for errors of the system.
    Place(Place),
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Advised {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.error.as_ref())
    }
}

/// Adds a second line for people to `error`: `hint: …`.
pub fn hint(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    Advised { error: error.into(), advice: Advice::Hint(hint.into()) }.into()
}

/// Says that `error` is about something in `place`. The place gives the hint if the error's causes have none.
pub fn of_place(error: impl Into<anyhow::Error>, place: Place) -> anyhow::Error {
    Advised { error: error.into(), advice: Advice::Place(place) }.into()
}

/// Says that the tool has printed its error already, and ends with this status.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) Exit);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended: {:?}", self.0)
    }
}

impl std::error::Error for Ended {}

/// Prints why the tool failed, unless it was printed already. Returns the exit status.
pub(crate) fn end(tool: &str, error: &anyhow::Error) -> Exit {
    if let Some(Ended(exit)) = error.downcast_ref() {
        return *exit;
    }
    print(tool, error);
    Exit::Failed
}

/// The error and its causes, nearest first, one line each. A cause is left out if the line before ends with
/// it, because many libraries print their source in their own message.
fn lines(error: &anyhow::Error) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain() {
        // nix puts the error's name before the system's words: "EPERM: Operation not permitted".
        let line = cause
            .downcast_ref::<Errno>()
            .map_or_else(|| plain(&cause.to_string()), |errno| errno.desc().into());
        let told = lines.last().is_some_and(|before| before.ends_with(&line));
        if told || line.is_empty() {
            continue;
        }
        match cause.downcast_ref::<operation::Error>().map(|error| (error.action(), error.cause())) {
            // This error has no words of its own.
            Some((action, operation::Cause::Source(_))) if action.is_empty() => {}
            Some((action, cause)) if !action.is_empty() => {
                lines.push(plain(&action));
                // A source is the next cause of the chain.
                if !matches!(cause, operation::Cause::Source(_)) {
                    lines.push(plain(&cause.to_string()));
                }
            }
            _ => lines.push(line),
        }
    }
    lines
}

/// The message on one line, without the " (os error 2)" that the standard library appends to the system's
/// words.
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

/// Prints the error as `tool: what failed: cause`, and the hint if there is one.
pub fn print(tool: &str, error: &anyhow::Error) {
    operation::tell!("{tool}: {}", report_line(error));
    if let Some(hint) = hint_of(error) {
        operation::tell!("hint: {hint}");
    }
}

/// Prints what went wrong beside a command, and returns its status, or 1 in place of 0.
pub fn with_failures(
    tool: &str,
    status: i32,
    failures: impl IntoIterator<Item = impl Into<anyhow::Error>>,
) -> i32 {
    let printed = failures.into_iter().map(|failure| print(tool, &failure.into())).count();
    if printed > 0 && status == 0 { Exit::Failed as i32 } else { status }
}

/// Keeps only the first of the errors that say the same: several operations may fail for one reason.
pub(crate) fn once(errors: &mut Vec<anyhow::Error>) {
    let mut told = HashSet::new();
    errors.retain(|error| told.insert(report_line(error)));
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

/// What the user can do. The tool's own hint counts first, then that of the failed operation, then that of
/// its place. For an error of the system without a place, the hint can only be about root.
pub(crate) fn hint_of(error: &anyhow::Error) -> Option<Cow<'static, str>> {
    let advice = || error.chain().filter_map(|cause| cause.downcast_ref::<Advised>()).map(|a| &a.advice);
    let told = advice().find_map(|advice| match advice {
        Advice::Hint(hint) => Some(Cow::Owned(hint.clone())),
        Advice::Place(_) => None,
    });
    let place = advice().find_map(|advice| match advice {
        Advice::Place(place) => Some(*place),
        Advice::Hint(_) => None,
    });
    let cause: &(dyn std::error::Error + 'static) = error.as_ref();
    let errno = operation::errno_of(cause);
    told.or_else(|| operation::hint_of(cause)).or_else(|| {
        let words = match place {
            Some(place) => place.hint(errno?),
            None if operation::is_known(cause) => None,
            None => operation::needs_root(errno?),
        };
        words.map(Cow::Borrowed)
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use anyhow::Context;

    #[test]
    fn hints_come_from_types_and_never_from_words() {
        let words = anyhow::anyhow!("write x: No space left on device");
        assert_eq!(hint_of(&words), None);
        // The words stand at the end of the line, but the fault is another one.
        let name = operation::Error::new("read", "a file called No space left on device", Errno::EIO);
        assert_eq!(hint_of(&name.of(Place::Store).into()), None);
        let full = || io::Error::from_raw_os_error(Errno::ENOSPC as i32);
        assert_eq!(hint_of(&full().into()), None, "nobody knows of which file system");
        let output = of_place(full(), Place::Output).context("write the document to standard output");
        assert_eq!(
            hint_of(&output).as_deref(),
            Some("make room where standard output goes, or send it elsewhere")
        );
        let record = operation::Error::new("write record", "x", full()).of(Place::RunDir);
        let nearest = of_place(record, Place::Store);
        assert!(hint_of(&nearest).unwrap().contains("--run-dir DIR"), "{nearest:?}");
        assert_eq!(hint_of(&hint(nearest, "wait")).as_deref(), Some("wait"));
    }

    #[test]
    fn what_is_said_already_is_not_said_again() {
        let error = |object: &str| operation::Error::new("open", object, Errno::EMFILE).into();
        let mut errors: Vec<anyhow::Error> = vec![error("a"), error("b"), error("a")];
        once(&mut errors);
        assert_eq!(
            errors.iter().map(report_line).collect::<Vec<_>>(),
            ["open a: Too many open files", "open b: Too many open files"]
        );
    }

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
        assert_eq!(hint_of(&error), None);
        let ours = operation::Error::new("create", "link \"v1\"", Errno::EEXIST);
        let behind = anyhow::Error::from(operation::Error::caused_by(ours)).context("undo");
        assert_eq!(lines(&behind), ["undo", "create link \"v1\"", "File exists"]);
        let hinted = hint(error, "unwind web").context("top");
        assert_eq!(hint_of(&hinted).as_deref(), Some("unwind web"));
        assert_eq!(report_line(&hinted), "top: create link \"v3fa1\" in /run/netns/web: File exists");
    }
}
