//! `--init` and `--stop-signal`. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{assert_both, compile, prepare, ready, until_exited, until_logged};
use testkit::Sandbox;

#[test]
fn who_has_lost_his_parent_is_waited_for() {
    let sandbox = Sandbox::with_busybox();
    let orphans = "(sleep 0.05 &); (sleep 0.05 &); echo begun; exec sleep 1000";
    let zombies = "sleep 0.3; cat /proc/[0-9]*/stat | grep -c \") Z \"";
    for (flags, left) in [("", "2\n"), ("--init", "0\n"), ("--init -u 33 --sandbox", "0\n")] {
        prepare(&sandbox, "busybox");
        sandbox.sh(&format!("ns-exec -d {flags} -- sh -c '{orphans}' < ready.json > run.json")).ok();
        until_logged(&sandbox, "begun");
        assert_eq!(sandbox.sh(&format!("ns-exec --join web -- sh -c '{zombies}'")).stdout, left, "{flags}");
    }
    // It also reaps orphans of a process that joined.
    sandbox.sh("ns-exec --join web -- sh -c '(sleep 0.05 &); (sleep 0.05 &)'").ok();
    assert_eq!(sandbox.sh(&format!("ns-exec --join web -- sh -c '{zombies}'")).stdout, "0\n");
    // Undo ends the command together with the first process.
    sandbox.sh("ns-exec --undo < run.json > /dev/null; ! pgrep -xf 'sleep 1000'").ok();
}

#[test]
fn the_status_and_the_errors_are_those_of_the_command() {
    let sandbox = Sandbox::with_busybox();
    for (command, status, error) in [
        ("true", 0, ""),
        ("sh -c 'exit 7'", 7, ""),
        ("sh -c 'kill -9 $$'", 137, ""),
        ("sh -c 'kill -40 $$'", 168, ""),
        ("/missing", 127, "ns-exec: execute \"/missing\": No such file or directory\n"),
        ("/etc/hosts", 126, "ns-exec: execute \"/etc/hosts\": Permission denied\n"),
        ("/bin/evil", 126, "ns-exec: execute \"/bin/evil\": Exec format error\n"),
    ] {
        prepare(&sandbox, "busybox");
        sandbox.sh("printf '#!/proc/self/exe\\n' > \"$STAVE_ROOT\"/containers/web/rootfs/bin/evil; chmod 755 \"$STAVE_ROOT\"/containers/web/rootfs/bin/evil").ok();
        let outcome = sandbox.sh(&format!("ns-exec --init -- {command} < ready.json"));
        assert_eq!((outcome.status, outcome.stderr.as_str()), (status, error), "{command}");
    }
    prepare(&sandbox, "busybox");
    sandbox.sh("ns-exec -d --init -- sh -c 'echo out; exit 5' < ready.json > /dev/null").ok();
    until_exited(&sandbox);
    let ended = "container-ls --format '{exitStatus}'; cat $STAVE_ROOT/containers/web/log";
    assert_eq!(sandbox.sh(ended).ok(), "5\nout\n");
}

#[test]
fn signals_reach_the_command() {
    let sandbox = Sandbox::with_busybox();
    let script = "trap \"echo got; exit 7\" TERM USR1; echo ready; while :; do sleep 0.02; done";
    for signal in ["TERM", "USR1"] {
        prepare(&sandbox, "busybox");
        let run = format!(
            "ns-exec --init -- sh -c '{script}' < ready.json > out & until grep -q ready out; do sleep 0.02; done; kill -{signal} $!; wait $!; echo $?; cat out"
        );
        assert_eq!(sandbox.sh(&run).ok(), "7\nready\ngot\n");
    }
    // A first process without a handler would ignore SIGTERM.
    prepare(&sandbox, "busybox");
    let run = "ns-exec --init --timeout 0.2 -- sleep 1000 < ready.json; echo $?";
    assert_eq!(
        sandbox.sh(&format!("date +%s > began; {run}; expr $(date +%s) - $(cat began) '<' 8")).ok(),
        "124\n1\n"
    );
}

