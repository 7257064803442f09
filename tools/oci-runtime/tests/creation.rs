//! Containers whose creation fails or is killed. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{assert_error, bundle, configuration, run, start, write};
use serde_json::{Value, json};
use testkit::Sandbox;

#[track_caller]
fn status(sandbox: &Sandbox) -> String {
    sandbox.sh("oci-runtime state one").json()["status"].as_str().unwrap().to_owned()
}

/// A hook that runs `script`.
fn hook(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
}

/// The number of cgroups at the container's path.
#[track_caller]
fn cgroups(sandbox: &Sandbox) -> String {
    let count = format!("find /sys/fs/cgroup -maxdepth 2 -type d -name oci-test-{} | wc -l", sandbox.pid());
    sandbox.sh(&count).ok().trim().to_owned()
}

#[test]
fn what_a_creation_that_was_killed_has_made_is_found_and_removed() {
    let sandbox = bundle();
    let mut config = configuration(&sandbox, "true");
    // The hook's parent is the creating process.
    let pid = sandbox.directory().join("pid");
    config["hooks"] =
        json!({"createRuntime": hook(&format!("jq .pid > {}; kill -KILL $PPID", pid.display()))});
    write(&sandbox, &config);
    assert_eq!(cgroups(&sandbox), "0");
    sandbox.sh("oci-runtime create -b b one < /dev/null > /dev/null 2>&1").exits(137);
    assert_ne!(cgroups(&sandbox), "0");
    let state = sandbox.sh("oci-runtime state one").json();
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    let taken = sandbox.sh("oci-runtime create -b b one < /dev/null").exits(1);
    assert_error(&taken, "create container \"one\": container with given ID already exists");
    sandbox.sh("oci-runtime delete -f one").ok();
    assert_eq!((cgroups(&sandbox).as_str(), sandbox.sh("ls /run/stave-oci").ok().as_str()), ("0", ""));
    sandbox.sh("pid=$(cat pid); test ! -e /proc/$pid || grep -q Z /proc/$pid/stat").ok();
    // The creator was killed before it recorded anything.
    sandbox.sh("mkdir /run/stave-oci/one && oci-runtime delete -f one && test ! -e /run/stave-oci/one").ok();
}

#[test]
fn a_container_that_is_being_created_is_nobody_elses() {
    let sandbox = bundle();
    let mut config = configuration(&sandbox, "true");
    let at = sandbox.directory().join("at");
    let waits = format!("touch {0}; until test -e {0}-go; do sleep 0.01; done", at.display());
    config["hooks"] = json!({"createRuntime": hook(&waits)});
    write(&sandbox, &config);
    sandbox.sh("(oci-runtime create -b b one; echo $? > ended) < /dev/null > /dev/null 2>&1 &").ok();
    sandbox.sh("until test -e at; do sleep 0.01; done").ok();
    assert_eq!(status(&sandbox), "creating");
    for (command, error) in [
        ("start one", "change container \"one\": it is being created"),
        ("delete one", "change container \"one\": it is being created"),
        ("update --pids-limit 5 one", "change container \"one\": it is being created"),
        ("kill one", "kill container \"one\": container not running"),
        ("create -b b one", "create container \"one\": container with given ID already exists"),
    ] {
        assert_error(&sandbox.sh(&format!("oci-runtime {command} < /dev/null")).exits(1), error);
    }
    // It kills the process, and waits for the creation, which undoes what it has made.
    sandbox.sh("(sleep 0.2; touch at-go) & oci-runtime delete -f one; status=$?; wait; exit $status").ok();
    sandbox.sh("until test -s ended; do sleep 0.01; done").ok();
    assert_eq!(sandbox.sh("cat ended; ls /run/stave-oci").ok(), "1\n");
    assert_eq!(cgroups(&sandbox), "0");
}

#[test]
fn what_hooks_have_made_is_taken_back_when_the_creation_fails() {
    let sandbox = bundle();
    let made = sandbox.directory().join("made");
    let failed = run(&sandbox, "true", |config| {
        config["hooks"] = json!({
            "createRuntime": hook(&format!("touch {}", made.display())),
            "createContainer": hook("exit 3"),
            "poststop": hook(&format!("rm {0}; jq -r .status > {0}-not", made.display())),
        });
    });
    assert_error(&failed.exits(1), "run createContainer hook 0 \"/bin/sh\": exit status: 3");
    assert_eq!(sandbox.sh("ls made 2> /dev/null; cat made-not").ok(), "stopped\n");
}

