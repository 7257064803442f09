//! `--help` and manual pages: the flags are those that the tool carries out; each page has its sections, and the arguments
//! in its examples are those of the tools.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{fs, process::Command};

use testkit::{Sandbox, binaries, repository};

/// Runs a line of shell with the tools in the path: its output, or the line and why it failed.
fn shell(line: &str) -> Result<String, String> {
    let path = format!("{}:{}", binaries().display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh").args(["-c", line]).env("PATH", path).output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// The tools, without the programs for tests.
fn tools() -> Vec<String> {
    let names = fs::read_dir(repository().join("tools")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| {
            !["example-web", "stave-netavark", "stave-tools", "oci-runtime"].contains(&name.as_str())
        })
        .collect();
    names.sort();
    names
}

/// The commands of a page's examples.
fn examples(page: &str) -> Vec<String> {
    let (_, examples) = page.split_once("\n.SH EXAMPLES\n").unwrap_or_default();
    let commands = examples.split(".nf\n").skip(1).map(|rest| rest.split("\n.fi").next().unwrap());
    commands.map(|command| command.replace("\\-", "-").replace("\\(aq", "'").replace("\\*(Aq", "'")).collect()
}

#[test]
fn examples_have_arguments_that_the_tools_take() {
    let tools = tools();
    assert!(tools.len() > 50);
    let mut wrong = Vec::new();
    for tool in &tools {
        let page = shell(&format!("{tool} --generate man")).unwrap();
        for section in ["NAME", "SYNOPSIS", "\"EXIT STATUS\"", "ENVIRONMENT", "FILES", "EXAMPLES"] {
            assert!(page.contains(&format!("\n.SH {section}\n")), "{tool}: {section}");
        }
        let examples = examples(&page);
        let is_own = |example: &String| example.split(['|', ' ']).any(|word| word == tool);
        assert!(examples.iter().any(is_own), "{tool}: no example of itself");
        for example in examples {
            for stage in example.split(" | ") {
                let (name, arguments) = stage.split_once(' ').unwrap_or((stage, ""));
                if tools.iter().any(|known| known == name) {
                    let arguments = arguments.split([';', '>', '<']).next().unwrap();
                    wrong.extend(shell(&format!("{name} --generate man {arguments} < /dev/null")).err());
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn help_lists_the_flags_that_are_carried_out() {
    // With `-n`, some make something.
    let sandbox = Sandbox::new();
    for tool in &tools() {
        let help = shell(&format!("{tool} --help")).unwrap();
        for flag in ["--undo", "--check", "--repair", "-n"] {
            let is_listed = help.lines().any(|line| line.trim_start().split([' ', ',']).next() == Some(flag));
            // Without a document, those that carry it out miss one. With `-n`, some miss arguments.
            let said = sandbox.sh(&format!("{tool} {flag} < /dev/null")).stderr;
            let refused =
                said.contains("makes nothing that could be") || said.contains("does nothing with it");
            assert!(!(is_listed && refused), "{tool} lists {flag}, and refuses it");
        }
    }
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    let others = ["oci-runtime", "stave-netavark"].map(str::to_owned);
    for tool in tools().into_iter().chain(others) {
        for flag in ["-h", "--help", "--version"] {
            let failed = shell(&format!("{tool} {flag} > /dev/full")).unwrap_err();
            let line = format!("{tool}: write to standard output: No space left on device");
            let hint = "hint: make room where standard output goes, or send it elsewhere";
            assert_eq!(failed, format!("{tool} {flag} > /dev/full: {line}\n{hint}\n"));
            // A reader may have seen enough.
            assert_eq!(shell(&format!("{tool} {flag} | true")).unwrap(), "");
        }
    }
}