#[test]
fn with_a_terminal_the_command_has_the_foreground() {
    let sandbox = ready("");
    let script = "tty; stty size; test $(cut -d\" \" -f5 /proc/$$/stat) = $(cut -d\" \" -f8 /proc/$$/stat) && echo foreground; sleep 1000; echo interrupted; exit 4";
    // Type Control-C when the terminal is raw and the command sleeps.
    let typed = "(until pgrep -xf 'sleep 1000' > /dev/null; do sleep 0.05; done; printf '\\003'; sleep 5)";
    let command = format!("ns-exec --from ready.json --init -t -- sh -c 'trap : INT; {script}'")
        .replace('"', "\\\"")
        .replace('$', "\\$");
    let outcome =
        sandbox.sh(&format!("{typed} | script -qec \"stty rows 33 cols 111; {command}\" /dev/null"));
    let shown = outcome.stdout.replace('\r', "").replace("^C", "");
    assert_eq!(shown, "/dev/pts/0\n33 111\nforeground\ninterrupted\n", "{}", outcome.stderr);
    assert_eq!(outcome.status, 4);
}

/// Searches the memory of a process for words.
const LOOK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words) {
    char path[64];
    snprintf(path, 64, "/proc/%s/maps", words[1]);
    FILE *maps = fopen(path, "r");
    snprintf(path, 64, "/proc/%s/mem", words[1]);
    int memory = open(path, O_RDONLY);
    if (!maps || memory < 0) return puts("cannot look"), 1;
    char line[512];
    long found = 0, read = 0;
    while (fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx", &start, &end) != 2) continue;
        char *text = malloc(end - start);
        ssize_t length = pread(memory, text, end - start, start);
        for (int i = 2; length > 0 && i < count; i++)
            if (memmem(text, length, words[i], strlen(words[i]))) found++, fprintf(stderr, "%s in %s", words[i], line);
        read += length > 0 ? length : 0;
        free(text);
    }
    printf("%s, %ld found\n", read > 100000 ? "looked" : "saw nothing", found);
}
"#;

#[test]
fn the_first_process_has_nothing_that_the_command_has_not() {
    let sandbox = Sandbox::with_busybox();
    compile(&sandbox, "look", LOOK);
    let fields = "for p in 1 self; do grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/$p/status > /dev/shm/$p; done; cmp /dev/shm/1 /dev/shm/self && echo same";
    for flags in ["--init", "--init -u 33", "--init --no-new-privs --cap-drop ALL"] {
        assert_both(&sandbox, flags, &format!("cat /proc/1/comm; {fields}"), "init\nsame\n");
    }
    assert_both(
        &sandbox,
        "--init",
        "ls /proc/1/fd; readlink /proc/1/exe; tr -d '\\0' < /proc/1/environ",
        "0\n1\n2\n/memfd:ns-exec (deleted)\n",
    );
    // The init process keeps nothing in memory that ns-exec has read: the document, the record, the
    // environment.
    prepare(&sandbox, "busybox");
    // A member that is too large for the heap.
    sandbox.sh("jq -c '.note = (\"x\" * 300000) + \"of-the-note\"' ready.json > large.json").ok();
    let start = "CALLER=of-the-caller ns-exec -d --init -v /run/look:/look";
    sandbox.sh(&format!("{start} -- sleep 1000 < large.json > /dev/null")).ok();
    let id = sandbox.sh("jq -r '.layers[0].diffID' ready.json").ok();
    let words = format!("{}/containers of-the-caller of-the-note {}", sandbox.root().display(), id.trim());
    let seen = sandbox.sh(&format!("ns-exec --join web -- /look 1 {words}"));
    assert_eq!(seen.stdout, "looked, 0 found\n", "{}", seen.stderr);
    // The words would be found: they are in the supervisor, which is the same program.
    let supervisor =
        sandbox.sh("awk '/PPid/ { print $2 }' /proc/$(container-ls --format '{pid}')/status").ok();
    let seen = sandbox.sh(&format!("/run/look {} {words}", supervisor.trim())).ok();
    assert!(seen.starts_with("looked, ") && seen != "looked, 0 found\n", "{seen}");
    // It keeps the container's output open for processes that write to it by its name.
    sandbox.sh("ns-exec --join web -- sh -c 'echo through > /proc/1/fd/1'").ok();
    until_logged(&sandbox, "through");
}

