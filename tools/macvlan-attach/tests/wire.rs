//! Containers on the wire of a link of the host, with real traffic. The parent is a veth whose other side is
//! the outside world.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Sandbox, Snapshot, wait_for};

/// A host on a wire with a server, and a link that is called like the container's.
fn sandbox() -> (Sandbox, Snapshot) {
    let sandbox = Sandbox::new();
    sandbox.sh("ip link add eth0 type veth peer name eth9").ok();
    let before = sandbox.snapshot();
    let server = "socat TCP4-LISTEN:99,fork,reuseaddr SYSTEM:'read q; echo outside $SOCAT_PEERADDR' >/dev/null 2>&1 </dev/null &";
    sandbox.outside(&format!("{server} until ss -Hlnt | grep -q ':99 '; do sleep 0.01; done")).ok();
    (sandbox, before)
}

/// Attaches the container `id`, which then answers.
#[track_caller]
fn start(sandbox: &Sandbox, id: &str, attach: &str) {
    sandbox.sh(&format!("netns-add -n --id {id} | {attach} > {id}.json")).ok();
    sandbox.serve(id, "TCP4-LISTEN:80", id);
}

#[track_caller]
fn end(sandbox: &Sandbox, ids: &str, before: &Snapshot) {
    sandbox.sh(&format!("unwind {ids} > /dev/null; pkill -P 1 socat || true")).ok();
    sandbox.outside("pkill socat || true").ok();
    sandbox.assert_as(before);
}

fn read(sandbox: &Sandbox, file: &str) -> Value {
    sandbox.sh(&format!("cat {file}.json")).json()
}

/// Asks without waiting long for an answer.
fn tries(sandbox: &Sandbox, from: &str, to: &str) -> String {
    let ask = format!("echo ? | timeout 0.3 socat -t1 - TCP4:{to} 2>/dev/null || true");
    sandbox.within(from, &ask).ok().trim().to_owned()
}

#[test]
fn containers_on_the_hosts_wire() {
    let (sandbox, before) = sandbox();
    // The router's address is that of the default route. A station has the next one.
    sandbox.outside("ip address add 192.0.2.3/24 dev eth0").ok();
    start(&sandbox, "a", "macvlan-attach");
    start(&sandbox, "b", "macvlan-attach --parent out0");
    let a = read(&sandbox, "a");
    let one = &a["networks"][0];
    assert_eq!(
        (&one["name"], &one["interface"], &a["network"]["mode"]),
        (&json!("out0"), &json!("eth0"), &json!("macvlan"))
    );
    let parent = json!({"name": "out0", "driver": "macvlan", "mode": "bridge", "subnet": "192.0.2.0/24", "gateway": "192.0.2.2"});
    assert_eq!(one["parent"], parent);
    let inside = json!({"name": "eth0", "mac": "02:42:c0:00:02:04", "mtu": 1500, "sandbox": "/run/netns/a"});
    assert_eq!(one["cni"]["interfaces"], json!([inside]));
    assert_eq!(
        one["cni"]["ips"],
        json!([{"address": "192.0.2.4/24", "gateway": "192.0.2.2", "interface": 0}])
    );
    for (from, to, answer) in [
        ("outside", "192.0.2.4:80", "a 192.0.2.2"),
        ("a", "192.0.2.2:99", "outside 192.0.2.4"),
        ("a", "192.0.2.5:80", "b 192.0.2.4"),
    ] {
        assert_eq!(sandbox.ask(from, &format!("TCP4:{to}")), answer, "{from} asks {to}");
    }
    assert_eq!(tries(&sandbox, "host", "192.0.2.4:80"), "", "the host does not reach it");
    let way = sandbox.within("a", "ip route get 198.51.100.1").ok();
    assert!(way.contains("via 192.0.2.2 dev eth0"), "{way}");
    let taken = sandbox.sh("netns-add -n --id c | macvlan-attach --ip 192.0.2.3 > c.json").exits(1);
    assert_eq!(
        taken.stderr,
        "macvlan-attach: address 192.0.2.3 is taken by a station on link \"out0\"\n\
         hint: choose another with --ip, or leave it out\n"
    );
    // Undo of a running container.
    sandbox.sh("macvlan-attach --undo < b.json > less.json").ok();
    let less = read(&sandbox, "less");
    assert_eq!((less.get("networks"), &less["network"]["mode"]), (None, &json!("none")));
    assert_eq!(tries(&sandbox, "outside", "192.0.2.5:80"), "");
    sandbox.sh("macvlan-attach --undo < less.json > /dev/null").ok();
    end(&sandbox, "a b c", &before);
}

