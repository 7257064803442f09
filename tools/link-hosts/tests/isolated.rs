//! Links between containers that a bridge isolates from each other, with real traffic.
#![allow(clippy::unwrap_used)]

use testkit::{Sandbox, Snapshot};

const APART: &str = "bridge-attach front --subnet 10.5.0.0/24 --icc=false";
/// The image of the container that the others have a link to.
const EXPOSED: &str = r#"jq -c '.image = {reference: "db", descriptor: {mediaType: "application/vnd.oci.image.manifest.v1+json", digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", size: 0}, configuration: {architecture: "amd64", os: "linux", config: {ExposedPorts: {"80/tcp": {}}}, rootfs: {type: "layers", diff_ids: []}}}'"#;

fn sandbox() -> (Sandbox, Snapshot) {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    (sandbox, before)
}

/// Makes the container `id`, with a server for each of these ports.
#[track_caller]
fn start(sandbox: &Sandbox, id: &str, rest: &str, ports: &[u16]) {
    sandbox.sh(&format!("echo '{{}}' | netns-add --id {id} | {rest} > {id}.json")).ok();
    for port in ports {
        sandbox.serve(id, &format!("TCP4-LISTEN:{port}"), id);
    }
}

/// Checks a table of requests: who asks, whom, and the answer.
#[track_caller]
fn traffic(sandbox: &Sandbox, when: &str, table: &[(&str, &str, &str)]) {
    for (from, to, answer) in table {
        let wait = if answer.is_empty() { "0.5" } else { "3" };
        let ask = format!("echo ? | timeout {wait} socat -t2 - TCP4:{to} 2>/dev/null || true");
        assert_eq!(sandbox.within(from, &ask).ok().trim(), *answer, "{from} asks {to} {when}");
    }
}

fn ping(sandbox: &Sandbox, from: &str, to: &str) -> bool {
    sandbox.within(from, &format!("busybox ping -c 1 -W 1 {to} > /dev/null")).status == 0
}

fn filtered(sandbox: &Sandbox, to: u8) {
    sandbox
        .sh(&format!("echo {to} > /proc/sys/net/bridge/bridge-nf-call-iptables 2> /dev/null || true"))
        .ok();
}

#[test]
fn a_link_opens_the_exposed_ports_and_nothing_else() {
    let (sandbox, before) = sandbox();
    // 10.5.0.2 to 10.5.0.4.
    start(&sandbox, "db", &format!("{EXPOSED} | {APART} | portmap -p 8443:443"), &[80, 81, 443]);
    start(&sandbox, "web", &format!("{APART} | link-hosts --link db:base"), &[80]);
    start(&sandbox, "other", APART, &[80]);
    let table = [
        ("web", "10.5.0.2:80", "db 10.5.0.3"),
        ("web", "10.5.0.2:443", "db 10.5.0.3"),
        ("web", "10.5.0.2:81", ""),
        ("db", "10.5.0.3:80", ""),
        ("other", "10.5.0.2:80", ""),
        ("web", "10.5.0.4:80", ""),
    ];
    for bridged in [0, 1] {
        filtered(&sandbox, bridged);
        traffic(&sandbox, &format!("with bridge-nf-call-iptables {bridged}"), &table);
        assert!(!ping(&sandbox, "web", "10.5.0.2") && !ping(&sandbox, "db", "10.5.0.3"));
    }
    // Undo closes the ports, and the containers are as isolated as before.
    sandbox.sh("link-hosts --undo < web.json > undone.json").ok();
    traffic(&sandbox, "after undo", &[("web", "10.5.0.2:80", ""), ("web", "10.5.0.2:443", "")]);
    sandbox.sh("link-hosts --link db:base < undone.json > web.json").ok();
    traffic(&sandbox, "again", &table);
    // What is lost is restored.
    sandbox.sh("nft flush set inet stave linked").ok();
    let missing = sandbox.sh("link-hosts --check < web.json > /dev/null").exits(1).stderr;
    assert!(
        missing.starts_with("link-hosts: missing: element linked { 10.5.0.3 . 10.5.0.2 . tcp . "),
        "{missing}"
    );
    sandbox.sh("net-repair --all > /dev/null 2>&1 && link-hosts --check < web.json > /dev/null").ok();
    traffic(&sandbox, "after a repair", &table);
    end(&sandbox, "db web other");
    sandbox.assert_as(&before);
}

fn end(sandbox: &Sandbox, ids: &str) {
    sandbox.sh(&format!("unwind {ids} > /dev/null; pkill -P 1 socat || true")).ok();
    filtered(sandbox, 1);
}

