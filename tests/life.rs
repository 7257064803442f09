//! A container's life: it ends, starts again, is stopped, and loses its monitor. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod container;

use container::{MONITOR, start, until};
use testkit::Sandbox;

#[test]
fn it_ends_and_starts_again_and_an_old_document_still_fits() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d -- sh -c 'echo run; exec sleep 1000'");
    assert_eq!(sandbox.sh("container-stop -t 0 web --format '{id} {exitStatus}'").ok(), "web 137\n");
    assert_eq!(sandbox.sh("container-ls --format '{state} {ip}' web").ok(), "exited \n");
    assert_eq!(sandbox.sh("container-start web --format '{id}'").ok(), "web\n");
    assert_eq!(
        sandbox.sh("container-ls --format '{state}' web; container-exec web echo in").ok(),
        "running\nin\n"
    );
    sandbox.sh("until [ $(container-logs web | wc -l) = 2 ]; do sleep 0.02; done").ok();
    assert_eq!(sandbox.sh("container-logs --tail 1 web").ok(), "run\n");
    // The document is older than the restart: the process is another one, but the steps are the same.
    sandbox.sh("unwind < web.json > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn policies_start_it_again_and_a_stop_ends_that() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d --restart on-failure:2 -- sh -c 'echo run; exit 4'");
    let done =
        "until [ \"$(container-ls --format '{state} {restarts}' web)\" = 'exited 2' ]; do sleep 0.02; done";
    sandbox.sh(&format!("timeout 10 sh -c '{}'", done.replace('\'', "'\\''"))).ok();
    assert_eq!(
        sandbox.sh("container-logs web; container-wait --format '{exitStatus}' web").ok(),
        "run\nrun\nrun\n4\n"
    );
    sandbox.sh("unwind web > /dev/null").ok();
    start(&sandbox, "", "-d --restart always -- false");
    // It stays ended: no monitor is left that would start it.
    sandbox.sh("container-stop web; until flock -n /run/stave/web.monitor true; do sleep 0.01; done").ok();
    assert_eq!(sandbox.sh("container-ls --format '{state}' web").ok(), "exited\n");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// A failed start counts as an attempt.
#[test]
fn one_that_cannot_be_started_again_is_given_up() {
    let sandbox = Sandbox::with_busybox();
    sandbox
        .sh("layer-apply --id first < busybox.json | union-mount | ns-exec -d -- sleep 1000 > first.json")
        .ok();
    let script = "sh -c 'until test -e /go; do sleep 0.01; done; exit 3'";
    start(&sandbox, "", &format!("-d --network container:first --restart on-failure:2 -- {script}"));
    sandbox.sh("unwind first > /dev/null; container-exec web touch /go").ok();
    until(&sandbox, "{state} {restarts}", "exited 2");
    sandbox.sh("unwind web > /dev/null").ok();
}

/// A pipe that nobody writes to any more is always ready to be read.
#[test]
fn a_health_check_that_closes_its_output_keeps_no_monitor_busy() {
    let sandbox = Sandbox::with_busybox();
    let check = "exec >&- 2>&-; touch /asked; exec sleep 1000";
    let health = format!("--health-cmd '{check}' --health-interval 0.01 --health-timeout 1000");
    start(&sandbox, "", &format!("-d {health} -- sleep 1000"));
    sandbox.sh("until container-exec web test -e /asked; do sleep 0.01; done").ok();
    let pipes = "readlink /proc/$monitor/fd/* | grep -q pipe:";
    sandbox
        .sh(&format!("monitor=$({MONITOR}); test -e /proc/$monitor && timeout 20 sh -c \"while {pipes}; do sleep 0.01; done\""))
        .ok();
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn a_killed_monitor_is_replaced_and_nothing_is_left() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d -- sh -c 'echo one; until test -e /go; do sleep 0.01; done; echo two; exit 9'");
    sandbox.sh("until container-logs web | grep -q one; do sleep 0.02; done").ok();
    // Wait until the monitor has ended.
    let gone = "while grep -qs '^State:[^Z]*$' /proc/$monitor/status; do sleep 0.01; done";
    sandbox.sh(&format!("monitor=$({MONITOR}); kill -9 $monitor; {gone}")).ok();
    sandbox.sh("container-start --all > /dev/null").ok();
    sandbox.sh("container-exec web touch /go; container-wait web > /dev/null").ok();
    assert_eq!(sandbox.sh("container-logs web").ok(), "one\ntwo\n");
    sandbox.sh("unwind web > /dev/null").ok();
    // unwind works without a new monitor.
    start(&sandbox, "", "-d -- sleep 1000");
    sandbox.sh(&format!("kill -9 $({MONITOR}); unwind web > /dev/null")).ok();
    sandbox.assert_as(&before);
}

