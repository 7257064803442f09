//! ns-exec at the end of a pipe, as users run it. Needs root. The tests of common/process/runtime cover the
//! namespaces.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{prepare, ready, until_exited};
use serde_json::json;
use testkit::Sandbox;

#[test]
fn in_the_background_with_a_log_until_it_is_taken_back() {
    let sandbox = ready("");
    let before = sandbox.snapshot();
    let script = "trap 'echo ended; exit 3' TERM; echo out; echo err >&2; while :; do sleep 0.05; done";
    let document =
        sandbox.sh(&format!("ns-exec -d -- sh -c \"{script}\" < ready.json | tee run.json")).json();
    let pid = &document["process"]["pid"];
    let path = sandbox.root().join("containers/web/log");
    assert_eq!(document["process"]["log"], path.to_str().unwrap());
    let log = "for i in $(seq 100); do grep -q err $STAVE_ROOT/containers/web/log && break; sleep 0.02; done; cat $STAVE_ROOT/containers/web/log";
    assert_eq!(sandbox.sh(log).ok(), "out\nerr\n");
    let listed = sandbox.sh("container-ls").json();
    assert_eq!((&listed[0]["state"], &listed[0]["pid"]), (&json!("running"), pid));
    sandbox.sh("ns-exec --check < run.json > /dev/null").ok();

    sandbox.sh(&format!("kill {pid}; while kill -0 {pid} 2> /dev/null; do sleep 0.02; done")).ok();
    let ended = "for i in $(seq 100); do container-ls | jq -e '.[0].exitStatus' > /dev/null && break; sleep 0.02; done; container-ls";
    let listed = sandbox.sh(ended).json();
    assert_eq!((&listed[0]["state"], &listed[0]["exitStatus"]), (&json!("exited"), &json!(3)));
    assert!(sandbox.sh("cat $STAVE_ROOT/containers/web/log").ok().ends_with("ended\n"));
    let checked = sandbox.sh("ns-exec --check < run.json > /dev/null").exits(1);
    assert!(checked.stderr.starts_with("ns-exec: "), "{}", checked.stderr);

    sandbox.sh("ns-exec --undo < run.json > /dev/null").ok();
    sandbox.assert_as(&before);
    sandbox.sh("unwind web").ok();
}

