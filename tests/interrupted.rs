//! Killed pipes, and pipes that run at the same time: nothing is left behind, and nothing is used twice.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod killing;
mod pipe;

use std::{
    collections::BTreeSet,
    io,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use killing::{assert_as, killed, killed_as_in, unwound};
use pipe::{PIPE, pipe, ready};
use serde_json::Value;
use testkit::Sandbox;

/// Kills the tool at this place of the pipe just before its first, second, … call of each system call. Then
/// kills its `--undo` in the same way.
fn killed_at_every_change(at: usize) {
    let sandbox = ready();
    let unwound = unwound(&sandbox, "web");
    let made = |before: &str| pipe(at, before);
    let short = |before: &str| made(before).replace("sleep 1000", "sleep 0.1");
    killed_as_in(&sandbox, "", &short, &made, &unwound);
    let undo = |before: &str| format!("{before} {} --undo < web.json > /dev/null", PIPE[at].0);
    killed(&sandbox, &made(""), &undo, &unwound);
}

#[test]
fn layer_apply_is_killed_at_every_change() {
    killed_at_every_change(0);
}

#[test]
fn union_mount_is_killed_at_every_change() {
    killed_at_every_change(1);
}

#[test]
fn union_snapshot_is_killed_at_every_change() {
    killed_at_every_change(2);
}

#[test]
fn union_fork_and_the_undo_of_two_snapshots_are_killed_at_every_change() {
    let sandbox = ready();
    let two =
        "layer-apply --id web < busybox.json | union-mount | union-snapshot | union-snapshot > web.json";
    let fork = |before: &str| format!("{before} union-fork web@1 --id try > try.json");
    let undo = |before: &str| format!("{before} union-snapshot --undo --steps 2 web > /dev/null");
    let unwound = unwound(&sandbox, "try web");
    killed(&sandbox, two, &fork, &unwound);
    killed(&sandbox, two, &undo, &unwound);
    let forked = format!("{two}; {}", fork(""));
    let undo = |before: &str| format!("{before} union-fork --undo < try.json > /dev/null");
    killed(&sandbox, &forked, &undo, &unwound);
}

#[test]
fn union_merge_and_its_undo_are_killed_at_every_change() {
    let sandbox = ready();
    let forked = "layer-apply --id web < busybox.json | union-mount | union-snapshot > /dev/null; union-fork web --id try > /dev/null
        cd $STAVE_ROOT/containers/try/rootfs && echo two > file && rm -r www && mkdir www; cd - > /dev/null";
    let merge = |before: &str| format!("{before} union-merge try > web.json");
    let undo = |before: &str| format!("{before} union-merge --undo < web.json > /dev/null");
    let unwound = unwound(&sandbox, "try web");
    killed(&sandbox, forked, &merge, &unwound);
    killed(&sandbox, &format!("{forked}; {}", merge("")), &undo, &unwound);
}

/// By its id a tool finds what one before it has left half done. Volumes are mounted again, too, wherever it was cut off.
#[test]
fn a_snapshot_that_was_cut_off_is_taken_back_and_nothing_that_was_written_before_is_lost() {
    let sandbox = ready();
    let made = "mkdir -p data/below; echo own > data/file; echo deep > data/below/file
        layer-apply --id web < busybox.json | union-mount -v $PWD/data:/data -v $PWD/data/below:/data/deep > web.json
        echo one > $STAVE_ROOT/containers/web/rootfs/file";
    sandbox.sh(made).ok();
    let snapshot = |before: &str| format!("{before} union-snapshot web > /dev/null");
    let roll_back = |before: &str| format!("{before} union-snapshot --undo web > /dev/null");
    let look = "cd $STAVE_ROOT/containers/web/rootfs && cat file data/file data/deep/file";
    let back_again = |context: &str| {
        let undone = sandbox.sh(&format!("{}; {look}", roll_back("")));
        assert_eq!((undone.stdout.as_str(), undone.stderr.as_str()), ("one\nown\ndeep\n", ""), "{context}");
        assert_eq!(sandbox.sh("jq '.steps | length' /run/stave/web.json").ok(), "3\n", "{context}");
    };
    killed(&sandbox, "", &snapshot, &back_again);
    killed(&sandbox, &snapshot(""), &roll_back, &back_again);
    sandbox.sh("unwind web > /dev/null").ok();
}

/// The 32nd snapshot starts a process that merges the first 16 levels. It is killed with the tool, fails, or ends.
#[test]
fn merging_of_levels_is_killed_at_every_change() {
    let sandbox = ready();
    let before = sandbox.snapshot();
    let made = "layer-apply --id web < busybox.json | union-mount > /dev/null; root=$STAVE_ROOT/containers/web/rootfs
        for n in $(seq 31); do echo $n > $root/f$n; echo $n > $root/last; union-snapshot web > /dev/null || exit 1; done";
    sandbox.sh(made).ok();
    let snapshot = |before: &str| format!("{before} union-snapshot web > /dev/null");
    let back_again = |context: &str| {
        // With the next snapshot, what was merged counts.
        let next = "union-snapshot web > /dev/null; cd $STAVE_ROOT/containers/web && ls rootfs | grep -c '^f[0-9]'; cat rootfs/last
            cd - > /dev/null; steps=$(jq '[.steps[] | select(.tool == \"union-snapshot\")] | length - 31' /run/stave/web.json)
            union-snapshot --undo --steps $steps web > /dev/null; cat $STAVE_ROOT/containers/web/rootfs/last";
        let seen = sandbox.sh(next);
        assert_eq!((seen.stdout.as_str(), seen.stderr.as_str()), ("31\n31\n31\n", ""), "{context}");
        sandbox.sh("rm -rf $STAVE_ROOT/containers/web/runs").ok();
    };
    killed(&sandbox, "", &snapshot, &back_again);
    for call in ["linkat", "mkdirat", "renameat2"] {
        let fails = format!("strace -f -qq -o /dev/null -e inject={call}:error=ENOSPC:when=3");
        sandbox.sh(&snapshot(&fails));
        back_again(&format!("{call} failed"));
    }
    // If it is not known whether somebody still merges, nothing is removed.
    let unknown = "mkdir -p $STAVE_ROOT/containers/web/runs/0.1.new
        strace -f -qq -o trace -P $STAVE_ROOT/containers/web/runs/0.1.new -e trace=flock -e inject=flock:error=ENOLCK \
            union-snapshot web > /dev/null; grep -q INJECTED trace && ls $STAVE_ROOT/containers/web/runs";
    assert_eq!(sandbox.sh(unknown).ok(), "0.1.new\n");
    back_again("the lock failed");
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn netns_bridge_is_killed_at_every_change() {
    killed_at_every_change(3);
}

#[test]
fn veth_pair_is_killed_at_every_change() {
    killed_at_every_change(4);
}

#[test]
fn portmap_is_killed_at_every_change() {
    killed_at_every_change(5);
}

#[test]
fn link_hosts_is_killed_at_every_change() {
    killed_at_every_change(6);
}

#[test]
fn ns_exec_is_killed_at_every_change() {
    killed_at_every_change(7);
}

/// What a killed repair has made is known, and is taken back with the rest.
#[test]
fn repairs_are_killed_at_every_change() {
    let sandbox = ready();
    let unwound = unwound(&sandbox, "web");
    for (at, broken) in [
        (1, "umount root/containers/web/rootfs"),
        (2, "umount root/containers/web/rootfs; union-mount --repair < web.json > /dev/null"),
        (3, "ip netns del web; ip link del stave0 2> /dev/null || true"),
        (4, "ip -n web link del eth0"),
        (5, "nft flush map inet stave published"),
    ] {
        let made = format!("{} && {{ {broken}; }}", pipe(at, ""));
        let repair = |before: &str| format!("{before} {} --repair < web.json > /dev/null", PIPE[at].0);
        killed(&sandbox, &made, &repair, &unwound);
    }
}

/// A bridge with a port that leads to other hosts, with entries for them, and an address that the host answers for on its wire.
#[test]
fn a_network_of_several_hosts_is_killed_at_every_change() {
    let sandbox = Sandbox::new();
    sandbox.sh("ip address add 2001:db8::1/64 dev out0 nodad").ok();
    let network =
        "--subnet 10.57.0.0/16 --ip-range 10.57.1.0/24 --gateway 10.57.1.1 --vxlan 7 --vxlan-local 192.0.2.1";
    let routed = "--subnet6 2001:db8::5:0:0/112 --gateway-mode routed --ndp-proxy out0";
    sandbox.sh(&format!("network-create far {network} {routed}")).ok();
    let peer = r#"{"network":"far","hosts":[{"name":"b","address":"192.0.2.2","stations":[
        {"mac":"02:42:0a:39:02:02","addresses":["10.57.2.2","2001:db8::5:0:2"],"names":["db"]}]}]}"#;
    sandbox.sh(&format!("mkdir -p /run/stave/peers; echo '{peer}' > /run/stave/peers/far.json")).ok();
    let pipe = |before: &str| format!("netns-add -n --id web | {before} bridge-attach far > web.json");
    let undo = |before: &str| format!("{before} bridge-attach --undo < web.json > /dev/null");
    sandbox.sh("netns-add -n --id web | unwind > /dev/null").ok();
    let unwound = unwound(&sandbox, "web");
    sandbox.sh(&pipe("")).ok();
    sandbox.sh("bridge-attach --check < web.json > /dev/null; bridge fdb | grep 02:42:0a:39:02:02; ip -6 neighbour show proxy | grep out0").ok();
    unwound("made in peace");
    killed(&sandbox, "", &pipe, &unwound);
    killed(&sandbox, &pipe(""), &undo, &unwound);
}

