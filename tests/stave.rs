//! `scripts/stave run` and `exec` with the flags that Docker users try first.
#![allow(clippy::unwrap_used)]

mod host;

use host::Host;

#[test]
fn flags_of_run_and_exec() {
    let host = Host::new();
    host.0.sh("printf '# none\\n\\nA=1\\nB=x y' > variables").ok();
    let before = host.0.snapshot();
    for (arguments, expected) in [
        ("run --rm busybox echo hi", "hi"),
        ("run --rm -e A=b -eC='d  e' --env=F=g busybox sh -c 'echo \"$A $C $F\"'", "b d  e g"),
        ("run --rm -w /made --user 33:34 busybox sh -c 'pwd; id -u; id -g'", "/made\n33\n34"),
        ("run --rm -h one busybox hostname", "one"),
        ("run --rm --hostname=two --entrypoint /bin/hostname busybox", "two"),
        (
            "run --rm -h -x --entrypoint= -m 64m --ulimit nofile=50 busybox sh -c 'hostname; ulimit -n'",
            "-x\n50",
        ),
        ("run --rm --net none busybox ls /sys/class/net", "lo"),
        (
            "run --rm --cap-drop ALL --cap-add=NET_RAW busybox grep CapEff /proc/self/status",
            "CapEff:\t0000000000002000",
        ),
        ("run --rm --net none busybox printf '[%s]' 'a\n' \"it's\" '' '$A *'", "[a\n][it's][][$A *]"),
        ("run --rm=true --detach=false --net none --env-file variables busybox sh -c 'echo $A$B'", "1x y"),
        ("run --rm -i --net none busybox cat <&-", ""),
        ("run --rm --net none busybox echo >&-", ""),
        ("run --rm --read-only busybox sh -c 'touch /x 2> /dev/null || echo read-only'", "read-only"),
        ("run --rm --privileged busybox sh -c 'mount -t tmpfs x /tmp && echo mounted'", "mounted"),
        (
            "run --rm -v .:/here -v ./:/there:ro busybox sh -c 'cmp /here/busybox.json /there/busybox.json && echo same'",
            "same",
        ),
        ("run --rm -- busybox echo hi", "hi"),
        ("run --rm -u 5:6 --group-add 4242 --group-add 7 busybox id -G", "6 7 4242"),
        ("run --rm --domainname example busybox cat /proc/sys/kernel/domainname", "example"),
        ("run --rm --cidfile id --name called busybox true && cat id && rm id", "called"),
        ("run --rm --pull never busybox echo hi", "hi"),
        ("run --rm --cpu-period 50000 --cpu-quota 25000 -m 0 busybox echo hi", "hi"),
    ] {
        host.prints(arguments, expected);
    }
    assert_eq!(host.0.sh("echo in | ./stave run -i --rm busybox cat").ok(), "in\n");
    let terminal =
        "script -qec './stave run -itw /tmp --rm busybox sh -c \"tty; pwd\"' /dev/null < /dev/null";
    let seen = host.0.sh(terminal).ok().replace('\r', "");
    assert_eq!(seen.replace("^@", ""), "/dev/pts/0\n/tmp\n");

    host.prints("run -dp 127.0.0.1:10080:80 --name web busybox httpd -f -p 80 -h /www", "web");
    assert_eq!(
        host.0.fetch("http://127.0.0.1:10080/").trim(),
        host.0.sh("./stave exec web cat /www/index.html").ok().trim()
    );
    host.prints("exec -e A=b -w /tmp -u 33 web sh -c 'echo $A; pwd; id -u'", "b\n/tmp\n33");
    host.0.sh("echo FROM=file > variables").ok();
    host.prints("exec --env-file variables --privileged web sh -c 'echo $FROM; grep ^Seccomp: /proc/self/status | cut -f 2'", "file\n0");
    host.prints("update --restart on-failure --pids-limit 77 web", "web");
    host.prints("inspect -f '{limits}' web", "{\"pids\":{\"limit\":77}}");
    host.prints("exec -d web sh -c 'sleep 0.2; touch /tmp/done; sleep 1000'", "");
    host.0.sh("until ./stave exec web test -e /tmp/done; do sleep 0.05; done").ok();
    host.prints("ps -q", "web");
    host.prints("rm -fv web", "web");
    host.0.assert_as(&before);
}

