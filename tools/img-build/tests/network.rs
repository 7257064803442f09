//! The network of RUN.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::time::{Duration, Instant};

use testkit::Sandbox;

/// A host with an image, and a server outside that answers `page`.
fn host() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("mkdir web && echo page > web/index.html && mkdir context").ok();
    sandbox
        .sh("nsenter --net=/run/outside busybox httpd -p 192.0.2.2:80 -h web && echo 1 > /proc/sys/net/ipv4/ip_forward")
        .ok();
    sandbox
}

fn dockerfile(sandbox: &Sandbox, text: &str) {
    std::fs::write(sandbox.directory().join("context/Dockerfile"), text).unwrap();
}

const FETCH: &str = "FROM busybox\nRUN wget -q -O /page http://192.0.2.2/ && ip -o address show dev eth0 > /address\n\
                     RUN grep -q page /page && grep -q 172.17.0.2/16 /address\n";

#[test]
fn it_leads_out_and_ends_with_the_build() {
    let sandbox = host();
    sandbox.sh("mkdir -p /run/netns").ok();
    let links = || {
        sandbox
            .sh("ip -o link; ip netns; nft list ruleset; ls $STAVE_RUN | grep -v locks; cat /proc/sys/net/ipv4/ip_forward")
            .ok()
    };
    let at_first = links();
    dockerfile(&sandbox, FETCH);
    sandbox.sh("img-build -q -t fetched context > /dev/null").ok();
    assert_eq!(links(), at_first);
    // If all steps are cached, no network is made.
    let traced = sandbox.sh(
        "strace -f -qq -e trace=execve -o trace img-build -q -t fetched context > /dev/null; wc -l < trace",
    );
    assert_eq!(traced.ok().trim(), "1");
    // A step without a network, and a build without a network.
    dockerfile(&sandbox, "FROM busybox\nRUN --network=none test $(ls /sys/class/net) = lo\n");
    sandbox.sh("img-build -q context > /dev/null").ok();
    dockerfile(&sandbox, FETCH);
    let without = sandbox.sh("img-build -q --no-cache --network none context");
    assert!(without.exits(1).stderr.contains("hint: the step had no network"), "no hint");
    dockerfile(&sandbox, "FROM busybox\nRUN wget -q -O /page http://192.0.2.2/none\n");
    let failed = sandbox.sh("img-build -q context").exits(1).stderr;
    assert!(!failed.contains("hint: "), "it had a network: {failed}");
    assert_eq!(links(), at_first);
}

#[test]
fn a_killed_build_leaves_none() {
    let sandbox = host();
    dockerfile(&sandbox, "FROM busybox\nRUN touch /begun; sleep 1000\n");
    let state = "echo $(ip -o link show stave0 2> /dev/null | wc -l) $(ls /run/netns | wc -l) $(ls $STAVE_RUN | grep -c json) \
                 $(ls $STAVE_RUN/locks | grep -c 'build$')";
    // Files of a killed build must not be taken for the start of the next one.
    let begin = "rm -rf $STAVE_ROOT/build/*; img-build -q context > /dev/null 2>&1 & build=$!
        for try in $(seq 200); do ls $STAVE_ROOT/build/*/*/upper/begun > /dev/null 2>&1 && break; sleep 0.05; done";
    let wait_for = |expected: &str| {
        let begun = Instant::now();
        loop {
            let now = sandbox.sh(state).stdout;
            if now == expected || begun.elapsed() > Duration::from_secs(20) {
                return now;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    for signal in ["KILL", "TERM"] {
        let during = sandbox.sh(&format!("{begin}; {state}; kill -{signal} $build")).stdout;
        assert!(during.starts_with("1 1 "), "{during}");
        // The lock file stays until the next build.
        assert_eq!(wait_for("0 0 0 1\n"), "0 0 0 1\n", "{signal}");
    }
    // When the process that waits for the build's end is killed as well.
    for cleaner in ["img-gc -q", "img-build -q --no-cache next"] {
        sandbox.sh("mkdir -p next && printf 'FROM busybox\\nRUN true\\n' > next/Dockerfile").ok();
        sandbox.sh(&format!("{begin}; pkill -KILL -P $build unwind; kill -KILL $build")).ok();
        assert!(sandbox.sh(state).stdout.starts_with("1 1 "));
        sandbox.sh(&format!("{cleaner} > /dev/null")).ok();
        assert_eq!(sandbox.sh(state).stdout, "0 0 0 0\n", "{cleaner}");
    }
}

#[test]
fn where_none_can_be_made_the_build_goes_on() {
    let sandbox = host();
    dockerfile(&sandbox, "FROM busybox\nRUN true\nRUN test $(ls /sys/class/net) = lo\n");
    // A link that is no bridge already has the bridge's name.
    sandbox
        .sh("ip link add stave0 type dummy 2> /dev/null || ip link add stave0 type veth peer name x0")
        .ok();
    let before = sandbox.sh("ip -o link").ok();
    let outcome = sandbox.sh("img-build context > /dev/null");
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    assert_eq!(
        outcome
            .stderr
            .matches("img-build: warning: RUN has no network: the tools that make it failed\n")
            .count(),
        1
    );
    assert!(outcome.stderr.contains("\nnetns-bridge: "), "{}", outcome.stderr);
    assert_eq!(sandbox.sh("ip -o link").ok(), before);
}