#[test]
fn one_that_was_only_made_is_started_and_its_health_is_known() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let health = "--health-cmd 'test -e /ok' --health-interval 0.05 --health-retries 1";
    start(&sandbox, "", &format!("--create {health} -- sleep 1000"));
    assert_eq!(sandbox.sh("container-ls --format '{state}' web").ok(), "created\n");
    sandbox.sh("container-start web > /dev/null").ok();
    let until = |word: &str| {
        let found =
            format!("until container-ls --format {{health}} web | grep -qx {word}; do sleep 0.02; done");
        sandbox.sh(&format!("timeout 10 sh -c '{found}'")).ok();
    };
    until("unhealthy");
    sandbox.sh("container-exec web touch /ok").ok();
    until("healthy");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn one_who_attaches_and_reads_slowly_misses_nothing() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d -i -- sh -c 'read go; seq 200000; exit 3'");
    let slow =
        "{ (echo go; sleep 2) | container-attach web; echo ended $? >&2; } | (sleep 0.4; cat) | md5sum";
    let all = sandbox.sh("seq 200000 | md5sum").ok();
    let attached = sandbox.sh(slow);
    assert_eq!((attached.stdout.as_str(), attached.stderr.as_str()), (all.as_str(), "ended 3\n"));
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// A container that waits to be restarted may lose its monitor, too.
#[test]
fn one_that_waits_and_has_lost_its_monitor_is_started() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "", "-d --restart always -- sh -c 'test -e /once && exec sleep 1000; sleep 0.2; false'");
    let state = |word: &str| {
        let found =
            format!("until container-ls --format {{state}} web | grep -qx {word}; do sleep 0.01; done");
        sandbox.sh(&format!("timeout 10 sh -c '{found}'")).ok();
    };
    sandbox.sh("until [ \"$(container-ls --format '{restarts}' web)\" -ge 3 ]; do sleep 0.02; done").ok();
    let monitor = sandbox.sh(&format!("until {MONITOR} 2> /dev/null; do sleep 0.01; done")).ok();
    let monitor = monitor.trim();
    // The monitor must have written the end, and must not restart the container during the check, nor hold the
    // record's lock.
    let waits =
        "grep -q '\"restarting\":true' /run/stave/web.json && flock -n /run/stave/locks/web.container true";
    let stop = format!("until kill -STOP {monitor}; {waits}; do kill -CONT {monitor}; sleep 0.01; done");
    sandbox.sh(&stop).ok();
    let refused = sandbox.sh("container-start web").exits(1);
    assert!(refused.stderr.contains("it is about to be restarted"), "{}", refused.stderr);
    // This is no error: there is nothing to do.
    sandbox.sh("container-start --all > /dev/null").ok();
    let gone = format!(
        "kill -9 {monitor}; while grep -q '^State:[^Z]*$' /proc/{monitor}/status; do sleep 0.01; done"
    );
    sandbox.sh(&gone).ok();
    sandbox.sh("touch $STAVE_ROOT/containers/web/upper/once; container-start --all > /dev/null").ok();
    state("running");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn ports_of_one_that_does_not_start_or_is_called_off() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let network = "| netns-bridge | veth-pair | portmap -p 10080:80";
    // As with Docker, a container has its ports only while it runs.
    start(&sandbox, network, "--create -- /missing");
    sandbox.sh("container-start web").exits(1);
    assert!(!sandbox.sh("nft list ruleset").ok().contains("10080"));
    sandbox.sh("unwind web > /dev/null").ok();
    start(&sandbox, network, "-d --restart always -- false");
    let found = "until [ \"$(container-ls --format '{restarts} {state}' web)\" = '3 restarting' ]; do sleep 0.01; done";
    sandbox.sh(&format!("timeout 10 sh -c '{}'; container-stop web", found.replace('\'', "'\\''"))).ok();
    assert!(!sandbox.sh("nft list ruleset").ok().contains("10080"));
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn ports_are_free_when_it_has_ended() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let network = "| netns-bridge | veth-pair | portmap -p 10080:80";
    start(&sandbox, network, "-d -- sleep 1000");
    sandbox.sh("container-stop -t 0 web").ok();
    let other = "layer-apply --id other < busybox.json | union-mount | netns-bridge | veth-pair | portmap -p 10080:80 > other.json";
    sandbox.sh(other).ok();
    let refused = sandbox.sh("container-start web").exits(1);
    assert!(refused.stderr.contains("take the ports of container \"web\" again"), "{}", refused.stderr);
    sandbox.sh("unwind other > /dev/null; container-start web > /dev/null").ok();
    assert_eq!(sandbox.sh("container-ls --format '{ports}' web").ok(), "0.0.0.0:10080->80/tcp\n");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// The monitor that saw the end may be gone as well.
