//! Several networks of one container, with real traffic: who reaches whom, and by which way.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use testkit::{HOST, Sandbox, Snapshot};

/// A host without forwarding, like a new machine. The outside routes all subnets of the tests to
/// it.
fn sandbox() -> (Sandbox, Snapshot) {
    let sandbox = Sandbox::new();
    sandbox.sh("echo 0 > /proc/sys/net/ipv4/ip_forward").ok();
    sandbox
        .outside(&format!("for net in 10.5.0.0/24 10.6.0.0/24; do ip route add $net via {HOST}; done"))
        .ok();
    let before = sandbox.snapshot();
    let server = "socat TCP4-LISTEN:99,fork,reuseaddr SYSTEM:'read q; echo outside $SOCAT_PEERADDR' >/dev/null 2>&1 </dev/null &";
    sandbox.outside(&format!("{server} until ss -Hlnt | grep -q ':99 '; do sleep 0.01; done")).ok();
    (sandbox, before)
}

const FRONT: &str = "bridge-attach front --subnet 10.5.0.0/24";
const BACK: &str = "bridge-attach back --subnet 10.6.0.0/24";

/// Attaches the container `id` with these commands.
#[track_caller]
fn start(sandbox: &Sandbox, id: &str, attach: &str) {
    sandbox.sh(&format!("netns-add -n --id {id} | {attach} > {id}.json")).ok();
    sandbox.serve(id, "TCP4-LISTEN:80", id);
}

/// Checks a table of requests: who asks, whom, and the answer.
#[track_caller]
fn traffic(sandbox: &Sandbox, when: &str, table: &[(&str, &str, &str)]) {
    for (from, to, answer) in table {
        let told = match *answer {
            // Without an answer the client waits, but need not wait long.
            "" => {
                let ask = format!("echo ? | timeout 0.3 socat -t1 - TCP4:{to} 2>/dev/null || true");
                sandbox.within(from, &ask).ok().trim().to_owned()
            }
            _ => sandbox.ask(from, &format!("TCP4:{to}")),
        };
        assert_eq!(told, *answer, "{from} asks {to} {when}");
    }
}

fn read(sandbox: &Sandbox, id: &str) -> Value {
    sandbox.sh(&format!("cat {id}.json")).json()
}

/// The interfaces of the list, with their bridges.
fn list(document: &Value) -> Vec<(&str, &str)> {
    let text = |value: &'_ Value| value.as_str().unwrap().to_owned().leak() as &str;
    let all = document["networks"].as_array().into_iter().flatten();
    all.map(|one| (text(&one["interface"]), text(&one["bridge"]["name"]))).collect()
}

fn end(sandbox: &Sandbox, ids: &str) {
    sandbox.sh(&format!("unwind {ids} > /dev/null; pkill -P 1 socat || true")).ok();
    sandbox.outside("pkill socat || true").ok();
}

