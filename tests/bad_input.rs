//! What every tool does with input that it cannot work on: one line that says what failed on what, the right exit
//! status, nothing left behind and nothing lost.
#![allow(clippy::unwrap_used)]

use std::{io::Write, process::Stdio};

use serde_json::{Value, json};
use testkit::{Outcome, Sandbox};

/// A filter with arguments that are right, the member that it needs, and what it says when that is missing.
const FILTERS: [(&str, Option<(&str, &str)>); 8] = [
    ("layer-apply", Some(("image", "no `image`: run img-build, img-pull or img-load first"))),
    ("union-mount", Some(("layers", "no `layers`: run layer-apply first"))),
    ("netns-bridge", None),
    ("veth-pair", Some(("network", "no `network`: run netns-bridge first"))),
    ("portmap -p 10080:80", Some(("network", "no `network`: run netns-bridge first"))),
    ("link-hosts --link db:db", None),
    ("ns-exec -- true", Some(("rootfs", "no `rootfs`: run union-mount first"))),
    ("img-commit", Some(("rootfs", "no `rootfs`: run union-mount first"))),
];

fn name(command: &str) -> &str {
    command.split(' ').next().unwrap()
}

/// The status of a tool whose input is no good; ns-exec has its own for all of them.
fn status(command: &str, status: i32) -> i32 {
    if name(command) == "ns-exec" { 125 } else { status }
}

/// What a filter wrote as its document: ns-exec's standard output is its command's, so there it is a file.
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

