//! From create to delete, as callers of runc do it. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{assert_error, bundle, configuration, run, start, write};
use serde_json::{Value, json};
use testkit::Sandbox;

#[track_caller]
fn status(sandbox: &Sandbox) -> String {
    sandbox.sh("oci-runtime state one").json()["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_container_waits_for_its_start_and_lives_without_a_parent() {
    let sandbox = bundle();
    let before = sandbox.snapshot();
    let mut config = configuration(&sandbox, "echo started; exec sleep 1000");
    config["annotations"] = json!({"colour": "red"});
    write(&sandbox, &config);
    sandbox.sh("oci-runtime create one --bundle b --pid-file pid > out < /dev/null 2>&1").ok();
    let state = sandbox.sh("oci-runtime state one").json();
    assert_eq!(state["status"], "created");
    assert_eq!(state["annotations"], json!({"colour": "red"}));
    assert_eq!(state["bundle"], sandbox.sh("realpath b").ok().trim());
    assert_eq!(state["pid"].to_string(), sandbox.sh("cat pid").ok());
    assert_eq!(sandbox.sh("cat out").ok(), "");
    // Later changes to the bundle have no effect.
    sandbox.sh("rm b/config.json && oci-runtime start one").ok();
    sandbox.sh("until test -s out; do sleep 0.01; done").ok();
    assert_eq!((status(&sandbox).as_str(), sandbox.sh("cat out").ok().as_str()), ("running", "started\n"));
    for (command, error) in [
        ("start one", "start container \"one\": cannot start an already running container"),
        ("delete one", "delete container \"one\": cannot delete container that is not stopped: running"),
        ("create -b b one", "find \"b/config.json\""),
        ("state two", "find container \"two\": container does not exist"),
        ("kill one NOSUCH", "read signal \"NOSUCH\": there is no such signal"),
    ] {
        if command.starts_with("create") {
            write(&sandbox, &config);
            let refused = sandbox.sh(&format!("oci-runtime {command}")).exits(1);
            assert_error(&refused, "create container \"one\": container with given ID already exists");
            continue;
        }
        assert_error(&sandbox.sh(&format!("oci-runtime {command}")).exits(1), error);
    }
    sandbox
        .sh("oci-runtime kill one KILL; while oci-runtime state one | grep -q running; do sleep 0.01; done")
        .ok();
    assert_eq!(status(&sandbox), "stopped");
    let dead = sandbox.sh("oci-runtime kill one").exits(1);
    assert_error(&dead, "kill container \"one\": container not running");
    sandbox.sh("oci-runtime delete one; rm -rf pid out").ok();
    assert_eq!(sandbox.sh("oci-runtime list -q; ls /run/stave-oci").ok(), "");
    sandbox.sh("oci-runtime delete --force one; rmdir /run/stave-oci").ok();
    sandbox.assert_as(&before);
}

#[test]
fn run_ends_as_the_command_does() {
    let sandbox = bundle();
    assert_eq!(run(&sandbox, "echo hello; exit 7", |_| {}).exits(7).stdout, "hello\n");
    assert_eq!(sandbox.sh("oci-runtime list -q").ok(), "");
    for (command, cause) in [
        ("nosuch", "executable file not found in $PATH"),
        ("/nosuch", "no such file or directory"),
        ("/etc", "permission denied (Is a directory)"),
        ("/etc/passwd", "permission denied"),
    ] {
        let failed = run(&sandbox, "", |config| config["process"]["args"] = json!([command])).exits(1);
        assert_error(&failed, &format!("execute {command:?}: {cause}"));
    }
    // Failed containers leave nothing.
    assert_eq!(sandbox.sh("ls /run/stave-oci").ok(), "");
}

#[test]
fn a_container_that_was_never_started_is_removed() {
    let sandbox = bundle();
    write(&sandbox, &configuration(&sandbox, "true"));
    sandbox.sh("oci-runtime create -b b one < /dev/null > /dev/null 2>&1").ok();
    let pid = sandbox.sh("oci-runtime state one").json()["pid"].to_string();
    sandbox.sh("oci-runtime delete one").ok();
    sandbox.sh(&format!("test ! -e /proc/{pid} || grep -q Z /proc/{pid}/stat")).ok();
}

#[test]
fn a_cgroup_that_is_anothers_stays_as_it_is() {
    let sandbox = bundle();
    start(&sandbox, |_| {});
    // The same cgroup, which still has processes.
    let second = run_as(&sandbox, "two").exits(1);
    assert!(
        second.stderr.contains("create container \\\"two\\\": processes live in its cgroup"),
        "{}",
        second.stderr
    );
    assert_eq!(status(&sandbox), "running");
    sandbox.sh("oci-runtime delete -f one").ok();
    // An existing empty cgroup stays, and a new one is removed.
    let mut config = configuration(&sandbox, "true");
    config["process"]["args"] = json!(["/nosuch"]);
    let path = format!("/oci-test-{}-kept", sandbox.pid());
    config["linux"]["cgroupsPath"] = json!(path);
    write(&sandbox, &config);
    let directories = format!("$(find /sys/fs/cgroup -maxdepth 2 -type d -path '*{path}')");
    for kept in ["0", "1"] {
        if kept == "1" {
            let root =
                sandbox.sh("grep -m 1 -o '/sys/fs/cgroup[^ ]* cgroup2\\?' /proc/mounts | cut -d' ' -f1").ok();
            sandbox.sh(&format!("mkdir {}{path}", root.trim())).ok();
        }
        run_as(&sandbox, "two").exits(1);
        assert_eq!(sandbox.sh(&format!("echo {directories} | wc -w")).ok().trim(), kept);
    }
    sandbox.sh(&format!("rmdir {directories}")).ok();
}

/// Runs the bundle as a container with this id.
#[track_caller]
fn run_as(sandbox: &Sandbox, id: &str) -> testkit::Outcome {
    sandbox.sh(&format!("oci-runtime run -b b {id} < /dev/null"))
}

/// What `ps` tells of the container `one`, which has a second process.
fn processes_are_listed(sandbox: &Sandbox) {
    sandbox.sh("oci-runtime exec -d --pid-file pid one sleep 500 < /dev/null > /dev/null 2>&1").ok();
    let pids = sandbox.sh("oci-runtime ps -f json one").json();
    assert_eq!(pids.as_array().unwrap().len(), 2);
    let written: i64 = sandbox.sh("cat pid").ok().parse().unwrap();
    assert!(pids.as_array().unwrap().iter().any(|pid| pid.as_i64() == Some(written)), "{pids}");
    let table = sandbox.sh("oci-runtime ps one").ok();
    assert!(table.starts_with("UID") && table.contains("sleep 500\n"), "{table}");
    assert_eq!(sandbox.sh("oci-runtime ps one -f json").json(), pids, "the format may come last");
    // Anything else after the id is for ps(1).
    let table = sandbox.sh("oci-runtime ps one -e -o ppid,pid,args").ok();
    let told: Vec<i64> =
        table.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect();
    assert!(table.trim_start().starts_with("PPID") && table.contains("sleep 500\n"), "{table}");
    assert_eq!(json!(told), pids);
    let refused = sandbox.sh("oci-runtime ps one -e -o args").exits(1);
    let error = r#"run ps with ["-e", "-o", "args"]: it prints no column PID, which tells the processes of the container"#;
    assert_error(&refused, error);
}

/// `exec --cgroup` in the container `one`.
fn cgroups_are_entered(sandbox: &Sandbox) {
    let exec = |arguments: &str| sandbox.sh(&format!("oci-runtime exec {arguments} < /dev/null"));
    let missing = exec("--cgroup none one true").exits(255);
    assert!(missing.stderr.contains("/none/cgroup.procs: no such file or directory"), "{}", missing.stderr);
    let unknown = exec("--cgroup nosuch,other:/ one true").exits(255);
    assert_error(&unknown, "enter cgroup \"/\": unknown controller nosuch");
    // A list is for each of its controllers.
    let make = "for c in memory pids; do mkdir /sys/fs/cgroup/$c$(sed -n \"s/^[0-9]*:$c://p\" /proc/$(oci-runtime state one | jq .pid)/cgroup)/below; done";
    sandbox.sh(make).ok();
    let entered = exec("--cgroup memory,pids:below one cat /proc/self/cgroup").ok();
    let below: Vec<&str> = entered.lines().filter(|line| line.ends_with("/below")).collect();
    assert!(
        below.len() == 2 && [":memory:", ":pids:"].iter().all(|name| entered.contains(name)),
        "{entered}"
    );
}

#[test]
fn other_commands_in_a_container() {
    let sandbox = bundle();
    start(&sandbox, |config| config["hostname"] = json!("one"));
    let exec = |arguments: &str| sandbox.sh(&format!("oci-runtime exec {arguments} < /dev/null"));
    assert_eq!(exec("one hostname").ok(), "one\n");
    // Options may stand before and after the id. Everything after the command belongs to the command.
    assert_eq!(
        exec("-u 5:6 one -e A=b --cwd /tmp sh -c 'id -u; id -g; pwd; echo $A'").ok(),
        "5\n6\n/tmp\nb\n"
    );
    exec("one sh -c 'exit 9'").exits(9);
    // Only a new container gets a missing directory.
    assert_error(
        &exec("--cwd /missing one true").exits(255),
        "enter directory \"/missing\": No such file or directory",
    );
    assert_eq!(exec("one ls -d /missing").exits(1).stdout, "");
    let failed = exec("one nosuch").exits(255);
    assert_error(&failed, "execute \"nosuch\": executable file not found in $PATH");
    std::fs::write(
        sandbox.directory().join("process.json"),
        json!({"args": ["sh", "-c", "echo $B; id -u"], "env": ["B=c", "PATH=/bin"], "cwd": "/", "user": {"uid": 3, "gid": 3}}).to_string(),
    )
    .unwrap();
    assert_eq!(exec("-p process.json one").ok(), "c\n3\n");
    processes_are_listed(&sandbox);
    cgroups_are_entered(&sandbox);
    // Nobody would know the process.
    exec("-d --pid-file missing/pid one sleep 600").exits(255);
    exec("--pid-file none one nosuch").exits(255);
    assert_eq!(sandbox.sh("ls none 2> /dev/null; true").ok(), "");
    assert!(!sandbox.sh("oci-runtime ps one").ok().contains("sleep 600"));
    // Nobody listens on the socket, so nobody could use the terminal.
    exec("-d -t --console-socket missing one sleep 600").exits(255);
    assert!(!sandbox.sh("oci-runtime ps one").ok().contains("sleep 600"));
    sandbox.sh("oci-runtime pause one").ok();
    assert_eq!(status(&sandbox), "paused");
    let refused = exec("one true").exits(255);
    assert_error(&refused, "execute a process in container \"one\": cannot exec in a paused container");
    sandbox.sh("oci-runtime resume one").ok();
    assert_eq!(status(&sandbox), "running");
    sandbox.sh("oci-runtime delete -f one").ok();
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    let sandbox = bundle();
    let mut config = configuration(&sandbox, "tty; echo on the terminal; sleep 1000");
    config["process"]["terminal"] = json!(true);
    write(&sandbox, &config);
    let refused = sandbox.sh("oci-runtime create -b b one < /dev/null").exits(1);
    assert!(refused.stderr.contains("has a terminal, and --console-socket is missing"), "{}", refused.stderr);
    std::fs::write(
        sandbox.directory().join("receive.py"),
        r#"
import array, os, socket, subprocess, sys
server = socket.socket(socket.AF_UNIX)
server.bind("console")
server.listen()
subprocess.run(["oci-runtime", "create", "--console-socket", "console", "-b", "b", "one"], check=True)
connection, _ = server.accept()
_, control, _, _ = connection.recvmsg(4096, 1024)
terminal = array.array("i", control[0][2])[0]
subprocess.run(["oci-runtime", "start", "one"], check=True)
text = b""
while b"terminal" not in text:
    text += os.read(terminal, 1000)
print(text.decode().replace("\r", ""), end="")
"#,
    )
    .unwrap();
    let shown = sandbox.sh("python3 receive.py < /dev/null").ok();
    assert_eq!(shown, "/dev/pts/0\non the terminal\n");
    sandbox.sh("oci-runtime delete -f one").ok();
}

#[test]
fn a_descriptor_of_the_process_goes_to_a_socket() {
    let sandbox = bundle();
    write(&sandbox, &configuration(&sandbox, "exec sleep 1000"));
    let server = r#"
import array, signal, socket, subprocess, sys
server = socket.socket(socket.AF_UNIX)
server.bind("sock")
server.listen()
started = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
connection, _ = server.accept()
text, control, _, _ = connection.recvmsg(100, 100)
assert started.wait() == 0
signal.pidfd_send_signal(array.array("i", control[0][2])[0], signal.SIGKILL)
print(text.decode())
"#;
    std::fs::write(sandbox.directory().join("server.py"), server).unwrap();
    let taken = |command: &str| {
        sandbox.sh(&format!("rm -f sock; timeout 20 python3 server.py oci-runtime {command}")).ok()
    };
    let ended =
        "for i in $(seq 100); do oci-runtime state one | grep -q stopped && exit 0; sleep 0.05; done; exit 1";
    assert_eq!(taken("create --pidfd-socket sock -b b one"), "standard\n");
    sandbox.sh(ended).ok();
    sandbox.sh("oci-runtime delete one").ok();
    assert_eq!(taken("run -d --pidfd-socket sock -b b one"), "standard\n");
    sandbox.sh(ended).ok();
    sandbox.sh("oci-runtime delete one && oci-runtime run -d -b b one < /dev/null > /dev/null 2>&1").ok();
    assert_eq!(taken("exec -d --pidfd-socket sock one sleep 1000"), "setns\n");
    assert_eq!(status(&sandbox), "running");
    let failed = sandbox.sh("oci-runtime exec -d --pidfd-socket nowhere one sleep 1001").exits(255);
    assert_error(&failed, "send a descriptor to \"nowhere\": No such file or directory");
    sandbox.sh("! oci-runtime exec one ps | grep -q 1001").ok();
    sandbox.sh("oci-runtime delete -f one").ok();
}

/// Before its start it is no program of the container yet. Its command does not inherit the handler.
#[test]
fn a_signal_ends_a_container_that_waits_for_its_start() {
    let sandbox = bundle();
    let mut config = configuration(&sandbox, "");
    config["process"]["args"] = json!(["sed", "-n", "s/^SigCgt:\\s*//p", "/proc/1/status"]);
    config["linux"]["namespaces"][0]["path"] = json!("");
    write(&sandbox, &config);
    for signal in ["TERM", "INT", "HUP"] {
        sandbox.sh("oci-runtime create -b b one < /dev/null > /dev/null 2>&1").ok();
        sandbox.sh(&format!("oci-runtime kill one {signal}")).ok();
        sandbox.sh("for i in $(seq 100); do oci-runtime state one | grep -q stopped && exit 0; sleep 0.05; done; exit 1").ok();
        sandbox.sh("oci-runtime delete one").ok();
    }
    assert_eq!(sandbox.sh("oci-runtime run -b b one < /dev/null").ok().trim(), "0000000000000000");
}

#[test]
fn a_terminal_in_a_pipe_has_plain_lines() {
    let sandbox = bundle();
    let mut config = configuration(&sandbox, "echo one; echo two");
    config["process"]["terminal"] = json!(true);
    write(&sandbox, &config);
    assert_eq!(
        sandbox
            .sh("sleep 3 | script -qec 'oci-runtime run -b b one > out' /dev/null > /dev/null; cat out")
            .ok(),
        "one\ntwo\n"
    );
    let failed = sandbox.sh("oci-runtime --root nowhere list").exits(1);
    assert_error(&failed, "open directory \"nowhere\": No such file or directory (os error 2)");
}

#[test]
fn hooks_run_in_their_order_with_the_state() {
    let sandbox = bundle();
    let log = sandbox.directory().join("hooks");
    let hook = |name: &str| {
        let places = match name {
            "prestart" | "createRuntime" | "createContainer" => {
                format!("pwd -P >> {}; ", log.with_file_name("places").display())
            }
            _ => String::new(),
        };
        let script = places
            + &format!(
                "echo {name} \"$(jq -c '[.status, .id, .pid > 0, .annotations.a]')\" $(readlink /proc/self/ns/mnt) >> {}",
                log.display()
            );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
    };
    let ran = run(&sandbox, "cat /state; echo main", |config| {
        config["annotations"] = json!({"a": "b"});
        config["process"]["env"] = json!(["PATH=/bin", "COLOUR=red"]);
        config["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "createContainer": hook("createContainer"),
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /state; echo >> /state; echo $COLOUR >> /state"]}],
            "poststart": hook("poststart"), "poststop": hook("poststop"),
        });
    });
    let shown = ran.ok();
    // As with runc.
    let places = std::fs::read_to_string(sandbox.directory().join("places")).unwrap();
    let bundle = sandbox.directory().canonicalize().unwrap().join("b");
    assert_eq!(places, format!("{}\n{}\n{}/rootfs\n", bundle.display(), bundle.display(), bundle.display()));
    // Without its own environment, a hook in the container has the command's.
    let (state, rest) = shown.split_once('\n').unwrap();
    let state: serde_json::Value = serde_json::from_str(state).unwrap();
    assert_eq!((&state["status"], &state["pid"], rest), (&json!("created"), &json!(1), "red\nmain\n"));
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let told: Vec<(&str, &str)> = lines.iter().map(|line| (line[0], line[1])).collect();
    assert_eq!(
        told,
        [
            ("prestart", "[\"creating\",\"one\",true,\"b\"]"),
            ("createRuntime", "[\"creating\",\"one\",true,\"b\"]"),
            ("createContainer", "[\"creating\",\"one\",true,\"b\"]"),
            ("poststart", "[\"running\",\"one\",true,\"b\"]"),
            ("poststop", "[\"stopped\",\"one\",false,\"b\"]"),
        ]
    );
    // The container's hook runs in its mount namespace.
    assert!(lines[0][2] == lines[1][2] && lines[1][2] != lines[2][2] && lines[3][2] == lines[0][2], "{text}");
}

