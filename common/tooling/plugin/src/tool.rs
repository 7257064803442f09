//! Starts a filter.

use std::{
    env,
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use cni::{Code, Error};
use document::{Document, Member, members::Failure};

use crate::operate::failed;

/// Runs the filter `program` under the name `tool`, with these arguments and this document on standard input.
/// Returns the document that it writes.
///
/// # Errors
/// The filter's own error, or why it could not be started.
pub fn run(program: &Path, tool: &str, arguments: &[String], document: &Document) -> Result<Document, Error> {
    let mut command = Command::new(program);
    command
        .arg0(tool)
        .arg("--no-config")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CNI_")) {
        command.env_remove(name);
    }
    let mut child = command.spawn().map_err(|error| failed(format!("start {tool}: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        // If the filter has ended already, its status says why.
        let _ = input.write_all(document.to_line().as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(format!("wait for {tool}: {error}")))?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let written = Document::parse(&output.stdout);
    if output.status.success() {
        // What a successful filter prints on standard error is for the runtime's log.
        let _ = std::io::stderr().lock().write_all(told.as_bytes());
        return written.map_err(failed);
    }
    let failure = written.ok().and_then(|document| document.get::<Failure>().ok().flatten());
    // Exit status 2 means wrong arguments, which come from a wrong configuration.
    let code = if output.status.code() == Some(2) { Code::InvalidConfiguration } else { Code::Failed };
    let words = |failure: Failure| [vec![failure.message], failure.causes].concat().join(": ");
    let message = failure.map_or_else(|| told.lines().next().unwrap_or(Failure::NAME).to_owned(), words);
    Err(Error { code, message, details: told.trim_end().to_owned() })
}