#[test]
fn an_end_that_nobody_has_seen_is_put_on_record_and_frees_the_ports() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(&sandbox, "| netns-bridge | veth-pair | portmap -p 10080:80", "-d -- sleep 1000");
    let kill_both =
        format!("monitor=$({MONITOR}); pid=$(container-ls --format '{{pid}}' web); kill -9 $monitor $pid");
    sandbox.sh(&kill_both).ok();
    sandbox.sh("container-wait web > /dev/null").ok();
    assert_eq!(sandbox.sh("container-ls --format '{state}' web").ok(), "exited\n");
    assert!(!sandbox.sh("nft list ruleset").ok().contains("10080"));
    sandbox.sh("container-start web > /dev/null").ok();
    assert!(sandbox.sh("nft list ruleset").ok().contains("10080"));
    // --all restarts a container that should run.
    sandbox.sh("unwind web > /dev/null").ok();
    start(&sandbox, "", "-d --restart always -- sleep 1000");
    sandbox.sh(&kill_both).ok();
    sandbox.sh("container-start --all > /dev/null").ok();
    assert_eq!(sandbox.sh("container-ls --format '{state}' web").ok(), "running\n");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn an_end_that_cannot_be_written_for_a_while_is_not_lost() {
    let sandbox = Sandbox::with_busybox();
    start(&sandbox, "", "-d -- sleep 1000");
    // The process is gone, and its monitor has its status.
    let kill = "pid=$(container-ls --format '{pid}' web); kill -9 $pid; while test -e /proc/$pid; do sleep 0.01; done";
    sandbox.sh(&format!("mount -o remount,ro /run; {kill}")).ok();
    assert_eq!(sandbox.sh("jq .process.finished /run/stave/web.json").ok(), "null\n");
    sandbox.sh("mount -o remount,rw /run").ok();
    assert_eq!(sandbox.sh("container-wait --format '{exitStatus}' web").ok(), "137\n");
    sandbox.sh("unwind web > /dev/null").ok();
}