/// The state is larger than a pipe's buffer.
#[test]
fn a_hook_that_does_not_read_its_state_is_not_waited_for() {
    let sandbox = bundle();
    let with = |hooks: Value| {
        run(&sandbox, "echo ran", |config| {
            config["annotations"] = json!({"long": "a".repeat(200_000)});
            config["hooks"] = hooks;
        })
    };
    assert_eq!(with(json!({"createContainer": [{"path": "/bin/true"}]})).ok(), "ran\n");
    let sleeps = json!([{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]);
    for kind in ["createRuntime", "createContainer"] {
        let error = format!("run {kind} hook 0 \"/bin/sleep\": it has not ended after 1 seconds");
        assert_error(&with(json!({kind: sleeps})).exits(1), &error);
    }
    let told = sandbox.directory().join("told");
    let reads = hook(&format!("jq '.annotations.long | length' > {}", told.display()));
    with(json!({"createRuntime": reads})).ok();
    assert_eq!(std::fs::read_to_string(told).unwrap(), "200000\n");
}

#[test]
fn a_container_is_not_created_in_a_frozen_cgroup() {
    let sandbox = bundle();
    let config = configuration(&sandbox, "exec sleep 1000");
    write(&sandbox, &config);
    let path = config["linux"]["cgroupsPath"].as_str().unwrap();
    let frozen = |text: &str| {
        let set = format!(
            "for d in $(find /sys/fs/cgroup -maxdepth 2 -path '*{path}'); do for f in freezer.state cgroup.freeze; do [ ! -e $d/$f ] || echo {text} > $d/$f || :; done 2> /dev/null; done"
        );
        sandbox.sh(&set).ok();
    };
    // One that another program has made, in each hierarchy.
    sandbox.sh(&format!("for d in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/freezer; do [ ! -e $d/cgroup.procs ] || mkdir -p $d{path}; done 2> /dev/null")).ok();
    frozen("FROZEN");
    frozen("1");
    let refused = sandbox.sh("timeout 20 oci-runtime create -b b one < /dev/null").exits(1);
    assert!(refused.stderr.contains("container's cgroup unexpectedly frozen"), "{}", refused.stderr);
    frozen("THAWED");
    frozen("0");
    sandbox.sh("oci-runtime run -d -b b one < /dev/null > /dev/null 2>&1 && oci-runtime delete -f one").ok();
    sandbox
        .sh(&format!(
            "find /sys/fs/cgroup -maxdepth 2 -depth -path '*{path}' -exec rmdir {{}} + 2> /dev/null || :"
        ))
        .ok();
}

#[test]
fn a_signal_reaches_a_process_or_is_an_error() {
    let sandbox = bundle();
    start(&sandbox, |_| {});
    // Move the process out of its cgroups, and remove them.
    let name = format!("oci-test-{}", sandbox.pid());
    let leave = format!(
        "pid=$(oci-runtime state one | jq .pid); for group in $(find /sys/fs/cgroup -maxdepth 2 -type d -name {name}); do
             echo $pid > $(dirname $group)/cgroup.procs && rmdir $group || exit 1; done"
    );
    sandbox.sh(&leave).ok();
    assert_error(
        &sandbox.sh("oci-runtime kill --all one TERM").exits(1),
        "kill container \"one\": it has no cgroup of its own, by which all of its processes are found",
    );
    assert_eq!(status(&sandbox), "running");
    sandbox
        .sh("oci-runtime kill --all one KILL; for i in $(seq 1000); do oci-runtime state one | grep -q stopped && exit; sleep 0.01; done; exit 1")
        .ok();
    sandbox.sh("oci-runtime delete one").ok();
}

#[test]
fn hooks_that_hang_or_change_the_container_block_nobody() {
    let sandbox = bundle();
    let mut config = configuration(&sandbox, "true");
    let hangs = json!([{"path": "/bin/sh", "args": ["sh", "-c", "touch /hangs; sleep 1000"]}]);
    config["hooks"] = json!({"startContainer": hangs});
    write(&sandbox, &config);
    sandbox.sh("oci-runtime create -b b one < /dev/null > /dev/null 2>&1").ok();
    sandbox.sh("(oci-runtime start one; echo $? > ended) > /dev/null 2>&1 &").ok();
    sandbox
        .sh("until test -e b/rootfs/hangs; do sleep 0.01; done; timeout 20 oci-runtime delete -f one")
        .ok();
    sandbox.sh("until test -s ended; do sleep 0.01; done").ok();
    assert_eq!(sandbox.sh("cat ended; ls /run/stave-oci").ok(), "1\n");
    let path = sandbox.sh("command -v oci-runtime").ok();
    start(&sandbox, |config| {
        let update = format!("timeout 20 {} update --pids-limit 77 one", path.trim());
        config["hooks"] = json!({"poststart": hook(&update)});
    });
    let limit = sandbox.sh("jq .config.linux.resources.pids.limit /run/stave-oci/one/state.json").ok();
    assert_eq!(limit, "77\n");
    sandbox.sh("oci-runtime delete -f one").ok();
}

/// The process that creates the container waits for the hook, and holds the lock.
#[test]
fn a_container_whose_creation_hangs_is_removed_by_force() {
    let sandbox = bundle();
    let mut config = configuration(&sandbox, "true");
    let pid = sandbox.directory().join("pid");
    config["hooks"] =
        json!({"createRuntime": hook(&format!("echo $$ > {}; exec sleep 1000", pid.display()))});
    write(&sandbox, &config);
    sandbox.sh("(oci-runtime create -b b one < /dev/null; echo $? > ended) > /dev/null 2>&1 &").ok();
    sandbox.sh("until test -s pid; do sleep 0.01; done; timeout 20 oci-runtime delete -f one").ok();
    sandbox.sh("until test -s ended; do sleep 0.01; done").ok();
    assert_eq!(sandbox.sh("cat ended; ls /run/stave-oci").ok(), "137\n");
    // The hook has ended too.
    sandbox.sh("timeout 20 sh -c 'while grep -qs \"^State:[^Z]*$\" /proc/$(cat pid)/status; do sleep 0.01; done'").ok();
    assert_eq!(cgroups(&sandbox), "0");
}

#[test]
fn an_ordinary_user_runs_a_container() {
    let sandbox = bundle();
    let shown = sandbox.sh(
        "mount -t tmpfs none /mnt && mkdir /mnt/u && cp -a b/rootfs $(command -v oci-runtime) /mnt/u && chown -R 1234:1234 /mnt/u && cd /mnt/u &&
         as='setpriv --reuid 1234 --regid 1234 --clear-groups --inh-caps=-all env XDG_RUNTIME_DIR=/mnt/u' &&
         $as ./oci-runtime spec --rootless &&
         jq '.process.terminal = false | .process.args = [\"id\", \"-u\"]' config.json > c && mv c config.json &&
         $as ./oci-runtime run one < /dev/null",
    );
    assert_eq!(shown.ok(), "0\n");
}