#[test]
fn a_link_follows_the_container_and_never_the_address() {
    let (sandbox, before) = sandbox();
    start(&sandbox, "db", &format!("{EXPOSED} | {APART}"), &[80]);
    // Links come before or after the network.
    start(&sandbox, "web", &format!("link-hosts --link db | {APART}"), &[80]);
    traffic(&sandbox, "at the start", &[("web", "10.5.0.2:80", "db 10.5.0.3")]);
    // The next container with the address is another one.
    sandbox.sh("unwind db > /dev/null").ok();
    assert_eq!(
        sandbox.sh("nft -j list set inet stave linked | jq -c '.nftables[1].set.elem'").ok(),
        "null\n"
    );
    start(&sandbox, "thief", &format!("{EXPOSED} | {APART} --ip 10.5.0.2"), &[80]);
    traffic(&sandbox, "with another container", &[("web", "10.5.0.2:80", "")]);
    sandbox.sh("net-repair --all > /dev/null 2>&1").ok();
    traffic(&sandbox, "after a repair", &[("web", "10.5.0.2:80", "")]);
    sandbox.sh("bridge-attach --check < web.json > /dev/null").ok();
    // The container is made again, at another address.
    start(&sandbox, "db", &format!("{EXPOSED} | {APART} --ip 10.5.0.9"), &[80, 81]);
    traffic(
        &sandbox,
        "again",
        &[
            ("web", "10.5.0.9:80", "db 10.5.0.3"),
            ("web", "10.5.0.9:81", ""),
            ("web", "10.5.0.2:80", ""),
            ("thief", "10.5.0.9:80", ""),
        ],
    );
    sandbox.sh("nft flush ruleset && net-repair --all > /dev/null 2>&1").ok();
    traffic(&sandbox, "after a flush", &[("web", "10.5.0.9:80", "db 10.5.0.3"), ("web", "10.5.0.2:80", "")]);
    end(&sandbox, "db web thief");
    sandbox.assert_as(&before);
}

/// A link opens the ports at the addresses of both versions of IP, and nothing else.
#[test]
fn a_link_by_ipv6() {
    let (sandbox, before) = sandbox();
    let both = format!("{APART} --subnet6 fd05::/64");
    for (id, at, more) in [("db", 2, EXPOSED), ("web", 3, "link-hosts --link db"), ("other", 4, "cat")] {
        let attach = format!("{both} --ip 10.5.0.{at} --ip6 fd05::{at}");
        sandbox.sh(&format!("netns-add -n --id {id} | {more} | {attach} > {id}.json")).ok();
        for port in [80, 81] {
            sandbox.serve(id, &format!("TCP6-LISTEN:{port}"), id);
        }
    }
    let entries = sandbox.sh("jq -c '[.hosts.entries[] | [.ip, .names[]]]' web.json").ok();
    assert_eq!(entries, "[[\"10.5.0.2\",\"db\"],[\"fd05::2\",\"db\"]]\n");
    let from_web = "db [fd05:0000:0000:0000:0000:0000:0000:0003]";
    let open = |answer: &str, version4: &str| {
        for (from, to, told) in [
            ("web", "TCP6:[fd05::2]:80", answer),
            ("web", "TCP4:10.5.0.2:80", version4),
            ("web", "TCP6:[fd05::2]:81", ""),
            ("db", "TCP6:[fd05::3]:80", ""),
            ("other", "TCP6:[fd05::2]:80", ""),
            ("web", "TCP6:[fd05::4]:80", ""),
        ] {
            assert_eq!(sandbox.ask(from, to), told, "{from} asks {to}");
        }
    };
    let ping =
        |to: &str| sandbox.within("web", &format!("busybox ping -6 -c 1 -W 1 {to} > /dev/null")).status;
    for bridged in [0, 1] {
        sandbox.sh(&format!("echo {bridged} > /proc/sys/net/bridge/bridge-nf-call-ip6tables || true")).ok();
        filtered(&sandbox, bridged);
        open(from_web, "db [0000:0000:0000:0000:0000:ffff:0a05:0003]");
        assert!(ping("fd05::2") != 0 && ping("fd05::4") != 0);
    }
    sandbox
        .sh("link-hosts --check < web.json > /dev/null; bridge-attach --check < web.json > /dev/null")
        .ok();
    // What is lost is restored.
    sandbox
        .sh("nft flush ruleset; ip -6 neigh flush proxy dev front; net-repair --all > /dev/null 2>&1")
        .ok();
    open(from_web, "db [0000:0000:0000:0000:0000:ffff:0a05:0003]");
    sandbox.sh("link-hosts --undo < web.json > undone.json").ok();
    open("", "");
    sandbox.sh("link-hosts --link db < undone.json > /dev/null").ok();
    open(from_web, "db [0000:0000:0000:0000:0000:ffff:0a05:0003]");
    end(&sandbox, "db web other");
    sandbox.sh("echo 1 > /proc/sys/net/bridge/bridge-nf-call-ip6tables || true").ok();
    sandbox.assert_as(&before);
}