#[test]
fn modes_addresses_and_routes() {
    let (sandbox, before) = sandbox();
    let asked = "--ip 192.0.2.77 --mac-address 02:00:00:00:00:07 --route '10.9.0.0/16 via 192.0.2.9' --mtu 1400 --interface wan";
    start(&sandbox, "a", &format!("macvlan-attach lan --parent out0 --mode private --internal {asked}"));
    let v6 = "--subnet6 fd01:2::/64 --gateway none --ip6 fd01:2::7 --ip-range 192.0.2.128/28";
    start(&sandbox, "b", &format!("macvlan-attach lan --parent out0 --mode private {v6}"));
    let shown = sandbox.within("a", "ip -br -4 addr show wan; ip -d link show wan; ip route").ok();
    for part in [
        "192.0.2.77/24",
        "02:00:00:00:00:07",
        "mtu 1400",
        "macvlan mode private",
        "10.9.0.0/16 via 192.0.2.9",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("default via"), "{shown}");
    assert_eq!(read(&sandbox, "a")["networks"][0]["name"], "lan");
    let shown = sandbox.within("b", "ip -br addr show eth0; ip route; ip -6 route").ok();
    assert!(shown.contains("192.0.2.128/24") && shown.contains("fd01:2::7/64"), "{shown}");
    assert!(!shown.contains("default"), "{shown}");
    assert_eq!(tries(&sandbox, "a", "192.0.2.128:80"), "", "private");
    assert_eq!(sandbox.ask("outside", "TCP4:192.0.2.77:80"), "a 192.0.2.2");
    sandbox.outside("ip address add fd01:2::1/64 dev eth0 nodad").ok();
    sandbox.serve("b", "TCP6-LISTEN:81", "b");
    // If a neighbour has not answered the first solicitation, the kernel asks again after a second.
    wait_for("an answer", Duration::from_secs(10), || {
        sandbox.ask("outside", "TCP6:[fd01:2::7]:81").starts_with("b [fd01:0002:")
    });
    end(&sandbox, "a b", &before);
}

/// Attachments that are refused, and why. Without a reason, any will do.
const REFUSED: &[(&str, &str)] = &[
    ("macvlan-attach --parent nowhere", "no interface \"nowhere\""),
    // One that is down is a parent as well.
    ("macvlan-attach --parent eth0", "link \"eth0\" has no IPv4 address that gives its subnet"),
    (
        "macvlan-attach --parent eth0.7 --subnet 10.9.0.0/24",
        "link \"eth0\", which would carry VLAN 7, is down",
    ),
    ("macvlan-attach --parent lo", "link \"lo\" is not connected to a network"),
    ("macvlan-attach --parent br9p", "link \"br9p\" is a port of \"br9\""),
    ("macvlan-attach --parent br9", "link \"br9\" has no IPv4 address that gives its subnet"),
    ("macvlan-attach lan", "no network \"lan\""),
    ("macvlan-attach --mtu 9000", "the MTU 9000 is larger than that of link \"out0\", 1500"),
    (
        "macvlan-attach --mode passthru --mac-address 02:00:00:00:00:07",
        "a macvlan mode passthru has the hardware address of its parent",
    ),
    ("macvlan-attach --ip6 fd01:2::9", "the network has no IPv6 subnet"),
    ("macvlan-attach --ip 192.0.2.1", "address 192.0.2.1 is taken by link \"out0\""),
    ("macvlan-attach --ip 192.0.2.2", "address 192.0.2.2 is taken by the gateway"),
    (
        "macvlan-attach --gateway none --route 10.9.0.0/16",
        "route 10.9.0.0/16 has no next hop: the network has no gateway",
    ),
    (
        "macvlan-attach --gateway none --gateway-priority 1",
        "a network without a gateway has no way out for --gateway-priority",
    ),
    (
        "macvlan-attach --subnet 10.0.0.0/24 --gateway 10.1.0.1",
        "address 10.1.0.1 is not in subnet 10.0.0.0/24",
    ),
    (
        "macvlan-attach --gateway 192.0.2.2 --gateway 192.0.2.3",
        "192.0.2.2 and 192.0.2.3 are two gateways of one version of IP",
    ),
    ("macvlan-attach | macvlan-attach --parent out0", "the container is on link \"out0\" already"),
    ("macvlan-attach --interface ../x", ""),
];