#[test]
fn a_container_on_two_networks() {
    let (sandbox, before) = sandbox();
    start(&sandbox, "both", &format!("{FRONT} | {BACK}"));
    start(&sandbox, "front1", FRONT);
    start(&sandbox, "back1", BACK);
    let both = read(&sandbox, "both");
    assert_eq!(list(&both), [("eth0", "front"), ("eth1", "back")]);
    // Earlier tools look for the first attachment in `network`.
    assert_eq!(both["network"]["cni"], both["networks"][0]["cni"]);
    assert_eq!(
        (&both["network"]["bridge"]["name"], &both["network"]["mode"]),
        (&json!("front"), &json!("bridge"))
    );
    let table = [
        ("both", "10.5.0.3:80", "front1 10.5.0.2"),
        ("both", "10.6.0.3:80", "back1 10.6.0.2"),
        ("front1", "10.5.0.2:80", "both 10.5.0.3"),
        ("back1", "10.6.0.2:80", "both 10.6.0.3"),
        // Our networks are isolated from each other.
        ("front1", "10.6.0.3:80", ""),
        ("back1", "10.5.0.2:80", ""),
        ("host", "10.6.0.2:80", "both 10.6.0.1"),
        ("outside", "10.5.0.2:80", ""),
        ("both", "192.0.2.2:99", "outside 192.0.2.1"),
        ("back1", "192.0.2.2:99", "outside 192.0.2.1"),
    ];
    traffic(&sandbox, "at the start", &table);
    sandbox.sh("nft flush ruleset; net-repair --all > /dev/null").ok();
    traffic(&sandbox, "after a flush", &table);
    for tool in ["netns-add", "bridge-attach"] {
        sandbox.sh(&format!("{tool} --check < both.json > /dev/null")).ok();
    }
    // Undo removes exactly the last attachment, even of a running container. The other one stays.
    sandbox.sh("bridge-attach --undo < both.json > less.json").ok();
    let less = read(&sandbox, "less");
    assert_eq!(list(&less), [("eth0", "front")]);
    assert_eq!(less["network"], both["network"]);
    traffic(
        &sandbox,
        "after undo",
        &[("both", "10.5.0.3:80", "front1 10.5.0.2"), ("both", "10.6.0.3:80", "")],
    );
    sandbox.sh("bridge-attach back < less.json > both.json").ok();
    let again = read(&sandbox, "both");
    assert_eq!(list(&again), [("eth0", "front"), ("eth1", "back")]);
    traffic(&sandbox, "again", &[("both", "10.6.0.3:80", &format!("back1 {}", address(&again, 1)))]);
    end(&sandbox, "both front1 back1");
    sandbox.assert_as(&before);
}

/// The address of the attachment at this index.
fn address(document: &Value, at: usize) -> String {
    let cidr = document["networks"][at]["cni"]["ips"][0]["address"].as_str().unwrap();
    cidr.split('/').next().unwrap().to_owned()
}

#[test]
fn the_highest_priority_has_the_way_out() {
    let (sandbox, before) = sandbox();
    let way = |id: &str| sandbox.within(id, "ip route get 192.0.2.2").ok();
    start(&sandbox, "a", &format!("{FRONT} | {BACK}"));
    assert!(way("a").contains("dev eth0"), "{}", way("a"));
    start(&sandbox, "b", &format!("{FRONT} | {BACK} --gateway-priority 1 --interface wan"));
    assert!(way("b").contains("dev wan"), "{}", way("b"));
    start(&sandbox, "c", &format!("{FRONT} --gateway-priority -1 | {BACK}"));
    assert!(way("c").contains("dev eth1"), "{}", way("c"));
    // Ports lead to the attachment with the default route.
    sandbox.sh("portmap -p 8080:80 < b.json > ports.json").ok();
    traffic(&sandbox, "", &[("outside", "192.0.2.1:8080", "b 192.0.2.2")]);
    // No container gets the address while ports lead to it.
    let published = sandbox.sh("bridge-attach --undo < ports.json > refused.json").exits(1);
    assert_eq!(
        published.stderr,
        "bridge-attach: release address 10.6.0.3: host port 8080 leads to it\n\
         hint: undo portmap first: it releases the ports\n"
    );
    traffic(&sandbox, "after a refusal", &[("outside", "192.0.2.1:8080", "b 192.0.2.2")]);
    sandbox.sh("bridge-attach --check < ports.json | portmap --check > /dev/null").ok();
    // Without that attachment, the other one has the default route.
    sandbox.sh("portmap --undo < ports.json | bridge-attach --undo > less.json").ok();
    assert!(way("b").contains("dev eth0"), "{}", way("b"));
    sandbox.sh("netns-bridge -n --id d | veth-pair > d.json").ok();
    let late = sandbox.sh(&format!("{BACK} --gateway-priority 1 < d.json > /dev/null")).exits(1);
    assert_eq!(
        late.stderr,
        "bridge-attach: the default route by \"eth0\" comes before every --gateway-priority\n\
         hint: use netns-add and bridge-attach instead of netns-bridge and veth-pair\n"
    );
    sandbox.sh(&format!("{BACK} < d.json > e.json")).ok();
    assert_eq!(list(&read(&sandbox, "e")), [("eth0", "stave0"), ("eth1", "back")]);
    assert!(way("d").contains("dev eth0"), "{}", way("d"));
    end(&sandbox, "a b c d");
    sandbox.assert_as(&before);
}