#[test]
fn the_signal_that_stops_it() {
    let sandbox = Sandbox::with_busybox();
    let script = "trap \"echo got; exit 7\" HUP; echo ready; while :; do sleep 0.02; done";
    let run = |flag: &str| {
        prepare(&sandbox, "busybox");
        sandbox.sh(&format!("ns-exec -d {flag} -- sh -c '{script}' < ready.json > run.json")).ok();
        until_logged(&sandbox, "ready");
        let stopped = sandbox.sh("container-ls --format '{stopSignal}'; jq -c .process.stopSignal run.json; kill -$(container-ls --format '{stopSignal} {pid}')").ok();
        until_exited(&sandbox);
        stopped + &sandbox.sh("container-ls --format '{exitStatus}'").ok()
    };
    for flag in ["SIGHUP", "hup", "1"] {
        assert_eq!(run(&format!("--stop-signal {flag}")), "HUP\n\"SIGHUP\"\n7\n");
    }
    // A real-time signal, which the shell does not know.
    prepare(&sandbox, "busybox");
    sandbox.sh("ns-exec -d --init --stop-signal RTMIN+3 -- sleep 1000 < ready.json > run.json").ok();
    sandbox.sh("kill -$(container-ls --format '{stopSignal} {pid}')").ok();
    until_exited(&sandbox);
    assert_eq!(sandbox.sh("container-ls --format '{stopSignal} {exitStatus}'").ok(), "RTMIN+3 165\n");
    // --timeout sends it first.
    prepare(&sandbox, "busybox");
    let timed = format!("ns-exec --timeout 0.3 --stop-signal HUP -- sh -c '{script}' < ready.json");
    assert_eq!(sandbox.sh(&timed).exits(124).stdout, "ready\ngot\n");
    for (signal, error) in [("HALT", "\"HALT\" is not a signal"), ("65", "\"65\" is not a signal")] {
        let refused = sandbox.sh(&format!("ns-exec --stop-signal {signal} -- true < ready.json")).exits(125);
        assert!(refused.stderr.contains(error), "{}", refused.stderr);
    }
}

#[test]
fn the_signal_of_the_image() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("printf 'FROM busybox\\nSTOPSIGNAL SIGQUIT\\n' > Dockerfile; img-build -q -t quits . > quits.json").ok();
    prepare(&sandbox, "quits");
    let seen = "ns-exec -d -- sleep 1000 < ready.json | jq -r .process.stopSignal; container-ls --format '{stopSignal}'";
    assert_eq!(sandbox.sh(seen).ok(), "SIGQUIT\nQUIT\n");
    // An image made from a container has the container's signal.
    prepare(&sandbox, "quits");
    let own = "ns-exec -d --stop-signal 10 -- sleep 1000 < ready.json | img-commit -q -t own | jq -r .image.configuration.config.StopSignal";
    assert_eq!(sandbox.sh(own).ok(), "SIGUSR1\n");
    let bad = "jq '.image.configuration.config.StopSignal = \"HALT\"' ready.json > bad.json; ns-exec -- true < bad.json";
    prepare(&sandbox, "quits");
    assert_eq!(
        sandbox.sh(bad).exits(125).stderr,
        "ns-exec: read StopSignal of the image: \"HALT\" is not a signal\nhint: --stop-signal sets another\n"
    );
}