#[test]
fn taking_it_back_ends_all_that_it_started() {
    let sandbox = ready("");
    let before = sandbox.snapshot();
    // Their parent ignores signals, and they have left its session.
    let script = "trap '' TERM INT HUP; setsid sleep 1001 & setsid setsid sleep 1002 & sleep 1003";
    sandbox.sh(&format!("ns-exec -d --log /run/own.log -- sh -c \"{script}\" < ready.json > run.json")).ok();
    let all =
        "for i in $(seq 100); do [ $(pgrep -f 'sleep 100[123]' | wc -l) = 3 ] && break; sleep 0.02; done";
    sandbox.sh(all).ok();
    assert_eq!(sandbox.sh("pgrep -f 'sleep 100[123]' | wc -l").ok().trim(), "3");
    sandbox.sh("ns-exec --undo < run.json > /dev/null; rm -f /run/own.log").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_terminal_of_its_own() {
    let sandbox = ready("");
    // script(1) is the terminal on our side. At the end of its input it would type a NUL, so its input is a
    // pipe that never ends.
    let command =
        "ns-exec --from ready.json -t -- sh -c 'tty; stty size; test -t 0 && test -t 1 && echo both; exit 4'";
    let outcome = sandbox.sh(&format!(
        "mkfifo typed && script -qec \"stty rows 33 cols 111; {}\" /dev/null <> typed",
        command.replace('"', "\\\"")
    ));
    assert_eq!(outcome.status, 4, "{}", outcome.stdout);
    assert_eq!(outcome.stdout.replace('\r', ""), "/dev/pts/0\n33 111\nboth\n");
    // The output goes to standard output, which need not be a terminal.
    let fresh = || prepare(&sandbox, "busybox");
    fresh();
    let seen = sandbox.sh("setsid -w ns-exec --from ready.json -t -- tty < /dev/null | tr -d '\\r'");
    assert_eq!(seen.ok(), "/dev/pts/0\n");
    fresh();
    let refused = sandbox.sh("echo typed | ns-exec --from ready.json -it -- cat").exits(125);
    assert_eq!(
        refused.stderr,
        "ns-exec: read the terminal's input: standard input is not a terminal\n\
         hint: without -t, the command reads from a pipe or a file\n"
    );
    // A reader that has gone does not block the container.
    fresh();
    let command = "{ setsid -w ns-exec --from ready.json -t -- sh -c 'seq 100000; exit 5' < /dev/null; echo $? > status; }";
    let seen = sandbox.sh(&format!("{command} | head -n 1 | tr -d '\\r'; cat status"));
    assert_eq!(seen.ok(), "1\n5\n");
}

#[test]
fn a_log_is_not_the_programs_to_truncate() {
    let sandbox = ready("");
    let script = "echo one; echo two > /dev/stdout; echo three > /dev/stderr; echo four; cat";
    // With -i standard input stays open, so cat does not end.
    let run = format!("ns-exec -d -i -u 33 -- sh -c '{script}' < ready.json > run.json");
    sandbox.sh(&run).ok();
    sandbox.sh("ns-exec --join web -d -- sh -c 'echo five > /proc/1/fd/1; exec sleep 1001' > /dev/null").ok();
    sandbox.sh("ns-exec --join web -- sh -c 'echo six > /dev/stdout' | cat > out; grep -x six out").ok();
    sandbox.sh("ns-exec --join web -d -- /missing").exits(127);
    sandbox.sh("until grep -q five $STAVE_ROOT/containers/web/log; do sleep 0.02; done").ok();
    // Standard output and standard error are separate streams.
    let log = "cat $STAVE_ROOT/containers/web/log | grep -v three; grep three $STAVE_ROOT/containers/web/log";
    assert_eq!(sandbox.sh(log).ok(), "one\ntwo\nfour\nfive\nthree\n");
    assert_eq!(
        sandbox.sh("container-ls --format '{state}' -- web; pgrep -cxf 'sleep 1001'").ok(),
        "running\n1\n"
    );
    // The last output arrives before the exit status.
    prepare(&sandbox, "busybox");
    sandbox.sh("ns-exec -d -- sh -c 'seq 100000; exit 3' < ready.json > /dev/null").ok();
    until_exited(&sandbox);
    assert_eq!(
        sandbox.sh("tail -n 1 $STAVE_ROOT/containers/web/log; wc -l < $STAVE_ROOT/containers/web/log").ok(),
        "100000\n100000\n"
    );
}

#[test]
fn another_command_in_a_container_that_runs() {
    let sandbox = ready("");
    let missing = sandbox.sh("ns-exec --join web -- true").exits(125);
    assert!(
        missing.stderr.starts_with("ns-exec: container \"web\" does not run\nhint: "),
        "{}",
        missing.stderr
    );
    sandbox.sh("ns-exec -d -e A=1 -- sh -c 'echo mine > /tmp/mine; sleep 1000' < ready.json > run.json").ok();
    let pid = sandbox.sh("cat run.json").json()["process"]["pid"].clone();
    let inside = |arguments: &str| sandbox.sh(&format!("ns-exec --join web {arguments}"));
    let seen = inside("-- sh -c 'cat /tmp/mine; echo $A; pwd; id -u; ps -o pid | grep -cx \" *1\"'");
    assert_eq!(seen.ok(), "mine\n1\n/\n0\n1\n");
    assert_eq!(
        inside("-e A=2 -e B=3 -w /tmp -u 33:34 -- sh -c 'echo $A$B; pwd; id -u; id -g'").ok(),
        "23\n/tmp\n33\n34\n"
    );
    assert_eq!(inside("-i -- cat < busybox.json | cmp - busybox.json && echo same").ok(), "same\n");
    inside("-- sh -c 'exit 9'").exits(9);
    let explained = inside("--explain -- touch /tmp/explained").ok();
    assert_eq!(explained, format!("nsenter --target {pid} --all -- touch /tmp/explained\n"));
    inside("-- test -e /tmp/explained").exits(1);
    inside("-- sh -c 'kill -9 $$'").exits(137);
    inside("-- /missing").exits(127);
    inside("-- /etc/passwd").exits(126);
    sandbox.sh("unwind web").ok();
    sandbox.sh("ns-exec --join web -- true").exits(125);
}

#[test]
fn what_the_image_says_and_flags_override() {
    let sandbox = Sandbox::with_busybox();
    let dockerfile = "FROM busybox\nENV A=image B=image\nRUN mkdir -p /srv/www && chmod 777 /srv/www\nWORKDIR /srv/www\n\
                      USER 7:8\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"command\"]\n";
    std::fs::create_dir(sandbox.directory().join("context")).unwrap();
    std::fs::write(sandbox.directory().join("context/Dockerfile"), dockerfile).unwrap();
    sandbox.sh("img-build -q -t said context | layer-apply | union-mount > ready.json").ok();
    let run = |arguments: &str| {
        sandbox
            .sh(&format!(
                "ns-exec --from ready.json {arguments}; unwind < ready.json > /dev/null
        img-inspect said | layer-apply | union-mount > ready.json"
            ))
            .ok()
    };
    assert_eq!(run(""), "entry command\n");
    assert_eq!(run("-- other words"), "entry other words\n");
    let facts = "--entrypoint sh";
    assert_eq!(
        run(&format!("{facts} -- -c 'echo $A $B; pwd; id -u; id -g; hostname'"))
            .lines()
            .take(4)
            .collect::<Vec<_>>(),
        ["image image", "/srv/www", "7", "8"]
    );
    let overridden =
        format!("{facts} -e B=flag -w /tmp/new -u 0 --hostname box -- -c 'echo $A $B; pwd; id -u; hostname'");
    assert_eq!(run(&overridden), "image flag\n/tmp/new\n0\nbox\n");
}

#[test]
fn status_and_document_go_beside_the_commands_output() {
    let sandbox = ready("");
    let outcome = sandbox
        .sh("ns-exec --status-fd 3 --document out.json -- sh -c 'echo mine; exit 5' < ready.json 3> status");
    assert_eq!((outcome.status, outcome.stdout.as_str(), outcome.stderr.as_str()), (5, "mine\n", ""));
    let document = sandbox.sh("cat out.json").json();
    let lines = sandbox.sh("jq -s . status").json();
    assert_eq!(lines[0]["pid"], document["process"]["pid"]);
    assert_eq!((&lines[1]["exitStatus"], &document["process"]["exitStatus"]), (&json!(5), &json!(5)));
    // The process has ended, so its operation has nothing to undo.
    sandbox.sh("unwind < out.json > /dev/null").ok();
}

#[test]
fn the_status_goes_to_the_descriptor_itself() {
    let sandbox = ready("");
    let run = "ns-exec --document document --status-fd 3 --network none -- true < ready.json";
    // At the file's current position, between what others write to it.
    sandbox
        .sh(&format!(
            "{{ echo first; {run} 3>&1; echo last; }} > out && ns-exec --undo < document > ready.json"
        ))
        .ok();
    let lines = sandbox.sh("cat out").ok();
    let lines: Vec<_> = lines.lines().map(|line| line.split('"').nth(1).unwrap_or(line)).collect();
    assert_eq!(lines, ["first", "pid", "exitStatus", "last"]);
    // A socket.
    std::fs::write(sandbox.directory().join("run"), format!("{run} 3>&1 > mine")).unwrap();
    sandbox
        .sh("socat -u EXEC:'sh run' OPEN:from-socket,creat && ns-exec --undo < document > ready.json && grep -q exitStatus from-socket")
        .ok();
    for wrong in ["3", "3 3< ready.json", "4294967295"] {
        let outcome =
            sandbox.sh(&format!("ns-exec --document document --status-fd {wrong} -- true < ready.json"));
        assert_eq!(outcome.status, 125);
        assert!(outcome.stderr.starts_with("ns-exec: write to descriptor "), "{}", outcome.stderr);
        assert!(outcome.stderr.ends_with(": Bad file descriptor\n"), "{}", outcome.stderr);
    }
}

#[test]
fn both_in_one_network_reach_each_other_on_localhost() {
    let sandbox = ready("| netns-bridge | veth-pair");
    let serve = |port: u16, text: &str| format!("sh -c 'while :; do echo {text} | nc -l -p {port}; done'");
    sandbox.sh(&format!("ns-exec -d -- {} < ready.json > web.json", serve(81, "first"))).ok();
    let second = format!("ns-exec -d --network container:web -- {}", serve(82, "second"));
    sandbox
        .sh(&format!("layer-apply --id second < busybox.json | union-mount | {second} > second.json"))
        .ok();
    let ask = |id: &str, port: u16| {
        let ask = format!("ns-exec --join {id} -- nc 127.0.0.1 {port}");
        sandbox.sh(&format!("for i in $(seq 50); do {ask} && exit; sleep 0.05; done 2> /dev/null")).ok()
    };
    assert_eq!((ask("second", 81), ask("web", 82)), ("first\n".into(), "second\n".into()));
    assert_eq!(sandbox.sh("ns-exec --join second -- hostname").ok(), "web\n");
    sandbox.sh("unwind second web").ok();
}

#[test]
fn volumes_of_the_host() {
    let sandbox = ready("");
    sandbox.sh("mkdir host && echo host > host/file").ok();
    let script = "cat /mnt/file; echo new > /mnt/new; echo x > /srv/deep/x; cat /one";
    let volumes = "-v $PWD/host:/mnt -v $PWD/host:/srv/deep:ro -v $PWD/host/file:/one";
    let outcome = sandbox.sh(&format!("ns-exec {volumes} -- sh -c '{script}' < ready.json"));
    assert_eq!(outcome.stdout, "host\nhost\n");
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
    assert_eq!(sandbox.sh("cat host/new; ls host").ok(), "new\nfile\nnew\n");
    sandbox.sh("unwind web").ok();
    assert_eq!(sandbox.sh("ls host").ok(), "file\nnew\n", "what is the host's stays");
}

#[test]
fn limits_variables_and_file_systems_of_one_process() {
    let sandbox = ready("");
    let inside = |flags: &str, command: &str| {
        sandbox.sh(&format!("ns-exec --document end.json {flags} -- sh -c '{command}' < ready.json"))
    };
    let undo = || sandbox.sh("ns-exec --undo < end.json > /dev/null").ok();
    let said = inside(
        "--ulimit nofile=100:200 --ulimit core=0 --sysctl net.core.somaxconn=77 --sysctl kernel.msgmax=9000 --shm-size 1m \
         --tmpfs /scratch:size=2m,mode=700 --oom-score-adj 500",
        "ulimit -n; ulimit -Hn; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/self/oom_score_adj
         df -k /dev/shm | tail -n 1 | cut -c 1-40; df -k /scratch | tail -n 1 | cut -c 1-40; grep -o \"/scratch [a-z,]*\" /proc/self/mountinfo",
    );
    let lines: Vec<_> = said.stdout.lines().collect();
    assert_eq!(lines[..5], ["100", "200", "77", "9000", "500"], "{said:?}");
    assert!(lines[5].contains("1024") && lines[6].contains("2048"), "{said:?}");
    assert!(lines[7].contains("nosuid,nodev,noexec"), "{said:?}");
    undo();
    for (flags, message) in [
        ("--sysctl kernel.core_pattern=x", "it would change the host"),
        ("--ulimit files=1", "there is no limit"),
        ("--network host --sysctl net.core.somaxconn=7", "the network is not the container"),
    ] {
        let refused = inside(flags, "true");
        assert!(refused.status != 0 && refused.stderr.contains(message), "{refused:?}");
    }
}

#[test]
fn a_time_that_is_over_and_a_starter_that_has_ended() {
    let sandbox = ready("");
    let before = sandbox.snapshot();
    let trap = "trap \"echo told; exit 0\" TERM; while :; do sleep 0.05; done";
    let said =
        sandbox.sh(&format!("ns-exec --document end.json --timeout 0.3 -- sh -c '{trap}' < ready.json"));
    assert_eq!((said.status, said.stdout.as_str()), (124, "told\n"), "{said:?}");
    assert_eq!(sandbox.sh("cat end.json").json()["process"]["exitStatus"], 124);
    sandbox.sh("ns-exec --undo < end.json > /dev/null").ok();
    sandbox.sh("ns-exec --document end.json --timeout 60 -- true < ready.json && ns-exec --undo < end.json > /dev/null").ok();
    // When the starter is killed, ns-exec and the container's process end too.
    let started = "sh -c 'ns-exec --document end.json --die-with-parent -- sleep 1234 < ready.json; :' > /dev/null 2>&1 & starter=$!
        for i in $(seq 200); do pgrep -x sleep > /dev/null && break; sleep 0.02; done; pgrep -x sleep > /dev/null && kill -KILL $starter
        for i in $(seq 200); do pgrep -x sleep > /dev/null || exit 0; sleep 0.02; done; exit 1";
    sandbox.sh(started).ok();
    sandbox.sh("ns-exec --undo < end.json > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_sandbox_has_no_privileges_no_network_and_limits() {
    let sandbox = ready("");
    let before = sandbox.snapshot();
    let look = "grep -E \"Cap(Prm|Bnd)|NoNewPrivs|Seccomp:\" /proc/self/status; touch /x 2>&1; ls /sys/class/net; sleep 0.1";
    let said = sandbox.sh(&format!("ns-exec --document end.json --sandbox -- sh -c '{look}' < ready.json"));
    for line in [
        "CapPrm:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "touch: /x: Read-only file system",
        "lo",
    ] {
        assert!(said.stdout.lines().any(|found| found == line), "{line}: {said:?}");
    }
    let document = sandbox.sh("cat end.json").json();
    let limits = &document["steps"].as_array().unwrap().last().unwrap()["operations"].to_string();
    for limit in ["pids.max", "536870912", "100000"] {
        assert!(limits.contains(limit), "{limit}: {limits}");
    }
    sandbox.sh("ns-exec --undo < end.json > /dev/null").ok();
    sandbox.assert_as(&before);
    let forks = "n=0; while [ $n -lt 400 ]; do sleep 3 & n=$((n+1)); done; echo over";
    let bomb = sandbox.sh(&format!("ns-exec --document end.json --sandbox -- sh -c '{forks}' < ready.json"));
    assert!(bomb.stderr.contains("can't fork"), "{bomb:?}");
    sandbox.sh("ns-exec --undo < end.json > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_terminal_for_one_who_joins_leaves_no_word_of_its_own() {
    let sandbox = ready("");
    sandbox.sh("ns-exec -d -- sleep 1000 < ready.json > run.json").ok();
    let said = sandbox.sh("ns-exec --join web -t -- sh -c 'test -t 0 && echo yes' 2>&1");
    assert_eq!((said.status, said.stdout.trim()), (0, "yes"), "{said:?}");
    sandbox.sh("ns-exec --undo < run.json > /dev/null").ok();
}

#[test]
fn names_and_name_servers() {
    let sandbox = ready("| netns-bridge | veth-pair");
    let run = |flags: &str| {
        let command = format!(
            "ns-exec --document after {flags} -- sh -c 'cat /etc/hosts /etc/resolv.conf' < ready.json"
        );
        let shown = sandbox.sh(&command).ok();
        sandbox.sh("ns-exec --undo < after > ready.json").ok();
        shown
    };
    let shown = run(
        "--add-host cache:10.0.0.1 --add-host host:host-gateway --dns 10.0.0.53 --dns fe80::1 --dns-search a.example --dns-search b \
         --dns-option ndots:2",
    );
    for line in [
        "10.0.0.1\tcache",
        "172.17.0.1\thost",
        "nameserver 10.0.0.53",
        "nameserver fe80::1",
        "search a.example b",
        "options ndots:2",
    ] {
        assert!(shown.lines().any(|own| own == line), "{line}: {shown}");
    }
    assert_eq!(shown.matches("nameserver").count(), 2, "none of the host's: {shown}");
    assert!(!run("--dns-search .").contains("search"));
    let sandbox = ready("");
    let run =
        |flags: &str| sandbox.sh(&format!("ns-exec --document after {flags} -- cat /etc/hosts < ready.json"));
    let host = run("--network host --add-host host:host-gateway").ok();
    assert!(host.ends_with("127.0.0.1\thost\n"), "{host}");
    sandbox.sh("ns-exec --undo < after > again && mv again ready.json").ok();
    let alone = run("--add-host host:host-gateway").exits(125).stderr;
    assert!(alone.ends_with("the container has no network that leads to the host\n"), "{alone}");
    let wrong = run("--dns-search 'a b'");
    assert_eq!(wrong.status, 125, "{}", wrong.stderr);
}

#[test]
fn what_joins_has_the_containers_oom_score_and_makes_no_directory() {
    let sandbox = ready("");
    // The container's working directory is made before its root file system becomes read-only.
    sandbox.sh("ns-exec -d --read-only -w /made/deep --oom-score-adj 500 -e HOME= -- sleep 1000 < ready.json > run.json").ok();
    let inside = |flags: &str, script: &str| sandbox.sh(&format!("ns-exec --join web {flags} -- {script}"));
    assert_eq!(inside("", "sh -c 'cat /proc/self/oom_score_adj; pwd'").ok(), "500\n/made/deep\n");
    sandbox.sh("container-exec web cat /proc/1/oom_score_adj | grep -qx 500").ok();
    // As with runc, an empty HOME is replaced with the user's home directory.
    assert_eq!(inside("", "sh -c 'echo $HOME'").ok(), "/root\n");
    prepare(&sandbox, "busybox");
    sandbox.sh("ns-exec -d -- sleep 1000 < ready.json > run.json").ok();
    let missing = inside("-w /missing/deep", "true").exits(126);
    assert_eq!(missing.stderr, "ns-exec: enter directory \"/missing/deep\": No such file or directory\n");
    inside("", "test -e /missing").exits(1);
}

#[test]
fn flags_mean_what_they_mean_for_docker() {
    let sandbox = ready("");
    for (flags, script, seen) in [
        ("--ulimit nofile=100 --ulimit core=0 --ulimit nofile=90", "ulimit -n; ulimit -c", "90\n0\n"),
        ("--hostname=", "hostname; cat /etc/hostname", "web\nweb\n"),
        ("--shm-size 0", "df -k /dev/shm | sed '1d' | tr -s ' ' | cut -d ' ' -f 2", "65536\n"),
        ("--shm-size 0.5m", "df -k /dev/shm | sed '1d' | tr -s ' ' | cut -d ' ' -f 2", "512\n"),
        ("--tmpfs /bin/new --tmpfs /etc", "stat -c %a /bin/new /etc", "1777\n755\n"),
        ("--tmpfs /etc:mode=700", "stat -c %a /etc", "700\n"),
    ] {
        let run = format!("ns-exec {flags} --document run.json -- sh -c \"{script}\" < ready.json");
        assert_eq!(sandbox.sh(&run).ok(), seen, "{flags}");
        sandbox.sh("ns-exec --undo < run.json > /dev/null").ok();
    }
}

#[test]
fn an_image_drops_the_entry_point_of_its_base() {
    let sandbox = Sandbox::with_busybox();
    let file = "FROM busybox\nENTRYPOINT [\"\"]\nCMD [\"echo\", \"ran\"]\n";
    std::fs::write(sandbox.directory().join("Dockerfile"), file).unwrap();
    sandbox.sh("img-build -q -f Dockerfile --pull=never . > image.json").ok();
    let pipe = "layer-apply --id web < image.json | union-mount | ns-exec --document run.json";
    assert_eq!(sandbox.sh(pipe).ok(), "ran\n");
}

#[test]
fn a_caller_that_ignores_its_children_gets_the_status() {
    let sandbox = ready("");
    let run = "env --ignore-signal=CHLD ns-exec --document run.json -- sh -c 'exit 5' < ready.json";
    let ended = sandbox.sh(run).exits(5);
    assert_eq!(ended.stderr, "");
    sandbox.sh("ns-exec --undo < run.json > /dev/null").ok();
}