/// The macvlan is made under a first name, moved, and named.
#[test]
fn macvlan_attach_is_killed_at_every_change() {
    let sandbox = Sandbox::new();
    let pipe =
        |before: &str| format!("netns-add -n --id web | {before} macvlan-attach --parent out0 > web.json");
    let undo = |before: &str| format!("{before} macvlan-attach --undo < web.json > /dev/null");
    sandbox.sh("netns-add -n --id web | unwind > /dev/null").ok();
    let unwound = unwound(&sandbox, "web");
    killed(&sandbox, "", &pipe, &unwound);
    killed(&sandbox, &pipe(""), &undo, &unwound);
}

/// One call undoes several steps of one tool, and writes the record once, at its end.
#[test]
fn the_undo_of_several_steps_is_killed_at_every_change() {
    let sandbox = Sandbox::new();
    let unwound = unwound(&sandbox, "web");
    let ports = "portmap -p 8080:80 | portmap -p 8081:81 | portmap -p 8082:82";
    let pipe = format!("netns-bridge -n --id web | veth-pair | {ports} > web.json");
    let undo = |before: &str| format!("{before} portmap --undo --steps 3 < web.json > after.json");
    sandbox.sh(&format!("{pipe}; {}", undo(""))).ok();
    assert_eq!(
        sandbox.sh("jq -c '[.steps[].tool], .ports' after.json").ok(),
        "[\"netns-bridge\",\"veth-pair\"]\nnull\n"
    );
    unwound("undone in peace");
    killed(&sandbox, &pipe, &undo, &unwound);
}