#[test]
fn what_cannot_be_attached() {
    let (sandbox, before) = sandbox();
    for (attach, told) in REFUSED {
        let ports = "ip link add br9 type bridge; ip link set br9 up; ip link add br9p type veth peer name br9q; ip link set br9p up master br9";
        let refused = sandbox.sh(&format!("{ports}; netns-add -n --id c | {attach} > c.json"));
        assert_ne!(refused.status, 0, "{attach}");
        if !told.is_empty() {
            assert_eq!(refused.stderr.lines().next(), Some(&*format!("macvlan-attach: {told}")), "{attach}");
        }
        sandbox.sh("unwind c > /dev/null; ip link del br9p; ip link del br9").ok();
    }
    end(&sandbox, "", &before);
}

/// They share the host's links, and have leases of their own. The kernel compares the interfaces of a parent.
#[test]
fn another_run_directory() {
    let (sandbox, before) = sandbox();
    sandbox.sh("netns-add -n --id a | macvlan-attach > a.json").ok();
    let other = |flags: &str| {
        sandbox.sh(&format!(
            "export STAVE_RUN=/run/other; netns-add -n --id b | macvlan-attach {flags} > b.json"
        ))
    };
    assert_eq!(
        other("").exits(1).stderr,
        "macvlan-attach: set up link \"eth0\" in /run/netns/b: Address already in use\n\
         hint: another link of the parent has the hardware address, which is derived from the IP address: choose another with --ip or --mac-address\n"
    );
    sandbox.sh("STAVE_RUN=/run/other unwind b > /dev/null").ok();
    other("--ip 192.0.2.9").ok();
    sandbox.sh("STAVE_RUN=/run/other unwind b > /dev/null && rm -r /run/other; unwind a > /dev/null").ok();
    // A container that has the parent for itself also has its hardware address.
    sandbox.sh("ip link add p0 type veth peer name p1; ip link set p0 up; ip link set p1 up").ok();
    sandbox
        .sh("netns-add -n --id a | macvlan-attach --parent p0 --subnet 10.4.0.0/24 --mode passthru > a.json")
        .ok();
    let shown = sandbox.sh("ip -n a -d link show eth0; cat /sys/class/net/p0/address").ok();
    let address = shown.lines().last().unwrap();
    assert!(shown.contains("mode passthru") && shown.matches(address).count() == 2, "{shown}");
    sandbox.sh("macvlan-attach --check < a.json > /dev/null; unwind a > /dev/null; ip link del p0").ok();
    end(&sandbox, "", &before);
}

#[test]
fn what_is_missing_is_made_again() {
    let (sandbox, before) = sandbox();
    sandbox.sh("ip link add p0 type veth peer name p1; ip address add 10.4.0.1/24 dev p0; ip link set p0 up; ip link set p1 up").ok();
    sandbox.sh("netns-add -n --id a | macvlan-attach --parent p0 > a.json").ok();
    sandbox.sh("macvlan-attach --check < a.json > /dev/null").ok();
    for (breaks, missing, mends) in [
        (
            "ip -n a link del eth0",
            "link \"eth0\" in /run/netns/a",
            "macvlan-attach --repair < a.json > /dev/null",
        ),
        (
            "ip -n a address flush dev eth0",
            "address 10.4.0.2/24 of link \"eth0\" in /run/netns/a",
            "macvlan-attach --repair < a.json > /dev/null",
        ),
        ("ip -n a link set eth0 down", "link \"eth0\" set up in /run/netns/a", "net-repair a > /dev/null"),
        // The parent goes, and comes back.
        (
            "ip link del p0; ip link add p0 type veth peer name p1; ip address add 10.4.0.1/24 dev p0; ip link set p0 up; ip link set p1 up",
            "link \"eth0\" in /run/netns/a",
            "net-repair --all > /dev/null",
        ),
    ] {
        sandbox.sh(breaks).ok();
        let told = sandbox.sh("macvlan-attach --check < a.json > /dev/null").exits(1).stderr;
        assert!(
            told.lines().any(|line| line == format!("macvlan-attach: missing: {missing}")),
            "{breaks}: {told}"
        );
        sandbox.sh(mends).ok();
        sandbox.sh("macvlan-attach --check < a.json > /dev/null").ok();
        assert!(sandbox.within("a", "ip route").ok().contains("10.4.0.0/24"), "{breaks}");
    }
    // The link of somebody else in its place stays.
    sandbox.sh("ip -n a link del eth0; ip link add p5 netns a type veth peer name p6; ip -n a link set p5 name eth0").ok();
    let other = sandbox.sh("macvlan-attach --check < a.json > /dev/null").exits(1).stderr;
    assert!(other.contains("link \"eth0\" in /run/netns/a has another hardware address"), "{other}");
    sandbox
        .sh("macvlan-attach --undo < a.json > less.json; ip -n a link show eth0; ip -n a link del eth0")
        .ok();
    sandbox.sh("unwind a > /dev/null").ok();
    sandbox.sh("ip link del p0").ok();
    sandbox.outside("pkill socat || true").ok();
    sandbox.assert_as(&before);
}

