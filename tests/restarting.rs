//! Containers between an end and the next start, and what is known of starts and ends. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod host;

use host::Host;

/// As with Docker: it counts as running, and what stops a container calls off the restart.
#[test]
fn one_that_waits_for_its_restart_is_listed_and_can_be_killed() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.prints("run -d --network none --name web --restart always busybox false", "web");
    host.until("{state} {restarts}", "restarting 4");
    host.prints("ps -q", "web");
    host.prints("inspect -f '{{.State.Running}} {{.State.Restarting}} {{.State.Pid}}' web", "true true 0");
    host.prints("kill -s HUP web", "web");
    host.0.sh("./stave rm web").exits(1);
    host.prints("kill web", "web");
    host.until("{state}", "exited");
    host.prints("ps -q", "");
    host.prints("rm web", "web");
    host.0.assert_as(&before);
}

/// Until its monitor has written the end, nobody knows that it will not be started again.
#[test]
fn an_end_that_is_not_written_yet_removes_nothing() {
    let host = Host::new();
    host.prints("run -d --network none --name web --restart always busybox sleep 1000", "web");
    let script = "flock -o /run/stave/locks/web.container sh -c '
        pid=$(container-ls --format {pid} web); kill -9 $pid
        while grep -q \"^State:[^Z]*$\" /proc/$pid/status 2> /dev/null; do sleep 0.01; done
        container-ls --format {state} web; ./stave container prune -f'";
    assert_eq!(host.0.sh(script).ok(), "restarting\n");
    host.until("{state} {restarts}", "running 1");
    host.prints("rm -f web", "web");
}

#[test]
fn wait_waits_for_the_end_after_the_last_restart() {
    let host = Host::new();
    let script = "sh -c 'echo run; sleep 0.1; test $(wc -l < /runs) = 2 && exit 7; echo >> /runs; exit 4'";
    host.prints(
        &format!(
            "run -d --network none --name web --restart on-failure:5 busybox sh -c 'touch /runs; exec {}'",
            script.replace('\'', "'\\''")
        ),
        "web",
    );
    host.prints("wait web", "7");
    host.prints("rm web", "web");
    // A stop is an end.
    host.prints("run -d --network none --name web --restart always busybox sleep 1000", "web");
    host.0.sh("./stave wait web > status & until grep -qsa '^container-wait' /proc/[0-9]*/cmdline; do sleep 0.01; done; ./stave stop -t 0 web; wait").ok();
    assert_eq!(host.0.sh("cat status").ok(), "137\n");
    host.prints("rm web", "web");
}

#[test]
fn times_of_a_start_stay_what_they_were() {
    let host = Host::new();
    host.0.sh("container-events --format '{event} {time}' > events 2> errors & echo $! > watches; until grep -q inotify /proc/$!/fdinfo/*; do sleep 0.01; done").ok();
    host.prints("run -d --network none --name web busybox sleep 1000", "web");
    let look = "for i in 1 2 3 4 5; do ./stave inspect -f '{{.State.StartedAt}}' web; container-events --since 1m --until 0s --format '{time}'; done | sort -u";
    let started = host.0.sh(look).ok();
    assert_eq!(started.lines().count(), 1, "{started}");
    host.prints("stop -t 0 web", "web");
    host.prints("inspect -f '{{.State.StartedAt}}' web", started.trim());
    host.0.sh("until grep -q die events; do sleep 0.01; done; kill $(cat watches); cut -d ' ' -f 2 events | sort -c").ok();
    let first = host.0.sh("head -n 2 events | tr '\\n' ' '").ok();
    assert_eq!(first, format!("create {0} start {0} ", started.trim()));
    host.prints("start web", "web");
    let again = host.stave("inspect -f '{{.State.StartedAt}}' web").ok();
    assert!(again > started, "{again} {started}");
    host.prints("rm -f web", "web");
}

/// As with Docker, a container has its ports only while it runs.
#[test]
fn one_that_does_not_run_holds_no_ports() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.stave("run -d --name failed -p 10080:80 busybox nothing").exits(127);
    host.prints("create --name made -p 10080:80 busybox sleep 1000", "made");
    host.prints("run -d --name web -p 10080:80 busybox sleep 1000", "web");
    let refused = host.stave("start made").exits(1);
    assert!(refused.stderr.contains("take the ports of container \"made\" again"), "{}", refused.stderr);
    host.prints("stop -t 0 web", "web");
    host.prints("start made", "made");
    let refused = host.stave("start web").exits(1);
    assert!(refused.stderr.contains("take the ports of container \"web\" again"), "{}", refused.stderr);
    host.prints("rm -f failed made web", "failed\nmade\nweb");
    host.0.assert_as(&before);
}

#[test]
fn a_policy_for_files_that_a_restart_of_the_machine_loses_is_told() {
    let host = Host::new();
    let warned =
        "container-update: warning: a restart of the machine loses what container \"web\" has written";
    for (flags, line) in [("", warned), ("--storage-opt durable=true", "")] {
        host.prints(&format!("run -d --network none {flags} --name web busybox sleep 1000"), "web");
        let told = host.stave("update --restart always web");
        assert!(
            told.stderr.starts_with(line) && told.stderr.is_empty() == line.is_empty(),
            "{}",
            told.stderr
        );
        assert_eq!(told.ok(), "web\n");
        host.prints("rm -f web", "web");
    }
}

