//! What failing calls in the network tools, and changes by other programs, leave behind.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

const PIPE: &str = "netns-bridge -n --id web | veth-pair > web.json";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// The strace command that makes a call fail once, the `at`th time.
fn failing(calls: &str, error: &str, at: usize) -> String {
    format!("strace -f -qq -o trace -e trace={calls} -e inject={calls}:error={error}:when={at}")
}

/// Unwinds `web` without faults, and compares the host with `before`.
fn assert_gone(sandbox: &Sandbox, before: &testkit::Snapshot, what: &str) {
    let outcome = sandbox.sh("unwind web > /dev/null");
    assert_eq!(outcome.status, 0, "{what}: {outcome:?}");
    let forward = sandbox.sh(&format!("cat {FORWARD}")).ok();
    assert_eq!(forward, "0\n", "{what}");
    sandbox.assert_as(before);
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.sh(&format!("echo 0 > {FORWARD}")).ok();
    // Make the directories that stay once they exist.
    sandbox.sh("netns-bridge -n --id first | veth-pair | unwind > /dev/null").ok();
    // The process that waits for the kernel to free a link outlives the tool.
    sandbox.sh("while pgrep -x netns-bridge > /dev/null; do sleep 0.01; done").ok();
    sandbox
}

/// Every netlink call of each tool and of its undo fails once. A failure is reported, and `unwind` removes
/// whatever is left.
#[test]
fn no_failing_netlink_call_leaves_what_no_record_knows() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    let mut failed = 0;
    for calls in ["sendto", "recvfrom"] {
        for at in (1..40).step_by(4) {
            let fail = failing(calls, "ENOMEM", at);
            let pipes = [
                format!("{fail} netns-bridge -n --id web > web.json"),
                format!("netns-bridge -n --id web | {fail} veth-pair > web.json"),
                format!("{PIPE}; {fail} veth-pair --undo < web.json > /dev/null"),
                format!("{PIPE}; veth-pair --undo < web.json | {fail} netns-bridge --undo > /dev/null"),
            ];
            for pipe in pipes {
                let outcome = sandbox.sh(&format!("rm -f trace; {pipe}"));
                if sandbox.sh("grep -q INJECTED trace").status == 0 {
                    failed += 1;
                    assert!(!outcome.stderr.contains("No such device"), "{pipe}: {outcome:?}");
                    assert!(
                        outcome.status == 0 || outcome.stderr.contains("Out of memory"),
                        "{pipe}: {outcome:?}"
                    );
                }
                assert_gone(&sandbox, &before, &pipe);
            }
        }
    }
    assert!(failed > 20, "only {failed} calls failed");
}

/// Without descriptors nothing can be examined, which does not prove that nothing exists.
#[test]
fn unwind_that_ran_out_of_descriptors_is_brought_to_its_end_by_the_next() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    for limit in 5..18 {
        sandbox.sh(PIPE).ok();
        sandbox.sh(&format!("prlimit --nofile={limit} unwind web > /dev/null"));
        assert_gone(&sandbox, &before, &format!("{limit} descriptors"));
    }
}

/// The container's port could not be undone, but the bridge is still removed.
#[test]
fn a_step_that_could_not_be_undone_does_not_keep_the_one_below_it() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    sandbox.sh(PIPE).ok();
    let fail = failing("sendto", "ENOMEM", 1);
    let undone = sandbox.sh(&format!("{fail} veth-pair --undo < web.json > left.json; echo $?"));
    assert!(undone.stdout.ends_with("1\n"), "{undone:?}");
    sandbox.sh("netns-bridge --undo < left.json > /dev/null").ok();
    assert_gone(&sandbox, &before, "netns-bridge --undo before veth-pair --undo");
}