#[test]
fn hooks_that_fail() {
    let sandbox = bundle();
    for (kind, hook, error) in [
        (
            "createRuntime",
            json!({"path": "/bin/sh", "args": ["sh", "-c", "echo no; exit 3"]}),
            "exit status: 3: no",
        ),
        (
            "createContainer",
            json!({"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}),
            "it has not ended after 1 seconds",
        ),
        ("startContainer", json!({"path": "/bin/false"}), "exit status: 1"),
        ("poststart", json!({"path": "/nosuch"}), "No such file or directory (os error 2)"),
    ] {
        let path = hook["path"].clone();
        let failed = run(&sandbox, "sleep 1000", |config| config["hooks"] = json!({kind: [hook]})).exits(1);
        assert_error(&failed, &format!("run {kind} hook 0 {path}: {error}"));
        assert_eq!(sandbox.sh("oci-runtime list -q").ok(), "");
    }
}

/// The programs of such a hook are the container's own.
#[test]
fn a_hook_in_the_container_is_confined_like_the_command() {
    let sandbox = bundle();
    let script = "sed -n 's/^\\(NoNewPrivs\\|CapEff\\|Seccomp\\):\\s*//p' /proc/self/status >> /seen; mkdir /made 2>> /seen";
    for gains_nothing in [true, false] {
        let seen = run(&sandbox, &format!("{script}; cat /seen; rm /seen"), |config| {
            config["process"]["noNewPrivileges"] = json!(gains_nothing);
            config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]});
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
            });
            config["hooks"] = json!({
                "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", format!("{script}; true")], "env": ["PATH=/bin"]}],
            });
        })
        .ok();
        let one = format!(
            "0000000000000020\n{}\n2\nmkdir: can't create directory '/made': Operation not permitted\n",
            u8::from(gains_nothing)
        );
        assert_eq!(seen, one.repeat(2));
    }
}