/// An empty value is none, as with Docker.
#[test]
fn an_empty_user_is_that_of_the_image() {
    let host = Host::new();
    host.0.sh("mkdir c && printf 'FROM busybox\nUSER 7:8\nWORKDIR /etc\n' > c/Dockerfile").ok();
    host.stave("build -q -t own c").ok();
    host.prints("run --rm --network none -u '' -w '' own sh -c 'id -u; pwd'", "7\n/etc");
    host.prints("run -d --network none --name web own sleep 1000", "web");
    host.prints("exec -u '' web id -u", "7");
    host.prints("rm -f web", "web");
}

#[test]
fn the_last_checks_and_the_reason_of_a_failed_start_are_known() {
    let host = Host::new();
    let check = "--health-cmd 'echo begun; exec sleep 1000' --health-interval 0.02 --health-timeout 0.05 --health-retries 1";
    host.prints(&format!("run -d --network none {check} --name web busybox sleep 1000"), "web");
    let log = "./stave inspect -f '{{json .State.Health.Log}}' web";
    host.0
        .sh(&format!("timeout 20 sh -c \"until [ \\$({log} | jq length) = 5 ]; do sleep 0.05; done\""))
        .ok();
    let shown = host.0.sh(&format!("{log} | jq -c '.[0] | [.ExitCode, .Output, .Start < .End]'")).ok();
    assert_eq!(shown, "[-1,\"health check took longer than 50ms\",true]\n");
    host.prints("rm -f web", "web");
    // A restart, and a start.
    host.0.sh("mkdir volume").ok();
    let run = "run -d --network none --restart always -v ./volume:/data --name web busybox sleep 1000";
    host.prints(run, "web");
    host.0.sh("rmdir volume; kill -9 $(container-ls --format '{pid}' web)").ok();
    host.until("{state} {exitStatus}", "restarting 125");
    let error = host.stave("inspect -f '{{.State.Error}}' web").ok();
    assert!(error.contains("/volume\": No such file or directory"), "{error}");
    host.prints("stop web", "web");
    host.stave("start web").exits(1);
    assert_eq!(host.stave("inspect -f '{{.State.Error}}' web").ok(), error);
    host.0.sh("mkdir volume; ./stave start web").ok();
    host.prints("inspect -f '{{.State.Error}}' web", "");
    host.prints("rm -f web", "web");
}

#[test]
fn events_have_dockers_forms() {
    let host = Host::new();
    host.stave("run --network none --name web busybox false").exits(1);
    let past = |format: &str| host.stave(&format!("events --since 1m --until 0s {format}")).ok();
    let lines = past("");
    let line = lines.lines().last().unwrap();
    assert!(line.ends_with("Z container die web (exitCode=1, image=busybox:latest, name=web)"), "{line}");
    assert_eq!(
        past("--format '{{.Action}} {{.Actor.Attributes.image}}'"),
        "start busybox:latest\ndie busybox:latest\n"
    );
    assert_eq!(past("--format '{event} {exitStatus}'"), "start \ndie 1\n");
    let json: serde_json::Value =
        serde_json::from_str(past("--format json").lines().last().unwrap()).unwrap();
    assert_eq!(
        (&json["Action"], &json["Type"], &json["Actor"]["ID"]),
        (&"die".into(), &"container".into(), &"web".into())
    );
    for command in [
        "events --since 1m --until 0s --format '{bogus}'",
        "ps -a --format '{bogus}'",
        "images --format '{bogus}'",
    ] {
        let refused = host.stave(command).exits(1);
        assert!(
            refused.stderr.contains("--format: there is no member {bogus}\nhint: there are {"),
            "{}",
            refused.stderr
        );
    }
    host.stave("events --format table").exits(2);
    host.prints("rm web", "web");
}

/// What is not carried out is refused, and values may be in the word of their flag, as with Docker.
#[test]
fn words_of_command_lines_are_all_taken_or_refused() {
    let host = Host::new();
    for (line, error) in [
        ("logs nobody web", "stave: logs takes one NAME"),
        ("attach nobody web", "stave: attach takes one NAME"),
        ("logs -fx web", "stave: unknown flag: -x"),
        ("stop -x1 web", "stave: unknown flag: -x"),
    ] {
        host.fails(line, 2, error);
    }
    host.stave("network create front").ok();
    for (flags, error) in [
        ("--network front --network none", "stave: --network none cannot be combined with another network"),
        ("--network host --network front", "stave: --network host cannot be combined with another network"),
        (
            "--network none --network container:x",
            "stave: --network container:x cannot be combined with another network",
        ),
    ] {
        host.fails(&format!("run --rm {flags} busybox true"), 125, error);
    }
    host.prints("run -d --network none --name web busybox sh -c 'echo a; echo b; exec sleep 1000'", "web");
    host.0.sh("until [ \"$(./stave logs -n1 web)\" = b ]; do sleep 0.01; done").ok();
    assert_eq!(host.stave("logs -n=1 -t web").ok().split(' ').nth(1), Some("b\n"));
    host.0.sh("./stave logs -ft web > followed & ./stave stop -t0 web; wait; grep -c ' [ab]$' followed").ok();
    host.prints("rm web", "web");
}