/// An empty value means the image's, and of two values the last one counts: scripts and aliases rely on it.
#[test]
fn values_that_are_empty_or_given_twice() {
    let host = Host::new();
    host.0.sh("mkdir im && printf 'FROM busybox\\nUSER 7:8\\nWORKDIR /etc\\n' > im/Dockerfile").ok();
    host.stave("build -q -t im im").ok();
    host.prints("run --rm -u '' -w '' im sh -c 'id -u; pwd'", "7\n/etc");
    host.prints("run --rm -w /a -u 1 -m 64m -w /tmp -u 2:3 -m 128m im sh -c 'id -u; pwd'", "2\n/tmp");
    host.prints("run --rm --privileged -P --privileged=false -t --tty=false busybox sh -c 'grep -c 3fffffffff /proc/self/status; test -t 1 || echo plain'", "0\nplain");
    host.prints("run -d --name web im sleep 1000", "web");
    host.fails(
        "exec -v /made:/b web true",
        125,
        "stave: exec takes no flag of run but -d, -i, -t, -e, --env-file, -w, -u, --privileged and --detach-keys",
    );
    host.prints("exec -u '' -w '' web sh -c 'id -u; pwd'", "7\n/etc");
    host.prints("exec -u 1 -u 2 web id -u", "2");
    host.prints("rm -f web", "web");
}

/// Limits, and file systems that are not volumes, with Docker's flags.
#[test]
fn flags_of_the_process_reach_it() {
    let host = Host::new();
    let flags = "--tmpfs /scratch:size=1m --shm-size 2m --ulimit nofile=99:100 --sysctl net.ipv4.ip_default_ttl=33 --oom-score-adj 500";
    let look = "grep -E ' (/scratch|/dev/shm) ' /proc/mounts | grep -o 'size=[0-9]*k' | sort; ulimit -n; \
                cat /proc/sys/net/ipv4/ip_default_ttl /proc/self/oom_score_adj";
    let expected = "size=1024k\nsize=2048k\n99\n33\n500";
    host.prints(&format!("run --rm {flags} busybox sh -c {look:?}"), expected);
}

/// A shell drops variables whose names are not its own, so `stave` reads them elsewhere.
#[test]
fn variables_with_names_that_are_none_of_a_shell() {
    let host = Host::new();
    host.0.sh("printf 'A.B\r\n# c.d\nFILE=1\nnone.such\n1X' > list").ok();
    let run = |flags: &str, set: &str| {
        let environment = "env 'a.b=1 2' 'A-C=x\ny' 'A.B=file' '1X=one' axb=no";
        host.0.sh(&format!("{environment} ./stave run --rm {flags} busybox env | grep -c -xE {set}")).ok()
    };
    assert_eq!(run("-e a.b -e A-C -e no.ne", "'a.b=1 2|A-C=x|y'"), "3\n");
    assert_eq!(run("--env-file list", "'A.B=file|FILE=1|1X=one'"), "3\n");
    assert_eq!(run("-e A.B=mine --env-file list", "'A.B=mine|FILE=1'"), "2\n");
}

