//! `stave run` without `-d`: the container has a log and a monitor all the same. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod host;

use host::Host;

const RUN: &str = "run --network none --name web";

#[test]
fn its_output_is_logged_and_it_can_be_started_again() {
    let host = Host::new();
    let before = host.0.snapshot();
    let outcome = host.stave(&format!("{RUN} busybox sh -c 'echo out; echo err >&2; exit 3'")).exits(3);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    let logs = host.stave("logs web");
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"));
    host.prints("update --restart on-failure:1 web", "web");
    host.prints("start web", "web");
    host.until("{state} {restarts}", "exited 1");
    assert_eq!(host.stave("logs web").stdout, "out\nout\nout\n");
    host.prints("rm web", "web");
    // A running one is restarted in the background, and whoever started it gets its end.
    host.0.sh(&format!("./stave {RUN} busybox sleep 1000 > /dev/null 2>&1 & echo $! > started")).ok();
    host.until("{state}", "running");
    host.prints("restart -t 0 web", "web");
    host.runs("web");
    host.0.sh("! kill -0 $(cat started) || exec tail -f --pid=$(cat started) /dev/null").ok();
    host.prints("rm -f web", "web");
    host.0.assert_as(&before);
}

/// One that cannot be started again keeps running.
#[test]
fn a_restart_looks_before_it_stops() {
    let host = Host::new();
    host.prints("run -d --network none --name other busybox sleep 1000", "other");
    host.prints("run -d --network container:other --name web --restart always busybox sleep 1000", "web");
    host.prints("rm -f other", "other");
    host.prints("run -d --network none --name next busybox sleep 1000", "next");
    let outcome = host.stave("restart -t 0 web next").exits(1);
    assert!(outcome.stderr.starts_with("container-start: find \"/proc/"), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "next\n");
    assert_eq!(host.0.sh("container-ls --format '{state}' web next").ok(), "running\nrunning\n");
    host.prints("rm -f web next", "web\nnext");
}

/// `ns-exec` alone keeps no log and makes no streams. `container-start` adds both.
#[test]
fn one_without_a_monitor_gets_one_when_it_is_started_again() {
    let host = Host::new();
    let before = host.0.snapshot();
    let pipe = "layer-apply --id web < busybox.json | union-mount > ready.json && ns-exec --from ready.json --document web.json";
    assert_eq!(host.0.sh(&format!("{pipe} -- echo hi")).ok(), "hi\n");
    host.0.sh("container-logs web").exits(1);
    host.0.sh("container-update --restart on-failure:2 web && container-start web").ok();
    host.0.sh("container-wait web").ok();
    assert_eq!(host.0.sh("container-logs web").ok(), "hi\n");
    host.0.sh("container-start web && container-wait web").ok();
    assert_eq!(host.0.sh("container-logs web").ok(), "hi\nhi\n");
    host.0.sh("unwind < web.json > after.json").ok();
    host.0.assert_as(&before);
    // Nobody would do what the policy says.
    host.0.sh(&format!("({pipe} -- sleep 1000) > /dev/null 2>&1 &")).ok();
    host.until("{state}", "running");
    let refused = host.0.sh("container-update --restart always web").exits(1);
    let line = "container-update: update container \"web\": it runs in the foreground, and nothing would start it again\n";
    assert!(refused.stderr.starts_with(line), "{}", refused.stderr);
    host.0.sh("unwind web").ok();
    host.0.assert_as(&before);
}

#[test]
fn the_callers_streams_get_what_the_process_writes_to_its_own() {
    let host = Host::new();
    let before = host.0.snapshot();
    let run = format!("./stave {RUN} --rm busybox");
    // The order, where both go to one file.
    let script = "for i in 1 2 3 4 5; do echo o; echo e >&2; done";
    assert_eq!(host.0.sh(&format!("{run} sh -c '{script}' 2>&1")).ok(), "o\ne\n".repeat(5));
    // More than the pipes hold, to a slow reader.
    let written = host.0.sh(&format!("{run} sh -c 'seq 200000' | (sleep 0.2; md5sum)")).ok();
    assert_eq!(written, host.0.sh("seq 200000 | md5sum").ok());
    // Without a reader the process cannot write.
    let gone = host.0.sh(&format!("timeout 20 {run} yes 2> errors | head -n 1; cat errors")).ok();
    assert_eq!(gone, "y\nyes: (null): Broken pipe\n");
    // Lost output is no success.
    let full = host.0.sh(&format!("{run} seq 10 > /dev/full")).exits(1);
    assert_eq!(full.stderr, "ns-exec: write standard output: No space left on device\n");
    // A terminal.
    let terminal = format!(
        "script -qec \"./stave {RUN} -t busybox sh -c 'tty; test -t 2 && read line && echo got \\$line'\" /dev/null"
    );
    let seen = host.0.sh(&format!("echo typed | {terminal}")).ok().replace('\r', "");
    // The terminals show what is typed, too.
    assert!(seen.contains("/dev/pts/0\n") && seen.ends_with("got typed\n"), "{seen:?}");
    let logged = host.stave("logs web").ok().replace('\r', "");
    assert!(logged.contains("/dev/pts/0\n") && logged.ends_with("got typed\n"), "{logged:?}");
    host.prints("rm web", "web");
    host.0.assert_as(&before);
}