#[test]
fn beside_a_bridge() {
    let (sandbox, before) = sandbox();
    start(
        &sandbox,
        "a",
        "bridge-attach front --subnet 10.5.0.0/24 | macvlan-attach --parent out0 --gateway-priority -1 | portmap -p 8080:80",
    );
    let a = read(&sandbox, "a");
    assert_eq!(a["networks"][0]["bridge"]["name"], "front");
    // A station of the wire reaches the container at its own address, others by the published port.
    sandbox.outside("ip address add 198.51.100.1/32 dev lo").ok();
    assert_eq!(sandbox.ask("outside", "TCP4:192.0.2.1:8080,bind=198.51.100.1"), "a 198.51.100.1");
    assert_eq!(sandbox.ask("outside", "TCP4:192.0.2.3:80"), "a 192.0.2.2");
    sandbox.sh("netns-add -n --id b | macvlan-attach --parent out0 > b.json").ok();
    for (stage, told) in [
        (
            "portmap -p 8081:80",
            "portmap: no port of the container can be published: it is on no bridge of this host\n\
            hint: attach it to another network first\n",
        ),
        (
            "egress-allow a.example",
            "egress-allow: interface \"eth0\" has no side on the host, where it could be restricted\n\
            hint: egress-allow works on what bridge-attach and veth-pair make\n",
        ),
        (
            "bridge-attach front --subnet 10.5.0.0/24 --gateway-priority -1 | portmap -p 8081:80",
            "portmap: the default route of the container is by network \"out0\", whose gateway is not this host\n\
            hint: give a bridge of this host the highest --gateway-priority\n",
        ),
    ] {
        assert_eq!(sandbox.sh(&format!("cat b.json | {stage} > /dev/null")).exits(1).stderr, told, "{stage}");
    }
    // The first attachment goes, and the other stays.
    sandbox.sh("portmap --undo < a.json | bridge-attach --undo > less.json").ok();
    let less = read(&sandbox, "less");
    assert_eq!(
        (less["networks"].as_array().map(Vec::len), &less["network"]["mode"]),
        (Some(1), &json!("macvlan"))
    );
    end(&sandbox, "a b", &before);
}

fn write(sandbox: &Sandbox, file: &str, network: &Value) {
    let directory = sandbox.root().join("networks");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(file), network.to_string()).unwrap();
}

/// The network pod as podman 5 writes it, with this change.
fn write_podman(sandbox: &Sandbox, change: &Value) {
    let mut network = json!({
        "name": "pod", "id": "c".repeat(64), "driver": "macvlan", "network_interface": "out0", "created": "2026-01-01T00:00:00Z",
        "subnets": [{"subnet": "192.0.2.0/24", "gateway": "192.0.2.2"}], "ipv6_enabled": false, "internal": false,
        "dns_enabled": false, "options": {"mode": "bridge", "mtu": "1300"}, "ipam_options": {"driver": "host-local"}
    });
    network.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    write(sandbox, "pod.json", &network);
}

/// The network cni as a list of CNI's plugins, with this change.
fn write_cni(sandbox: &Sandbox, change: &Value) {
    let mut plugin = json!({"type": "macvlan", "master": "out0", "mode": "vepa", "mtu": 1400,
        "ipam": {"type": "host-local", "subnet": "192.0.2.0/24", "routes": [{"dst": "0.0.0.0/0", "gw": "192.0.2.2"}, {"dst": "10.9.0.0/16", "gw": "192.0.2.7"}]}});
    plugin.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    write(sandbox, "cni.conflist", &json!({"cniVersion": "1.0.0", "name": "cni", "plugins": [plugin]}));
}

