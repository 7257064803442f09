//! What every tool does with bad input: a one-line error that names the action and the object, the right exit
//! status, nothing left behind and nothing lost.
#![allow(clippy::unwrap_used)]

mod stages;

use std::{io::Write, process::Stdio};

use serde_json::{Value, json};
use stages::{name, status, unwind, with_stages};
use testkit::{Outcome, Sandbox};

/// A filter with valid arguments, the member that it needs, and its error when that is missing.
const FILTERS: [(&str, Option<(&str, &str)>); 16] = [
    (
        "layer-apply",
        Some((
            "image",
            "no `image`: run img-build, img-edit, img-convert, img-pull, img-load or img-inspect first",
        )),
    ),
    ("union-mount", Some(("layers", "no `layers`: run layer-apply first"))),
    ("union-snapshot", Some(("rootfs", "no `rootfs`: run union-mount first"))),
    ("cgroup-limit --pids 9", None),
    ("netns-add", None),
    ("netns-bridge", None),
    ("bridge-attach", Some(("network", "no `network`: run netns-add or netns-bridge first"))),
    ("macvlan-attach", Some(("network", "no `network`: run netns-add or netns-bridge first"))),
    ("ipvlan-attach", Some(("network", "no `network`: run netns-add or netns-bridge first"))),
    ("veth-pair", Some(("network", "no `network`: run netns-add or netns-bridge first"))),
    ("portmap -p 10080:80", Some(("network", "no `network`: run netns-add or netns-bridge first"))),
    ("egress-allow a.example", Some(("network", "no `network`: run netns-add or netns-bridge first"))),
    ("name-serve", Some(("network", "no `network`: run netns-add or netns-bridge first"))),
    ("link-hosts --link db:db", None),
    ("ns-exec -- true", Some(("rootfs", "no `rootfs`: run union-mount first"))),
    ("img-commit", Some(("rootfs", "no `rootfs`: run union-mount first"))),
];

/// A tool that works on a container by its id, with valid arguments.
const OF_A_CONTAINER: [&str; 13] = [
    "container-attach nobody",
    "container-exec nobody true",
    "container-cp nobody:/x .",
    "container-kill nobody",
    "container-logs nobody",
    "container-ls nobody",
    "container-pause nobody",
    "container-start nobody",
    "container-stats nobody",
    "container-stop nobody",
    "container-top nobody",
    "container-update --pids 9 nobody",
    "container-wait nobody",
];

/// The document that a filter wrote. For ns-exec it is a file, because standard output belongs to the command.
fn run(sandbox: &Sandbox, command: &str, input: &str) -> (Outcome, Value) {
    let script = match command.strip_prefix("ns-exec ") {
        Some(rest) => format!("ns-exec --document document {rest}"),
        None => format!("{command} > document"),
    };
    std::fs::write(sandbox.directory().join("document"), "").unwrap();
    let outcome = sandbox.sh_with(&script, input.as_bytes());
    let written = std::fs::read(sandbox.directory().join("document")).unwrap();
    (outcome, serde_json::from_slice(&written).unwrap_or(Value::Null))
}

#[track_caller]
fn says(command: &str, outcome: &Outcome, line: &str) {
    let first = outcome.stderr.lines().next().unwrap_or_default();
    assert_eq!(first, format!("{}: {line}", name(command)), "{command}");
    let rest: Vec<_> = outcome.stderr.lines().skip(1).collect();
    assert!(rest.len() <= 1 && rest.iter().all(|line| line.starts_with("hint: ")), "{command}: {rest:?}");
}

#[test]
fn what_is_not_a_document() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    for (command, _) in FILTERS.into_iter().chain([("unwind", None)]) {
        for (input, line) in [
            ("", "no document on standard input: did the previous command fail?"),
            ("nonsense", "standard input is not a document: expected ident at line 1 column 2"),
            (
                "[]",
                "standard input is not a document: invalid type: sequence, expected a JSON object at line 1 column 0",
            ),
            (
                "7",
                "standard input is not a document: invalid type: integer `7`, expected a JSON object at line 1 column 1",
            ),
            (
                r#"{"schemaVersion":2}"#,
                "standard input is not a document: an object without the member `stave`",
            ),
            (
                r#"{"stave":1"#,
                "standard input is not a document: EOF while parsing an object at line 1 column 10",
            ),
        ] {
            let (outcome, document) = run(&sandbox, command, input);
            says(command, &outcome, line);
            assert_eq!(
                (outcome.status, document),
                (status(command, 4), Value::Null),
                "{command} on {input:?}"
            );
        }
        let other = json!({"stave": 2, "theirs": 1});
        let (outcome, document) = run(&sandbox, command, &other.to_string());
        says(
            command,
            &outcome,
            "document has version 2, this tool reads version 1: use tools of one release in a pipe",
        );
        assert_eq!((outcome.status, document), (status(command, 4), other), "{command}");
    }
    sandbox.assert_as(&before);
}

#[test]
fn a_failure_before_travels_on_untouched() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let failed = json!({
        "stave": 1, "id": "web", "theirs": {"n": 1}, "steps": [],
        "error": {"tool": "img-load", "step": "apply", "message": "no space", "causes": []},
    });
    for (command, _) in FILTERS {
        let (outcome, document) = run(&sandbox, command, &failed.to_string());
        assert_eq!((outcome.status, outcome.stderr.as_str()), (status(command, 3), ""), "{command}");
        assert_eq!(document, failed, "{command}");
    }
    sandbox.assert_as(&before);
}