#[test]
fn an_undone_link_stays_closed() {
    let (sandbox, before) = sandbox();
    start(&sandbox, "db", &format!("{EXPOSED} | {APART}"), &[80]);
    // In the second pipe, the step of the network opens the port.
    start(&sandbox, "web", &format!("{APART} | link-hosts --link db"), &[]);
    start(&sandbox, "late", &format!("link-hosts --link db | {APART}"), &[]);
    sandbox.sh("unwind db > /dev/null").ok();
    // The record of the other container lists the links from here on.
    start(&sandbox, "db", &format!("{EXPOSED} | {APART} --ip 10.5.0.9"), &[80]);
    let open = [("web", "10.5.0.9:80", "db 10.5.0.3"), ("late", "10.5.0.9:80", "db 10.5.0.4")];
    let closed = [("web", "10.5.0.9:80", ""), ("late", "10.5.0.9:80", "")];
    traffic(&sandbox, "made again", &open);
    sandbox.sh("link-hosts --undo < web.json > web2.json; link-hosts --undo < late.json > late2.json").ok();
    traffic(&sandbox, "undone", &closed);
    for lost in ["true", "nft flush ruleset"] {
        sandbox.sh(&format!("{lost}; net-repair --all > /dev/null 2>&1")).ok();
        traffic(&sandbox, &format!("after a repair behind {lost}"), &closed);
    }
    sandbox
        .sh("bridge-attach --check < db.json > /dev/null; bridge-attach --repair < db.json > /dev/null")
        .ok();
    traffic(&sandbox, "after a repair of one", &closed);
    // A later link opens the port again, and so does the repair.
    sandbox
        .sh("link-hosts --link db < web2.json > web.json; link-hosts --link db < late2.json > late.json")
        .ok();
    traffic(&sandbox, "linked again", &open);
    sandbox.sh("nft flush ruleset; net-repair --all > /dev/null 2>&1").ok();
    traffic(&sandbox, "after a flush", &open);
    // A container that is made again without the link does not have it, at the same address either.
    sandbox.sh("unwind web > /dev/null").ok();
    start(&sandbox, "web", &format!("{APART} --ip 10.5.0.3"), &[]);
    sandbox.sh("net-repair --all > /dev/null 2>&1").ok();
    traffic(&sandbox, "made again without the link", &closed[..1]);
    traffic(&sandbox, "beside it", &open[1..]);
    end(&sandbox, "db web late");
    sandbox.assert_as(&before);
}

#[test]
fn a_port_is_open_until_the_last_link_is_undone() {
    let (sandbox, before) = sandbox();
    start(&sandbox, "db", &format!("{EXPOSED} | {APART}"), &[80]);
    let twice = "link-hosts --link db:one | link-hosts --link db:two --link db:three";
    start(&sandbox, "web", &format!("{APART} | {twice}"), &[]);
    let table = |answer| [("web", "10.5.0.2:80", answer)];
    traffic(&sandbox, "with two links", &table("db 10.5.0.3"));
    sandbox.sh("link-hosts --undo < web.json > one.json").ok();
    traffic(&sandbox, "with one link", &table("db 10.5.0.3"));
    sandbox.sh("link-hosts --check < one.json > /dev/null").ok();
    sandbox.sh("nft flush ruleset; net-repair --all > /dev/null 2>&1").ok();
    traffic(&sandbox, "after a flush", &table("db 10.5.0.3"));
    sandbox.sh("link-hosts --undo < one.json > none.json").ok();
    traffic(&sandbox, "without a link", &table(""));
    // Undone in one call.
    sandbox.sh("link-hosts --link db:one < none.json | link-hosts --link db:two > web.json").ok();
    traffic(&sandbox, "with two links again", &table("db 10.5.0.3"));
    sandbox.sh("link-hosts --undo --steps 2 < web.json > /dev/null").ok();
    traffic(&sandbox, "after both", &table(""));
    end(&sandbox, "db web");
    sandbox.assert_as(&before);
}
