//! A bridge with gateway mode `routed`, with real traffic: who reaches a container at its own address, and
//! who must not.
#![allow(clippy::unwrap_used)]

use testkit::{HOST, Sandbox};

/// A host without forwarding, like a new machine. The outside world has routes to both subnets.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.sh("echo 0 > /proc/sys/net/ipv4/ip_forward").ok();
    sandbox
        .outside(&format!("for net in 10.5.0.0/24 172.17.0.0/16; do ip route add $net via {HOST}; done"))
        .ok();
    sandbox
}

fn start(sandbox: &Sandbox, id: &str, bridge: &str, ports: &str) {
    let portmap = if ports.is_empty() { "cat".to_owned() } else { format!("portmap {ports}") };
    sandbox.sh(&format!("netns-bridge -n --id {id} {bridge} | veth-pair | {portmap} > {id}.json")).ok();
}

const ROUTED: &str = "--bridge routed0 --subnet 10.5.0.0/24 --gateway-mode routed";

#[test]
fn ping_and_published_ports_are_answered_and_nothing_else() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    start(&sandbox, "web", ROUTED, "-p 8080:80 -p 127.0.0.2:8081:81");
    start(&sandbox, "other", ROUTED, "");
    start(&sandbox, "nat", "", "");
    for (id, port) in [("web", 80), ("web", 81), ("web", 82), ("other", 80)] {
        sandbox.serve(id, &format!("TCP4-LISTEN:{port}"), id);
    }
    let server = "socat TCP4-LISTEN:99,fork,reuseaddr SYSTEM:'read q; echo outside $SOCAT_PEERADDR' >/dev/null 2>&1 </dev/null &";
    sandbox.outside(&format!("{server} until ss -Hlnt | grep -q ':99 '; do sleep 0.01; done")).ok();
    let traffic = |when: &str| {
        for (from, to, answer) in [
            ("outside", "10.5.0.2:80", "web 192.0.2.2"),
            ("outside", "10.5.0.2:81", ""),
            ("outside", "10.5.0.2:82", ""),
            ("outside", "10.5.0.3:80", ""),
            ("outside", "192.0.2.1:8080", ""),
            ("outside", "192.0.2.1:8081", ""),
            ("host", "127.0.0.2:8081", "web 10.5.0.1"),
            ("host", "10.5.0.2:82", "web 10.5.0.1"),
            ("other", "10.5.0.2:82", "web 10.5.0.3"),
            ("nat", "10.5.0.2:80", "web 10.5.0.1"),
            ("nat", "10.5.0.2:82", ""),
            // With its own address, and not with the host's.
            ("web", "192.0.2.2:99", "outside 10.5.0.2"),
            ("nat", "192.0.2.2:99", "outside 192.0.2.1"),
        ] {
            assert_eq!(sandbox.ask(from, &format!("TCP4:{to}")), answer, "{from} asks {to} {when}");
        }
        for (address, answers) in [("10.5.0.2", true), ("10.5.0.3", true), ("172.17.0.2", false)] {
            let ping = sandbox.outside(&format!("busybox ping -c 1 -W 1 {address} > /dev/null"));
            assert_eq!(ping.status == 0, answers, "ping {address} {when}");
        }
    };
    traffic("at the start");
    sandbox.sh("nft flush ruleset").ok();
    // The next tool makes the table again.
    start(&sandbox, "later", ROUTED, "");
    traffic("after a flush");
    sandbox.sh("for tool in netns-bridge veth-pair portmap; do $tool --check < web.json > /dev/null || exit 1; done").ok();
    sandbox.sh("portmap --undo < web.json > undone.json").ok();
    assert_eq!(sandbox.ask("outside", "TCP4:10.5.0.2:80"), "");
    sandbox.sh("unwind web other nat later > /dev/null; pkill -P 1 socat || true").ok();
    sandbox.outside("pkill socat || true").ok();
    sandbox.assert_as(&before);
}

