//! `scripts/stave` with the flags that people who know Docker try first.
#![allow(clippy::unwrap_used)]

use testkit::{Outcome, Sandbox, repository};

/// A host with the image `busybox`, on which `stave` runs the tools of this build.
struct Host(Sandbox);

impl Host {
    fn new() -> Self {
        let sandbox = Sandbox::with_busybox();
        // Through a link, so that it does not find the tools of another build next to itself.
        sandbox.sh(&format!("ln -s {}/scripts/stave stave", repository().display())).ok();
        Self(sandbox)
    }

    #[track_caller]
    fn stave(&self, arguments: &str) -> Outcome {
        self.0.sh(&format!("./stave {arguments}"))
    }

    #[track_caller]
    fn prints(&self, arguments: &str, expected: &str) {
        assert_eq!(self.stave(arguments).ok().trim_end(), expected, "{arguments}");
    }

    /// Replaces the next call of a tool with this script. In it, the tool's name means the tool.
    #[track_caller]
    fn instead_of(&self, tool: &str, script: &str) {
        // `stave` finds it first, because it is in the same directory.
        let script = format!("printf '#!/bin/sh\\nrm {tool}\\n%s\\n' '{script}' > {tool}; chmod +x {tool}");
        self.0.sh(&script).ok();
    }

    /// Asserts that the container's process runs, and that its file system exists.
    #[track_caller]
    fn runs(&self, name: &str) {
        self.prints("ps -q", name);
        self.prints(&format!("exec {name} echo hi"), "hi");
    }

    /// Asserts that it exits with this status, with this first line, and prints nothing.
    #[track_caller]
    fn fails(&self, arguments: &str, status: i32, line: &str) {
        let outcome = self.stave(arguments).exits(status);
        assert_eq!(
            (outcome.stderr.lines().next(), outcome.stdout.as_str()),
            (Some(line), ""),
            "{arguments}: {}",
            outcome.stderr
        );
    }
}

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
    host.prints("exec -d web sh -c 'sleep 0.2; touch /tmp/done; sleep 1000'", "");
    host.0.sh("until ./stave exec web test -e /tmp/done; do sleep 0.05; done").ok();
    host.prints("ps -q", "web");
    host.prints("rm -f web", "web");
    host.0.assert_as(&before);
}

/// Limits and file systems that are no volumes, with Docker's flags.
#[test]
fn flags_of_the_process_reach_it() {
    let host = Host::new();
    let flags = "--tmpfs /scratch:size=1m --shm-size 2m --ulimit nofile=99:100 --sysctl net.ipv4.ip_default_ttl=33 --oom-score-adj 500";
    let look = "grep -E ' (/scratch|/dev/shm) ' /proc/mounts | grep -o 'size=[0-9]*k' | sort; ulimit -n; \
                cat /proc/sys/net/ipv4/ip_default_ttl /proc/self/oom_score_adj";
    let expected = "size=1024k\nsize=2048k\n99\n33\n500";
    host.prints(&format!("run --rm {flags} busybox sh -c {look:?}"), expected);
}

/// What `docker run --link` of version 20.10 sets, to the letter.
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

/// The other container is made anew, and has another address.
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
    // One that the container has changed is its own.
    host.prints("exec web sh -c 'sed s/database/mine/ /etc/hosts > /tmp/new; cat /tmp/new > /etc/hosts'", "");
    host.prints("rm -f db", "db");
    host.prints("run -d --name db busybox sleep 1000", "db");
    let expected = format!("{address}\tmine db\n{}\tdb\n9.9.9.9 own", address_of_db());
    host.prints("exec web tail -n 3 /etc/hosts", &expected);
    host.prints("rm -f db web", "db\nweb");
    host.0.assert_as(&before);
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
             until grep -q begun out; do sleep 0.02; done; kill -INT -$(ps -o pgid= -p $(pgrep -n ns-exec) | tr -d ' '); wait $!"
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

/// As from a terminal, to everything that `stave` has started: whatever these processes were doing, nothing is left.
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
                // With -d, the container may have been left running before the signal came.
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

/// A container that runs, and one that replaces it.
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
    // The brackets keep it from finding this shell.
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
fn logs() {
    let host = Host::new();
    let script = "for i in 1 2 3; do echo $i; done; sleep 0.5; echo 4";
    host.prints(&format!("run -d --name web busybox sh -c '{script}'"), "web");
    assert_eq!(host.stave("logs -f --tail 2 web").ok(), "2\n3\n4\n", "it ends with the container");
    host.prints("logs -n 1 web", "4");
    host.prints("logs --tail=all web", "1\n2\n3\n4");
    host.prints("logs web -f", "1\n2\n3\n4");
    host.prints("rm web", "web");
}