/// A process holds the ports, because portmap may not load a program.
#[test]
fn portmap_that_starts_a_process_is_killed_at_every_change() {
    let sandbox = Sandbox::new();
    let unwound = unwound(&sandbox, "web");
    let portmap = |before: &str| {
        let portmap = "setpriv --bounding-set -sys_admin,-bpf portmap -p 8080:80 -p 40000:81/udp";
        format!("netns-bridge -n --id web | veth-pair | {before} {portmap} > web.json")
    };
    let undo = |before: &str| format!("{before} portmap --undo < web.json > /dev/null");
    // strace stays as long as the process.
    let ended = |before: &str| format!("{{ {}; }} & sleep 1; pkill -KILL port-hold; wait", portmap(before));
    killed_as_in(&sandbox, "", &ended, &portmap, &unwound);
    killed(&sandbox, &portmap(""), &undo, &unwound);
}

/// All sandboxes share the machine's cgroups, so this container has a unique id.
#[test]
fn cgroup_limit_and_ns_exec_are_killed_and_no_cgroup_is_left() {
    let sandbox = ready();
    let unwound = unwound(&sandbox, "cut");
    let gone = |context: &str| {
        unwound(context);
        let left = sandbox.sh("find /sys/fs/cgroup -type d -path '*/stave/cut.*' 2> /dev/null").stdout;
        assert_eq!(left, "", "{context}");
    };
    let limit =
        |before: &str| format!("{before} cgroup-limit -n --id cut --pids 50 --memory 64M > limited.json");
    let undo = |before: &str| format!("{before} cgroup-limit --undo < limited.json > /dev/null");
    let start = |before: &str| {
        format!(
            "layer-apply --id cut < busybox.json | union-mount | cgroup-limit --pids 50 | {before} ns-exec -d -- sleep 0.1 > cut.json"
        )
    };
    let found = killed(&sandbox, "", &limit, &gone)
        + killed(&sandbox, &limit(""), &undo, &gone)
        + killed(&sandbox, "", &start, &gone);
    assert!(found > 50, "only {found} moments");
}