/// The kernel refuses to make a link that exists. If the tool then cannot look for it, it says why.
#[test]
fn a_repair_that_lost_an_answer_says_so() {
    let sandbox = sandbox();
    sandbox.sh(&format!("{PIPE}; ip link del stave0")).ok();
    let refused = "strace -f -qq -o trace -e trace=recvfrom net-repair web > /dev/null; grep -n EEXIST trace | head -1 | cut -d: -f1";
    let at: usize = sandbox.sh(refused).ok().trim().parse().unwrap();
    let fail = failing("recvfrom", "ENOSPC", at + 1);
    let repaired = sandbox.sh(&format!("ip link del stave0; {fail} net-repair web > /dev/null")).exits(1);
    assert!(repaired.stderr.contains(": No space left on device\n"), "{}", repaired.stderr);
    assert!(!repaired.stderr.contains("File exists"), "{}", repaired.stderr);
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn forwarding_is_put_back_with_the_last_network_and_stays_for_others() {
    let sandbox = sandbox();
    let value = || sandbox.sh(&format!("cat {FORWARD}")).ok();
    sandbox.sh("netns-bridge -n --id a > a.json; netns-bridge -n --id b --bridge br1 --subnet 10.9.0.0/24 > b.json").ok();
    sandbox.sh("unwind < a.json > /dev/null").ok();
    assert_eq!(value(), "1\n", "b needs it");
    sandbox.sh("unwind < b.json > /dev/null").ok();
    assert_eq!(value(), "0\n");

    sandbox.sh("netns-bridge -n --id a > a.json; ip link add virbr0 type bridge").ok();
    let undone = sandbox.sh("unwind < a.json > /dev/null");
    let line = "netns-bridge: net.ipv4.ip_forward stays 1: bridge \"virbr0\" may need it\n";
    assert_eq!((undone.status, undone.stderr.as_str()), (0, line));
    assert_eq!(value(), "1\n");
    assert_eq!(
        sandbox.sh("ls $STAVE_RUN/sysctl 2> /dev/null").stdout,
        "",
        "what was kept goes with its claim"
    );
    sandbox.sh("ip link del virbr0; netns-bridge -n --id a | unwind > /dev/null").ok();
    assert_eq!(value(), "1\n", "it was so before");
}

/// A host may forward, and have chosen that new links do not.
#[test]
fn a_bridge_forwards_where_new_links_do_not() {
    let sandbox = sandbox();
    sandbox.sh(&format!("echo 1 > {FORWARD}; echo 0 > /proc/sys/net/ipv4/conf/default/forwarding")).ok();
    let before = sandbox.snapshot();
    let own = "/proc/sys/net/ipv4/conf/stave0/forwarding";
    let value = || sandbox.sh(&format!("cat {own}")).ok();
    for id in ["a", "b"] {
        sandbox.sh(&format!("netns-bridge -n --id {id} | veth-pair > {id}.json")).ok();
    }
    assert_eq!(value(), "1\n");
    sandbox.sh(&format!("echo 0 > {own}; netns-bridge --check < a.json > /dev/null")).exits(1);
    sandbox.sh("netns-bridge --repair < b.json > /dev/null").ok();
    assert_eq!(value(), "1\n");
    sandbox.sh("unwind a > /dev/null").ok();
    assert_eq!(value(), "1\n");
    sandbox.sh("unwind b > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn two_run_directories_on_one_host_share_what_the_network_namespace_has() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    let script = "mkdir -p r1 r2
        export STAVE_RUN=$PWD/r1; netns-bridge -n --id ra | veth-pair | portmap -p 8080:80 > ra.json
        export STAVE_RUN=$PWD/r2; netns-bridge -n --id rb | veth-pair > rb.json
        jq -r '.network.cni.ips[0].address' ra.json rb.json
        unwind < rb.json > /dev/null; nft list map inet stave published | grep -o 'tcp . 8080'
        export STAVE_RUN=$PWD/r1; netns-bridge --check < ra.json | veth-pair --check | portmap --check > /dev/null && echo stands
        unwind < ra.json > /dev/null; rm -r r1 r2";
    let told = sandbox.sh(script);
    assert_eq!(told.stdout, "172.17.0.2/16\n172.17.0.3/16\ntcp . 8080\nstands\n", "{told:?}");
    sandbox.assert_as(&before);
}

/// A tool was killed before it made anything, and then another run directory made a container with the same id.
#[test]
fn a_container_with_the_same_id_in_another_run_directory_is_left_alone() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    for tool in ["netns-add", "netns-bridge"] {
        let script = format!(
            "mkdir -p r1 r2; export STAVE_RUN=$PWD/r2
            {tool} -n --id web > web.json
            jq -c '.steps[].state = \"begun\" | del(.steps[].operations[].inode)' $STAVE_RUN/web.json > begun.json
            unwind web > /dev/null
            install -m 600 begun.json $STAVE_RUN/web.json
            export STAVE_RUN=$PWD/r1; netns-bridge -n --id web | veth-pair > web.json
            STAVE_RUN=$PWD/r2 unwind web > /dev/null
            netns-bridge --check < web.json | veth-pair --check > /dev/null && ls $PWD/r2
            unwind web > /dev/null; rm -r r1 r2"
        );
        assert_eq!(sandbox.sh(&script).ok(), "locks\n", "{tool}");
        sandbox.assert_as(&before);
    }
}

/// A record of a version whose claims were only below the run directory.
#[test]
fn a_record_of_the_version_before_is_undone() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    sandbox.sh(PIPE).ok();
    let earlier = r#"
        def plain: if type == "object" then del(.user, .usedBridge, .mark, .protocol) else . end;
        def claimed: if .op == "nat-bridge" then . + {claims: "\($run)/shared/bridge-stave0", holder: "web"} else . end;
        .steps |= map(.operations |= map(select(.op | IN("nat-address", "firewall-accept") | not) | plain | claimed))"#;
    let script = format!(
        "for file in web.json $STAVE_RUN/web.json; do
            jq -c --arg run $STAVE_RUN '{earlier}' $file > new && cat new > $file
        done
        ip link set dev $(ip -o link show master stave0 | sed 's/^[0-9]*: \\([^@]*\\).*/\\1/') alias ''
        ip link set dev stave0 alias ''
        nft flush set inet stave users; nft flush set inet stave addresses
        netns-bridge --check < web.json | veth-pair --check > /dev/null"
    );
    sandbox.sh(&script).ok();
    assert_gone(&sandbox, &before, "a record of the version before");
}