#[test]
fn stop_and_rm_of_several() {
    let host = Host::new();
    let before = host.0.snapshot();
    for name in ["a", "b"] {
        host.prints(&format!("run -d --name {name} busybox sleep 1000"), name);
    }
    host.prints("restart --timeout 0 a", "a");
    let line = "container-ls: no container \"nobody\" in /run/stave";
    let outcome = host.stave("stop --time=0 a nobody b").exits(1);
    let none = "container-stop: container \"nobody\" has no record \"/run/stave/nobody.json\"";
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().next()), ("a\nb\n", Some(none)));
    let outcome = host.stave("rm a nobody b").exits(1);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().next()), ("a\nb\n", Some(line)));
    let outcome = host.stave("rm -f nobody").exits(0);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().next()), ("", Some(line)));
    host.0.assert_as(&before);
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
        ("exec --rm web true", "stave: exec takes no flag of run but -d, -i, -t, -e, -w and -u"),
        ("logs --details web", "stave: unknown flag: --details"),
        ("logs", "stave: logs takes a NAME"),
        ("stop", "stave: stop takes a NAME"),
        ("stop -x web", "stave: unknown flag: -x"),
        ("stop web -t 1", "stave: flags come before the names: -t"),
        ("run --tty=maybe busybox", "stave: unknown flag: --tty"),
        ("run --env-file nowhere busybox", "stave: cannot read --env-file nowhere"),
        ("rm", "stave: rm takes a NAME"),
        ("ps --filter x", "stave: unknown flag: --filter"),
        ("rename web", "stave: unknown command: rename"),
        ("start", "stave: start takes a NAME"),
    ] {
        // As with Docker: 2 may be the command's own.
        let of_command = ["run", "exec"].contains(&arguments.split(' ').next().unwrap_or_default());
        host.fails(arguments, if of_command { 125 } else { 2 }, line);
    }
    for (arguments, status, line) in [
        ("run nowhere", 125, "img-inspect: no image \"nowhere\" in the image store"),
        (
            "run --rm -v named:/x busybox true",
            125,
            "ns-exec: invalid value 'named:/x' for '--volume <SRC:DST[:ro,idmap]>': \"named:/x\": the source of a volume is an \
             absolute path on the host",
        ),
        (
            "run -p x:80 busybox true",
            125,
            "portmap: invalid value 'x:80' for '--publish <SPEC>': \"x\" is not a port: 1 to 65535",
        ),
        (
            "exec -d nobody true",
            125,
            "ns-exec: container \"nobody\" has no record \"/run/stave/nobody.json\"",
        ),
        (
            "run -p '80; touch made' busybox true",
            125,
            "portmap: invalid value '80; touch made' for '--publish <SPEC>': \"80; touch made\" is not a port: 1 to 65535",
        ),
        ("exec nobody true", 125, "ns-exec: container \"nobody\" has no record \"/run/stave/nobody.json\""),
    ] {
        host.fails(arguments, status, line);
        host.0.assert_as(&before);
    }
    assert!(host.stave("run --help").ok().starts_with("usage: stave build"));
    assert!(host.stave("build --help").ok().starts_with("Build an image"));
}

#[test]
fn ports_as_docker_lists_them() {
    let host = Host::new();
    host.0.sh("mkdir web && printf 'FROM busybox\\nEXPOSE 80 53/udp\\n' > web/Dockerfile").ok();
    host.stave("build -q -t web web").ok();
    host.prints("run -d --name one -p 8080:80 -p 127.0.0.1:8053:53/udp busybox sleep 1000", "one");
    host.prints("port one", "80/tcp -> 0.0.0.0:8080\n53/udp -> 127.0.0.1:8053");
    host.prints("port one 80", "0.0.0.0:8080");
    host.prints("port one 53/udp", "127.0.0.1:8053");
    host.fails("port one 53", 1, "stave: port 53/tcp of container \"one\" is not published");
    host.fails("port", 2, "stave: port takes a NAME and a PORT");
    host.prints("run -dP --name two web sleep 1000", "two");
    let ports = host.stave("port two").ok();
    let container: Vec<_> = ports.lines().filter_map(|line| line.split(" -> ").next()).collect();
    assert_eq!(container, ["53/udp", "80/tcp"], "{ports}");
    host.stave("rm -f one two").ok();
    host.prints("run --rm --publish-all=false busybox echo none", "none");
}