#[test]
fn the_document_says_where_a_port_answers() {
    let sandbox = sandbox();
    start(&sandbox, "web", ROUTED, "-p 8080:80 -p 8081:80 -p 53/udp -p 127.0.0.2:8082:82");
    let listed = "jq -c '.network.bridge.gatewayMode, [.ports[] | [.hostIP, .hostPort, .containerPort, .protocol]]' web.json";
    assert_eq!(
        sandbox.sh(listed).ok(),
        "\"routed\"\n[[\"10.5.0.2\",80,80,\"tcp\"],[\"10.5.0.2\",53,53,\"udp\"],[\"127.0.0.2\",8082,82,\"tcp\"]]\n"
    );
    // An open port stays open until the step that opened it is undone.
    sandbox
        .sh("portmap -p 9000:80 -p 81 < web.json > more.json && portmap --undo < more.json > web.json")
        .ok();
    assert_eq!(sandbox.sh("nft list set inet stave open | grep -c comment").ok(), "2\n");
    let refused = sandbox.sh("portmap -p 192.0.2.1:1:1 < web.json > refused.json").exits(1);
    let line = "portmap: ports of a container on a routed bridge are not published on 192.0.2.1\n\
                hint: leave out the address: the port is open at the container's own address\n";
    assert_eq!(refused.stderr, line);
}

#[test]
fn a_bridge_has_one_mode() {
    let sandbox = sandbox();
    start(&sandbox, "web", ROUTED, "");
    start(&sandbox, "nat", "", "");
    for (arguments, line) in [
        (
            "--bridge routed0",
            "bridge \"routed0\" has gateway mode routed, not nat\nhint: use it with --gateway-mode routed",
        ),
        (
            "--gateway-mode routed",
            "bridge \"stave0\" has gateway mode nat, not routed\nhint: use it with --gateway-mode nat",
        ),
    ] {
        let before = sandbox.snapshot();
        let refused = sandbox.sh(&format!("netns-bridge -n --id b {arguments} > b.json")).exits(1);
        assert_eq!(refused.stderr, format!("netns-bridge: {line}, or another --bridge\n"));
        sandbox.assert_as(&before);
    }
    // The mode is removed with the last container.
    sandbox
        .sh("unwind web > /dev/null; netns-bridge -n --id b --bridge routed0 --subnet 10.5.0.0/24 > b.json")
        .ok();
    assert_eq!(sandbox.sh("jq -r .network.bridge.gatewayMode b.json").ok(), "nat\n");
}

#[test]
fn addresses_are_leased_of_a_range() {
    let sandbox = sandbox();
    // A bridge that Stave did not make, on which another machine has one of the addresses.
    sandbox
        .sh("ip link add theirs0 type bridge && ip addr add 10.8.0.1/24 dev theirs0 && ip link set theirs0 up &&
             ip netns add theirs && ip link add t0 master theirs0 type veth peer name eth0 netns theirs && ip link set t0 up &&
             ip -n theirs addr add 10.8.0.65/24 dev eth0 && ip -n theirs link set eth0 up")
        .ok();
    let range = "--bridge theirs0 --ip-range 10.8.0.64/30";
    for (id, address) in [("a", "10.8.0.64/24"), ("b", "10.8.0.66/24"), ("c", "10.8.0.67/24")] {
        start(&sandbox, id, range, "");
        assert_eq!(sandbox.sh(&format!("jq -r .network.cni.ips[0].address {id}.json")).ok().trim(), address);
    }
    let full = sandbox.sh(&format!("netns-bridge -n --id d {range} | veth-pair > d.json")).exits(1);
    let line = "veth-pair: lease an address of 10.8.0.64/30: all 3 are in use\n\
                hint: unwind a container, or use a larger --ip-range or --subnet\n";
    assert_eq!(full.stderr, line);
    // Without a range, the rest of the subnet is used.
    sandbox.sh("unwind d > /dev/null; netns-bridge -n --id d --bridge theirs0 | veth-pair > d.json").ok();
    assert_eq!(sandbox.sh("jq -r .network.cni.ips[0].address d.json").ok(), "10.8.0.68/24\n");
    for (range, line) in [
        ("10.9.0.0/24", "range 10.9.0.0/24 is not in subnet 10.8.0.0/24\nhint: choose a part of the subnet"),
        ("10.0.0.0/8", "range 10.0.0.0/8 is not in subnet 10.8.0.0/24\nhint: choose a part of the subnet"),
        ("10.8.0.0/31", "range 10.8.0.0/31 of subnet 10.8.0.0/24 has no address for a container"),
        ("10.8.0.255/32", "range 10.8.0.255/32 of subnet 10.8.0.0/24 has no address for a container"),
    ] {
        let refused =
            sandbox.sh(&format!("netns-bridge -n --id e --bridge theirs0 --ip-range {range}")).exits(1);
        assert_eq!(refused.stderr, format!("netns-bridge: {line}\n"));
    }
}