#[test]
fn networks_by_name() {
    let (sandbox, before) = sandbox();
    let subnets = "--subnet 192.0.2.0/24 --ip-range 192.0.2.64/26 --subnet 198.51.100.0/24";
    let made = sandbox
        .sh(&format!(
            "network-create wire --driver macvlan -o parent=out0 -o mode=private {subnets} --label a=b"
        ))
        .json();
    let shown = json!([made["driver"], made["network_interface"], made["options"], made["subnets"]]);
    let range = json!({"start_ip": "192.0.2.64", "end_ip": "192.0.2.127"});
    let subnet = json!({"subnet": "192.0.2.0/24", "gateway": "192.0.2.2", "lease_range": range});
    assert_eq!(
        shown,
        json!(["macvlan", "out0", {"mode": "private"}, [subnet, {"subnet": "198.51.100.0/24", "gateway": "198.51.100.1"}]])
    );
    write_podman(&sandbox, &json!({}));
    sandbox.sh("netns-add -n --id a | macvlan-attach wire > a.json; netns-add -n --id b | macvlan-attach pod > b.json").ok();
    let told = "jq -c '.networks[0] | [.name, .parent.mode, .cni.ips[].address, .cni.interfaces[0].mtu]' a.json b.json";
    assert_eq!(
        sandbox.sh(told).ok(),
        "[\"wire\",\"private\",\"192.0.2.64/24\",\"198.51.100.2/24\",1500]\n[\"pod\",\"bridge\",\"192.0.2.65/24\",1300]\n"
    );
    let listed =
        sandbox.sh("network-ls wire | jq -c '.[] | [.driver, .parent, .bridge, .subnets, .containers]'").ok();
    assert_eq!(listed, "[\"macvlan\",\"out0\",null,[\"192.0.2.0/24\",\"198.51.100.0/24\"],[\"a\"]]\n");
    for (command, told) in [
        (
            "bridge-attach wire",
            "bridge-attach: the driver of network \"wire\" is macvlan\nhint: macvlan-attach wire attaches a container to it\n",
        ),
        (
            "ipvlan-attach wire",
            "ipvlan-attach: the driver of network \"wire\" is macvlan\nhint: macvlan-attach wire attaches a container to it\n",
        ),
    ] {
        let refused = sandbox.sh(&format!("netns-add -n --id c | {command} > /dev/null")).exits(1);
        assert_eq!(refused.stderr, told);
        sandbox.sh("unwind c > /dev/null").ok();
    }
    let flag =
        sandbox.sh("netns-add -n --id c | macvlan-attach wire --mode vepa > /dev/null").exits(1).stderr;
    assert!(flag.contains("--mode is not for it"), "{flag}");
    sandbox.sh("unwind c > /dev/null").ok();
    for (flags, told) in [
        ("x --driver macvlan -o parent=out0 -o mode=l2", "a macvlan has no mode \"l2\""),
        ("x --driver macvlan -o parent=out0 -o bclim=3", "-o bclim is not for the driver macvlan"),
        ("x --driver macvlan -o parent=out0 --icc false", "--icc is not for the driver macvlan"),
        ("x -o parent=out0", "-o parent is not for the driver bridge"),
        ("x --driver macvlan -o parent=none0", "no interface \"none0\""),
    ] {
        let refused = sandbox.sh(&format!("network-create {flags}")).exits(1).stderr;
        assert_eq!(refused.lines().next(), Some(&*format!("network-create: {told}")), "{flags}");
    }
    sandbox.sh("unwind a b > /dev/null; network-rm wire pod > /dev/null").ok();
    end(&sandbox, "", &before);
}