#[test]
fn networks_with_names() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.prints("network create --subnet 10.5.0.0/24 front", "front");
    host.prints("network create --subnet 10.6.0.0/24 --internal --label name=x back", "back");
    host.prints("run -d --name db --network back --ip 10.6.0.7 busybox sleep 1000", "db");
    host.prints(
        "run -d --name web --network front --network back -p 8080:80 --link db busybox sleep 1000",
        "web",
    );
    host.prints("exec web ip -o -4 address show dev eth1 scope global | cut -d' ' -f7", "10.6.0.8/24");
    host.prints("exec web tail -n 1 /etc/hosts", "10.6.0.7\tdb");
    host.prints("exec web ip route get 192.0.2.2 | cut -d' ' -f3,5", "10.5.0.1 eth0");
    host.fails("network rm front", 1, "network-rm: network \"front\" is in use by container \"web\"");
    // A running container.
    host.prints("network connect --ip 10.5.0.9 front db", "");
    host.prints(
        "exec db ip -o -4 address show scope global | tr -s ' ' | cut -d' ' -f2,4",
        "eth0 10.6.0.7/24\neth1 10.5.0.9/24",
    );
    host.prints("network disconnect back db", "");
    host.prints(
        "exec db ip -o -4 address show scope global | tr -s ' ' | cut -d' ' -f2,4",
        "eth1 10.5.0.9/24",
    );
    host.fails("network connect none db", 1, "network-ls: no network \"none\"");
    host.fails("network connect front none", 1, "stave: no container \"none\" in /run/stave");
    host.fails("run --network none-such busybox true", 125, "network-ls: no network \"none-such\"");
    host.fails(
        "run --ip 10.5.0.9 busybox true",
        125,
        "stave: --ip, --ip6 and --mac-address need a network with a name: --network NAME",
    );
    host.prints("rm -f db web", "db\nweb");
    host.prints("network rm front back", "front\nback");
    host.0.assert_as(&before);
}

#[test]
fn a_terminal_shows_tables_and_lines() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("netns-add -n --id web > /dev/null").ok();
    let shown = |command: &str| {
        let outcome = sandbox.sh(&format!("script -qec {command:?} /dev/null < /dev/null"));
        outcome.ok().replace('\r', "")
    };
    for (command, start) in [
        ("img-ls", "REPOSITORY   TAG       IMAGE ID"),
        ("img-ls --json", "{\n  \"images\": ["),
        ("img-history busybox", "IMAGE"),
        ("container-ls", "CONTAINER   IMAGE   COMMAND"),
        ("container-ls --json", "[\n  {\n    \"id\": \"web\""),
        ("network-ls", "NETWORK   BRIDGE"),
        ("network-create lan", "lan\n"),
        ("network-rm lan", "lan\n"),
        ("img-inspect busybox", "{\n  \"stave\": 1,"),
    ] {
        let text = shown(command);
        assert!(text.starts_with(start), "{command}: {text}");
    }
    for (command, all) in
        [("img-tag busybox other", ""), ("img-rm other", "Untagged: other:latest\n"), ("unwind web", "web\n")]
    {
        assert_eq!(shown(command), all, "{command}");
    }
    // The message says it all.
    let missing = sandbox.sh("script -qec 'img-inspect missing' /dev/null < /dev/null").exits(1);
    assert_eq!(missing.stdout.matches("missing").count(), 1, "{}", missing.stdout);
    assert!(!missing.stdout.contains("\"stave\""), "{}", missing.stdout);
}

#[test]
fn commands_of_images() {
    let host = Host::new();
    host.prints("tag busybox other:2", "");
    host.prints("images -q --no-trunc other", host.0.sh("img-ls --ids --no-trunc busybox").ok().trim_end());
    assert!(host.stave("images").ok().starts_with("REPOSITORY   TAG "));
    assert!(host.stave("history busybox").ok().starts_with("IMAGE"));
    host.prints("save -o other.tar other:2", "");
    host.prints("rmi other:2", "");
    let loaded = host.stave("load -i other.tar");
    assert_eq!((loaded.stderr.as_str(), loaded.status), ("Loaded image: other:2\n", 0));
    host.fails("imges", 2, "stave: unknown command: imges (did you mean images?)");
    host.fails("zzz", 2, "stave: unknown command: zzz");
}