/// Whether a process with this name runs. One that has been told to end may take a moment.
fn runs(sandbox: &Sandbox, process: &str) -> bool {
    let ends = format!("for try in $(seq 25); do pgrep -x {process} > /dev/null || exit 1; sleep 0.02; done");
    sandbox.sh(&ends).status == 0
}

const GUARDED: &str =
    "netns-add -n --id web | bridge-attach back --subnet 10.55.0.0/24 | egress-allow 10.0.0.0/8 > web.json";

/// A process that stays behind a tool is looked for, and a call fails: that does not prove that it is gone.
#[test]
fn a_process_that_cannot_be_looked_at_is_not_forgotten() {
    let sandbox = sandbox();
    let served = "netns-add -n --id web | bridge-attach back --subnet 10.55.0.0/24 | name-serve > web.json";
    let held = "netns-bridge -n --id web | veth-pair | setpriv --bounding-set -sys_admin,-bpf portmap -p 8080:80 > web.json";
    let kinds = [
        ("egress-allow", "egress-allow", GUARDED),
        ("name-serve", "name-serve", served),
        ("portmap", "port-hold", held),
    ];
    for (tool, process, pipe) in kinds {
        sandbox.sh(&format!("{pipe}; unwind web > /dev/null")).ok();
        let before = sandbox.snapshot();
        let mut failed = 0;
        for (calls, most) in [("connect", 2), ("getsockopt", 3), ("poll", 2), ("ppoll", 3)] {
            for at in 1..=most {
                sandbox.sh(&format!("{pipe}; pgrep -x {process}")).ok();
                let fail = failing(calls, "ENOMEM", at);
                let undone = sandbox.sh(&format!("{fail} {tool} --undo < web.json > /dev/null"));
                let context = format!("{tool} --undo, call {at} of {calls}: {undone:?}");
                failed += usize::from(sandbox.sh("grep -q INJECTED trace").status == 0);
                assert!(undone.status == 0 || undone.stderr.contains("Out of memory"), "{context}");
                assert!(undone.status != 0 || !runs(&sandbox, process), "{context}");
                assert_gone(&sandbox, &before, &context);
                assert!(!runs(&sandbox, process), "{context}");
            }
        }
        assert!(failed >= 4, "{tool}: only {failed} calls failed");
    }
}

/// An earlier version took the process for gone, so the record lists only the table, which belongs to the process.
#[test]
fn a_table_is_removed_with_an_owner_that_the_record_does_not_list() {
    let sandbox = sandbox();
    sandbox.sh(&format!("{GUARDED}; unwind web > /dev/null")).ok();
    let before = sandbox.snapshot();
    sandbox.sh(GUARDED).ok();
    let lost = r#"jq '.steps[-1].operations |= map(select(.op != "egress-resolver"))' web.json > lost.json
        journal=$(jq -r '.steps[-1].operations[] | select(.op == "egress-resolver") | .journal' web.json)
        rm "$journal" && rmdir "${journal%/*}"
        cat lost.json > $STAVE_RUN/web.json"#;
    sandbox.sh(lost).ok();
    sandbox.sh("unwind web > /dev/null").ok();
    assert!(!runs(&sandbox, "egress-allow"));
    sandbox.assert_as(&before);
}

/// Where `/proc` shows no variables, as with systemd's ProcSubset=pid, nobody knows whether the host forwards.
#[test]
fn forwarding_that_cannot_be_seen_is_not_forgotten() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    for hide in ["mount -t proc -o subset=pid proc /proc", "mount -t tmpfs none /proc/sys/net"] {
        sandbox.sh(PIPE).ok();
        let hidden = sandbox.sh(&format!("unshare --mount sh -c '{hide} && unwind web > /dev/null'"));
        let said = "net.ipv4.ip_forward: No such file or directory (/proc/sys is not visible here)\n";
        assert!(hidden.status == 1 && hidden.stderr.ends_with(said), "{hide}: {hidden:?}");
        assert_gone(&sandbox, &before, hide);
    }
}