#[test]
fn files_of_podman_that_are_not_carried_out() {
    let (sandbox, before) = sandbox();
    for (change, told) in [
        (json!({"options": {"mode": "l2"}}), "options.mode cannot be \"l2\""),
        (json!({"options": {"bclim": "2"}}), "options.bclim \"2\" is not carried out"),
        (json!({"ipam_options": {"driver": "dhcp"}}), "ipam_options.driver \"dhcp\" is not carried out"),
    ] {
        write_podman(&sandbox, &change);
        let refused = sandbox.sh("netns-add -n --id c | macvlan-attach pod > /dev/null").exits(1).stderr;
        assert!(refused.lines().next().is_some_and(|line| line.ends_with(told)), "{told}: {refused}");
        sandbox.sh("unwind c > /dev/null").ok();
    }
    write_podman(&sandbox, &json!({}));
    sandbox.sh("network-rm pod > /dev/null").ok();
    end(&sandbox, "", &before);
}

#[test]
fn files_of_cni() {
    let (sandbox, before) = sandbox();
    let cni = |change: Value| write_cni(&sandbox, &change);
    let told = "netns-add -n --id c | macvlan-attach cni | jq -c '.networks[0] | [.parent.mode, .parent.gateway, .cni.interfaces[0].mtu, [.cni.routes[]?.dst]]'; unwind c > /dev/null";
    cni(json!({}));
    assert_eq!(sandbox.sh(told).ok(), "[\"vepa\",\"192.0.2.2\",1400,[\"0.0.0.0/0\",\"10.9.0.0/16\"]]\n");
    // As with the plugin, there is no default route without one in `routes`.
    cni(json!({"ipam": {"type": "host-local", "subnet": "192.0.2.0/24"}, "mode": ""}));
    assert_eq!(sandbox.sh(told).ok(), "[\"bridge\",null,1400,[]]\n");
    for (change, told) in [
        (
            json!({"linkInContainer": true}),
            "setting \"linkInContainer\" of plugin \"macvlan\" is not carried out",
        ),
        (json!({"ipam": {"type": "dhcp"}}), "ipam \"dhcp\" is not carried out"),
        (json!({"mode": "l2"}), "mode cannot be \"l2\""),
    ] {
        cni(change);
        let refused = sandbox.sh("netns-add -n --id c | macvlan-attach cni > /dev/null").exits(1).stderr;
        assert!(refused.lines().next().is_some_and(|line| line.ends_with(told)), "{told}: {refused}");
        sandbox.sh("unwind c > /dev/null").ok();
    }
    cni(json!({}));
    sandbox.sh("network-rm cni > /dev/null").ok();
    end(&sandbox, "", &before);
}

#[test]
fn names_on_one_wire() {
    let (sandbox, before) = sandbox();
    sandbox.sh("netns-add -n --id db | macvlan-attach --parent out0 | name-serve > db.json").ok();
    sandbox.sh("netns-add -n --id web | macvlan-attach --parent out0 | name-serve > web.json").ok();
    let answer = sandbox.resolve("web", "db", "A");
    let addresses: Vec<_> = answer.addresses.iter().map(|(address, _)| address.to_string()).collect();
    assert_eq!((answer.rcode.as_str(), addresses), ("NOERROR", vec!["192.0.2.3".to_owned()]));
    end(&sandbox, "web db", &before);
}

#[test]
fn a_parent_that_is_down_connects_its_containers_later() {
    let sandbox = Sandbox::new();
    sandbox.sh("ip link add eth0 type veth peer name eth9; ip netns add far; ip link set eth0 up; ip link set eth0 down").ok();
    let before = sandbox.snapshot();
    let attach = "macvlan-attach --parent eth0 --subnet 10.9.0.0/24 --gateway 10.9.0.1";
    sandbox.sh(&format!("netns-add -n --id a | {attach} --ip 10.9.0.7 > a.json")).ok();
    let shown = sandbox.within("a", "ip -br link show eth0; ip route").ok();
    assert!(shown.contains("NO-CARRIER") && shown.contains("default via 10.9.0.1"), "{shown}");
    // The other side of the wire.
    sandbox.sh("ip link set eth0 up; ip link set eth9 netns far").ok();
    sandbox.sh("ip -n far address add 10.9.0.1/24 dev eth9; ip -n far link set eth9 up").ok();
    sandbox.serve("a", "TCP4-LISTEN:80", "a");
    wait_for("an answer", Duration::from_secs(10), || {
        sandbox.ask("far", "TCP4:10.9.0.7:80").starts_with("a 10.9.0.1")
    });
    sandbox.sh("unwind a > /dev/null; ip -n far link set eth9 netns 1; ip link set eth0 down").ok();
    end(&sandbox, "", &before);
}