/// As `docker run` does it.
#[test]
fn an_image_that_is_missing_comes_from_its_registry() {
    let host = Host::new();
    host.0.start_registry(5000, "data", serde_json::json!({}));
    host.0.sh("img-push busybox 127.0.0.1:5000/own/busybox:1 > /dev/null").ok();
    host.fails(
        "run --pull never 127.0.0.1:5000/own/busybox:1 true",
        125,
        "img-inspect: no image \"127.0.0.1:5000/own/busybox:1\" in the image store",
    );
    let pulled = host.stave("run --rm 127.0.0.1:5000/own/busybox:1 echo hi");
    assert_eq!((pulled.stdout.as_str(), pulled.status), ("hi\n", 0), "{}", pulled.stderr);
    assert!(
        pulled.stderr.contains("Status: Downloaded newer image for 127.0.0.1:5000/own/busybox:1"),
        "{}",
        pulled.stderr
    );
    let again = host.stave("run --rm --pull always 127.0.0.1:5000/own/busybox:1 echo hi");
    assert!(again.stderr.contains("Status: Image is up to date for"), "{}", again.stderr);
    let none = host.stave("run --rm 127.0.0.1:5000/none true").exits(125);
    assert!(none.stderr.contains("img-pull: "), "{}", none.stderr);
    host.fails("run --pull no busybox true", 125, "stave: --pull is always, missing or never: no");
}

#[test]
fn names_that_are_none_and_names_in_use() {
    let host = Host::new();
    host.prints("run -d --name a busybox sleep 1000", "a");
    host.fails("run --name a busybox true", 125, "stave: there is a container \"a\"");
    for name in ["a/b", "..", "-x", "a b"] {
        let line = format!(
            "stave: a container's name has letters, digits, _, . and -, a letter or digit first: {name}"
        );
        host.fails(&format!("run --name '{name}' busybox true"), 125, &line);
    }
    host.fails("run -e =x busybox true", 125, "stave: a variable has no name: -e =x");
    host.fails("run --cidfile none/id busybox true", 125, "stave: cannot write --cidfile none/id");
    for flag in ["--cidfile id", "--pull missing", "--platform linux/amd64", "-m 1G", "--restart always"] {
        let line = "stave: exec takes no flag of run but -d, -i, -t, -e, -w and -u";
        host.fails(&format!("exec {flag} web true"), 125, line);
    }
    host.fails("run --no-such busybox true", 125, "stave: unknown flag: --no-such");
    host.prints("rm -f a", "a");
}

#[test]
fn what_is_in_a_container_is_copied_listed_and_kept() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.prints("run -d --name web --network none busybox sh -c 'echo changed > /etc/hostname2; rm /bin/vi; exec sleep 1000'", "web");
    host.0
        .sh("until test -e $STAVE_ROOT/containers/web/upper/etc/hostname2; do sleep 0.01; done; echo x > x")
        .ok();
    host.prints("cp x web:/etc/y", "");
    host.prints("exec web cat /etc/y /etc/hostname2", "x\nchanged");
    host.prints("cp web:/etc/hostname2 - | tar -x -O", "changed");
    assert_eq!(host.stave("diff web").ok(), "C /bin\nD /bin/vi\nC /etc\nA /etc/hostname2\nA /etc/y\n");
    let listed = host.stave("export web | tar -t").ok();
    assert!(listed.lines().any(|line| line == "etc/y") && !listed.contains("proc/self"), "{listed}");
    host.0.sh("touch x.tar && chmod 600 x.tar").ok();
    host.stave("export -o x.tar web").ok();
    assert_eq!(host.0.sh("stat -c %a x.tar").ok(), "600\n");
    let line = "stave: write missing/x.tar: its directory is missing";
    host.fails("export -o missing/x.tar web", 1, line);
    host.0.sh("tar -tf x.tar | grep -qx etc/y && ln -f x.tar before").ok();
    host.stave("export -o x.tar nobody").exits(1);
    host.stave("export -o x.tar").exits(2);
    host.0.sh("cmp x.tar before && test \"$(echo x.tar*)\" = x.tar").ok();
    let digest = host.stave("commit -m 'a change' web changed").ok();
    assert!(digest.starts_with("sha256:"), "{digest}");
    host.prints("run --rm --network none changed cat /etc/y", "x");
    host.prints("inspect -f '{id} {state}' web", "web running");
    host.prints("inspect web web | jq -c '[.[].id]'", "[\"web\",\"web\"]");
    host.fails("inspect -f '{{.Id}}' web", 2, "stave: --format takes no template: {id}, {state}, {ip} and other members of container-ls are replaced");
    let outcome = host.stave("inspect nobody").exits(1);
    assert_eq!(outcome.stdout, "[]\n");
    let events = host.stave("events --since 1h --until 0s -f event=start").ok();
    assert!(events.trim_end().ends_with(" container start web (image=busybox:latest)"), "{events}");
    host.prints("rm -f web", "web");
    host.0.sh("img-rm -q changed").ok();
    host.0.assert_as(&before);
}

/// Whoever waits for its end must not take a pause for it.
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