/// The monitor and container-start want to write the record at the same time.
#[test]
fn one_that_has_just_ended_is_started_at_once() {
    let sandbox = Sandbox::with_busybox();
    start(&sandbox, "", "-d -- sleep 1000");
    let script = "timeout 20 flock -o /run/stave/locks/web.container sh -c '
        pid=$(container-ls --format {pid} web); kill -9 $pid
        container-start web > /dev/null &
        while grep -q \"^State:[^Z]*$\" /proc/$pid/status 2> /dev/null; do sleep 0.01; done'; wait";
    sandbox.sh(script).ok();
    until(&sandbox, "{state}", "running");
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn a_health_check_that_prints_without_end_and_a_pause_do_not_stop_the_monitor() {
    let sandbox = Sandbox::with_busybox();
    let health = "--health-cmd yes --health-interval 0.01 --health-timeout 0.1 --health-retries 1";
    start(&sandbox, "", &format!("-d {health} -- sleep 1000"));
    until(&sandbox, "{health}", "unhealthy");
    assert_eq!(
        sandbox.sh("jq -r .process.health.output /run/stave/web.json").ok(),
        "health check took longer than 100ms\n"
    );
    sandbox.sh("container-pause web > /dev/null").ok();
    for _ in 0..10 {
        sandbox.sh("printf '\\020\\021' | timeout 10 container-attach web").ok();
    }
    let refused = sandbox.sh("timeout 10 container-exec web true").exits(125);
    assert_eq!(
        refused.stderr,
        "container-exec: container \"web\" is paused: nothing can start in it\nhint: `container-pause --resume` resumes it\n"
    );
    sandbox.sh("container-pause --resume web > /dev/null && container-exec web true").ok();
    sandbox.sh("unwind web > /dev/null").ok();
}

/// Others wait for the record while a check starts.
#[test]
fn a_container_that_stops_its_health_check_is_stopped_all_the_same() {
    let sandbox = Sandbox::with_busybox();
    let health = "--health-cmd true --health-interval 0.01 --health-timeout 0.2 --health-retries 1";
    let stops = "while :; do kill -STOP -1 2> /dev/null; done";
    start(&sandbox, "", &format!("-d {health} -- sh -c '{stops}'"));
    // Some checks run before they are stopped.
    let stopped =
        "until grep -q 'the command did not run within 200ms' /run/stave/web.json; do sleep 0.02; done";
    sandbox.sh(&format!("timeout 20 sh -c \"{stopped}\"")).ok();
    sandbox.sh("timeout 20 container-stop -t 0 web > /dev/null && unwind web > /dev/null").ok();
}

#[test]
fn of_an_earlier_run_no_memory_was_wanting() {
    let sandbox = Sandbox::with_busybox();
    let command = "-d -- sh -c 'test -e /second && exit 3; touch /second; exec tail /dev/zero'";
    start(&sandbox, "| cgroup-limit -m 16M --memory-swap 16M", command);
    let ended = "container-wait web > /dev/null; jq -c '[.process.exitStatus, .process.oomKilled]' /run/stave/web.json";
    assert_eq!(sandbox.sh(ended).ok(), "[137,true]\n");
    sandbox.sh("container-start web > /dev/null").ok();
    assert_eq!(sandbox.sh(ended).ok(), "[3,false]\n");
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn a_command_that_was_not_found_can_be_tried_again() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    sandbox.sh("layer-apply --id web < busybox.json | union-mount > mounted.json").ok();
    let failed = sandbox.sh("ns-exec -d -- /missing < mounted.json > failed.json").exits(127);
    assert_eq!(failed.stderr, "ns-exec: execute \"/missing\": No such file or directory\n");
    sandbox
        .sh("ns-exec --undo < failed.json > again.json && ns-exec -d -- sleep 1000 < again.json > web.json")
        .ok();
    let second = sandbox.sh("ns-exec -- true < web.json").exits(125);
    assert_eq!(
        second.stderr,
        "ns-exec: the container has a process already\nhint: `ns-exec --join ID` runs another command in it; `ns-exec --undo` ends it\n"
    );
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// A restart of the machine: all processes end, and everything in the kernel and in /run is gone.
const REBOOT: &str = r#"
kill -9 -1
until [ "$(ps -e -o pid= | wc -l)" -le 6 ]; do sleep 0.01; done
awk -v root="$STAVE_ROOT/" 'index($5, root) == 1 || index($5, "/run/netns/") == 1 {print $5}' /proc/self/mountinfo | tac | xargs -r umount -l
rm -rf /run/stave /run/netns
for link in $(ls /sys/class/net); do case $link in lo | out0) ;; *) ip link del "$link" 2> /dev/null || true ;; esac; done
nft flush ruleset
echo 0 > /proc/sys/net/ipv4/ip_forward
for record in "$STAVE_ROOT"/containers/*/record.json; do
    instance=$(sed 's/.*"instance":"\([0-9a-f]*\)".*/\1/' "$record")
    find /sys/fs/cgroup -depth -type d -path "*/stave/*.$instance*" -exec rmdir {} + 2> /dev/null || true
done
cat /proc/sys/kernel/random/uuid > boot
umount /proc/sys/kernel/random/boot_id 2> /dev/null || true
mount --bind boot /proc/sys/kernel/random/boot_id
"#;