/// Tools of two builds may not understand each other, and a build may be half done.
#[test]
fn all_tools_come_from_one_build() {
    let host = Host::new();
    host.0
        .sh("tools=$(dirname \"$(command -v unwind)\")
            mkdir -p tree/scripts tree/target/t/dist own && ln -s \"$tools\" tree/target/t/debug
            cp \"$(readlink stave)\" tree/scripts/stave
            for tool in \"$tools\"/*; do [ -d \"$tool\" ] || ln -s \"$tool\" own/; done; rm own/container-ls
            for place in own tree/target/t/dist; do
                printf '#!/bin/sh\necho %s\n' $place > $place/container-ls && chmod +x $place/container-ls
            done")
        .ok();
    let list = |path: &str| {
        host.0.sh(&format!("PATH={path}/usr/sbin:/usr/bin:/sbin:/bin tree/scripts/stave ps -q")).ok()
    };
    assert_eq!(list(""), "", "the half build is passed over");
    assert_eq!(list("$PWD/own:"), "own\n", "the caller's PATH has all tools");
}

/// Exactly the variables that `docker run --link` of version 20.10 sets.
#[test]
fn links_set_the_variables_of_dockers_links() {
    let host = Host::new();
    host.0.sh("mkdir c && printf 'FROM busybox\nEXPOSE 80 53/udp\nENV X=1\nCMD [\"sleep\",\"1000\"]\n' > c/Dockerfile").ok();
    let id = host.stave("build -q -t db c").ok();
    host.0.sh("./stave build --iidfile id c 2> /dev/null").ok();
    assert_eq!(host.0.sh("cat id").ok(), id.trim(), "as `docker build -q` prints it");
    assert!(id.starts_with("sha256:") && id.len() == 72, "{id}");
    host.prints("run -d --name far busybox sleep 1000", "far");
    host.prints("run -d --name db -e Y=2 --link far:far db", "db");
    let seen = host.stave("run --rm --name web --link db:data-base busybox sh -c 'env | grep ^DATA | sort; tail -n 1 /etc/hosts'").ok();
    let expected = "\
DATA_BASE_ENV_X=1
DATA_BASE_ENV_Y=2
DATA_BASE_NAME=/web/data-base
DATA_BASE_PORT=udp://172.17.0.3:53
DATA_BASE_PORT_53_UDP=udp://172.17.0.3:53
DATA_BASE_PORT_53_UDP_ADDR=172.17.0.3
DATA_BASE_PORT_53_UDP_PORT=53
DATA_BASE_PORT_53_UDP_PROTO=udp
DATA_BASE_PORT_80_TCP=tcp://172.17.0.3:80
DATA_BASE_PORT_80_TCP_ADDR=172.17.0.3
DATA_BASE_PORT_80_TCP_PORT=80
DATA_BASE_PORT_80_TCP_PROTO=tcp
172.17.0.3\tdata-base db
";
    assert_eq!(seen, expected);
    host.prints("rm -f db far", "db\nfar");
}

/// The other container is recreated, and has another address.
#[test]
fn a_link_follows_the_name() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.prints("run -d --name db busybox sleep 1000", "db");
    host.prints("run -d --name web --link db:database --link db busybox sleep 1000", "web");
    host.prints("exec web sh -c 'echo 9.9.9.9 own >> /etc/hosts'", "");
    let hosts = |address: &str| format!("{address}\tdatabase db\n{address}\tdb\n9.9.9.9 own");
    host.prints("exec web tail -n 3 /etc/hosts", &hosts("172.17.0.2"));
    host.prints("rm -f db", "db");
    host.prints("run -d --name db busybox sleep 1000", "db");
    let address_of_db = || {
        let address = "jq -r .network.cni.ips[0].address /run/stave/db.json | cut -d/ -f1";
        host.0.sh(address).ok().trim().to_owned()
    };
    let address = address_of_db();
    assert_ne!(address, "172.17.0.2");
    host.prints("exec web tail -n 3 /etc/hosts", &hosts(&address));
    // A file that the container itself has changed is left alone.
    host.prints("exec web sh -c 'sed s/database/mine/ /etc/hosts > /tmp/new; cat /tmp/new > /etc/hosts'", "");
    host.prints("rm -f db", "db");
    host.prints("run -d --name db busybox sleep 1000", "db");
    let expected = format!("{address}\tmine db\n{}\tdb\n9.9.9.9 own", address_of_db());
    host.prints("exec web tail -n 3 /etc/hosts", &expected);
    host.prints("rm -f db web", "db\nweb");
    host.0.assert_as(&before);
}