#[test]
fn wrong_usage_in_mid_pipe_passes_the_document_on() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    for (command, _) in FILTERS {
        let wrong = format!("{} --no-such-flag", name(command));
        let wrong =
            if name(command) == "ns-exec" { "ns-exec --no-such-flag -- true".to_owned() } else { wrong };
        let (outcome, document) = run(&sandbox, &wrong, r#"{"stave":1,"theirs":[1.10]}"#);
        says(&wrong, &outcome, "unexpected argument '--no-such-flag' found");
        assert_eq!(
            (outcome.status, &document["theirs"]),
            (status(command, 2), &json!([1.1])),
            "{command}: {}",
            outcome.stderr
        );
        assert_eq!(document["error"]["step"], "arguments", "{command}");
    }
    sandbox.assert_as(&before);
}

#[test]
fn members_that_are_missing_or_of_the_wrong_type() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    for (command, needs) in FILTERS {
        let Some((member, line)) = needs else { continue };
        let (outcome, document) = run(&sandbox, command, r#"{"stave":1,"theirs":0}"#);
        says(command, &outcome, line);
        assert_eq!((outcome.status, &document["theirs"]), (status(command, 1), &json!(0)), "{command}");
        assert_eq!(document["error"]["tool"], name(command));

        for wrong in [json!(7), json!("x"), json!([[]]), json!({"a": 1}), Value::Null] {
            let (outcome, document) = run(&sandbox, command, &json!({"stave": 1, member: wrong}).to_string());
            assert!(
                outcome.stderr.starts_with(&format!("{}: member `{member}`: ", name(command))),
                "{command} on {wrong}: {}",
                outcome.stderr
            );
            assert_eq!((outcome.status, &document[member]), (status(command, 1), &wrong), "{command}");
        }
        let (outcome, _) = run(&sandbox, command, r#"{"stave":1,"id":"../../etc"}"#);
        assert_eq!(outcome.status, status(command, 1), "{command}");
        assert!(outcome.stderr.contains("member `id`: \"../../etc\" cannot be an id"), "{}", outcome.stderr);
    }
    sandbox.assert_as(&before);
}

#[test]
fn a_container_that_is_not_there_or_has_no_process() {
    let sandbox = Sandbox::new();
    sandbox.sh("netns-add -n --id only").ok();
    let before = sandbox.snapshot();
    for command in OF_A_CONTAINER {
        let outcome = sandbox.sh(command);
        let of_command = if name(command) == "container-exec" { 125 } else { 1 };
        assert_eq!(outcome.status, of_command, "{command}: {}", outcome.stderr);
        says(command, &outcome, "no container \"nobody\" in /run/stave");
        let outcome = sandbox.sh(&format!("{command} --no-such-flag"));
        assert_eq!(outcome.status, if of_command == 1 { 2 } else { 125 }, "{command}: {}", outcome.stderr);
        let only = sandbox.sh(&command.replace("nobody", "only"));
        match name(command) {
            "container-ls" => assert_eq!(only.ok().matches("\"state\":\"created\"").count(), 1),
            _ => {
                assert_eq!(only.status, of_command, "{command}: {}", only.stderr);
                assert!(
                    only.stderr.starts_with(&format!("{}: container \"only\" ", name(command))),
                    "{only:?}"
                );
            }
        }
    }
    sandbox.assert_as(&before);
    sandbox.sh("unwind only > /dev/null").ok();
}

#[test]
fn undo_of_nothing_succeeds_and_passes_on() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    for (command, _) in FILTERS {
        let document = r#"{"stave":1,"theirs":0}"#;
        let undone = sandbox.sh_with(&format!("{} --undo", name(command)), document.as_bytes());
        assert_eq!(undone.ok().trim_end(), document, "{command}");
    }
    assert_eq!(sandbox.sh("unwind nobody").ok(), "{\"stave\":1,\"id\":\"nobody\"}\n");
    sandbox.assert_as(&before);
}

#[test]
fn unknown_members_survive_every_tool() {
    let (sandbox, stages) = with_stages();
    unwind(&sandbox);
    let mut document = stages[0].1.trim_end().replacen('{', r#"{"theirs":{"n":1e400},"#, 1);
    for (command, _) in &stages {
        document = sandbox.sh_with(command, document.as_bytes()).ok();
        assert!(document.starts_with(r#"{"theirs":{"n":1e400},"#), "{command}: {document}");
        // The unknown member is also put into a member that several tools write.
        match name(command) {
            "netns-bridge" => {
                // The last occurrence is the member. The steps before it keep what they added.
                let at = document.rfind(r#""mode":"bridge""#).unwrap();
                document.insert_str(at, r#""mark":7,"#);
            }
            "veth-pair" => assert!(document.contains(r#""mark":7"#), "{document}"),
            _ => {}
        }
    }
    let unwound = sandbox.sh_with("unwind", document.as_bytes()).ok();
    assert!(unwound.starts_with(r#"{"theirs":{"n":1e400},"#), "{unwound}");
}

#[test]
fn a_broken_pipe_after_the_act_takes_it_back() {
    let (sandbox, stages) = with_stages();
    unwind(&sandbox);
    let mut document = stages[0].1.clone();
    for (command, _) in &stages {
        let before = sandbox.snapshot();
        // The reader is gone before the tool reads or writes anything.
        let mut tool = sandbox.command("/bin/sh");
        tool.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tool = tool.spawn().unwrap();
        drop(tool.stdout.take());
        tool.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
        let output = tool.wait_with_output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status(command, 1)), "{command}: {errors}");
        assert_eq!(
            errors,
            format!("{}: write the document to standard output: Broken pipe\n", name(command))
        );
        sandbox.assert_as(&before);
        document = sandbox.sh_with(command, document.as_bytes()).ok();
    }
    sandbox.sh("unwind web").ok();
}