#[test]
fn after_a_restart_of_the_machine_what_should_run_is_made_again() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let make = |id: &str, top: &str, network: &str, flags: &str| {
        let pipe = format!("layer-apply --id {id} < busybox.json | union-mount {top} {network}");
        sandbox.sh(&format!("{pipe} | ns-exec -d {flags} > {id}.json")).ok();
    };
    let network = "| cgroup-limit -m 64M | netns-bridge | veth-pair | portmap -p 10080:80";
    let run = "sh -c 'echo x >> /runs; exec sleep 1000'";
    make("web", "--durable", network, &format!("--restart always -- {run}"));
    make("web-never", "--durable", "", &format!("-- {run}"));
    make("web-stopped", "--durable", "", &format!("--restart unless-stopped -- {run}"));
    make("web-lost", "", "", &format!("--restart always -- {run}"));
    make("web-beside", "--durable", "", &format!("--network container:web-never -- {run}"));
    sandbox
        .sh("container-stop -t 0 web-stopped > /dev/null; container-rename web-stopped off > /dev/null")
        .ok();
    sandbox.sh("until container-exec web test -s /runs; do sleep 0.01; done").ok();
    let address = sandbox.sh("container-ls --format '{ip}' web").ok();
    sandbox.sh(REBOOT).ok();
    // Those that nobody has started again are listed.
    let all = "web exited\nweb-beside exited\nweb-lost exited\nweb-never exited\nweb-stopped exited\n";
    assert_eq!(sandbox.sh("container-ls --format '{id} {state}'").ok(), all);
    assert_eq!(sandbox.sh("container-ls --format '{id} {name}' off").ok(), "web-stopped off\n");
    assert_eq!(sandbox.sh("container-ls --records web-never | jq -r '.[].id'").ok(), "web-never\n");
    let outcome = sandbox.sh("container-start --all --format '{id}'").exits(1);
    assert_eq!(outcome.stdout.lines().next(), Some("web"), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains(
            "container-start: the files of container \"web-lost\" are lost: the machine was restarted"
        ),
        "{}",
        outcome.stderr
    );
    until(&sandbox, "{state} {restarts}", "running 0");
    assert_eq!(sandbox.sh("container-ls --format '{ip}' web").ok(), address);
    sandbox.sh("until [ $(container-exec web sh -c 'wc -l < /runs') = 2 ]; do sleep 0.01; done").ok();
    assert!(sandbox.sh("nft list ruleset").ok().contains("10080"));
    for tool in ["union-mount", "cgroup-limit", "netns-bridge", "veth-pair", "portmap", "ns-exec"] {
        sandbox.sh(&format!("{tool} --check < /run/stave/web.json > /dev/null")).ok();
    }
    // The process whose network it used is another one now, or gone.
    let outcome = sandbox.sh("container-start web-beside").exits(1);
    assert!(
        outcome
            .stderr
            .contains("enter the net namespace of another container: the machine was restarted since"),
        "{}",
        outcome.stderr
    );
    // Containers that should not run are started on request.
    sandbox.sh("container-start web-never off > /dev/null; test -L /run/stave/off.json").ok();
    assert_eq!(sandbox.sh("container-ls --running --format '{id}'").ok(), "web\nweb-never\nweb-stopped\n");
    sandbox
        .sh("unwind web web-never web-stopped web-lost web-beside > /dev/null; umount /proc/sys/kernel/random/boot_id")
        .ok();
    sandbox.assert_as(&before);
}

/// As `stave rm` does it: by a document that names the container and tells it from a later one.
#[test]
fn after_a_restart_of_the_machine_a_container_is_removed_by_its_instance() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let made = r#"sed 's/}$/,"instance":"07"}/' busybox.json | layer-apply --id web | union-mount | ns-exec -d -- sleep 1000 > web.json"#;
    sandbox.sh(made).ok();
    sandbox.sh(REBOOT).ok();
    for (instance, left) in [("08", "web\n"), ("07", "")] {
        sandbox.sh(&format!(
            "echo '{{\"stave\":1,\"id\":\"web\",\"instance\":\"{instance}\"}}' | unwind > /dev/null"
        ));
        assert_eq!(sandbox.sh("container-ls --format '{id}'").ok(), left);
    }
    sandbox.sh("umount /proc/sys/kernel/random/boot_id").ok();
    sandbox.assert_as(&before);
}

#[test]
fn events_are_told_as_they_happen() {
    let sandbox = Sandbox::with_busybox();
    let script = r#"
container-events --format '{event} {id} {exitStatus}' > events & events=$!
until grep -q inotify /proc/$events/fdinfo/*; do sleep 0.01; done
layer-apply --id web < busybox.json | union-mount | ns-exec -d -- sleep 1000 > web.json
until grep -q start events; do sleep 0.01; done
container-pause web && until grep -q '^pause' events; do sleep 0.01; done
container-pause --resume web && until grep -q unpause events; do sleep 0.01; done
container-stop -t 0 web && until grep -q stop events; do sleep 0.01; done
unwind web && until grep -q destroy events; do sleep 0.01; done
kill $events
"#;
    sandbox.sh(&format!("timeout 20 sh -c '{}' > /dev/null", script.replace('\'', "'\\''"))).ok();
    let told = sandbox.sh("cat events").ok();
    let expected =
        "create web \nstart web \npause web \nunpause web \ndie web 137\nstop web \ndestroy web \n";
    assert_eq!(told, expected);
    sandbox.sh("layer-apply --id web < busybox.json | union-mount | ns-exec --document d -- false").exits(1);
    let past = "container-events --since 1m --until 0s --format '{event} {exitStatus}'";
    assert_eq!(sandbox.sh(past).ok(), "start \ndie 1\n");
    let filtered =
        "container-events --since 1m --until 0s --filter event=die --filter container=web | jq -r .event";
    assert_eq!(sandbox.sh(filtered).ok(), "die\n");
    sandbox.sh("unwind web > /dev/null").ok();
}