#[test]
fn policies_checks_and_clients_work_in_the_foreground() {
    let host = Host::new();
    let before = host.0.snapshot();
    // As with Docker, the caller gets the first end, and the restarts are in the background.
    let run = format!("{RUN} --restart on-failure:2 busybox sh -c 'echo run; exit 4'");
    assert_eq!(host.stave(&run).exits(4).stdout, "run\n");
    host.until("{state} {restarts}", "exited 2");
    assert_eq!(host.stave("logs web").ok(), "run\nrun\nrun\n");
    host.prints("rm web", "web");
    let check = "--health-cmd true --health-interval 0.05";
    let script = "until test -e /go; do echo tick; sleep 0.05; done; echo went; exit 5";
    host.0
        .sh(&format!(
            "(./stave {RUN} {check} busybox sh -c '{script}' > out; echo $? > status) > /dev/null 2>&1 &"
        ))
        .ok();
    host.until("{health}", "healthy");
    host.0.sh("(./stave attach web < /dev/null > attached; echo $? >> attached) > /dev/null 2>&1 & until [ -s attached ]; do sleep 0.01; done; ./stave exec web touch /go; wait").ok();
    host.0.sh("until [ -s status ]; do sleep 0.01; done").ok();
    assert_eq!(host.0.sh("cat out status attached | grep -v tick").ok(), "went\n5\nwent\n5\n");
    host.prints("rm web", "web");
    host.0.assert_as(&before);
}

/// As with a monitor in the background, the next tool starts another one.
#[test]
fn a_killed_caller_leaves_the_container_alone() {
    let host = Host::new();
    let script = "touch /began; until test -e /go; do sleep 0.01; done; echo went; exec sleep 1000";
    host.0.sh(&format!("./stave {RUN} busybox sh -c '{script}' > out 2>&1 &")).ok();
    // Until the command runs, it ends with the one that starts it.
    host.0.sh("until [ -e root/containers/web/upper/began ]; do sleep 0.01; done").ok();
    host.0
        .sh("until kill -9 $(pgrep -x ns-exec); do sleep 0.01; done; until [ -s out ]; do sleep 0.01; done")
        .ok();
    host.runs("web");
    host.prints("exec web touch /go", "");
    host.0.sh("until [ \"$(./stave logs web)\" = went ]; do sleep 0.01; done").ok();
    host.prints("rm -f web", "web");
}

/// `/dev/stdin` and its like lead to files of others, and to sockets.
#[test]
fn streams_can_be_opened_by_name_whatever_they_are() {
    let host = Host::new();
    host.prints("run -d --network none --name web busybox sleep 1000", "web");
    host.0.sh("umask 077; printf 'in\n' > secret").ok();
    let names = "cat /dev/stdin; echo a > /dev/stdout; echo e > /dev/stderr; echo b";
    for command in ["exec -i -u 7 web", "run --rm -i -u 7 --network none busybox"] {
        host.0.sh(&format!("./stave {command} sh -c '{names}' < secret > file 2> errors")).ok();
        assert_eq!(host.0.sh("cat file errors").ok(), "in\na\nb\ne\n", "{command}");
    }
    let join = format!("container-exec -u 7 web sh -c '{names}' > file 2>&1");
    host.0.sh(&join).ok();
    assert_eq!(host.0.sh("cat file").ok(), "a\ne\nb\n", "the order is kept");
    // With socat, all streams are one socket.
    for command in ["exec -i web", "exec -i -u 7 web", "run --rm -i --network none busybox"] {
        let script = format!(
            "#!/bin/sh\nexec ./stave {command} sh -c 'cat /dev/stdin; echo a > /dev/stdout; echo b'\n"
        );
        std::fs::write(host.0.directory().join("script"), script).unwrap();
        let told = host.0.sh("chmod +x script; printf 'in\n' | timeout 20 socat -t 10 - EXEC:./script").ok();
        assert_eq!(told, "in\na\nb\n", "{command}");
    }
    host.prints("rm -f web", "web");
}