#[test]
fn a_container_whose_hook_fails_after_the_start_is_destroyed() {
    let sandbox = bundle();
    let ended = sandbox.directory().join("ended");
    let mut config = configuration(&sandbox, "exec sleep 1000");
    config["hooks"] = json!({
        "poststart": [{"path": "/bin/false"}], "poststop": [{"path": "/usr/bin/touch", "args": ["touch", ended]}],
    });
    write(&sandbox, &config);
    sandbox.sh("oci-runtime create -b b one < /dev/null > /dev/null 2>&1").ok();
    let failed = sandbox.sh("oci-runtime start one").exits(1);
    assert_error(&failed, "run poststart hook 0 \"/bin/false\": exit status: 1");
    assert_eq!(sandbox.sh("oci-runtime list -q; ls /run/stave-oci").ok(), "");
    assert!(ended.exists());
}

#[test]
fn a_log_for_callers() {
    let sandbox = bundle();
    let failed = sandbox.sh("oci-runtime --log log --log-format json state nosuch").exits(1);
    assert_eq!(failed.stderr, "oci-runtime: find container \"nosuch\": container does not exist\n");
    let line = sandbox.sh("cat log").json();
    assert_eq!(
        (&line["level"], &line["msg"]),
        (&json!("error"), &json!("find container \"nosuch\": container does not exist"))
    );
    let failed = sandbox.sh("oci-runtime --log-format json state nosuch").exits(1);
    let line: Value = serde_json::from_str(&failed.stderr).unwrap();
    assert_eq!(
        (&line["level"], &line["msg"]),
        (&json!("error"), &json!("find container \"nosuch\": container does not exist"))
    );
    let unwritten = sandbox.sh("oci-runtime --log nosuch/log list").exits(1);
    assert_error(&unwritten, "open log \"nosuch/log\": No such file or directory (os error 2)");
    let refused = sandbox.sh("oci-runtime --systemd-cgroup list").exits(1);
    assert_error(&refused, "use --systemd-cgroup: cgroups are made directly here, and not by systemd");
    assert_eq!(sandbox.sh("oci-runtime --version").ok().lines().nth(1), Some("spec: 1.2.1"));
}

/// As in runc, the user of the process gets the streams, and can open them by name.
#[test]
fn streams_of_a_user_can_be_opened_by_name() {
    let sandbox = bundle();
    let mut config = configuration(&sandbox, "cat /dev/stdin; echo a >> /dev/stdout; echo b >> /dev/stderr");
    config["process"]["user"] = json!({"uid": 7, "gid": 8});
    write(&sandbox, &config);
    sandbox.sh("umask 077; echo in > input; oci-runtime run -b b one < input > output 2> errors").ok();
    assert_eq!(sandbox.sh("cat output errors; stat -c %u output /dev/null").ok(), "in\na\nb\n7\n0\n");
}