/// A lease on a container's file keeps others from opening it for 45 seconds.
#[test]
fn no_container_delays_the_start_of_another() {
    let host = Host::new();
    host.prints("run -d --name db busybox sleep 1000", "db");
    host.prints("run -d --name web --link db:database busybox sleep 1000", "web");
    let hold = "import fcntl, os, signal, sys
file = os.open(sys.argv[1], os.O_RDWR)
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
open('held', 'w').close()
signal.pause()";
    std::fs::write(host.0.directory().join("hold.py"), hold).unwrap();
    let file = "root/containers/web/etc/hosts";
    host.0
        .sh(&format!("python3 hold.py {file} > /dev/null 2>&1 & until [ -e held ]; do sleep 0.02; done"))
        .ok();
    host.0.sh("timeout 20 ./stave run --rm busybox true").ok();
    // Also that to which the link leads.
    host.0.sh("timeout 20 ./stave restart -t 0 db").ok();
    host.prints("rm -f db web", "db\nweb");
}

#[test]
fn an_interrupt_is_for_the_command() {
    let host = Host::new();
    let before = host.0.snapshot();
    let script = r#"trap "echo ended; exit 3" INT; echo begun; while :; do sleep 0.05; done"#;
    for command in ["run --rm --name web", "exec"] {
        if command == "exec" {
            host.prints("run -d --name web busybox sleep 1000", "web");
        }
        let image = if command == "exec" { "web" } else { "busybox" };
        // setsid makes a process group, which gets the signal as from a terminal. env resets signals, because a shell
        // lets background commands ignore them. The output of the previous round must not count for this one.
        let outcome = host.0.sh(&format!(
            "rm -f out; env --default-signal=INT setsid -w sh -c 'exec ./stave {command} {image} sh -c \"$1\"' sh '{script}' > out & \
             until grep -q begun out; do sleep 0.02; done; kill -INT -$(ps -o pgid= -p $(pgrep -n '(ns|container)-exec') | tr -d ' '); wait $!"
        ));
        assert_eq!(outcome.status, 3, "{command}: {}", outcome.stderr);
        assert_eq!(host.0.sh("cat out").ok(), "begun\nended\n", "{command}");
    }
    host.prints("rm -f web", "web");
    host.0.assert_as(&before);
}

/// A signal to `stave` alone is passed on as well.
#[test]
fn a_signal_is_passed_on() {
    let host = Host::new();
    let before = host.0.snapshot();
    let script = r#"trap "echo ended; exit 3" TERM; echo begun; while :; do sleep 0.05; done"#;
    let outcome = host.0.sh(&format!(
        "./stave run --rm --name web busybox sh -c '{script}' > out & until grep -q begun out; do sleep 0.02; done; kill -TERM $!; wait $!"
    ));
    assert_eq!(outcome.status, 3, "{}", outcome.stderr);
    assert_eq!(host.0.sh("cat out").ok(), "begun\nended\n");
    host.0.assert_as(&before);
}

/// Signals as from a terminal, to everything that `stave` has started: nothing is left, whatever these
/// processes were doing.
#[test]
fn signals_at_any_moment_leave_nothing() {
    let host = Host::new();
    let before = host.0.snapshot();
    for signal in ["INT", "TERM", "HUP"] {
        for flag in ["--rm", "-d"] {
            for after in (0..60).step_by(6) {
                let run = format!("exec ./stave run {flag} --name web busybox sleep 0.3");
                host.0.sh(&format!(
                    "env --default-signal=INT setsid -w sh -c '{run}' > out 2> errors & \
                     sleep 0.0{after:02}; kill -{signal} -$(pgrep -of 'stave run') 2> /dev/null; wait $!"
                ));
                // With -d, the container may have been started before the signal came.
                if flag == "-d" && host.0.sh("cat out").ok() == "web\n" {
                    host.prints("rm -f web", "web");
                }
                eprintln!("{signal} {flag} after {after} ms: {}", host.0.sh("cat errors").stdout);
                host.0.assert_as(&before);
            }
        }
    }
}

