//! Two containers on a host whose firewall may drop their packets.

#![allow(dead_code)] // Each test uses a part of it.

use testkit::{HOST, OUTSIDE, Sandbox};

/// A host, and a neighbour outside with a route to the containers. Both have a server on port 80.
pub(crate) fn host() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox
        .sh("echo 0 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables")
        .ok();
    sandbox.outside(&format!("ip route add 172.16.0.0/12 via {HOST}; {}", server("outside"))).ok();
    sandbox
}

/// A server in this network namespace that answers `name`.
pub(crate) fn server(name: &str) -> String {
    format!(
        "socat TCP4-LISTEN:80,fork,reuseaddr SYSTEM:'echo {name}' > /dev/null 2>&1 < /dev/null & \
         until ss -Hlnt | grep -q ':80 '; do sleep 0.01; done"
    )
}

/// Makes the containers a and b with these flags. Port 80 of a is published as 8080.
pub(crate) fn containers(sandbox: &Sandbox, flags: &str) {
    sandbox
        .sh(&format!(
            "netns-bridge -n --id a {flags} | veth-pair | portmap -p 8080:80 > a.json
             netns-bridge -n --id b {flags} | veth-pair > b.json"
        ))
        .ok();
    for id in ["a", "b"] {
        sandbox.sh(&format!("ip netns exec {id} sh -c \"{}\"", server(id))).ok();
    }
}

pub(crate) fn unwind(sandbox: &Sandbox, id: &str) {
    sandbox.sh(&format!("unwind < {id}.json > /dev/null")).ok();
}

pub(crate) fn address(sandbox: &Sandbox, id: &str) -> String {
    sandbox.sh(&format!("jq -j '.network.cni.ips[0].address | split(\"/\")[0]' {id}.json")).ok()
}

/// Who answers, in this order: a to a neighbour outside, by its published port; the neighbour to b; a to its
/// sibling b; and b to the neighbour, which must not reach it.
pub(crate) fn answers(sandbox: &Sandbox) -> [String; 4] {
    let ask = |to: &str, port: u16| {
        format!("timeout 2 socat -T1 - TCP4:{to}:{port},connect-timeout=0.3 < /dev/null 2> /dev/null || true")
    };
    let (a, b) = (address(sandbox, "a"), address(sandbox, "b"));
    let inside = |script: String| sandbox.sh(&format!("ip netns exec b {script}"));
    let outcomes = [
        sandbox.outside(&ask(HOST, 8080)),
        inside(ask(OUTSIDE, 80)),
        inside(ask(&a, 80)),
        sandbox.outside(&ask(&b, 80)),
    ];
    outcomes.map(|outcome| outcome.ok().trim().to_owned())
}

pub(crate) const THROUGH: [&str; 4] = ["a", "outside", "a", ""];
pub(crate) const DROPPED: [&str; 4] = ["", "", "", ""];

/// The output of `netns-bridge --check` for a, without its last line.
pub(crate) fn check(sandbox: &Sandbox) -> String {
    let checked = sandbox.sh("netns-bridge --check < a.json > /dev/null");
    let summary = "netns-bridge: 1 of the things that the document lists is not as listed\n";
    let said = checked.stderr.strip_suffix(summary).unwrap_or(&checked.stderr).to_owned();
    assert_eq!(checked.status != 0, !said.is_empty(), "{}", checked.stderr);
    said
}

pub(crate) fn repair(sandbox: &Sandbox) {
    sandbox.sh("netns-bridge --repair < a.json > /dev/null").ok();
}

pub(crate) const IN_IPTABLES: &str = "netns-bridge: missing: a rule for bridge \"stave0\" in chain FORWARD of table ip filter, which drops its \
    packets (--repair adds it)\n";
pub(crate) const IN_LEGACY: &str = "netns-bridge: missing: a rule for bridge \"stave0\" in chain FORWARD of table filter of iptables-legacy, which \
    drops its packets (--repair adds it)\n";

/// The rules as `iptables-save` prints them, without times and counts.
pub(crate) fn saved(sandbox: &Sandbox, program: &str) -> String {
    sandbox.sh(&format!("{program}-save | sed '/^#/d; s/ \\[.*//'")).ok()
}

pub(crate) const RULES: &str = "-A FORWARD -i stave0 -m comment --comment \"stave stave0\" -j ACCEPT\n\
    -A FORWARD -o stave0 -m comment --comment \"stave stave0\" -j ACCEPT\n";
