//! Foreign stages: step-begin and step-done write document and record for them. They can be undone even after
//! a SIGKILL.
#![allow(clippy::unwrap_used)]

use testkit::Sandbox;

/// A stage that makes a file, and kills itself at `DIE`.
const STAGE: &str = r#"#!/bin/sh
set -e
document=$(cat)
case " $* " in
*' --undo '*)
    rm -f /run/own
    printf %s "$document" | step-done own "$@"
    exit ;;
esac
[ "$DIE" != before ] || kill -9 $$
printf %s "$document" | step-begin own --tool-version 1 --operations '[{"file":"/run/own"}]' > begun.json
[ "$DIE" != begun ] || kill -9 $$
touch /run/own
[ "$DIE" != made ] || kill -9 $$
step-done own --adds '{"owns":["/run/own"]}' < begun.json > done.json
[ "$DIE" != done ] || kill -9 $$
cat done.json
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let stages = sandbox.directory().join("stages");
    std::fs::create_dir(&stages).unwrap();
    std::fs::write(stages.join("own"), STAGE).unwrap();
    sandbox.sh("chmod +x stages/own").ok();
    sandbox
}

#[test]
fn it_stands_anywhere_in_a_pipe() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    for pipe in [
        "netns-bridge -n --id web | veth-pair | stages/own",
        "netns-bridge -n --id web | stages/own | veth-pair",
        "echo '{\"stave\":1,\"id\":\"web\"}' | stages/own | netns-bridge | veth-pair",
    ] {
        let document = sandbox.sh(&format!("{pipe} | tee web.json")).json();
        assert_eq!(document["owns"], serde_json::json!(["/run/own"]), "{pipe}");
        assert_eq!(document, sandbox.sh("cat /run/stave/web.json").json(), "{pipe}");
        let unwound = sandbox.sh("unwind --with stages < web.json").json();
        assert_eq!((unwound.get("owns"), &unwound["steps"]), (None, &serde_json::json!([])), "{pipe}");
        sandbox.assert_as(&before);
    }
}

#[test]
fn it_is_undone_wherever_it_was_killed() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    for moment in ["before", "begun", "made", "done"] {
        sandbox.sh(&format!("netns-bridge -n --id web | DIE={moment} stages/own > /dev/null"));
        sandbox.sh("unwind --with stages web > /dev/null").ok();
        sandbox.assert_as(&before);
    }
}

#[test]
fn what_is_wrong_is_told() {
    let sandbox = sandbox();
    let document = sandbox.sh("netns-bridge -n --id web | tee web.json").ok();
    for (command, error) in [
        ("step-begin ns-exec", "step-begin: \"ns-exec\" is a tool of Stave: it writes its own steps\n"),
        (
            "step-begin ../x",
            "step-begin: \"../x\" is not the name of a program: `unwind --with DIR` looks for DIR/NAME\n",
        ),
        (
            "step-done own",
            "step-done: no step \"own\" is begun in the document\nhint: `step-begin own` begins one\n",
        ),
        (
            "step-done own --adds '{\"steps\":[]}'",
            "step-done: member \"steps\" belongs to the contract: no step adds to it\n",
        ),
    ] {
        let outcome = sandbox.sh_with(command, document.as_bytes());
        assert_eq!((outcome.status, outcome.stderr.as_str()), (1, error), "{command}");
        let passed_on: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(passed_on["error"]["step"], "record", "{command}");
    }
    let usage = sandbox.sh("step-begin own --operations '{}' < web.json");
    assert_eq!(usage.status, 2);
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn unwind_says_that_there_is_nothing() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.sh("unwind nosuch");
    assert_eq!(
        (outcome.status, outcome.stderr.as_str()),
        (0, "unwind: container \"nosuch\" does not exist in \"/run/stave\"\n")
    );
    assert_eq!(sandbox.sh("unwind --quiet nosuch").stderr, "");
    let strict = sandbox.sh("unwind --strict nosuch");
    assert_eq!(
        (strict.status, strict.stderr.as_str()),
        (1, "unwind: container \"nosuch\" does not exist in \"/run/stave\"\n")
    );
}

#[test]
fn a_dry_run_leaves_the_record() {
    let sandbox = sandbox();
    sandbox.sh("netns-add -n --id web | step-begin own > begun.json").ok();
    let record = sandbox.sh("cat /run/stave/web.json").ok();
    let planned = sandbox.sh("step-done own --dry-run --adds '{\"owns\":[1]}' < begun.json").json();
    assert_eq!((&planned["planned"], &planned["owns"]), (&true.into(), &serde_json::json!([1])));
    assert_eq!(planned["steps"][1]["state"], "done");
    assert_eq!(sandbox.sh("cat /run/stave/web.json").ok(), record);
    sandbox.sh("unwind -q --with stages web > /dev/null").ok();
}