#[test]
fn an_internal_network_has_no_way_out_and_no_way_in() {
    let (sandbox, before) = sandbox();
    let internal = format!("{FRONT} --internal");
    start(&sandbox, "a", &internal);
    start(&sandbox, "b", &internal);
    start(&sandbox, "c", BACK);
    assert_eq!(sandbox.within("a", "ip route show default").ok(), "");
    // A container that adds a route gets no further.
    sandbox.within("a", "ip route add default via 10.5.0.1").ok();
    let table = [
        ("a", "10.5.0.3:80", "b 10.5.0.2"),
        ("host", "10.5.0.2:80", "a 10.5.0.1"),
        ("a", "192.0.2.2:99", ""),
        ("a", "10.6.0.2:80", ""),
        ("outside", "10.5.0.2:80", ""),
        ("c", "10.5.0.2:80", ""),
    ];
    traffic(&sandbox, "at the start", &table);
    let refused = sandbox.sh("portmap -p 8080:80 < a.json > /dev/null").exits(1);
    assert_eq!(
        refused.stderr,
        "portmap: no port of the container can be published: its networks are internal\n\
         hint: attach it to another network first\n"
    );
    let other = sandbox.sh(&format!("netns-add -n --id d | {FRONT} > /dev/null")).exits(1);
    assert_eq!(
        other.stderr,
        "bridge-attach: bridge \"front\" is internal\nhint: use it with --internal, or another bridge\n"
    );
    // With another network, the container has a default route, and ports.
    sandbox.within("a", "ip route del default").ok();
    sandbox.sh(&format!("{BACK} < a.json | portmap -p 8080:80 > more.json")).ok();
    traffic(&sandbox, "with another", &[("outside", "192.0.2.1:8080", "a 192.0.2.2")]);
    end(&sandbox, "a b c d");
    sandbox.assert_as(&before);
}

/// What is refused beside networks without a gateway, and why.
const NO_GATEWAY: [(&str, &str); 6] = [
    ("bridge-attach quiet", "bridge \"quiet\" has no gateway"),
    ("bridge-attach quiet --subnet 10.7.0.0/24 --gateway 10.7.0.9", "bridge \"quiet\" has no gateway"),
    ("bridge-attach quiet --gateway none", "bridge \"quiet\" has no address that gives its subnet"),
    (
        "bridge-attach front --gateway none",
        "bridge \"front\" has address 10.5.0.1/24, and no gateway is wanted",
    ),
    (
        "bridge-attach new --gateway none --route 10.9.0.0/16",
        "route 10.9.0.0/16 has no next hop: the network has no gateway",
    ),
    (
        "bridge-attach new --gateway none --gateway-priority 1",
        "a network without a gateway has no way out for --gateway-priority",
    ),
];

