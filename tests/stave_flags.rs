//! Flags of `scripts/stave` that Docker users type less often.
#![allow(clippy::unwrap_used)]

mod host;

use host::Host;

#[test]
fn labels_ports_and_times_of_a_container() {
    let host = Host::new();
    let image = "FROM busybox\\nLABEL of=image a=0\\nEXPOSE 80\\nHEALTHCHECK CMD true\\n";
    host.0
        .sh(&format!("mkdir c && printf '{image}' > c/Dockerfile && printf 'b=2\\nempty\\n' > labels"))
        .ok();
    host.stave("build -q -t im c").ok();
    let flags = "-l a=1 --label-file labels --expose 81-82/udp --stop-timeout 0 --health-cmd 'echo ok' --health-interval 1h";
    host.prints(&format!("run -d --name web -P {flags} im sleep 1000"), "web");
    host.prints("run -d --name other busybox sleep 1000", "other");
    host.prints("ps -q --filter label=a=1", "web");
    host.prints("ps -aqf label=b=2", "web");
    host.prints("ps -q --filter label=a=0", "");
    host.prints("inspect -f '{{json .Config.Labels}}' web", r#"{"a":"1","b":"2","empty":"","of":"image"}"#);
    host.prints("inspect -f '{{json .Config.ExposedPorts}}' web", r#"{"80/tcp":{},"81/udp":{},"82/udp":{}}"#);
    let published = host.stave("port web").ok();
    assert!(published.contains("81/udp -> ") && published.contains("80/tcp -> "), "{published}");
    // It ignores SIGTERM, as the first process of its pid namespace.
    host.0.sh("timeout 5 ./stave stop web").ok();
    let (shown, check) = (
        "{{.Config.Healthcheck.Test}} {{.Config.Healthcheck.Interval}}",
        "[CMD-SHELL echo ok] 3600000000000",
    );
    host.prints(&format!("inspect -f '{shown}' web"), check);
    host.stave("commit web made").ok();
    host.prints(&format!("inspect -f '{shown}' made"), check);
    host.prints("inspect -f '{{.Config.Labels.b}}' made", "2");
    host.prints("run -d --name none --no-healthcheck im sleep 1000", "none");
    host.prints("inspect -f '{{json .Config.Healthcheck.Test}}' none", r#"["NONE"]"#);
    host.stave("commit none unchecked").ok();
    host.prints("run -d --name again unchecked sleep 1000", "again");
    host.prints("inspect -f '{{.State.Health}}' again", "<no value>");
}

#[test]
fn volumes_of_another_container() {
    let host = Host::new();
    host.0.sh("mkdir $PWD/dir && echo host > $PWD/dir/f").ok();
    host.prints("run -d --name one -v db:/db -v $PWD/dir:/dir:ro --tmpfs /t busybox sh -c 'echo db > /db/f; sleep 1000'", "one");
    host.0.sh("until ./stave exec one test -s /db/f; do sleep 0.01; done").ok();
    host.prints("run --rm --volumes-from one busybox cat /db/f /dir/f", "db\nhost");
    let touch = host.stave("run --rm --volumes-from one busybox touch /dir/x").exits(1);
    assert!(touch.stderr.contains("Read-only file system"), "{}", touch.stderr);
    let touch = host.stave("run --rm --volumes-from one:ro busybox touch /db/x").exits(1);
    assert!(touch.stderr.contains("Read-only file system"), "{}", touch.stderr);
    // A volume of its own counts more, wherever it is written.
    host.0.sh("mkdir $PWD/own && echo own > $PWD/own/f").ok();
    for flags in ["--volumes-from one -v $PWD/own:/dir/", "-v $PWD/own:/dir --volumes-from one"] {
        host.prints(&format!("run --rm {flags} busybox cat /db/f /dir/f"), "db\nown");
    }
    host.prints("run -d --name two -v other:/db busybox sh -c 'echo two > /db/f; sleep 1000'", "two");
    host.0.sh("until ./stave exec two test -s /db/f; do sleep 0.01; done").ok();
    host.prints("run --rm --volumes-from one --volumes-from two busybox cat /db/f /dir/f", "two\nhost");
    let line = "container-ls: no container \"nobody\" in /run/stave";
    host.fails("run --volumes-from nobody busybox true", 125, line);
    host.fails(
        "run --volumes-from one:x busybox true",
        125,
        "stave: --volumes-from is NAME, NAME:ro or NAME:rw: one:x",
    );
}

#[test]
fn mounts_of_a_volume_propagate() {
    let host = Host::new();
    host.0.sh("mkdir -p $PWD/dir/sub && mount -t tmpfs t $PWD/dir && mkdir $PWD/dir/sub && mount --make-rshared $PWD/dir").ok();
    host.prints("run -d --name web -v $PWD/dir:/dir:ro,rslave busybox sleep 1000", "web");
    host.0.sh("mount -t tmpfs t $PWD/dir/sub && touch $PWD/dir/sub/later").ok();
    host.prints("exec web ls /dir/sub", "later");
    host.prints("inspect -f '{{range .Mounts}}{{.Propagation}} {{.RW}}{{end}}' web", "rslave false");
    host.fails(
        "run -v db:/db:rslave busybox true",
        125,
        "stave: -v: only a directory of the host has mounts that propagate: db:/db:rslave",
    );
    host.fails(
        "run -v /d:/d:rslave,nocopy busybox true",
        125,
        "stave: -v with a propagation takes no other options than ro and rw: /d:/d:rslave,nocopy",
    );
    host.0.sh("umount $PWD/dir/sub").ok();
}

#[test]
fn a_container_that_is_started_again_can_be_attached_to() {
    let host = Host::new();
    let script = "echo out; echo err >&2; if [ -s /seen ]; then head -n 1; exit 3; fi; echo x > /seen";
    host.prints(&format!("run -i --name web busybox sh -c '{script}'"), "out");
    let outcome = host.0.sh("echo typed | ./stave start -ai web").exits(3);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\ntyped\n", "err\n"));
    // Every byte of a short command.
    host.prints("create --name short busybox echo hello", "short");
    for _ in 0..5 {
        host.prints("start -a short", "hello");
    }
    host.fails("start -a web short", 2, "stave: start -a takes one NAME");
    host.fails("start --detach-keys ctrl-x web", 2, "stave: start takes --detach-keys with -a only");
    // Signals reach the process.
    host.prints(
        "create --name trap busybox sh -c 'trap \"exit 7\" TERM; echo ready; while :; do sleep 0.05; done'",
        "trap",
    );
    let script = "./stave start -a trap > out & until grep -q ready out; do sleep 0.01; done; \
                  kill -TERM $!; wait $!";
    host.0.sh(script).exits(7);
}

#[test]
fn how_much_of_a_log_is_kept() {
    let host = Host::new();
    let script =
        "for i in $(seq 10 99); do echo 123456789012345678901234567890123456789$i; sleep 0.002; done";
    let run = |name: &str, flags: &str| {
        host.prints(&format!("run -d --name {name} {flags} busybox sh -c '{script}'"), name);
        host.prints(&format!("wait {name}"), "0");
        host.stave(&format!("logs {name}")).ok().lines().map(|line| line[39..].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(run("all", "").len(), 90);
    let some = run("some", "--log-opt max-size=500 --log-opt max-file=3");
    assert_eq!(some, (100 - some.len()..100).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!((20..40).contains(&some.len()), "{some:?}");
    assert!(run("few", "--log-opt max-size=500 --log-opt max-file=1").len() <= 11);
    host.prints(
        "inspect -f '{{json .HostConfig.LogConfig.Config}}' some",
        r#"{"max-file":"3","max-size":"500"}"#,
    );
    host.prints("rm some", "some");
    host.0.sh("! ls $STAVE_ROOT/containers/some").ok();
    let refused = host.stave("run --log-opt compress=true busybox true").exits(125);
    assert!(refused.stderr.contains("there are max-size=SIZE and max-file=N"), "{}", refused.stderr);
}

#[test]
fn annotations_of_a_container() {
    let host = Host::new();
    host.prints("create --name web --annotation com.example/a=b=c --annotation empty busybox true", "web");
    host.prints("inspect -f '{{json .HostConfig.Annotations}}' web", r#"{"com.example/a":"b=c","empty":""}"#);
    let refused = host.stave("run --annotation stave.init=true busybox true").exits(125);
    assert!(refused.stderr.contains("stave.init has a meaning of its own here"), "{}", refused.stderr);
}

#[test]
fn the_end_of_what_is_typed_reaches_the_process() {
    let host = Host::new();
    host.prints("create -i --name sum busybox md5sum", "sum");
    for text in ["one", "two"] {
        let sum = host.0.sh(&format!("echo {text} | md5sum")).ok();
        assert_eq!(host.0.sh(&format!("echo {text} | timeout 20 ./stave start -ai sum")).ok(), sum);
    }
    // It is that of one client: others may come, and type more.
    host.prints("run -d -i --name open busybox sh -c 'read a; read b; echo $a $b'", "open");
    host.0.sh("echo one | ./stave attach open & echo two | ./stave attach open > out; wait").ok();
    let both = host.0.sh("cat out").ok();
    assert!(["one two\n", "two one\n"].contains(&both.as_str()), "{both:?}");
}

#[test]
fn a_container_in_the_foreground_can_be_left() {
    let host = Host::new();
    let typed = "> out; { echo first; until grep -q first out; do sleep 0.05; done; printf xy; }";
    let left = format!(
        "{typed} | timeout 30 ./stave run -i --name web --detach-keys x,y busybox sh -c 'read a; echo $a; sleep 1000' > out"
    );
    assert_eq!(host.0.sh(&left).exits(0).stderr, "container-start: detached from \"web\"\n");
    host.prints("ps --format '{{.Names}} {{.State}}'", "web running");
    host.prints("rm -f web", "web");
    // One with --rm is removed at its end.
    let left = format!(
        "{typed} | timeout 30 ./stave run --rm -i --name web --detach-keys x,y busybox sh -c 'read a; echo $a; sleep 5' > out"
    );
    host.0.sh(&left).exits(0);
    host.prints("ps -q", "web");
    // Until it is left, it is as without the flag.
    host.0
        .sh("echo in | ./stave run --rm -i --name short --detach-keys x busybox sh -c 'cat; exit 3'")
        .exits(3);
    host.0.sh("./stave run --rm --name missing --detach-keys x busybox nosuch").exits(127);
    host.0.sh("for i in $(seq 100); do [ \"$(./stave ps -aq)\" ] || exit 0; sleep 0.1; done; exit 1").ok();
}

#[test]
fn signals_that_are_not_for_the_process() {
    let host = Host::new();
    let command = "sh -c 'trap \"exit 7\" INT TERM; echo ready; while :; do sleep 0.05; done'";
    let client = |command: &str, signal: &str| {
        format!(
            "./stave {command} > out & until grep -q ready out; do sleep 0.01; done; kill -{signal} $!; wait $!"
        )
    };
    // The client ends, and the container runs on.
    host.0.sh(&client(&format!("run --name web --sig-proxy=false busybox {command}"), "USR1")).exits(138);
    host.prints("ps --format '{{.Names}} {{.State}}'", "web running");
    let attach = "./stave attach --no-stdin --sig-proxy=false web & sleep 0.5; kill -TERM $!; wait $!";
    host.0.sh(attach).exits(143);
    host.prints("ps --format '{{.Names}} {{.State}}'", "web running");
    // By default, they reach the process.
    host.0.sh("./stave attach --sig-proxy web < /dev/null & sleep 0.5; kill -TERM $!; wait $!").exits(7);
    host.prints("wait web", "7");
    host.0.sh(&client(&format!("run --name other --sig-proxy=true busybox {command}"), "TERM")).exits(7);
    // Without a signal, it is as ever; with --rm, the container is removed at its own end.
    host.0.sh("./stave run --rm --name short --sig-proxy=false busybox sh -c 'exit 3'").exits(3);
    let line = "run --rm --name gone --sig-proxy=false busybox sh -c 'echo ready; sleep 3'";
    host.0.sh(&client(line, "TERM")).exits(143);
    host.prints("ps -q", "gone");
    let script = "for i in $(seq 200); do ./stave ps -aq | grep -q gone || exit 0; sleep 0.1; done; exit 1";
    host.0.sh(script).ok();
    let line = "stave: exec takes no flag of run but -d, -i, -t, -e, --env-file, -w, -u, --privileged and --detach-keys";
    host.fails("exec --sig-proxy=false web true", 125, line);
}

#[test]
fn lists_and_numbers() {
    let host = Host::new();
    for name in ["k", "m", "l"] {
        host.prints(
            &format!("run -d --name {name} busybox sh -c 'head -c 3000 /dev/zero > /f; sleep 1000'"),
            name,
        );
    }
    host.0
        .sh("until [ $(./stave exec l stat -c %s /f) = 3000 ]; do sleep 0.01; done; ./stave stop -t 0 m")
        .ok();
    host.prints("ps -n 2 -q", "l\nm");
    host.prints("ps -lq", "l");
    host.prints("ps -ql --filter name=m", "m");
    host.prints("ps -n -1 -q", "k\nl");
    let sizes = host.stave("ps -s --format '{{.Names}} {{.Size}}' -f name=l").ok();
    assert!(sizes.starts_with("l 3kB (virtual "), "{sizes}");
    assert!(host.stave("ps -s").ok().contains("SIZE"), "a column");
    host.fails("images -l", 2, "stave: unknown flag: --latest");
    host.prints("inspect -s -f '{{.SizeRw}}' l", "3000");
    host.prints("inspect --type=container -f '{{.Name}}' l", "/l");
    let outcome = host.stave("inspect --type image l").exits(1);
    assert_eq!(outcome.stderr, "stave: there is no container and no image \"l\"\n");
    let outcome = host.stave("inspect --type container busybox").exits(1);
    assert_eq!(outcome.stderr, "container-ls: no container \"busybox\" in /run/stave\n");
    host.fails("inspect --type volume l", 2, "stave: inspect --type is container or image: volume");
    let stats =
        host.stave("stats -a --no-stream --no-trunc --format '{{.Name}} {{.PIDs}} {{.BlockIO}}'").ok();
    assert_eq!(stats, "k 1 --\nl 1 --\nm -- --\n");
    host.prints("stats --no-stream --format '{{.Name}}'", "k\nl");
    host.fails("stats --bogus", 2, "stave: unknown flag: --bogus");
}

#[test]
fn what_run_takes_and_refuses() {
    let host = Host::new();
    host.prints("run --name quiet --log-driver none busybox echo hi", "hi");
    let line = "container-logs: container \"quiet\" has no log";
    assert_eq!(host.stave("logs quiet").exits(1).stderr.lines().next(), Some(line));
    host.prints("run --name told --log-driver json-file -a stdout -a STDERR busybox echo hi", "hi");
    host.prints("logs told", "hi");
    host.fails(
        "run --log-driver syslog busybox true",
        125,
        "stave: --log-driver is json-file, local or none: syslog",
    );
    host.fails(
        "run -a stdout busybox true",
        125,
        "stave: -a: standard output and standard error are always attached both: give both, or none",
    );
    host.fails(
        "run -d -a stdout -a stderr busybox true",
        125,
        "stave: -a attaches to the container, and -d does not: give one of them",
    );
    host.fails("exec -a stdin told true", 125, "stave: exec takes no flag of run but -d, -i, -t, -e, --env-file, -w, -u, --privileged and --detach-keys");
    // The full name of the host, as mail servers look it up.
    host.prints("run --rm -h web --domainname example.org busybox sh -c 'tail -n 1 /etc/hosts | cut -f 2; hostname -f'", "web.example.org web\nweb.example.org");
    // A node in a volume would stay on the host.
    host.0.sh("mkdir $PWD/dir").ok();
    host.fails(
        "run --rm -v $PWD/dir:/vol --device /dev/null:/vol/x busybox true",
        125,
        "ns-exec: create device \"/vol/x\": its directory is one of the host, where it would stay",
    );
    host.0.sh("[ -z \"$(ls $PWD/dir)\" ]").ok();
    host.prints("run --rm --tmpfs /t --device /dev/null:/t/x --device /dev/null:/o/y busybox sh -c 'echo > /t/x; echo > /o/y; echo ok'", "ok");
    // A home that was given is no user's.
    host.prints("run -d --name home -e HOME=/x -u 1000 busybox sleep 1000", "home");
    host.prints("exec -u root home sh -c 'echo $HOME'", "/x");
    host.prints("run -d --name nobody -u 1000 busybox sleep 1000", "nobody");
    host.prints("exec -u root nobody sh -c 'echo $HOME'", "/root");
    host.fails(
        "run -e X=$(printf '\\377') busybox true",
        125,
        "ns-exec: set variable \"X\": it is not UTF-8",
    );
}

#[test]
fn health_checks_use_the_images_shell_and_leave_nothing() {
    let host = Host::new();
    let image = "FROM busybox\\nRUN printf \"#!/bin/sh\\\\nexit 0\\\\n\" > /bin/mysh && chmod +x /bin/mysh\\nSHELL [\"/bin/mysh\", \"-x\"]\\nHEALTHCHECK --interval=20ms CMD exit 7\\n";
    host.0.sh(&format!("mkdir c && printf '%b' '{image}' > c/Dockerfile")).ok();
    host.stave("build -q -t im c").ok();
    host.prints("run -d --name web im sleep 1000", "web");
    host.until("{health}", "healthy");
    host.prints("rm -f web", "web");
    let flags =
        "--health-cmd 'sleep 500; true' --health-interval 10ms --health-timeout 100ms --health-retries 2";
    host.prints(&format!("run -d --name web {flags} busybox sleep 1000"), "web");
    host.until("{health}", "unhealthy");
    let left = host.0.sh("container-top --format '{command}' web | grep -c 'sleep 500'").stdout;
    assert!(left.trim().parse::<u32>().unwrap() <= 2, "only those of the running check: {left}");
}

/// However often it is rotated meanwhile.
#[test]
fn a_log_is_followed_over_its_rotations() {
    let host = Host::new();
    let script =
        "n=0; while [ $n -lt 400 ]; do n=$((n + 1)); echo $n; [ $((n % 20)) != 0 ] || sleep 0.05; done";
    for (files, seen) in [("1", "tail -n 1 followed | grep -x 400"), ("20", "seq 400 | cmp - followed")] {
        let limits = format!("--log-opt max-size=200 --log-opt max-file={files}");
        host.0
            .sh(&format!("./stave run -d --name web --network none {limits} busybox sh -c '{script}'"))
            .ok();
        host.0.sh("./stave logs -f web > followed").ok();
        host.0.sh(seen).ok();
        host.prints("rm -f web", "web");
    }
}

#[test]
fn networks_that_are_not_there_or_not_meant() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.prints("network create --subnet 10.5.0.0/24 front", "front");
    host.prints("run -d --name db --network front busybox sleep 1000", "db");
    host.fails(
        "network create host",
        2,
        "network-create: invalid value 'host' for '<NAME>': the name is reserved: `stave run --network` gives it another meaning",
    );
    host.fails("network connect none db", 1, "network-ls: no network \"none\"");
    host.fails("network connect front none", 1, "stave: no container \"none\" in /run/stave");
    host.fails("network disconnect front none", 1, "stave: no container \"none\" in /run/stave");
    host.fails("network disconnect none db", 1, "stave: container \"db\" is not on network \"none\"");
    host.fails("run --network none-such busybox true", 125, "network-ls: no network \"none-such\"");
    host.fails(
        "run --ip 10.5.0.9 busybox true",
        125,
        "stave: --ip, --ip6, --mac-address and --network-alias need a network with a name: --network NAME",
    );
    host.prints("network create --subnet 10.6.0.0/24 back", "back");
    host.prints("network inspect front back | jq -r '.[].name'", "front\nback");
    host.prints("network inspect -f '{{.Name}}' front", "front");
    host.fails("network inspect nowhere", 1, "network-ls: no network \"nowhere\"");
    host.prints("network disconnect -f front db", "");
    host.prints("rm -f db", "db");
    // A missing network is no failure with -f.
    host.prints("network rm -f nowhere front", "front");
    host.prints("network rm back", "back");
    host.0.assert_as(&before);
}