#[test]
fn in_the_background_it_holds_nobody_up() {
    let host = Host::new();
    let before = host.0.snapshot();
    // A reader of its output sees the end at once.
    assert_eq!(host.0.sh("timeout 5 ./stave run -d --rm --name web busybox sleep 1000 | cat").ok(), "web\n");
    host.0.sh("./stave exec -d web nothing").exits(127);
    host.prints("exec -d web sleep 1001", "");
    host.0.sh("pgrep -xf 'sleep 1001'").ok();
    host.prints("stop -t 0 web", "web");
    host.0.sh("until [ -z \"$(./stave ps -aq)\" ]; do sleep 0.05; done").ok();
    host.0.assert_as(&before);
}

/// A running container, and the commands that replace it.
const WEB: &str = "run -d --network none --name web busybox sleep 1000";
const ANOTHER: &str =
    "(./stave rm -f web; ./stave run -d --network none --name web busybox sleep 1000) > /dev/null";

#[test]
fn an_interrupted_run_takes_back_what_it_made_and_no_other_container() {
    let host = Host::new();
    let before = host.0.snapshot();
    for (tool, meanwhile) in [("union-mount", "true"), ("layer-apply", ANOTHER)] {
        let wait = "touch waits; until [ -e go ]; do sleep 0.02; done";
        host.instead_of(tool, &format!("{wait}; exec {tool} \"$@\""));
        host.0
            .sh(&format!(
                "./stave {WEB} > out & \
             until [ -e waits ] && reads=$(pgrep -x ns-exec); do sleep 0.02; done; {meanwhile}; \
             kill -TERM $!; while [ -e /proc/$reads ]; do sleep 0.02; done; touch go; wait $!; \
             status=$?; cat out; rm waits go out; exit $status"
            ))
            .exits(143);
        if meanwhile == ANOTHER {
            host.runs("web");
            host.prints("rm -f web", "web");
        }
        host.0.assert_as(&before);
    }
}

#[test]
fn at_its_end_a_container_in_the_background_is_removed_and_no_other() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.prints(&WEB.replace("-d", "-d --rm"), "web");
    // The brackets keep pgrep from finding this shell.
    host.0.sh("until pgrep -f 'stave [r]emove-at-end'; do sleep 0.02; done").ok();
    host.0.sh(ANOTHER).ok();
    host.0.sh("while pgrep -f 'stave [r]emove-at-end'; do sleep 0.02; done").ok();
    host.runs("web");
    host.prints("rm -f web", "web");
    host.0.assert_as(&before);
}

#[test]
fn rm_removes_no_container_but_the_one_that_had_ended() {
    let host = Host::new();
    host.prints(WEB, "web");
    host.prints("stop -t 0 web", "web");
    host.instead_of("container-ls", &format!("container-ls \"$@\"; {ANOTHER}"));
    host.stave("rm web").exits(1);
    host.runs("web");
}