#[test]
fn a_bridge_without_an_address() {
    let (sandbox, before) = sandbox();
    let quiet = "bridge-attach quiet --subnet 10.7.0.0/24 --gateway none";
    start(&sandbox, "a", quiet);
    start(&sandbox, "b", &format!("{quiet} --route '10.9.0.0/16 via 10.7.0.1'"));
    let one = &read(&sandbox, "a")["networks"][0];
    assert_eq!((one["bridge"].get("gateway"), one["cni"].get("routes")), (None, None));
    assert_eq!(one["cni"]["ips"], json!([{"address": "10.7.0.1/24", "interface": 2}]));
    assert_eq!(
        sandbox.sh("ip -br address show quiet | wc -w; cat /proc/sys/net/ipv4/ip_forward").ok(),
        "2\n0\n"
    );
    assert_eq!(
        sandbox.within("a", "ip route").ok(),
        "10.7.0.0/24 dev eth0 proto kernel scope link src 10.7.0.1 \n"
    );
    sandbox.outside(&format!("ip route add 10.7.0.0/24 via {HOST}")).ok();
    let table = [
        ("a", "10.7.0.2:80", "b 10.7.0.1"),
        ("host", "10.7.0.1:80", ""),
        ("outside", "10.7.0.1:80", ""),
        ("a", "192.0.2.2:99", ""),
    ];
    traffic(&sandbox, "at the start", &table);
    sandbox
        .sh("nft flush ruleset; net-repair --all > /dev/null; bridge-attach --check < a.json > /dev/null")
        .ok();
    traffic(&sandbox, "after a flush", &table);
    start(&sandbox, "c", FRONT);
    for (stage, told) in NO_GATEWAY {
        let refused = sandbox.sh(&format!("netns-add -n --id d | {stage} > /dev/null")).exits(1);
        assert_eq!(refused.stderr.lines().next(), Some(&*format!("bridge-attach: {told}")), "{stage}");
        sandbox.sh("unwind d > /dev/null").ok();
    }
    let refused = sandbox.sh("portmap -p 8080:80 < a.json > /dev/null").exits(1).stderr;
    let told = "portmap: no port of the container can be published: its networks have no gateway\n";
    assert!(refused.starts_with(told), "{refused}");
    // Both versions of IP, and another network beside.
    let v6 = "bridge-attach six --subnet 10.8.0.0/24 --subnet6 fd01:8::/64 --gateway none";
    start(&sandbox, "e", &format!("{v6} | {FRONT} | portmap -p 8080:80"));
    traffic(
        &sandbox,
        "beside",
        &[("outside", "192.0.2.1:8080", "e 192.0.2.2"), ("e", "192.0.2.2:99", "outside 192.0.2.1")],
    );
    let six = sandbox
        .sh("ip -br address show six; ip -n e -6 route show default; ip -n e -br -6 address show eth0")
        .ok();
    assert!(six.contains("fd01:8::") && !six.contains("default") && !six.contains("10.8.0."), "{six}");
    end(&sandbox, "a b c e");
    sandbox.outside("ip route del 10.7.0.0/24").ok();
    sandbox.assert_as(&before);
}