/// Pseudo-random numbers, the same in every run (xorshift).
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Starts a script in its own process group, and kills the whole group after a while, as a power cut would.
/// When this returns, all its processes have stopped.
fn cut_off(sandbox: &Sandbox, script: &str, after: Duration) {
    let mut command = sandbox.command("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.process_group(0).spawn().unwrap();
    thread::sleep(after);
    Command::new("kill")
        .args(["-KILL", "--", &format!("-{}", child.id())])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    child.wait().unwrap();
    // The pipe closes when the last process that holds it has ended, and has left the system call in which
    // the signal arrived.
    io::copy(&mut child.stderr.take().unwrap(), &mut io::sink()).unwrap();
}

/// How long the whole pipe takes here, in microseconds. The pipe is undone.
fn time_of_a_pipe(sandbox: &Sandbox) -> u64 {
    let begin = Instant::now();
    sandbox.sh(&pipe(PIPE.len() - 1, "")).ok();
    let whole = u64::try_from(begin.elapsed().as_micros()).unwrap();
    sandbox.sh("unwind web > /dev/null").ok();
    whole
}

#[test]
fn two_hundred_pipes_are_cut_off_at_random_moments() {
    let sandbox = ready();
    let before = sandbox.snapshot();
    let whole = time_of_a_pipe(&sandbox);
    let mut draw = Draw(20_261_123);
    for run in 0..200 {
        let after = Duration::from_micros(draw.below(whole * 5 / 4));
        cut_off(&sandbox, &pipe(PIPE.len() - 1, ""), after);
        let context = format!("run {run}, cut off after {after:?}");
        if run % 4 == 0 {
            // The power fails again during the undo.
            cut_off(&sandbox, "unwind web", Duration::from_micros(draw.below(whole / 3)));
        }
        let unwound = sandbox.sh("unwind web");
        assert_eq!(unwound.status, 0, "{context}: {}", unwound.stderr);
        assert_as(&sandbox, &before, &context);
    }
}

/// `unwind` of a container whose pipe is still running removes all of it, or comes before anything is made.
#[test]
fn a_container_is_taken_back_while_its_pipe_still_runs() {
    let sandbox = ready();
    let before = sandbox.snapshot();
    let whole = time_of_a_pipe(&sandbox);
    let mut draw = Draw(20_261_126);
    let mut refused = 0;
    for run in 0..100 {
        let after = Duration::from_micros(draw.below(whole));
        let (unwound, piped) = thread::scope(|scope| {
            let piped = scope.spawn(|| sandbox.sh(&pipe(PIPE.len() - 1, "")));
            thread::sleep(after);
            (sandbox.sh("unwind web"), piped.join().unwrap())
        });
        let context = format!("run {run}, taken back after {after:?}");
        assert_eq!(unwound.status, 0, "{context}: {}", unwound.stderr);
        let document: Value = serde_json::from_str(&sandbox.sh("cat web.json").stdout).unwrap();
        if document.get("error").is_some() {
            refused += 1;
        } else if sandbox.run().join("stave/web.json").exists() {
            sandbox.sh("unwind web > /dev/null").ok();
        }
        assert_as(&sandbox, &before, &format!("{context}; the pipe: {}", piped.stderr));
    }
    assert!(refused >= 20, "only {refused} pipes were met in their midst");
}

/// Runs pipes at the same time, each with its own id and port. Returns their documents.
fn at_once(sandbox: &Sandbox, count: usize, port: impl Fn(usize) -> usize + Sync) -> Vec<Value> {
    thread::scope(|scope| {
        let run = |n: usize| {
            let port = port(n);
            let network = format!("netns-bridge | veth-pair | portmap -p {port}:80");
            let pipe = format!(
                "layer-apply --id c{n} < busybox.json | union-mount | {network} | ns-exec -d -- sleep 1000"
            );
            serde_json::from_str(&sandbox.sh(&pipe).stdout).unwrap()
        };
        let runs: Vec<_> = (0..count).map(|n| scope.spawn(move || run(n))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

fn distinct(documents: &[Value], pointer: &str) -> usize {
    let values =
        documents.iter().map(|document| document.pointer(pointer).unwrap_or(&Value::Null).to_string());
    values.collect::<BTreeSet<_>>().len()
}

#[test]
fn pipes_at_once_are_given_nothing_twice_and_the_bridge_goes_with_the_last() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    for count in [2, 20] {
        let documents = at_once(&sandbox, count, |n| 10_000 + n);
        for document in &documents {
            assert!(document.get("error").is_none(), "{}", document["error"]);
        }
        for pointer in [
            "/network/cni/ips/0/address",
            "/network/cni/interfaces/1/name",
            "/network/namespace",
            "/ports/0/hostPort",
        ] {
            assert_eq!(distinct(&documents, pointer), count, "{pointer}");
        }
        let bridge = || sandbox.snapshot().of("link").iter().any(|line| line.contains(": stave0: "));
        sandbox.sh(&format!("for n in $(seq {}); do unwind c$n > /dev/null & done; wait", count - 1)).ok();
        assert!(bridge(), "the first one still hangs on it");
        sandbox.sh("unwind c0 > /dev/null").ok();
        assert!(!bridge());
        sandbox.assert_as(&before);
    }
}

#[test]
fn of_twenty_who_want_one_port_one_gets_it() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let documents = at_once(&sandbox, 20, |_| 10_080);
    assert_eq!(documents.iter().filter(|document| document.get("error").is_none()).count(), 1);
    assert_eq!(documents.iter().filter(|document| document["error"]["tool"] == "portmap").count(), 19);
    sandbox.sh("for n in $(seq 0 19); do unwind c$n > /dev/null & done; wait").ok();
    sandbox.assert_as(&before);
}

/// Twenty pipes, each in its own process group, each killed at its own moment while the others go on.
#[test]
fn twenty_pipes_at_once_are_cut_off_at_random_moments() {
    let sandbox = ready();
    let before = sandbox.snapshot();
    let mut draw = Draw(20_261_124);
    for round in 0..5 {
        let moments: Vec<_> = (0..20).map(|_| Duration::from_millis(draw.below(1500))).collect();
        thread::scope(|scope| {
            for (n, after) in moments.iter().enumerate() {
                let pipe = pipe(PIPE.len() - 1, "")
                    .replace("--id web", &format!("--id c{n}"))
                    .replace("10080", &(10_000 + n).to_string())
                    .replace("web.json", &format!("c{n}.json"));
                let sandbox = &sandbox;
                scope.spawn(move || cut_off(sandbox, &pipe, *after));
            }
        });
        let unwound = sandbox.sh("unwind $(seq -f c%g 0 19) > /dev/null");
        assert_eq!(unwound.status, 0, "round {round}: {}", unwound.stderr);
        assert_as(&sandbox, &before, &format!("round {round}, cut off after {moments:?}"));
    }
}
