//! A host with an IPv6 wire, containers on it, and who answers whom.

use serde_json::Value;
use testkit::{Sandbox, Snapshot};

pub(crate) const HOST6: &str = "2001:db8::1";

/// A host without forwarding, with IPv6 on its outside link. The outside routes the subnets of the
/// tests to it.
pub(crate) fn sandbox() -> (Sandbox, Snapshot) {
    let sandbox = Sandbox::new();
    sandbox
        .sh(&format!(
            "echo 0 > /proc/sys/net/ipv4/ip_forward; ip address add {HOST6}/64 dev out0 nodad; ip route add default via 2001:db8::2"
        ))
        .ok();
    sandbox
        .outside(&format!(
            "ip address add 2001:db8::2/64 dev eth0 nodad; ip route add fd01:5::/64 via {HOST6}; ip route add 10.5.0.0/24 via 192.0.2.1"
        ))
        .ok();
    let before = sandbox.snapshot();
    let server = "socat TCP6-LISTEN:99,fork,reuseaddr SYSTEM:'read q; echo outside $SOCAT_PEERADDR' >/dev/null 2>&1 </dev/null &";
    sandbox.outside(&format!("{server} until ss -Hlnt | grep -q ':99 '; do sleep 0.01; done")).ok();
    (sandbox, before)
}

pub(crate) const DUAL: &str = "bridge-attach front --subnet 10.5.0.0/24 --subnet6 fd01:5::/64";

#[track_caller]
pub(crate) fn start(sandbox: &Sandbox, id: &str, attach: &str) -> Value {
    let document = sandbox.sh(&format!("netns-add -n --id {id} | {attach} | tee {id}.json")).json();
    sandbox.serve(id, "TCP6-LISTEN:80", id);
    document
}

/// The container's IPv6 address.
pub(crate) fn address(document: &Value) -> String {
    let cidr = document["networks"][0]["cni"]["ips"][1]["address"].as_str().unwrap();
    cidr.split('/').next().unwrap().to_owned()
}

/// Checks a table of requests: who asks, whom, and the answer. Addresses are as socat shows them:
/// `[fd01:0005:…]`.
#[track_caller]
pub(crate) fn traffic(sandbox: &Sandbox, when: &str, table: &[(&str, &str, &str)]) {
    for (from, to, answer) in table {
        let version = if to.starts_with('[') { "TCP6" } else { "TCP4" };
        let limit = if answer.is_empty() { "0.3" } else { "5" };
        let ask = format!("echo ? | timeout {limit} socat -t1 - {version}:{to} 2>/dev/null || true");
        let told = sandbox.within(from, &ask).ok();
        let told = told.trim();
        let matches = if answer.is_empty() { told.is_empty() } else { told.starts_with(answer) };
        assert!(matches, "{from} asks {to} {when}: {told:?}, not {answer:?}");
    }
}

/// An address with all its digits, as socat shows it.
pub(crate) fn long(address: &str) -> String {
    let address: std::net::Ipv6Addr = address.parse().unwrap();
    let groups: Vec<String> = address.segments().iter().map(|group| format!("{group:04x}")).collect();
    format!("[{}]", groups.join(":"))
}

/// Checks the table, also after another program has flushed the ruleset, and that the documents hold.
#[track_caller]
pub(crate) fn stands(sandbox: &Sandbox, table: &[(&str, &str, &str)]) {
    traffic(sandbox, "at the start", table);
    sandbox.sh("nft flush ruleset; net-repair --all > /dev/null").ok();
    traffic(sandbox, "after a flush", table);
    sandbox.sh("bridge-attach --check < a.json | portmap --check > /dev/null").ok();
}