/// Root in a container could change the mode of the caller's file, empty it, and write to what was opened for reading.
#[test]
fn a_process_never_has_a_file_of_the_caller_itself() {
    let host = Host::new();
    host.prints("run -d --network none --name web busybox sleep 1000", "web");
    let attack = "cat; chmod 4777 /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2; \
        : > /proc/self/fd/1; echo evil > /proc/self/fd/0; chown 7 /proc/self/fd/1; echo end";
    let pipe = "layer-apply --id one < busybox.json | union-mount | ns-exec -i --document one.json --";
    for command in ["./stave exec -i web", "./stave run --rm -i --network none busybox", pipe] {
        host.0.sh("umask 022; echo in > read; echo before > out; : > errors").ok();
        // The input of a pipe of tools is the document.
        let input = if command == pipe { "" } else { "< read" };
        host.0.sh(&format!("{command} sh -c '{attack}' {input} >> out 2>> errors")).ok();
        let seen = host.0.sh("cat read; head -n 1 out; tail -n 1 out; stat -c '%a %u' read out errors").ok();
        assert_eq!(seen, "in\nbefore\nend\n644 0\n644 0\n644 0\n", "{command}");
    }
    host.prints("rm -f web", "web");
    host.0.sh("unwind one").ok();
}

/// A process that stayed with the terminal could read what is typed there after the command.
#[test]
fn only_a_terminal_of_its_own_is_given_to_a_process() {
    let host = Host::new();
    host.prints("run -d --network none --name web busybox sleep 1000", "web");
    let script = "for n in 0 1 2; do test -t $n && echo terminal || echo none; done";
    for (command, seen) in [
        ("exec -i web", "none\nnone\nnone\n"),
        ("exec web", "none\nnone\nnone\n"),
        ("run --rm -i --network none busybox", "none\nnone\nnone\n"),
        ("exec -i -t web", "terminal\nterminal\nterminal\n"),
    ] {
        let run = format!("#!/bin/sh\nexec ./stave {command} sh -c '{script}'\n");
        std::fs::write(host.0.directory().join("script"), run).unwrap();
        let told =
            host.0.sh("chmod +x script; timeout 20 socat -t 10 - EXEC:./script,pty,raw,echo=0,stderr").ok();
        assert_eq!(told.replace('\r', ""), seen, "{command}");
    }
    host.prints("rm -f web", "web");
}

#[test]
fn output_that_does_not_fit_is_told() {
    let host = Host::new();
    host.0.sh("mkdir small && mount -t tmpfs -o size=16k small small").ok();
    host.prints("run -d --network none --name web busybox sleep 1000", "web");
    host.0.sh("head -c 100000 /dev/zero > small/full").exits(1);
    // One write, so that the process does not live to be told that nobody reads any more.
    let told = host.0.sh("container-exec web echo x > small/out");
    assert_eq!(
        (told.status, told.stderr.as_str()),
        (1, "container-exec: write the output of the process: No space left on device\n")
    );
    host.prints("rm -f web", "web");
}

/// Root in a container could change the mode of the host's device.
#[test]
fn a_process_has_the_null_device_of_its_container() {
    let host = Host::new();
    host.0.sh("mkdir dev && mount -t tmpfs -o mode=755 dev dev && mknod -m 666 dev/null c 1 3 && mount --bind dev/null /dev/null").ok();
    host.prints("run -d --network none --name web busybox sleep 1000", "web");
    let attack = "for n in 0 1 2; do chmod 600 /proc/self/fd/$n; chown 7 /proc/self/fd/$n; done; echo x";
    for command in ["run --rm --network none busybox", "exec web", "exec -i web"] {
        host.0.sh(&format!("./stave {command} sh -c '{attack}' < /dev/null > /dev/null 2> /dev/null")).ok();
        assert_eq!(host.0.sh("stat -c '%a %u' /dev/null").ok(), "666 0\n", "{command}");
    }
    host.prints("rm -f web", "web");
}

#[test]
fn signals_pass_while_output_never_ends() {
    let host = Host::new();
    host.prints("run -d --network none --name web busybox sleep 1000", "web");
    host.0.sh("timeout 0.3 container-exec web yes > out").exits(124);
    host.0.sh("rm out; timeout 20 container-exec web sh -c 'yes & exec true' > out").ok();
    host.prints("rm -f web", "web");
}