#[test]
fn what_it_cannot_do_is_said_and_nothing_is_left() {
    let host = Host::new();
    let before = host.0.snapshot();
    for (arguments, line) in [
        ("run --gpus all busybox", "stave: unknown flag: --gpus"),
        ("run --gpus=all busybox", "stave: unknown flag: --gpus"),
        ("run -y 1g busybox", "stave: unknown flag: -y"),
        ("run -e", "stave: flag needs a value: -e"),
        ("run --rm", "stave: run takes an IMAGE"),
        ("exec web", "stave: exec takes a NAME and a COMMAND"),
        (
            "exec --rm web true",
            "stave: exec takes no flag of run but -d, -i, -t, -e, --env-file, -w, -u, --privileged and --detach-keys",
        ),
        ("logs --details web", "stave: unknown flag: --details"),
        ("logs", "stave: logs takes a NAME"),
        ("stop", "stave: stop takes a NAME"),
        ("stop -x web", "stave: unknown flag: -x"),
        ("run --tty=maybe busybox", "stave: unknown flag: --tty"),
        ("create --detach-keys x busybox", "stave: unknown flag: --detach-keys"),
        ("create --sig-proxy=false busybox", "stave: unknown flag: --sig-proxy"),
        ("run --env-file nowhere busybox", "stave: cannot read --env-file nowhere"),
        ("rm", "stave: rm takes a NAME"),
        ("ps --isolation", "stave: unknown flag: --isolation"),
        ("rename web", "stave: rename takes a NAME and a NEW-NAME"),
        ("start", "stave: start takes a NAME"),
    ] {
        // As with Docker, because 2 may be the command's own status.
        let of_command = ["run", "create", "exec"].contains(&arguments.split(' ').next().unwrap_or_default());
        host.fails(arguments, if of_command { 125 } else { 2 }, line);
    }
    for (arguments, status, line) in [
        ("run --pull never nowhere", 125, "img-inspect: no image \"nowhere\" in the image store"),
        (
            "run -p x:80 busybox true",
            125,
            "portmap: invalid value 'x:80' for '--publish <SPEC>': \"x\" is not a port: 1 to 65535",
        ),
        ("exec -d nobody true", 125, "container-exec: no container \"nobody\" in /run/stave"),
        (
            "run -p '80; touch made' busybox true",
            125,
            "portmap: invalid value '80; touch made' for '--publish <SPEC>': \"80; touch made\" is not a port: 1 to 65535",
        ),
        ("exec nobody true", 125, "container-exec: no container \"nobody\" in /run/stave"),
    ] {
        host.fails(arguments, status, line);
        host.0.assert_as(&before);
    }
    assert!(host.stave("run --help").ok().starts_with("usage: stave build"));
    assert!(host.stave("build --help").ok().starts_with("Build an image"));
}

#[test]
fn names_that_are_none_and_names_in_use() {
    let host = Host::new();
    host.prints("run -d --name a busybox sleep 1000", "a");
    host.fails("run --name a busybox true", 125, "stave: there is a container \"a\"");
    for name in ["a/b", "..", "-x", "a b"] {
        let line = format!(
            "stave: --name: a container's name has letters, digits, _, . and -, a letter or digit first: {name}"
        );
        host.fails(&format!("run --name '{name}' busybox true"), 125, &line);
    }
    let long = "x".repeat(65);
    let line = format!("stave: --name: a container's name has at most 64 characters: {long}");
    host.fails(&format!("run --name {long} busybox true"), 125, &line);
    host.fails("run -e =x busybox true", 125, "stave: a variable has no name: -e '=x'");
    host.fails("run -e '' busybox true", 125, "stave: a variable has no name: -e ''");
    host.fails("run --cidfile none/id busybox true", 125, "stave: cannot write --cidfile none/id");
    for flag in [
        "--cidfile id",
        "--pull missing",
        "--platform linux/amd64",
        "-m 1G",
        "--restart always",
        "--cap-add ALL",
        "-q",
    ] {
        let line = "stave: exec takes no flag of run but -d, -i, -t, -e, --env-file, -w, -u, --privileged and --detach-keys";
        host.fails(&format!("exec {flag} web true"), 125, line);
    }
    host.fails("run --no-such busybox true", 125, "stave: unknown flag: --no-such");
    host.prints("rm -f a", "a");
}

/// The process that waits for the container's end must not take a pause for the end.
#[test]
fn one_that_is_paused_is_not_removed() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.prints("run -d --rm --name web --network none busybox sleep 1000", "web");
    host.prints("pause web", "web");
    let outcome = host.stave("rm web").exits(1);
    assert_eq!(outcome.stderr, "stave: container \"web\" is paused: stop it first, or use rm -f\n");
    host.0.sh("until grep -qsa '^container-wait' /proc/[0-9]*/cmdline; do sleep 0.01; done").ok();
    host.prints("unpause web", "web");
    host.runs("web");
    host.prints("stop -t 0 web", "web");
    host.0.assert_as(&before);
    host.fails(
        "run --rm --restart always busybox true",
        125,
        "stave: --rm removes the container at its end, and --restart starts it again: give one of them",
    );
}