/// What the tools before have found and made, for another container.
fn of_no_container(document: &str) -> String {
    let mut value: Value = serde_json::from_str(document).unwrap();
    for member in ["id", "steps"] {
        value.as_object_mut().unwrap().remove(member);
    }
    value.to_string()
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
            ("", "no document on standard input: did the command before fail?"),
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

/// The commands of the pipe, each with a document that it can work on.
fn stages(sandbox: &Sandbox) -> Vec<(&'static str, String)> {
    let pipe = ["layer-apply --id web", "union-mount", "netns-bridge", "veth-pair", "portmap -p 10080:80"];
    let mut document = sandbox.sh("img-ls > /dev/null; img-load -q -t busybox2 busybox.tar").ok();
    let mut stages = Vec::new();
    for command in pipe {
        stages.push((command, document.clone()));
        document = sandbox.sh_with(command, document.as_bytes()).ok();
    }
    stages.push(("ns-exec -d -- sleep 1000", document));
    stages
}

fn with_stages() -> (Sandbox, Vec<(&'static str, String)>) {
    let sandbox = Sandbox::with_busybox();
    std::fs::write(sandbox.directory().join("busybox.tar"), testkit::busybox()).unwrap();
    let stages = stages(&sandbox);
    (sandbox, stages)
}

/// Takes `web` back, and waits for what its tools leave to processes of their own.
fn unwind(sandbox: &Sandbox) {
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox
        .sh("for try in $(seq 100); do grep -qs -e '-[-]undo' /proc/[0-9]*/cmdline || break; sleep 0.02; done")
        .ok();
}

#[test]
fn unknown_members_survive_every_tool() {
    let (sandbox, stages) = with_stages();
    unwind(&sandbox);
    let mut document = stages[0].1.trim_end().replacen('{', r#"{"theirs":{"n":1e400},"#, 1);
    for (command, _) in &stages {
        document = sandbox.sh_with(command, document.as_bytes()).ok();
        assert!(document.starts_with(r#"{"theirs":{"n":1e400},"#), "{command}: {document}");
        // In a member that several tools write, too.
        match name(command) {
            "netns-bridge" => {
                document = document.replacen(r#""mode":"bridge""#, r#""mode":"bridge","mark":7"#, 1)
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
        // The reader is gone before the tool has anything to read, let alone to write.
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

#[test]
fn names_and_ports_that_are_taken_stay_the_others() {
    let (sandbox, stages) = with_stages();
    let (command, ready) = stages.last().unwrap();
    sandbox.sh_with(&format!("{command} > running"), ready.as_bytes()).ok();
    for (command, document) in &stages {
        let before = sandbox.snapshot();
        let outcome = sandbox.sh_with(&format!("{command} > document"), document.as_bytes());
        assert_eq!(outcome.status, status(command, 1), "{command}");
        assert!(
            outcome.stderr.starts_with(&format!("{}: container \"web\" exists: ", name(command))),
            "{command}: {}",
            outcome.stderr
        );
        sandbox.assert_as(&before);
    }
    let before = sandbox.snapshot();
    let pipe = "img-load -q -t busybox2 busybox.tar | layer-apply --id other | union-mount | netns-bridge | veth-pair";
    let outcome = sandbox.sh(&format!("{pipe} | portmap -p 10080:80 > other.json")).exits(1);
    assert!(outcome.stderr.starts_with("portmap: "), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("10080"), "{}", outcome.stderr);
    sandbox.sh("unwind < other.json").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_range_of_addresses_that_is_used_up() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    for id in ["a", "b"] {
        let pipe =
            format!("netns-bridge -n --id {id} --bridge small0 --subnet 10.9.9.0/30 | veth-pair > {id}.json");
        let status = if id == "a" { 0 } else { 1 };
        let outcome = sandbox.sh(&pipe).exits(status);
        if id == "b" {
            assert!(outcome.stderr.starts_with("veth-pair: "), "{}", outcome.stderr);
            assert!(outcome.stderr.contains("10.9.9.0/30"), "{}", outcome.stderr);
        }
    }
    sandbox.sh("unwind < b.json; unwind < a.json").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_range_of_addresses_that_another_interface_has() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("ip link add lan0 type veth && ip addr add 10.9.8.1/25 dev lan0").ok();
    let before = sandbox.snapshot();
    for subnet in ["10.9.8.0/24", "10.9.8.0/25", "10.9.8.64/26", "10.0.0.0/8"] {
        let outcome = sandbox.sh(&format!("netns-bridge -n --id a --subnet {subnet} > /dev/null")).exits(1);
        let line = format!(
            "netns-bridge: subnet {subnet} collides with 10.9.8.1/25 on interface \"lan0\"\n\
             hint: choose another with --subnet\n"
        );
        assert_eq!(outcome.stderr, line);
        sandbox.assert_as(&before);
    }
    // An address that came later keeps nobody from a bridge that stands.
    sandbox
        .sh("netns-bridge -n --id a --subnet 10.9.9.0/24 > a.json && ip addr add 10.9.9.1/32 dev lan0")
        .ok();
    sandbox.sh("netns-bridge -n --id b --subnet 10.9.9.0/24 | unwind && unwind < a.json").ok();
    sandbox.sh("ip addr del 10.9.9.1/32 dev lan0").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_root_that_cannot_be_written_to() {
    let (sandbox, stages) = with_stages();
    unwind(&sandbox);
    let before = sandbox.snapshot();
    // Read-only for these commands alone: in a mount namespace of their own.
    for (command, document) in &stages[..2] {
        let command = if name(command) == "layer-apply" { "layer-apply --id new" } else { command };
        let script = format!(
            "unshare --mount sh -c 'mount --bind \"$STAVE_ROOT\" \"$STAVE_ROOT\" && mount -o remount,ro,bind \"$STAVE_ROOT\" && \
             rm -rf /tmp/none && {command}' > document"
        );
        let input = match name(command) {
            "union-mount" => of_no_container(document),
            _ => document.clone(),
        };
        let outcome = sandbox.sh_with(&script, input.as_bytes());
        if name(command) == "layer-apply" {
            // The layers stand already: nothing has to be written.
            outcome.ok();
            sandbox.sh("unwind new").ok();
            continue;
        }
        assert_eq!(outcome.status, 1, "{command}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("Read-only file system"), "{command}: {}", outcome.stderr);
    }
    let load = "unshare --mount sh -c 'mount --bind \"$STAVE_ROOT\" \"$STAVE_ROOT\" && mount -o remount,ro,bind \"$STAVE_ROOT\" && \
                img-load -t new busybox.tar > document'";
    let outcome = sandbox.sh(load).exits(1);
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
    sandbox.assert_as(&before);
}

#[test]
fn nothing_is_made_without_a_record() {
    let (sandbox, stages) = with_stages();
    sandbox
        .sh("mkdir run && mount -t tmpfs -o size=64k tmpfs run && dd if=/dev/zero of=run/fill bs=4k; true")
        .ok();
    let before = sandbox.snapshot();
    for (command, document) in &stages {
        let command = command.replacen("--id web", "", 1).replace("10080", "10081");
        let (tool, arguments) = command.split_once(' ').unwrap_or((&command, ""));
        let script = format!("{tool} --id full --run-dir run {arguments} > document");
        let outcome = sandbox.sh_with(&script, of_no_container(document).as_bytes());
        assert_eq!(outcome.status, status(&command, 1), "{command}: {}", outcome.stderr);
        let run = sandbox.directory().canonicalize().unwrap().join("run");
        let hint = "hint: make room there; `img-gc` removes images and layers that nothing refers to\n";
        let line =
            format!("{tool}: write record \"{}/full.json\": No space left on device\n{hint}", run.display());
        assert_eq!(outcome.stderr, line);
        assert_eq!(sandbox.sh("find run -type f -size +0 -not -name fill").ok(), "", "{command}");
        sandbox.assert_as(&before);
    }
}

#[test]
fn a_full_disk() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.directory().join("busybox.tar"), testkit::busybox()).unwrap();
    // A root of one megabyte: too small for the image.
    sandbox.sh("mkdir small && mount -t tmpfs -o size=1m tmpfs small").ok();
    let outcome = sandbox.sh("img-load --root small -t busybox busybox.tar > document").exits(1);
    assert!(outcome.stderr.starts_with("img-load: "), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
    assert_eq!(sandbox.sh("find small -type f -size +0 | grep -v -e index.json -e oci-layout").stdout, "");

    // One that takes the image but not the unpacked layer.
    sandbox.sh("mount -o remount,size=3m small && img-load --root small -t busybox busybox.tar > image").ok();
    let outcome = sandbox.sh("layer-apply --root small < image > document").exits(1);
    assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
    assert_eq!(sandbox.sh("ls small/layers").stdout, "", "nothing half unpacked stays");

    // A full run directory: nothing is made without a record.
    sandbox
        .sh("mkdir run && mount -t tmpfs -o size=64k tmpfs run && dd if=/dev/zero of=run/fill bs=4k; true")
        .ok();
    let before = sandbox.snapshot();
    let outcome = sandbox.sh("netns-bridge -n --id web --run-dir run > document").exits(1);
    assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
    sandbox.assert_as(&before);
    assert_eq!(sandbox.sh("find run -type f -size +0 -not -name fill").ok(), "");
}

#[test]
fn without_root() {
    let (sandbox, stages) = with_stages();
    let before = sandbox.snapshot();
    // The tools must be where another user can read them.
    sandbox.sh("mkdir -m 755 /run/bin").ok();
    // layer-apply needs none for an image of the user's own.
    for (command, document) in &stages[1..] {
        let command = command.replace("10080", "10081");
        sandbox.sh(&format!("cp {}/{} /run/bin", testkit::binaries().display(), name(&command))).ok();
        let user = "setpriv --reuid 1234 --regid 1234 --clear-groups env STAVE_RUN=/run/mine/x STAVE_ROOT=/run/mine/y";
        let script = format!(
            "mkdir -m 777 /run/mine; {user} /run/bin/{command} > /dev/null; status=$?; rm -r /run/mine; exit $status"
        );
        let outcome = sandbox.sh_with(&script, of_no_container(document).as_bytes());
        assert_eq!(outcome.status, status(&command, 1), "{command}: {}", outcome.stderr);
        let lines: Vec<_> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with(&format!("{}: ", name(&command))), "{lines:?}");
        assert_eq!(
            lines[0].matches("denied").count() + lines[0].matches("permitted").count(),
            1,
            "{lines:?}"
        );
        assert!(!lines[0].contains("EPERM") && !lines[0].contains("EACCES"), "{lines:?}");
        assert!(lines[1].starts_with("hint: this needs root"), "{lines:?}");
    }
    sandbox.sh("rm -r /run/bin").ok();
    sandbox.assert_as(&before);
}

#[test]
fn an_image_of_another_store() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let elsewhere = sandbox.directory().canonicalize().unwrap().join("elsewhere");
    let hint = format!(
        "hint: this looked in the store {elsewhere:?} (--root, STAVE_ROOT): use the one that the image was built, loaded or \
         pulled into, or img-pull it to here\n"
    );
    let apply = "layer-apply --root elsewhere < busybox.json > document";
    let outcome = sandbox.sh(apply).exits(1);
    let images = elsewhere.join("images");
    let line = format!(
        "layer-apply: {images:?} is not an OCI image layout: it has no oci-layout file of version 1\n"
    );
    assert_eq!(outcome.stderr, format!("{line}{hint}"));
    assert!(!elsewhere.exists());

    // A store, but of other images.
    std::fs::write(
        sandbox.directory().join("other.tar"),
        testkit::rootfs(|tree| testkit::directory(tree, "x")),
    )
    .unwrap();
    sandbox.sh("img-load -q --root elsewhere -t other other.tar > /dev/null").ok();
    let outcome = sandbox.sh(apply).exits(1);
    let digest = sandbox.sh("jq -r .image.descriptor.digest busybox.json").ok();
    let line = format!("layer-apply: read the image: {} is not in the image store\n", digest.trim());
    assert_eq!(outcome.stderr, format!("{line}{hint}"));
    assert!(!elsewhere.join("layers").exists());
    sandbox.assert_as(&before);
}

#[test]
fn a_volume_that_a_read_only_root_has_no_place_for() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let mounted = "layer-apply --id web < busybox.json | union-mount --read-only > web.json; mkdir data";
    sandbox.sh(mounted).ok();
    let run = |volume: &str| sandbox.sh(&format!("ns-exec --from web.json -v {volume} -- true"));
    let line = "ns-exec: mount bind on \"/new/place\": Read-only file system\n";
    let hint = "hint: the root file system is read-only and has no \"/new/place\": `union-mount -v` makes a place for a \
                volume, and mounts it\n";
    assert_eq!(run("$PWD/data:/new/place").exits(125).stderr, format!("{line}{hint}"));
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.sh(mounted.strip_suffix("; mkdir data").unwrap()).ok();
    run("$PWD/data:/tmp").exits(0);
    sandbox.sh("unwind web > /dev/null; rmdir data").ok();
    sandbox.assert_as(&before);
}

#[test]
fn paths_that_are_missing() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    for (command, line) in [
        ("img-load -t x missing.tar", "img-load: read missing.tar: No such file or directory"),
        ("img-build -t x missing", "img-build: open build context \"missing\": No such file or directory"),
    ] {
        let outcome = sandbox.sh(&format!("{command} > document; echo $? >&2"));
        let mut lines = outcome.stderr.lines();
        assert_eq!(lines.next(), Some(line));
        assert_eq!(lines.last(), Some("1"));
    }
    sandbox.assert_as(&before);
}