/// The bridge of somebody else has an address for itself, which is no gateway then.
#[test]
fn without_a_gateway_on_the_bridge_of_somebody_else() {
    let (sandbox, before) = sandbox();
    sandbox.sh("ip link add br9 type bridge; ip address add 10.7.1.1/24 dev br9; ip link set br9 up").ok();
    start(&sandbox, "a", "bridge-attach br9 --gateway none");
    let a = read(&sandbox, "a");
    assert_eq!((address(&a, 0).as_str(), a["networks"][0]["bridge"].get("gateway")), ("10.7.1.2", None));
    assert_eq!(sandbox.within("a", "ip route show default").ok(), "");
    traffic(&sandbox, "by the bridge", &[("host", "10.7.1.2:80", "a 10.7.1.1")]);
    let other = sandbox.sh("netns-add -n --id b | bridge-attach br9 > /dev/null").exits(1).stderr;
    let told = "bridge-attach: bridge \"br9\" has containers without a gateway\nhint: use it with --gateway none, or another bridge\n";
    assert_eq!(other, told);
    sandbox.sh("unwind b > /dev/null").ok();
    // What others forward by the bridge is not ours: a machine of theirs on it goes on.
    sandbox
        .sh("echo 1 > /proc/sys/net/ipv4/ip_forward; netns-add -n --id vm > vm.json; ip link add vm0 type veth peer eth0 netns vm
             ip link set vm0 master br9 up; ip -n vm address add 10.7.1.9/24 dev eth0; ip -n vm link set eth0 up
             ip -n vm route add default via 10.7.1.1; netns-add -n --id c | bridge-attach br9 --gateway none --ip 10.7.1.3 > c.json")
        .ok();
    sandbox.outside("ip route add 10.7.1.0/24 via 192.0.2.1").ok();
    sandbox.serve("c", "TCP4-LISTEN:80", "c");
    let table = [("vm", "192.0.2.2:99", "outside 10.7.1.9"), ("vm", "10.7.1.3:80", "c 10.7.1.9")];
    traffic(&sandbox, "beside a machine", &table);
    sandbox.sh("unwind c vm > /dev/null; ip link del vm0; echo 0 > /proc/sys/net/ipv4/ip_forward").ok();
    sandbox.outside("ip route del 10.7.1.0/24").ok();
    end(&sandbox, "a");
    assert!(sandbox.sh("ip -br -4 address show br9; ip link del br9").ok().contains("10.7.1.1/24"));
    sandbox.assert_as(&before);
}

#[test]
fn containers_that_are_kept_from_each_other() {
    let (sandbox, before) = sandbox();
    let apart = format!("{FRONT} --icc=false");
    start(&sandbox, "a", &apart);
    start(&sandbox, "b", &format!("{apart} | portmap -p 8080:80"));
    // br_netfilter makes the bridge forward a translated packet, and the bridge keeps the ports
    // apart.
    let filtered = sandbox.sh("cat /proc/sys/net/bridge/bridge-nf-call-iptables 2> /dev/null || echo 0").ok();
    let published = if filtered == "1\n" { "" } else { "b 10.5.0.1" };
    let table = [
        ("a", "10.5.0.3:80", ""),
        ("b", "10.5.0.2:80", ""),
        // They reach each other by published ports, and the host and the outside are reachable.
        ("a", "192.0.2.1:8080", published),
        ("host", "10.5.0.3:80", "b 10.5.0.1"),
        ("outside", "192.0.2.1:8080", "b 192.0.2.2"),
        ("a", "192.0.2.2:99", "outside 192.0.2.1"),
    ];
    traffic(&sandbox, "at the start", &table);
    // The host does not forward packets from one to the other either.
    sandbox.within("a", "ip route add 10.5.0.3 via 10.5.0.1").ok();
    sandbox.within("b", "ip route add 10.5.0.2 via 10.5.0.1").ok();
    traffic(&sandbox, "by the host", &table);
    sandbox.sh("ip link set $(jq -r '.networks[0].cni.interfaces[1].name' a.json) type bridge_slave isolated off").ok();
    let missing = sandbox.sh("bridge-attach --check < a.json > /dev/null").exits(1).stderr;
    assert!(missing.starts_with("bridge-attach: missing: isolation of link \"v"), "{missing}");
    sandbox.sh("net-repair a > /dev/null 2>&1; bridge-attach --check < a.json > /dev/null").ok();
    end(&sandbox, "a b");
    sandbox.assert_as(&before);
}

#[test]
fn addresses_and_routes_are_as_they_are_asked_for() {
    let (sandbox, before) = sandbox();
    let asked = "--ip 10.5.0.77 --mac-address 02:00:00:00:00:07 --route '10.9.0.0/16 via 10.5.0.9' --route 10.10.0.1 --mtu 1400";
    start(&sandbox, "a", &format!("{FRONT} {asked}"));
    let shown = sandbox.within("a", "ip -br -4 addr show eth0; ip -br link show eth0; ip route").ok();
    for part in ["10.5.0.77/24", "02:00:00:00:00:07", "10.9.0.0/16 via 10.5.0.9", "10.10.0.1 via 10.5.0.1"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let cni = read(&sandbox, "a")["networks"][0]["cni"].clone();
    assert_eq!(cni["ips"][0]["address"], "10.5.0.77/24");
    assert_eq!(cni["routes"][1], json!({"dst": "10.9.0.0/16", "gw": "10.5.0.9"}));
    assert_eq!(
        (&cni["interfaces"][2]["mac"], &cni["interfaces"][2]["mtu"]),
        (&json!("02:00:00:00:00:07"), &json!(1400))
    );
    for (flags, told) in [
        ("--ip 10.5.0.77", "address 10.5.0.77 is taken by container \"a\""),
        ("--ip 10.5.0.1", "address 10.5.0.1 is taken by bridge \"front\""),
        ("--ip 10.5.0.0", "address 10.5.0.0 of subnet 10.5.0.0/24 is not one of a container"),
        ("--ip 10.5.0.255", "address 10.5.0.255 of subnet 10.5.0.0/24 is not one of a container"),
        ("--ip 10.6.0.2", "address 10.6.0.2 is not in subnet 10.5.0.0/24"),
        (
            "--route '10.9.0.0/16 via 10.6.0.9'",
            "next hop 10.6.0.9 of route 10.9.0.0/16 is not in subnet 10.5.0.0/24",
        ),
    ] {
        let refused = sandbox.sh(&format!("netns-add -n --id b | {FRONT} {flags} > /dev/null")).exits(1);
        assert_eq!(refused.stderr.lines().next(), Some(&*format!("bridge-attach: {told}")), "{flags}");
        sandbox.sh("unwind b > /dev/null").ok();
    }
    for (attach, told) in [
        ("bridge-attach front", "the container is on bridge \"front\" already"),
        ("bridge-attach back --interface eth0", "interface \"eth0\" is taken by network \"front\""),
    ] {
        let refused = sandbox.sh(&format!("{attach} < a.json > /dev/null")).exits(1);
        assert_eq!(refused.stderr.lines().next(), Some(&*format!("bridge-attach: {told}")));
    }
    sandbox.sh("bridge-attach front --mac-address 01:00:00:00:00:07 -n > /dev/null").exits(2);
    end(&sandbox, "a");
    sandbox.assert_as(&before);
}

/// netns-bridge leaves the first interface to veth-pair. Together they make one attachment.
#[test]
fn the_older_tools_beside() {
    let (sandbox, before) = sandbox();
    sandbox.sh(&format!("netns-bridge -n --id a | {BACK} | veth-pair > a.json")).ok();
    let document = read(&sandbox, "a");
    assert_eq!(list(&document), [("eth1", "back"), ("eth0", "stave0")]);
    assert_eq!(document["network"]["cni"], document["networks"][1]["cni"]);
    // The lower step first.
    sandbox.sh("bridge-attach --undo < a.json > b.json").ok();
    assert_eq!(list(&read(&sandbox, "b")), [("eth0", "stave0")]);
    sandbox.sh("veth-pair --undo < b.json | netns-bridge --undo > c.json").ok();
    assert_eq!(read(&sandbox, "c").get("networks"), None);
    sandbox.sh("netns-add -n --id b | veth-pair > /dev/null").exits(1);
    end(&sandbox, "b");
    sandbox.assert_as(&before);
}

/// They share a network namespace, and so the bridge and its addresses.
#[test]
fn run_directories_that_start_at_once_draw_different_addresses() {
    let sandbox = Sandbox::new();
    // Each keeps the value from before itself.
    sandbox.sh("echo 1 > /proc/sys/net/ipv4/ip_forward").ok();
    let before = sandbox.snapshot();
    let pipe = "netns-add -n --id c$i | bridge-attach front --subnet 10.5.0.0/24 | jq -r '.networks[0].cni.ips[0].address'";
    let all = format!(
        "for i in $(seq 12); do (export STAVE_RUN=/run/r$i; {pipe} > address.$i 2>> errors) & done; wait; cat errors"
    );
    assert_eq!(sandbox.sh(&all).ok(), "");
    let addresses = sandbox.sh("cat address.* | sort -u | grep -c 10.5.0").ok();
    assert_eq!(addresses, "12\n");
    sandbox.sh("for i in $(seq 12); do (STAVE_RUN=/run/r$i unwind c$i > /dev/null && rm -r /run/r$i) & done; wait").ok();
    sandbox.assert_as(&before);
}
